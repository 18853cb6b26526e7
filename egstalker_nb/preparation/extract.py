"""The third pass over a video: cropped frames, their masks, and the sums that the clean background is made of."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Callable, Iterator, Optional

import cv2
import numpy as np

from ..core.files import write_npz
from ..core.progress import Progress
from ..core.reading import ArraySpec
from ..face.nets import QuietNet, require_mediapipe
from ..media.image_io import read_rgb, write_jpeg, write_png
from ..media.video_color import ALPHA_BACKGROUND, composite
from . import masks
from .crop import Crop, crop_frame
from .landmark_tracking import reference_frames
from .parallel import WorkerPool
from .plate import PlateSum, image_paths, sums_spec
from .results import Result
from .source import Source
from .steps import Step, WriterThreads, chunks, missing_chunks

#: input side of the person segmentation, px
SEGMENTATION_SIDE = 256

#: number of a frame, its cropped image and its person mask
_Segmented = tuple[int, np.ndarray, np.ndarray]


def learn_colours(tracked: Step, num_frames: int, crop: Crop, size: int, points: np.ndarray, pool: WorkerPool
                  ) -> masks.ColourModel:
    """Colours of hair, skin and clothes, from the reference frames that tracking kept; arguments as for `extract`."""
    tasks = [(path, crop, size, points[i]) for i, path in reference_frames(tracked, num_frames)]
    with Progress(len(tasks), "learn colours", "frame") as bar:
        return masks.ColourModel(pool.run(_reference_regions, tasks, bar))


def _reference_regions(path: Path, crop: Crop, size: int, points: np.ndarray, tick: Callable[[], None]
                       ) -> tuple[np.ndarray, ...]:
    image = crop_frame(read_rgb(path), crop, size)
    tick()
    return masks.confident_regions(image, segment_person(image).astype(np.float32) / 255, points)


def extract(step: Step, source: Source, root: Path, crop: Crop, size: int, points: np.ndarray,
            colours: masks.ColourModel, pool: WorkerPool) -> None:
    """Write `frames/` and `masks/`, and for each chunk the shares of head, torso and background and the plate's sums.

    Args:
        step: holds the partial results.
        source: the frames.
        root: the dataset folder.
        crop: the square in source px.
        size: S.
        points: [N, 478, 2] landmarks, px of the cropped frames.
        colours: of the clip.
        pool: runs the chunks.
    """
    todo = missing_chunks(step, source.num_frames)
    tasks = [(step.chunk(number), source, ids, root, crop, size, points[ids.start:ids.stop], colours)
             for number, ids in todo]
    done = source.num_frames - sum(len(ids) for _, ids in todo)
    with Progress(source.num_frames, "crop frames, segment head and torso", "frame", initial=done) as bar:
        pool.run(extract_chunk, tasks, bar)


def results(step: Step, num_frames: int, root: Path, size: int) -> Iterator[Result]:
    """What `extract` leaves; arguments as for `extract`."""
    for number, ids in enumerate(chunks(num_frames)):
        yield Result(step.chunk(number), {"shares": ArraySpec((len(ids), 3)), **sums_spec(size)},
                     tuple(path for i in ids for path in image_paths(root, i)))


def extract_chunk(path: Path, source: Source, ids: range, root: Path, crop: Crop, size: int, points: np.ndarray,
                  colours: masks.ColourModel, tick: Callable[[], None]) -> None:
    """One chunk of `extract`: its images first, then the file that marks it as done."""
    plate, lock = PlateSum(size), Lock()
    shares = np.zeros((len(ids), 3), np.float32)

    def segment_and_write(i: int, image: np.ndarray, person: np.ndarray) -> None:
        row = i - ids.start
        mask = masks.segment(image, person, points[row], colours, exact=source.alpha)
        frame_path, mask_path = image_paths(root, i)
        write_jpeg(frame_path, image)
        write_png(mask_path, mask)
        shares[row] = mask.mean(axis=(0, 1)) / 255
        with lock:
            plate.add(image, mask)

    with source.video.unchanged(), WriterThreads() as writers:
        for i, image, person in _segmented_frames(source, ids, crop, size):
            writers.submit(segment_and_write, i, image, person)
            tick()
        writers.finish()
    write_npz(path, shares=shares, **plate.sums())


def _segmented_frames(source: Source, ids: range, crop: Crop, size: int
                      ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number, cropped image and person mask of each frame.

    Yields:
        the frame's number; image, [S, S, 3] uint8; mask, float32 0..1: [S, S] where the video has alpha, else
        [256, 256], smoothed over the neighbouring frames (1, 2, 1), also across the borders of the chunk.
    """
    if source.alpha:
        for i, image in zip(ids, source.frames(ids.start, ids.stop, alpha=True)):
            person = crop_frame(image[..., 3], crop, size).astype(np.float32) / 255
            yield i, crop_frame(composite(image, ALPHA_BACKGROUND), crop, size), person
        return
    before: Optional[_Segmented] = None
    now: Optional[_Segmented] = None
    first, last = max(ids.start - 1, 0), min(ids.stop + 1, source.num_frames)
    for i, image in zip(range(first, last), source.frames(first, last)):
        image = crop_frame(image, crop, size)
        after = i, image, segment_person(image)
        if now is not None and now[0] in ids:
            yield now[0], now[1], _smoothed(before or now, now, after)
        before, now = now, after
    if now is not None and now[0] in ids:  # the source's last frame
        yield now[0], now[1], _smoothed(before or now, now, now)


def _smoothed(*neighbours: _Segmented) -> np.ndarray:
    before, now, after = (person.astype(np.float32) for _, _, person in neighbours)
    return (before + 2 * now + after) / (4 * 255)


def segment_person(image: np.ndarray) -> np.ndarray:
    """Confidence of each pixel to be a person: [S, S, 3] uint8 RGB -> [256, 256] uint8."""
    larger = image.shape[0] >= SEGMENTATION_SIDE
    small = cv2.resize(image, (SEGMENTATION_SIDE, SEGMENTATION_SIDE),
                       interpolation=cv2.INTER_AREA if larger else cv2.INTER_CUBIC)
    mask = _segmentation_net().process(small).segmentation_mask
    return np.clip(mask * 255 + 0.5, 0, 255).astype(np.uint8)


@lru_cache(1)
def _segmentation_net() -> QuietNet:
    """One for each process; it keeps no state between images."""
    return QuietNet(require_mediapipe().solutions.selfie_segmentation.SelfieSegmentation, model_selection=0)
