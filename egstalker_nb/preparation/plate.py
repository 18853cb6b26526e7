"""The clean background: the mean of each pixel over the frames in which it is visible, the rest inpainted."""
from __future__ import annotations

from typing import Iterable

import cv2
import numpy as np

#: at 512 px: minimum distance of clean pixels from the person (hair tips, motion blur)
CLEAN_GAP = 9
#: minimum share of frames in which a pixel is uncovered, for clean pixels and for those nearer to the person: fewer may
#: be mask errors
MIN_SHARE, MIN_SHARE_NEAR = 0.01, 0.05


class PlateSum:
    """Sums of uncovered pixels; memory does not grow with the number of frames, and the sums of chunks can be added.

    Args:
        size: image size S.
    """

    def __init__(self, size: int):
        # clean pixels, and those near the person, which are used only where no clean ones exist
        self.totals = np.zeros((2, size, size, 3), np.float32)
        self.counts = np.zeros((2, size, size), np.uint32)
        self.frames = 0
        gap = 2 * max(1, round(CLEAN_GAP * size / 512)) + 1
        self._reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))

    def add(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Add a frame; at most 65,000, so that the float32 sums stay exact.

        Args:
            image: [S, S, 3] uint8.
            mask: [S, S, 3] uint8, head, torso, background.
        """
        near = (mask[..., 2] >= 250).astype(np.uint8)
        clean = cv2.erode(near, self._reach, borderType=cv2.BORDER_CONSTANT, borderValue=(1,))
        for k, use in enumerate((clean, near)):
            cv2.accumulate(image, self.totals[k], use)
            self.counts[k] += use
        self.frames += 1

    def sums(self) -> dict[str, np.ndarray]:
        """What `clean_plate` adds up: totals [2, S, S, 3] and counts [2, S, S], uint32."""
        return {"totals": self.totals.astype(np.uint32), "counts": self.counts, "frames": np.array(self.frames)}


def clean_plate(parts: Iterable[dict[str, np.ndarray]]) -> tuple[np.ndarray, float]:
    """The background, from the sums of all chunks.

    Args:
        parts: of each chunk, see `PlateSum.sums`.

    Returns:
        image [S, S, 3] uint8, and the share of its pixels that were visible, 0..1.
    """
    parts = iter(parts)
    first = next(parts)
    totals, counts, frames = first["totals"].astype(np.uint64), first["counts"].astype(np.uint64), int(first["frames"])
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
    """Inpaint the pixels that were never visible from their surroundings (push-pull over an image pyramid).

    Args:
        plate: [S, S, 3] uint8.
        seen: [S, S] bool with at least one True.

    Returns:
        [S, S, 3] uint8; seen pixels are unchanged.
    """
    if seen.all():
        return plate
    weight: np.ndarray = seen.astype(np.float32)
    colour: np.ndarray = plate.astype(np.float32) * weight[..., None]
    levels = []
    while True:
        levels.append((colour, weight))
        if min(weight.shape) <= 2:
            break
        half = (weight.shape[1] + 1) // 2, (weight.shape[0] + 1) // 2
        colour = cv2.resize(colour, half, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
        # a partly visible cell counts as visible, so that colours extend inwards
        full = np.minimum(1, 3 * weight)
        colour, weight = colour * (full / np.maximum(weight, 1e-6))[..., None], full
    filled = colour.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6) + np.zeros_like(colour)
    for colour, weight in reversed(levels):
        above = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        # blurred, so that the cells of the coarser level are not visible
        above = cv2.GaussianBlur(above, (0, 0), 1.0)
        share = np.minimum(weight, 1)[..., None]
        filled = colour + (1 - share) * above
    return np.where(seen[..., None], plate, np.clip(np.round(filled), 0, 255)).astype(np.uint8)
