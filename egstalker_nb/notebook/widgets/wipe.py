"""Two images of the same scene, split at a line that wipes from one to the other."""
from __future__ import annotations

import anywidget
import ipywidgets
import numpy as np
import traitlets
from matplotlib.figure import Figure

from .. import plots
from .base import ASSETS, Panel, encode


class WipeView(anywidget.AnyWidget):
    """The images in the browser; the line is dragged, or moved with the arrow keys."""

    _esm = ASSETS / "wipe.js"
    _css = ASSETS / "wipe.css"
    left = traitlets.Bytes().tag(sync=True)
    right = traitlets.Bytes().tag(sync=True)
    names = traitlets.List(traitlets.Unicode(), default_value=["", ""]).tag(sync=True)
    position = traitlets.Float(0.5).tag(sync=True)
    width = traitlets.Int(384).tag(sync=True)


class Wipe(Panel):
    """Wipe between two images.

    Args:
        left, right: [H, W, 3] uint8 of the same size.
        names: of the two.
        position: of the line, 0...1.
        width: px on screen.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray, names: tuple[str, str], position: float = 0.5,
                 width: int = 384):
        self.pair, self.names, self.position, self.width = (left, right), names, position, width

    def build(self) -> ipywidgets.Widget:
        self.view = WipeView(position=self.position, width=self.width)
        return ipywidgets.VBox([self.view])

    def redraw(self) -> None:
        left, right = self.pair
        with self.view.hold_sync():
            self.view.left, self.view.right, self.view.names = encode(left), encode(right), list(self.names)

    def show(self, left: np.ndarray, right: np.ndarray, names: tuple[str, str]) -> None:
        """Replace the two images."""
        self.pair, self.names = (left, right), names
        self.refresh()

    def mixed(self) -> np.ndarray:
        """The two images as seen with the line at its current position, [H, W, 3] uint8."""
        position = self.view.position if self.built else self.position
        left, right = self.pair
        at = round(position * left.shape[1])
        return np.concatenate([left[:, :at], right[:, at:]], 1)

    def still(self) -> Figure:
        return plots.image_grid([self.pair[0], self.mixed(), self.pair[1]],
                                [self.names[0], "both", self.names[1]], edge=3.2)
