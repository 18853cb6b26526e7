"""The voice of the extra `tts`: hibari, a small neural English synthesiser whose model is inside its wheel.

hibari (Apache-2.0, hibari-tts on PyPI) turns English text into phonemes with a lexicon, and phonemes into 24 kHz audio
with an ONNX model of 8 MB, distilled from a voice of Kokoro-82M (Apache-2.0); ONNX Runtime (MIT) runs it on one core.
Only voices inside the wheel are offered: hibari would download its others.
"""
from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np
import soxr

from ..core.errors import InputError, first_line, require_package
from .rates import SAMPLE_RATE
from .tts_voice import Synthesizer, Voice

INSTALL = "pip install 'egstalker-nb[tts]'"
#: words a minute -> hibari's speed, measured with the pauses of `tts`. Steep from 245 to 308: hibari rounds durations
#: to steps, and at a speed of 4/3 phones of two steps become phones of one.
PACES = 71, 82, 102, 124, 146, 167, 206, 216, 245, 308, 327, 354, 384, 403
SPEEDS = 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.15, 1.33, 1.36, 1.6, 2.0, 2.5, 3.5
MAX_PHONEMES = 400           # at a time; the model was trained on sentences
MAX_WORD, MAX_DIGITS = 24, 15  # letters that the network for unknown words reads; digits read as one number
MAX_TOKEN = 40               # characters without a space: the time for such a piece grows with the square of its length
KNOWN = "µªº²³¼½¾"           # read as they are, while their Unicode decomposition would say something else
SEED = 0                     # of the noise in "s" and "f": the same text gives the same samples


def _voices() -> list[Voice]:
    try:
        metadata.version("hibari-tts")  # another package on PyPI is also imported as hibari
        from hibari.voices import VOICES
    except ImportError:
        return []
    return [Voice("hibari", name, about["language"].lower(), name) for name, about in VOICES.items()
            if about.get("bundled")]


@lru_cache
def load_hibari(voice: str) -> Any:
    """hibari's model and lexicon; loads for 0.7 s."""
    fix = f"Install it with: {INSTALL}"
    require_package("onnxruntime", "ONNX Runtime, which runs the synthesiser's network", fix).disable_telemetry_events()
    engine = require_package("hibari", "hibari, which speaks English", fix).Hibari(voice=voice)
    engine.g2p  # noqa: B018  loads the lexicon, so that the first sentence does not wait for it
    return engine


def _readable(text: str) -> str:
    """Check that the letters are Latin, and write what hibari cannot read in a way that it can.

    Raises:
        InputError: letters of another script.
    """
    text = "".join(map(_letter, text))
    other = next((c for c in text if c.isalpha() and c not in KNOWN and not unicodedata.name(c, "").startswith("LATIN")
                  and unicodedata.category(c) != "Lm"), None)
    if other is not None:
        raise InputError("Latin letters for an English voice", repr(other), "Choose a voice of that language, for "
                         "instance of espeak-ng: sudo apt-get install espeak-ng (macOS: brew install espeak-ng).")
    # no [word](/phonemes/), which hibari would read as phonemes
    text = text.replace("](/", "] (/")
    text = re.sub(rf"\d[\d.,]{{{MAX_DIGITS},}}", lambda digits: " ".join(digits[0]), text)
    text = re.sub(rf"[^\W\d_]{{{MAX_WORD}}}(?=[^\W\d_])", r"\g<0> ", text)
    return re.sub(rf"\S{{{MAX_TOKEN}}}(?=\S)", r"\g<0> ", text)


def _letter(c: str) -> str:
    """A character, or for a rarer form of a Latin letter or of a digit the usual one: 𝐀 -> A, ậ -> a, ٣ or ③ -> 3."""
    if c.isascii() or c in KNOWN:
        return c
    if c.isdigit():
        return str(unicodedata.digit(c))
    if c.isalpha() and ord(c) > 0x17F:  # beyond the accents of European languages
        usual = unicodedata.normalize("NFKD", c)
        return "".join(u for u in usual if not unicodedata.combining(u)) if usual[0].isascii() else c
    return c


def _speak(voice: Voice, sentence: str, pace: float) -> np.ndarray:
    engine = load_hibari(voice.id)
    try:
        phonemes = engine.g2p(sentence)
    except Exception as error:  # it is not ours, and a text must not end a live session with a traceback
        raise InputError("words that hibari can say", f"{sentence[:40]!r}, for which it failed: {first_line(error)}",
                         "Write it in another way.") from error
    if not any(c.isalpha() for c in phonemes):  # nothing, or only punctuation, for which it would hum
        return np.zeros(0, np.float32)
    speed = float(np.interp(pace, PACES, SPEEDS))
    waves = [engine.from_phonemes(part, speed, SEED) for part in _parts(phonemes)]
    return soxr.resample(np.concatenate(waves), engine.sample_rate, SAMPLE_RATE)


def _parts(phonemes: str) -> list[str]:
    """Phonemes in parts that the model can speak, cut between words."""
    parts = []
    while len(phonemes) > MAX_PHONEMES:
        cut = phonemes.rfind(" ", 1, MAX_PHONEMES)
        cut = cut if cut > 0 else MAX_PHONEMES
        parts.append(phonemes[:cut])
        phonemes = phonemes[cut:].lstrip()
    return [*parts, phonemes]


HIBARI = Synthesizer(_voices, _readable, _speak)
