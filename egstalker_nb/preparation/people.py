"""Who is in view, and which of them the dataset is about."""
from __future__ import annotations

from typing import Literal, Sequence

import numpy as np

from .scan import overlap

Face = Literal["largest", "left", "right", "speaking"]
FACES = ("largest", "left", "right", "speaking")

#: detections for which a face may be lost and still be the same track
LOST = 10
#: common detections from which two tracks are two people
TOGETHER = 3
#: a person of less than this share of the most prominent one's weight is not asked for by `left` and `right`
PROMINENT = 0.2


def find_people(boxes: np.ndarray) -> list[np.ndarray]:
    """Follow every face from detection to detection; tracks that are never seen together may be one person.

    Args:
        boxes: [M, F, 5] detections (x0, y0, x1, y1, score), NaN where none.

    Returns:
        for each person [M, 4] float32, NaN where not seen; the most prominent one, large for long, comes first.
    """
    people: list[np.ndarray] = []
    for track in sorted(_tracks(boxes), key=_weight, reverse=True):
        rows = np.array(sorted(track))
        found = np.full((len(boxes), 4), np.nan, np.float32)
        found[rows] = [track[m][:4] for m in rows]
        free = [p for p in people if (~np.isnan(p[rows, 0])).sum() < TOGETHER]
        same = min(free, key=lambda p: float(np.linalg.norm(_middle(p) - _middle(found))), default=None)
        if same is None:
            people.append(found)
        else:
            empty = np.isnan(same[:, 0])
            same[empty] = found[empty]
    return sorted(people, key=_prominence, reverse=True)


def _prominence(person: np.ndarray) -> float:
    """Its size summed over the time that it is in view."""
    return float(np.nansum(np.sqrt((person[:, 2] - person[:, 0]) * (person[:, 3] - person[:, 1]))))


def _tracks(boxes: np.ndarray) -> list[dict[int, np.ndarray]]:
    tracks: list[dict[int, np.ndarray]] = []
    for m, faces in enumerate(boxes):
        free = [t for t in tracks if m - max(t) <= LOST]
        for face in faces[~np.isnan(faces[:, 0])]:
            near = max(free, key=lambda t: overlap(face, t[max(t)]), default=None)
            if near is not None and overlap(face, near[max(near)]) > 0.1:
                near[m] = face
                free = [t for t in free if t is not near]
            else:
                tracks.append({m: face})
    return tracks


def _weight(track: dict[int, np.ndarray]) -> float:
    return sum(float(np.sqrt((f[2] - f[0]) * (f[3] - f[1])) * f[4]) for f in track.values())


def _middle(person: np.ndarray) -> np.ndarray:
    """Its usual place, [2] px."""
    return np.nanmedian((person[:, :2] + person[:, 2:]) / 2, axis=0)


def prominent(people: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Those of a size and time in view that could be meant, in the same order."""
    most = max(map(_prominence, people))
    return [p for p in people if _prominence(p) >= PROMINENT * most]


def choose(people: Sequence[np.ndarray], face: Face) -> np.ndarray:
    """The person that is meant: [M, 4].

    Args:
        people: see `find_people`, at least one. face: `largest`, `left` or `right` (as the viewer sees them).
    """
    if face == "largest":
        return people[0]
    across = sorted(prominent(people), key=lambda p: float(_middle(p)[0]))
    return across[0 if face == "left" else -1]


def count_others(boxes: np.ndarray, main: np.ndarray) -> np.ndarray:
    """How many further faces of at least a tenth of the main one's area there are, also where it is out of view: [M]
    int."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    own = (main[:, 2] - main[:, 0]) * (main[:, 3] - main[:, 1])
    away = np.isnan(own)
    own = np.where(away, np.nanmedian(own), own)
    with np.errstate(invalid="ignore"):
        return (area >= 0.1 * own[:, None]).sum(axis=1) - ~away
