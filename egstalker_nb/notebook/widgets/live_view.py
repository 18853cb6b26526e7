"""Frames shown one after another in the same output, while they are being produced."""
from __future__ import annotations

from typing import Any, Iterable

import numpy as np
from IPython.display import Image, display

from ...core.progress import in_notebook
from .base import encode


def show_frames(frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Show each frame as soon as it is available, in one output that is updated; outside a notebook, show nothing.

    Args:
        frames: [H, W, 3] uint8, or float 0...1; for instance `egs.stream(...)`.

    Returns:
        all of the frames, in order.
    """
    shown: list[np.ndarray] = []
    output: Any = None
    for frame in frames:
        shown.append(frame)
        if not in_notebook():
            continue
        image = Image(encode(frame), format="jpeg")
        if output is None:
            output = display(image, display_id=True)
        else:
            output.update(image)
    return shown
