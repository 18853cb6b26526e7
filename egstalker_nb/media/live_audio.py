"""Chunks of live audio, from microphones or speech synthesisers, resampled to 16 kHz mono."""
from __future__ import annotations

from numbers import Real
from typing import Any, Iterable, Iterator

import numpy as np
import soxr

from ..core.errors import InputError
from .rates import SAMPLE_RATE

MIN_RATE, MAX_RATE = 8_000, 384_000
MAX_CHUNK_CHANNELS = 8  # an array with more is probably [channels, samples]
FULL_SCALE = {"i2": 2.0 ** 15, "i4": 2.0 ** 31}


def check_rate(sample_rate: Any) -> None:
    """Check a sample rate.

    Raises:
        InputError: not a number from 8,000 to 384,000.
    """
    number = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool)
    if not number or not MIN_RATE <= sample_rate <= MAX_RATE:
        raise InputError(f"sample_rate as samples per second, {MIN_RATE} to {MAX_RATE}", repr(sample_rate),
                         "Give the rate of the chunks: 48000 for most microphones.")


def mono_16khz(chunks: Iterable[Any], sample_rate: float) -> Iterator[np.ndarray]:
    """Convert chunks to 16 kHz mono as they arrive.

    The concatenated results are bit-identical however the audio is cut into chunks.

    Args:
        chunks: see `stream`.
        sample_rate: of the chunks, see `check_rate`.

    Yields:
        float32 [samples] at 16 kHz, possibly empty.

    Raises:
        InputError: while iterating, for a chunk that is not audio; the message gives its index.
    """
    if sample_rate == SAMPLE_RATE:
        yield from (_mono(chunk, number) for number, chunk in enumerate(chunks))
        return
    resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for number, chunk in enumerate(chunks):
        yield resampler.resample_chunk(_mono(chunk, number))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _mono(chunk: Any, number: int) -> np.ndarray:
    """A chunk as finite float32 [samples]; channels are averaged, integers scaled to -1...1."""
    expected = f"chunk {number} as [samples] or [samples, channels] of float32, int16 or int32"
    try:
        samples = np.asarray(chunk)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors on another device
        raise InputError(expected, repr(chunk)[:80], "Give NumPy arrays.") from error
    found = f"{samples.dtype} {list(samples.shape)}"
    kind = samples.dtype.str[1:]
    if samples.dtype.kind != "f" and kind not in FULL_SCALE:
        raise InputError(expected, found, "Convert the samples: floats of -1...1, or 16-bit integers.")
    if samples.ndim not in (1, 2):
        raise InputError(expected, found, "Give arrays with an axis of samples; a whole recording as [wave].")
    if samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHUNK_CHANNELS:
        raise InputError(f"{expected}, at most {MAX_CHUNK_CHANNELS} channels", found,
                         "Swap the axes if it is [channels, samples]: chunk.T.")
    wave = samples.astype(np.float32) / np.float32(FULL_SCALE.get(kind, 1.0))
    wave = wave.mean(axis=1, dtype=np.float32) if wave.ndim == 2 else wave
    if not np.isfinite(wave).all():
        raise InputError(f"{expected}, finite", "NaN or infinite samples", "Check the source of the audio.")
    return wave
