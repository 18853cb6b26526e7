"""The rendered head put back into the full frames of the video that its clip was cropped from."""
from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional

import cv2
import numpy as np

from ..core.errors import DatasetError, InputError
from ..core.files import shortened
from ..core.reading import digest
from ..data.dataset import Dataset
from ..media.video_reader import read_frames

SOURCE = "source"       # as a background
FEATHER = 1 / 12        # of the crop's side: the width of the seam, less than the margins around the face
_CACHE_BYTES = 2 ** 28  # of decoded frames: how many are decoded at a time where the clip is played backwards
_CACHE_FRAMES = 250     # at most

AGAIN = "Prepare the clip again into a fresh folder, and train with that."


@dataclass(frozen=True)
class PasteBack:
    """Where the frames of a dataset come from.

    Attributes:
        video: the source.
        first: number on its 25 fps timeline of the dataset's frame 0.
        shape: height and width of its frames as displayed, px.
        crop: x0, y0 and side of the square in them, px.
    """

    video: Path
    first: int
    shape: tuple[int, int]
    crop: tuple[int, int, int]

    def frames(self, squares: Iterable[np.ndarray], ids: Iterable[int]) -> Iterator[np.ndarray]:
        """Put rendered squares into the frames of the source, blended over `FEATHER` along the crop's border.

        Args:
            squares: [S, S, 3] uint8 RGB each; resized to the crop's side.
            ids: the dataset's frame that each was rendered for, in any order.

        Yields:
            [H, W, 3] uint8 RGB; outside the crop, and along its border, the source's own pixels.

        Raises:
            InputError: the source cannot be read, or has no such frame.
        """
        x0, y0, side = self.crop
        weight = feathered(self.crop, self.shape)
        with closing(SourceFrames(self.video, self.first, self.shape)) as source:
            for square, i in zip(squares, ids):
                frame = source[int(i)].copy()
                if len(square) != side:
                    how = cv2.INTER_AREA if len(square) > side else cv2.INTER_CUBIC
                    square = cv2.resize(square, (side, side), interpolation=how)
                part = frame[y0:y0 + side, x0:x0 + side]
                part[:] = np.rint(part + weight * (square.astype(np.float32) - part)).astype(np.uint8)
                yield frame


def feathered(crop: tuple[int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """Weight of the rendering in the crop, [side, side, 1] float32: 1 inside, falling smoothly to 0 at its border;
    1 also at a border that is the source frame's own, where there is nothing to blend with.

    Args:
        crop: x0, y0, side, px.
        shape: height and width of the frame, px.
    """
    x0, y0, side = crop
    width = max(1.0, side * FEATHER)
    inside = (np.arange(side) + 0.5) / width  # distance from a border, in widths of the seam

    def ramp(before: bool, after: bool) -> np.ndarray:
        distance = np.minimum(inside if before else np.inf, inside[::-1] if after else np.inf)
        x = np.clip(np.broadcast_to(distance, side), 0, 1)
        return np.asarray(x * x * (3 - 2 * x), np.float32)

    across, down = ramp(x0 > 0, x0 + side < shape[1]), ramp(y0 > 0, y0 + side < shape[0])
    return (down[:, None] * across)[..., None]


class SourceFrames:
    """Frames of a video by their number, decoded where they are needed.

    Playing forwards, each frame is decoded once. Playing backwards, as many as fit into the cache are decoded at a
    time, from the key frame before them.

    Args:
        video: the file.
        first: number on its 25 fps timeline of frame 0 here.
        shape: height and width of its frames, px.
    """

    def __init__(self, video: Path, first: int, shape: tuple[int, int]):
        self._video, self._first, self._shape = video, first, shape
        self._room = int(np.clip(_CACHE_BYTES // (3 * shape[0] * shape[1]), 2, _CACHE_FRAMES))
        self._cache: dict[int, np.ndarray] = {}  # in the order in which they were decoded
        self._images: Any = None  # the generator of `read_frames`
        self._next = 0  # number of the frame that `_images` yields next

    def __getitem__(self, i: int) -> np.ndarray:
        """Frame i, [H, W, 3] uint8 RGB. Read only.

        Raises:
            InputError: it cannot be read.
        """
        if i not in self._cache:
            backwards = self._images is not None and i < self._next
            if self._images is None or not self._next <= i < self._next + self._room:
                self._seek(max(0, i - self._room + 1) if backwards else i)
            while self._next <= i:
                self._decode()
        return self._cache[i]

    def close(self) -> None:
        """Close the file."""
        if self._images is not None:
            self._images.close()
            self._images = None

    def _seek(self, i: int) -> None:
        self.close()
        self._images, self._next = read_frames(self._video, start=self._first + i), i

    def _decode(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # preparation has reported what is damaged
            image = next(self._images, None)
        if image is None or image.shape[:2] != self._shape:
            found = "none" if image is None else f"one of {image.shape[1]}x{image.shape[0]} px"
            raise InputError(f"frame {self._first + self._next} of '{shortened(self._video)}', "
                             f"{self._shape[1]}x{self._shape[0]} px", found, "Restore the video that was prepared.")
        while len(self._cache) >= self._room:
            del self._cache[next(iter(self._cache))]
        self._cache[self._next] = image
        self._next += 1


def paste_back(ds: Dataset, source: Optional[str | Path] = None) -> PasteBack:
    """Find the video that a dataset was prepared from, and the place of its crop.

    Args:
        ds: the dataset.
        source: the video; default: where it was when the clip was prepared.

    Raises:
        InputError: it is not there, or it is another one.
        DatasetError: the dataset does not say where its frames come from.
    """
    report, crop = ds.report, ds.meta["crop"]
    origin, account = report.get("source"), report.get("account")
    origin, account = (value if isinstance(value, dict) else {} for value in (origin, account))
    shape: Any = origin.get("height"), origin.get("width")
    used: Any = account.get("used")
    wanted = ds.meta.get("settings", {}).get("video")
    if not (_counts(shape) and _counts(used) and used[1] - used[0] == len(ds) and isinstance(wanted, str)
            and crop[2] > 0 and all(0 <= at <= side - crop[2] for at, side in zip(crop[1::-1], shape))):
        raise DatasetError(f"a dataset that says where in which video its frames are, for background='{SOURCE}'",
                           f"none of it in the report of '{shortened(ds.root)}'", AGAIN)
    video = Path(origin["path"]) if source is None and isinstance(origin.get("path"), str) else source
    if video is None:  # prepared before reports had it
        raise InputError(f"source=, the video that '{shortened(ds.root)}' was prepared from, '{ds.source}'", "none",
                         "Give its path, with --source.")
    try:
        there = digest(video) if Path(video).is_file() else None  # not of a pipe, which would wait for ever
    except (OSError, ValueError):
        there = None
    if there is None:
        raise InputError(f"the video that '{shortened(ds.root)}' was prepared from at '{shortened(video)}'",
                         "no file that can be read", "Give its path now as source=, or --source.")
    if there != wanted:
        raise InputError(f"the video that '{shortened(ds.root)}' was prepared from, unchanged",
                         f"another or a changed one at '{shortened(video)}'",
                         "Restore it, or give the path of the same file as source=, or --source.")
    return PasteBack(Path(video).absolute(), used[0], shape, (crop[0], crop[1], crop[2]))


def _counts(values: object) -> bool:
    """Whether this is a pair of whole numbers from 0 on."""
    return (isinstance(values, (list, tuple)) and len(values) == 2
            and all(type(value) is int and 0 <= value < 10 ** 9 for value in values))
