"""Attention of the Gaussians over the tokens, on the face of a frame and over the clip."""
from __future__ import annotations

from functools import cached_property
from typing import Any, Optional

import cv2
import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from ...analysis import attribution
from ...core.errors import DatasetError
from ...media.rates import FPS
from ...model.deformation import TOKENS
from ...rendering.renderer import Renderer
from ...training.run import Run
from .. import plots
from .base import INK, Panel, blank_image, choices, encode, in_style, line, slider, titled
from .canvas import Canvas
from .heat_maps import PAINT_OPACITY, THUMBNAIL_WIDTH, colour_bar, heat_map

PART_TITLES = {"mouth": "mouth, chin, jaw", "eyes": "eyelids and brows", "rest": "rest of the head"}
COLOUR_SCALES = {"one scale for all, 0 ... 1": "one", "one scale per image": "own"}


class AttentionView(Panel):
    """Attention over the four tokens, painted on the face of a frame, and per part of the face over the whole clip.

    Args:
        run: a trained run.
        iteration: of the checkpoint; default: the newest.
        frame: the initial frame; default: the training frame with the widest mouth opening.

    Attributes:
        frame: number of the current frame.
        scale: `one` for all four images, 0...1, or `own` for a scale per image.

    Raises:
        DatasetError: a checkpoint of the coarse stage, which has no attention.
    """

    def __init__(self, run: Run, iteration: Optional[int] = None, frame: Optional[int] = None):
        self.run, self.ds = run, run.dataset
        if run.config.stage(run.pick(iteration)) == "coarse":
            raise DatasetError("a head of the fine stage", f"iteration {run.pick(iteration)}", "Train the fine stage.")
        self.renderer = Renderer.from_run(run, iteration)
        self.frame = int(np.argmax(self.ds.aperture[:self.ds.num_train])) if frame is None else frame
        self.scale = "one"

    @cached_property
    def over_time(self) -> np.ndarray:
        """Mean attention of each frame, [N, 3, 4], see `attribution.attention_by_part`."""
        return attribution.attention_by_part(self.renderer, range(len(self.ds)))

    def maps(self, scale: Optional[str] = None) -> dict[str, tuple[np.ndarray, float, float]]:
        """Token -> attention [S, S] (NaN outside the head), and the limits of its colour scale (default: `scale`)."""
        seen, scale = attribution.attention_maps(self.renderer, self.frame), scale or self.scale
        found = {}
        for k, name in enumerate(TOKENS):
            some = seen[..., k][np.isfinite(seen[..., k])]
            low, high = np.percentile(some, (1, 99)) if scale == "own" and len(some) else (0.0, 1.0)
            found[name] = seen[..., k], float(low), float(max(high, low + 1e-6))
        return found

    def means(self) -> dict[str, np.ndarray]:
        """Part of the face -> mean attention to the four tokens in this frame, [4]."""
        return dict(zip(attribution.ATTENTION_PARTS, self.over_time[self.frame]))

    # ---- interactive and static form ----

    def build(self) -> ipywidgets.Widget:
        self.slide = slider("frame", 0, len(self.ds) - 1, self.frame)
        self.menu = choices("colours", list(COLOUR_SCALES.items()), self.scale)
        self.slide.observe(self.guarded(lambda change: self.show(frame=change["new"])), "value")
        self.menu.observe(self.guarded(lambda change: self.show(scale=change["new"])), "value")
        self.images = {name: blank_image(THUMBNAIL_WIDTH) for name in ("frame", *TOKENS)}
        self.texts = {name: ipywidgets.HTML() for name in self.images}
        cells = [ipywidgets.VBox([titled("the frame" if name == "frame" else f"{name} token", image),
                                  self.texts[name]]) for name, image in self.images.items()]
        self.chart = self._chart()
        self.canvas = Canvas(self.chart)
        self.canvas.layout.max_width = f"{self.chart.layout.width}px"
        row = ipywidgets.HBox(cells, layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="8px"))
        return ipywidgets.VBox([ipywidgets.HBox([self.slide, self.menu]), row, self.canvas, self.note])

    def show(self, frame: Optional[int] = None, scale: Optional[str] = None) -> None:
        """Show another frame, or another colour scale (see `scale`)."""
        self.frame = self.frame if frame is None else int(frame)
        self.scale = self.scale if scale is None else scale
        self.refresh()

    def redraw(self) -> None:
        frame = self.ds.frame(self.frame)
        self.images["frame"].value = encode(frame)
        self.texts["frame"].value = f"{self.frame / FPS:.2f} s, {self._split()}"
        for name, (values, low, high) in self.maps().items():
            self.images[name].value = encode(heat_map(values, low, high, frame))
            self.texts[name].value = colour_bar(low, high, "", width=70)
        with self.canvas.changing():
            for shape in self.chart.layout.shapes:
                shape.x0 = shape.x1 = self.frame / FPS

    def _split(self) -> str:
        return "validation" if self.frame >= self.ds.num_train else "training"

    def _chart(self) -> go.Figure:
        time = np.arange(len(self.ds)) / FPS
        figure = make_subplots(1, 3, subplot_titles=list(PART_TITLES.values()), shared_yaxes=True)
        for column, part in enumerate(PART_TITLES, 1):
            for k, name in enumerate(TOKENS):
                y = self.over_time[:, attribution.ATTENTION_PARTS.index(part), k]
                figure.add_trace(line(time, y, name, k, showlegend=column == 1, legendgroup=name), 1, column)
            figure.add_vline(x=0, line={"color": INK, "width": 1}, row=1, col=column)
        in_style(figure, "time (s)", "", height=260, width=840, legend={"orientation": "h", "y": -0.3})
        figure.update_yaxes(title_text="mean attention", col=1, row=1)
        figure.update_yaxes(range=[-0.02, 1.02])
        figure.update_layout(margin={"t": 30, "b": 70})
        return figure

    def still(self) -> Figure:
        frame = self.ds.frame(self.frame)
        figure, axes = plots.subplots(3, 5, width=13, height=2.7)
        axes[0].imshow(frame)
        axes[0].set_title(f"frame {self.frame} ({self._split()})", fontsize=9)
        axes[5].text(0.5, 0.5, "the same, with one\ncolour scale per image", ha="center", fontsize=9)
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        for scale, row in (("one", axes[1:5]), ("own", axes[6:10])):
            for axis, (name, (values, low, high)) in zip(row, self.maps(scale).items()):
                axis.imshow(grey, cmap="gray", vmin=0, vmax=400)
                drawn = axis.imshow(values, vmin=low, vmax=high, cmap="viridis", alpha=PAINT_OPACITY)
                axis.set_title(f"{name} token", fontsize=9)
                figure.colorbar(drawn, ax=axis, label="attention", shrink=0.8, format="%.2g")
        for axis in axes:
            axis.axis("off")
        self._lines(figure, axes[10:])
        return figure

    def _lines(self, figure: Figure, below: Any) -> None:
        time, grid = np.arange(len(self.ds)) / FPS, below[0].get_gridspec()
        for axis in below:
            axis.remove()
        spread = grid[2, :].subgridspec(1, 3)
        for column, (part, title) in enumerate(PART_TITLES.items()):
            axis = figure.add_subplot(spread[column])
            for k, name in enumerate(TOKENS):
                plots.curve(axis, time, self.over_time[:, attribution.ATTENTION_PARTS.index(part), k], name, k)
            axis.axvline(self.frame / FPS, color="#888888", linewidth=1)
            plots.label(axis, "time (s)", "mean attention", title)
            axis.set_ylim(-0.02, 1.02)
            legend = axis.get_legend()
            if column and legend is not None:
                legend.remove()
            elif not column:
                axis.legend(frameon=False, fontsize=8, ncols=2)
