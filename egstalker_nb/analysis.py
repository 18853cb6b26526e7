"""How a head grows: when Gaussians are born and die, and where. Figures and tables of the densification notebook."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import plots
from .config import Config, load_config
from .control import middle_frame
from .dataset import Dataset
from .errors import DatasetError, InputError
from .figures import projected, rendered
from .gaussians import SH_C0, make_gaussians
from .regions import REGIONS, region_of
from .run import Run
from .tables import Table
from .training import train

if TYPE_CHECKING:
    import plotly.graph_objects

LESSON_ITERATIONS, LESSON_POINTS = 300, 2_000
CLOUD_POINTS = 20_000       # more make a browser slow
OLD = "#8a8a8a"             # Gaussians that are there from the start
AGES = "plasma"             # colour map of the iteration of birth
#: the settings that decide growth
SETTINGS = {
    "iterations": "the whole run", "coarse_iterations": "end of the static stage",
    "densify_from_iter": "growth begins after this iteration", "densify_until_iter": "and ends before this one",
    "densification_interval": "iterations between rounds",
    "densify_grad_threshold_coarse": "gradient from which a Gaussian grows, coarse stage",
    "densify_grad_threshold_fine": "the same in the fine stage",
    "opacity_threshold": "less opaque Gaussians are pruned", "max_points": "cap on their number",
}
REGION_COLOURS = ("#c1440e", "#1b3a6b", "#a58bc4", "#3d8f6e", "#e0a526", "#8a8a8a")


# ---- the schedule ----

def first_round(cfg: Config) -> int:
    """The iteration at which the first growth round would take place in an endless run."""
    return (cfg.densify_from_iter // cfg.densification_interval + 1) * cfg.densification_interval


def rounds(cfg: Config) -> range:
    """Iterations of the growth rounds a configuration leads to; gsplat's window is open at both ends."""
    return range(first_round(cfg), min(cfg.densify_until_iter, cfg.iterations + 1), cfg.densification_interval)


def schedule(*runs: Run) -> Table:
    """The settings that decide growth and how many rounds follow from them, one column for each run."""
    def facts(run: Run) -> dict[str, Any]:
        planned = rounds(run.config)
        return {**{name: getattr(run.config, name) for name in SETTINGS},
                "planned": f"{len(planned)}: {planned[0]} ... {planned[-1]}" if planned else "none",
                "done": len(run.metrics("densify"))}

    about = {**SETTINGS, "planned": "rounds that follow from the above", "done": "rounds that took place"}
    columns = [facts(run) for run in runs]
    rows = [(name, *[c[name] for c in columns], meaning) for name, meaning in about.items()]
    return Table(("setting", *[run.root.name for run in runs], "meaning"), rows, "What decides growth")


def grew(run: Run) -> bool:
    """Whether any Gaussian was cloned or split."""
    return any(r["cloned"] + r["split"] for r in run.metrics("densify"))


def explain(run: Run) -> str:
    """Why the run grew or did not, in a few sentences with its own numbers."""
    c, planned, done = run.config, rounds(run.config), run.metrics("densify")
    now = run.pick()
    if grew(run):
        return (f"'{run.root.name}' grew: {len(done)} rounds up to iteration {now} took it from {start_count(run)} to "
                f"{done[-1]['points']} Gaussians (cap {c.max_points}).")
    if not planned:
        return (f"'{run.root.name}' cannot grow. A round takes place every {c.densification_interval} iterations "
                f"between densify_from_iter ({c.densify_from_iter}) and densify_until_iter ({c.densify_until_iter}): "
                f"the first one would be at iteration {first_round(c)}, but the run ends at iteration {c.iterations}. "
                f"It keeps the {start_count(run)} Gaussians it started with, one for each landmark.")
    if not done:
        return (f"'{run.root.name}' has not grown yet: its first round comes at iteration {planned[0]}, and its newest "
                f"checkpoint is of iteration {now}. Train on.")
    return (f"'{run.root.name}' had {len(done)} rounds, but no Gaussian's mean gradient exceeded the threshold (coarse "
            f"{c.densify_grad_threshold_coarse:g}, fine {c.densify_grad_threshold_fine:g}). Lower it.")


# ---- the lesson run ----

