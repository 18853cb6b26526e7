"""A head that speaks while the sound is still coming in: chunks of a microphone or a speech synthesiser to frames.

Everything is computed once a frame, from the sound up to a fixed distance ahead of it, so the chunks' lengths change
nothing. What is kept is bounded: a stream may last for hours.
"""
from __future__ import annotations

import warnings
from collections import deque
from typing import Any, Iterable, Iterator, Optional

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from ..core.errors import InputError
from ..data.dataset import Dataset
from ..media.audio import SAMPLES_PER_STEP, WINDOW_STEPS, frames_of, windows_of
from ..media.live_audio import check_rate, mono_16khz
from ..media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ..speech.encoders import describe, load_encoder
from ..speech.phones import BACK, BANDS, HOP, SPEECH, WINDOW, level_and_mean, log_power, network, normalised
from ..speech.voice_activity import BLUR, HANGOVER, INAUDIBLE_DB, QUIET_DB, loudness, silent_note, speech_level
from ..training.run import Run
from . import motion as control
from .motion import Blink, Poses
from .renderer import Renderer, Script

#: Seconds of sound that must have come in after a frame's own time before it is drawn; at least 0.163.
#: What is beyond it the network does without, as at the end of a sound. Opening of the mouth against that of the whole
#: sound heard at once, with the same level and mean (3 heads, 6 voices): 0.08 s: r = 0.84, 0.12 s: 0.95, 0.16 s: 0.990,
#: 0.20 s: 0.998, 0.285 s (all that offline code hears): 0.999. Waiting for full context instead and holding the last
#: step that has it: 0.94 at 0.20 s.
LOOK_AHEAD = 0.2
MEMORY = 500          # steps (10 s) of a voice that its level and mean are taken from
SILENCE_SHARE = 8     # one step in so many counts where no one speaks, so that a pause does not make a noise a voice
START = 25            # steps (0.5 s) of a new voice after which the clip's own no longer counts
BLUR_REACH = 6        # frames around one whose silence still closes the mouth: 4 standard deviations
DEAF = 250            # frames (10 s) of silence from the start on, after which a silent microphone is pointed out
_AHEAD = round(LOOK_AHEAD * SAMPLE_RATE)
_SEEN = BACK + WINDOW_STEPS // 2  # steps before a frame's own time that the network is shown


