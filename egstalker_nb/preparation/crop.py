"""One fixed square around the head for the whole clip."""
from __future__ import annotations

import cv2
import numpy as np

from ..face.landmarks import CHIN, FOREHEAD, OVAL

#: x0, y0, side in source px
Crop = tuple[int, int, int]

#: in heights of the face (top of the forehead to chin): room above for the hair, below for neck and shoulders,
#: and on each side
ABOVE, BELOW, BESIDE = 0.5, 0.4, 0.55
#: a nearly square source whose side is at most this much longer than the wanted crop is a head crop already
KEEP = 1.5


def choose_crop(landmarks: np.ndarray, found: np.ndarray, width: int, height: int) -> Crop:
    """The square that holds the head, its hair and some shoulder in every frame.

    It never leaves the picture: a border made up by padding would be trained as if it were background.

    Args:
        landmarks: [N, 478, 3] source px. found: [N] bool. width, height: source px.

    Returns:
        x0, y0, side in source px.
    """
    seen = landmarks[found][..., :2]
    face = float(np.median(np.linalg.norm(seen[:, FOREHEAD] - seen[:, CHIN], axis=-1)))
    border = seen[:, OVAL]
    # percentiles: one frame with a lost tracker must not decide the crop
    left, top = np.percentile(border.min(axis=1), 1, axis=0)
    right, bottom = np.percentile(border.max(axis=1), 99, axis=0)
    left, right = left - BESIDE * face, right + BESIDE * face
    top, bottom = top - ABOVE * face, bottom + BELOW * face
    side = max(right - left, bottom - top)
    shorter = min(width, height)
    if max(width, height) <= 1.1 * shorter and shorter <= KEEP * side:
        side = shorter
    side = int(min(round(side), shorter))
    x0 = (left + right) / 2 - side / 2
    # spare height goes below: shoulders rather than ceiling
    y0 = top
    return int(np.clip(round(x0), 0, width - side)), int(np.clip(round(y0), 0, height - side)), side


def cut(image: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The crop of a source frame as [size, size] or [size, size, C] uint8."""
    x0, y0, side = crop
    part = image[y0:y0 + side, x0:x0 + side]
    if side == size:
        return np.ascontiguousarray(part)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


def to_crop(landmarks: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Landmarks in source px -> px of the cropped frame (x, y and z in the same scale)."""
    x0, y0, side = crop
    return ((landmarks - np.float32([x0, y0, 0])) * np.float32(size / side)).astype(np.float32)