def lesson_config(iterations: int = LESSON_ITERATIONS, **overrides: Any) -> Config:
    """`quick_test` with a growth window inside its own length, one frame a step, and a low cap.

    Args:
        iterations: of the whole run. overrides: settings that replace the lesson's.

    Raises:
        InputError: fewer than 40 iterations, which leave no room for rounds.
    """
    if iterations < 40:
        raise InputError("at least 40 iterations", str(iterations), "Choose a few hundred.")
    n = iterations
    settings = {"preset": "growth lesson", "iterations": n, "batch_size": 1, "coarse_iterations": n // 2,
                "densify_from_iter": n // 4, "densify_until_iter": 3 * n // 4, "densification_interval": n // 20,
                "max_points": LESSON_POINTS, "checkpoint_interval": n, "eval_interval": n // 8}
    return load_config("quick_test", **{**settings, **overrides})


def lesson_run(run: Run, iterations: int = LESSON_ITERATIONS) -> Run:
    """A short run that does grow, on the dataset of `run`; it lies in that run's folder and is made only once.

    Raises:
        InputError: too few iterations. DatasetError: the dataset of `run` is gone or changed.
    """
    return train(run.dataset, lesson_config(iterations), run.root / f"lesson_{iterations}")


# ---- births and deaths ----

def start_count(run: Run) -> int:
    """The number of Gaussians before the first round."""
    for r in run.metrics("densify"):
        return r["points"] - r["cloned"] - r["split"] + r["pruned"]
    return len(run.dataset.mean_face)


def history(run: Run) -> tuple[list[int], list[int]]:
    """Iterations and the number of Gaussians from each on, as steps: the start, each round, the newest row."""
    steps = [(0, start_count(run))] + [(r["iteration"], r["points"]) for r in run.metrics("densify")]
    last = max((r["iteration"] for r in run.metrics("train")), default=0)
    steps.append((max(last, steps[-1][0]), steps[-1][1]))
    return [i for i, _ in steps], [n for _, n in steps]


def ledger(run: Run) -> Table:
    """Where the Gaussians of the newest checkpoint come from: start + births - deaths, beside its own count."""
    done = [r for r in run.metrics("densify") if r["iteration"] <= run.pick()]
    cloned, split, pruned = (sum(r[k] for r in done) for k in ("cloned", "split", "pruned"))
    rows = [("at the start", start_count(run), "one for each landmark"),
            ("born by cloning", cloned, "small ones: each gets a copy"),
            ("born by splitting", 2 * split, "large ones: two smaller ones each"),
            ("gone by splitting", -split, "the large ones they replace"),
            ("pruned", -pruned, f"opacity below {run.config.opacity_threshold:g}")]
    rows.append(("sum", sum(r[1] for r in rows), "all lines above"))
    rows.append(("in the checkpoint", len(run.born()), f"iteration {run.pick()}"))
    return Table(("Gaussians", "number", ""), rows, f"Births and deaths in '{run.root.name}'")


def census(run: Run) -> Table:
    """Gaussians by region: at the start, born in all rounds, alive in the newest checkpoint (where they are now)."""
    mean_face = torch.from_numpy(run.dataset.mean_face)
    gaussians = run.load_head(device="cpu").gaussians
    start = torch.bincount(region_of(mean_face, mean_face), minlength=len(REGIONS))
    alive = torch.bincount(region_of(gaussians["means"], mean_face), minlength=len(REGIONS))
    births = {name: sum(r["births"][name] for r in run.metrics("densify")) for name in REGIONS}
    rows = [(name, int(start[k]), births[name], int(alive[k])) for k, name in enumerate(REGIONS)]
    return Table(("region", "at the start", "born", "alive"), rows, f"Gaussians of '{run.root.name}' by region")


# ---- figures ----

def _phases(axis, run: Run) -> None:
    """Mark the ends of the coarse stage and of the run, and shade the window, also where it opens after the end."""
    c = run.config
    last = c.iterations if rounds(c) else max(c.iterations, min(1.5 * c.densify_from_iter, c.densify_until_iter))
    if c.densify_from_iter < last:
        axis.axvspan(c.densify_from_iter, min(c.densify_until_iter, last), color="#e0a526", alpha=0.15, lw=0,
                     label="densification")
    if 0 < c.coarse_iterations < c.iterations:
        axis.axvline(c.coarse_iterations, color="#666666", linewidth=1.2, label="end of the coarse stage")
    if c.iterations < last:
        axis.axvline(c.iterations, color="#c1440e", linestyle="--", linewidth=1.5, label="end of the run")
    axis.set_xlim(0, last)


def points_figure(run: Run, other: Optional[Run] = None) -> Figure:
    """Number of Gaussians over iterations with the phases marked; a second run beside it on its own axis."""
    shown = [r for r in (run, other) if r is not None]
    figure, axes = plots.subplots(1, len(shown), width=4.8 * len(shown) + 1.5, height=3.4)
    for axis, r in zip(axes, shown):
        iterations, points = history(r)
        plots.curve(axis, iterations, points, "Gaussians", drawstyle="steps-post", linewidth=2)
        _phases(axis, r)
        if points[-1] > 0.5 * r.config.max_points:
            axis.axhline(r.config.max_points, color="#c1440e", linestyle=":", label="max_points")
        axis.set_ylim(0, 1.15 * max(points))
        plots.label(axis, "iteration", "number of Gaussians", r.root.name)
        axis.legend(loc="lower right", framealpha=0.9)
    return figure


def _grown(run: Run) -> list[dict[str, Any]]:
    """The rows of the rounds.

    Raises:
        DatasetError: there was no round.
    """
    done = run.metrics("densify")
    if not done:
        raise DatasetError("a run with growth rounds", explain(run), "Use analysis.lesson_run(run) for one that grows.")
    return done


def births_figure(run: Run) -> Figure:
    """Births (up) and deaths (down) in each round, and the births by region of the face."""
    done = _grown(run)
    at, width = np.array([r["iteration"] for r in done]), 0.8 * run.config.densification_interval
    split = np.array([r["split"] for r in done])
    figure, (left, right) = plots.subplots(1, 2, width=12, height=3.8)
    base = np.zeros(len(done))
    for counts, colour, name in ((np.array([r["cloned"] for r in done]), "#3d8f6e", "born: cloned"),
                                 (2 * split, "#1b3a6b", "born: split in two")):
        left.bar(at, counts, width, bottom=base, color=colour, label=name)
        base = base + counts
    pruned = np.array([r["pruned"] for r in done])
    left.bar(at, -split, width, color="#a58bc4", label="gone: were split")
    left.bar(at, -pruned, width, bottom=-split, color="#c1440e", label="gone: pruned")
    left.axhline(0, color="black", linewidth=0.8)
    base = np.zeros(len(done))
    for name, colour in zip(REGIONS, REGION_COLOURS):
        counts = np.array([r["births"][name] for r in done])
        right.bar(at, counts, width, bottom=base, color=colour, label=name)
        base = base + counts
    left.set_ylim(-1.15 * max((split + pruned).max(), 1), left.get_ylim()[1])  # else the lowest bar ends on the frame
    for axis in (left, right):
        axis.set_axisbelow(True)
    plots.label(left, "iteration", "Gaussians per round", "births and deaths")
    plots.label(right, "iteration", "births per round", "births by region (after pruning)")
    return figure


def born_on_frame(run: Run, i: Optional[int] = None, iteration: Optional[int] = None) -> Figure:
    """The living Gaussians on frame i, coloured by the iteration of their birth, beside what they render to.

    Args:
        i: frame number; default the one nearest to the mean pose. iteration: checkpoint, default the newest.
    """
    ds, number = run.dataset, run.pick(iteration)
    i = middle_frame(ds) if i is None else i
    head, born = run.load_head(number), run.born(number).numpy()
    pixels, depth = projected(ds, i, head.gaussians["means"])
    picture = rendered(head, ds, [i], deform=number > run.config.coarse_iterations)[0]
    dim = (0.35 * ds.frame(i) + 0.65 * 255).astype(np.uint8)
    old, new = int((born == 0).sum()), int((born > 0).sum())
    figure = plots.pictures([ds.frame(i), dim, dim, picture],
                            [f"frame {i}", f"{old} from the start", f"{new} born since", "rendered"], edge=3.2)
    nearest_last = np.argsort(-depth)  # what is in front is drawn last
    for axis, chosen in ((figure.axes[1], born == 0), (figure.axes[2], born > 0)):
        order = nearest_last[chosen[nearest_last]]
        colour = {"c": OLD} if axis is figure.axes[1] else {"c": born[order], "cmap": AGES}
        dots = axis.scatter(*pixels[order].T - 0.5, s=5, linewidths=0, **colour)
        axis.set(xlim=(-0.5, ds.size - 0.5), ylim=(ds.size - 0.5, -0.5))
    if new:
        figure.colorbar(dots, ax=figure.axes[2], label="born at iteration", shrink=0.7)
    return figure


def snapshots(run: Run) -> dict[str, dict[str, Tensor]]:
    """Raw Gaussians (see `make_gaussians`) at the start, after the coarse stage and at the end, where they exist."""
    ds, c, have = run.dataset, run.config, run.iterations
    start = make_gaussians(torch.from_numpy(ds.mean_face), torch.zeros(len(ds.mean_face), 3), c.sh_degree)
    found = {"start": {k: v.detach() for k, v in start.items()}}
    for number in [i for i in have if i == c.coarse_iterations] + have[-1:]:
        name = f"after coarse ({number})" if number == c.coarse_iterations else f"end ({number})"
        found[name] = {k: v.detach() for k, v in run.load_head(number, "cpu").gaussians.items()}
    return found


def size_px(gaussians: dict[str, Tensor], ds: Dataset) -> np.ndarray:
    """Standard deviation of each Gaussian, geometric mean of its axes, in px of a frame at the mean distance: [N]."""
    distance = float(np.linalg.norm(ds.w2c[:, :3, 3], axis=1).mean())
    return gaussians["scales"].mean(1).exp().numpy() * ds.focal / distance


def histograms(run: Run) -> Figure:
    """Distribution of size and opacity at the start, after the coarse stage and at the end."""
    figure, (left, right) = plots.subplots(1, 2, width=10, height=3.4)
    stages = snapshots(run)
    sizes = {name: size_px(g, run.dataset) for name, g in stages.items()}
    low, high = (f(s for v in sizes.values() for s in np.percentile(v, (0.5, 99.5))) for f in (min, max))
    for style, (name, g) in enumerate(stages.items()):
        share = np.full(len(g["means"]), 100 / len(g["means"]))
        colour, line = plots.STYLES[style]
        look = {"histtype": "step", "color": colour, "linestyle": line, "linewidth": 1.8, "weights": share,
                "label": f"{name}: {len(share)} Gaussians"}
        left.hist(sizes[name], bins=np.geomspace(low / 1.1, high * 1.1, 32), **look)
        opacity = g["opacities"].sigmoid().numpy()
        if np.ptp(opacity) < 1e-3:  # all alike at the start: as a bar of 100 % it would flatten the others
            right.axvline(opacity[0], color=colour, linestyle=line, linewidth=1.8,
                          label=f"{name}: all {opacity[0]:.2f}")
        else:
            right.hist(opacity, bins=np.linspace(0, 1, 32), **look)
    left.set_xscale("log")
    for axis in (left, right):
        axis.set_ylim(0, 1.4 * axis.get_ylim()[1])  # room for the legend
    plots.label(left, f"standard deviation (px of {run.dataset.size})", "share (%)", "size")
    plots.label(right, "opacity (0 ... 1)", "share (%)", "opacity")
    return figure


def cloud(run: Run, iteration: Optional[int] = None) -> plotly.graph_objects.Figure:
    """The Gaussians in 3D, to be turned with the mouse; a menu colours them by birth, opacity or their own colour.

    Centres in head units (the mean distance of the landmarks from their centre is 1). Of more than `CLOUD_POINTS`
    an even selection is shown. Also saved as `figures/cloud.html` in the run folder.
    """
    import plotly.graph_objects as go

    g, born = run.load_head(iteration, "cpu").gaussians, run.born(iteration).numpy()
    chosen = np.unique(np.linspace(0, len(born) - 1, min(len(born), CLOUD_POINTS)).astype(int))
    x, y, z = g["means"].numpy()[chosen].T
    own = (255 * (0.5 + SH_C0 * g["sh0"][chosen, 0]).clamp(0, 1)).int().tolist()
    opacity = g["opacities"].sigmoid().numpy()[chosen]
    ways = {"birth (iteration)": (born[chosen], "Plasma"), "opacity": (opacity, "Viridis"),
            "own colour": ([f"rgb({r},{g},{b})" for r, g, b in own], None)}
    buttons = [{"label": name, "method": "restyle", "args": [{
        "marker.color": [values], "marker.colorscale": [scale], "marker.showscale": [scale is not None],
        "marker.colorbar.title.text": [name]}]} for name, (values, scale) in ways.items()]
    # the head's y points down and its z away from the camera; plotly's third axis points up
    marker = {"size": 2.5, "color": born[chosen], "colorscale": "Plasma", "showscale": True,
              "colorbar": {"title": {"text": "birth (iteration)"}}}
    figure = go.Figure(go.Scatter3d(x=x, y=z, z=-y, mode="markers", marker=marker,
                                    hovertemplate="%{x:.2f}, %{y:.2f}, %{z:.2f}<extra></extra>"))
    figure.update_layout(
        width=720, height=560, margin={"l": 0, "r": 0, "t": 40, "b": 0},
        title=f"{len(chosen)} of {len(born)} Gaussians of '{run.root.name}'",
        updatemenus=[{"buttons": buttons, "x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top"}],
        scene={"xaxis_title": "to the right", "yaxis_title": "away", "zaxis_title": "up", "aspectmode": "data",
               "camera": {"eye": {"x": 0.4, "y": -1.7, "z": 0.3}}})
    target = Path(run.root) / "figures"
    target.mkdir(parents=True, exist_ok=True)
    figure.write_html(target / "cloud.html", include_plotlyjs="directory")
    return figure
