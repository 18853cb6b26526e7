"""Helpers of all figures: one style, labelled axes, saved into the run folder."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.errors import InputError

#: colours of increasing lightness and line styles, distinguishable in greyscale too
STYLES = (("#1b3a6b", "-"), ("#c1440e", "--"), ("#3d8f6e", "-."), ("#a58bc4", ":"), ("#e0a526", (0, (5, 1))),
          ("#7f7f7f", (0, (1, 1))))


def subplots(rows: int = 1, columns: int = 1, width: float = 9.0, height: float = 3.0) -> tuple[Figure, np.ndarray]:
    """A figure and the flat array of its `rows` x `columns` axes, on white in any theme.

    Args:
        rows, columns: number of axes.
        width: of the figure, inches.
        height: of each row, inches.
    """
    figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, facecolor="white",
                                layout="constrained")
    plt.close(figure)  # pyplot must not show it a second time, nor keep it in memory
    return figure, axes.ravel()


def plain(name: str) -> str:
    """A name for a figure: matplotlib would take `$...$` in it for a formula, and fail on one that is none."""
    return name.replace("$", r"\$")


def label(axis: Axes, x: str, y: str, title: str = "") -> Axes:
    """Set axis labels (with units) and title; adds a grid, and a legend if lines have names."""
    axis.set(xlabel=x, ylabel=y, title=plain(title))
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)
    return axis


def curve(axis: Axes, x: Any, y: Any, name: str = "", style: int = 0, **more: Any) -> None:
    """Plot one line in the `style`-th of `STYLES`; `more` are arguments of `Axes.plot`."""
    colour, line = STYLES[style % len(STYLES)]
    axis.plot(x, y, color=colour, linestyle=line, label=plain(name) or None, **more)


def image_grid(images: Sequence[np.ndarray], names: Sequence[str], columns: Optional[int] = None,
               edge: float = 2.6) -> Figure:
    """A grid of images with titles.

    Args:
        images: [H, W, 3] each, uint8 or float 0...1.
        names: their titles.
        columns: of the grid; default: all in one row.
        edge: width of a column, inches.
    """
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    figure, axes = subplots(rows, columns, width=edge * columns, height=edge * 1.1)
    for axis in axes:
        axis.axis("off")
    for axis, image, name in zip(axes, images, names):
        axis.imshow(np.clip(image, 0, 255 if image.dtype == np.uint8 else 1))
        axis.set_title(plain(name), fontsize=9)
    return figure


def finish(figure: Figure, folder: str | Path, name: str) -> Figure:
    """Save a figure as `<folder>/figures/<name>.png` and return it for display; axes with data must have labels.

    Raises:
        InputError: an axis that shows data has no label.
    """
    for axis in figure.axes:
        if axis.get_label() == "<colorbar>":
            continue  # has one axis only
        if axis.axison and axis.has_data() and not axis.images and not (axis.get_xlabel() and axis.get_ylabel()):
            raise InputError("a label on both axes of every plot", f"none on '{axis.get_title()}'",
                             "Call nb.plots.label(axis, x, y).")
    target = Path(folder) / "figures"
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / f"{name}.png", dpi=100)
    figure.set_layout_engine("none")  # saving laid it out; to do so again for display takes half as long as drawing it
    return figure
