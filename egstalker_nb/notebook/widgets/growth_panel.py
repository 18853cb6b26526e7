"""A head as it grows: a cloud in 3D with a time slider, the same as a page without a kernel, births and deaths."""
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
from ..growth_figures import KIND_LOOKS, REGION_COLOURS, births_figure, counts
from ..growth_moments import COLOURINGS, limits, moments_figure, side_figure, spread
from .base import INK, Panel, Plot, choices, encode, image, in_style
from .canvas import Canvas

CLOUD_POINTS = 20_000   # more make a browser slow
PAGE_POINTS, PAGE_MOMENTS = 2_500, 9
SYMBOLS = ("circle", "diamond", "cross", "x", "square", "circle-open")  # of the regions
PATTERNS = ("", "/", "x", ".", "\\", "-")
KIND_PATTERNS = {"cloned": ".", "split": "", "replaced": "/", "pruned": "x", "born": ""}
CAMERA = {"eye": {"x": 0.45, "y": -1.9, "z": 0.3}}  # from the front: the head's y points down, its z away
HOVER = ("%{text}<br>born at iteration %{customdata[0]}, %{customdata[1]} iterations old"
         "<br>opacity %{customdata[2]:.2f}<br>standard deviation %{customdata[3]:.2f} px"
         "<br>gradient %{customdata[4]:.2f} / 1000<extra></extra>")


class OnRun(Panel):
    """A panel on a run that may lack what it needs: both forms then say what, and what to do.

    Attributes:
        problem: what is missing, or None.
    """

    def __init__(self, run: Run, problem: Optional[EgsError] = None):
        self.run, self.problem = run, problem

    def build(self) -> ipywidgets.Widget:
        self.say(str(self.problem), error=True)
        return ipywidgets.VBox([self.note])

    def still(self) -> Figure | Table:
        return Table(("what is missing", ""), [("expected", self.problem.expected), ("found", self.problem.found),
                                               ("what to do", self.problem.fix)])


def thinned(snapshot: Snapshot, most: int) -> np.ndarray:
    """Indices of at most so many Gaussians, evenly chosen."""
    return np.unique(np.linspace(0, len(snapshot) - 1, min(len(snapshot), most)).astype(int))


