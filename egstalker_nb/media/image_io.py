"""JPEG and PNG files; images are [H, W, 3] uint8 RGB throughout.

Files are read and written by Python, as OpenCV's own file functions fail on non-ASCII paths on Windows.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..core.errors import InputError


def read_rgb(path: str | Path) -> np.ndarray:
    """An image file as [H, W, 3] uint8 RGB; grey is repeated, alpha is dropped.

    Raises:
        InputError: missing, or not an image that OpenCV can decode.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("an image file", f"no file at '{path}'", "Check the path.")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise InputError("a JPEG or PNG image", f"'{path}', which cannot be decoded", "Write the file again.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
        image: [H, W, 3] uint8 RGB.
    """
    return _encoded(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _encoded(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def write_jpeg(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Write [H, W, 3] uint8 RGB as a JPEG, see `encode_jpeg`."""
    Path(path).write_bytes(encode_jpeg(image, quality))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write [H, W, 3] uint8 RGB as a PNG, see `encode_png`."""
    Path(path).write_bytes(encode_png(image))
