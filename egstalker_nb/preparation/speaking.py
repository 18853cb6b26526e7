"""Which of several persons in view speaks: the one whose mouth movement correlates with the audio."""
from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from ..core.files import write_npz
from ..core.progress import Progress
from ..core.reading import ArraySpec
from ..media.rates import SAMPLES_PER_FRAME
from ..metrics.landmark_metrics import aperture
from .landmark_tracking import track_landmarks, tracking_inputs
from .offset import opening_correlation
from .parallel import WorkerPool
from .results import Result
from .scan import Scan
from .source import Source
from .steps import Step

#: frames that are analysed at most: 20 s with all persons in view
MAX_ANALYSED_FRAMES = 500
#: frames in which a face must be tracked for its mouth to be analysed
MIN_TRACKED_FRAMES = 50


def results(step: Step) -> tuple[Result]:
    """What `find_speaker` leaves."""
    return Result(step.folder / "speaker.npz", {"speaker": ArraySpec((), "i"), "follows": ArraySpec((None,))}),


def find_speaker(step: Step, source: Source, seen: Scan, people: Sequence[np.ndarray], wave: np.ndarray,
                 pool: WorkerPool) -> None:
    """Write `speaker.npz`: the index of the person who speaks, and each mouth's correlation with the audio (`follows`).

    Args:
        step: holds the result.
        source: the frames.
        seen: first pass over these frames.
        people: boxes [M, 4] of each person, see `people.find_people`.
        wave: audio of the whole video, 16 kHz.
        pool: runs one task for each person.
    """
    ids = _frames_to_analyse(seen, people)
    audio = wave[(source.first + ids.start) * SAMPLES_PER_FRAME:(source.first + ids.stop) * SAMPLES_PER_FRAME]
    others = np.full(len(seen.boxes), len(people) - 1)
    tasks = [(source, ids, *tracking_inputs(seen, person, others, ids), audio) for person in people]
    with Progress(len(ids) * len(people), "find speaker", "frame") as bar:
        correlations = np.array(pool.run(_audio_correlation, tasks, bar), np.float32)
    write_npz(step.folder / "speaker.npz", speaker=np.array(correlations.argmax()), follows=correlations)


def _frames_to_analyse(seen: Scan, people: Sequence[np.ndarray]) -> range:
    """At most `MAX_ANALYSED_FRAMES` consecutive frames: those with most faces in view."""
    count = np.sum([~np.isnan(person[seen.rows, 0]) for person in people], axis=0)
    length = min(MAX_ANALYSED_FRAMES, seen.num_frames)
    sums = np.convolve(count, np.ones(length), "valid")
    first = int(sums.argmax())
    return range(first, first + length)


def _audio_correlation(source: Source, ids: range, boxes: np.ndarray, region: tuple[int, int, int, int], faces: int,
                       audio: np.ndarray, tick: Callable[[], None]) -> float:
    """Correlation of one mouth with its prediction from the audio, see `opening_correlation`."""
    with source.video.unchanged():
        landmarks, found = track_landmarks(source, ids, boxes, region, faces, tick)
    if found.sum() < MIN_TRACKED_FRAMES:
        return 0.0
    # audio and mouth are both left out of frames without the face
    frames = np.pad(audio, (0, len(ids) * SAMPLES_PER_FRAME - len(audio))).reshape(len(ids), SAMPLES_PER_FRAME)
    return opening_correlation(frames[found].ravel(), aperture(landmarks[found]))
