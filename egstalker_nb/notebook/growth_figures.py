"""Figures of densification over a run: its schedule, the Gaussians added and removed, their age, scale and opacity."""
from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis import growth
from ..analysis.growth import KIND_LABELS, by_region
from ..config import Config, densification_steps, first_densification_step, loadable
from ..face.regions import REGIONS
from ..rendering.inspection import project_points, render_frames
from ..rendering.motion import middle_frame
from ..rendering.renderer import Renderer
from ..training.run import Run
from . import plots

INITIAL_COLOUR = "#8a8a8a"  # of the Gaussians that are there from the start
AGE_COLOURS = "plasma"      # colour map of the iteration at which Gaussians were added
REGION_COLOURS = ("#c1440e", "#1b3a6b", "#a58bc4", "#3d8f6e", "#e0a526", "#c9c9c9")
REGION_HATCHES = ("", "//", "xx", "..", "\\\\", "--")
#: what a densification step does -> colour, hatch, label
KIND_LOOKS = {"cloned": ("#3d8f6e", "..", "added by cloning"), "split": ("#1b3a6b", "", "added by splitting"),
              "replaced": ("#a58bc4", "//", "replaced by splitting"), "pruned": ("#c1440e", "xx", "pruned")}
HATCH: dict[str, Any] = {"edgecolor": "white", "linewidth": 0}


# ---- the schedule ----

PHASES = (("coarse", "#c9c9c9", ""), ("densification", "#e0a526", "///"), ("refinement", "#7fb09a", "..."))


def phases(c: Config) -> dict[str, tuple[int, int]]:
    """First and last iteration of each phase of a run; equal where it has none.

    Densification is the part of its window that the run reaches; refinement is what follows it and the coarse stage.
    """
    begin, end = min(c.densify_from_iter, c.iterations), min(c.densify_until_iter, c.iterations)
    refined = max(c.coarse_iterations, end if end > begin else 0)
    return {"coarse": (0, c.coarse_iterations), "densification": (begin, end),
            "refinement": (min(refined, c.iterations), c.iterations)}


def schedule_figure(*runs: Run) -> Figure:
    """Phases of every preset, and of the given runs, over iterations: all of them, and the first ones enlarged.

    Solid: the phases that a run of this length reaches. Dashed outline: the part of the densification window beyond its
    end.
    """
    configs = loadable()
    configs.update({f"run '{r.root.name}'": r.config for r in runs if r.config != configs.get(r.config.preset)})
    longest = max(c.iterations for c in configs.values())
    figure, axes = plots.subplots(1, 2, width=12.5, height=1.4 + 0.62 * len(configs))
    for axis, last, title in zip(axes, (1.02 * longest, 1600), ("all iterations", "the first iterations, enlarged")):
        for row, c in enumerate(configs.values()):
            _lane(axis, row, c, last)
        axis.set(xlim=(0, last), ylim=(len(configs) - 0.4, -0.6), yticks=range(len(configs)),
                 yticklabels=configs if axis is axes[0] else [""] * len(configs))
        plots.label(axis, "iteration", "preset or run", title)
        axis.grid(axis="y", visible=False)
    for name, colour, hatch in PHASES:
        axes[0].bar(0, 0, color=colour, hatch=hatch, label=name, edgecolor="white")
    axes[0].bar(0, 0, color="none", edgecolor="black", linestyle="--", label="after the end of the run")
    axes[0].plot([], [], "|", color="black", markersize=12, markeredgewidth=2.5, label="end of the run")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def _lane(axis: Axes, row: int, c: Config, last: float) -> None:
    """One configuration: coarse stage and refinement above, the window below, the end, and the number of steps."""
    spans = phases(c)
    for (name, colour, hatch), (y, high) in zip(PHASES, ((row - 0.3, 0.28), (row, 0.28), (row - 0.3, 0.28))):
        begin, end = spans[name]
        axis.barh(y + high / 2, end - begin, high, left=begin, color=colour, hatch=hatch, **HATCH)
    left = max(spans["densification"][1], c.densify_from_iter)
    if left < c.densify_until_iter:
        axis.barh(row + 0.14, c.densify_until_iter - left, 0.28, left=left, color="none", edgecolor="black",
                  linestyle="--", linewidth=1)
    axis.plot([c.iterations] * 2, [row - 0.36, row + 0.34], color="black", linewidth=2.5)
    planned = densification_steps(c)
    words = (f"{len(planned)} steps: {planned[0]} ... {planned[-1]}" if planned
             else f"no step: the first would be at {first_densification_step(c)}, the run ends at {c.iterations}")
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
    if last > 2000:
        end = max(c.iterations, 0 if planned else c.densify_until_iter)
        side, shift = ("right", -0.012) if end > 0.6 * last else ("left", 0.012)
        axis.text(end + shift * last, row + 0.14, words, va="center", ha=side, fontsize=8.5, bbox=white)
    elif first_densification_step(c) < last:
        at = first_densification_step(c), row + 0.14
        axis.plot(*at, marker="v", color="black" if planned else "white", markeredgecolor="black")
        axis.annotate(f"first step {at[0]}" + ("" if planned else ", too late"), at, (9, -3),
                      textcoords="offset points", fontsize=8, bbox=white)


