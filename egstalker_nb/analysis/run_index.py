"""The run folders below some folders, and which of them can be compared."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Optional, Sequence

from ..core.errors import EgsError
from ..evaluation.evaluate import saved_scores
from ..training.run import CONFIG, MANIFEST, Run, load_run

#: folders of runs and datasets that never contain a run
SKIPPED = {"checkpoints", "snapshots", "renders", "figures", "scores", "frames", "masks", "notebooks",
           "tensorboard", "wandb"}
COLLAPSED = "collapse_"  # prefix of the runs of `collapse.py`


@dataclass
class RunInfo:
    """A run folder and what is known about it without rendering.

    Attributes:
        path: the folder.
        name: shortest unique end of the path.
        dataset: folder of its dataset.
        hash: of the dataset.
        size: edge of its frames in px.
        preset: that its configuration was loaded from.
        iterations: of the newest checkpoint.
        planned: length of the whole run, iterations.
        psnr: dB on validation frames; None if unknown.
        source: where `psnr` is from.
        points: number of Gaussians; None if unknown.
        device: it was trained on.
        problem: why it cannot be used, or "".
    """

    path: Path
    name: str = ""
    dataset: str = ""
    hash: str = ""
    size: int = 0
    preset: str = ""
    iterations: int = 0
    planned: int = 0
    psnr: Optional[float] = None
    source: str = ""
    points: Optional[int] = None
    device: str = ""
    problem: str = ""

    def mismatch(self, hash: str) -> str:
        """Why it cannot be compared on the dataset with this hash; "" if it can."""
        if self.problem or not hash or self.hash == hash:
            return self.problem
        return f"other dataset ({self.hash[:4]}, {self.size} px)"


def find_runs(*places: str | Path) -> list[RunInfo]:
    """All run folders (`config.yaml` and `manifest.json`) in `places`, at any depth, sorted by dataset and path.

    Folders that do not exist or contain no run are ignored; a damaged run is listed with its problem.
    """
    folders: dict[Path, None] = {}
    for place in places:
        for folder, below, files in os.walk(Path(place)):
            below[:] = sorted(b for b in below if b not in SKIPPED and not b.startswith((".", COLLAPSED)))
            if CONFIG in files and MANIFEST in files:
                folders.setdefault(Path(folder).resolve())
    found = [describe_run(folder) for folder in folders]
    for run, name in zip(found, short_names([r.path for r in found])):
        run.name = name
    return sorted(found, key=lambda r: (r.dataset, r.hash, str(r.path)))


def describe_run(path: Path) -> RunInfo:
    """What is known about one run folder."""
    try:
        run = load_run(path)
        place = (path / run.manifest["dataset"]).resolve()
        found = RunInfo(path, path.name, str(place), run.manifest["dataset_hash"], run.manifest.get("dataset_size", 0),
                        run.config.preset, planned=run.config.iterations, device=run.manifest.get("device", ""))
    except EgsError as error:
        return RunInfo(path, path.name, problem=f"cannot be read: {error.found}")
    if not run.iterations:
        found.problem = "no checkpoint yet"
        return found
    found.iterations = run.pick()
    try:
        found.psnr, found.source = known_psnr(run)
        points = [r["points"] for r in run.metrics() if "points" in r and r["iteration"] <= found.iterations]
        found.points = points[-1] if points else None
    except (OSError, ValueError, KeyError) as error:
        found.problem = f"damaged metrics or scores: {type(error).__name__}: {error}"
    return found


def known_psnr(run: Run) -> tuple[Optional[float], str]:
    """PSNR (dB) of the newest checkpoint on validation frames, or None, and where it is from."""
    saved = saved_scores(run, "val")
    if saved:
        return saved[max(saved)]["psnr_composite"], f"{max(saved)} frames scored"
    rows = [r for r in run.metrics("eval") if r["iteration"] <= run.pick()]
    return (rows[-1]["val_psnr"], f"during training, at {rows[-1]['iteration']}") if rows else (None, "")


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last components of each path, as many as make all names unique."""
    for count in range(1, 1 + max((len(p.parts) for p in paths), default=0)):
        names = ["/".join(p.parts[-count:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in paths]


def runs_by_dataset(found: Iterable[RunInfo]) -> dict[str, list[RunInfo]]:
    """Dataset hash -> its usable runs."""
    groups: dict[str, list[RunInfo]] = {}
    for run in found:
        if not run.problem:
            groups.setdefault(run.hash, []).append(run)
    return groups
