"""Comparison of two or more runs: settings and their effects, scores, cost."""
from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal, Optional, Sequence

import numpy as np

from ..core.errors import EgsError, InputError
from ..core.progress import clock
from ..core.table import Table
from ..data.dataset import Dataset
from ..evaluation.evaluate import SCORES, Scores, evaluate, saved_scores
from ..training import checkpoint
from ..training.run import Run, load_run
from . import cost
from .cost import MEBIBYTE, RunSummary, seconds_at
from .frame_cache import FrameCache
from .setting_effects import Differences, differences, with_presets

SCORED_FRAMES = 8   # validation frames behind the scores table, unless a run was scored on more


def compare(runs: Sequence[Run | str | Path], dataset: Optional[Dataset] = None) -> Comparison:
    """Compare runs that were trained on one dataset.

    Args:
        runs: two or more runs or run folders, each with a checkpoint; the newest checkpoints are compared.
        dataset: the dataset they must have been trained on; default: the first run's.

    Raises:
        InputError: fewer than two runs, the same run twice, or different datasets.
        DatasetError: not a run folder, or one without a checkpoint.
    """
    runs = [runs] if isinstance(runs, (Run, str, Path)) else runs
    opened = [r if isinstance(r, Run) else load_run(r) for r in runs]
    folders = list(dict.fromkeys(r.root.resolve() for r in opened))
    if len(folders) < 2 or len(folders) < len(opened):
        raise InputError("two or more different runs", ", ".join(str(r.root) for r in opened) or "none",
                         "Train another one, for instance with another preset, into its own folder.")
    for r in opened:
        r.pick()
    wanted = dataset.hash if dataset is not None else opened[0].manifest["dataset_hash"]
    if any(r.manifest["dataset_hash"] != wanted for r in opened):
        listed = "; ".join(f"'{r.root.name}' {r.manifest['dataset_hash']} ({r.manifest['dataset']})" for r in opened)
        raise InputError(f"runs trained on one dataset ({wanted})", listed,
                         "Scores on different clips or sizes say nothing about settings: train both on the same "
                         "dataset folder.")
    return Comparison(opened)


def select(paths: Sequence[str | Path], dataset: Dataset) -> tuple[list[Run], dict[str, str]]:
    """Open the runs that can be compared on a dataset: trained on it, with a checkpoint, each once.

    Returns:
        the runs in the given order, and path -> reason of those left out.

    Raises:
        InputError: none can.
    """
    chosen: dict[Path, Run] = {}
    left_out: dict[str, str] = {}
    for path in map(str, paths):
        try:
            run = load_run(path)
            run.pick()
            if run.manifest["dataset_hash"] == dataset.hash:
                if not (run.root / run.manifest["dataset"]).is_dir():
                    run = load_run(path, dataset.root)  # one of the two was moved
                chosen.setdefault(run.root.resolve(), run)
            else:
                left_out[path] = (f"trained on dataset {run.manifest['dataset_hash']}, not on {dataset.hash} in "
                                  f"'{dataset.root}'")
        except EgsError as error:
            left_out[path] = str(error)
    if not chosen:
        raise InputError(f"a trained run on the dataset in '{dataset.root}'",
                         "; ".join(f"{path}: {why}" for path, why in left_out.items()) or "no run folders",
                         "Train one with notebooks 2 and 3, or give its folder.")
    return list(chosen.values()), left_out


