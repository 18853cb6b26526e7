"""The cuts of a video, and the shot that becomes the dataset."""
from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Scenes = Literal["longest", "all"]
SCENES: tuple[Scenes, ...] = get_args(Scenes)

#: a cut: minimum mean colour change of a 16 x 16 thumbnail, and its minimum ratio to the median of its neighbours
MIN_CHANGE, MIN_CHANGE_RATIO = 0.08, 5.0
#: longest flash, frames: what follows looks like what was before, so that it starts no new shot
MAX_FLASH = 5


def colour_change(thumbs: np.ndarray) -> np.ndarray:
    """Mean colour change from the previous frame, 0..1; 0 for the first. Thumbnails [N, T, T, 3] uint8 -> [N]."""
    difference = np.abs(np.diff(thumbs.astype(np.float32), axis=0)).mean(axis=(1, 2, 3)) / 255
    return np.concatenate([[0.0], difference]).astype(np.float32)


def find_cuts(thumbs: np.ndarray) -> np.ndarray:
    """First frames of new shots; a flash starts none.

    Args:
        thumbs: [N, T, T, 3] uint8, N at least 1.

    Returns:
        [K] int, ascending; frame 0 is not among them.
    """
    changes = colour_change(thumbs)
    padded = np.pad(changes, 5, mode="reflect" if len(changes) > 5 else "edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 11), axis=1)
    cuts = np.flatnonzero((changes > MIN_CHANGE) & (changes > MIN_CHANGE_RATIO * (around + 1e-3)))
    kept: list[int] = []
    for cut in cuts:
        # like the frame before one of the last cuts: everything in between was a flash
        flash = next((n for n, begin in enumerate(kept) if cut - begin <= MAX_FLASH
                      and colour_change(thumbs[[begin - 1, cut]])[1] < MIN_CHANGE), None)
        kept = [*kept, int(cut)] if flash is None else kept[:flash]
    return np.array(kept, int)


def find_shots(cuts: np.ndarray, num_frames: int) -> list[range]:
    """The frames of each shot."""
    edges = [0, *cuts.tolist(), num_frames]
    return [range(a, b) for a, b in zip(edges, edges[1:])]


def choose_shot(shots: list[range], seen: np.ndarray, scenes: Scenes) -> range:
    """The frames that become the dataset.

    Args:
        shots: see `find_shots`.
        seen: [N] bool, a face was detected in or near each frame.
        scenes: `longest`: the shot with most frames that show a face; `all`: everything.
    """
    if scenes == "all":
        return range(shots[0].start, shots[-1].stop)
    return max(shots, key=lambda shot: (int(seen[shot.start:shot.stop].sum()), len(shot)))
