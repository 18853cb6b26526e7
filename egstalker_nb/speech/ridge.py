"""Ridge regression, and its leave-block-out predictions."""
from __future__ import annotations

import numpy as np

BLOCK, GAP = 8, 4  # frames: predicted together, and also left out on either side of the block


def weights(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Fit a linear map.

    Args:
        x: [N, K] float64 inputs of unit variance.
        y: [N, M] float64 targets.
        penalty: ridge penalty per frame.

    Returns:
        [K, M] float64.
    """
    return _solved(x.T @ x, x.T @ y, penalty * len(x))


def leave_block_out(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Leave-block-out predictions of `y`, each fitted without the frame's block and its surroundings.

    Neighbouring frames are similar, so they are left out together. The products over all frames are computed once and
    the block's subtracted, so that time grows linearly with the number of frames.

    Args:
        x, y, penalty: see `weights`.

    Returns:
        [N, M] float64; 0 where no other frames are left.
    """
    gram, moment, predicted = x.T @ x, x.T @ y, np.zeros_like(y)
    for begin in range(0, len(x), BLOCK):
        near = slice(max(0, begin - GAP), begin + BLOCK + GAP)
        a, b = x[near], y[near]
        if len(a) < len(x):
            fitted = _solved(gram - a.T @ a, moment - a.T @ b, penalty * (len(x) - len(a)))
            predicted[begin:begin + BLOCK] = x[begin:begin + BLOCK] @ fitted
    return predicted


def _solved(gram: np.ndarray, moment: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), moment)
