"""Which of several people speaks: the one whose mouth moves with the sound."""
from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from ..core.progress import Progress
from ..face.landmarks import CHIN, LIPS
from ..media.rates import SAMPLES_PER_FRAME
from ..metrics.landmark_metrics import aperture
from .masks import face_axes
from .offset import audio_offset
from .parallel import Crew
from .scan import Scan
from .source import Source
from .steps import Step, write_npz
from .track import looked_at, track_landmarks

#: frames that are looked at, at most: 20 s in which all of them are in view
LOOKED_AT = 500
#: frames in which a face must be tracked for its mouth to be judged
MIN_TRACKED = 50


def find_speaker(step: Step, source: Source, seen: Scan, people: Sequence[np.ndarray], wave: np.ndarray,
                 crew: Crew) -> None:
    """Write which of them speaks (`speaker.npz`: its number, and how well each mouth follows the sound).

    Args:
        people: boxes [M, 4] of each, see `people.find_people`. wave: the sound of the whole video, 16 kHz.
    """
    ids = _all_in_view(seen, people)
    sound = wave[(source.first + ids.start) * SAMPLES_PER_FRAME:(source.first + ids.stop) * SAMPLES_PER_FRAME]
    others = np.full(len(seen.boxes), len(people) - 1)
    tasks = [(source, ids, *looked_at(seen, person, others, ids), sound) for person in people]
    with Progress(len(ids) * len(people), "who speaks", "frame") as bar:
        follows = np.float32(crew.run(_follows, tasks, bar))
    write_npz(step.folder / "speaker.npz", speaker=np.int64(follows.argmax()), follows=follows)


def _all_in_view(seen: Scan, people: Sequence[np.ndarray]) -> range:
    """The stretch of at most `LOOKED_AT` frames that shows most of them most of the time."""
    count = np.sum([~np.isnan(person[seen.at, 0]) for person in people], axis=0)
    length = min(LOOKED_AT, seen.num_frames)
    sums = np.convolve(count, np.ones(length), "valid")
    first = int(sums.argmax())
    return range(first, first + length)


def _follows(source: Source, ids: range, boxes: np.ndarray, region: tuple[int, int, int, int], faces: int,
             sound: np.ndarray, tick: Callable[[], None]) -> float:
    """How well one mouth follows the sound: correlation with what phones predict of it, frames left out."""
    landmarks, found = track_landmarks(source, ids, boxes, region, faces, tick)
    if found.sum() < MIN_TRACKED:
        return 0.0
    # where the face is not seen, sound and mouth are both left out
    frames = np.pad(sound, (0, len(ids) * SAMPLES_PER_FRAME - len(sound))).reshape(len(ids), SAMPLES_PER_FRAME)
    return audio_offset(frames[found].ravel(), mouth_shapes(landmarks[found]), aperture(landmarks[found]))[1]


def mouth_shapes(landmarks: np.ndarray) -> np.ndarray:
    """Lips and chin against the middle of the lips, in heights of the face and along its axes.

    Args:
        landmarks: [N, 478, 3] px.

    Returns:
        [N, 2 * (len(LIPS) + 1)] float64.
    """
    shapes = []
    for points in landmarks[..., :2].astype(np.float64):
        right, down, height = face_axes(points)
        part = points[[*LIPS, CHIN]] - points[LIPS].mean(axis=0)
        shapes.append(np.concatenate([part @ right, part @ down]) / height)
    return np.array(shapes)
