"""What a live head says, as one track of samples: utterances one after another, a microphone, silence between them."""
from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple, Optional

import numpy as np

from ..core.errors import InputError
from ..media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME

FADE = round(0.03 * SAMPLE_RATE)        # samples: an utterance that is interrupted fades out, since a cut would click
MAX_QUEUE = 16                          # utterances that wait
MAX_SECONDS = 600                       # of all waiting audio that is there as a whole
MAX_BUFFERED = 5 * SAMPLE_RATE          # samples of an utterance that still comes in; more wait at their source
MAX_STALL = 10.0                        # s without a sample, after which an utterance that comes in counts as ended
MAX_MICROPHONE = SAMPLE_RATE            # samples of a microphone that wait; the oldest are dropped
#: A microphone's clock is not the computer's. In a pause, a block is dropped where the track is this far ahead of the
#: clock, and repeated as silence where it is this far behind; beyond the wide limits at once, in speech, too.
BLOCK = round(0.01 * SAMPLE_RATE)
AHEAD, BEHIND = round(0.02 * SAMPLE_RATE), round(0.08 * SAMPLE_RATE)
FAR_AHEAD, FAR_BEHIND = round(0.1 * SAMPLE_RATE), round(0.2 * SAMPLE_RATE)
QUIET = 0.004                           # of full scale (-48 dB): the largest sample of a block that counts as a pause


