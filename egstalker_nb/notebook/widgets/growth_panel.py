"""Densification over a run: Gaussians in 3D with an iteration slider, the same without a kernel, counts per step."""
from __future__ import annotations

from functools import lru_cache
from typing import Any, Optional

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from ...analysis import growth
from ...core.errors import EgsError, InputError
from ...core.files import make_folder
from ...core.table import Table
from ...face.regions import REGIONS
from ...training.run import Run
from ...training.snapshots import Snapshot
from ..growth_figures import KIND_LOOKS, REGION_COLOURS, counts, densification_figure
from ..snapshot_figures import COLOURINGS, limits, side_figure, snapshots_figure, spread
from .base import INK, Panel, Plot, blank_image, choices, encode, in_style, plotly_text
from .canvas import Canvas

CLOUD_POINTS = 20_000   # more make a browser slow
PAGE_POINTS, PAGE_SNAPSHOTS = 2_500, 9
REGION_SYMBOLS = ("circle", "diamond", "cross", "x", "square", "circle-open")
REGION_PATTERNS = ("", "/", "x", ".", "\\", "-")
KIND_PATTERNS = {"cloned": ".", "split": "", "replaced": "/", "pruned": "x"}
CAMERA = {"eye": {"x": 0.45, "y": -1.9, "z": 0.3}}  # front view: the head's y points down, its z away
HOVER = ("%{text}<br>added at iteration %{customdata[0]}, %{customdata[1]} iterations old"
         "<br>opacity %{customdata[2]:.2f}<br>standard deviation %{customdata[3]:.2f} px"
         "<br>gradient %{customdata[4]:.2f} / 1000<extra></extra>")


def subsample(snapshot: Snapshot, count: int) -> np.ndarray:
    """Indices of at most `count` Gaussians, evenly spaced."""
    return np.unique(np.linspace(0, len(snapshot) - 1, min(len(snapshot), count)).astype(int))


