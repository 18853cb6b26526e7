"""How a live head moves: as in its clip while it speaks, less while it rests; it breathes and blinks all the time."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..media.rates import FPS
from ..rendering.live_motion import LiveMotion
from ..rendering.motion import Blink, mean_pose, pose_vectors, poses_of_vectors
from ..rendering.renderer import Renderer
from ..rendering.script import Script

REST = 0.35              # of the clip's motion is left while the head rests
SETTLE_SECONDS = 0.8     # in which the motion becomes larger or smaller
BREATH_SECONDS = 4.0     # of a breath: 15 a minute
BREATH_NOD = 0.004       # rad, amplitude
BREATH_LIFT = 0.002      # amplitude, of the distance between head and camera
BLINKS = 17.0            # per minute


class IdleMotion:
    """Poses and eyes of frames without an end, see `LiveMotion`; never outside the range of the clip's poses.

    The torso follows the pose, since no single frame of the clip shows it.

    Args:
        renderer: of the head.
        blink: see `stream`.

    Raises:
        InputError: blinks that cannot be used.
    """

    def __init__(self, renderer: Renderer, blink: Blink = BLINKS):
        self._clip = LiveMotion(renderer, "cycle", blink)
        self._steady = renderer.steady  # the background stands still: the head must not move with the clip's camera
        known = self._steady(renderer.w2c, np.arange(len(renderer.w2c)))[:renderer.ds.num_train]
        self._mean = mean_pose(known)
        vectors = pose_vectors(self._mean, known)
        self._low, self._high = vectors.min(0), vectors.max(0)
        self._moving, self._last = 0.0, 0  # 0 at rest ... 1 speaking, in the last frame

    def script(self, i: int, features: np.ndarray, silent: float) -> Script:
        """The script of frame i alone; frames must be requested in order, and may be left out. See `LiveMotion`."""
        keep = np.exp((self._last - i) / (SETTLE_SECONDS * FPS))
        self._moving, self._last = keep * self._moving + (1 - keep) * (1 - silent), i
        given = self._clip.script(i, features, silent)
        w2c = self._steady(given.w2c, given.source)
        away = pose_vectors(self._mean, w2c) * (REST + (1 - REST) * self._moving)
        breath = np.sin(2 * np.pi * i / (BREATH_SECONDS * FPS))
        away[:, 0] += BREATH_NOD * breath
        away[:, 4] -= BREATH_LIFT * self._mean[2, 3] * breath
        w2c = poses_of_vectors(self._mean, np.clip(away, self._low, self._high)).astype(np.float32)
        return replace(given, w2c=w2c, pose=w2c, source=None)
