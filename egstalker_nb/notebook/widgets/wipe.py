"""Two pictures of the same place under a line that wipes from one to the other."""
from __future__ import annotations

from pathlib import Path

import anywidget
import ipywidgets
import numpy as np
import traitlets
from matplotlib.figure import Figure

from .. import plots
from .base import Panel, encode

HERE = Path(__file__).parent


class WipeView(anywidget.AnyWidget):
    """The picture in the browser: the line is dragged, or moved with the arrow keys."""

    _esm = HERE / "wipe.js"
    _css = HERE / "wipe.css"
    left = traitlets.Bytes().tag(sync=True)
    right = traitlets.Bytes().tag(sync=True)
    names = traitlets.List(traitlets.Unicode(), default_value=["", ""]).tag(sync=True)
    position = traitlets.Float(0.5).tag(sync=True)
    width = traitlets.Int(384).tag(sync=True)


class Wipe(Panel):
    """Wipe between two pictures.

    Args:
        left, right: [H, W, 3] uint8 of one size. names: of the two. position: of the line, 0...1. width: px on screen.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray, names: tuple[str, str], position: float = 0.5,
                 width: int = 384):
        self.pair, self.names, self.position, self.width = (left, right), names, position, width

    def build(self) -> ipywidgets.Widget:
        self.view = WipeView(position=self.position, width=self.width)
        self.show(*self.pair, self.names)
        return ipywidgets.VBox([self.view])

    def show(self, left: np.ndarray, right: np.ndarray, names: tuple[str, str]) -> None:
        """Put two other pictures under the line."""
        self.pair, self.names = (left, right), names
        if hasattr(self, "view"):
            with self.view.hold_sync():
                self.view.left, self.view.right, self.view.names = encode(left), encode(right), list(names)

    def mixed(self) -> np.ndarray:
        """The two pictures as they are seen with the line where it is, [H, W, 3] uint8."""
        position = self.view.position if hasattr(self, "view") else self.position
        left, right = self.pair
        at = round(position * left.shape[1])
        return np.concatenate([left[:, :at], right[:, at:]], 1)

    def still(self) -> Figure:
        return plots.pictures([self.pair[0], self.mixed(), self.pair[1]],
                              [self.names[0], "wiped", self.names[1]], edge=3.2)
