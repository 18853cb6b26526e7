"""Where a sound speaks and where it is silent."""
from __future__ import annotations

import numpy as np

from ..media.rates import SAMPLES_PER_FRAME

QUIET_DB = 25.0        # what lies so far below the speech's level carries none
INAUDIBLE_DB = -59.0   # nor does what lies below this level of full scale, as no recording of speech does
HANGOVER = 3           # frames: the mouth closes after a word's last sound, and opens before the first


def loudness(wave: np.ndarray, frames: int) -> np.ndarray:
    """Level of the sound of each video frame in dB of full scale, not below -60: [frames]."""
    padded = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    padded[:min(len(wave), len(padded))] = wave[:len(padded)]
    rms = np.sqrt(np.square(padded.reshape(frames, -1)).mean(1))
    return 20 * np.log10(np.maximum(rms, 1e-3))


def block_power(wave: np.ndarray) -> np.ndarray:
    """Mean square of each 20 ms of a 16 kHz wave [samples]: [blocks] float64, at least one."""
    block = 320
    count = max(1, len(wave) // block)
    return (np.resize(wave, count * block).reshape(count, block).astype(np.float64) ** 2).mean(axis=1)


def speech_level(wave: np.ndarray) -> float:
    """Level of speech in dB of full scale: rms of the louder half of 20 ms blocks."""
    power = np.sort(block_power(wave))
    return float(10 * np.log10(max(power[len(power) // 2:].mean(), 1e-10)))


def passages(wave: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Which video frames are silent, and which are speech.

    A frame is quiet 25 dB below the level of the sound's louder half (the dataset report's measure), or where
    nothing is heard at all. Quiet stretches are silent but for 3 frames (0.12 s) at each end that borders on speech,
    in which the mouth still closes or already opens: these count as neither. Shorter ones (the closure of a stop)
    belong to the speech around them. Where a noise is within 25 dB of the speech there is no silence.

    Args:
        wave: [samples] float, 16 kHz. frames: how many frames of 640 samples.

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
    """What to tell who drives a head by a sound in which nothing can be heard; "" for any other sound.

    Args:
        loudest: dB of full scale of its loudest frame, see `loudness`. what: names it.
    """
    if loudest >= INAUDIBLE_DB:
        return ""
    return (f"Nothing can be heard in {what} (below {INAUDIBLE_DB:.0f} dBFS throughout): the mouth stays shut. Check "
            "the recording or the microphone.")


CLOSING = 1.5           # frames, softness of closing and opening around silence


def shut_in_silence(wave: np.ndarray, frames: int) -> np.ndarray:
    """How far the mouth is to be shut, [frames] float32 0...1: 1 in silence (see `passages`), softly at its ends."""
    from scipy.ndimage import gaussian_filter1d

    silent, _ = passages(wave, frames)
    return gaussian_filter1d(silent.astype(np.float32), CLOSING, mode="nearest")
