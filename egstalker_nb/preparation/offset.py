"""Whether sound and picture of a clip belong together: many clips on the net are a frame or three off."""
from __future__ import annotations

import numpy as np

from ..media.audio import SAMPLES_PER_STEP
from ..speech import phones, ridge

#: steps of 20 ms searched: the sound may be a quarter of a second late, and a little less early
FIRST, LAST = -9, 13
#: lips move before the sound they make: steps by which they lead in a clip that is in time
LEAD = 2.0
SHAPES = 3          # principal components of the mouth that are looked at, beside its opening
RIDGE = 1.0         # penalty per frame, inputs having unit variance
SURE = 0.3          # mean correlation below which nothing is said
CHANCE = 3.75       # over the root of the frames: the mean correlation that 1 of 20 unrelated mouths reaches
SMALLEST = 1.0      # steps, a smaller offset is not worth a change
AGREE = 1.5         # steps by which both halves of a clip may differ from each other and from the whole


def audio_offset(wave: np.ndarray, mouth: np.ndarray, aperture: np.ndarray) -> tuple[float, float]:
    """How late the sound is, judged by how well phones tell the mouth's shape at each shift.

    In a few seconds a wrong shift can correlate best by chance. So an offset counts only if each half of the clip,
    judged alone by the threshold of its own length, gives the one of the whole, within 30 ms (`AGREE`).

    Args:
        wave: [samples] float32, 16 kHz. mouth: [N, D] shapes (see `lower_face`). aperture: [N].

    Returns:
        seconds by which the sound is late (negative: early), 0 where it is in time or cannot be said; the mean
        correlation at the best shift.
    """
    centred = mouth - mouth.mean(0)
    modes = np.linalg.svd(centred, full_matrices=False)[2][:SHAPES]
    shapes = np.column_stack([aperture, centred @ modes.T]).astype(np.float64)
    heard, frames = phones.steps(wave), len(shapes)
    late, told = _estimate(heard, shapes, 0, frames)
    if late is None or abs(late) < SMALLEST:
        return 0.0, told
    halves = [_estimate(heard, shapes, *half)[0] for half in ((0, frames // 2), (frames // 2, frames))]
    if None in halves or np.ptp([late, *halves]) > AGREE:
        return 0.0, told
    return late * SAMPLES_PER_STEP / 16_000, told


def _estimate(heard: np.ndarray, shapes: np.ndarray, first: int, last: int) -> tuple[float | None, float]:
    """Steps by which the sound of frames [first, last) is late, None where that cannot be said; the correlation.

    Args:
        heard: [T, 29] phones of the whole sound. shapes: [N, K] float64 of all frames.
    """
    part = shapes[first:last]
    if not len(part):
        return None, 0.0
    part = (part - part.mean(0)) / np.maximum(part.std(0), 1e-9)
    shifts = np.arange(FIRST, LAST + 1)
    found = np.array([_told(heard, part, 2 * first + shift) for shift in shifts])
    best = int(found.argmax())
    if found[best] < max(SURE, CHANCE / len(part) ** 0.5) or best in (0, len(shifts) - 1):
        return None, float(found[best])
    before, at, after = found[best - 1:best + 2]
    late = shifts[best] + 0.5 * (before - after) / min(before - 2 * at + after, -1e-9) - LEAD
    return float(late), float(at)


def _told(heard: np.ndarray, shapes: np.ndarray, shift: int) -> float:
    """Mean correlation of shapes [N, K] with what phones [T, 29] `shift` steps later say of them, frames left out."""
    at = np.clip(2 * np.arange(len(shapes)) + shift, 0, len(heard) - 1)
    x = heard[at].astype(np.float64)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-3)
    guessed = ridge.left_out(x, shapes, RIDGE)
    guessed -= guessed.mean(0)
    spread = np.maximum(guessed.std(0) * shapes.std(0), 1e-9)
    return float(((guessed * shapes).mean(0) / spread).mean())


def moved_earlier(wave: np.ndarray, seconds: float) -> np.ndarray:
    """The wave with so many seconds cut from its start (negative: silence put before it), its length kept."""
    shift = int(np.clip(round(seconds * 16_000), -len(wave), len(wave)))
    if shift >= 0:
        return np.pad(wave[shift:], (0, shift))
    return np.pad(wave[:shift], (-shift, 0))
