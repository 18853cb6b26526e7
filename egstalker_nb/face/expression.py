"""Facial expression, independent of head pose: eyelids, brows and gaze for the eye token, and the mouth shape."""
from __future__ import annotations

import numpy as np
from torch import Tensor

from .regions import CHIN_AND_JAW, PARTS

#: columns of `upper_face`
UPPER_FACE_COLUMNS = ("blink", "brow inner right", "brow outer right", "brow inner left", "brow outer left", "gaze x",
                      "gaze y")
# for each column but blink: MediaPipe landmarks whose movement is averaged, and its axis (0 right, 1 down)
_UPPER = (((55, 107, 65, 66), 1), ((46, 70, 53, 63), 1), ((285, 336, 295, 296), 1), ((276, 300, 283, 293), 1),
          ((468, 473), 0), ((468, 473), 1))
_ANCHORS = (168, 6, 197, 195, 33, 133, 263, 362)  # bridge of the nose and corners of the eyes
_MAX_DEVIATION = 3.0  # standard deviations; larger values are tracking errors
#: landmarks of `lower_face`
LOWER = (*PARTS["lips"], *CHIN_AND_JAW)


def landmark_motion(landmarks: np.ndarray, w2c: np.ndarray, mean_face: np.ndarray, focal: float,
                    size: int) -> np.ndarray:
    """Movement of landmarks relative to the rigid head, which is the facial expression.

    The projected mean face is subtracted from the landmarks; the difference is scaled to head units and rotated into
    the head frame.

    Args:
        landmarks: [N, 478, 3] px.
        w2c: [N, 4, 4] head poses.
        mean_face: [478, 3] head frame.
        focal: focal length in px.
        size: side of the frames in px.

    Returns:
        [N, 478, 2] head units, right and down in the head frame.
    """
    points = np.einsum("nij,kj->nki", w2c[:, :3, :3], mean_face) + w2c[:, None, :3, 3]
    depth = points[..., 2:]
    expected = focal * points[..., :2] / depth + size / 2
    moved = (landmarks[..., :2] - expected) * depth / focal   # camera axes
    moved = np.einsum("nij,nki->nkj", w2c[:, :2, :2], moved)  # head axes
    return moved - moved[:, _ANCHORS].mean(1, keepdims=True)


def upper_face(moved: np.ndarray, blink: np.ndarray, num_train: int) -> np.ndarray:
    """The input of the eye token. Upstream uses the blink alone; without the brows, the forehead would be blurred.

    Args:
        moved: see `landmark_motion`.
        blink: [N] 0 open ... 1 closed.
        num_train: the first frames, whose mean and standard deviation normalise the values.

    Returns:
        [N, 7] float32, see `UPPER_FACE_COLUMNS`: blink as -1 open ... 1 closed, the rest as half standard deviations,
        -1.5...1.5.
    """
    values = np.stack([moved[:, ids, axis].mean(1) for ids, axis in _UPPER], 1)
    known = values[:num_train]
    values = np.clip((values - known.mean(0)) / (known.std(0) + 1e-6), -_MAX_DEVIATION, _MAX_DEVIATION) / 2
    return np.concatenate([2 * blink[:, None] - 1, values], 1).astype(np.float32)


def lower_face(moved: np.ndarray) -> np.ndarray:
    """Shape of lips, chin and jaw: `landmark_motion` [N, 478, 2] -> [N, 2 * len(LOWER)] float32 head units."""
    return moved[:, LOWER].reshape(len(moved), -1).astype(np.float32)


def lip_gap(shapes: Tensor) -> Tensor:
    """Gap between the inner lips of shapes [N, 2 * len(LOWER)] (see `lower_face`): [N] head units."""
    points = shapes.unflatten(1, (-1, 2))
    return points[:, LOWER.index(14), 1] - points[:, LOWER.index(13), 1]
