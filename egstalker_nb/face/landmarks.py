"""Indices into MediaPipe's 478 face landmarks, and measurements: eye opening, blink curve, rectangles."""
from __future__ import annotations

import numpy as np

NUM_LANDMARKS = 478
FOREHEAD, CHIN = 10, 152

#: landmarks on the skull that speech and expression hardly move: symmetric pairs (the image's left and right), then the
#: midline. Not included: the brows with the forehead above and between them, the hairline (often hidden under hair),
#: lips, jaw, eyelids and the soft cheeks.
RIGID_PAIRS = np.array([
    # sides of the forehead, temples, contour of the face in front of the ears
    (54, 284), (21, 251), (162, 389), (127, 356), (234, 454), (139, 368), (34, 264), (227, 447), (143, 372),
    # cheekbones
    (116, 345), (123, 352), (117, 346), (137, 366),
    # eye corners, where the lids are attached to the bone
    (33, 263), (133, 362), (130, 359),
    # sides of the nose
    (122, 351), (196, 419), (188, 412), (245, 465), (3, 248), (174, 399), (236, 456), (51, 281),
    (45, 275), (198, 420), (131, 360), (134, 363), (217, 437), (114, 343), (128, 357),
])
RIGID_MIDDLE = np.array([168, 6, 197, 195, 5, 4, 1])
RIGID = np.concatenate([RIGID_PAIRS.ravel(), RIGID_MIDDLE])

#: contour of the jaw from ear to ear (the image's left to its right)
JAW = np.array([127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323,
                454, 356])
#: outer contour of the lips; `regions.PARTS` has all 40 landmarks of them
LIPS = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185])
#: contour of the face
OVAL = np.array([10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148,
                 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109])

#: each eye: outer and inner corner, then pairs of upper and lower lid
EYES = (((33, 133), ((159, 145), (158, 153), (160, 144))), ((263, 362), ((386, 374), (385, 380), (387, 373))))
EYE_REGION = np.array([33, 133, 159, 145, 263, 362, 386, 374, 160, 144, 158, 153, 387, 373, 385, 380])

#: height of a closed eye in the tracker's landmarks, relative to the open eye; used if a clip has no blink
CLOSED_SHARE = 0.35
#: a clip has a blink if the eye height falls below this fraction of the open eye's
BLINK_SHARE = 0.6
LIP_MARGIN, EYE_MARGIN = 0.25, 0.35


def _distance(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(points[:, a] - points[:, b], axis=-1)


def eye_opening(landmarks: np.ndarray) -> np.ndarray:
    """Lid gap over eye width, mean of both eyes, measured in 3D so that head rotation does not change it.

    Args:
        landmarks: [N, 478, 3] px, z in the same scale.

    Returns:
        [N] float32, about 0.3 for open and 0.1 for closed eyes.
    """
    ratios = []
    for (outer, inner), lids in EYES:
        gap = np.mean([_distance(landmarks, a, b) for a, b in lids], axis=0)
        ratios.append(gap / np.maximum(_distance(landmarks, outer, inner), 1e-6))
    return np.mean(ratios, axis=0).astype(np.float32)


def blink_curve(landmarks: np.ndarray, found: np.ndarray) -> np.ndarray:
    """How far the eyes are closed, normalised to the clip's own open and closed eyes.

    Args:
        landmarks: [N, 478, 3] px.
        found: [N] bool, frames with a face; only these set the scale.

    Returns:
        [N] float32, 0 open ... 1 closed.
    """
    opening = eye_opening(landmarks)
    seen = opening[found] if found.any() else opening
    wide = float(np.percentile(seen, 80))
    shut = float(seen.min())
    # without a blink, the smallest opening is a squint, which must not count as closed
    if shut > BLINK_SHARE * wide:
        shut = CLOSED_SHARE * wide
    return np.clip((wide - opening) / max(wide - shut, 1e-6), 0, 1).astype(np.float32)


def rectangles(landmarks: np.ndarray, indices: np.ndarray, margin: float, size: int) -> np.ndarray:
    """Boxes around some landmarks in every frame, with a margin, clipped to the image.

    Args:
        landmarks: [N, 478, 3] px.
        indices: which landmarks.
        margin: added on each side, as a fraction of the box's width.
        size: side of the image in px.

    Returns:
        [N, 4] int32: x0, y0, x1, y1 px, end exclusive, at least 4 px wide and high.
    """
    points = landmarks[:, indices, :2]
    low, high = points.min(axis=1), points.max(axis=1)
    extra = margin * (high[:, :1] - low[:, :1])
    low, high = np.floor(low - extra), np.ceil(high + extra)
    low = np.clip(low, 0, size - 4)
    high = np.clip(np.maximum(high, low + 4), 4, size)
    return np.concatenate([low, high], axis=1).astype(np.int32)


def fill_gaps(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Values of frames without a face, interpolated linearly in time (held at both ends).

    Args:
        values: [N, ...] float.
        found: [N] bool, at least one True.

    Returns:
        [N, ...], of the dtype of `values`.
    """
    if found.all():
        return values
    known = np.flatnonzero(found)
    times = np.arange(len(values))
    right = np.clip(np.searchsorted(known, times), 0, len(known) - 1)
    left = np.clip(np.searchsorted(known, times, side="right") - 1, 0, len(known) - 1)
    a, b = known[left], known[right]
    weight = np.where(b > a, (times - a) / np.maximum(b - a, 1), 0.0).reshape((-1,) + (1,) * (values.ndim - 1))
    return ((1 - weight) * values[a] + weight * values[b]).astype(values.dtype)
