"""What each change against upstream buys: `production` with one setting after another changed back."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from ..config import Config, load_config
from ..core.errors import TrainingError, first_line
from ..core.table import Table
from ..data.dataset import Dataset
from ..evaluation.evaluate import evaluate
from ..training.train import train

#: what is changed back -> the settings that do it; together they are the preset `egstalker_paper`
PAPER_CHANGES: dict[str, dict[str, Any]] = {
    "opacity and colour from the tri-plane": {"attributes": "triplane"},
    "audio features in the audio token": {"audio_token": "features"},
    "every Gaussian attends to all tokens": {"token_views": "all"},
    "poses as tracked": {"pose_steps": 0},
    "slower positions": {"position_lr_init": 1.6e-4, "position_lr_final": 1.6e-6},
    "harmonics of degree 3": {"sh_degree": 3},
    "no noise on the mouth": {"mouth_noise": 0.0},
    "no discriminator of mouths": {"adversarial_share": 0.0},
    "up to 50,000 Gaussians": {"max_points": 50_000},
    "fainter Gaussians kept": {"opacity_threshold": 0.005},
}
BASE, ALL = "production", "all of them (egstalker_paper)"
SCORES = "psnr_composite", "psnr_head", "psnr_lips", "sharpness_lips", "lmd_mouth", "aperture_r"


def change_of(settings: Mapping[str, Any]) -> str:
    """Settings as text: `pose_steps: 0`."""
    return ", ".join(f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}"
                     for name, value in settings.items())


class Ablation:
    """Runs on one dataset that differ from `production` in one change each, and one with all changes.

    Args:
        ds: the dataset.
        folder: of the runs, each in its own folder; finished ones are not trained again.
        iterations: length of each run. The schedule is that of `production`, shortened in proportion.
        changes: name -> settings.
        settings: further ones, of all runs.
    """

    def __init__(self, ds: Dataset, folder: str | Path, iterations: int,
                 changes: Optional[Mapping[str, Mapping[str, Any]]] = None, **settings: Any):
        self.ds, self.folder = ds, Path(folder)
        full = load_config("production")
        schedule = {name: max(1, getattr(full, name) * iterations // full.iterations)
                    for name in ("coarse_iterations", "densify_from_iter", "densify_until_iter")}
        self.settings = {**schedule, "iterations": iterations, "checkpoint_interval": iterations, **settings}
        given = PAPER_CHANGES if changes is None else changes
        self.changes: dict[str, Mapping[str, Any]] = {BASE: {}, **given}
        if len(given) > 1:
            self.changes[ALL] = {name: value for change in given.values() for name, value in change.items()}
        self.done: dict[str, dict[str, Any]] = {}

    def config(self, name: str) -> Config:
        """The configuration of a run, by the name of its change."""
        return load_config("production", **{**self.settings, **self.changes[name]})

    def row(self, name: str) -> dict[str, Any]:
        """Train and score one run.

        Returns:
            `change`, `settings`, the `SCORES` on all validation frames (None: not measured), `gaussians`, `note`.
        """
        row = {"change": name, "settings": dict(self.changes[name]), **dict.fromkeys((*SCORES, "gaussians", "note"))}
        try:
            run = train(self.ds, self.config(name), self.folder / name.split(" (")[0].replace(" ", "_"))
        except TrainingError as error:  # a head that was lost is a result
            return {**row, "note": first_line(error)}
        scores = evaluate(run, "val")
        found = {key: scores[key] for key in SCORES if scores.get(key) is not None}
        note = None if "lmd_mouth" in found else scores["note"]
        return {**row, **found, "gaussians": len(run.load_head()), "note": note}

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a `row`, with its `difference` to `production` in dB (composite), which comes first; None: unknown."""
        self.done[row["change"]] = row
        base, own = self.done.get(BASE, {}).get("psnr_composite"), row["psnr_composite"]
        row["difference"] = None if base is None or own is None else own - base
        return row

    def rows(self) -> Iterator[dict[str, Any]]:
        """Train and score one run after another; each row as soon as it is known."""
        for name in self.changes:
            yield self.add(self.row(name))

    def table(self) -> Table:
        """All changes, with the values of the rows that are known."""
        cells = []
        for name, settings in self.changes.items():
            row = self.done.get(name, {})
            values = (row.get(key) for key in (*SCORES, "gaussians", "difference"))
            cells.append((name, change_of(settings), *values, row.get("note") or ""))
        return Table(("changed back to upstream's", "settings", "composite (dB)", "head (dB)", "lips (dB)",
                      "sharpness of the lips", "mouth landmarks (px)", "mouth opening r", "Gaussians",
                      "against production (dB)", "note"), cells,
                     f"What each change buys: {self.settings['iterations']} iterations, {len(self.ds.val_ids)} "
                     "validation frames" if self.done else "The changes, not measured")
