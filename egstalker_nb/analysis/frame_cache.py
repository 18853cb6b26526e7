"""The same frame from several runs: renders that are kept, their differences, and crops of mouth and eyes."""
from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Sequence

import matplotlib
import numpy as np

from ..rendering.renderer import Renderer, replay_script
from ..training.run import Run

KEPT_BYTES = 256 << 20  # of renders; the oldest go first
HIGHEST = 64            # of 255: where the scale of differences ends
MAP = "inferno"         # its lightness rises from end to end: it stays readable in greyscale
UNIT = "mean absolute difference of the colours (of 255)"
TRUTH = "ground truth"
#: part of the face -> (dataset's rectangle, width over height of the crop)
CROPS = {"mouth": ("lip_rect", 1.5), "eyes": ("eye_rect", 2.0)}


class Renders:
    """Frames of a dataset as several runs show them, each rendered once and kept.

    Args:
        runs: trained on one dataset, each with a checkpoint. kept: bytes of pictures to keep.
    """

    def __init__(self, runs: Sequence[Run], kept: int = KEPT_BYTES):
        self.runs, self.kept = list(runs), kept
        self.rendered = 0  # pictures that were not at hand
        self._pictures: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._renderers: dict[int, tuple[Renderer, object]] = {}
        self._lock = threading.RLock()  # callbacks and cells come from different threads

    def picture(self, run: int, i: int) -> np.ndarray:
        """Frame i as the run of this number shows it; -1: as the camera did. [S, S, 3] uint8."""
        with self._lock:
            key = run, i
            if key not in self._pictures:
                self._pictures[key] = self._draw(run, i)
                while len(self._pictures) > 1 and sum(p.nbytes for p in self._pictures.values()) > self.kept:
                    self._pictures.popitem(last=False)
            self._pictures.move_to_end(key)
            return self._pictures[key]

    def _draw(self, run: int, i: int) -> np.ndarray:
        if run < 0:
            return self.runs[0].dataset.frame(i)
        if run not in self._renderers:
            renderer = Renderer.from_run(self.runs[run])
            self._renderers[run] = renderer, replay_script(renderer, "all")
        renderer, script = self._renderers[run]
        self.rendered += 1
        return renderer.drawn(script.part(i, i + 1))[0]


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the colours of two pictures [S, S, 3] uint8: [S, S] float32, 0...255."""
    return np.abs(a.astype(np.float32) - b).mean(-1)


def heat(values: np.ndarray) -> np.ndarray:
    """Differences [S, S] on the fixed scale 0...`HIGHEST` in the colours of `MAP`: [S, S, 3] uint8."""
    colours = matplotlib.colormaps[MAP](np.clip(values / HIGHEST, 0, 1))
    return (255 * colours[..., :3]).round().astype(np.uint8)


def crops(rects: np.ndarray, aspect: float, margin: float = 1.0) -> np.ndarray:
    """Windows of one size around rectangles [N, 4] (x0, y0, x1, y1 px) of every frame: centre and width, [N, 3] px."""
    corners = np.asarray(rects, float).reshape(-1, 2, 2)
    sides = np.median(corners[:, 1] - corners[:, 0], 0)
    width = margin * max(sides[0], sides[1] * aspect, 4)
    return np.concatenate([corners.mean(1), np.full((len(corners), 1), width)], 1)


