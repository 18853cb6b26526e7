"""Teacher of real speech: posteriors of the phone recogniser hama, as targets of the encoder's second output.

hama (PyPI, version 1.7.0, Apache-2.0) is a conformer of four blocks with a CTC output over 191 tokens, mostly IPA
symbols, every 20 ms. It is used for training only; nothing of it is in the package. What its weights were trained on is
not documented.
"""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from egstalker_nb.core.errors import InputError, require_package
from egstalker_nb.media.audio import SAMPLES_PER_STEP

VERSION = "1.7.0"
TOKENS, BLANK = 191, 190       # number of outputs, and the one of CTC's blank
DELAY = 4                      # steps of 20 ms from a phone to its peak in the posteriors
TOP = 4                        # most probable tokens of a step that are kept; they hold nearly all probability


@lru_cache(1)
def recogniser() -> Any:
    """The recogniser, `hama.asr.ASRModel`.

    Raises:
        MissingPackageError: hama is not installed.
        InputError: another version, whose tokens differ.
    """
    fix = f"Install it: pip install hama=={VERSION}"
    model = require_package("hama.asr", f"hama {VERSION}, whose phone recogniser is the teacher", fix).ASRModel()
    found = len(model.decoder_tokens), model.blank_id
    if found != (TOKENS, BLANK):
        raise InputError(f"hama {VERSION}, with {TOKENS} tokens, blank last", f"{found[0]} tokens, blank {found[1]}",
                         fix)
    return model


def posteriors(wave: np.ndarray) -> np.ndarray:
    """Posteriors of every token every 20 ms, as late as CTC emits them.

    Args:
        wave: float32 [samples], 16 kHz mono, -1..1.

    Returns:
        float32 [samples // 320 + 1, 191]; each step sums to 1.
    """
    inputs = {"waveform": wave[None], "waveform_lengths": np.array([len(wave)])}
    log_probs, lengths = recogniser().session.run(["log_probs", "out_lengths"], inputs)
    return np.exp(log_probs[0, :int(lengths[0])])


def targets(probabilities: np.ndarray, samples: int) -> np.ndarray:
    """The most probable tokens at the time of each step of the encoder.

    Args:
        probabilities: float32 [steps, 191], see `posteriors`.
        samples: length of the wave.

    Returns:
        uint8 [ceil(samples / 320), 2, 4]: tokens, and their probabilities times 255; all 0 at the end, where the
        posteriors of the last phones are missing.
    """
    late = probabilities[DELAY:][:-(-samples // SAMPLES_PER_STEP)]
    tokens = np.argsort(-late, axis=1)[:, :TOP]
    found = np.stack([tokens, np.rint(255 * np.take_along_axis(late, tokens, 1))], 1).astype(np.uint8)
    return np.pad(found, ((0, -(-samples // SAMPLES_PER_STEP) - len(found)), (0, 0), (0, 0)))
