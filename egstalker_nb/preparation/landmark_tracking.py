"""The second pass over a video: the 478 landmarks of one face in every frame."""
from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Callable, Iterator, Mapping

import numpy as np

from ..core.files import write_npz
from ..core.progress import Progress
from ..core.reading import ArraySpec
from ..face.landmarks import NUM_LANDMARKS, fill_gaps
from ..face.tracker import WARM_UP, FaceTracker, Roi
from ..media.image_io import write_jpeg
from .parallel import WorkerPool
from .results import Result
from .scan import Scan
from .source import Source
from .steps import Step, chunks, missing_chunks

#: source frames that are kept, to learn the colours of hair, skin and clothes from them
NUM_REFERENCE_FRAMES = 24


def track_face(step: Step, source: Source, seen: Scan, main: np.ndarray, others: np.ndarray, pool: WorkerPool) -> None:
    """Landmarks of one face in source px, in chunks at whose start the tracker is reset.

    Each chunk holds landmarks [n, 478, 3] float32 (z in the same scale) and found [n] bool. Some frames are kept as
    JPEG, see `reference_frames`.

    Args:
        step: holds the partial results.
        source: the frames.
        seen: first pass over these frames.
        main: [M, 4] boxes of the face, see `people.choose_person`.
        others: [M] number of other faces.
        pool: runs the chunks.
    """
    todo, kept = missing_chunks(step, source.num_frames), dict(reference_frames(step, source.num_frames))
    tasks = [(step.chunk(number), source, ids, *tracking_inputs(seen, main, others, ids),
              {i: path for i, path in kept.items() if i in ids}) for number, ids in todo]
    done = source.num_frames - sum(len(ids) for _, ids in todo)
    with Progress(source.num_frames, "track face", "frame", initial=done) as bar:
        pool.run(track_chunk, tasks, bar)


def results(step: Step, num_frames: int) -> Iterator[Result]:
    """What `track_face` leaves; the landmarks are finite."""
    kept = dict(reference_frames(step, num_frames))
    for number, ids in enumerate(chunks(num_frames)):
        arrays = {"landmarks": ArraySpec((len(ids), NUM_LANDMARKS, 3)), "found": ArraySpec((len(ids),), "b")}
        yield Result(step.chunk(number), arrays, tuple(path for i, path in kept.items() if i in ids))


def track_chunk(path: Path, source: Source, ids: range, boxes: np.ndarray, region: Roi, faces: int,
                keep: dict[int, Path], tick: Callable[[], None]) -> None:
    """Track one chunk and write it, see `track_landmarks`."""
    with source.video.unchanged():
        landmarks, found = track_landmarks(source, ids, boxes, region, faces, tick, keep)
    write_npz(path, landmarks=landmarks, found=found)


def track_landmarks(source: Source, ids: range, boxes: np.ndarray, region: Roi, faces: int,
                    tick: Callable[[], None], keep: Mapping[int, Path] = MappingProxyType({})
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of one face in some frames.

    Args:
        source: the frames.
        ids: frame numbers.
        boxes: [n, 4] of the face in these frames, and before them in up to `WARM_UP` frames for the tracker to warm
            up on.
        region: part of the frame in which the tracker searches.
        faces: number of faces that may be in it.
        tick: called for each frame.
        keep: numbers of frames to save as JPEG, and their paths.

    Returns:
        landmarks [n, 478, 3] float32 source px, z in the same scale, and found [n] bool.
    """
    start = max(ids.start - WARM_UP, 0)
    landmarks = np.zeros((len(ids), NUM_LANDMARKS, 3), np.float32)
    found = np.zeros(len(ids), bool)
    mesh = FaceTracker(faces=faces)
    for i, image, box in zip(range(start, ids.stop), source.frames(start, ids.stop), boxes):
        # the first frame has none before it: the tracker warms up on the frame itself
        for _ in range(WARM_UP if i == 0 else 0):
            mesh(image, region, box)
        points = mesh(image, region, box)
        if i < ids.start:
            continue
        if points is not None and np.isfinite(points).all():
            landmarks[i - ids.start], found[i - ids.start] = points, True
        if i in keep:
            write_jpeg(keep[i], image)
        tick()
    mesh.close()
    return landmarks, found


def reference_frame_ids(num_frames: int) -> list[int]:
    """Frame numbers, evenly spaced over the clip."""
    return np.unique(np.linspace(0, num_frames - 1, NUM_REFERENCE_FRAMES).astype(int)).tolist()


def reference_frames(step: Step, num_frames: int) -> Iterator[tuple[int, Path]]:
    """Number and file of the source frames that `track_face` kept."""
    for i in reference_frame_ids(num_frames):
        yield i, step.folder / f"{i:06d}.jpg"


def tracking_inputs(seen: Scan, main: np.ndarray, others: np.ndarray, ids: range) -> tuple[np.ndarray, Roi, int]:
    """Boxes, region and number of faces for `track_landmarks`, in frames `ids`."""
    rows = np.unique(seen.rows[ids.start:ids.stop])
    alone = not others[rows].any()
    # with others in view, the tracker searches at the last known position: elsewhere it would find another person
    boxes = main if alone else fill_gaps(np.nan_to_num(main), ~np.isnan(main[:, 0]))
    return (boxes[seen.rows[max(ids.start - WARM_UP, 0):ids.stop]], _region(main[rows], (seen.width, seen.height)),
            1 if alone else 2)


def _region(main: np.ndarray, size: tuple[int, int]) -> Roi:
    """The part of the source frames that the landmark network sees during a chunk."""
    width, height = size
    main = main[~np.isnan(main[:, 0])]
    if len(main) == 0:
        return 0, 0, width, height
    low, high = main[:, :2].min(axis=0), main[:, 2:].max(axis=0)
    reach = float((main[:, 2:] - main[:, :2]).max())
    x0, y0 = np.maximum(np.floor(low - reach), 0).astype(int)
    x1, y1 = np.ceil(high + reach).astype(int)
    return int(x0), int(y0), min(int(x1), width), min(int(y1), height)
