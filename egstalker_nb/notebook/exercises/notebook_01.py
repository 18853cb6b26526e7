"""Exercises of notebook 01: how the mouth and the audio of a prepared clip are related."""
from __future__ import annotations

from functools import cache

import numpy as np

from ...data.dataset import Dataset
from ...preparation.offset import audio_offset
from ...speech.voice_activity import loudness
from . import Exercise, Exercises

DELAY = 2560  # samples, 160 ms: four frames


def data_prep(ds: Dataset) -> Exercises:
    """The three questions about a dataset."""
    return Exercises([
        Exercise("In which frame is the mouth open widest?", lambda: int(ds.aperture.argmax()), 0,
                 "ds.aperture holds one number for each frame. Wanted is the index of the largest, not its value.",
                 "int(np.argmax(ds.aperture))"),
        Exercise("How well does the loudness of the audio predict how far the mouth is open (correlation, -1 ... 1, to "
                 "0.02)?", lambda: _correlation(ds), 0.02,
                 "Take the level of the 640 audio samples of each frame, 20 · log10 of their root mean square, at "
                 "least -60 dB; np.corrcoef of it and ds.aperture is a 2 x 2 matrix with the correlation off its "
                 "diagonal.",
                 "audio = ds.audio()[:640 * len(ds)].reshape(len(ds), 640)\n"
                 "level = 20 * np.log10(np.maximum(np.sqrt((audio ** 2).mean(1)), 1e-3))\n"
                 "float(np.corrcoef(level, ds.aperture)[0, 1])"),
        Exercise("The audio is delayed by 160 ms with np.roll(ds.audio(), 2560). How many milliseconds late is it "
                 "according to nb.audio_offset (to 5 ms)?", cache(lambda: _delayed(ds)), 5.0,
                 "nb.audio_offset takes the audio and ds.mouth, as above, and returns seconds first.",
                 "late, correlation = nb.audio_offset(np.roll(ds.audio(), 2560), ds.mouth)\n1000 * late"),
    ])


def _correlation(ds: Dataset) -> float:
    return float(np.corrcoef(loudness(ds.audio(), len(ds)), ds.aperture)[0, 1])


def _delayed(ds: Dataset) -> float:
    return 1000 * audio_offset(np.roll(ds.audio(), DELAY), ds.mouth)[0]
