"""Frames from audio that is still coming in: chunks of a microphone or a speech synthesiser drive a head live.

Each frame is computed once, from the audio up to a fixed look-ahead, so the frames do not depend on the lengths of the
chunks. All buffers are bounded: a stream may last for hours.
"""
from __future__ import annotations

import warnings
from collections import deque
from typing import Iterable, Iterator, Optional

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from ..core.errors import InputError
from ..media.audio import SAMPLES_PER_STEP, WINDOW_STEPS, frames_of, windows_of
from ..media.live_audio import check_rate, mono_16khz
from ..media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ..speech.encoders import describe, load_encoder
from ..speech.phones import BACK, BANDS, HOP, SPEECH, WINDOW, level_and_mean, log_power, network, normalised
from ..speech.voice_activity import BLUR, HANGOVER, INAUDIBLE_DB, QUIET_DB, loudness, silent_note, speech_level
from ..training.run import Run
from .live_motion import LiveMotion
from .motion import Blink, Poses
from .renderer import Renderer, check_mouth_driven

#: Seconds of audio after a frame's own time that it waits for; at least `MIN_LOOK_AHEAD`. The encoder does without what
#: comes later, as at the end of a file. Correlation of the mouth opening with that of offline features of the same
#: level and mean (3 heads, 6 voices): 0.08 s: r = 0.84, 0.12 s: 0.95, 0.16 s: 0.990, 0.20 s: 0.998, 0.285 s (the full
#: context of the offline features): 0.999. Holding the last step with full context instead: 0.94 at 0.20 s.
LOOK_AHEAD = 0.2
MIN_LOOK_AHEAD = 0.163  # half a window of features, half an analysis window, and the hop that both end on
STATISTICS_STEPS = 500  # steps (10 s) of speech that level and mean are estimated from
SILENCE_STRIDE = 8      # every 8th step without speech counts, so that noise in a pause is not amplified to speech
ADAPTATION_STEPS = 25   # steps (0.5 s) of new speech after which the clip's own no longer counts
BLUR_RADIUS = 6         # frames: silence this far away still closes the mouth a little; 4 standard deviations
NOTE_FRAMES = 250       # frames (10 s) of silence at the start after which the user is warned of a silent microphone
_CONTEXT = BACK + WINDOW_STEPS // 2  # steps before a frame's own time that the encoder gets


