"""Crops of the face: for image metrics, and as SyncNet was trained on."""
from __future__ import annotations

from typing import Iterable, Iterator

import cv2
import numpy as np
from scipy.ndimage import median_filter

from ..metrics.syncnet import FACE_SIDE

_MARGIN = 0.15          # of the face's larger side, around the landmarks, in image metrics
_SYNC_MARGIN = 0.4      # of half the box, as SyncNet's own cropping
_SMOOTHING = 13         # frames of the median over the box, as there
_GREY = 110             # beyond the image, as there


def face_box(landmarks: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Box around the landmarks [478, 2 or 3] px, with a margin, cut to the image: x0, y0, x1, y1 px, end exclusive."""
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    margin = _MARGIN * (high - low).max()
    x0, y0 = np.floor(np.maximum(low - margin, 0)).astype(int)
    x1, y1 = np.ceil(np.minimum(high + margin, (width, height))).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def sync_crops(images: Iterable[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
    """Crops as SyncNet expects them: a smoothed square that reaches further down than up.

    Its own pipeline takes the box from a face detector, here it is that of the landmarks (forehead to chin).

    Args:
        images: [H, W, 3] uint8, one for each row of landmarks.
        landmarks: [N, 478, 2 or 3] px; NaN without a face, where neighbours are interpolated. At least one is known.

    Yields:
        [224, 224, 3] uint8.
    """
    low, high = landmarks[..., :2].min(1), landmarks[..., :2].max(1)
    boxes = np.concatenate([(low + high) / 2, (high - low).max(1, keepdims=True) / 2], 1)
    known = np.flatnonzero(np.isfinite(boxes).all(1))
    boxes = np.stack([np.interp(np.arange(len(boxes)), known, column[known]) for column in boxes.T], 1)
    boxes = median_filter(boxes, (_SMOOTHING, 1), mode="nearest")
    for image, (x, y, half) in zip(images, boxes):
        scale = FACE_SIDE / (2 * half * (1 + _SYNC_MARGIN))
        left, top = x - half * (1 + _SYNC_MARGIN), y - half
        move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        yield cv2.warpAffine(image, move, (FACE_SIDE, FACE_SIDE), borderValue=(_GREY,) * 3)
