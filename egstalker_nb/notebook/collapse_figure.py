"""What the training guard measures while a head collapses."""
from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..analysis.collapse import Collapse
from ..training.health import COLLAPSE
from . import plots


def collapse_figure(found: Collapse) -> Figure:
    """Coverage and opacity with the limits of the guard; a frame, its last good rendering, and the collapsed one."""
    figure, axes = plots.subplots(1, 4, width=14, height=3.3)
    axes[0].get_gridspec().set_width_ratios([2.2, 1, 1, 1])
    at = [r["iteration"] for r in found.rows]
    for style, (name, words) in enumerate((("coverage", "share of the head mask that is covered"),
                                           ("opacity", "mean opacity before deformation"))):
        values = np.array([r[name] for r in found.rows])
        plots.curve(axes[0], at, values, words, style, linewidth=2)
        plots.curve(axes[0], at, COLLAPSE[name] * np.maximum.accumulate(values),
                    f"limit: {COLLAPSE[name]:.0%} of the maximum so far", style, linewidth=1, alpha=0.6)
    axes[0].plot(at[-1], found.rows[-1]["coverage"], "x", color="black", markersize=10, markeredgewidth=2.5,
                 label=f"stopped at iteration {at[-1]}")
    kept = found.run.iterations[-1]
    axes[0].plot(kept, next(r["coverage"] for r in found.rows if r["iteration"] == kept), "o", color="black",
                 markersize=8, fillstyle="none", markeredgewidth=2, label=f"last good checkpoint: {kept}")
    axes[0].set(ylim=(-0.04, 1.5), yticks=np.arange(0, 1.1, 0.2))  # space for the legend
    plots.label(axes[0], "iteration", "share (0 ... 1)", "what the guard checks")
    axes[0].legend(loc="upper left", fontsize=7.5, framealpha=0.9)
    names = (f"frame {found.frame}", f"checkpoint {kept}", f"iteration {at[-1]}: stopped")
    for axis, image, name in zip(axes[1:], found.images, names):
        axis.imshow(image)
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    return figure
