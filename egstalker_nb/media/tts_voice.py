"""What a speech synthesiser offers: its voices, and a function that speaks a sentence with one of them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, NamedTuple

import numpy as np

TIMEOUT = 120  # seconds, for a synthesiser that hangs


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser.

    Attributes:
        program: hibari, espeak-ng or flite.
        id: the program's name for it.
        language: a tag such as en-us.
        name: display name.
    """

    program: str
    id: str
    language: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.language}, {self.program})"


class Synthesizer(NamedTuple):
    """How `tts` uses one synthesiser.

    Attributes:
        voices: lists its voices; none if it is not installed.
        readable: checks a whole text before any of it is spoken and returns what to speak; raises InputError.
        speak: voice, one sentence, words a minute -> float32 [samples] at 16 kHz, silent or empty if there is nothing
            in the sentence to say; raises InputError.
    """

    voices: Callable[[], list[Voice]]
    readable: Callable[[str], str]
    speak: Callable[[Voice, str, float], np.ndarray]
