"""The one way figures are made: the same look everywhere, axes labelled, saved into the run folder."""
from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.errors import InputError

#: told apart in greyscale too: colours of rising lightness, and line styles
STYLES = (("#1b3a6b", "-"), ("#c1440e", "--"), ("#3d8f6e", "-."), ("#a58bc4", ":"), ("#e0a526", (0, (5, 1))),
          ("#7f7f7f", (0, (1, 1))))


def subplots(rows: int = 1, columns: int = 1, width: float = 9.0, height: float = 3.0) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` axes (flat array), `width` x `height` inches a row, on white in any theme."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, facecolor="white",
                                layout="constrained")
    plt.close(figure)  # out of pyplot's list: shown once, as the value of its cell, and not kept for ever
    return figure, axes.ravel()


def label(axis: Axes, x: str, y: str, title: str = "") -> Axes:
    """Name both axes (with units) and the plot; adds a legend where lines have names."""
    axis.set(xlabel=x, ylabel=y, title=title)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)
    return axis


def curve(axis: Axes, x, y, name: str = "", style: int = 0, **more) -> None:
    """One line in the `style`-th of `STYLES`."""
    colour, line = STYLES[style % len(STYLES)]
    axis.plot(x, y, color=colour, linestyle=line, label=name or None, **more)


def pictures(images: Sequence[np.ndarray], names: Sequence[str], columns: Optional[int] = None,
             edge: float = 2.6) -> Figure:
    """Pictures [H, W, 3] (uint8, or float 0...1) in rows, each named."""
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    figure, axes = subplots(rows, columns, width=edge * columns, height=edge * 1.1)
    for axis in axes:
        axis.axis("off")
    for axis, image, name in zip(axes, images, names):
        axis.imshow(np.clip(image, 0, 255 if image.dtype == np.uint8 else 1))
        axis.set_title(name, fontsize=9)
    return figure


def finish(figure: Figure, folder: str | Path, name: str) -> Figure:
    """Save a figure as `<folder>/figures/<name>.png` and return it for display; every plotted axis must be named.

    Raises:
        InputError: an axis that shows data has no label.
    """
    for axis in figure.axes:
        if axis.get_label() == "<colorbar>":
            continue  # it has one axis only
        if axis.axison and axis.has_data() and not axis.images and not (axis.get_xlabel() and axis.get_ylabel()):
            raise InputError("a name on both axes of every plot", f"none on '{axis.get_title()}'",
                             "Call plots.label(axis, x, y).")
    target = Path(folder) / "figures"
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / f"{name}.png", dpi=100)
    return figure
