"""The third pass over a video: square frames, their masks, and what is seen of the background behind the person."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Callable, Iterator

import cv2
import numpy as np

from ..core.progress import Progress
from ..face.nets import QuietNet, require_mediapipe
from ..media.image_io import read_rgb, write_jpeg, write_png
from ..media.video_color import ALPHA_BACKGROUND, composite
from . import masks
from .crop import Crop, cut
from .parallel import Crew
from .plate import PlateSum
from .source import Source
from .steps import Step, Writers, missing_chunks, write_npz
from .track import samples

#: side that the person segmentation works at, px
PERSON_SIDE = 256


def learn_colours(tracked: Step, num_frames: int, crop: Crop, size: int, points: np.ndarray, crew: Crew
                  ) -> masks.Colours:
    """The colours of hair, skin and clothes, from the frames that tracking has kept; `points` as for `extract`."""
    tasks = [(path, crop, size, points[i]) for i, path in samples(tracked, num_frames)]
    with Progress(len(tasks), "learn colours", "frame") as bar:
        return masks.Colours(crew.run(_sample, tasks, bar))


def _sample(path: Path, crop: Crop, size: int, points: np.ndarray, tick: Callable[[], None]) -> tuple[np.ndarray, ...]:
    image = cut(read_rgb(path), crop, size)
    tick()
    return masks.surely(image, find_person(image).astype(np.float32) / 255, points)


def extract(step: Step, source: Source, root: Path, crop: Crop, size: int, points: np.ndarray,
            colours: masks.Colours, crew: Crew) -> None:
    """Write `frames/` and `masks/`, and per chunk the mean share of head, torso and background and the plate's sums.

    Args:
        step: where partial work is kept. root: the dataset folder. crop: the square in source px. size: S.
        points: [N, 478, 2] px of the square frames. colours: of the clip.
    """
    todo = missing_chunks(step, source.num_frames)
    tasks = [(step.chunk(number), source, ids, root, crop, size, points[ids.start:ids.stop], colours)
             for number, ids in todo]
    done = source.num_frames - sum(len(ids) for _, ids in todo)
    with Progress(source.num_frames, "cut frames, mask head and torso", "frame", initial=done) as bar:
        crew.run(extract_chunk, tasks, bar)


def extract_chunk(path: Path, source: Source, ids: range, root: Path, crop: Crop, size: int, points: np.ndarray,
                  colours: masks.Colours, tick: Callable[[], None]) -> None:
    """One chunk of `extract`: its pictures first, then the file that says that it is done."""
    plate, guard = PlateSum(size), Lock()
    shares = np.zeros((len(ids), 3), np.float32)

    def work(i: int, image: np.ndarray, person: np.ndarray) -> None:
        row = i - ids.start
        mask = masks.split(image, person, points[row], colours, exact=source.alpha)
        write_jpeg(root / "frames" / f"{i:06d}.jpg", image)
        write_png(root / "masks" / f"{i:06d}.png", mask)
        shares[row] = mask.mean(axis=(0, 1)) / 255
        with guard:
            plate.add(image, mask)

    with Writers() as writers:
        for i, image, person in _people(source, ids, crop, size):
            writers.submit(work, i, image, person)
            tick()
        writers.finish()
    write_npz(path, shares=shares, **plate.sums())


def _people(source: Source, ids: range, crop: Crop, size: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number, square frame [S, S, 3] uint8 and person mask of each frame, float32 0..1: [S, S] where the video has
    alpha, else [256, 256], averaged with its neighbours in time (1, 2, 1), also across the chunk's edges."""
    if source.alpha:
        for i, image in zip(ids, source.frames(ids.start, ids.stop, alpha=True)):
            person = cut(image[..., 3], crop, size).astype(np.float32) / 255
            yield i, cut(composite(image, ALPHA_BACKGROUND), crop, size), person
        return
    before = now = None
    first, last = max(ids.start - 1, 0), min(ids.stop + 1, source.num_frames)
    for i, image in zip(range(first, last), source.frames(first, last)):
        image = cut(image, crop, size)
        after = i, image, find_person(image)
        if now is not None and now[0] in ids:
            yield *now[:2], _steady(before or now, now, after)
        before, now = now, after
    if now[0] in ids:  # the source's last frame
        yield *now[:2], _steady(before or now, now, now)


def _steady(*near: tuple[int, np.ndarray, np.ndarray]) -> np.ndarray:
    before, now, after = (person.astype(np.float32) for _, _, person in near)
    return (before + 2 * now + after) / (4 * 255)


def find_person(image: np.ndarray) -> np.ndarray:
    """How surely each pixel is person: [S, S, 3] uint8 RGB -> [256, 256] uint8."""
    larger = image.shape[0] >= PERSON_SIDE
    small = cv2.resize(image, (PERSON_SIDE, PERSON_SIDE),
                       interpolation=cv2.INTER_AREA if larger else cv2.INTER_CUBIC)
    mask = _person_net().process(small).segmentation_mask
    return np.clip(mask * 255 + 0.5, 0, 255).astype(np.uint8)


@lru_cache(1)
def _person_net() -> QuietNet:
    """One for each process; it looks at every picture by itself."""
    return QuietNet(require_mediapipe().solutions.selfie_segmentation.SelfieSegmentation, model_selection=0)