def stream(run: Run, chunks: Iterable[np.ndarray], poses: Poses = "cycle", blink: Blink = "dataset",
           iteration: Optional[int] = None, device: Optional[str | torch.device] = None,
           sample_rate: float = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """Drive a trained head with a sound that is still coming in.

    Frame i shows the mouth at i / 25 s. It is yielded once the sound up to `LOOK_AHEAD` (0.2 s) after that has come in:
    play the sound 0.2 s late, plus the time a frame takes: 12 ms on an H100 (512 px, 10,000 Gaussians; 95 % below 14),
    8 of them to listen, on the CPU; see `benchmarks/live.py`. The level and the sound of a voice are learned
    while it speaks; with them, the mouth's opening agrees with that of `render` at r = 0.99 (`LOOK_AHEAD` and
    `Listener` have the figures). The head is loaded and warmed up in this call, before the first chunk is asked for.

    Args:
        run: see `load_run`; its dataset must have been prepared with the encoder `phones`, the default.
        chunks: [samples] or [samples, channels] each, of any lengths; taken one by one, as frames are asked for.
            Floats of -1...1, or int16 or int32 of their full range. Up to 8 channels are averaged: of channels with
            opposite phase, give one.
        poses, blink: see `render`. What repeats goes on for ever; an array that ends holds its last row, as a stream
            has no length that could be asked for. Blinks of a rate never repeat.
        iteration: checkpoint, default the newest.
        sample_rate: samples per second of the chunks, 8,000 to 384,000. Other rates than 16,000 are resampled, which
            delays frames by at most 40 ms more at 44,100 and 48,000, 80 ms above and 120 ms below.

    Yields:
        [S, S, 3] uint8 at 25 fps; in all `frames_of(samples)` at 16 kHz, the last ones when the chunks end. None
        without sound. However the sound is cut into chunks, the frames are the same.

    Warns:
        UserWarning: nothing could be heard for 10 s from the start on, or in the whole sound.

    Raises:
        InputError: another encoder, poses or blinks that cannot be used, an impossible rate; while streaming: a chunk
            that is no sound.
        DatasetError: no such checkpoint; `poses` is a folder without a dataset.
    """
    _check_encoder(run.manifest["encoder"])
    check_rate(sample_rate)
    try:
        chunks = iter(chunks)
    except TypeError as error:
        raise InputError("chunks as an iterable of float32 arrays", type(chunks).__name__,
                         "Give a list or a generator; a whole sound as [wave].") from error
    renderer = Renderer.from_run(run, iteration, device)
    motion, listener = Motion(renderer, poses, blink), Listener(renderer.ds.audio())
    _warm_up(renderer)
    return _frames(renderer, motion, listener, mono_16khz(chunks, sample_rate))


def _check_encoder(spec: dict[str, Any]) -> None:
    if spec.get("name") != "phones":
        raise InputError("a run with the encoder 'phones', which can listen as sound comes in", describe(spec),
                         "Prepare the clip with encoder='phones' (the default) and train on that; egs.render takes "
                         "this run and a whole sound.")
    load_encoder(spec)  # the same weights, or an error


def _warm_up(renderer: Renderer) -> None:
    """Import, compile and record what the first frames would wait for."""
    still, ear = Motion(renderer, "static", "dataset"), Listener(renderer.ds.audio())
    heard = next(ear.hear(np.zeros(_AHEAD, np.float32)))
    for _ in range(3 if renderer.device.type == "cuda" else 1):
        renderer.drawn(still.script(0, *heard))


def _frames(renderer: Renderer, motion: "Motion", listener: "Listener",
            sound: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for number, heard in enumerate(_heard(listener, sound)):
        if number == DEAF and (note := silent_note(listener.loudest, f"the first {DEAF / FPS:.0f} s of the sound")):
            warnings.warn(note, stacklevel=2)
        yield renderer.drawn(motion.script(number, *heard))[0]
    if 0 < listener.frame <= DEAF and (note := silent_note(listener.loudest, "the sound")):
        warnings.warn(note, stacklevel=2)


def _heard(listener: "Listener", sound: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, float]]:
    for samples in sound:
        yield from listener.hear(samples)
    yield from listener.finish()


class Listener:
    """Hears a sound that grows, frame by frame, as the encoder `phones` and `shut_in_silence` hear a whole.

    Against those (3 heads, 5 foreign voices each, 5-8 s, from the first sample on): opening of the mouth r = 0.989
    (least 0.979), each mode of the mouth 0.98-0.99, silence within 0.003 in the mean, jitter 1.04 times theirs.

    Args:
        familiar: [samples] float32, the sound of the head's own clip: what voices are taken to be like until
            `START` steps of this one were heard.
    """

    def __init__(self, familiar: np.ndarray):
        self.samples = self.frame = 0      # that came in; the next to be heard
        self._voice = Voice(familiar)
        self._pending: list[np.ndarray] = []
        self._wave, self._begin = np.zeros(0, np.float32), 0  # what is still needed, and the number of its first sample
        self._log, self._hops = torch.zeros(0, BANDS), 0      # newest log-mel power; how many hops there were in all
        self.loudest = -np.inf                                # dB of the loudest frame so far
        # dB of the frames around the next one, silence before the first; how many frames there were in all
        self._loud, self._judged = deque([-np.inf] * (HANGOVER + BLUR_REACH)), 0

    def hear(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """Take float32 [samples]; yield what each frame that is ready hears: [16, 29] float32, silence 0...1."""
        self._pending.append(samples)
        self.samples += len(samples)
        while self.samples >= self.frame * SAMPLES_PER_FRAME + _AHEAD:
            yield self._next(self.frame * SAMPLES_PER_FRAME + _AHEAD, over=False)

    def finish(self) -> Iterator[tuple[np.ndarray, float]]:
        """The sound is over: what the remaining frames hear."""
        while self.samples and self.frame < frames_of(self.samples):
            yield self._next(self.samples, over=True)

    def _next(self, until: int, over: bool) -> tuple[np.ndarray, float]:
        """What the next frame hears in the samples up to `until`."""
        if self._pending:
            self._wave, self._pending = np.concatenate([self._wave, *self._pending]), []
        self._listen(until, over)
        level, mean = self._voice.level_and_mean
        first = max(0, 2 * self.frame - _SEEN)
        seen = normalised(self._log[2 * first - self._hops:], level, mean)
        with torch.no_grad():
            steps = network()(seen[None])[0].softmax(-1).sqrt().numpy()
        window = windows_of(steps, self.frame - first // 2 + 1)[-1]
        silent = self._silence(over)
        self.frame += 1
        self._forget()
        return window, silent

    def _listen(self, until: int, over: bool) -> None:
        """Log-mel power, voice and loudness of what is new."""
        hops = 2 * -(-until // SAMPLES_PER_STEP) if over else ((until - WINDOW // 2) // HOP + 1) // 2 * 2
        if hops > self._hops:
            context = min(self._hops, 2)
            part = self._part((self._hops - context) * HOP, until)
            new = log_power(part)[context:context + hops - self._hops]
            self._voice.hear(new, part[context * HOP:])
            self._log, self._hops = torch.cat([self._log, new]), hops
        frames = frames_of(until) if over else until // SAMPLES_PER_FRAME
        if frames > self._judged:
            levels = loudness(self._part(self._judged * SAMPLES_PER_FRAME, until), frames - self._judged)
            self._loud.extend(levels)
            self.loudest, self._judged = max(self.loudest, float(levels.max())), frames

    def _part(self, first: int, last: int) -> np.ndarray:
        return self._wave[first - self._begin:last - self._begin]

    def _silence(self, over: bool) -> float:
        """How far the mouth is shut in this frame: `shut_in_silence` with the silence that is known ahead."""
        loud = np.array(self._loud)
        after = np.full(HANGOVER + BLUR_REACH if over else 0, -np.inf)
        quiet = np.concatenate([loud, after]) < max(self._voice.loudness - QUIET_DB, INAUDIBLE_DB)
        silent = sliding_window_view(quiet, 2 * HANGOVER + 1).all(1).astype(np.float32)
        return float(gaussian_filter1d(silent, BLUR, mode="nearest")[BLUR_REACH])

    def _forget(self) -> None:
        """Drop what no later frame needs."""
        self._loud.popleft()
        self._log = self._log[max(0, len(self._log) - self._hops + 2 * max(0, 2 * self.frame - _SEEN)):]
        needed = min(max(0, self._hops - 2) * HOP, self._judged * SAMPLES_PER_FRAME)
        self._wave, self._begin = self._wave[needed - self._begin:], needed


class Voice:
    """How loud the newest voice is and what it sounds like in the mean: of its last ten seconds.

    Pauses hardly count: speech after one is heard as before it. A voice that stays 30 dB below the last one is taken
    for silence until enough of it was heard, about a minute.

    Attributes:
        level_and_mean: see `phones.level_and_mean`. loudness: dB of full scale, see `speech_level`.
    """

    def __init__(self, familiar: np.ndarray):
        self._log, self._sound = self._steps(log_power(familiar), familiar)
        self._log, self._sound = self._log[-MEMORY:], self._sound[-MEMORY:]
        self._borrowed = len(self._log)
        self._drop = -(-self._borrowed // START)  # borrowed steps that each heard one replaces
        self._quiet = 0
        self._measure()

    def hear(self, log: Tensor, wave: np.ndarray) -> None:
        """Log-mel power [2 T, 40] of new steps, and their sound (may be longer)."""
        log, sound = self._steps(log, wave)
        quiet = log.logsumexp(-1).amax(-1) <= self.level_and_mean[0] + SPEECH
        kept = ~quiet | ((self._quiet + quiet.cumsum(0)) % SILENCE_SHARE == 0)
        self._quiet = (self._quiet + int(quiet.sum())) % SILENCE_SHARE
        dropped = min(self._borrowed, self._drop * int(kept.sum()))
        self._borrowed -= dropped
        self._log = torch.cat([self._log[dropped:], log[kept]])[-MEMORY:]
        self._sound = np.concatenate([self._sound[dropped:], sound[kept.numpy()]])[-MEMORY:]
        self._measure()

    def _steps(self, log: Tensor, wave: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """By step: [T, 2, 40] and [T, 320]."""
        count = len(log) // 2
        sound = np.zeros(count * SAMPLES_PER_STEP, np.float32)
        sound[:len(wave)] = wave[:len(sound)]
        return log.reshape(count, 2, BANDS), sound.reshape(count, SAMPLES_PER_STEP)

    def _measure(self) -> None:
        self.level_and_mean = level_and_mean(self._log.flatten(0, 1))
        self.loudness = speech_level(self._sound.ravel())


class Motion:
    """Where the head is and what its eyes do in frame 0, 1, 2, ... without an end; see `head_motion`, `eye_motion`."""

    def __init__(self, renderer: Renderer, poses: Poses, blink: Blink):
        ds = renderer.ds
        poses, blink = control.opened_poses(poses), control.opened_blink(blink)
        self._round = _round_trip(len(ds))
        self._pose_round, count = _length(ds, poses)
        self._source, self._w2c, self._pose = control.head_motion(renderer, poses, count)
        self._given, self._blinks, after = np.zeros((0, 7), np.float32), None, blink
        if not isinstance(blink, str) and np.ndim(blink) == 0:
            control.eye_motion(ds, blink, 1)  # refuses what is no rate
            self._blinks, self._closed, after = _Blinks(blink), control.closed_eyes(ds), 0
        elif not isinstance(blink, str):
            self._given = control.eye_motion(ds, blink, _rows(blink))
            after = np.full(2 * self._round, blink[-1])
        self._eyes = control.eye_motion(ds, after, 2 * self._round)

    def script(self, i: int, heard: np.ndarray, silent: float) -> Script:
        """What frame i shows; frames are asked for in order."""
        eyes = self._given[i] if i < len(self._given) else self._eyes[_at(i, self._round)]
        if self._blinks is not None:
            eyes = eyes + np.float32(self._blinks.closed(i)) * (self._closed - eyes)
        at = min(i, len(self._w2c) - 1) if self._pose_round is None else _at(i, self._pose_round)
        w2c, pose = (x[at:at + 1] for x in (self._w2c, self._pose))
        source = None if self._source is None else self._source[at:at + 1]
        return Script(heard[None], np.float32([silent]), eyes[None], w2c, pose, source, None)


def _round_trip(frames: int) -> int:
    """Frames there and back."""
    return max(1, 2 * (frames - 1))


def _at(i: int, period: int) -> int:
    """Frame i in two rounds: the first is seen once, the second, which also begins softly, for ever."""
    return i if i < period else period + i % period


def _length(ds: Dataset, poses: Any) -> tuple[Optional[int], int]:
    """After how many frames poses repeat (None: never), and how many must be known."""
    if not isinstance(poses, (str, Dataset)):
        return None, _rows(poses)
    rounds = {"static": 1, "orbit": round(control.ORBIT_SECONDS * FPS), "cycle": _round_trip(len(ds))}
    period = _round_trip(len(poses)) if isinstance(poses, Dataset) else rounds[poses]
    return period, 2 * period


def _rows(given: Any) -> int:
    """How many frames a user gave, at least 1, so that none at all is refused."""
    return max(1, len(given)) if hasattr(given, "__len__") else 1


class _Blinks:
    """Blinks at random times without an end, as `natural_blinks` draws them; the same at every start."""

    def __init__(self, rate: float):
        self._rate, self._rng, self._last = rate, np.random.default_rng(0), -np.inf
        self._next = self._rng.uniform(0, 60 / rate) if rate else np.inf

    def closed(self, i: int) -> float:
        """How far the lids are closed in frame i, 0...1; frames are asked for in order."""
        while self._next <= i / FPS:
            self._last = self._next
            self._next += control.blink_intervals(self._rng, self._rate, 1)[0]
        return float(control.closed_after(i / FPS - self._last))