def stream(run: Run, chunks: Iterable[np.ndarray], poses: Poses = "cycle", blink: Blink = "dataset",
           iteration: Optional[int] = None, device: Optional[str | torch.device] = None,
           sample_rate: float = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """Drive a trained head with audio that is still coming in.

    Frame i shows the mouth at i / 25 s. It is yielded once the audio up to `LOOK_AHEAD` (0.2 s) after that has come in:
    play the audio 0.2 s late, plus the time a frame takes, which is 12 ms on an H100 (512 px, 10,000 Gaussians; 95 %
    below 14 ms), 8 ms of them for the audio features on the CPU; see `benchmarks/live.py`. Level and spectrum of the
    voice are estimated while it speaks; the mouth opening then agrees with that of `render` at r = 0.99 (see
    `LOOK_AHEAD` and `LiveFeatures`). The head is loaded and warmed up in this call, before the first chunk is taken.

    Args:
        run: see `load_run`; its dataset must have been prepared with the encoder `phones`, the default.
        chunks: [samples] or [samples, channels] each, of any lengths; taken one by one as frames are requested. Floats
            of -1...1, or int16 or int32 of their full range. Up to 8 channels are averaged: of channels with opposite
            phase, give one.
        poses: see `render`. Paths that repeat do so for ever; an array that ends holds its last row.
        blink: see `render`. As `poses`; blinks of a rate never repeat.
        iteration: checkpoint, default the newest.
        device: default CUDA, else the CPU.
        sample_rate: of the chunks in Hz, 8,000 to 384,000. Rates other than 16,000 are resampled, which delays frames
            by another 40 ms at most at 44,100 and 48,000, 80 ms above and 120 ms below.

    Yields:
        [S, S, 3] uint8 at 25 fps, `frames_of(samples)` of them for the samples at 16 kHz, the last ones when the
        chunks end. None without audio. How the audio is cut into chunks does not change the frames.

    Warns:
        UserWarning: the audio is inaudible in its first 10 s, or throughout.

    Raises:
        InputError: another encoder, poses or blinks that cannot be used, an impossible rate; while streaming: a chunk
            that is not audio.
        DatasetError: no such checkpoint; `poses` is a folder without a dataset.
    """
    check_streamed(run)
    check_rate(sample_rate)
    try:
        chunks = iter(chunks)
    except TypeError as error:
        raise InputError("chunks as an iterable of float32 arrays", type(chunks).__name__,
                         "Give a list or a generator; audio in one piece as [wave].") from error
    renderer = Renderer.from_run(run, iteration, device)
    live_motion, live_features = LiveMotion(renderer, poses, blink), LiveFeatures(renderer.ds.audio())
    warm_up(renderer)
    return _frames(renderer, live_motion, live_features, mono_16khz(chunks, sample_rate))


def check_streamed(run: Run) -> None:
    """Whether a head can be driven while audio comes in.

    Raises:
        InputError: another encoder than `phones`, or a head that needs the audio around each frame.
    """
    check_mouth_driven(run.config.audio_token, "audio that is still coming in")
    spec = run.manifest["encoder"]
    if spec.get("name") != "phones":
        raise InputError("a run with the encoder 'phones', which works on audio as it comes in", describe(spec),
                         "Prepare the clip with encoder='phones' (the default) and train on that; egs.render takes "
                         "this run and a whole audio file.")
    load_encoder(spec)  # raises if the weights are not the same


def warm_up(renderer: Renderer) -> None:
    """Do the imports, compilation and CUDA graph capture that would delay the first frames."""
    live_motion, live_features = LiveMotion(renderer, "static", "dataset"), LiveFeatures(renderer.ds.audio())
    features, silent = next(live_features.push(np.zeros(round(LOOK_AHEAD * SAMPLE_RATE), np.float32)))
    for _ in range(3 if renderer.device.type == "cuda" else 1):
        renderer.render_frames(live_motion.script(0, features, silent))


def _frames(renderer: Renderer, live_motion: LiveMotion, live_features: LiveFeatures,
            audio: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for i, (features, silent) in enumerate(_frame_features(live_features, audio)):
        if i == NOTE_FRAMES and (note := silent_note(live_features.loudest,
                                                     f"the first {NOTE_FRAMES / FPS:.0f} s of the audio")):
            warnings.warn(note, stacklevel=2)
        yield renderer.render_frames(live_motion.script(i, features, silent))[0]
    if 0 < live_features.frame <= NOTE_FRAMES and (note := silent_note(live_features.loudest, "the audio")):
        warnings.warn(note, stacklevel=2)


def _frame_features(live_features: LiveFeatures, audio: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, float]]:
    """Features and silence of each frame, see `LiveFeatures.push`."""
    for samples in audio:
        yield from live_features.push(samples)
    yield from live_features.finish()


class LiveFeatures:
    """Audio features of the encoder `phones` and `shut_in_silence`, frame by frame as audio comes in.

    Compared with the offline ones (3 heads, 5 unseen voices each, 5-8 s, from the first sample on): mouth opening
    r = 0.989 (minimum 0.979), each mouth coefficient r = 0.98-0.99, silence within 0.003 on average, jitter 1.04 times
    as large.

    Args:
        reference: [samples] float32, the audio of the head's own clip: voices are assumed to be like it until
            `ADAPTATION_STEPS` steps of them have come in.
        look_ahead: seconds of audio after its own time that a frame waits for, at least `MIN_LOOK_AHEAD`.

    Attributes:
        samples: number of samples that have come in.
        frame: number of the next frame.
        loudest: level of the loudest frame so far in dBFS.
    """

    def __init__(self, reference: np.ndarray, look_ahead: float = LOOK_AHEAD):
        self.samples = self.frame = 0
        self._look_ahead = round(look_ahead * SAMPLE_RATE)
        self._speaker = SpeakerStatistics(reference)
        self._pending: list[np.ndarray] = []
        self._wave, self._begin = np.zeros(0, np.float32), 0  # buffered samples, and the number of the first of them
        self._log, self._hops = torch.zeros(0, BANDS), 0      # newest log-mel power, and the number of hops so far
        self.loudest = -np.inf
        # dBFS of the frames around the next one, silence before the first; number of frames measured so far
        self._levels, self._measured = deque([-np.inf] * (HANGOVER + BLUR_RADIUS)), 0

    def push(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """Append audio.

        Args:
            samples: [samples] float32, 16 kHz.

        Yields:
            features [16, 29] float32 and silence 0...1 of each frame that has its look-ahead now.
        """
        self.append(samples)
        while self.due:
            yield self.next()

    def append(self, samples: np.ndarray) -> None:
        """Append audio, as `push` does, and leave its frames to `next` and `skip`."""
        self._pending.append(samples)
        self.samples += len(samples)

    @property
    def due(self) -> int:
        """Number of frames that have their look-ahead and were neither taken nor skipped."""
        return max(0, (self.samples - self._look_ahead) // SAMPLES_PER_FRAME + 1 - self.frame)

    def next(self) -> tuple[np.ndarray, float]:
        """Features and silence of the next frame, which must be due; see `push`."""
        return self._next(self._until, ended=False)

    def skip(self) -> None:
        """Leave the next frame out, which must be due: the network does not run, later frames are the same."""
        self._collect()
        self._measure_new(self._until, ended=False)
        self.frame += 1
        self._discard()

    @property
    def _until(self) -> int:
        """Number of samples that the next frame is computed from."""
        return self.frame * SAMPLES_PER_FRAME + self._look_ahead

    def finish(self) -> Iterator[tuple[np.ndarray, float]]:
        """The audio has ended: the remaining frames, see `push`."""
        while self.samples and self.frame < frames_of(self.samples):
            yield self._next(self.samples, ended=True)

    def _next(self, until: int, ended: bool) -> tuple[np.ndarray, float]:
        """Features and silence of the next frame from the samples up to `until`."""
        self._collect()
        self._measure_new(until, ended)
        level, mean = self._speaker.level_and_mean
        first = max(0, 2 * self.frame - _CONTEXT)
        log = normalised(self._log[2 * first - self._hops:], level, mean)
        with torch.no_grad():
            steps = network()(log[None])[0].softmax(-1).sqrt().numpy()
        window = windows_of(steps, self.frame - first // 2 + 1)[-1]
        silent = self._silence(ended)
        self.frame += 1
        self._discard()
        return window, silent

    def _collect(self) -> None:
        if self._pending:
            self._wave, self._pending = np.concatenate([self._wave, *self._pending]), []

    def _measure_new(self, until: int, ended: bool) -> None:
        """Update log-mel power, speaker statistics and frame levels with the new samples."""
        hops = 2 * -(-until // SAMPLES_PER_STEP) if ended else ((until - WINDOW // 2) // HOP + 1) // 2 * 2
        if hops > self._hops:
            context = min(self._hops, 2)
            part = self._slice((self._hops - context) * HOP, until)
            new = log_power(part)[context:context + hops - self._hops]
            self._speaker.update(new, part[context * HOP:])
            self._log, self._hops = torch.cat([self._log, new]), hops
        frames = frames_of(until) if ended else until // SAMPLES_PER_FRAME
        if frames > self._measured:
            levels = loudness(self._slice(self._measured * SAMPLES_PER_FRAME, until), frames - self._measured)
            self._levels.extend(levels)
            self.loudest, self._measured = max(self.loudest, float(levels.max())), frames

    def _slice(self, first: int, last: int) -> np.ndarray:
        return self._wave[first - self._begin:last - self._begin]

    def _silence(self, ended: bool) -> float:
        """`shut_in_silence` of the next frame, from the frames up to the look-ahead."""
        levels = np.array(self._levels)
        after = np.full(HANGOVER + BLUR_RADIUS if ended else 0, -np.inf)
        quiet = np.concatenate([levels, after]) < max(self._speaker.loudness - QUIET_DB, INAUDIBLE_DB)
        silent = sliding_window_view(quiet, 2 * HANGOVER + 1).all(1).astype(np.float32)
        return float(gaussian_filter1d(silent, BLUR, mode="nearest")[BLUR_RADIUS])

    def _discard(self) -> None:
        """Drop buffered values that no later frame needs."""
        self._levels.popleft()
        self._log = self._log[max(0, len(self._log) - self._hops + 2 * max(0, 2 * self.frame - _CONTEXT)):]
        needed = min(max(0, self._hops - 2) * HOP, self._measured * SAMPLES_PER_FRAME)
        self._wave, self._begin = self._wave[needed - self._begin:], needed


class SpeakerStatistics:
    """Running level and mean spectrum of the speech in the last ten seconds.

    Pauses are mostly left out, so that speech after one is normalised as before it. A voice that stays 30 dB below the
    last one counts as silence until enough of it has come in, about a minute.

    Args:
        reference: [samples] float32, speech to start from, which new speech replaces.

    Attributes:
        level_and_mean: see `phones.level_and_mean`.
        loudness: dBFS, see `speech_level`.
    """

    def __init__(self, reference: np.ndarray):
        self._log, self._wave = self._steps(log_power(reference), reference)
        self._log, self._wave = self._log[-STATISTICS_STEPS:], self._wave[-STATISTICS_STEPS:]
        self._reference_steps = len(self._log)  # how many are left
        self._replaced = -(-self._reference_steps // ADAPTATION_STEPS)  # of them by each new step
        self._quiet = 0
        self._measure()

    def update(self, log: Tensor, wave: np.ndarray) -> None:
        """Add T new steps.

        Args:
            log: [2 T, 40] log-mel power.
            wave: their audio, float32, padded or cut to [320 T].
        """
        log, wave = self._steps(log, wave)
        quiet = log.logsumexp(-1).amax(-1) <= self.level_and_mean[0] + SPEECH
        kept = ~quiet | ((self._quiet + quiet.cumsum(0)) % SILENCE_STRIDE == 0)
        self._quiet = (self._quiet + int(quiet.sum())) % SILENCE_STRIDE
        dropped = min(self._reference_steps, self._replaced * int(kept.sum()))
        self._reference_steps -= dropped
        self._log = torch.cat([self._log[dropped:], log[kept]])[-STATISTICS_STEPS:]
        self._wave = np.concatenate([self._wave[dropped:], wave[kept.numpy()]])[-STATISTICS_STEPS:]
        self._measure()

    def _steps(self, log: Tensor, wave: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Split by step: [T, 2, 40] and [T, 320]."""
        count = len(log) // 2
        samples = np.zeros(count * SAMPLES_PER_STEP, np.float32)
        samples[:len(wave)] = wave[:len(samples)]
        return log.reshape(count, 2, BANDS), samples.reshape(count, SAMPLES_PER_STEP)

    def _measure(self) -> None:
        self.level_and_mean = level_and_mean(self._log.flatten(0, 1))
        self.loudness = speech_level(self._wave.ravel())
