"""Figures of snapshots: Gaussians over time in several colourings; gradients and the effect of thresholds."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from ..analysis import growth
from ..analysis.growth import preview
from ..face.regions import REGIONS, region_of
from ..training.densification import is_small
from ..training.run import Run
from ..training.snapshots import Snapshot
from . import plots
from .growth_figures import HATCH, REGION_COLOURS

# ---- snapshots side by side ----

@dataclass(frozen=True)
class Colouring:
    """One way to colour Gaussians.

    Attributes:
        title: with the unit.
        scale: names of the colour map in matplotlib and in plotly; empty for discrete colours.
        values: function of a run and a snapshot, gives one value per Gaussian.
    """

    title: str
    scale: tuple[str, str]
    values: Callable[[Run, Snapshot], np.ndarray]


def _regions(run: Run, s: Snapshot) -> np.ndarray:
    return region_of(torch.from_numpy(s.means), torch.from_numpy(run.dataset.mean_face)).numpy()


def _size(run: Run, s: Snapshot) -> np.ndarray:
    return growth.size_px(s.scales, run.dataset)


COLOURINGS = {
    "age": Colouring("age (iterations)", ("plasma", "Plasma"), lambda run, s: (s.iteration - s.added_at).astype(float)),
    "opacity": Colouring("opacity (0 ... 1)", ("viridis", "Viridis"), lambda run, s: s.opacity),
    "scale": Colouring("standard deviation (px)", ("cividis", "Cividis"), _size),
    "gradient": Colouring("gradient (1/1000 per half image)", ("magma", "Magma"), lambda run, s: 1000 * s.gradient),
    "face region": Colouring("face region", ("", ""), _regions),
    "own colour": Colouring("own colour", ("", ""), lambda run, s: s.colour),
}


def limits(run: Run, some: Sequence[Snapshot], name: str) -> tuple[float, float]:
    """One range of a colouring for all the given snapshots: percentiles 2 and 98; opacity 0 ... 1."""
    if name in ("opacity", "face region"):
        return (0.0, 1.0) if name == "opacity" else (-0.5, len(REGIONS) - 0.5)
    values = np.concatenate([COLOURINGS[name].values(run, s) for s in some])
    low, high = np.percentile(values, (2, 98))
    return (0.0 if name in ("age", "gradient") else float(low)), float(max(high, low + 1e-6))


def spread(iterations: Sequence[int], count: int) -> list[int]:
    """`count` of the iterations, evenly spaced by index, both ends included."""
    chosen = np.linspace(0, len(iterations) - 1, min(count, len(iterations))).round().astype(int)
    return [iterations[k] for k in chosen]


def snapshots_figure(run: Run, iterations: Sequence[int], names: Sequence[str] = tuple(COLOURINGS)) -> Figure:
    """Gaussians from the front: a row for each snapshot, a column for each colouring, one colour scale per column.

    Args:
        run: with snapshots.
        iterations: of the snapshots.
        names: of the colourings, see `COLOURINGS`.

    Raises:
        DatasetError: no snapshot of an iteration.
    """
    some = [run.snapshot(i) for i in iterations]
    figure, axes = plots.subplots(len(some), len(names), width=2.15 * len(names) + 0.6, height=2.35)
    reach = np.percentile(np.abs(np.concatenate([s.means[:, :2] for s in some])), 99.5)
    for row, s in enumerate(some):
        order = np.argsort(-s.means[:, 2])  # nearest last
        for column, name in enumerate(names):
            axis = axes[row * len(names) + column]
            axis.scatter(*s.means[order, :2].T, s=2.5, linewidths=0, **_paint(run, some, s, name, order))
            axis.set(xlim=(-1.05 * reach, 1.05 * reach), ylim=(1.15 * reach, -1.15 * reach), aspect="equal",
                     xticks=[], yticks=[], xlabel=" ", ylabel=" ")
            if not column:
                axis.set_ylabel(f"iteration {s.iteration}\n{len(s)} Gaussians")
            if row == len(some) - 1 and name != "own colour":
                below = axes[column::len(names)]
                bar = figure.colorbar(_scale(run, some, name), ax=list(below), location="bottom", shrink=0.9,
                                      aspect=14, pad=0.01)
                bar.set_label(COLOURINGS[name].title, fontsize=8)
                bar.ax.tick_params(labelsize=7)
                if name == "face region":
                    bar.set_ticks(range(len(REGIONS)), labels=[n.split(",")[0].removeprefix("other ") for n in REGIONS],
                                  rotation=60)
            if not row:
                axis.set_title(name, fontsize=10)
            if name == "gradient" and not s.gradient.any():
                axis.text(0.5, 0.04, "not measured", transform=axis.transAxes, ha="center", fontsize=8)
    figure.suptitle(f"from the front; each box is {2.1 * reach:.1f} head units wide", fontsize=10)
    return figure


def side_figure(run: Run, iterations: Sequence[int], name: str = "age") -> Figure:
    """Gaussians from the side, the face to the left: one panel for each snapshot.

    Args:
        run: with snapshots.
        iterations: of the snapshots.
        name: of the colouring, see `COLOURINGS`.

    Raises:
        DatasetError: no snapshot of an iteration.
    """
    some = [run.snapshot(i) for i in iterations]
    figure, axes = plots.subplots(1, len(some), width=2.9 * len(some) + 1, height=3.2)
    reach = np.percentile(np.abs(np.concatenate([s.means for s in some])), 99.5)
    for axis, s in zip(axes, some):
        order = np.argsort(-s.means[:, 0])
        axis.scatter(*s.means[order][:, [2, 1]].T, s=3, linewidths=0, **_paint(run, some, s, name, order))
        axis.set(xlim=(-1.1 * reach, 1.1 * reach), ylim=(1.1 * reach, -1.1 * reach), aspect="equal")
        plots.label(axis, "away from the camera (head units)", "down (head units)" if axis is axes[0] else " ",
                    f"iteration {s.iteration}: {len(s)} Gaussians")
    if name != "own colour":
        figure.colorbar(_scale(run, some, name), ax=list(axes), label=COLOURINGS[name].title, shrink=0.8)
    return figure


def _paint(run: Run, some: Sequence[Snapshot], s: Snapshot, name: str, order: np.ndarray) -> dict[str, Any]:
    values = COLOURINGS[name].values(run, s)[order]
    if name == "own colour":
        return {"c": values / 255}
    if name == "gradient" and not values.any():
        return {"c": "#c9c9c9"}
    scale = _scale(run, some, name)
    return {"c": values, "cmap": scale.cmap, "norm": scale.norm}


def _scale(run: Run, some: Sequence[Snapshot], name: str) -> ScalarMappable:
    palette = ListedColormap(REGION_COLOURS) if name == "face region" else COLOURINGS[name].scale[0]
    return ScalarMappable(Normalize(*limits(run, some, name)), palette)


# ---- gradients and thresholds ----

def gradient_bins(snapshot: Snapshot, bins: int = 48) -> np.ndarray:
    """Bin edges of the gradient histogram [bins + 1], evenly spaced in the logarithm; see `gradient_counts`."""
    some = snapshot.gradient[snapshot.gradient > 0]
    low, high = np.percentile(some, (1, 100)) if len(some) else (1e-5, 1e-2)
    return np.geomspace(min(low, 1e-4), max(high * 1.05, 2e-3), bins + 1)


def gradient_counts(snapshot: Snapshot, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians in each bin [bins]: those small enough to be cloned, and those that would be split.

    Gradients outside the edges count in the first or last bin.
    """
    inside = np.clip(snapshot.gradient.astype(np.float64), edges[0], edges[-1])  # float64: as precise as the edges
    clones = is_small(torch.from_numpy(snapshot.scales)).numpy()
    return np.histogram(inside[clones], edges)[0], np.histogram(inside[~clones], edges)[0]


