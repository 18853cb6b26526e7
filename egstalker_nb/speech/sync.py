"""How late the audio of a clip is: where the motion that a prior predicts fits the tracked motion best."""
from __future__ import annotations

import numpy as np

MAX_SHIFT = 16            # steps of 20 ms, searched in both directions
MIN_FRAMES = 20           # fewer give no correlation worth the name


def correlation_by_shift(predicted: np.ndarray, tracked: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Correlation of predicted and tracked motion for each shift of the audio.

    Args:
        predicted: [N, K] at 25 fps.
        tracked: [N, K].
        weight: [K], how much each component counts.

    Returns:
        [2 * MAX_SHIFT + 1] for -MAX_SHIFT ... MAX_SHIFT steps by which the audio is late, the weighted mean of the
        components' correlations; -1 where too few frames overlap.
    """
    count, result = len(tracked), np.full(2 * MAX_SHIFT + 1, -1.0)
    half = np.arange(2 * count - 1) / 2
    fine = np.stack([np.interp(half, np.arange(count), column) for column in predicted.T], 1)   # 20 ms apart
    for i, shift in enumerate(range(-MAX_SHIFT, MAX_SHIFT + 1)):
        at = 2 * np.arange(count) + shift
        inside = (at >= 0) & (at < len(fine))
        if inside.sum() >= MIN_FRAMES // 2:
            result[i] = weighted_correlation(fine[at[inside]], tracked[inside], weight)
    return result


def weighted_correlation(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean over the columns of [N, K] arrays of their correlations."""
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a ** 2).sum(0) * (b ** 2).sum(0))
    return float(np.average((a * b).sum(0) / np.maximum(norm, 1e-12), weights=weight))


def best_shift(predicted: np.ndarray, tracked: np.ndarray, weight: np.ndarray) -> tuple[int, float]:
    """The shift in steps at which they correlate best, and the correlation; see `correlation_by_shift`."""
    found = correlation_by_shift(predicted, tracked, weight)
    best = int(found.argmax())
    return best - MAX_SHIFT, float(found[best])


def scale_free(mouth: np.ndarray) -> np.ndarray:
    """Mouth shapes [N, D] as motion around their mean, of unit standard deviation over all numbers, float64."""
    moved = mouth.astype(np.float64) - mouth.mean(0, dtype=np.float64)
    return moved / (moved.std() + 1e-12)
