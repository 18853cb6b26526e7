"""Landmark metrics: distance, mouth and eye opening, jitter; and the correlation and lag of two curves."""
from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

from ..core.errors import InputError
from ..face.landmarks import CHIN, EYES, FOREHEAD, NUM_LANDMARKS
from ..face.regions import PARTS

_INNER_LIPS = 13, 14  # middle of the upper and the lower lip, at the mouth's opening


def landmark_distance(pred: np.ndarray, true: np.ndarray, which: Literal["mouth", "face"] = "mouth") -> float:
    """Mean distance between predicted and true landmarks (LMD), in the image plane and without alignment.

    Args:
        pred, true: [N, 478, 2 or 3] px (only x and y are used); frames with non-finite values are skipped.
        which: `mouth` (40 landmarks of the lips) or `face` (all 478).

    Returns:
        Distance in px; nan without a usable frame.

    Raises:
        InputError: unequal frame counts, other shapes, or another `which`.
    """
    pred, true = _points(pred), _points(true)
    if len(pred) != len(true) or which not in ("mouth", "face"):
        raise InputError("equally many frames and which='mouth' or 'face'", f"{len(pred)}, {len(true)} and {which!r}",
                         "Pair the frames.")
    chosen = list(PARTS["lips"]) if which == "mouth" else slice(None)
    distances = np.linalg.norm(pred[:, chosen] - true[:, chosen], axis=-1).mean(axis=1)
    distances = distances[np.isfinite(distances)]
    return float(distances.mean()) if len(distances) else float("nan")


def aperture(landmarks: np.ndarray) -> np.ndarray:
    """Mouth opening: inner lip gap (landmarks 13, 14) over face height (10, 152), in the image plane.

    Args:
        landmarks: [N, 478, 2 or 3], any unit; only x and y are used.

    Returns:
        float32 [N], 0 (closed) to about 0.3; nan for frames with non-finite landmarks or no height. Invariant to
        translation, scale and rotation of the face in the image.
    """
    points = _points(landmarks)
    return _ratio(_gap(points, _INNER_LIPS), _gap(points, (FOREHEAD, CHIN))).astype(np.float32)


def blink_ratio(landmarks: np.ndarray) -> np.ndarray:
    """Openness of the eyes: eyelid gap (mean of three pairs) over eye width, mean of both eyes.

    Args:
        landmarks: [N, 478, 2 or 3], any unit; only x and y are used.

    Returns:
        float32 [N], about 0.05 (closed) to 0.4 (wide open), not normalised per person; nan for frames with non-finite
        landmarks or no eye width.
    """
    points = _points(landmarks)
    eyes = [_ratio(np.mean([_gap(points, pair) for pair in lids], axis=0), _gap(points, corners))
            for corners, lids in EYES]
    return np.mean(eyes, axis=0).astype(np.float32)


def temporal_jitter(landmarks: np.ndarray) -> float:
    """Jitter of landmarks from frame to frame.

    The root mean square of second differences over time, divided by sqrt(6): the standard deviation, per coordinate, of
    the independent noise that would cause it. Uniform motion does not contribute, accelerated motion a little.

    Args:
        landmarks: [N, K, 2 or 3] px; only x and y are used; differences with non-finite values are skipped.

    Returns:
        Jitter in px; nan with fewer than 3 usable frames in a row.
    """
    points = np.asarray(landmarks, np.float64)[..., :2]
    second = points[2:] - 2 * points[1:-1] + points[:-2] if len(points) > 2 else np.empty(0)
    squares = np.square(second[np.isfinite(second)])
    return float(np.sqrt(squares.mean() / 6)) if squares.size else float("nan")


def correlation_and_lag(a: np.ndarray, b: np.ndarray, max_lag: int = 10) -> tuple[float, float, float]:
    """Pearson correlation of two sequences, and the shift at which it is highest.

    Args:
        a, b: [N] numbers at one frame rate; pairs with a non-finite value are skipped.
        max_lag: largest shift tried, in frames; at least half of the frames (and 3) always overlap.

    Returns:
        r at lag 0, best r, best lag in frames. The lag is positive if `a` is late: a[t + lag] corresponds to b[t]. Of
        equal correlations the smallest lag is returned. All nan if a sequence is constant or shorter than 3.

    Raises:
        InputError: unequal lengths.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError("two sequences [N] of equal length", f"{list(a.shape)} and {list(b.shape)}",
                         "Cut both to the same frames.")
    reach = max(0, min(max_lag, len(a) // 2, len(a) - 3))
    # By size, so that a larger lag is only chosen if it is better.
    lags = sorted(range(-reach, reach + 1), key=abs)
    scores = np.array([_pearson(a[max(0, lag):len(a) + min(0, lag)], b[max(0, -lag):len(b) - max(0, lag)])
                       for lag in lags])
    if np.isnan(scores).all():
        return float("nan"), float("nan"), float("nan")
    best = int(np.nanargmax(scores))
    return float(scores[0]), float(scores[best]), lags[best]


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    usable = np.isfinite(a) & np.isfinite(b)
    a, b = a[usable], b[usable]
    # Relative to its magnitude, as rounding gives a constant sequence a tiny variance.
    if len(a) < 3 or any(np.ptp(x) <= 1e-9 * np.abs(x).max() for x in (a, b)):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _points(landmarks: np.ndarray) -> np.ndarray:
    """float64 [N, 478, 2] of [N, 478, 2 or 3]."""
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1] != NUM_LANDMARKS or points.shape[2] not in (2, 3):
        raise InputError("landmarks [N, 478, 2 or 3]", str(list(points.shape)), "Give the face mesh with irises.")
    return points[..., :2]


def _gap(points: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    return np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=-1)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.where(bottom > 0, top / bottom, np.nan)
