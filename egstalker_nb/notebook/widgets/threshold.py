"""Gradients at one densification step, a movable threshold, and the outcome of each setting."""
from __future__ import annotations

from typing import Any, Optional

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from ...analysis import growth
from ...core.errors import DatasetError, EgsError, InputError
from ...core.table import Table
from ...training.densification import threshold_at
from ...training.run import Run
from ..snapshot_figures import after_round, gradient_bins, gradient_counts, threshold_figure
from .base import INK, in_style, line, slider
from .canvas import Canvas
from .growth_panel import RunPanel

GRADIENT_LABEL = "mean image-plane gradient since the last step (per half image size)"
PRESET_DASHES = {"this run": "solid", "quick_test": "dash", "production": "dot"}


class Threshold(RunPanel):
    """Gradients of the Gaussians at a densification step, and a threshold that is moved with a slider, by dragging its
    line or by clicking into the chart; and what this threshold, and those of the presets, would have done.

    Args:
        run: with snapshots.
        iteration: of a densification step; default: the one that added most Gaussians.
        threshold: per half image size; default: the run's own.
        cap: maximal number of Gaussians; default: the run's `max_points`.

    Attributes:
        iteration, threshold, cap: the settings; meaningless where there is a `problem`.
        table: the outcome of these settings and of the presets.
    """

    def __init__(self, run: Run, iteration: Optional[int] = None, threshold: Optional[float] = None,
                 cap: Optional[int] = None):
        super().__init__(run)
        self.iteration, self.threshold, self.cap = iteration or 0, threshold or 0.0, cap or 0
        try:
            self.iterations = growth.steps_with_gradients(run)
            if not self.iterations:
                raise DatasetError("snapshots with gradients", "none: all are later than its last densification step",
                                   "Train again into a new folder, or use nb.growth.lesson_run(run).")
        except EgsError as error:
            self.problem = error
            return
        grown = {r["iteration"]: r["cloned"] + r["split"] for r in run.metrics("densify")}
        busiest = max(self.iterations, key=lambda i: grown.get(i, 0))
        self.iteration = busiest if iteration is None else iteration
        if self.iteration not in self.iterations:
            raise InputError(f"one of {', '.join(map(str, self.iterations))}", str(iteration), "Choose one of them.")
        self.threshold = threshold_at(run.config, self.iteration) if threshold is None else threshold
        self.cap = run.config.max_points if cap is None else cap

    @property
    def preview(self) -> growth.DensificationPreview:
        """What the densification step would do with this threshold and cap."""
        return growth.preview(self.run.snapshot(self.iteration), self.run.config, self.threshold, self.cap)

    @property
    def table(self) -> Table:
        """Outcomes of this threshold and cap, and of the presets."""
        return growth.what_if(self.run, self.iteration, self.threshold, self.cap)

    def set(self, iteration: Optional[int] = None, threshold: Optional[float] = None,
            cap: Optional[int] = None) -> None:
        """Choose another densification step, threshold or cap."""
        other = iteration is not None or cap is not None
        self.iteration = self.iteration if iteration is None else iteration
        self.threshold = self.threshold if threshold is None else float(threshold)
        self.cap = self.cap if cap is None else cap
        if self.built:
            self.draw(other)

    def redraw(self) -> None:
        if self.problem is None:
            self.draw(everything=False)  # `build` has drawn the rest

    def draw(self, everything: bool) -> None:
        """Update the chart: the line alone, or everything."""
        with self.canvas.changing():
            if everything:
                for trace, values in zip(self.drawn.data, self.traces()):
                    trace.update(values.to_plotly_json())
                for shape, (name, value) in zip(self.drawn.layout.shapes[1:], self.marks().items()):
                    shape.update(x0=value, x1=value, name=f"{name} {value:.2g}")
            self.drawn.layout.shapes[0].update(x0=self.threshold, x1=self.threshold)
        at = float(np.clip(np.log10(self.threshold), self.mover.min, self.mover.max))
        if abs(np.log10(self.mover.value) - at) > 1e-6:
            self.mover.value = 10**at
        self.words.value = self.table._repr_html_()

    def marks(self) -> dict[str, float]:
        """The other thresholds: name -> value."""
        return growth.settings_to_try(self.run, self.iteration)

    def traces(self) -> list[Any]:
        """Bars of the histogram, and curves of the number of Gaussians after the step."""
        now = self.run.snapshot(self.iteration)
        edges = gradient_bins(now)
        middle, width = np.sqrt(edges[:-1] * edges[1:]), np.diff(edges)
        capped, free = after_round(self.run, now, edges, self.cap)
        bars = [go.Bar(x=middle, y=n, width=width, name=name, marker={"color": colour, "pattern": {"shape": pattern}},
                       hovertemplate="%{y} at %{x:.2g}<extra></extra>")
                for n, name, colour, pattern in zip(
                    gradient_counts(now, edges)[::-1], ("large: split", "small: cloned"), ("#1b3a6b", "#8fc9b0"),
                    ("", "."))]
        hover = "threshold %{x:.2g}: %{y}<extra></extra>"
        curves = [line(edges, free, "after the step, no cap", 1, hovertemplate=hover),
                  line(edges, capped, "after the step, with the cap", 0, hovertemplate=hover)]
        return bars + curves

    def build(self) -> ipywidgets.Widget:
        if self.problem:
            return super().build()
        figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.55, 0.45])
        for trace, row in zip(self.traces(), (1, 1, 2, 2)):
            figure.add_trace(trace, row, 1)
        in_style(figure, "", "", height=500, barmode="stack", bargap=0, dragmode=False,
                 legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
        figure.update_layout(margin={"t": 80})
        figure.update_xaxes(type="log", exponentformat="power")
        figure.update_xaxes(title_text=GRADIENT_LABEL, row=2)
        figure.update_yaxes(title_text="Gaussians per bin", row=1)
        figure.update_yaxes(title_text="Gaussians after the step", row=2)
        self.drawn = figure
        whole = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "xref": "x2"}
        self.drawn.layout.shapes = [
            {**whole, "x0": self.threshold, "x1": self.threshold, "line": {"color": "#c1440e", "width": 4},
             "showlegend": True, "name": "your line"},
            *[{**whole, "x0": v, "x1": v, "editable": False, "showlegend": True, "name": f"{name} {v:.2g}",
               "line": {"color": INK, "width": 1.5, "dash": PRESET_DASHES[name]}} for name, v in self.marks().items()]]
        self.canvas = Canvas(figure, self.guarded(self.clicked), self.guarded(self.dragged),
                             {"edits": {"shapePosition": True}})
        return ipywidgets.VBox([*self._controls(), self.canvas, self.words, self.note])

    def _controls(self) -> list[ipywidgets.Widget]:
        look = {"style": {"description_width": "7em"}, "layout": ipywidgets.Layout(width="26em")}
        self.mover = ipywidgets.FloatLogSlider(value=self.threshold, base=10, min=-5, max=-1.5, step=0.01,
                                               description="threshold", readout_format=".2g", **look)
        self.when = ipywidgets.SelectionSlider(options=self.iterations, value=self.iteration,
                                               description="iteration", **look)
        most = max(self.run.config.max_points, 2 * len(self.run.snapshot(self.iterations[-1])))
        self.top = slider("max_points", 478, most, min(self.cap, most))
        self.mover.observe(self.guarded(self.moved), "value")
        self.when.observe(self.guarded(lambda change: self.set(iteration=change["new"])), "value")
        self.top.observe(self.guarded(lambda change: self.set(cap=change["new"])), "value")
        self.words = ipywidgets.HTML()
        return [ipywidgets.HBox([self.when, self.top]), self.mover]

    def moved(self, change: dict[str, Any]) -> None:
        """The slider was moved. Its steps are coarse: an exact value set by a drag or a click is kept."""
        if abs(np.log10(change["new"]) - np.log10(self.threshold)) > 1e-6:
            self.set(threshold=change["new"])

    def clicked(self, gradient: float) -> None:
        """Move the threshold to a click into the chart."""
        self.set(threshold=gradient)

    def dragged(self, _: int) -> None:
        """Take over the threshold from the dragged line."""
        at = float(self.drawn.layout.shapes[0].x0)
        if at > 0 and abs(at / self.threshold - 1) > 1e-6:
            self.set(threshold=at)

    def still(self) -> Figure | Table:
        if self.problem:
            return super().still()
        return threshold_figure(self.run, self.iteration, self.threshold, self.cap)
