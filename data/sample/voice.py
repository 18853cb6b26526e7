"""Synthetic speech with known phoneme times, from the Flite synthesiser (only needed to generate the sample)."""

import re
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np


def speak(text, voice, stretch=1.0):
    """Synthesise `text`.

    Args:
        text: an English sentence.
        voice: one of Flite's built-in voices ("slt" is a woman, "rms" a man).
        stretch: factor on every duration.

    Returns:
        wave: float32 [samples] at 16 kHz, -1..1.
        phones: list of (name, end in seconds).

    Raises:
        RuntimeError: the program `flite` is not installed.
    """
    if shutil.which("flite") is None:
        raise RuntimeError("making the sample needs the program flite (Debian and Ubuntu: apt-get install flite)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-psdur", "-t", text, "-o", path]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with wave.open(str(path)) as file:
            if file.getframerate() != 16000:
                raise RuntimeError(f"expected a voice with 16 kHz, voice {voice} has {file.getframerate()} Hz")
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    phones = [(name, float(end)) for name, end in re.findall(r"([a-z]+):([0-9.]+)", printed)]
    return samples.astype(np.float32) / 32768, phones


def say(script, voice, seconds=None, lead=0.2, stretch=1.0):
    """Speak sentences with silences between them.

    Args:
        script: list of (sentence, silence after it in seconds).
        voice, stretch: as for `speak`.
        seconds: exact length of the result (cut or padded with silence), or None.
        lead: silence before the first word, seconds.

    Returns:
        wave: float32 [samples] at 16 kHz, peak 0.8.
        phones: list of (name, end in seconds); silences are "pau".
    """
    pieces, phones = [np.zeros(int(16000 * lead), np.float32)], [("pau", lead)]
    for sentence, silence in script:
        samples, spoken = speak(sentence, voice, stretch)
        start = sum(len(p) for p in pieces) / 16000
        pieces += [samples, np.zeros(int(16000 * silence), np.float32)]
        phones += [(name, start + end) for name, end in spoken]
        phones.append(("pau", sum(len(p) for p in pieces) / 16000))
    samples = np.concatenate(pieces)
    if seconds is not None:
        total = int(16000 * seconds)
        samples = np.pad(samples[:total], (0, max(0, total - len(samples))))
        phones = [(name, min(end, seconds)) for name, end in phones]
    return 0.8 * samples / max(1e-6, float(np.abs(samples).max())), phones