class Utterance:
    """Audio that the head says: whole, or coming in. `SoundTrack` makes them, and its lock protects them.

    Attributes:
        stopped: whether it was interrupted; what is added then is dropped.
    """

    def __init__(self, changed: threading.Condition):
        self._changed, self._parts, self._length = changed, deque[np.ndarray](), 0
        self._ended, self._latest = False, time.monotonic()
        self.stopped = False

    def add(self, samples: np.ndarray) -> None:
        """Append audio, float32 [samples] at 16 kHz."""
        with self._changed:
            self._latest = time.monotonic()
            if not self.stopped and len(samples):
                self._parts.append(samples)
                self._length += len(samples)

    def end(self) -> None:
        """No more audio follows."""
        with self._changed:
            self._ended = True

    @property
    def full(self) -> bool:
        """Whether its source should wait before it adds more."""
        return self._length >= MAX_BUFFERED and not self.stopped

    def wait_for_room(self, seconds: float) -> bool:
        """Wait until it is not `full`, at most so long; returns whether it is not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.full, seconds)

    @property
    def seconds(self) -> float:
        """Audio that waits."""
        return self._length / SAMPLE_RATE

    @property
    def done(self) -> bool:
        stalled = not self._length and time.monotonic() - self._latest > MAX_STALL
        return not self._length and (self._ended or stalled)

    def take(self, count: int) -> np.ndarray:
        """At most `count` samples, fewer where they have not come in."""
        taken: list[np.ndarray] = []
        while count and self._parts:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part[count:])
                part = part[:count]
            taken.append(part)
            count -= len(part)
            self._length -= len(part)
        self._changed.notify_all()
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)

    def fade(self) -> None:
        """End it after a few milliseconds that become silent."""
        rest = self.take(FADE)
        rest = rest * np.linspace(1, 0, len(rest), dtype=np.float32)
        self._parts, self._length = deque([rest] if len(rest) else []), len(rest)
        self._ended = self.stopped = True
        self._changed.notify_all()


class FrameSound(NamedTuple):
    """The audio of one video frame.

    Attributes:
        samples: [640] float32, from the frame's own time on.
        owner: whose microphone the first sample came from; None: nobody's.
        heard: number of that sample in the microphone's own count; -1 without an owner.
    """

    samples: np.ndarray
    owner: Optional[object]
    heard: int


class _Piece(NamedTuple):
    """Part of the track: its first sample's number there and in the microphone's count."""

    first: int
    samples: np.ndarray
    owner: Optional[object]
    heard: int


class SoundTrack:
    """The audio of a live head, which grows with time; safe to use from several threads.

    An utterance goes before the microphone, and the microphone before silence.

    Attributes:
        length: number of samples so far.
        owner: whose microphone is on; None: nobody's.
        changed: notified when a microphone delivers audio, and when an utterance leaves room.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.length = 0
        self.owner: Optional[object] = None
        self._utterances: deque[Utterance] = deque()
        self._heard: deque[tuple[int, np.ndarray]] = deque()
        self._waiting = 0  # samples in `_heard`
        self._tape: deque[_Piece] = deque()  # what `frame` has not returned yet

    # ---- what is said ----

    def begin(self, interrupt: bool = True) -> Utterance:
        """A new utterance, whose audio follows with `Utterance.add`.

        Args:
            interrupt: end the current one and drop those that wait; otherwise it is said after them.

        Raises:
            InputError: too many utterances wait.
        """
        with self.changed:
            if interrupt:
                self._interrupt()
            if len(self._utterances) > MAX_QUEUE:
                raise InputError(f"at most {MAX_QUEUE} utterances that wait", f"{MAX_QUEUE + 1}",
                                 "Wait until the head has said some of them, or interrupt it.")
            self._utterances.append(Utterance(self.changed))
            return self._utterances[-1]

    def say(self, wave: np.ndarray, interrupt: bool = True) -> Utterance:
        """A whole utterance.

        Args:
            wave: [samples] float32 -1...1, 16 kHz.
            interrupt: see `begin`.

        Raises:
            InputError: too long, or too many utterances wait.
        """
        with self.changed:
            seconds = len(wave) / SAMPLE_RATE + (0 if interrupt else self.queued)
            if seconds > MAX_SECONDS:
                raise InputError(f"at most {MAX_SECONDS} s of audio that wait", f"{seconds:.0f} s",
                                 "Say it in parts, one after another.")
            utterance = self.begin(interrupt)
            utterance.add(wave)
            utterance.end()
            return utterance

    def stop(self) -> None:
        """End the current utterance, and drop those that wait."""
        with self.changed:
            self._interrupt()

    def _interrupt(self) -> None:
        for utterance in self._utterances:
            utterance.fade()
        while len(self._utterances) > 1:  # the others fade unheard
            self._utterances.pop()

    @property
    def queued(self) -> float:
        """Seconds of utterances that are not said yet."""
        with self.changed:
            return sum(utterance.seconds for utterance in self._utterances)

    # ---- the microphone ----

    def open_microphone(self, owner: object) -> bool:
        """Take the microphone; returns False if somebody else has it."""
        with self.changed:
            if self.owner is None:
                self.owner = owner
            return self.owner is owner

    def close_microphone(self, owner: object) -> None:
        with self.changed:
            if self.owner is owner:
                self.owner = None
                self._forget_heard()

    def hear(self, owner: object, first: int, samples: np.ndarray) -> None:
        """Audio of the microphone; of others than its owner it is dropped.

        Args:
            owner: as for `open_microphone`.
            first: number of the first sample in the microphone's count.
            samples: [samples] float32, 16 kHz.
        """
        with self.changed:
            if self.owner is owner and len(samples):
                self._heard.append((first, samples))
                self._waiting += len(samples)
                while self._waiting > MAX_MICROPHONE:
                    self._waiting -= len(self._heard.popleft()[1])
                self.changed.notify_all()

    def _forget_heard(self) -> None:
        self._heard.clear()
        self._waiting = 0

    # ---- the track ----

    def advance(self, clock: int) -> np.ndarray:
        """Let the track grow.

        Args:
            clock: number of samples that it should have by the computer's clock.

        Returns:
            [samples] float32, the new ones: up to `clock`, or with a microphone, what came in.
        """
        with self.changed:
            before = self.length
            pieces = []
            while self.length < clock and self._utterances:
                self._forget_heard()
                if not len(samples := self._utterances[0].take(clock - self.length)):
                    if not self._utterances[0].done:
                        break  # silence until more of it comes in
                    self._utterances.popleft()
                pieces.append(self._append(samples))
            if self.owner is not None and not self._utterances:
                pieces += self._microphone(clock)
            else:
                pieces.append(self._silence(clock - self.length))
            assert self.length - before == sum(map(len, pieces))
            return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _microphone(self, clock: int) -> list[np.ndarray]:
        """What came in, so that the track stays within the limits around the clock."""
        pieces = []
        while self._heard:
            first, samples = self._heard.popleft()
            self._waiting -= len(samples)
            ahead = self.length + len(samples) - clock
            pause = float(np.abs(samples).max()) < QUIET
            if ahead > FAR_AHEAD or (ahead > AHEAD and pause):
                continue
            if ahead < -BEHIND and pause:
                pieces.append(self._silence(min(BLOCK, clock - self.length)))
            pieces.append(self._append(samples, self.owner, first))
        if clock - self.length > FAR_BEHIND:  # it delivers nothing
            pieces.append(self._silence(clock - self.length - BEHIND // 2))
        return pieces

    def _silence(self, count: int) -> np.ndarray:
        return self._append(np.zeros(max(0, count), np.float32))

    def _append(self, samples: np.ndarray, owner: Optional[object] = None, heard: int = -1) -> np.ndarray:
        if len(samples):
            self._tape.append(_Piece(self.length, samples, owner, heard))
            self.length += len(samples)
        return samples

    def frame(self, number: int) -> FrameSound:
        """The audio of a frame that the track has reached; frames must be requested in order."""
        with self.changed:
            first, last = number * SAMPLES_PER_FRAME, (number + 1) * SAMPLES_PER_FRAME
            while self._tape and self._tape[0].first + len(self._tape[0].samples) <= first:
                self._tape.popleft()
            if not self._tape or self._tape[0].first >= last:
                return FrameSound(np.zeros(SAMPLES_PER_FRAME, np.float32), None, -1)
            samples = np.zeros(SAMPLES_PER_FRAME, np.float32)
            for piece in self._tape:
                if piece.first >= last:
                    break
                begin = max(0, first - piece.first)
                part = piece.samples[begin:last - piece.first]
                at = piece.first + begin - first
                samples[at:at + len(part)] = part
            start = self._tape[0]
            heard = start.heard + first - start.first if start.owner is not None else -1
            return FrameSound(samples, start.owner, heard)
