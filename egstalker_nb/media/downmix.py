"""Averaging several audio channels into one, without the channels that would degrade the average.

All channels are averaged, with these exceptions, measured over the whole file and applied in this order:

1. Channels of constant level (hum, noise, silence) are left out if the level of another channel varies as speech does,
   and so are channels 20 dB or more below the loudest of the rest.
2. Of more than two channels with a centre (5.1, 7.1), only the centre is used: films put the dialogue there.
3. If averaging the remaining channels loses more than half of the power that uncorrelated channels would keep, they
   cancel each other out (opposite phase), and only the loudest of them is used. Channels with a delay, or with one
   speaker each, are still averaged.

Measurements use blocks of 20 ms: levels of the first difference of the samples, so that hum counts little, and powers
without the mean of each block, so that DC does not count.
"""
from __future__ import annotations

import numpy as np

BLOCK = 320             # samples at 16 kHz, 20 ms
FLOOR_DB = -80.0        # floor of the levels: silence, and the rounding noise of 16 bits
LOUD, QUIET = 98, 10    # percentiles of the blocks' levels; their difference is a channel's variation
STEADY_DB = 6.0         # a channel that varies by less, and by less than half of another's variation, is not speech
WEAK_DB = 20.0          # a channel this far below the loudest one contributes nothing
CANCELLED = 0.5         # channels cancel below this fraction of the power that uncorrelated ones would keep


class Downmix:
    """Averages channels, and measures them at the same time.

    In the first pass `mono` averages all channels. If `choose` then finds channels to leave out, the audio goes through
    `mono` a second time, which averages the remaining ones.
    """

    def __init__(self) -> None:
        self._measured: dict[str, _Channels] = {}
        self._kept: dict[str, list[int]] = {}

    def mono(self, samples: np.ndarray, layout: str, names: list[str]) -> np.ndarray:
        """Average the channels of one chunk.

        Args:
            samples: [n, C] float32 at 16 kHz.
            layout: name of the channel layout, such as `5.1`.
            names: the C channel names, such as `FL`, `FC`.

        Returns:
            [n] float32.
        """
        if samples.shape[1] == 1:
            return samples[:, 0]
        if self._kept:
            return samples[:, self._kept[layout]].mean(axis=1, dtype=np.float32)
        self._measured.setdefault(layout, _Channels(names)).add(samples)
        return samples.mean(axis=1, dtype=np.float32)

    def choose(self) -> list[str]:
        """Decide which channels to keep. Returns sentences for the user; empty if all channels are averaged."""
        found = {layout: channels.kept(layout) for layout, channels in self._measured.items()}
        notes = [note for _, note in found.values() if note]
        if notes:
            self._kept = {layout: kept for layout, (kept, _) in found.items()}
        return notes


class _Channels:
    """Measurements of the channels of one layout: 4 bytes per channel and 20 ms."""

    def __init__(self, names: list[str]):
        self.names = names
        self._rest = np.zeros((0, len(names)), np.float32)
        self._powers: list[np.ndarray] = []
        self._products = np.zeros((len(names), len(names)))

    def add(self, samples: np.ndarray) -> None:
        """Measure a chunk [n, C]."""
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // BLOCK * BLOCK
        self._rest = joined[whole:]
        blocks = joined[:whole].reshape(-1, BLOCK, joined.shape[1]).astype(np.float64)
        self._powers.append(np.square(np.diff(blocks, axis=1)).mean(axis=1).astype(np.float32))
        centred = (blocks - blocks.mean(axis=1, keepdims=True)).reshape(-1, joined.shape[1])
        self._products += centred.T @ centred

    def kept(self, layout: str) -> tuple[list[int], str]:
        """Indices of the channels to average, and a sentence for the user; "" if these are all channels."""
        count = len(self.names)
        levels = 10 * np.log10(np.maximum(np.concatenate(self._powers), 10 ** (FLOOR_DB / 10)))
        if not len(levels):  # shorter than a block
            return list(range(count)), ""
        loud, quiet = np.percentile(levels, LOUD, axis=0), np.percentile(levels, QUIET, axis=0)
        varies = loud - quiet
        speaks = varies >= min(STEADY_DB, varies.max() / 2)
        speaks &= loud > loud[speaks].max() - WEAK_DB
        kept = [int(i) for i in np.flatnonzero(speaks)]
        if count > 2 and "FC" in self.names and self.names.index("FC") in kept:
            return [self.names.index("FC")], (f"has {count} channels ({layout}): only the centre, which carries "
                                              "the speech, is used.")
        part = self._products[np.ix_(kept, kept)]
        if part.sum() < CANCELLED * np.trace(part):
            best = max(kept, key=lambda i: loud[i])
            return [best], (f"has channels that cancel each other out when they are averaged (opposite phase): only "
                            f"channel {best + 1} of {count} is used.")
        if len(kept) == count:
            return kept, ""
        left = [str(i + 1) for i in range(count) if i not in kept]
        return kept, (f"has channels without speech (silent, weak, or only noise or hum), which are left out: "
                      f"{', '.join(left)} of {count}.")
