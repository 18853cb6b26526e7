"""Aligns the backgrounds of two frames: the similarity between them, and how much brighter one is."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from ..data.camera_view import pixels
from ..media.image_io import read_rgb
from .plate import image_paths, uncovered

SIDES = 64, 256             # px of the images that are compared, coarse to fine
BLUR = 1.0                  # px, against noise
MIN_GRADIENT = 1.0          # grey levels per px: texture
MIN_TEXTURE = 0.01          # share of an image's pixels that must have it
MAX_POINTS = 16_000         # of them, evenly spread (OpenCV takes 32,766)
MAX_STEPS = 20              # of Gauss-Newton at each level
CONVERGED, MAX_STEP = 0.01, 0.1     # px, a step that is the last one, and the largest that the last one may be
CORRELATED = 10             # pixels that share their noise
MAX_ERROR = 0.5             # px at `SIDES`: standard error of a similarity that is used
MIN_AGREE = 0.3             # share of a key frame's pixels that must be seen
DARK, BRIGHT = 8, 247       # grey levels beyond which a ratio of colours says nothing
MIN_SHARED = 0.02           # share of the image in which colours are compared
GAIN_RANGE = 0.05           # log gain: pixels that differ by more from the median do not count


@dataclass(frozen=True)
class Look:
    """What is compared of a frame: images of its background with the share that is clean, at each of `SIDES`; at the
    first, colours [w, w, 3] float32 and where they can be compared [w, w] bool; log colours of the face [3]."""

    levels: tuple[tuple[np.ndarray, np.ndarray], ...]
    colour: np.ndarray
    usable: np.ndarray
    face: np.ndarray


def look_at(root: Path, i: int) -> Look:
    """What is compared of frame i of a dataset folder."""
    frame, mask = map(read_rgb, image_paths(root, i))
    clean, _ = uncovered(mask)
    grey: np.ndarray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    colour, head, usable = (_resized(x.astype(np.float32), SIDES[0]) for x in (frame, mask[..., 0], clean))
    usable = (usable > 0.99) & (colour > DARK).all(-1) & (colour < BRIGHT).all(-1)
    face = colour[head > 250]
    return Look(tuple(_level(_resized(grey, side), _resized(clean.astype(np.float32), side)) for side in SIDES),
                 colour, usable, np.log(np.maximum(face.mean(0), 1)) if len(face) else np.zeros(3))


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    how = cv2.INTER_AREA if len(image) > side else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=how)


def _level(grey: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grey image blurred against noise, without colours of the person at the edge of the background, and what is
    clean of it."""
    known = cv2.GaussianBlur(clean, (0, 0), BLUR)
    return cv2.GaussianBlur(grey * clean, (0, 0), BLUR) / np.maximum(known, 1e-3), clean


