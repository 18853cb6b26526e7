"""Figures of the report of a sweep: the same frames of its best and worst runs, and the spread over seeds."""
from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..core.errors import EgsError, first_line
from ..evaluation.evaluate import SCORES
from ..metrics.image_metrics import psnr
from ..rendering.inspection import ground_truth, render_frames
from ..rendering.renderer import Renderer
from ..scheduling.ranking import runs_to_show, seed_groups, spread_over_seeds
from ..scheduling.storage import cache_folder, is_remote
from ..scheduling.sweep import Sweep
from ..training.run import Run, load_run
from . import plots

SHOWN_FRAMES = 3     # of each run
MIN_DECIBELS = 1.5   # that an axis spans
MAX_SETTINGS = 30    # whose seeds are drawn
UNITS = {"val_psnr": "dB", "psnr": "dB", "seconds": "s", "seconds_training": "s",
         **{name: unit for name, (unit, _) in SCORES.items()}}


def score_label(name: str) -> str:
    """A number of a run as a label of an axis, with its unit."""
    words = {"seconds": "run time", "seconds_training": "training time", "points": "Gaussians"}.get(name, name)
    return f"{words} ({UNITS[name]})" if UNITS.get(name) else words


def score_range(name: str, values: Sequence[float]) -> Optional[tuple[float, float]]:
    """Ends of an axis with these scores: in dB not so narrow that noise looks like a difference; else None, for any."""
    if UNITS.get(name) != "dB":
        return None
    low, high = min(values), max(values)
    pad = 0.1 * (high - low) + max(0.0, MIN_DECIBELS - (high - low)) / 2
    return low - pad, high + pad


def blank(words: str) -> Figure:
    """A figure that only says why there is nothing to draw."""
    figure, (axis,) = plots.subplots(width=7, height=0.8)
    axis.axis("off")
    axis.text(0.5, 0.5, plots.plain(words), ha="center", va="center")
    return figure


def frames(sweep: Sweep) -> Figure:
    """Validation frames: the video above, then the renderings of the best runs and of the worst.

    Only runs on the dataset of the best one are shown, so that all show the same frames.
    """
    shown, problem = _renderable(sweep)
    if not shown:
        return blank(problem or "No run has a trained head to show.")
    ds = shown[0][1].dataset
    ids = np.unique(np.linspace(ds.val_ids[0], ds.val_ids[-1], SHOWN_FRAMES).astype(int)).tolist()
    truth = ground_truth(ds, ids)
    images, names = list(truth), [f"video, frame {i}" for i in ids]
    for title, run in shown:
        rendered = render_frames(Renderer.from_run(run, device="cpu"), ids)
        images += list(rendered)
        decibels = [f"{psnr(image, real):.1f} dB" for image, real in zip(rendered, truth)]
        names += [f"{title}\n{decibels[0]}", *decibels[1:]]
    figure = plots.image_grid(images, names, columns=len(ids), edge=3.0)
    figure.suptitle(plots.plain(f"the best by {sweep.file.best}, and the worst" if len(shown) > 1 else
                                "the only run that can be shown"), fontsize=10)
    return figure


def _renderable(sweep: Sweep) -> tuple[list[tuple[str, Run]], str]:
    """Title and run of those to show that can be rendered here; and why one cannot."""
    rows = {row["run"]: row for row in sweep.rows()}
    metric, found, problem = sweep.file.best.metric, list[tuple[str, Run]](), ""
    chosen = runs_to_show(sweep)
    for k, name in enumerate(chosen):
        try:
            run = load_run(sweep.open(name), _dataset(sweep, name))
            run.pick()
            if run.dataset.hash and (not found or run.dataset.hash == found[0][1].dataset.hash):
                place = "worst" if k and k == len(chosen) - 1 else f"{k + 1}."
                found.append((f"{place} {'-'.join(name.split('-')[-2:])}: {metric} {rows[name][metric]:.4g}", run))
        except EgsError as error:  # its checkpoints were removed, or its dataset lies on another computer
            problem = f"{name} cannot be shown: {first_line(error, 160)}"
    return found, problem


def _dataset(sweep: Sweep, name: str) -> Optional[Path]:
    """The dataset folder of a run on this computer, also if the sweep was moved; None: where the run says."""
    (run,) = (run for run in sweep.runs if run.id == name)
    if run.after:
        place = sweep.run_folder(run.after).root / "dataset"
    else:
        place = cache_folder(run.dataset) if is_remote(run.dataset) else Path(run.dataset)
    return place if place.is_dir() else None


def seed_spread(sweep: Sweep) -> Figure:
    """The score of each setting: its runs as dots, mean and standard deviation over seeds as a bar."""
    groups = seed_groups(sweep)
    if not groups:
        return blank(f"No finished run has the score '{sweep.file.best.metric}'.")
    drawn = groups[:MAX_SETTINGS]
    figure, (axis,) = plots.subplots(width=9, height=max(1.6, 0.42 * len(drawn) + 1))
    at = np.arange(len(drawn))[::-1]
    for place, group in zip(at, drawn):
        axis.plot(group.values, [place] * len(group.values), "o", color=plots.STYLES[3][0], markersize=5)
        axis.errorbar(group.mean, place, xerr=group.std, fmt="|", markersize=14, color=plots.STYLES[0][0], capsize=4,
                      linewidth=1.5)
    axis.set(ylim=(-0.7, len(drawn) - 0.3),
             xlim=score_range(sweep.file.best.metric, [value for group in drawn for value in group.values]))
    axis.set_yticks(at, [plots.plain(_short(group.dataset, group.name)) for group in drawn], fontsize=8)
    spread = spread_over_seeds(groups)
    title = "dots: runs; bars: mean and standard deviation over seeds" if spread else "one run for each setting"
    more = f" ({len(groups) - len(drawn)} more)" if len(groups) > len(drawn) else ""
    return plots.label(axis, score_label(sweep.file.best.metric), f"setting{more}", title).figure  # type: ignore


def _short(dataset: str, name: str) -> str:
    whole = f"{dataset}: {name}" if dataset else name
    return whole if len(whole) <= 60 else f"{whole[:57]}..."

