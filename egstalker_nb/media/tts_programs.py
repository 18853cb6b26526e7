"""espeak-ng (many languages) and flite (English), if they are installed: each sentence is one call of the program."""
from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .audio import load_audio
from .tts_voice import TIMEOUT, Synthesizer, Voice

#: what the programs are told for a pace of one word a minute, measured with the pauses of `tts` by
#: benchmarks/typed_speech.py: both count more words a minute than there are. espeak-ng goes no slower than 100.
ESPEAK_SPEED, FLITE_STRETCH = 0.85, 200
#: flite's voices by quality, best first; others follow
FLITE_ORDER = ("slt", "rms", "awb", "kal16")


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


def _speak(voice: Voice, sentence: str, pace: float) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        words, spoken = Path(folder) / "text.txt", Path(folder) / "spoken.wav"
        # in a file, so that no text can be taken for an option
        words.write_text(sentence + "\n", encoding="utf-8")
        command = (["espeak-ng", "-v", voice.id, "-s", str(round(ESPEAK_SPEED * pace)), "-f", str(words),
                    "-w", str(spoken)]
                   if voice.program == "espeak-ng" else
                   ["flite", "-voice", voice.id, "--setf", f"duration_stretch={FLITE_STRETCH / pace:.3f}",
                    "-f", str(words), "-o", str(spoken)])
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"speech from {voice.program}", str(error),
                             "Try another voice or a shorter text.") from error
        if done.returncode != 0 or not spoken.is_file():
            raise InputError(f"speech from {voice.program}", (done.stderr or "no audio").strip()[:200],
                             "Try another voice.")
        return load_audio(spoken)


ESPEAK = Synthesizer(_espeak_voices, str, _speak)
FLITE = Synthesizer(_flite_voices, str, _speak)
