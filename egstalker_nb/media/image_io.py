"""JPEG and PNG files; images are [H, W, 3] uint8 RGB throughout, written PNGs also RGBA.

Files are read and written by Python, as OpenCV's own file functions fail on non-ASCII paths on Windows.
"""
from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..core.errors import InputError
from ..core.files import shortened
from .container import check_file
from .limits import check_size

#: how files of each kind begin and end
_ENDS = {".jpg": (b"\xff\xd8", b"\xff\xd9"), ".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")}


def is_whole(path: Path) -> bool:
    """Whether a `.jpg` or `.png` file has its beginning and its end: decoders make a half-grey image of one that is cut
    off, as a power cut leaves it.

    Raises:
        OSError: it cannot be read.
    """
    begin, end = _ENDS[path.suffix]
    with open(path, "rb") as file:
        head = file.read(len(begin))
        file.seek(max(os.fstat(file.fileno()).st_size - len(end), 0))
        return head == begin and file.read() == end


def read_rgb(path: str | Path) -> np.ndarray:
    """A JPEG or PNG file as [H, W, 3] uint8 RGB; grey is repeated, alpha is dropped.

    Raises:
        InputError: missing, not an image that OpenCV can decode, or beyond the limit of size (see `limits`).
    """
    absolute = check_file(path, "an image file")
    try:
        data = absolute.read_bytes()
        width, height = Image.open(io.BytesIO(data), formats=("JPEG", "PNG")).size  # reads the header only
        check_size(width, height, path, "an image", min_side=1)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except InputError:
        raise
    except Exception as error:  # damaged files fail in many ways
        raise _undecodable(path) from error
    if image is None:
        raise _undecodable(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _undecodable(path: str | Path) -> InputError:
    return InputError("a JPEG or PNG image", f"'{shortened(path)}', which cannot be decoded", "Write the file again.")


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """The bytes of a JPEG with full colour resolution (4:4:4).

    Args:
        image: [H, W, 3] uint8 RGB.
        quality: 1...100.
    """
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])


def encode_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG at the fastest compression.

    Args:
        image: [H, W, 3] uint8 RGB, or [H, W, 4] with straight (not premultiplied) alpha.
    """
    return _encoded(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _encoded(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    order = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    return cv2.imencode(suffix, cv2.cvtColor(image, order), options)[1].tobytes()


def write_jpeg(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Write [H, W, 3] uint8 RGB as a JPEG, see `encode_jpeg`."""
    Path(path).write_bytes(encode_jpeg(image, quality))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write [H, W, 3] uint8 RGB, or [H, W, 4] with straight alpha, as a PNG, see `encode_png`."""
    Path(path).write_bytes(encode_png(image))
