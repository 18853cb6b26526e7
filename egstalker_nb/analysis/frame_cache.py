"""The same frame of several runs: a cache of renderings, their differences, and crops of mouth and eyes."""
from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Sequence

import matplotlib
import numpy as np

from ..rendering.renderer import Renderer
from ..rendering.script import Script, replay_script
from ..training.run import Run

MAX_BYTES = 256 << 20          # of cached images; the least recently used are dropped first
MAX_DIFFERENCE = 64            # of 255: end of the colour scale of differences
COLOUR_MAP = "inferno"         # its lightness increases monotonically: readable in greyscale
DIFFERENCE_UNIT = "mean absolute difference over the colour channels (of 255)"
GROUND_TRUTH = "ground truth"
#: part of the face -> (the dataset's rectangle, width over height of the crop)
CROPS = {"mouth": ("lip_rect", 1.5), "eyes": ("eye_rect", 2.0)}


class FrameCache:
    """Frames of a dataset as rendered by several runs; each is rendered once and cached.

    Args:
        runs: trained on one dataset, each with a checkpoint.
        max_bytes: of cached images.

    Attributes:
        rendered: number of frames rendered so far.
    """

    def __init__(self, runs: Sequence[Run], max_bytes: int = MAX_BYTES):
        self.runs, self.max_bytes = list(runs), max_bytes
        self.rendered = 0
        self._images: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._renderers: dict[int, tuple[Renderer, Script]] = {}
        self._lock = threading.RLock()  # widget callbacks and cells run in different threads

    def picture(self, run: int, i: int) -> np.ndarray:
        """Frame i as rendered by the run of this number, or the clip's own frame (-1): [S, S, 3] uint8."""
        with self._lock:
            key = run, i
            if key not in self._images:
                self._images[key] = self._render(run, i)
                while len(self._images) > 1 and sum(p.nbytes for p in self._images.values()) > self.max_bytes:
                    self._images.popitem(last=False)
            self._images.move_to_end(key)
            return self._images[key]

    def _render(self, run: int, i: int) -> np.ndarray:
        if run < 0:
            return self.runs[0].dataset.frame(i)
        if run not in self._renderers:
            renderer = Renderer.from_run(self.runs[run])
            self._renderers[run] = renderer, replay_script(renderer, "all")
        renderer, script = self._renderers[run]
        self.rendered += 1
        return renderer.render_frames(script.part(i, i + 1))[0]


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean absolute difference over the colour channels of two images [S, S, 3] uint8: [S, S] float32, 0...255."""
    return np.abs(a.astype(np.float32) - b).mean(-1)


def heatmap(values: np.ndarray) -> np.ndarray:
    """Differences [S, S] as colours of `COLOUR_MAP` on the fixed scale 0...`MAX_DIFFERENCE`: [S, S, 3] uint8."""
    colours = matplotlib.colormaps[COLOUR_MAP](np.clip(values / MAX_DIFFERENCE, 0, 1))
    return (255 * colours[..., :3]).round().astype(np.uint8)


def crops(rects: np.ndarray, aspect: float, margin: float = 1.0) -> np.ndarray:
    """Crop windows of one size around a rectangle in every frame.

    Args:
        rects: [N, 4] x0, y0, x1, y1 in px.
        aspect: width over height of the crop.
        margin: width of the crop over that of the median rectangle.

    Returns:
        [N, 3] centre x, y and width in px.
    """
    corners = np.asarray(rects, float).reshape(-1, 2, 2)
    sides = np.median(corners[:, 1] - corners[:, 0], 0)
    width = margin * max(sides[0], sides[1] * aspect, 4)
    return np.concatenate([corners.mean(1), np.full((len(corners), 1), width)], 1)
