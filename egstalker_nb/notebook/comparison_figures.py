"""Figures that compare runs: the same frame, training curves, a grid of frames."""
from __future__ import annotations

from typing import Literal, Optional, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..analysis.comparison import Comparison
from ..analysis.cost import series
from ..analysis.frame_cache import COLOUR_MAP, GROUND_TRUTH, MAX_DIFFERENCE, difference
from ..core.errors import InputError
from ..metrics.image_metrics import psnr
from ..training.history import NOT_A_TERM
from . import plots

SHOWN_FRAMES = 4    # columns of the grid of frames


def wipe_figure(a: np.ndarray, b: np.ndarray, names: tuple[str, str], zoomed: dict[str, dict[str, np.ndarray]],
                position: float = 0.5) -> Figure:
    """Two images, the wipe between them and their difference, above crops of every source.

    Args:
        a, b: [S, S, 3] uint8.
        names: of the two.
        zoomed: part of the face -> source -> crop.
        position: of the line, 0...1 of the width.
    """
    columns = max(4, *[len(row) for row in zoomed.values()])
    result, axes = plots.subplots(1 + len(zoomed), columns, width=2.9 * columns, height=2.3)
    axes[0].get_gridspec().set_height_ratios([3.1, *[1.9 if part == "mouth" else 1.5 for part in zoomed]])
    for axis in axes:
        axis.axis("off")
    at = round(position * a.shape[1])
    wiped = np.concatenate([a[:, :at], b[:, at:]], 1)
    for axis, image, name in zip(axes, (a, wiped, b), (f"A: {names[0]}", "A | B", f"B: {names[1]}")):
        axis.imshow(image)
        axis.set_title(plots.plain(name), fontsize=11)
    axes[1].axvline(at - 0.5, color="white", linewidth=1.5)
    scale = axes[3].imshow(difference(a, b), vmin=0, vmax=MAX_DIFFERENCE, cmap=COLOUR_MAP)
    axes[3].set_title(f"|A - B|, PSNR {psnr(a, b):.1f} dB" if (a != b).any() else "|A - B|: the same", fontsize=11)
    result.colorbar(scale, ax=axes[3], label="difference (of 255)", shrink=0.85, extend="max")
    for row, (part, sources) in enumerate(zoomed.items(), 1):
        for axis, (name, image) in zip(axes[row * columns:], sources.items()):
            axis.imshow(image)
            axis.set_title(plots.plain(f"{part}: {name}"), fontsize=10)
    return result


def training_curves(result: Comparison, by: Literal["iteration", "time"] = "iteration") -> Figure:
    """Loss terms, PSNR of training batches and validation frames, and number of Gaussians.

    Args:
        result: the runs.
        by: x axis, iterations or seconds of training.

    Raises:
        InputError: another `by`.
    """
    if by not in ("iteration", "time"):
        raise InputError("by='iteration' or by='time'", repr(by), "Use one of the two.")
    rows = [r.metrics("train") for r in result.runs]
    terms = list(dict.fromkeys(k for some in rows for row in some for k in row if k not in NOT_A_TERM))
    panels = [(t, "train", f"{t} (weighted)", f"loss term: {t}") for t in terms]
    panels += [("psnr", "train", "PSNR (dB)", "training batches"),
               ("val_psnr", "eval", "PSNR (dB)", "validation frames"),
               ("points", "train", "number of Gaussians", "Gaussians")]
    columns = 4
    figure, axes = plots.subplots(-(-len(panels) // columns), columns, width=14, height=2.9)
    x_name = "iteration" if by == "iteration" else "training time (s)"
    for axis, (key, kind, y_name, title) in zip(axes, panels):
        for style, r in enumerate(result.runs):
            x, y = series(r, kind, key, by)
            plots.curve(axis, x, y, "", style, **({"marker": ".", "markersize": 5} if kind == "eval" else {}))
        plots.label(axis, x_name, y_name, title)
        if key in terms:
            axis.set_yscale("log")
    for axis in axes[len(panels):]:
        axis.axis("off")
    for style, name in enumerate(result.names):
        plots.curve(axes[-1] if len(panels) < len(axes) else axes[0], [], [], name, style)
    figure.legend(loc="outside upper center", ncols=len(result.runs), frameon=False)
    return figure


def frame_grid(result: Comparison, ids: Optional[Sequence[int]] = None) -> Figure:
    """The same frames in rows: ground truth first, then the rendering of each run with its PSNR.

    Args:
        result: the runs.
        ids: frame numbers; default: a few spread over the validation frames.
    """
    ds = result.dataset
    if ids is None:
        ids = np.unique(np.linspace(ds.val_ids[0], ds.val_ids[-1], SHOWN_FRAMES).astype(int)).tolist()
    truth = [ds.frame(i) for i in ids]
    images, names = list(truth), [f"{GROUND_TRUTH}, frame {i}" for i in ids]
    for k, name in enumerate(result.names):
        for i, real in zip(ids, truth):
            images.append(result.renders.picture(k, i))
            names.append(f"{name}: {psnr(images[-1], real):.1f} dB")
    return plots.image_grid(images, names, columns=len(ids))