class Comparison:
    """Compared runs; made by `compare`. Displays their settings, cost and saved scores in a notebook.

    Attributes:
        runs: in the given order.
        names: names of their folders, with the parent's name where those are equal.
        dataset: that they were trained on.
    """

    def __init__(self, runs: list[Run]):
        self.runs, self.dataset = runs, runs[0].dataset
        names = [r.root.resolve().name for r in runs]
        if len(set(names)) < len(names):
            names = [f"{r.root.resolve().parent.name}/{r.root.resolve().name}" for r in runs]
        # still equal (deeper folders): numbered
        self.names = names if len(set(names)) == len(names) else [f"{n} ({i})" for i, n in enumerate(names, 1)]

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.names)})"

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._tables()))

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self._tables())

    def _tables(self) -> list[Table]:
        known = [saved_scores(r, "val") for r in self.runs]
        common = set.intersection(*[set(k) for k in known])
        scores = [_score_table(self.names, [k[max(common)] for k in known])] if common else []
        return [self.parameters(), self.costs(), *scores]

    @cached_property
    def renders(self) -> FrameCache:
        """Their renderings, each made once and cached."""
        return FrameCache(self.runs)

    def parameters(self, presets: bool = False) -> Differences:
        """The settings in which the runs differ, and the effect of each.

        Args:
            presets: include the presets that none of the runs was trained with.
        """
        configs = {name: r.config for name, r in zip(self.names, self.runs)}
        return differences(with_presets(configs) if presets else configs)

    def costs(self) -> Table:
        """Cost of each run: iterations, frames, time, Gaussians, size of the checkpoint."""
        columns = []
        for r in self.runs:
            number = r.pick()
            folder = checkpoint.folder(r.root, number)
            sizes = {p.name: p.stat().st_size / MEBIBYTE for p in folder.iterdir() if p.is_file()}
            seconds = [s for i, s in seconds_at(r).items() if i <= number]
            columns.append((number, number * r.config.batch_size, clock(seconds[-1]) if seconds else None,
                            len(r.added_at(number)), round(sum(sizes.values()), 2), round(sizes[checkpoint.HEAD], 2),
                            r.manifest["device"]))
        about = ("iterations", "frames seen (iterations x batch size)", "training time (min:s)", "Gaussians",
                 "checkpoint (MiB)", "of which needed to render (MiB)", "device")
        return Table(("cost", *self.names), list(zip(about, *columns)), "Cost of training")

    def scores(self, split: Literal["train", "val", "all"] = "val", max_frames: Optional[int] = SCORED_FRAMES) -> Table:
        """Scores of all runs on the same frames; saved scores are read, missing ones are evaluated.

        All runs are scored on as many frames as the one that was scored on the most: means over different frames cannot
        be compared.

        Args:
            split: of the frames.
            max_frames: at least the first so many of them; None: all.
        """
        return _score_table(self.names, self.measure(split, max_frames))

    def measure(self, split: Literal["train", "val", "all"] = "val", max_frames: Optional[int] = SCORED_FRAMES
                ) -> list[Scores]:
        """The values of the table `scores`, one `Scores` for each run."""
        total = len(self.dataset.split(split))
        saved = [saved_scores(r, split) for r in self.runs]
        count = max([min(max_frames or total, total), *[n for known in saved for n in known]])
        return [known[count] if count in known else evaluate(r, split, max_frames=count if count < total else None)
                for r, known in zip(self.runs, saved)]

    def summaries(self, max_frames: Optional[int] = SCORED_FRAMES) -> list[RunSummary]:
        """Quality and cost of each run; PSNR on the same validation frames (see `scores`)."""
        scores = self.measure("val", max_frames)
        return [cost.summarize(r, name, s["psnr_composite"]) for r, name, s in zip(self.runs, self.names, scores)]

    def time_to(self, wanted: Optional[Sequence[float]] = None) -> Table:
        """When each run first reached a PSNR (dB), see `cost.time_to`."""
        return cost.time_to(self.runs, self.names, wanted)

    def advice(self, more: Sequence[Run] = ()) -> Table:
        """Which preset to use for which purpose, by the speed of these and `more` runs, see `cost.advice`."""
        return cost.advice([*self.runs, *more])


def _score_table(names: Sequence[str], done: Sequence[Scores]) -> Table:
    """Scores by run, the best one marked; a lag and a number of frames have no best."""
    rows = []
    for key, (unit, what) in SCORES.items():
        values = [s.get(key) for s in done]
        values = [None if v is None or not np.isfinite(v) else v for v in values]
        numbers = [v for v in values if v is not None]
        lower = key.startswith("lmd") or key == "seam"
        best = (min if lower else max)(numbers) if numbers and not key.endswith("lag") and "frames" not in key else None
        shown = [None if v is None else f"{v:.3f}{' *' if v == best else ''}" if isinstance(v, float) else v
                 for v in values]
        rows.append((key, *shown, unit, what))
    split, frames = done[0]["split"], ", ".join(str(s["frames"]) for s in done)
    return Table(("score", *names, "unit", "meaning"), rows, f"Scores on {split} frames ({frames}); * is the best")