def _mark_phases(axis: Axes, run: Run) -> None:
    """Mark the ends of the coarse stage and of the run, and shade the window, also where it opens after the end."""
    c = run.config
    last = float(c.iterations)
    if not densification_steps(c):
        last = max(last, min(1.5 * c.densify_from_iter, c.densify_until_iter))
    if c.densify_from_iter < last:
        axis.axvspan(c.densify_from_iter, min(c.densify_until_iter, last), color="#e0a526", alpha=0.15, lw=0,
                     label="densification")
    if 0 < c.coarse_iterations < c.iterations:
        axis.axvline(c.coarse_iterations, color="#666666", linewidth=1.2, label="end of the coarse stage")
    if c.iterations < last:
        axis.axvline(c.iterations, color="#c1440e", linestyle="--", linewidth=1.5, label="end of the run")
    axis.set_xlim(0, last)


def points_figure(run: Run, other: Optional[Run] = None) -> Figure:
    """Number of Gaussians over iterations with the phases marked; a second run beside it on axes of its own."""
    shown = [r for r in (run, other) if r is not None]
    figure, axes = plots.subplots(1, len(shown), width=4.8 * len(shown) + 1.5, height=3.4)
    for axis, r in zip(axes, shown):
        iterations, points = growth.gaussian_counts(r)
        plots.curve(axis, iterations, points, "Gaussians", drawstyle="steps-post", linewidth=2)
        _mark_phases(axis, r)
        if points[-1] > 0.5 * r.config.max_points:
            axis.axhline(r.config.max_points, color="#c1440e", linestyle=":", label="max_points")
        axis.set_ylim(0, 1.15 * max(points))
        plots.label(axis, "iteration", "number of Gaussians", r.root.name)
        axis.legend(loc="lower right", framealpha=0.9)
    return figure


def counts(run: Run) -> dict[str, np.ndarray]:
    """Counts of each densification step, whole head: kind (see `KIND_LOOKS`) -> [steps] int, negative where removed."""
    done = run.metrics("densify")
    cloned, split, pruned = (np.array([r[k] for r in done]) for k in ("cloned", "split", "pruned"))
    return {"cloned": cloned, "split": 2 * split, "replaced": -split, "pruned": -pruned}


def stack(axis: Axes, at: np.ndarray, width: float, bars: Sequence[tuple[np.ndarray, str, str, str]]) -> None:
    """Stacked bars, positive counts upwards and negative ones downwards.

    Args:
        axis: where they are drawn.
        at: [n] their positions.
        width: of a bar, in units of x.
        bars: counts [n], colour, hatch and name of each layer.
    """
    up, down = np.zeros(len(at)), np.zeros(len(at))
    for values, colour, hatch, name in bars:
        axis.bar(at, values, width, bottom=np.where(values < 0, down, up), color=colour, hatch=hatch, label=name,
                 **HATCH)
        up, down = up + np.maximum(values, 0), down + np.minimum(values, 0)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_ylim(1.15 * min(down.min(), -0.02 * up.max()), 1.05 * max(up.max(), 1))
    axis.set_axisbelow(True)


