"""Heat maps of values over a frame, and their colour bars as HTML."""
from __future__ import annotations

from typing import Optional

import cv2
import matplotlib
import numpy as np

PAINT_OPACITY = 0.85  # of values painted over a greyscale frame
THUMBNAIL_WIDTH = 160  # px on screen: five images fit in a row


def heat_map(values: np.ndarray, low: float, high: float, under: Optional[np.ndarray] = None,
             map: str = "viridis") -> np.ndarray:
    """A heat map of values, dark at `low`, bright at `high`.

    Args:
        values: [S, S] float; NaN where there is none.
        low, high: limits of the colour map.
        under: [S, S, 3] uint8, shown in greyscale where values are NaN and faintly through the rest; default: black.
        map: matplotlib's name of the colour map.

    Returns:
        [S, S, 3] uint8.
    """
    share = np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-12), 0, 1)
    painted = matplotlib.colormaps[map](share)[..., :3] * 255
    if under is None:
        return painted.round().astype(np.uint8)
    grey = cv2.cvtColor(under, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2) * (255 / 400)
    cover = PAINT_OPACITY * np.isfinite(values)[..., None]
    return (cover * painted + (1 - cover) * grey).round().astype(np.uint8)


def colour_bar(low: float, high: float, unit: str, map: str = "viridis", width: int = 220) -> str:
    """HTML of a colour bar from `low` to `high`."""
    steps = ", ".join("rgb({:.0f},{:.0f},{:.0f})".format(*(255 * np.array(matplotlib.colormaps[map](k / 8)[:3])))
                      for k in range(9))
    bar = f"display:inline-block;width:{width}px;height:0.8em;background:linear-gradient(90deg, {steps})"
    return f"{low:.2g} <span style='{bar}'></span> {high:.2g} {unit}"
