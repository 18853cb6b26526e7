"""Identity: face descriptors of OpenCV's SFace, and their cosine (CSIM)."""
from __future__ import annotations

from pathlib import Path
from typing import Optional, Protocol

import cv2
import numpy as np

from ..core.errors import InputError, first_line
from ..core.files import shortened
from .weights import how_to_get, weight_path

#: landmarks whose mean is each of SFace's five points: the person's right and left eye, the tip of the nose, the right
#: and left corner of the mouth
_FIVE = ((33, 133), (362, 263), (1,), (61,), (291,))


class Describe(Protocol):
    """A face descriptor."""

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Unit vector [C] of the face in an image [H, W, 3] uint8 RGB with landmarks [478, 2 or 3] px."""


class SFace:
    """Descriptors [128] of a face, aligned by five points of our landmarks.

    Args:
        path: `face_recognition_sface_2021dec.onnx`.

    Raises:
        InputError: OpenCV cannot load it.
    """

    def __init__(self, path: Path):
        try:
            self._net = cv2.FaceRecognizerSF.create(str(path), "")
        except cv2.error as error:
            raise InputError("OpenCV's SFace model", f"'{shortened(path)}' ({first_line(error, 80)})",
                             "Download the file again; Git LFS must be installed if it is cloned.") from error

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        row = sface_row(landmarks)
        face = self._net.alignCrop(np.ascontiguousarray(image[..., ::-1]), row)
        vector = self._net.feature(face)[0].astype(np.float64)
        return vector / max(np.linalg.norm(vector), 1e-12)


def sface_row(landmarks: np.ndarray) -> np.ndarray:
    """A detection as OpenCV's `alignCrop` takes it, float32 [1, 15]: box x, y, w, h, five points, score."""
    points = np.asarray(landmarks, np.float32)[:, :2]
    low, high = points.min(0), points.max(0)
    five = [points[list(ids)].mean(0) for ids in _FIVE]
    return np.concatenate([low, high - low, *five, [1]]).astype(np.float32)[None]


def load_sface(folder: Optional[str | Path] = None) -> SFace:
    """SFace with the user's file.

    Raises:
        InputError: it is missing or damaged.
    """
    path = weight_path("sface", folder)
    if path is None:
        raise InputError("weights of SFace", "none", f"CSIM {how_to_get('sface', folder)}.")
    return SFace(path)