def densification_figure(run: Run) -> Figure:
    """Gaussians added (up) and removed (down) by each densification step: in all, and by region of the face.

    Raises:
        DatasetError: the run had no densification step.
    """
    found, done = by_region(run), run.metrics("densify")
    at, width = np.array([r["iteration"] for r in done]), 0.8 * run.config.densification_interval
    figure, axes = plots.subplots(2, 2, width=12, height=3.2)
    stack(axes[0], at, width, [(n, *KIND_LOOKS[kind]) for kind, n in counts(run).items()])
    plots.label(axes[0], "iteration of the step", "Gaussians per step", "whole head, by kind")
    for axis, (kind, values) in zip(axes[1:], found.items()):
        looks = zip(values.T, REGION_COLOURS, REGION_HATCHES, REGIONS)
        stack(axis, at, width, [look for look in looks if look[0].any()])
        plots.label(axis, "iteration of the step", "Gaussians per step",
                    f"{KIND_LABELS[kind]}: {values.sum()} in all, by region")
        if not values.any():
            axis.set(yticks=[0], ylim=(-1, 1), xlim=axes[0].get_xlim())
            axis.text(0.5, 0.6, "none", transform=axis.transAxes, ha="center")
    return figure


def added_on_frame(run: Run, i: Optional[int] = None, iteration: Optional[int] = None) -> Figure:
    """Centres of the Gaussians on frame i, coloured by the iteration at which they were added, and the rendering.

    Args:
        run: a trained run.
        i: frame number; default: the one nearest to the mean pose.
        iteration: of the checkpoint; default: the newest.
    """
    ds, number = run.dataset, run.pick(iteration)
    i = middle_frame(ds) if i is None else i
    renderer, added_at = Renderer.from_run(run, number), run.added_at(number).numpy()
    pixels, depth = project_points(ds, renderer.w2c[i], renderer.head.gaussians["means"])
    rendering = render_frames(renderer, [i])[0]
    dim = (0.35 * ds.frame(i) + 0.65 * 255).astype(np.uint8)
    old, new = int((added_at == 0).sum()), int((added_at > 0).sum())
    figure = plots.image_grid([ds.frame(i), dim, dim, rendering],
                              [f"frame {i}", f"{old} from the start", f"{new} added since", "rendering"], edge=3.2)
    nearest_last = np.argsort(-depth)  # nearest last
    for axis, chosen in ((figure.axes[1], added_at == 0), (figure.axes[2], added_at > 0)):
        order = nearest_last[chosen[nearest_last]]
        colour: dict[str, Any] = {"c": INITIAL_COLOUR}
        if axis is figure.axes[2]:
            colour = {"c": added_at[order], "cmap": AGE_COLOURS}
        x, y = pixels[order].T - 0.5
        dots = axis.scatter(x, y, s=5, linewidths=0, **colour)
        axis.set(xlim=(-0.5, ds.size - 0.5), ylim=(ds.size - 0.5, -0.5))
    if new:
        figure.colorbar(dots, ax=figure.axes[2], label="added at iteration", shrink=0.7)
    return figure


def histograms(run: Run) -> Figure:
    """Distributions of scale and opacity at the start, after the coarse stage and at the end."""
    figure, (left, right) = plots.subplots(1, 2, width=10, height=3.4)
    found = growth.stages(run)
    sizes = {name: growth.size_px(g["scales"], run.dataset) for name, g in found.items()}
    low, high = (f(s for v in sizes.values() for s in np.percentile(v, (0.5, 99.5))) for f in (min, max))
    for style, (name, g) in enumerate(found.items()):
        share = np.full(len(g["means"]), 100 / len(g["means"]))
        colour, line = plots.STYLES[style]
        look = {"histtype": "step", "color": colour, "linestyle": line, "linewidth": 1.8, "weights": share,
                "label": f"{name}: {len(share)} Gaussians"}
        left.hist(sizes[name], bins=np.geomspace(low / 1.1, high * 1.1, 32), **look)
        opacity = g["opacities"].sigmoid().numpy()
        if np.ptp(opacity) < 1e-3:  # all equal at the start: a bar of 100 % would flatten the others
            right.axvline(opacity[0], color=colour, linestyle=line, linewidth=1.8,
                          label=f"{name}: all {opacity[0]:.2f}")
        else:
            right.hist(opacity, bins=np.linspace(0, 1, 32), **look)
    left.set_xscale("log")
    for axis in (left, right):
        axis.set_ylim(0, 1.4 * axis.get_ylim()[1])  # space for the legend
    plots.label(left, f"standard deviation (px of {run.dataset.size})", "share (%)", "scale")
    plots.label(right, "opacity (0 ... 1)", "share (%)", "opacity")
    return figure
