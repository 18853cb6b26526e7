"""Head poses and blinks of a stream, which has no known length."""
from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np

from ..data.dataset import Dataset
from ..media.rates import FPS
from . import motion
from .motion import Blink, Poses
from .renderer import Renderer
from .script import Script


class LiveMotion:
    """Head poses and eyes of frames 0, 1, 2, ... without an end; see `head_motion` and `eye_motion`.

    Args:
        renderer: of the head.
        poses: see `stream`.
        blink: see `stream`.

    Raises:
        InputError: poses or blinks that cannot be used.
        DatasetError: `poses` is a folder without a dataset.
    """

    def __init__(self, renderer: Renderer, poses: Poses, blink: Blink):
        ds = renderer.ds
        found, closing = motion.resolve_poses(poses), motion.resolve_blink(blink)
        self._eye_period = _cycle_period(len(ds))
        self._pose_period, count = _pose_period(ds, found)
        self._source, self._w2c, self._pose = motion.head_motion(renderer, found, count)
        self._given = np.zeros((0, 7), np.float32)  # eyes of the frames that an array of `blink` has rows for
        self._blinks: Optional[_RandomBlinks] = None
        after: Blink = "dataset"  # blinks of the frames without a row
        if isinstance(closing, float):
            self._blinks, self._closed, after = _RandomBlinks(closing), motion.closed_eyes(ds), 0.0
        elif not isinstance(closing, str):
            self._given = motion.eye_motion(ds, closing, _rows(closing))
            after = np.full(2 * self._eye_period, closing[-1])
        self._eyes = motion.eye_motion(ds, after, 2 * self._eye_period)

    def script(self, i: int, features: np.ndarray, silent: float) -> Script:
        """The script of frame i alone; frames must be requested in order.

        Args:
            i: its number.
            features: [16, 29] float32, see `LiveFeatures.push`.
            silent: 0...1, likewise.
        """
        eyes = self._given[i] if i < len(self._given) else self._eyes[_wrap(i, self._eye_period)]
        if self._blinks is not None:
            eyes = eyes + np.float32(self._blinks.closing(i)) * (self._closed - eyes)
        at = min(i, len(self._w2c) - 1) if self._pose_period is None else _wrap(i, self._pose_period)
        w2c, pose = (x[at:at + 1] for x in (self._w2c, self._pose))
        source = None if self._source is None else self._source[at:at + 1]
        return Script(features[None], np.array([silent], np.float32), eyes[None], w2c, pose, source, None)


def _cycle_period(frames: int) -> int:
    """Frames of a clip back and forth."""
    return max(1, 2 * (frames - 1))


def _wrap(i: int, period: int) -> int:
    """Index of frame i in two stored periods: the second, eased at both of its ends, repeats for ever."""
    return i if i < period else period + i % period


def _pose_period(ds: Dataset, poses: Union[str, Dataset, np.ndarray]) -> tuple[Optional[int], int]:
    """After how many frames poses repeat (None: never), and how many to compute."""
    if not isinstance(poses, (str, Dataset)):
        return None, _rows(poses)
    if isinstance(poses, Dataset):
        period = _cycle_period(len(poses))
    else:
        period = {"static": 1, "orbit": round(motion.ORBIT_SECONDS * FPS), "cycle": _cycle_period(len(ds))}[poses]
    return period, 2 * period


def _rows(given: Any) -> int:
    """Number of rows of an array, at least 1, so that the checks of `motion` refuse an empty one."""
    return max(1, len(given)) if hasattr(given, "__len__") else 1


class _RandomBlinks:
    """Blinks at random times as in `natural_blinks`, without an end; every instance gives the same ones.

    Args:
        rate: blinks per minute.
    """

    def __init__(self, rate: float):
        self._rate, self._rng, self._last = rate, np.random.default_rng(0), -np.inf
        self._next = self._rng.uniform(0, 60 / rate) if rate else np.inf

    def closing(self, i: int) -> float:
        """Closing of the eyelids in frame i, 0 open ... 1 closed; frames must be requested in order."""
        while self._next <= i / FPS:
            self._last = self._next
            self._next += motion.blink_intervals(self._rng, self._rate, 1)[0]
        return float(motion.closed_after(i / FPS - self._last))
