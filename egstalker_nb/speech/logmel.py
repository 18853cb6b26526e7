"""The simplest encoder: log-mel bands, normalised per utterance. Nothing learned, so no language or voice is favoured.

Step k is a Hann window of 40 ms centred at k / 50 s. Per band, log power is floored relative to the band's own loud
steps, then brought to zero mean and unit variance over the utterance: a change of loudness or of the microphone's
frequency response leaves the features alone.
"""
from __future__ import annotations

import math

import numpy as np

from ..core.errors import MissingPackageError
from ..media.audio import BANDS, STEPS
from ..media.audio import SAMPLES_PER_STEP as HOP
from ..media.rates import FPS, SAMPLE_RATE

_WINDOW = 640  # 40 ms: resolves a voice's harmonics at 29 bands and still follows a plosive
_FFT = 1024
_LOW, _HIGH = 50.0, 7600.0
_SILENCE = 1e-8  # mel power of 16-bit rounding noise: anything below carries no speech
_BAND_RANGE = 1e-6  # 60 dB below a band's loud steps counts as silence, as in an ordinary recording
_TOTAL_RANGE = 1e-8  # 80 dB below the loudest band: what a codec leaves in bands it has cut
_MIN_STD = 0.5  # natural log of power; keeps a steady band (hum, cut band) from being blown up to speech size
_BLOCK = 4096  # steps computed at once: bounds memory for long sounds

#: everything that determines the features
SPEC = {"name": "logmel", "version": 1, "sample_rate": SAMPLE_RATE, "hop": HOP, "window": _WINDOW,
        "fft": _FFT, "bands": BANDS, "low_hz": _LOW, "high_hz": _HIGH, "steps": STEPS, "fps": FPS,
        "silence": _SILENCE, "band_range": _BAND_RANGE, "total_range": _TOTAL_RANGE, "min_std": _MIN_STD,
        "normalisation": "utterance"}


def steps(wave: np.ndarray) -> np.ndarray:
    """Log-mel bands of a wave.

    Args:
        wave: float32 [samples], 16 kHz mono, -1..1, at least one sample.

    Returns:
        float32 [ceil(samples / 320), 29] at 50 Hz. All zeros for digital silence. Equal input gives equal bits on
        one machine.

    Raises:
        MissingPackageError: without librosa.
    """
    return _normalised(mel_power(wave, math.ceil(len(wave) / HOP), HOP, _WINDOW, _FFT, BANDS, _LOW, _HIGH))


def mel_power(wave: np.ndarray, count: int, hop: int, window: int, fft: int, bands: int, low: float, high: float
              ) -> np.ndarray:
    """Mel power of `count` Hann windows centred every `hop` samples from 0 on.

    Args:
        wave: float32 [samples], 16 kHz; silence around it. window, fft: samples. low, high: Hz.

    Returns:
        float32 [count, bands].
    """
    try:
        import librosa
    except ImportError as error:
        raise MissingPackageError("librosa, which computes the speech features", "no package 'librosa'",
                                  "Install it with: pip install librosa") from error
    padded = np.zeros(count * hop + fft, np.float32)
    padded[fft // 2:fft // 2 + len(wave)] = wave
    power = np.empty((count, bands), np.float32)
    for begin in range(0, count, _BLOCK):
        end = min(begin + _BLOCK, count)
        block = padded[begin * hop:(end - 1) * hop + fft]
        power[begin:end] = librosa.feature.melspectrogram(
            y=block, sr=SAMPLE_RATE, n_fft=fft, hop_length=hop, win_length=window, window="hann", center=False,
            power=2.0, n_mels=bands, fmin=low, fmax=high, htk=True, norm=None).T
    return power


def _normalised(power: np.ndarray) -> np.ndarray:
    """Mel power [steps, 29] to zero-mean, unit-variance log power per band."""
    loud = np.percentile(power, 99, axis=0)  # not the maximum: one click must not decide what silence is
    floor = np.maximum(np.maximum(loud * _BAND_RANGE, loud.max() * _TOTAL_RANGE), _SILENCE)
    log = np.log(np.maximum(power, floor)).astype(np.float64)
    log -= log[0]  # a band that never changes becomes exactly 0, not the rounding error of its mean
    std = np.maximum(log.std(axis=0), _MIN_STD)
    return ((log - log.mean(axis=0)) / std).astype(np.float32)
