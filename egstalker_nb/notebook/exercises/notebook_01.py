"""Exercises of notebook 01: what a prepared clip says about mouth and sound."""
from __future__ import annotations

from functools import cache

import numpy as np

from ...data.dataset import Dataset
from ...preparation.offset import audio_offset
from ...speech.voice_activity import loudness
from . import Exercise, Exercises

LATE = 2560  # samples, 160 ms: four frames


def data_prep(ds: Dataset) -> Exercises:
    """The three questions about a dataset."""
    return Exercises([
        Exercise("In which frame is the mouth open widest?", lambda: int(ds.aperture.argmax()), 0,
                 "ds.aperture holds one number for each frame. The frame is the place of the largest, not its value.",
                 "int(ds.aperture.argmax())"),
        Exercise("How well does loudness tell how far the mouth is open (correlation, -1 ... 1, to 0.02)?",
                 lambda: _correlation(ds), 0.02,
                 "voice_activity.loudness(ds.audio(), len(ds)) gives one level for each frame; np.corrcoef of it and "
                 "ds.aperture is a 2 x 2 table, with what is asked for off its diagonal.",
                 "from egstalker_nb.speech.voice_activity import loudness\n"
                 "float(np.corrcoef(loudness(ds.audio(), len(ds)), ds.aperture)[0, 1])"),
        Exercise("The sound is put 160 ms later by np.roll(ds.audio(), 2560). How many milliseconds late does "
                 "sound_offset find it (to 5 ms)?", cache(lambda: _rolled(ds)), 5.0,
                 "sound_offset takes the sound, ds.mouth and ds.aperture, as above, and returns seconds first.",
                 "1000 * sound_offset(np.roll(ds.audio(), 2560), ds.mouth, ds.aperture)[0]"),
    ])


def _correlation(ds: Dataset) -> float:
    return float(np.corrcoef(loudness(ds.audio(), len(ds)), ds.aperture)[0, 1])


def _rolled(ds: Dataset) -> float:
    return 1000 * audio_offset(np.roll(ds.audio(), LATE), ds.mouth, ds.aperture)[0]
