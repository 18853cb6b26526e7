"""The persons in view, and the one that the dataset is about."""
from __future__ import annotations

from typing import Literal, Sequence, get_args

import numpy as np

FaceChoice = Literal["largest", "left", "right", "speaking"]
FACES: tuple[FaceChoice, ...] = get_args(FaceChoice)

#: consecutive detections that a track may miss
MAX_MISSED = 10
#: common detections from which two tracks are two persons
MIN_COMMON = 3
#: `left`, `right` and `speaking` ignore persons of less than this share of the greatest prominence
MIN_PROMINENCE = 0.2


def iou(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1, ...)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def find_people(boxes: np.ndarray) -> list[np.ndarray]:
    """Track every face over the detections, and join tracks that are never visible together into one person.

    Args:
        boxes: [M, F, 5] detections (x0, y0, x1, y1, score), NaN where none.

    Returns:
        boxes [M, 4] float32 of each person, NaN where not detected; in order of prominence (size times duration).
    """
    people: list[np.ndarray] = []
    for track in sorted(_face_tracks(boxes), key=_track_weight, reverse=True):
        rows = np.array(sorted(track))
        found = np.full((len(boxes), 4), np.nan, np.float32)
        found[rows] = [track[m][:4] for m in rows]
        free = [p for p in people if (~np.isnan(p[rows, 0])).sum() < MIN_COMMON]
        same = min(free, key=lambda p: float(np.linalg.norm(_median_centre(p) - _median_centre(found))), default=None)
        if same is None:
            people.append(found)
        else:
            empty = np.isnan(same[:, 0])
            same[empty] = found[empty]
    return sorted(people, key=_prominence, reverse=True)


def _prominence(person: np.ndarray) -> float:
    """Its size, summed over the detections."""
    return float(np.nansum(np.sqrt((person[:, 2] - person[:, 0]) * (person[:, 3] - person[:, 1]))))


def _face_tracks(boxes: np.ndarray) -> list[dict[int, np.ndarray]]:
    tracks: list[dict[int, np.ndarray]] = []
    for m, faces in enumerate(boxes):
        free = [t for t in tracks if m - max(t) <= MAX_MISSED]
        for face in faces[~np.isnan(faces[:, 0])]:
            near = max(free, key=lambda t: iou(face, t[max(t)]), default=None)
            if near is not None and iou(face, near[max(near)]) > 0.1:
                near[m] = face
                free = [t for t in free if t is not near]
            else:
                tracks.append({m: face})
    return tracks


def _track_weight(track: dict[int, np.ndarray]) -> float:
    return sum(float(np.sqrt((f[2] - f[0]) * (f[3] - f[1])) * f[4]) for f in track.values())


def _median_centre(person: np.ndarray) -> np.ndarray:
    """[2] px."""
    return np.nanmedian((person[:, :2] + person[:, 2:]) / 2, axis=0)


def prominent(people: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Persons of at least `MIN_PROMINENCE`, in the same order."""
    most = max(map(_prominence, people))
    return [p for p in people if _prominence(p) >= MIN_PROMINENCE * most]


def choose_person(people: Sequence[np.ndarray], face: FaceChoice) -> np.ndarray:
    """The boxes [M, 4] of the person to use.

    Args:
        people: see `find_people`, at least one.
        face: `largest`, `left` or `right` (as the viewer sees them).
    """
    if face == "largest":
        return people[0]
    across = sorted(prominent(people), key=lambda p: float(_median_centre(p)[0]))
    return across[0 if face == "left" else -1]


def count_other_faces(boxes: np.ndarray, main: np.ndarray) -> np.ndarray:
    """Number of other faces with at least a tenth of the main one's area, also where it is out of view.

    Args:
        boxes: [M, F, 5], see `find_people`.
        main: [M, 4] boxes of the main face.

    Returns:
        [M] int.
    """
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    own = (main[:, 2] - main[:, 0]) * (main[:, 3] - main[:, 1])
    away = np.isnan(own)
    own = np.where(away, np.nanmedian(own), own)
    with np.errstate(invalid="ignore"):
        return (area >= 0.1 * own[:, None]).sum(axis=1) - ~away