def places(snapshot: Snapshot, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Coordinates for plotly, whose third axis points up."""
    x, y, z = snapshot.means[chosen].T.astype(np.float32)
    return {"x": x, "y": z, "z": -y}


def colour_scale(name: str) -> Any:
    """Plotly's colour scale of a colouring."""
    if name != "face region":
        return COLOURINGS[name].scale[1] or None
    n = len(REGIONS)
    return [[(k + end) / n, colour] for k, colour in enumerate(REGION_COLOURS) for end in (0, 1)]


def scene(reach: np.ndarray) -> dict[str, Any]:
    """Axes that stay as they are while time goes on: reach [3] of plotly's axes, head units."""
    names = ("right", "away", "up")
    axes = {f"{axis}axis": {"title": {"text": f"{name} (head units)"}, "range": [-float(r), float(r)]}
            for axis, name, r in zip("xyz", names, reach)}
    longest = max(reach)
    return {**axes, "aspectmode": "manual", "aspectratio": {a: float(r / longest) for a, r in zip("xyz", reach)},
            "camera": CAMERA, "uirevision": "kept"}


class GrowthCloud(OnRun):
    """Gaussians in 3D with a slider over the iterations of the run's snapshots, coloured by a menu.

    Args:
        run: with snapshots. colour: a key of `COLOURINGS`. iteration: of a snapshot; default: the newest.

    Attributes:
        iteration, colour: what is shown. counts: its line of numbers.
    """

    def __init__(self, run: Run, colour: str = "age", iteration: Optional[int] = None):
        super().__init__(run)
        if colour not in COLOURINGS:
            raise InputError(f"one of {', '.join(COLOURINGS)}", repr(colour), "Choose one of them.")
        self.colour, self.iteration, self.drawn = colour, iteration, None
        self.snapshot, self.range = lru_cache(64)(run.snapshot), lru_cache(self._range)
        try:
            self.iterations = growth.with_snapshots(run)
        except EgsError as error:
            self.problem = error
            return
        self.iteration = self.iterations[-1] if iteration is None else iteration
        if self.iteration not in self.iterations:
            raise InputError(f"a snapshot: {', '.join(map(str, self.iterations))}", str(iteration), "Choose one.")

    @property
    def counts(self) -> str:
        """Numbers of the shown moment."""
        s = self.snapshot(self.iteration)
        old, shown = int((s.added_at == 0).sum()), len(thinned(s, CLOUD_POINTS))
        measured = f"gradient {1000 * s.gradient.mean():.2f} / 1000" if s.gradient.any() else "gradient not measured"
        return (f"iteration {self.iteration}: {len(s)} Gaussians" + (f" ({shown} shown)" if shown < len(s) else "")
                + f", {old} from the start, {len(s) - old} born since; in the mean: opacity {s.opacity.mean():.2f}, "
                f"{growth.size_px(s.scales, self.run.dataset).mean():.1f} px, {measured}")

    def show(self, iteration: Optional[int] = None, colour: Optional[str] = None) -> None:
        """Go to another moment, or colouring; the camera stays."""
        self.iteration = self.iteration if iteration is None else iteration
        self.colour = self.colour if colour is None else colour
        if self.drawn is None:
            return
        s = self.snapshot(self.iteration)
        with self.canvas.changing():
            self.drawn.data[0].update(self.points(s))
        self.line.value = self.counts
        if s.picture is not None:
            self.picture.value = encode(s.picture)

    def points(self, s: Snapshot) -> dict[str, Any]:
        """Places, colours, symbols and hover values of a moment, as plotly takes them."""
        chosen = thinned(s, CLOUD_POINTS)
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
                  "symbol": [SYMBOLS[k] for k in region] if self.colour == "face region" else "circle"}
        facts = np.stack([s.added_at[chosen], every["age"], every["opacity"], every["scale"], every["gradient"]], 1)
        return {**places(s, chosen), "marker": marker, "text": [REGIONS[k] for k in region],
                "customdata": facts.astype(np.float32)}

    def _range(self, name: str) -> tuple[float, float]:
        """One colour range for the whole of time."""
        return limits(self.run, [self.snapshot(i) for i in spread(self.iterations, 12)], name)

    def build(self) -> ipywidgets.Widget:
        if self.problem:
            return super().build()
        s = self.snapshot(self.iteration)
        last = self.snapshot(self.iterations[-1])
        every = np.abs(np.stack(list(places(last, thinned(last, CLOUD_POINTS)).values())))
        figure = go.Figure(go.Scatter3d(mode="markers", hovertemplate=HOVER, **self.points(s)))
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
        self.line = ipywidgets.Label(self.counts)
        self.when.observe(self.guarded(lambda change: self.show(iteration=change["new"])), "value")
        self.menu.observe(self.guarded(lambda change: self.show(colour=change["new"])), "value")
        shown = [self.canvas]
        if s.picture is not None:
            self.picture = image(s.picture, 280)
            shown.append(ipywidgets.VBox([self.picture, ipywidgets.Label(f"frame {s.frame} as rendered then")]))
        else:
            self.picture = ipywidgets.Image()
        return ipywidgets.VBox([ipywidgets.HBox([self.play, self.when, self.menu]), self.line,
                                ipywidgets.HBox(shown), self.note])

    def still(self) -> Figure | Table:
        if self.problem:
            return super().still()
        return moments_figure(self.run, spread([self.iterations[0], *growth.counted_rounds(self.run),
                                                self.iterations[-1]], 4))


def cloud(run: Run) -> Plot | Panel:
    """The cloud as a page that needs no kernel: some moments with a slider, a menu of colourings, fewer points.

    Also saved as `figures/cloud.html` in the run folder. A run without snapshots gives a panel that says so.
    """
    panel = GrowthCloud(run)
    if panel.problem:
        return panel
    some = [run.snapshot(i) for i in spread(panel.iterations, PAGE_MOMENTS)]
    chosen = [thinned(s, PAGE_POINTS) for s in some]
    ways = {name: _restyle(run, panel, name, some, chosen) for name in COLOURINGS if name != "own colour"}
    start, last = ways["age"], len(some) - 1
    traces = [go.Scatter3d(mode="markers", name=f"iteration {s.iteration}", visible=k == last, **places(s, c), marker={
        "size": 3, "color": start["marker.color"][k], "colorscale": "Plasma", "cmin": start["marker.cmin"],
        "cmax": start["marker.cmax"], "showscale": True, "colorbar": {"title": {"text": COLOURINGS["age"].title}}},
        hovertemplate="%{marker.color:.3g}<extra></extra>") for k, (s, c) in enumerate(zip(some, chosen))]
    steps = [{"label": str(s.iteration), "method": "restyle", "args": [{"visible": [j == k for j in range(len(some))]}]}
             for k, s in enumerate(some)]
    buttons = [{"label": name, "method": "restyle", "args": [way]} for name, way in ways.items()]
    figure = go.Figure(traces)
    reach = np.abs(np.stack(list(places(some[-1], chosen[-1]).values())))
    figure.update_layout(
        width=760, height=680, margin={"l": 0, "r": 0, "t": 40, "b": 90}, showlegend=False, font={"color": INK},
        paper_bgcolor="white", scene=scene(1.1 * np.percentile(reach, 99.5, axis=1)),
        template="plotly_white",
        title={"text": f"'{run.root.name}': " + " ... ".join(f"{len(s)}" for s in (some[0], some[-1])) + " Gaussians"
               + (f", {PAGE_POINTS} shown" if len(chosen[-1]) < len(some[-1]) else ""),
               "font": {"size": 14}},
        sliders=[{"steps": steps, "active": last, "currentvalue": {"prefix": "iteration "}, "pad": {"t": 10}}],
        updatemenus=[{"buttons": buttons, "x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top"}])
    figure.write_html(make_folder(run.root / "figures") / "cloud.html", include_plotlyjs="directory")
    return Plot(figure, lambda: side_figure(run, [s.iteration for s in spread(some, 4)]))