def positions(snapshot: Snapshot, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Positions in plotly's axes, the third of which points up."""
    x, y, z = snapshot.means[chosen].T.astype(np.float32)
    return {"x": x, "y": z, "z": -y}


def colour_scale(name: str) -> Any:
    """Plotly's colour scale for a colouring."""
    if name != "face region":
        return COLOURINGS[name].scale[1] or None
    n = len(REGIONS)
    return [[(k + end) / n, colour] for k, colour in enumerate(REGION_COLOURS) for end in (0, 1)]


def scene(reach: np.ndarray) -> dict[str, Any]:
    """Axes that are the same for all iterations: they extend to +-reach [3], head units."""
    names = ("right", "away", "up")
    axes = {f"{axis}axis": {"title": {"text": f"{name} (head units)"}, "range": [-float(r), float(r)]}
            for axis, name, r in zip("xyz", names, reach)}
    longest = max(reach)
    return {**axes, "aspectmode": "manual", "aspectratio": {a: float(r / longest) for a, r in zip("xyz", reach)},
            "camera": CAMERA, "uirevision": "kept"}


class GrowthCloud(Panel):
    """Gaussians in 3D, with a slider over the iterations of the run's snapshots and a menu of colourings.

    Args:
        run: with snapshots.
        colour: a key of `COLOURINGS`.
        iteration: of a snapshot; default: the newest.

    Attributes:
        iteration, colour: what is shown.
        counts: a line of numbers about it.
    """

    def __init__(self, run: Run, colour: str = "age", iteration: Optional[int] = None):
        if colour not in COLOURINGS:
            raise InputError(f"one of {', '.join(COLOURINGS)}", repr(colour), "Choose one of them.")
        self.run, self.colour, self.iterations = run, colour, run.snapshots
        self.snapshot, self.range = lru_cache(64)(run.snapshot), lru_cache(self._range)
        self.iteration = self.iterations[-1] if iteration is None else iteration
        if self.iteration not in self.iterations:
            raise InputError(f"a snapshot: {', '.join(map(str, self.iterations))}", str(iteration), "Choose one.")

    @property
    def counts(self) -> str:
        """Statistics of the current snapshot."""
        s = self.snapshot(self.iteration)
        old, shown = int((s.added_at == 0).sum()), len(subsample(s, CLOUD_POINTS))
        scale = growth.size_px(s.scales, self.run.dataset).mean()
        measured = f"gradient {1000 * s.gradient.mean():.2f} / 1000" if s.gradient.any() else "gradient not measured"
        return (f"iteration {self.iteration}: {len(s)} Gaussians" + (f" ({shown} shown)" if shown < len(s) else "")
                + f", {old} initial, {len(s) - old} added by densification; on average: "
                f"opacity {s.opacity.mean():.2f}, scale {scale:.1f} px, {measured}")

    def show(self, iteration: Optional[int] = None, colour: Optional[str] = None) -> None:
        """Show another snapshot or colouring; the camera stays."""
        self.iteration = self.iteration if iteration is None else iteration
        self.colour = self.colour if colour is None else colour
        self.refresh()

    def redraw(self) -> None:
        s = self.snapshot(self.iteration)
        with self.canvas.changing():
            self.drawn.data[0].update(self.points(s))
        self.line.value = self.counts
        if s.picture is not None:
            self.image.value = encode(s.picture)

    def points(self, s: Snapshot) -> dict[str, Any]:
        """Positions, colours, symbols and hover values of a snapshot, as attributes of a plotly trace."""
        chosen = subsample(s, CLOUD_POINTS)
        every = {name: c.values(self.run, s)[chosen] for name, c in COLOURINGS.items()}
        region, title = every["face region"], COLOURINGS[self.colour].title
        bar = {"title": {"text": title, "side": "right"}, "thickness": 14, "tickvals": None, "ticktext": None}
        if self.colour == "face region":
            bar.update(tickvals=list(range(len(REGIONS))), ticktext=list(REGIONS))
        own = self.colour == "own colour"
        low, high = self.range(self.colour)
        marker = {"size": 3, "color": [f"rgb({r},{g},{b})" for r, g, b in every["own colour"].tolist()] if own
                  else every[self.colour].astype(np.float32), "colorscale": colour_scale(self.colour),
                  "cmin": None if own else low, "cmax": None if own else high, "showscale": not own, "colorbar": bar,
                  "symbol": [REGION_SYMBOLS[k] for k in region] if self.colour == "face region" else "circle"}
        facts = np.stack([s.added_at[chosen], every["age"], every["opacity"], every["scale"], every["gradient"]], 1)
        return {**positions(s, chosen), "marker": marker, "text": [REGIONS[k] for k in region],
                "customdata": facts.astype(np.float32)}

    def _range(self, name: str) -> tuple[float, float]:
        """One colour range for all snapshots."""
        return limits(self.run, [self.snapshot(i) for i in spread(self.iterations, 12)], name)

    def build(self) -> ipywidgets.Widget:
        s = self.snapshot(self.iteration)
        last = self.snapshot(self.iterations[-1])
        every = np.abs(np.stack(list(positions(last, subsample(last, CLOUD_POINTS)).values())))
        figure = go.Figure(go.Scatter3d(mode="markers", hovertemplate=HOVER))
        figure.update_layout(width=640, height=520, margin={"l": 0, "r": 0, "t": 10, "b": 0}, font={"color": INK},
                             template="plotly_white", paper_bgcolor="white", uirevision="kept",
                             scene=scene(1.1 * np.percentile(every, 99.5, axis=1)))
        self.drawn, self.canvas = figure, Canvas(figure)
        self.canvas.layout.width = f"{figure.layout.width}px"
        self.when = ipywidgets.SelectionSlider(options=self.iterations, value=self.iteration, description="iteration",
                                               style={"description_width": "7em"}, continuous_update=True,
                                               layout=ipywidgets.Layout(width="26em"))
        self.play = ipywidgets.Play(max=len(self.iterations) - 1, value=self.when.index, interval=700)
        ipywidgets.jslink((self.play, "value"), (self.when, "index"))
        self.menu = choices("colour", list(COLOURINGS), self.colour, width="16em")
        self.line = ipywidgets.Label()
        self.when.observe(self.guarded(lambda change: self.show(iteration=change["new"])), "value")
        self.menu.observe(self.guarded(lambda change: self.show(colour=change["new"])), "value")
        shown, self.image = [self.canvas], blank_image(280)
        if s.picture is not None:
            caption = ipywidgets.Label(f"frame {s.frame}, rendered at this iteration")
            shown.append(ipywidgets.VBox([self.image, caption]))
        return ipywidgets.VBox([ipywidgets.HBox([self.play, self.when, self.menu]), self.line,
                                ipywidgets.HBox(shown), self.note])

    def still(self) -> Figure:
        return snapshots_figure(self.run, spread([self.iterations[0], *growth.recorded_steps(self.run),
                                                  self.iterations[-1]], 4))


def cloud_page(run: Run) -> Plot:
    """The Gaussians of a few snapshots in 3D without a kernel: a slider, a menu of colourings, fewer points.

    Also saved as `figures/cloud.html` in the run folder.
    """
    panel = GrowthCloud(run)
    some = [run.snapshot(i) for i in spread(panel.iterations, PAGE_SNAPSHOTS)]
    chosen = [subsample(s, PAGE_POINTS) for s in some]
    ways = {name: _restyle(run, panel, name, some, chosen) for name in COLOURINGS if name != "own colour"}
    start, last = ways["age"], len(some) - 1
    traces = [go.Scatter3d(mode="markers", name=f"iteration {s.iteration}", visible=k == last, marker={
        "size": 3, "color": start["marker.color"][k], "colorscale": "Plasma", "cmin": start["marker.cmin"],
        "cmax": start["marker.cmax"], "showscale": True, "colorbar": {"title": {"text": COLOURINGS["age"].title}}},
        hovertemplate="%{marker.color:.3g}<extra></extra>", **positions(s, c))
        for k, (s, c) in enumerate(zip(some, chosen))]
    steps = [{"label": str(s.iteration), "method": "restyle", "args": [{"visible": [j == k for j in range(len(some))]}]}
             for k, s in enumerate(some)]
    buttons = [{"label": name, "method": "restyle", "args": [way]} for name, way in ways.items()]
    figure = go.Figure(traces)
    reach = np.abs(np.stack(list(positions(some[-1], chosen[-1]).values())))
    figure.update_layout(
        width=760, height=680, margin={"l": 0, "r": 0, "t": 40, "b": 90}, showlegend=False, font={"color": INK},
        paper_bgcolor="white", scene=scene(1.1 * np.percentile(reach, 99.5, axis=1)),
        template="plotly_white",
        title={"text": f"'{plotly_text(run.root.name)}': {len(some[0])} ... {len(some[-1])} Gaussians"
               + (f", {PAGE_POINTS} shown" if len(chosen[-1]) < len(some[-1]) else ""),
               "font": {"size": 14}},
        sliders=[{"steps": steps, "active": last, "currentvalue": {"prefix": "iteration "}, "pad": {"t": 10}}],
        updatemenus=[{"buttons": buttons, "x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top"}])
    figure.write_html(make_folder(run.root / "figures") / "cloud.html", include_plotlyjs="directory")
    return Plot(figure, lambda: side_figure(run, spread([s.iteration for s in some], 4)))


def _restyle(run: Run, panel: GrowthCloud, name: str, some: list[Snapshot], chosen: list[np.ndarray]) -> dict[str, Any]:
    """What a menu entry changes in all traces; rounded numbers keep the page small."""
    low, high = panel.range(name)
    scale = colour_scale(name)
    values = [COLOURINGS[name].values(run, s)[c].astype(float).round(2).tolist() for s, c in zip(some, chosen)]
    region = name == "face region"
    return {"marker.color": values, "marker.cmin": low, "marker.cmax": high,
            "marker.colorscale": [scale] if region else scale,
            "marker.colorbar.title.text": COLOURINGS[name].title,
            "marker.colorbar.tickvals": [list(range(len(REGIONS)))] if region else None,
            "marker.colorbar.ticktext": [list(REGIONS)] if region else None}


# ---- counts per densification step ----

class RunPanel(Panel):
    """A panel on a run that may lack the required data: both forms then say what is missing, and what to do.

    Attributes:
        problem: what is missing, or None.
    """

    def __init__(self, run: Run, problem: Optional[EgsError] = None):
        self.run, self.problem = run, problem

    def build(self) -> ipywidgets.Widget:
        self.show_message(str(self.problem), error=True)
        return ipywidgets.VBox([self.note])

    def still(self) -> Figure | Table:
        if self.problem is None:  # subclasses have a form of their own for a complete run
            raise NotImplementedError
        return Table(("missing data", ""), [("expected", self.problem.expected), ("found", self.problem.found),
                                            ("what to do", self.problem.fix)])


def densification_counts(run: Run) -> Plot | Panel:
    """Gaussians added and removed in each densification step as bars; a menu groups them by kind or by region.

    Works without a kernel. A run without densification steps gives a panel that says so.
    """
    try:
        regional = growth.by_region(run)
    except EgsError as error:
        return RunPanel(run, error)
    at = [r["iteration"] for r in run.metrics("densify")]
    views: dict[str, list[go.Bar]] = {"whole head, by kind": [
        _bar(run, at, n, KIND_LOOKS[kind][2], KIND_LOOKS[kind][0], KIND_PATTERNS[kind])
        for kind, n in counts(run).items()]}
    for kind, values in regional.items():
        name = growth.KIND_LABELS[kind]
        views[f"{name}, by region"] = [_bar(run, at, values[:, k], region, REGION_COLOURS[k], REGION_PATTERNS[k])
                                       for k, region in enumerate(REGIONS)]
    for k, region in enumerate(REGIONS):
        views[f"{region}, by kind"] = [
            _bar(run, at, (-1 if kind == "pruned" else 1) * values[:, k], KIND_LOOKS[kind][2], KIND_LOOKS[kind][0],
                 KIND_PATTERNS[kind]) for kind, values in regional.items()]
    figure = go.Figure([bar for bars in views.values() for bar in bars])
    buttons, begin = [], 0
    for name, bars in views.items():
        shown = [begin <= j < begin + len(bars) for j in range(len(figure.data))]
        buttons.append({"label": name, "method": "update", "args": [{"visible": shown}]})
        if begin == 0:
            for bar, visible in zip(figure.data, shown):
                bar.visible = visible
        begin += len(bars)
    in_style(figure, "iteration of the densification step", "Gaussians per step", height=420, barmode="relative",
             updatemenus=[{"buttons": buttons, "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}])
    figure.update_layout(margin={"t": 60})
    figure.add_hline(0, line_color=INK, line_width=1)
    return Plot(figure, lambda: densification_figure(run))


def _bar(run: Run, at: list[int], values: np.ndarray, name: str, colour: str, pattern: str) -> go.Bar:
    step = run.config.densification_interval
    return go.Bar(x=at, y=values.tolist(), name=name, width=0.8 * step, customdata=[i - step + 1 for i in at],
                  marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "white", "solidity": 0.25}},
                  hovertemplate="iterations %{customdata} ... %{x}: %{y} " + name + "<extra></extra>")
