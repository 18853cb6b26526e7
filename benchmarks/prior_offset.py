"""Whether `preparation.offset.audio_offset` finds by how much the audio of a clip was moved; see `prior.py`."""
from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np
import torch
from intervals import row

from egstalker_nb.media.audio import windows_of
from egstalker_nb.media.rates import SAMPLES_PER_FRAME
from egstalker_nb.preparation import offset
from egstalker_nb.speech import phones
from egstalker_nb.speech.prior import Prior
from egstalker_nb.speech.sync import MAX_SHIFT, best_shift, scale_free

MOVES = range(-200, 201, 20)   # ms
TOLERANCE = 40                 # ms
FAR = 60                       # ms; from here on, a move is beyond what is left as it is
HALVES_MOVED = (-100, 100)     # ms, moves at which the halves of a clip are estimated alone
STEP = 20                      # ms, of the estimates


class MeasuredClip(NamedTuple):
    """A clip of one of the speakers.

    Attributes:
        name, speaker, split, source, language: see the index.
        in_sync: whether audio and lips are in sync by construction.
        wave: [samples] float32, 16 kHz.
        shapes: [N, 214] float32, lips and jaw.
        aperture: [N] mouth opening.
        prior: one that was fitted without this speaker.
    """

    name: str
    speaker: str
    split: str
    source: str
    language: str
    in_sync: bool
    wave: np.ndarray
    shapes: np.ndarray
    aperture: np.ndarray
    prior: Prior


def estimate(clip: MeasuredClip, wave: np.ndarray, part: slice = slice(None)) -> float:
    """How late the audio is, ms; 0 if in sync or unsure.

    Args:
        clip: its prior is used.
        wave: its audio, moved.
        part: frames of the clip.
    """
    first, last, _ = part.indices(len(clip.shapes))
    samples = wave[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    return 1000 * offset.audio_offset(samples, clip.shapes[part], clip.prior)[0]


def unguarded(clip: MeasuredClip) -> float:
    """How late the audio of a clip is at the best shift, ms, however unsure this is."""
    predicted = clip.prior(torch.from_numpy(windows_of(phones.steps(clip.wave), len(clip.shapes)))).numpy()
    tracked = scale_free(clip.shapes) @ clip.prior.basis.numpy().T
    return float(STEP * best_shift(predicted, tracked, clip.prior.spread.numpy())[0])


def moved(wave: np.ndarray, ms: int) -> np.ndarray:
    """The wave, later by so many milliseconds (negative: earlier), at the same length."""
    return offset.shift_earlier(wave, -ms / 1000)


def trials(clip: MeasuredClip) -> Iterator[tuple[int, float, float]]:
    """For each move the ms by which the audio was moved, is late by all accounts, and is estimated to be late."""
    base = 0.0 if clip.in_sync else unguarded(clip)
    for ms in MOVES:
        if abs(base + ms) < STEP * MAX_SHIFT:       # beyond, nothing is searched
            yield ms, base + ms, estimate(clip, moved(clip.wave, ms))


def halves(clip: MeasuredClip) -> Iterator[tuple[float, float]]:
    """Estimates for the two halves of a clip alone, ms, for each of `HALVES_MOVED`."""
    middle = len(clip.shapes) // 2
    for ms in HALVES_MOVED:
        wave = moved(clip.wave, ms)
        yield estimate(clip, wave, slice(0, middle)), estimate(clip, wave, slice(middle, None))


def share(values: Sequence[bool]) -> float:
    """Share of trues; NaN of nothing."""
    return float(np.mean(values)) if values else float("nan")


def offsets(groups: dict[str, list[MeasuredClip]]) -> list[dict[str, Any]]:
    """How often an offset is answered, and how often the answer is right; an answer is an estimate other than 0."""
    rows = []
    for group, clips in groups.items():
        found = [list(trials(clip)) for clip in clips]
        both = [[(a, b) for a, b in halves(clip) if a and b] for clip in clips]
        figures = {
            "answered, moved by 60 ms or more": [
                share([bool(estimated) for _, late, estimated in some if abs(late) >= FAR]) for some in found],
            "of the answers, within 40 ms": [
                share([abs(estimated - late) <= TOLERANCE for _, late, estimated in some if estimated])
                for some in found],
            "left as it is, not moved": [
                share([not estimated for ms, _, estimated in some if ms == 0]) for some in found],
            "both halves answered alone, moved by 100 ms": [len(some) / len(HALVES_MOVED) for some in both],
            "of these, halves within 40 ms of each other": [
                share([abs(a - b) <= TOLERANCE for a, b in some]) for some in both]}
        rows += [row(figure, group, values, [clip.speaker for clip in clips]) for figure, values in figures.items()]
    return rows