def _restyle(run: Run, panel: GrowthCloud, name: str, some: list[Snapshot], chosen: list[np.ndarray]) -> dict[str, Any]:
    """What the menu's entry changes in all traces; short numbers keep the page small."""
    low, high = panel.range(name)
    scale = colour_scale(name)
    values = [COLOURINGS[name].values(run, s)[c].astype(float).round(2).tolist() for s, c in zip(some, chosen)]
    region = name == "face region"
    return {"marker.color": values, "marker.cmin": low, "marker.cmax": high,
            "marker.colorscale": [scale] if region else scale,
            "marker.colorbar.title.text": COLOURINGS[name].title,
            "marker.colorbar.tickvals": [list(range(len(REGIONS)))] if region else None,
            "marker.colorbar.ticktext": [list(REGIONS)] if region else None}


# ---- births and deaths ----

def births(run: Run) -> Plot | Panel:
    """Births and deaths of each round as bars; a menu switches between kinds by region, and regions by kind.

    Works without a kernel. A run without rounds gives a panel that says so.
    """
    try:
        placed = growth.by_region(run)
    except EgsError as error:
        return OnRun(run, error)
    at = [r["iteration"] for r in run.metrics("densify")]
    views: dict[str, list[go.Bar]] = {"whole head, by kind": [
        _bar(run, at, n, KIND_LOOKS[kind][2], KIND_LOOKS[kind][0], KIND_PATTERNS[kind])
        for kind, n in counts(run).items()]}
    for kind, values in placed.items():
        name = growth.KINDS.get(kind, "born, after pruning")
        views[f"{name}, by region"] = [_bar(run, at, values[:, k], region, REGION_COLOURS[k], PATTERNS[k])
                                       for k, region in enumerate(REGIONS)]
    for k, region in enumerate(REGIONS):
        views[f"{region}, by kind"] = [
            _bar(run, at, (-1 if kind == "pruned" else 1) * values[:, k], KIND_LOOKS[kind][2], KIND_LOOKS[kind][0],
                 KIND_PATTERNS[kind]) for kind, values in placed.items()]
    figure = go.Figure([bar for bars in views.values() for bar in bars])
    buttons, begin = [], 0
    for name, bars in views.items():
        shown = [begin <= j < begin + len(bars) for j in range(len(figure.data))]
        buttons.append({"label": name, "method": "update", "args": [{"visible": shown}]})
        begin += len(bars)
    for bar, visible in zip(figure.data, buttons[0]["args"][0]["visible"]):
        bar.visible = visible
    in_style(figure, "iteration of the round", "Gaussians per round", height=420, barmode="relative",
             updatemenus=[{"buttons": buttons, "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}])
    figure.update_layout(margin={"t": 60})
    figure.add_hline(0, line_color=INK, line_width=1)
    return Plot(figure, lambda: births_figure(run))


def _bar(run: Run, at: list[int], values: np.ndarray, name: str, colour: str, pattern: str) -> go.Bar:
    step = run.config.densification_interval
    return go.Bar(x=at, y=values.tolist(), name=name, width=0.8 * step, customdata=[i - step + 1 for i in at],
                  marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "white", "solidity": 0.25}},
                  hovertemplate="iterations %{customdata} ... %{x}: %{y} " + name + "<extra></extra>")
