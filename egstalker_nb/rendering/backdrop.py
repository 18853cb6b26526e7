"""What is behind head and torso in a rendered frame: the clip's plate, a colour, a picture, a video, or nothing."""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from PIL import ImageColor

from ..core.errors import InputError, first_line
from ..core.files import shortened
from ..core.reading import shown
from ..media.image_io import read_rgb
from ..media.rates import FPS
from ..media.video_reader import read_frames

CLIP, TRANSPARENT = "clip", "transparent"
VIDEOS = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")
_MAX_BYTES = 2 ** 30  # of a video's frames, which are held in memory: 54 s at 512 px


@dataclass(frozen=True)
class Backdrop:
    """What replaces the clean plate of the clip.

    Attributes:
        image: [S, S, 3] uint8 RGB, or of a video [F, S, S, 3], which is looped; None: nothing, the frames get an alpha
            channel.
    """

    image: Optional[np.ndarray]

    @property
    def transparent(self) -> bool:
        return self.image is None

    def part(self, first: int, count: int) -> Backdrop:
        """What is behind `count` frames of the output from number `first` on."""
        if self.image is None or self.image.ndim == 3:
            return self
        return Backdrop(self.image[np.arange(first, first + count) % len(self.image)])


def load_backdrop(background: str | Path, size: int) -> Optional[Backdrop]:
    """The background of a video.

    Args:
        background: `clip`, `transparent`, a colour as CSS writes it (`white`, `#00ff00`, `rgb(0, 255, 0)`), or the path
            of a JPEG, PNG or video (one of `VIDEOS`, taken at 25 fps), which is scaled to cover the frame and cropped
            around its centre.
        size: of a frame, px.

    Returns:
        The background; None for that of the clip.

    Raises:
        InputError: none of these, or a picture or video that cannot be read to its end, or a video that is too long.
    """
    if isinstance(background, str):
        if background == CLIP:
            return None
        if background == TRANSPARENT:
            return Backdrop(None)
        colour = _colour(background)
        if colour is not None:
            return Backdrop(np.full((size, size, 3), colour, np.uint8))
    if not isinstance(background, (str, Path)) or not Path(background).suffix:
        raise InputError("background as clip, transparent, a colour such as #00ff00, or the path of a picture or video",
                         shown(background), "Choose one of them.")
    if Path(background).suffix.lower() in VIDEOS:
        return Backdrop(_read_video(background, size))
    return Backdrop(_cover(read_rgb(background), size))


def _read_video(path: str | Path, size: int) -> np.ndarray:
    """All frames [F, size, size, 3]; read whole before anything is rendered, so that damage is found first."""
    most = max(1, _MAX_BYTES // (3 * size * size))
    frames: list[np.ndarray] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            for image in read_frames(path):
                if len(frames) == most:
                    raise InputError(f"a background video of at most {most / FPS:.0f} s",
                                     f"'{shortened(path)}', which is longer", "Cut it; it is looped.")
                frames.append(_cover(image, size))
        except UserWarning as damage:
            raise InputError("a background video that can be read to its end",
                             f"'{shortened(path)}' ({first_line(damage)})", "Copy or convert it again.") from damage
    return np.stack(frames)


def _colour(text: str) -> Optional[tuple[int, ...]]:
    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        return None
    return colour if len(colour) == 3 else None  # a colour with alpha: neither transparent nor not


def _cover(image: np.ndarray, size: int) -> np.ndarray:
    """The centre square of an image [H, W, 3], [size, size, 3]."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top:top + side, left:left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
