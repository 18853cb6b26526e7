"""Raw 16-bit audio that comes in in pieces, as speech synthesisers send it."""
from __future__ import annotations

from typing import Any, Iterable, Iterator

import numpy as np

from ..core.errors import InputError
from ..media.live_audio import MAX_CHUNK_CHANNELS, check_rate, mono_16khz


def arrays_of(chunks: Iterable[Any]) -> Iterator[Any]:
    """Chunks of little-endian int16 bytes, cut anywhere, as arrays; chunks of another kind as they are."""
    rest = b""
    for chunk in chunks:
        if isinstance(chunk, (bytes, bytearray, memoryview)):
            data = rest + bytes(chunk)
            whole = len(data) // 2 * 2
            rest, chunk = data[whole:], np.frombuffer(data[:whole], "<i2")
        yield chunk


class PcmStream:
    """Little-endian int16 bytes, cut anywhere, to 16 kHz mono; how they are cut does not change the result.

    Args:
        rate: samples per second, see `check_rate`.
        channels: interleaved; they are averaged.

    Raises:
        InputError: an impossible rate or number of channels.
    """

    def __init__(self, rate: float, channels: int = 1):
        check_rate(rate)
        if not 1 <= channels <= MAX_CHUNK_CHANNELS:
            raise InputError(f"1 to {MAX_CHUNK_CHANNELS} channels", str(channels), "Speech has one.")
        self._channels, self._rest, self._chunk = channels, b"", np.zeros((0, channels), np.int16)
        self._ended = False
        self._converted = mono_16khz(self._chunks(), rate)

    def _chunks(self) -> Iterator[np.ndarray]:
        while not self._ended:
            yield self._chunk

    def add(self, data: bytes) -> np.ndarray:
        """The next bytes; returns the audio that is complete, float32 [samples] at 16 kHz, possibly empty."""
        data = self._rest + data
        whole = len(data) - len(data) % (2 * self._channels)
        self._rest = data[whole:]
        self._chunk = np.frombuffer(data[:whole], "<i2").reshape(-1, self._channels)
        return next(self._converted)

    def end(self) -> np.ndarray:
        """The audio that was still on its way; bytes of an unfinished sample are dropped."""
        self._ended = True
        return next(self._converted, np.zeros(0, np.float32))
