"""What a video shows: the rendered square or the full frame of the source, or a window of either."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

import numpy as np

from ..core.errors import InputError
from ..core.reading import shown
from ..data.dataset import Dataset
from ..face.landmarks import OVAL
from .motion import Poses
from .paste_back import SOURCE, PasteBack, paste_back

MIN_SIDE = 32  # px, of a window


@dataclass(frozen=True)
class Window:
    """A rectangle of every frame, px."""

    x0: int
    y0: int
    width: int
    height: int


@dataclass(frozen=True)
class Framing:
    """How rendered squares become the frames of a video.

    Attributes:
        size: of the squares, px.
        paste: puts them back into the frames of the source; None: they are the frames.
        window: the part of these frames that is shown; None: all of it.
    """

    size: int
    paste: Optional[PasteBack] = None
    window: Optional[Window] = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the video, px."""
        if self.window is not None:
            return self.window.height, self.window.width
        return self.paste.shape if self.paste is not None else (self.size, self.size)

    def frames(self, squares: Iterator[np.ndarray], source: Optional[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames of the video.

        Args:
            squares: [S, S, C] uint8 each.
            source: [F] int, see `Script.source`; needed to put them back.

        Yields:
            [H, W, C] uint8, arrays of their own.
        """
        if self.paste is not None:
            assert source is not None  # of the poses `cycle`
            squares = self.paste.frames(squares, source)
        for image in squares:
            if (at := self.window) is not None:
                image = image[at.y0:at.y0 + at.height, at.x0:at.x0 + at.width].copy()
            yield image


def choose_framing(ds: Dataset, background: str | Path, poses: Poses, aspect: Optional[str] = None,
                   source: Optional[str | Path] = None) -> Framing:
    """The framing of a video.

    Args:
        ds: the clip of the head.
        background, poses, aspect, source: see `render`.

    Raises:
        InputError: an aspect that cannot be used; for the background `source` other poses than `cycle`, or not the
            video that the clip was prepared from.
        DatasetError: the dataset does not say where in the video its frames are.
    """
    pasted = isinstance(background, str) and background == SOURCE
    if source is not None and not pasted:
        raise InputError(f"background='{SOURCE}' with source=", f"background={shown(background)}",
                         "Only a head that is put back into its source video needs that video.")
    if pasted and not (isinstance(poses, str) and poses == "cycle"):
        raise InputError(f"poses='cycle' for background='{SOURCE}'",
                         f"poses={shown(poses) if isinstance(poses, (str, Path)) else type(poses).__name__}",
                         "Shoulders and room are those of the source video, so the head must move as in it.")
    ratio = None if aspect is None else _ratio(aspect)
    paste = paste_back(ds, source) if pasted else None
    if ratio is None:
        return Framing(ds.size, paste)
    shape = paste.shape if paste is not None else (ds.size, ds.size)
    return Framing(ds.size, paste, window_around(_head_centre(ds, paste), ratio, shape))


def window_around(centre: tuple[float, float], ratio: tuple[int, int], shape: tuple[int, int]) -> Window:
    """The largest window of an aspect ratio inside a frame, as near to a centre as the frame's borders allow.

    Args:
        centre: x and y, px.
        ratio: width and height, in any unit.
        shape: height and width of the frame, px.

    Returns:
        The window, of even sides (as 4:2:0 requires), which miss the ratio by less than 2 px.

    Raises:
        InputError: a side of fewer than `MIN_SIDE` px.
    """
    scale = min(shape[1] / ratio[0], shape[0] / ratio[1])
    width, height = (2 * int(part * scale / 2 + 1e-6) for part in ratio)
    if min(width, height) < MIN_SIDE:
        raise InputError(f"an aspect with sides of at least {MIN_SIDE} px in a frame of {shape[1]}x{shape[0]} px",
                         f"{ratio[0]}:{ratio[1]}, which gives {width}x{height} px", "Choose one that is less narrow.")
    x0, y0 = (int(np.clip(round(at - side / 2), 0, room - side))
              for at, side, room in zip(centre, (width, height), shape[::-1]))
    return Window(x0, y0, width, height)


def _ratio(aspect: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})", aspect) if isinstance(aspect, str) else None
    if match is None:
        raise InputError("aspect as WIDTH:HEIGHT, two whole numbers", shown(aspect), "For instance: 9:16")
    return int(match[1]), int(match[2])


def _head_centre(ds: Dataset, paste: Optional[PasteBack]) -> tuple[float, float]:
    """Mean over the clip of the centre of the face, x and y in px of the frames that are shown."""
    seen = ds.found if ds.found.any() else np.ones(len(ds), bool)
    border = ds.landmarks[seen][:, OVAL, :2]
    x, y = ((border.min(1) + border.max(1)) / 2).mean(0)
    if paste is None:
        return float(x), float(y)
    x0, y0, side = paste.crop
    return x0 + float(x) * side / ds.size, y0 + float(y) * side / ds.size
