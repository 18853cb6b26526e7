"""The time line of a live head: 25 frames a second by the clock, or as a microphone delivers audio."""
from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Callable, Iterator, Optional, Protocol

import numpy as np

from ..media.rates import SAMPLE_RATE
from .soundtrack import SoundTrack

MAX_LAG = 10.0       # s behind the clock, after which the lost time is left out: the computer was asleep
IDLE_WAIT = 0.04     # s between looks at the microphone


class DrawsFrames(Protocol):
    """What a `Performer` needs of a head; see `LiveHead`."""

    @property
    def frame(self) -> int: ...

    def hear(self, samples: np.ndarray) -> None: ...

    @property
    def due(self) -> int: ...

    @property
    def needed(self) -> int: ...

    def skip(self) -> None: ...

    def draw(self) -> tuple[bytes, bool]: ...


@dataclass(frozen=True)
class LiveFrame:
    """A frame of the time line.

    Attributes:
        number: it shows the head at number / 25 s of the time line.
        picture: a JPEG; empty if it was left out.
        sound: [640] int16, 16 kHz, from the frame's own time on.
        speaking: whether the mouth moves.
        owner: whose microphone its audio came from; None: nobody's.
        heard: number of its first sample in that microphone's count; -1 without an owner.
    """

    number: int
    picture: bytes
    sound: np.ndarray
    speaking: bool
    owner: Optional[object] = None
    heard: int = -1


class Performer:
    """Draws the frames of a time line as their audio comes in; leaves frames out where the machine is too slow.

    Args:
        head: draws the frames.
        track: gives their audio.
        publish: gets each frame.
        watched: whether anybody looks; if not, no frame is drawn.
        now: seconds of a clock that never goes back.

    Attributes:
        error: what ended it, such as exhausted memory; None while it goes on.
        drawn: number of frames that were drawn.
        left_out: number of frames that were not drawn although somebody looked.
    """

    def __init__(self, head: DrawsFrames, track: SoundTrack, publish: Callable[[LiveFrame], None],
                 watched: Callable[[], bool], now: Callable[[], float] = time.monotonic):
        self._head, self._track, self._publish, self._watched, self._now = head, track, publish, watched, now
        self._start, self._stop = now(), threading.Event()
        self._speaking = False
        self.error: Optional[Exception] = None
        self.drawn = self.left_out = 0
        self._thread = threading.Thread(target=self._loop, name="egs-live", daemon=True)

    def start(self) -> None:
        self._start = self._now()
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        with self._track.changed:
            self._track.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except Exception as error:
                self.error = error
                raise  # the traceback goes to stderr
            with self._track.changed:
                if not self._stop.is_set():
                    self._track.changed.wait(self.pause)

    @property
    def pause(self) -> float:
        """Seconds until the next frame is due by the clock, or until the microphone is looked at again."""
        if self._track.owner is not None:
            return IDLE_WAIT
        return max(0.0, self._start + self._head.needed / SAMPLE_RATE - self._now())

    def step(self) -> None:
        """Let the track grow to the present, and publish the frames that are due; of several, the last is drawn."""
        behind = self._now() - self._start - self._track.length / SAMPLE_RATE
        if behind > MAX_LAG:
            self._start += behind
        self._head.hear(self._track.advance(int((self._now() - self._start) * SAMPLE_RATE)))
        for frame in self._frames():
            self._publish(frame)

    def _frames(self) -> Iterator[LiveFrame]:
        while self._head.due:
            number, picture, watched = self._head.frame, b"", self._watched()
            sound = self._track.frame(number)
            if watched and self._head.due == 1:
                picture, self._speaking = self._head.draw()
                self.drawn += 1
            else:
                self._head.skip()
                self.left_out += watched
            samples = (np.clip(sound.samples, -1, 1) * 32767).round().astype("<i2")
            yield LiveFrame(number, picture, samples, self._speaking, sound.owner, sound.heard)

    @property
    def seconds(self) -> float:
        """Length of the time line."""
        return self._track.length / SAMPLE_RATE
