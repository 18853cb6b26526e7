"""The time offset between audio and lips of a clip: in many clips from the web it is one to three frames."""
from __future__ import annotations

import numpy as np

from ..media.audio import SAMPLES_PER_STEP
from ..media.rates import SAMPLE_RATE
from ..speech import phones, ridge

#: shifts searched, steps of 20 ms: the audio may be a quarter of a second late, and a little less early
MIN_SHIFT, MAX_SHIFT = -9, 13
#: lips move before the sound that they produce: steps by which they lead in a clip that is in sync
LIP_LEAD = 2.0
MOUTH_COMPONENTS = 3         # principal components of the mouth shape that are compared, besides the mouth opening
RIDGE_PENALTY = 1.0          # per frame, for inputs of unit variance
MIN_CORRELATION = 0.3        # mean correlation below which no offset is estimated
CHANCE_CORRELATION = 3.75    # over sqrt(frames): the mean correlation that 1 of 20 unrelated mouths reaches
MIN_OFFSET = 1.0             # steps; smaller offsets are not corrected
MAX_DISAGREEMENT = 1.5       # steps between the estimates of the two halves and of the whole clip


def audio_offset(wave: np.ndarray, mouth: np.ndarray, aperture: np.ndarray) -> tuple[float, float]:
    """Estimate how late the audio is, from how well phones predict the mouth shape at each shift.

    In a few seconds a wrong shift can correlate best by chance. So an offset counts only if each half of the clip,
    with the threshold for its own length, gives the one of the whole, within 30 ms (`MAX_DISAGREEMENT`).

    Args:
        wave: [samples] float32, 16 kHz.
        mouth: [N, D] mouth shapes (see `lower_face`).
        aperture: [N] mouth opening.

    Returns:
        seconds by which the audio is late (negative: early), 0 if it is in sync or the offset cannot be estimated; the
        mean correlation at the best shift.
    """
    centred = mouth - mouth.mean(0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:MOUTH_COMPONENTS]
    shapes = np.column_stack([aperture, centred @ components.T]).astype(np.float64)
    posteriors, frames = phones.steps(wave), len(shapes)
    late, correlation = _estimate(posteriors, shapes, 0, frames)
    if late is None or abs(late) < MIN_OFFSET:
        return 0.0, correlation
    estimates = [late]
    for first, last in ((0, frames // 2), (frames // 2, frames)):
        half, _ = _estimate(posteriors, shapes, first, last)
        if half is None:
            return 0.0, correlation
        estimates.append(half)
    if np.ptp(estimates) > MAX_DISAGREEMENT:
        return 0.0, correlation
    return late * SAMPLES_PER_STEP / SAMPLE_RATE, correlation


def _estimate(posteriors: np.ndarray, shapes: np.ndarray, first: int, last: int) -> tuple[float | None, float]:
    """Steps by which the audio of frames [first, last) is late, None if that cannot be estimated; the correlation.

    Args:
        posteriors: [T, 29] phone posteriors of the whole audio.
        shapes: [N, K] float64 mouth shapes of all frames.
        first, last: the frames.
    """
    part = shapes[first:last]
    if not len(part):
        return None, 0.0
    part = (part - part.mean(0)) / np.maximum(part.std(0), 1e-9)
    shifts = np.arange(MIN_SHIFT, MAX_SHIFT + 1)
    found = np.array([_cross_validated_correlation(posteriors, part, 2 * first + shift) for shift in shifts])
    best = int(found.argmax())
    if found[best] < max(MIN_CORRELATION, CHANCE_CORRELATION / len(part) ** 0.5) or best in (0, len(shifts) - 1):
        return None, float(found[best])
    before, at, after = found[best - 1:best + 2]
    late = shifts[best] + 0.5 * (before - after) / min(before - 2 * at + after, -1e-9) - LIP_LEAD
    return float(late), float(at)


def _cross_validated_correlation(posteriors: np.ndarray, shapes: np.ndarray, shift: int) -> float:
    """Mean correlation of shapes [N, K] with leave-block-out predictions from the posteriors [T, 29] `shift` steps
    later."""
    at = np.clip(2 * np.arange(len(shapes)) + shift, 0, len(posteriors) - 1)
    x = posteriors[at].astype(np.float64)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-3)
    predicted = ridge.leave_block_out(x, shapes, RIDGE_PENALTY)
    predicted -= predicted.mean(0)
    deviation = np.maximum(predicted.std(0) * shapes.std(0), 1e-9)
    return float(((predicted * shapes).mean(0) / deviation).mean())


def shift_earlier(wave: np.ndarray, seconds: float) -> np.ndarray:
    """The wave without its first seconds (negative: with silence prepended), at the same length."""
    shift = int(np.clip(round(seconds * SAMPLE_RATE), -len(wave), len(wave)))
    if shift >= 0:
        return np.pad(wave[shift:], (0, shift))
    return np.pad(wave[:shift], (-shift, 0))
