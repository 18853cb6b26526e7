"""Made-up mouths that say what real speech says: they move as the built-in speaker prior predicts, plus noise."""
from pathlib import Path

import numpy as np
import torch

from egstalker_nb.face.expression import lip_gap
from egstalker_nb.media.audio import load_audio
from egstalker_nb.speech.prior import COMPONENTS, SHAPE, built_in_prior

REST = 0.3   # of all coordinates at rest, head units
SIZE = 0.02  # of the motion, head units


def sentence_twice(pauses=(0, 0, 0)):
    """The speech of tests/test_phones.py, and again 8 % slower, with pauses [samples] before, between and after."""
    speech = load_audio(Path(__file__).parent / "data" / "speech.flac")
    slow = np.interp(np.arange(0, len(speech), 1 / 1.08), np.arange(len(speech)), speech)
    before, between, after = map(np.zeros, pauses)
    return np.concatenate([before, speech, between, slow, after]).astype(np.float32)


def spoken_mouth(features, noise=0.5, seed=0):
    """Shapes [N, 214] and apertures [N] of a mouth that says features [N, 16, 29] of the phone encoder.

    `noise` is the size of motion that no audio explains, relative to that which it does.
    """
    prior, rng = built_in_prior(), np.random.default_rng(seed)
    spoken = prior(torch.from_numpy(features)).numpy()
    spoken = (spoken - spoken.mean(0)) / spoken.std(0)
    other = np.stack([np.convolve(x, np.hanning(7), "same") for x in rng.normal(size=(COMPONENTS, len(spoken)))], 1)
    motion = (spoken + noise * other / other.std(0)) * prior.spread.numpy() @ prior.basis.numpy()
    shapes = (REST + SIZE * motion).astype(np.float32)
    gap = lip_gap(torch.from_numpy(shapes)).numpy()
    assert shapes.shape[1] == SHAPE
    return shapes, gap - gap.min()
