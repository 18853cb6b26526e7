"""The clock of playing, pausing and seeking."""
from __future__ import annotations

import threading
import time
from typing import Callable

from ..media.rates import FPS


class PlaybackClock:
    """Position in a sequence of frames, which moves with time while it plays; safe to use from several threads.

    Args:
        frames: their number, at least 1.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, frames: int, now: Callable[[], float] = time.monotonic):
        self.frames, self._now = frames, now
        self._lock = threading.RLock()
        self._position, self._since, self._rate, self._playing = 0.0, now(), 1.0, False

    @property
    def duration(self) -> float:
        """Seconds at rate 1."""
        return self.frames / FPS

    @property
    def rate(self) -> float:
        """Seconds of the sequence per second."""
        return self._rate

    @property
    def playing(self) -> bool:
        """Whether the position moves; False once the end is reached."""
        with self._lock:
            return self._playing and self.position < self.duration

    @property
    def position(self) -> float:
        """Seconds from the start, 0 ... `duration`."""
        with self._lock:
            moved = (self._now() - self._since) * self._rate if self._playing else 0.0
            return min(self._position + moved, self.duration)

    @property
    def frame(self) -> int:
        """Number of the frame at the position, 0 ... frames - 1."""
        # the small number: positions that are set from a frame must give that frame, whatever the division left
        return min(int(self.position * FPS + 1e-6), self.frames - 1)

    def play(self) -> None:
        """Play on; from the start if the end is reached."""
        with self._lock:
            at = self.position
            self._set(0.0 if at >= self.duration else at, True)

    def pause(self) -> None:
        with self._lock:
            self._set(self.position, False)

    def seek(self, frame: int) -> None:
        """Go to the start of a frame; it goes on playing if it was."""
        with self._lock:
            self._set(min(max(frame, 0), self.frames - 1) / FPS, self.playing)

    def set_rate(self, rate: float) -> None:
        """Change the speed, keeping the position; rate above 0."""
        with self._lock:
            self._set(self.position, self.playing)
            self._rate = rate

    def _set(self, position: float, playing: bool) -> None:
        self._position, self._since, self._playing = position, self._now(), playing