class KeyFrame:
    """A frame that others are aligned with: the pixels of its background that have texture, at each level.

    Args:
        look: the frame.
    """

    def __init__(self, look: Look):
        self.look = look
        self.levels = [self._textured(*level) for level in look.levels]

    @staticmethod
    def _textured(image: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points [P, 2] half images, values [P] and derivatives [P, 6]: by shift x and y, scale and roll, gain and
        offset of brightness."""
        side = len(image)
        across, down = (cv2.Sobel(image, cv2.CV_32F, *order, scale=side / 16) for order in ((1, 0), (0, 1)))
        inside = cv2.erode((clean > 0.99).astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=(0,))
        y, x = np.nonzero((np.hypot(across, down) > MIN_GRADIENT * side / 2) & (inside > 0))
        few = slice(None, None, len(x) // MAX_POINTS + 1)
        y, x = y[few], x[few]
        gx, gy, value = across[y, x], down[y, x], image[y, x]
        u, v = ((axis + 0.5) * 2 / side - 1 for axis in (x, y))
        slopes = np.stack([gx, gy, gx * u + gy * v, gy * u - gx * v, value, np.ones_like(value)], 1)
        return np.stack([u, v], 1), value.astype(np.float64), slopes.astype(np.float64)

    def align(self, look: Look, guess: np.ndarray) -> Optional[np.ndarray]:
        """The similarity [3, 3] from this frame to another, half images, by robust Gauss-Newton steps on the
        differences of brightness (inverse compositional, Baker and Matthews 2004), coarse to fine.

        Args:
            look: the other frame.
            guess: [3, 3]; right to a few percent of the image's width.

        Returns:
            None if the background does not show it.
        """
        matrix: np.ndarray = guess
        for number, (points, value, slopes) in enumerate(self.levels):
            if len(points) < MIN_TEXTURE * len(look.levels[number][0]) ** 2:
                continue
            last = number == len(self.levels) - 1
            found = _aligned(points, value, slopes, look.levels[number], matrix)
            if found is None and last:
                return None
            matrix = matrix if found is None else found
        return matrix if len(points) >= MIN_TEXTURE * SIDES[-1] ** 2 else None


def _aligned(points: np.ndarray, value: np.ndarray, slopes: np.ndarray, level: tuple[np.ndarray, np.ndarray],
             matrix: np.ndarray) -> Optional[np.ndarray]:
    """`KeyFrame.align` at one level."""
    image, clean = level
    side, light = len(image), np.array([1.0, 0.0])  # gain and offset of brightness
    for _ in range(MAX_STEPS):
        at = ((points @ matrix[:2, :2].T + matrix[:2, 2] + 1) * side / 2 - 0.5).astype(np.float32)
        seen, uncovered_there = (cv2.remap(x, at[:, 0], at[:, 1], cv2.INTER_LINEAR, borderValue=(0,))[:, 0]
                                 for x in (image, clean))
        use = uncovered_there > 0.99
        if use.sum() < max(MIN_AGREE * len(points), 50):
            return None
        difference, slope = seen[use] - light[0] * value[use] - light[1], slopes[use]
        spread = 1.5 * np.median(np.abs(difference)) + 1e-3
        weight = 1 / (1 + (difference / (2 * spread)) ** 2)
        normal = (slope * weight[:, None]).T @ slope
        try:
            covariance = np.linalg.inv(normal + 1e-6 * np.diag(np.diag(normal)))
        except np.linalg.LinAlgError:
            return None
        change = covariance @ (slope.T @ (weight * difference))
        along, across = 1 + change[2], change[3]
        light += change[4:]
        step = np.array([[along, -across, change[0]], [across, along, change[1]], [0, 0, 1]])
        matrix = matrix @ np.linalg.inv(step)
        if (moved := np.abs(change[:4]).sum() * side / 2) < CONVERGED:
            break
    if moved > MAX_STEP:
        return None
    # pixels near each other have the same noise: as if only one of `CORRELATED` counted
    error = spread * np.sqrt(CORRELATED * np.trace(covariance[:4, :4])) * side / 2
    return matrix if error < MAX_ERROR else None


def log_gains(key: Look, look: Look, matrix: np.ndarray) -> np.ndarray:
    """Log of how much brighter the background is in `look` than in `key`: [3], NaN where too little of it is seen."""
    to_px = pixels(SIDES[0])
    px = to_px @ matrix @ np.linalg.inv(to_px)
    both = key.usable & (warped(look.usable.astype(np.float32), px) > 0.99)
    if both.mean() < MIN_SHARED:
        return np.full(3, np.nan)
    before, after = key.colour[both], np.maximum(warped(look.colour, px)[both], 1)
    ratio = np.log(after / before)
    close = np.abs(ratio - np.median(ratio, 0)) < GAIN_RANGE
    return np.log((after * close).sum(0) / np.maximum((before * close).sum(0), 1))


def warped(image: np.ndarray, px: np.ndarray) -> np.ndarray:
    """An image as the key frame sees it, given the similarity [3, 3] from there, px; black beyond its border."""
    return cv2.warpAffine(image, px[:2], image.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
