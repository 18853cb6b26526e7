"""Text to speech with an installed synthesiser: espeak-ng (many languages) or flite (English)."""
from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Optional

from ..core.errors import InputError, MissingPackageError
from ..core.files import check_target
from .audio import load_audio, save_wav

MAX_TEXT = 5000          # characters: about six minutes of speech
MIN_PACE, MAX_PACE = 80, 400  # words a minute
DEFAULT_PACE = 160
TIMEOUT = 120             # seconds, for a synthesiser that hangs
FLITE_PACE = 175          # words a minute of flite's voices by default
#: flite's voices by quality, best first; others follow
FLITE_ORDER = ("slt", "rms", "awb", "kal16")


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser.

    Attributes:
        program: espeak-ng or flite.
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


@lru_cache
def voices() -> tuple[Voice, ...]:
    """All voices of the installed synthesisers, English ones first; empty if there is none."""
    found = (*_espeak_voices(), *_flite_voices())
    return tuple(sorted(found, key=lambda v: (not v.language.startswith("en"), v.language != "en-us", v.program)))


def _espeak_voices() -> list[Voice]:
    found = []
    for line in _output("espeak-ng", "--voices").splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 5:  # priority, language, gender, name, file
            found.append(Voice("espeak-ng", fields[1], fields[1], fields[3].replace("_", " ")))
    return found


def _flite_voices() -> list[Voice]:
    listed = re.search(r"available:(.*)", _output("flite", "-lv"))
    names = set(listed[1].split()) if listed else set()
    ordered = [n for n in FLITE_ORDER if n in names] + sorted(names - set(FLITE_ORDER))
    return [Voice("flite", name, "en-us", name) for name in ordered]


def _output(*command: str) -> str:
    """Standard output of a program; "" if it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, errors="replace").stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def find_voice(name: Optional[str] = None) -> Voice:
    """A voice by its id, language or name; None: the first one.

    Raises:
        MissingPackageError: no synthesiser is installed.
        InputError: no such voice.
    """
    have = voices()
    if not have:
        raise MissingPackageError("a speech synthesiser on this computer: espeak-ng or flite", "neither",
                                  "Install one, for instance with: sudo apt-get install espeak-ng (macOS: brew install "
                                  "espeak-ng), or give an audio file.")
    if name is None:
        return have[0]
    wanted = name.strip().lower()
    for matches in (lambda v: wanted in (v.id.lower(), v.language.lower(), v.name.lower(), str(v).lower()),
                    lambda v: v.language.lower().split("-")[0] == wanted):
        for voice in have:
            if matches(voice):
                return voice
    raise InputError(f"a voice or language, one of {len(have)}", repr(name),
                     f"For instance {', '.join(sorted({v.language for v in have})[:12])}; nb.tts.voices() lists all.")


def synthesize(text: str, out: str | Path, voice: Optional[str | Voice] = None, pace: float = DEFAULT_PACE) -> Path:
    """Synthesise a text into a WAV file (16 kHz, mono, 16 bit).

    Args:
        text: 1 ... 5000 characters.
        out: the WAV file to write.
        voice: a `Voice`, or its id, language or name (see `find_voice`).
        pace: words a minute, 80 ... 400.

    Returns:
        The WAV file.

    Raises:
        MissingPackageError: no synthesiser is installed.
        InputError: no text or too long a text, no such voice, a pace out of range, or a voice that cannot speak the
            text (letters of another script).
    """
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
        found = f"{len(text)} characters" if isinstance(text, str) and text.strip() else "no text"
        raise InputError(f"a text of 1 to {MAX_TEXT} characters", found, "Type what the head is to say.")
    if not MIN_PACE <= pace <= MAX_PACE:
        raise InputError(f"a pace of {MIN_PACE} to {MAX_PACE} words a minute", str(pace), "People speak 120 to 180.")
    voice = voice if isinstance(voice, Voice) else find_voice(voice)
    out = check_target(out, ".wav")
    with tempfile.TemporaryDirectory() as folder:
        words, spoken = Path(folder) / "text.txt", Path(folder) / "spoken.wav"
        # in a file, so that no text can be taken for an option
        words.write_text(text.replace("\0", " ") + "\n", encoding="utf-8")
        command = (["espeak-ng", "-v", voice.id, "-s", str(round(pace)), "-f", str(words), "-w", str(spoken)]
                   if voice.program == "espeak-ng" else
                   ["flite", "-voice", voice.id, "--setf", f"duration_stretch={FLITE_PACE / pace:.3f}",
                    "-f", str(words), "-o", str(spoken)])
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"speech from {voice.program}", str(error),
                             "Try another voice or a shorter text.") from error
        if done.returncode != 0 or not spoken.is_file():
            raise InputError(f"speech from {voice.program}", (done.stderr or "no audio").strip()[:200],
                             "Try another voice.")
        wave = load_audio(spoken)
    if abs(wave).max() < 1e-3:
        raise InputError(f"words that {voice} can say", f"{text.strip()[:40]!r}, for which it gave silence",
                         "Choose a voice of that language.")
    return save_wav(out, wave)