def after_round(run: Run, snapshot: Snapshot, edges: np.ndarray, cap: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of Gaussians after the densification step, for a threshold at each edge: with the cap, and without."""
    def points(limit: int) -> np.ndarray:
        return np.array([preview(snapshot, run.config, t, limit).points for t in edges])

    return points(cap), points(10**9)


def threshold_figure(run: Run, iteration: int, threshold: float, cap: int) -> Figure:
    """Histogram of the gradients with several thresholds, and the number of Gaussians after the step for each.

    The thresholds are those of the run, of two presets, and a chosen one.

    Args:
        run: with snapshots.
        iteration: of the snapshot.
        threshold: the chosen one, image-plane gradient per half image size.
        cap: on the number of Gaussians.

    Raises:
        DatasetError: no snapshot of that iteration.
    """
    now = run.snapshot(iteration)
    edges = gradient_bins(now)
    figure, axes = plots.subplots(2, 1, width=9.5, height=2.9)
    small, large = gradient_counts(now, edges)
    bars: dict[str, Any] = {"width": np.diff(edges), "align": "edge", **HATCH}
    axes[0].bar(edges[:-1], large, color="#1b3a6b", label="large: would be split", **bars)
    axes[0].bar(edges[:-1], small, bottom=large, color="#8fc9b0", hatch="...",
                label="small: would be cloned", **bars)
    capped, free = after_round(run, now, edges, cap)
    plots.curve(axes[1], edges, free, "without a cap", 1)
    plots.curve(axes[1], edges, capped, f"max_points {cap}", 0, linewidth=2)
    marks = {**growth.settings_to_try(run, iteration), "your line": threshold}
    for style, (name, value) in enumerate(marks.items()):
        o = preview(now, run.config, value, cap)
        for axis in axes:
            axis.axvline(value, color="black", linestyle=("-", "--", ":", "-.")[style], linewidth=1.8,
                         label=f"{name} {value:.2g}: {o.cloned} cloned, {o.split} split, {o.held} excluded by the cap"
                         if axis is axes[0] else None)
    for axis in axes:
        axis.set(xscale="log", xlim=(edges[0], edges[-1]))
    unit = "mean image-plane gradient since the last step (per half image size)"
    plots.label(axes[0], unit, "Gaussians per bin", f"{len(now)} Gaussians at iteration {iteration}")
    plots.label(axes[1], "threshold (same unit)", "Gaussians after\nthe step", "result of each threshold")
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return figure
