"""Text to speech: hibari (English, the extra `tts`), or an installed espeak-ng (many languages) or flite (English)."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Iterator, Optional

import numpy as np

from ..core.errors import InputError, MissingPackageError
from ..core.files import check_target
from .audio import save_wav
from .rates import SAMPLE_RATE
from .tts_neural import HIBARI, INSTALL
from .tts_programs import ESPEAK, FLITE
from .tts_text import plain, sentences
from .tts_voice import Synthesizer
from .tts_voice import Voice as Voice

MAX_TEXT = 5000          # characters: about six minutes of speech
MIN_PACE, MAX_PACE = 80, 400  # words a minute
DEFAULT_PACE = 160
#: by preference. hibari is a neural voice, and its version is in the lock: a text sounds the same on every computer.
#: The encoder finds its b, p and m nearly as often as espeak-ng's, its other phones less often (docs/typed_speech.md).
SYNTHESIZERS: dict[str, Synthesizer] = {"hibari": HIBARI, "espeak-ng": ESPEAK, "flite": FLITE}
SILENT = 1e-3            # peak of a sentence in which nothing is said
EDGE = 10 ** (-50 / 20)  # of a sentence's peak; what is softer before and after it is cut off
MARGIN = 0.04            # seconds of it that stay: breath and closures are soft
PAUSE = 48.0             # words a minute times seconds between sentences: 0.3 s at 160


@lru_cache
def voices() -> tuple[Voice, ...]:
    """All voices of the installed synthesisers, English ones first; empty if there is none."""
    order = list(SYNTHESIZERS)
    found = [voice for synthesizer in SYNTHESIZERS.values() for voice in synthesizer.voices()]
    return tuple(sorted(found, key=lambda v: (not v.language.startswith("en"), v.language != "en-us",
                                              order.index(v.program))))


def find_voice(name: Optional[str] = None) -> Voice:
    """A voice by its id, language, name or synthesiser, the first that fits; None: the first of all.

    Raises:
        MissingPackageError: no synthesiser is installed.
        InputError: no such voice.
    """
    have = voices()
    if not have:
        voices.cache_clear()  # the next call finds what has been installed by then
        raise MissingPackageError(f"a speech synthesiser: {', '.join(SYNTHESIZERS)}", "none",
                                  f"Install one, for English with: {INSTALL}, for other languages with: sudo apt-get "
                                  "install espeak-ng (macOS: brew install espeak-ng), or give an audio file.")
    if name is None:
        return have[0]
    wanted = name.strip().lower()
    for matches in (lambda v: wanted in (v.id.lower(), v.language.lower(), v.name.lower(), v.program, str(v).lower()),
                    lambda v: v.language.lower().split("-")[0] == wanted):
        for voice in have:
            if matches(voice):
                return voice
    raise InputError(f"a voice or language, one of {len(have)}", repr(name),
                     f"For instance {', '.join(sorted({v.language for v in have})[:12])}; nb.tts.voices() lists all.")


def stream(text: str, voice: Optional[str | Voice] = None, pace: float = DEFAULT_PACE) -> Iterator[np.ndarray]:
    """Synthesise a text sentence by sentence, each when it is asked for, so that the first sound comes early.

    Args:
        text: 1 ... 5000 characters.
        voice: a `Voice`, or how `find_voice` finds it.
        pace: words a minute, 80 ... 400.

    Returns:
        An iterator over float32 [samples] at 16 kHz, -1 ... 1, one array per sentence and the pause after it. What has
        nothing to say (a line of dashes) is left out. Another thread may take it.

    Raises:
        MissingPackageError: no synthesiser is installed.
        InputError: at once for no text or too long a text, no such voice, a pace out of range, or letters that the
            voice does not know; while iterating, for a text in which there is nothing that the voice can say.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
        found = f"{len(text)} characters" if isinstance(text, str) and text.strip() else "no text"
        raise InputError(f"a text of 1 to {MAX_TEXT} characters", found, "Type what the head is to say.")
    if not MIN_PACE <= pace <= MAX_PACE:
        raise InputError(f"a pace of {MIN_PACE} to {MAX_PACE} words a minute", str(pace), "People speak 120 to 180.")
    voice = voice if isinstance(voice, Voice) else find_voice(voice)
    parts = sentences(SYNTHESIZERS[voice.program].readable(plain(text)))
    # a line of dashes says nothing, while a text of emoji alone may: espeak-ng reads their names
    return _spoken([part for part in parts if any(map(str.isalnum, part))] or parts, voice, pace)


def _spoken(parts: list[str], voice: Voice, pace: float) -> Iterator[np.ndarray]:
    silent = True
    for sentence in parts:
        wave = SYNTHESIZERS[voice.program].speak(voice, sentence, pace)
        if abs(wave).max(initial=0) >= SILENT:
            silent = False
            yield np.concatenate([_trimmed(wave), np.zeros(round(PAUSE / pace * SAMPLE_RATE), np.float32)])
    if silent:
        raise InputError(f"words that {voice} can say", f"{' '.join(parts)[:40]!r}, for which it gave silence",
                         "Choose a voice of that language.")


def _trimmed(wave: np.ndarray) -> np.ndarray:
    """A sentence without the silence around it, which each synthesiser makes of another length (hibari 0.7 s)."""
    loud = np.flatnonzero(abs(wave) > EDGE * abs(wave).max())
    margin = round(MARGIN * SAMPLE_RATE)
    return wave[max(0, loud[0] - margin):loud[-1] + margin]


def synthesize(text: str, out: str | Path, voice: Optional[str | Voice] = None, pace: float = DEFAULT_PACE) -> Path:
    """Synthesise a text into a WAV file (16 kHz, mono, 16 bit).

    Args:
        text: 1 ... 5000 characters.
        out: the WAV file to write.
        voice: a `Voice`, or how `find_voice` finds it.
        pace: words a minute, 80 ... 400.

    Returns:
        The WAV file.

    Raises:
        MissingPackageError: no synthesiser is installed.
        InputError: no text or too long a text, no such voice, a pace out of range, or a voice that cannot speak the
            text (letters of another script).
    """
    chunks = stream(text, voice, pace)
    return save_wav(check_target(out, ".wav"), np.concatenate(list(chunks)))
