"""The time offset between audio and lips of a clip: in many clips from the web it is one to six frames."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch

from ..face.expression import lip_gap
from ..media.audio import SAMPLES_PER_STEP, windows_of
from ..media.rates import SAMPLE_RATE
from ..speech import phones
from ..speech.prior import Prior, built_in_prior
from ..speech.sync import MAX_SHIFT, correlation_by_shift, scale_free

MIN_CORRELATION = 0.2        # mean correlation over the components of the mouth below which no offset is estimated
CHANCE_CORRELATION = 2.5     # over sqrt(frames), the same in short clips: 2 of 100 mouths with another's audio reach it
MIN_MARGIN = 0.1             # by which the best shift beats all that are further away than `PEAK` steps
MIN_FRAMES = 50              # shorter clips agree with anything by chance
PEAK = 5                     # steps of 20 ms, half the width of a peak
MIN_OFFSET = 2               # steps; smaller offsets are not corrected, they are within the error of the estimate
MAX_DISAGREEMENT = 4         # steps between the estimates of the two halves and of the whole clip, or
MAX_LOSS = 0.1               # of correlation in a half at the whole clip's shift: short halves have flat maxima


def audio_offset(wave: np.ndarray, mouth: np.ndarray, prior: Optional[Prior] = None) -> tuple[float, float]:
    """Estimate how late the audio is, from the shift at which the speaker prior predicts the mouth best.

    The prior was learned from other speakers, so that nothing is fitted to the clip, and clips that are known to be in
    sync tell it by how much lips lead the sound. Where the estimate is unsure (a low or flat maximum, halves of the
    clip that disagree by more than 80 ms), nothing is corrected.

    Args:
        wave: [samples] float32, 16 kHz.
        mouth: [N, D] mouth shapes (see `lower_face`).
        prior: for features of the encoder `phones`; default: the package's.

    Returns:
        seconds by which the audio is late (negative: early), 0 if it is in sync or the offset cannot be estimated; the
        mean correlation at the best shift.
    """
    if len(mouth) < MIN_FRAMES:
        return 0.0, 0.0
    prior = prior or built_in_prior()
    spread = prior.spread.numpy()
    predicted = _predicted(prior, wave, len(mouth)).numpy()
    tracked = scale_free(mouth) @ prior.basis.numpy().T
    found = correlation_by_shift(predicted, tracked, spread)
    best, r = int(found.argmax()), float(found.max())
    elsewhere = np.delete(found, slice(max(0, best - PEAK), best + PEAK + 1)).max()
    least = max(MIN_CORRELATION, CHANCE_CORRELATION / len(mouth) ** 0.5)
    if best in (0, len(found) - 1) or r < least or r - elsewhere < MIN_MARGIN:
        return 0.0, r
    middle, estimates, loss = len(mouth) // 2, [best], 0.0
    for half in (slice(None, middle), slice(middle, None)):
        again = correlation_by_shift(predicted[half], tracked[half], spread)
        estimates.append(int(again.argmax()))
        loss = max(loss, float(again.max() - again[best]))
    if np.ptp(estimates) > MAX_DISAGREEMENT and loss > MAX_LOSS:
        return 0.0, r
    late = best - MAX_SHIFT
    return (late * SAMPLES_PER_STEP / SAMPLE_RATE if abs(late) >= MIN_OFFSET else 0.0), r


def opening_correlation(wave: np.ndarray, aperture: np.ndarray) -> float:
    """Correlation of a mouth's opening with the one that the speaker prior predicts, at the best shift.

    Args:
        wave: [samples] float32, 16 kHz.
        aperture: [N] mouth opening.
    """
    prior = built_in_prior()
    predicted = lip_gap(prior.motion(_predicted(prior, wave, len(aperture))))
    found = correlation_by_shift(predicted[:, None].numpy(), aperture[:, None].astype(np.float64), np.ones(1))
    return float(found.max())


def _predicted(prior: Prior, wave: np.ndarray, frames: int) -> torch.Tensor:
    """A prior's prediction for each frame, [frames, 8]."""
    return prior(torch.from_numpy(windows_of(phones.steps(wave), frames)))


def shift_earlier(wave: np.ndarray, seconds: float) -> np.ndarray:
    """The wave without its first seconds (negative: with silence prepended), at the same length."""
    shift = int(np.clip(round(seconds * SAMPLE_RATE), -len(wave), len(wave)))
    if shift >= 0:
        return np.pad(wave[shift:], (0, shift))
    return np.pad(wave[:shift], (-shift, 0))
