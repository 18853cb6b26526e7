"""Means over speakers with intervals, and what is measured on a mouth."""
from __future__ import annotations

from typing import Any, Iterable, Sequence

import numpy as np

from egstalker_nb.face.expression import LOWER
from egstalker_nb.metrics.landmark_metrics import correlation_and_lag

RESAMPLES, SEED = 2000, 0
LIP_GAP, CORNERS, CHIN = (13, 14), (61, 291), 152  # MediaPipe landmarks
#: what is correlated; each in head units
MOTIONS = ("opening", "width", "jaw")


def over_speakers(values: Iterable[float], speakers: Iterable[str], digits: int = 3) -> dict[str, Any]:
    """The mean over speakers, and its 95 % interval by bootstrap over speakers.

    Args:
        values: one for each clip; clips of one speaker are averaged first, values that are not finite are left out.
        speakers: who speaks in each clip.
        digits: of the figures.

    Returns:
        mean, low and high (None without values; no interval for one speaker), and numbers of speakers and clips.
    """
    groups: dict[str, list[float]] = {}
    for value, speaker in zip(values, speakers, strict=True):
        if np.isfinite(value):
            groups.setdefault(speaker, []).append(float(value))
    means = np.array([np.mean(group) for group in groups.values()])
    counts = {"speakers": len(means), "clips": sum(map(len, groups.values()))}
    if len(means) < 2:
        return {"mean": round(float(means[0]), digits) if len(means) else None, "low": None, "high": None, **counts}
    chosen = np.random.default_rng(SEED).integers(len(means), size=(RESAMPLES, len(means)))
    low, high = np.quantile(means[chosen].mean(1), (0.025, 0.975))
    return {"mean": round(float(means.mean()), digits), "low": round(float(low), digits),
            "high": round(float(high), digits), **counts}


def motions(shapes: np.ndarray) -> np.ndarray:
    """Opening, width of the mouth and position of the chin of shapes [N, 214] (see `lower_face`): [N, 3]."""
    points = np.asarray(shapes, np.float64).reshape(len(shapes), -1, 2)

    def along(landmark: int, axis: int) -> np.ndarray:
        return points[:, LOWER.index(landmark), axis]

    return np.stack([along(LIP_GAP[1], 1) - along(LIP_GAP[0], 1), along(CORNERS[1], 0) - along(CORNERS[0], 0),
                     along(CHIN, 1)], 1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two curves at the same frames; NaN if one is constant."""
    return correlation_and_lag(a, b, 0)[0]


def row(figure: str, group: str, values: Sequence[float], speakers: Sequence[str], **more: Any) -> dict[str, Any]:
    """A row of results: what was measured, on which clips, and `over_speakers`."""
    return {"figure": figure, "group": group, **more, **over_speakers(values, speakers)}
