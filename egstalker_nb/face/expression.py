"""What the face does, whatever the head does: lids, brows and gaze for the eye token, the shape of the mouth."""
from __future__ import annotations

import numpy as np

from .regions import CHIN, PARTS

#: columns of `upper_face`
COLUMNS = ("blink", "brow inner right", "brow outer right", "brow inner left", "brow outer left", "gaze x", "gaze y")
# MediaPipe landmarks whose motion against the rigid head is averaged, and the axis of it (0 right, 1 down)
_PARTS = (((55, 107, 65, 66), 1), ((46, 70, 53, 63), 1), ((285, 336, 295, 296), 1), ((276, 300, 283, 293), 1),
          ((468, 473), 0), ((468, 473), 1))
_RIGID = (168, 6, 197, 195, 33, 133, 263, 362)  # bridge of the nose and corners of the eyes
_REACH = 3.0  # standard deviations; what lies beyond is a tracking error
#: landmarks of `lower_face`
LOWER = (*PARTS["lips"], *CHIN)


def motion(landmarks: np.ndarray, w2c: np.ndarray, mean_face: np.ndarray, focal: float, size: int) -> np.ndarray:
    """How landmarks move against the rigid head.

    Landmarks minus the projection of the mean face, turned and scaled back into the head's frame, leave the
    expression.

    Args:
        landmarks: [N, 478, 3] px. w2c: [N, 4, 4]. mean_face: [478, 3] head frame. focal, size: px.

    Returns:
        [N, 478, 2] head units, right and down in the head's frame.
    """
    points = np.einsum("nij,kj->nki", w2c[:, :3, :3], mean_face) + w2c[:, None, :3, 3]
    depth = points[..., 2:]
    expected = focal * points[..., :2] / depth + size / 2
    moved = (landmarks[..., :2] - expected) * depth / focal   # camera axes
    moved = np.einsum("nij,nki->nkj", w2c[:, :2, :2], moved)  # head axes
    return moved - moved[:, _RIGID].mean(1, keepdims=True)


def upper_face(moved: np.ndarray, blink: np.ndarray, num_train: int) -> np.ndarray:
    """The input of the eye token. Upstream gives it the eyelids alone; brows that move unexplained blur the forehead.

    Args:
        moved: see `motion`. blink: [N] 0 open ... 1 closed. num_train: the frames whose mean and spread set the scale.

    Returns:
        [N, 7] float32, see `COLUMNS`: blink as -1 open ... 1 closed, the rest as half standard deviations, -1.5...1.5.
    """
    values = np.stack([moved[:, ids, axis].mean(1) for ids, axis in _PARTS], 1)
    known = values[:num_train]
    values = np.clip((values - known.mean(0)) / (known.std(0) + 1e-6), -_REACH, _REACH) / 2
    return np.concatenate([2 * blink[:, None] - 1, values], 1).astype(np.float32)


def lower_face(moved: np.ndarray) -> np.ndarray:
    """The shape of lips, chin and jaw: `motion` [N, 478, 2] -> [N, 2 * len(LOWER)] float32 head units."""
    return moved[:, LOWER].reshape(len(moved), -1).astype(np.float32)
