"""The clean background: the mean of each pixel's uncovered moments, the never-seen rest filled in."""
from __future__ import annotations

from typing import Iterable

import cv2
import numpy as np

#: at 512 px: how far from the person a pixel must be to count as clean (hair tips, motion blur)
CLEAN_GAP = 9
#: a pixel counts as seen when it was uncovered in at least this share of the frames: fewer may be mask errors
MIN_SHARE, MIN_SHARE_NEAR = 0.01, 0.05


class PlateSum:
    """Sums of uncovered pixels; memory does not grow with the number of frames, and sums of parts can be joined.

    Args:
        size: picture size S.
    """

    def __init__(self, size: int):
        # pixels well away from the person, and those nearer: used only where nothing better was seen
        self.totals = np.zeros((2, size, size, 3), np.float32)
        self.counts = np.zeros((2, size, size), np.uint32)
        self.frames = 0
        gap = 2 * max(1, round(CLEAN_GAP * size / 512)) + 1
        self._reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))

    def add(self, image: np.ndarray, mask: np.ndarray) -> None:
        """image [S, S, 3] uint8, mask [S, S, 3] uint8 (head, torso, background); at most 65,000 frames, so that the
        sums stay exact."""
        near = (mask[..., 2] >= 250).astype(np.uint8)
        clean = cv2.erode(near, self._reach, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        for k, use in enumerate((clean, near)):
            cv2.accumulate(image, self.totals[k], use)
            self.counts[k] += use
        self.frames += 1

    def sums(self) -> dict[str, np.ndarray]:
        """What `clean_plate` joins: totals [2, S, S, 3] and counts [2, S, S], uint32."""
        return {"totals": self.totals.astype(np.uint32), "counts": self.counts, "frames": np.int64(self.frames)}


def clean_plate(parts: Iterable[dict[str, np.ndarray]]) -> tuple[np.ndarray, float]:
    """The plate [S, S, 3] uint8 and the share of it that was seen, 0..1, from the sums of some `PlateSum`s."""
    totals = counts = frames = 0
    for part in parts:
        totals, counts = totals + part["totals"].astype(np.uint64), counts + part["counts"].astype(np.uint64)
        frames += int(part["frames"])
    clean, near = (counts[k] >= max(1.0, share * frames) for k, share in enumerate((MIN_SHARE, MIN_SHARE_NEAR)))
    seen = clean | near
    if not seen.any():
        return np.full((*seen.shape, 3), 128, np.uint8), 0.0
    mean = totals / np.maximum(counts, 1)[..., None]
    plate = np.where(clean[..., None], mean[0], mean[1])
    return fill_unseen(np.clip(np.round(plate), 0, 255).astype(np.uint8), seen), float(seen.mean())


def fill_unseen(plate: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fill the pixels that were never seen, smoothly from their surroundings (averages over ever wider rings).

    Args:
        plate: [S, S, 3] uint8. seen: [S, S] bool with at least one True.

    Returns:
        [S, S, 3] uint8; seen pixels are unchanged.
    """
    if seen.all():
        return plate
    weight = seen.astype(np.float32)
    colour = plate.astype(np.float32) * weight[..., None]
    levels = []
    while True:
        levels.append((colour, weight))
        if min(weight.shape) <= 2:
            break
        half = tuple((n + 1) // 2 for n in weight.shape[::-1])
        colour = cv2.resize(colour, half, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
        # a partly seen square counts as seen: its surroundings' colours reach far inwards
        full = np.minimum(1, 3 * weight)
        colour, weight = colour * (full / np.maximum(weight, 1e-6))[..., None], full
    filled = colour.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6) + np.zeros_like(colour)
    for colour, weight in reversed(levels):
        above = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        # softened, so that the squares of the coarser level do not show
        above = cv2.GaussianBlur(above, (0, 0), 1.0)
        share = np.minimum(weight, 1)[..., None]
        filled = colour + (1 - share) * above
    return np.where(seen[..., None], plate, np.clip(np.round(filled), 0, 255)).astype(np.uint8)
