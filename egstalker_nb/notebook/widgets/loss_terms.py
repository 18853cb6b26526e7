"""What each loss term contributes: its share over the iterations, its map over a frame, its gradients."""
from __future__ import annotations

from functools import lru_cache
from typing import Optional

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from torch import Tensor

from ...analysis import attribution
from ...core.errors import DatasetError
from ...core.table import Table
from ...rendering.renderer import Renderer
from ...training.history import History
from ...training.run import Run
from .. import plots
from ..plots import STYLES
from .base import INK, Panel, Plot, blank_image, encode, in_style, plotly_text, slider, titled
from .heat_maps import THUMBNAIL_WIDTH, colour_bar, heat_map

#: fill patterns that distinguish the terms without colour: matplotlib's and plotly's
TERM_HATCHES, TERM_PATTERNS = ("", "//", "..", "xx"), ("", "/", ".", "x")
LIGHTEN = 0.55          # share of white mixed into the fill colours, so that hatching is visible
BRIGHT_PERCENTILE = 99.5   # of a loss map: the bright end of its colour map


def _light(style: int) -> str:
    r, g, b = (int(STYLES[style][0][k:k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(c + LIGHTEN * (255 - c)):02x}" for c in (r, g, b))


def loss_shares(run: Run, last: Optional[int] = None) -> Plot:
    """The share of each weighted term in the loss over the iterations, as a stacked chart.

    Args:
        run: a trained run.
        last: show it up to this iteration; default: all.

    Raises:
        DatasetError: nothing was logged yet.
    """
    history = History(run.root).upto(last)
    if not history.of("train"):
        raise DatasetError("a run with logged steps", f"none in '{run.root}'", "Train it first.")
    at, parts = history.shares()
    coarse = run.config.coarse_iterations
    figure = go.Figure()
    for k, (name, share) in enumerate((plotly_text(name), share) for name, share in parts.items()):
        pattern = {"shape": TERM_PATTERNS[k % len(TERM_PATTERNS)], "fgcolor": INK, "size": 8, "solidity": 0.15,
                   "bgcolor": _light(k)}
        figure.add_trace(go.Scatter(x=at, y=100 * share, name=name, stackgroup="share", fillpattern=pattern,
                                    fillcolor=_light(k), line={"color": INK, "width": 1}, mode="lines",
                                    hovertemplate=name + ": %{y:.1f} %, iteration %{x:.0f}<extra></extra>"))
    if at[0] < coarse < at[-1]:
        figure.add_vline(x=coarse, line={"color": INK, "dash": "dash"}, annotation_text="start of the fine stage")
    in_style(figure, "iteration", "share of the loss (%)", "Shares of the loss terms",
             legend={"traceorder": "reversed"})
    figure.update_yaxes(range=[0, 100])
    return Plot(figure, lambda: _shares_still(at, parts, coarse))


def _shares_still(at: np.ndarray, parts: dict[str, np.ndarray], coarse: int) -> Figure:
    figure, (axis,) = plots.subplots(width=9, height=3.2)
    below = np.zeros(len(at))
    wide = np.array([at[0], at[0] + 1]) if len(at) == 1 else at
    for k, (name, share) in enumerate(parts.items()):
        top = below + 100 * share
        low, high = (np.resize(v, len(wide)) for v in (below, top))
        axis.fill_between(wide, low, high, facecolor=_light(k), edgecolor=INK, linewidth=0.8,
                          hatch=TERM_HATCHES[k % len(TERM_HATCHES)],
                          label=f"{name}, {100 * share[-1]:.0f} % at the end")
        below = top
    if at[0] < coarse < at[-1]:
        axis.axvline(coarse, color=INK, linestyle="--", linewidth=1)
    plots.label(axis, "iteration", "share of the loss (%)", "shares of the loss terms (dashed: fine stage starts)")
    axis.set(xlim=(wide[0], wide[-1]), ylim=(0, 100))
    axis.legend(*(x[::-1] for x in axis.get_legend_handles_labels()), frameon=False, loc="center left",
                bbox_to_anchor=(1, 0.5), handlelength=3, handleheight=1.6)
    return figure


class LossTerms(Panel):
    """The map of each loss term over a frame, and the norms of its gradients with respect to the Gaussians.

    Args:
        run: a trained run.
        iteration: of the checkpoint; default: the newest.
        frame: the initial frame; default: the training frame with the widest mouth opening.

    Attributes:
        frame: number of the current frame.
        maps: of this frame, see `attribution.term_maps`.
        term_gradients: of this frame, see `attribution.term_gradients`.
    """

    def __init__(self, run: Run, iteration: Optional[int] = None, frame: Optional[int] = None):
        self.run, self.ds, self.renderer = run, run.dataset, Renderer.from_run(run, iteration)
        self.frame = int(np.argmax(self.ds.aperture[:self.ds.num_train])) if frame is None else frame
        # cached per frame: one thread may still need a frame while the reader has moved on to the next
        self._maps = lru_cache(4)(lambda i: attribution.term_maps(self.renderer, i))
        self._gradients = lru_cache(4)(lambda i: attribution.term_gradients(self.renderer, [i]))

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """Term -> loss per pixel of the frame, [S, S]."""
        return self._maps(self.frame)

    @property
    def term_gradients(self) -> dict[str, dict[str, Tensor]]:
        """Term or "loss" -> parameter -> gradient in the frame."""
        return self._gradients(self.frame)

    def table(self) -> Table:
        """Value, share and gradient norms of each term, and of the whole loss."""
        norms = attribution.gradient_norms(self.term_gradients)
        values = {k: float(m.mean()) for k, m in self.maps.items()}
        values["loss"] = sum(values.values())
        rows = [(name, values[name], f"{values[name] / values['loss']:.0%}", *norms[name].values()) for name in norms]
        names = [f"{what} gradient" for what in attribution.PARAMETERS.values()]
        return Table(("term", "value", "share", *names), rows,
                     f"Frame {self.frame}: weighted terms, and norms of their gradients. Compare within a column: "
                     "units differ between columns. Gradients may cancel out, so norms do not add up.")

    def _bright(self) -> dict[str, float]:
        return {name: max(float(np.percentile(m, BRIGHT_PERCENTILE)), 1e-9) for name, m in self.maps.items()}

    # ---- interactive and static form ----

    def build(self) -> ipywidgets.Widget:
        self.slide = slider("frame", 0, len(self.ds) - 1, self.frame)
        self.slide.continuous_update = False  # gradients of a production head take a second
        self.slide.observe(self.guarded(lambda change: self.show(change["new"])), "value")
        self.images = {name: blank_image(THUMBNAIL_WIDTH) for name in ("frame", *self.maps)}
        self.texts = {name: ipywidgets.HTML() for name in self.images}
        cells = [ipywidgets.VBox([titled("the frame" if name == "frame" else name, image), self.texts[name]])
                 for name, image in self.images.items()]
        self.numbers = ipywidgets.HTML()
        row = ipywidgets.HBox(cells, layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="8px"))
        return ipywidgets.VBox([self.slide, row, self.numbers, self.note])

    def show(self, frame: int) -> None:
        """Show another frame."""
        self.frame = int(frame)
        self.refresh()

    def redraw(self) -> None:
        self.images["frame"].value = encode(self.ds.frame(self.frame))
        for name, high in self._bright().items():
            self.images[name].value = encode(heat_map(self.maps[name], 0, high, map="inferno"))
            self.texts[name].value = colour_bar(0, high, "", "inferno", 70)
        self.numbers.value = self.table()._repr_html_()

    def still(self) -> Figure:
        columns = 1 + len(self.maps)
        figure, axes = plots.subplots(2, columns, width=2.6 * columns, height=2.7)
        axes[0].imshow(self.ds.frame(self.frame))
        axes[0].set_title(f"frame {self.frame}", fontsize=9)
        whole = sum(float(m.mean()) for m in self.maps.values())
        for axis, (name, high) in zip(axes[1:columns], self._bright().items()):
            drawn = axis.imshow(self.maps[name], vmin=0, vmax=high, cmap="inferno")
            axis.set_title(f"{name}: {self.maps[name].mean() / whole:.0%} of the loss", fontsize=9)
            figure.colorbar(drawn, ax=axis, label="loss per pixel", shrink=0.7, format="%.2g")
        for axis in axes:
            axis.axis("off")
        self._bars(figure, axes[columns:])
        return figure

    def _bars(self, figure: Figure, below: np.ndarray) -> None:
        norms, grid = attribution.gradient_norms(self.term_gradients), below[0].get_gridspec()
        for axis in below:
            axis.remove()
        spread = grid[1, :].subgridspec(1, len(attribution.PARAMETERS))
        for column, (parameter, what) in enumerate(attribution.PARAMETERS.items()):
            axis, whole = figure.add_subplot(spread[column]), max(norms["loss"][parameter], 1e-12)
            for k, name in enumerate(self.maps):
                axis.bar(name, norms[name][parameter] / whole, color=_light(k), edgecolor=INK,
                         hatch=TERM_HATCHES[k % len(TERM_HATCHES)])
            axis.axhline(1, color=INK, linestyle="--", linewidth=1)
            plots.label(axis, "loss term", "norm / that of\nthe whole loss", f"{what} gradient")
