"""The simplest audio encoder: log-mel bands, normalised per utterance. Nothing is learned, so it has no language bias.

Step k is a Hann window of 40 ms centred at k / 50 s. Per band, log power is floored relative to the band's own loud
steps and normalised to zero mean and unit variance over the utterance, so that the features are invariant to volume and
to the microphone's frequency response.
"""
from __future__ import annotations

import math

import numpy as np

from ..core.errors import require_package
from ..core.numba_cache import ensure_cache
from ..media.audio import FEATURE_CHANNELS, SAMPLES_PER_STEP, WINDOW_STEPS
from ..media.rates import FPS, SAMPLE_RATE

_WINDOW = 640  # samples, 40 ms: resolves a voice's harmonics in 29 bands, and plosives in time
_FFT = 1024
_LOW, _HIGH = 50.0, 7600.0
_SILENCE = 1e-8  # mel power of 16-bit rounding noise: anything below carries no speech
_BAND_RANGE = 1e-6  # floor of a band: 60 dB below its loud steps, the range of an ordinary recording
_TOTAL_RANGE = 1e-8  # floor of all bands: 80 dB below the loudest one, for bands that a codec has cut
_MIN_STD = 0.5  # natural log of power; steady bands (hum, cut bands) are not amplified to the level of speech
_BLOCK = 4096  # steps computed at once, which bounds memory

#: everything that determines the features
SPEC = {"name": "logmel", "version": 1, "sample_rate": SAMPLE_RATE, "hop": SAMPLES_PER_STEP, "window": _WINDOW,
        "fft": _FFT, "bands": FEATURE_CHANNELS, "low_hz": _LOW, "high_hz": _HIGH, "steps": WINDOW_STEPS, "fps": FPS,
        "silence": _SILENCE, "band_range": _BAND_RANGE, "total_range": _TOTAL_RANGE, "min_std": _MIN_STD,
        "normalisation": "utterance"}


def steps(wave: np.ndarray) -> np.ndarray:
    """Log-mel bands of a wave.

    Args:
        wave: float32 [samples], 16 kHz mono, -1..1, at least one sample.

    Returns:
        float32 [ceil(samples / 320), 29] at 50 Hz; all zeros for digital silence. Bit-identical for equal input on one
        machine.

    Raises:
        MissingPackageError: librosa is not installed.
    """
    count = math.ceil(len(wave) / SAMPLES_PER_STEP)
    return _normalised(mel_power(wave, count, SAMPLES_PER_STEP, _WINDOW, _FFT, FEATURE_CHANNELS, _LOW, _HIGH))


def mel_power(wave: np.ndarray, count: int, hop: int, window: int, fft: int, bands: int, low: float, high: float
              ) -> np.ndarray:
    """Mel power of Hann windows centred at samples 0, hop, 2 hop, ...

    Args:
        wave: float32 [samples], 16 kHz; padded with silence.
        count: number of windows.
        hop: samples between windows.
        window: samples of a window.
        fft: samples of the FFT.
        bands: number of mel bands.
        low, high: frequency range in Hz.

    Returns:
        float32 [count, bands].

    Raises:
        MissingPackageError: librosa is not installed.
    """
    ensure_cache()
    librosa = require_package("librosa", "librosa, which computes mel spectra", "Install it with: pip install librosa")
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
    loud = np.percentile(power, 99, axis=0)  # not the maximum, which a single click would set
    floor = np.maximum(np.maximum(loud * _BAND_RANGE, loud.max() * _TOTAL_RANGE), _SILENCE)
    log = np.log(np.maximum(power, floor)).astype(np.float64)
    log -= log[0]  # makes a constant band exactly 0, without the rounding error of its mean
    std = np.maximum(log.std(axis=0), _MIN_STD)
    return ((log - log.mean(axis=0)) / std).astype(np.float32)
