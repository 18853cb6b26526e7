"""One fixed square around the head for the whole clip."""
from __future__ import annotations

import cv2
import numpy as np

from ..face.landmarks import CHIN, FOREHEAD, OVAL
from .source import UnusableClipError

#: x0, y0, side in source px
Crop = tuple[int, int, int]

#: margins in face heights (top of the forehead to chin): above for the hair, below for neck and shoulders, and on each
#: side
MARGIN_ABOVE, MARGIN_BELOW, MARGIN_SIDE = 0.5, 0.4, 0.55
#: a nearly square source whose side is at most this many times that of the crop is a head crop already and is kept
MAX_KEPT_RATIO = 1.5
#: px: a smaller square shows no mouth
MIN_SIDE = 32
#: px, of prepared frames
MIN_SIZE, MAX_SIZE, SIZE_STEP = 64, 1024, 16
#: as a size: that of the crop in the video
NATIVE = "native"


def choose_crop(landmarks: np.ndarray, found: np.ndarray, width: int, height: int) -> Crop:
    """The square that contains the head, its hair and part of the shoulders in every frame.

    It stays inside the image: the head would be trained on a padded border as if it were background.

    Args:
        landmarks: [N, 478, 3] source px.
        found: [N] bool, a face was tracked.
        width, height: of the source, px.

    Returns:
        x0, y0, side in source px.

    Raises:
        UnusableClipError: the square has fewer than `MIN_SIDE` px.
    """
    seen = landmarks[found][..., :2]
    face = float(np.median(np.linalg.norm(seen[:, FOREHEAD] - seen[:, CHIN], axis=-1)))
    border = seen[:, OVAL]
    # percentiles: one frame with a lost tracker must not decide the crop
    left, top = np.percentile(border.min(axis=1), 1, axis=0)
    right, bottom = np.percentile(border.max(axis=1), 99, axis=0)
    left, right = left - MARGIN_SIDE * face, right + MARGIN_SIDE * face
    top, bottom = top - MARGIN_ABOVE * face, bottom + MARGIN_BELOW * face
    side = max(right - left, bottom - top)
    shorter = min(width, height)
    if max(width, height) <= 1.1 * shorter and shorter <= MAX_KEPT_RATIO * side:
        side = shorter
    side = int(min(round(side), shorter))
    if side < MIN_SIDE:
        raise UnusableClipError(f"a head of at least {MIN_SIDE} px in the video, better 400 px", f"one of {side} px",
                                "Use a video with a closer view or a higher resolution.")
    x0 = (left + right) / 2 - side / 2
    # spare height goes below: shoulders rather than ceiling
    y0 = top
    return int(np.clip(round(x0), 0, width - side)), int(np.clip(round(y0), 0, height - side)), side


def native_size(crop: Crop) -> int:
    """The frame size at which a crop is neither enlarged nor reduced by more than it must be, px: its side, rounded
    down to a size that `prepare` takes."""
    return int(np.clip(crop[2] // SIZE_STEP * SIZE_STEP, MIN_SIZE, MAX_SIZE))


def crop_frame(image: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The crop of a source frame as [size, size] or [size, size, C] uint8."""
    x0, y0, side = crop
    part = image[y0:y0 + side, x0:x0 + side]
    if side == size:
        return np.ascontiguousarray(part)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


def to_crop(landmarks: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Landmarks [..., 3] in source px -> px of the cropped frame (x, y and z in the same scale)."""
    x0, y0, side = crop
    return np.asarray((landmarks - np.array([x0, y0, 0], np.float32)) * np.float32(size / side), np.float32)
