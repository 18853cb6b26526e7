"""Measures of landmarks: distance, mouth opening, lids, jitter; and the correlation of two curves."""

import warnings

import numpy as np

from ..core.errors import InputError
from ..face.regions import PARTS

_LIP_GAP, _FACE_HEIGHT = (13, 14), (10, 152)
# Each eye: (outer corner, inner corner) and three (upper, lower) pairs of the lids.
_EYES = (((33, 133), ((160, 144), (159, 145), (158, 153))), ((263, 362), ((387, 373), (386, 374), (385, 380))))


def landmark_distance(pred, true, which="mouth"):
    """Mean distance between predicted and true landmarks (LMD), in the image plane and without alignment.

    Args:
        pred, true: [N, 478, 2 or 3] px (only x and y count); frames with non-finite values are left out.
        which: 'mouth' (40 landmarks of the lips) or 'face' (all 478).

    Returns:
        float in px; nan without a usable frame.

    Errors: InputError for unequal frame counts, other shapes, or another `which`.
    """
    pred, true = _points(pred), _points(true)
    if len(pred) != len(true) or which not in ("mouth", "face"):
        raise InputError("equally many frames and which='mouth' or 'face'", f"{len(pred)}, {len(true)} and {which!r}",
                         "Pair the frames.")
    chosen = list(PARTS["lips"]) if which == "mouth" else slice(None)
    distances = np.linalg.norm(pred[:, chosen] - true[:, chosen], axis=-1).mean(axis=1)
    distances = distances[np.isfinite(distances)]
    return float(distances.mean()) if len(distances) else float("nan")


def aperture(landmarks):
    """Mouth opening: inner lip gap (landmarks 13, 14) over face height (10, 152), in the image plane.

    Args:
        landmarks: [N, 478, 2 or 3], any unit; only x and y count.

    Returns:
        float32 [N], 0 (closed) to about 0.3; nan for frames with non-finite landmarks or no height. Does not
        change when the face is moved, scaled or turned in the image.
    """
    points = _points(landmarks)
    return _ratio(_gap(points, _LIP_GAP), _gap(points, _FACE_HEIGHT)).astype(np.float32)


def blink_ratio(landmarks):
    """Openness of the eyes: eyelid gap (mean of three pairs) over eye width, mean of both eyes.

    Args:
        landmarks: [N, 478, 2 or 3], any unit; only x and y count.

    Returns:
        float32 [N], about 0.05 (closed) to 0.4 (wide open), not normalised to a person; nan for frames with
        non-finite landmarks or no eye width.
    """
    points = _points(landmarks)
    eyes = [_ratio(np.mean([_gap(points, pair) for pair in lids], axis=0), _gap(points, corners))
            for corners, lids in _EYES]
    return np.mean(eyes, axis=0).astype(np.float32)


def temporal_jitter(landmarks):
    """How much landmarks tremble from frame to frame.

    The root mean square of second differences over time, divided by sqrt(6): the standard deviation, for each
    coordinate, of the independent noise that would cause it. Steady motion counts nothing, fast motion a little.

    Args:
        landmarks: [N, K, 2 or 3] px; only x and y count; triples with non-finite values are left out.

    Returns:
        float in px; nan with fewer than 3 usable frames in a row.
    """
    points = np.asarray(landmarks, np.float64)[..., :2]
    second = points[2:] - 2 * points[1:-1] + points[:-2] if len(points) > 2 else np.empty(0)
    squares = np.square(second[np.isfinite(second)])
    return float(np.sqrt(squares.mean() / 6)) if squares.size else float("nan")


def correlation_and_lag(a, b, max_lag=10):
    """Pearson correlation of two sequences, and the shift at which it is highest.

    Args:
        a, b: [N] numbers at one frame rate; pairs with a non-finite value are left out.
        max_lag: largest shift tried, in frames; at least half of the frames (and 3) always overlap.

    Returns:
        (r at lag 0, best r, best lag in frames). The lag is positive when `a` is late: a[t + lag] goes with
        b[t]; of equal ones the smallest counts. nan, nan, nan where a sequence is constant or shorter than 3.

    Errors: InputError for unequal lengths.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError("two sequences [N] of equal length", f"{list(a.shape)} and {list(b.shape)}",
                         "Cut both to the same frames.")
    reach = max(0, min(max_lag, len(a) // 2, len(a) - 3))
    # By size, so that a later lag wins only by being better.
    lags = sorted(range(-reach, reach + 1), key=abs)
    scores = np.array([_pearson(a[max(0, lag):len(a) + min(0, lag)], b[max(0, -lag):len(b) - max(0, lag)])
                       for lag in lags])
    if np.isnan(scores).all():
        return float("nan"), float("nan"), float("nan")
    best = int(np.nanargmax(scores))
    return float(scores[0]), float(scores[best]), lags[best]


def _pearson(a, b):
    usable = np.isfinite(a) & np.isfinite(b)
    a, b = a[usable], b[usable]
    # Relative to its size: rounding gives a constant sequence a tiny variance.
    if len(a) < 3 or any(np.ptp(x) <= 1e-9 * np.abs(x).max() for x in (a, b)):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _points(landmarks):
    """float64 [N, 478, 2] of [N, 478, 2 or 3]."""
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1] != 478 or points.shape[2] not in (2, 3):
        raise InputError("landmarks [N, 478, 2 or 3]", str(list(points.shape)), "Give the face mesh with irises.")
    return points[..., :2]


def _gap(points, pair):
    return np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=-1)


def _ratio(top, bottom):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.where(bottom > 0, top / bottom, np.nan)
