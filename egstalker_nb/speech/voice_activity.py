"""Voice activity: speech and silence per video frame, from levels."""
from __future__ import annotations

import numpy as np

from ..media.rates import SAMPLES_PER_FRAME

QUIET_DB = 25.0        # a frame this far below the speech level is quiet
INAUDIBLE_DB = -59.0   # dBFS; so is a frame below this level, which is below any recording of speech
HANGOVER = 3           # frames: the mouth still closes after a word, and opens before the next
BLUR = 1.5             # frames, standard deviation of the blur of `shut_in_silence`
BLOCK = 320            # samples, 20 ms


def loudness(wave: np.ndarray, frames: int) -> np.ndarray:
    """Level of each video frame in dBFS, at least -60: wave [samples] at 16 kHz -> [frames]."""
    padded = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    padded[:min(len(wave), len(padded))] = wave[:len(padded)]
    rms = np.sqrt(np.square(padded.reshape(frames, -1)).mean(1))
    return 20 * np.log10(np.maximum(rms, 1e-3))


def block_power(wave: np.ndarray) -> np.ndarray:
    """Mean square of each 20 ms block of a 16 kHz wave [samples]: [blocks] float64, at least one."""
    count = max(1, len(wave) // BLOCK)
    return (np.resize(wave, count * BLOCK).reshape(count, BLOCK).astype(np.float64) ** 2).mean(axis=1)


def speech_level(wave: np.ndarray) -> float:
    """Speech level in dBFS: RMS of the louder half of the 20 ms blocks."""
    power = np.sort(block_power(wave))
    return float(10 * np.log10(max(power[len(power) // 2:].mean(), 1e-10)))


def passages(wave: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Classify video frames as silence or speech.

    A frame is quiet if it is 25 dB below the speech level (which the dataset report also uses) or inaudible. A quiet
    passage is silence except for 3 frames (0.12 s) at each end next to speech, in which the mouth still closes or
    already opens: they count as neither. Shorter quiet passages (the closure of a stop consonant) count as speech.
    With noise within 25 dB of the speech there is no silence.

    Args:
        wave: [samples] float, 16 kHz.
        frames: number of video frames, 640 samples each.

    Returns:
        silent, speech: [frames] bool, never both.
    """
    quiet = loudness(wave, frames) < max(speech_level(wave) - QUIET_DB, INAUDIBLE_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]])))
    silent, speech = np.zeros(frames, bool), ~quiet
    for begin, end in edges.reshape(-1, 2):
        first, last = begin + HANGOVER * (begin > 0), end - HANGOVER * (end < frames)
        if first < last:
            silent[first:last] = True
        else:
            speech[begin:end] = True
    return silent, speech


def silent_note(loudest: float, what: str) -> str:
    """A message for the user if the audio is inaudible throughout, else "".

    Args:
        loudest: level of the loudest frame in dBFS, see `loudness`.
        what: name of the audio in the message.
    """
    if loudest >= INAUDIBLE_DB:
        return ""
    return (f"Nothing can be heard in {what} (below {INAUDIBLE_DB:.0f} dBFS throughout): the mouth stays shut. Check "
            "the recording or the microphone.")


def shut_in_silence(wave: np.ndarray, frames: int) -> np.ndarray:
    """How far the mouth should be shut: [frames] float32, 1 in silence (see `passages`), 0 in speech, blurred between.

    Args:
        wave: [samples] float, 16 kHz.
        frames: number of video frames.
    """
    from scipy.ndimage import gaussian_filter1d

    silent, _ = passages(wave, frames)
    return gaussian_filter1d(silent.astype(np.float32), BLUR, mode="nearest")
