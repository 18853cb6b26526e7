"""What is behind head and torso in a rendered frame: the clip's clean plate, a colour, a picture, or nothing."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from PIL import ImageColor

from ..core.errors import InputError
from ..core.reading import shown
from ..media.image_io import read_rgb

CLIP, TRANSPARENT = "clip", "transparent"


@dataclass(frozen=True)
class Backdrop:
    """What replaces the clean plate of the clip.

    Attributes:
        image: [S, S, 3] uint8 RGB; None: nothing, the frames get an alpha channel.
    """

    image: Optional[np.ndarray]

    @property
    def transparent(self) -> bool:
        return self.image is None


def load_backdrop(background: str | Path, size: int) -> Optional[Backdrop]:
    """The background of a video.

    Args:
        background: `clip`, `transparent`, a colour as CSS writes it (`white`, `#00ff00`, `rgb(0, 255, 0)`), or the path
            of a JPEG or PNG, which is scaled to cover the frame and cropped around its centre.
        size: of a frame, px.

    Returns:
        The background; None for that of the clip.

    Raises:
        InputError: none of these, or a picture that cannot be read.
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
        raise InputError("background as clip, transparent, a colour such as white or #00ff00, or a picture's path",
                         shown(background), "Choose one of them.")
    return Backdrop(_cover(read_rgb(background), size))


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
