"""Reading a dataset folder that `prepare` wrote; images are read on demand."""
from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from ..core.errors import DatasetError, InputError
from ..core.files import shortened
from ..core.reading import Unreadable, read_json
from ..face.expression import landmark_motion, lower_face, upper_face
from ..media.image_io import is_whole, read_rgb
from .camera_view import CAMERA, MAX_CANVAS, VIEW
from .dataset_files import AGAIN, AUDIO_FILE, FORMAT, OPTIONAL, TRACKING, Arrays, Meta, read_dataset

__all__ = ["FORMAT", "Dataset", "load_dataset"]

_DTYPES = {"found": bool, "lip_rect": np.int32, "eye_rect": np.int32}  # the others are float32


class Dataset:
    """A talking-head clip, ready for training. Made by `load_dataset`.

    Attributes:
        root: the folder.
        meta: the contents of `dataset.json`.
        size: S, the side of the square frames in px.
        num_frames: N.
        fps: 25.
        focal: focal length in px.
        K: [3, 3] float32 intrinsic matrix.
        w2c: [N, 4, 4] float32 world-to-camera, OpenCV axes; the world is the head frame. These are the tracked poses: a
            trained head has refined poses of the same frames (`Head.w2c`), with which it is rendered.
        landmarks: [N, 478, 3] float32 px.
        mean_face: [478, 3] float32 head frame.
        found: [N] bool, whether a face was tracked.
        blink: [N] float32, 0 open ... 1 closed.
        aperture: [N] float32, inner lip gap over face height.
        reprojection: [N] float32, reprojection error of the pose in px.
        lip_rect, eye_rect: [N, 4] int32 (x0, y0, x1, y1) px, end exclusive.
        eyes: [N, 7] float32, lids, brows and gaze (see `upper_face`), the input of the eye token.
        camera: [N, 7] float32, how the camera saw the scene: view (see `camera_view`) and log gains of red, green and
            blue, against the mean of the training frames. Zeros: it stood still.
        mouth: [N, D] float32, shape of lips and jaw, head units (see `lower_face`).
        features: [N, 16, 29] float32 audio features.
        encoder: spec of the audio encoder that computed the features.
        source: description of the source clip.
        num_train: frames 0 ... num_train - 1 are for training, the rest for validation.
    """

    landmarks: np.ndarray
    found: np.ndarray
    w2c: np.ndarray
    blink: np.ndarray
    aperture: np.ndarray
    lip_rect: np.ndarray
    eye_rect: np.ndarray
    mean_face: np.ndarray
    reprojection: np.ndarray
    camera: np.ndarray

    def __init__(self, root: Path, meta: Meta, arrays: Arrays, stored: tuple[Meta, Arrays]):
        self.root, self.meta, self._stored = root, meta, stored
        self.size, self.num_frames = int(meta["size"]), int(meta["num_frames"])
        self.fps, self.focal = float(meta["fps"]), float(meta["focal"])
        self.num_train, self.encoder, self.source = int(meta["num_train"]), meta["encoder"], meta["source"]
        self.features = np.ascontiguousarray(arrays["features"], np.float32)
        for name in TRACKING:
            setattr(self, name, np.ascontiguousarray(arrays[name], _DTYPES.get(name, np.float32)))
        still = np.zeros((self.num_frames, CAMERA), np.float32)
        self.camera = np.ascontiguousarray(arrays.get("camera", still), np.float32)
        moved = landmark_motion(self.landmarks, self.w2c, self.mean_face, self.focal, self.size)
        self.eyes = upper_face(moved, self.blink, self.num_train)
        self.mouth = lower_face(moved)
        half = self.size / 2
        self.K = torch.tensor([[self.focal, 0, half], [0, self.focal, half], [0, 0, 1]], dtype=torch.float32)

    def __len__(self) -> int:
        """Number of frames."""
        return self.num_frames

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        """Frame i as tensors, which a torch `DataLoader` can collate.

        Args:
            i: frame number; negative ones count from the end.

        Returns:
            `frame` [S, S, 3] and `mask` [S, S, 3] (head, torso, background) float32 0...1; `features` [16, 29];
            `mouth` [D]; `eyes` [7]; `landmarks` [478, 3] px; `w2c` [4, 4], as tracked; `lip_rect` [4] px; `id`, the
            frame number.

        Raises:
            IndexError: no such frame.
        """
        if not -self.num_frames <= i < self.num_frames:
            raise IndexError(f"frame {i} of a dataset of {self.num_frames}")
        i %= self.num_frames
        images = {name: torch.from_numpy(image).float() / 255
                  for name, image in (("frame", self.frame(i)), ("mask", self.mask(i)))}
        arrays = {name: torch.from_numpy(np.asarray(getattr(self, name)[i]))
                  for name in ("features", "mouth", "eyes", "landmarks", "w2c", "lip_rect")}
        return {**images, **arrays, "id": torch.tensor(i)}

    def __repr__(self) -> str:
        return (f"Dataset({self.root.name}: {self.num_frames} frames of {self.size} px, "
                f"{self.num_train} train + {self.num_frames - self.num_train} validation)")

    @property
    def train_ids(self) -> range:
        """Frame numbers of the training split."""
        return range(self.num_train)

    @property
    def val_ids(self) -> range:
        """Frame numbers of the validation split."""
        return range(self.num_train, self.num_frames)

    def split(self, name: str) -> range:
        """Frame numbers of a split.

        Args:
            name: `train`, `val` or `all`.

        Raises:
            DatasetError: another name.
        """
        ids = {"train": self.train_ids, "val": self.val_ids, "all": range(self.num_frames)}
        if name not in ids:
            raise DatasetError("split 'train', 'val' or 'all'", repr(name), "Choose one of the three.")
        return ids[name]

    def _image(self, path: Path, largest: Optional[int] = None) -> np.ndarray:
        """A square image of the frames' size, or with an equal margin on all sides, up to `largest` px."""
        largest = largest or self.size
        expected = f"an image of {self.size} x {self.size} px at '{shortened(path)}'"
        try:
            if not is_whole(path):
                raise DatasetError(expected, "a file that is cut off", AGAIN)
            image = read_rgb(path)
        except (InputError, OSError) as error:
            raise DatasetError(expected, "none that can be read", AGAIN) from error
        height, width = image.shape[:2]
        if height != width or not self.size <= width <= largest or (width - self.size) % 2:
            raise DatasetError(expected, f"one of {image.shape[1]} x {image.shape[0]} px", AGAIN)
        return image

    def frame(self, i: int) -> np.ndarray:
        """Frame i, [S, S, 3] uint8 RGB."""
        return self._image(self.root / "frames" / f"{i:06d}.jpg")

    def mask(self, i: int) -> np.ndarray:
        """Soft masks of frame i, [S, S, 3] uint8: head, torso, background; they sum to 255."""
        return self._image(self.root / "masks" / f"{i:06d}.png")

    @cached_property
    def canvas(self) -> np.ndarray:
        """The clean background in the reference view, [S + 2M, S + 2M, 3] uint8, with a margin M for what other frames
        of a camera that moves show; M = 0 if it is still."""
        largest = int(MAX_CANVAS * self.size) if self.views.any() else self.size
        return self._image(self.root / "background.png", largest)

    @property
    def plate(self) -> np.ndarray:
        """The clean background as the reference view shows it, [S, S, 3] uint8. Frames of a still camera all do."""
        margin = (len(self.canvas) - self.size) // 2
        return self.canvas[margin:margin + self.size, margin:margin + self.size]

    @cached_property
    def exposes(self) -> bool:
        """Whether the exposure of the camera changes."""
        return bool(self.camera[:, VIEW:].any())

    @cached_property
    def gains(self) -> np.ndarray:
        """[N, 3] float32, brightness of red, green and blue in each frame against the reference exposure."""
        return np.exp(self.camera[:, VIEW:])

    @property
    def views(self) -> np.ndarray:
        """[N, 4] float32, see `camera_view`."""
        return self.camera[:, :VIEW]

    def packed(self, i: int) -> np.ndarray:
        """The bytes of frame i that training needs: frame, then head mask, [4 S S] uint8."""
        return np.concatenate([self.frame(i).ravel(), self.mask(i)[..., 0].ravel()])

    @cached_property
    def head_box(self) -> tuple[int, int, int, int]:
        """Box (x0, y0, x1, y1) px around the head in all frames, end exclusive (from 32 masks, with a margin)."""
        ids = np.unique(np.linspace(0, self.num_frames - 1, 32).astype(int))
        head = np.max([self.mask(i)[..., 0] for i in ids], axis=0) > 0
        if not head.any():
            return 0, 0, self.size, self.size
        margin = self.size // 16
        (x0, x1), (y0, y1) = (np.flatnonzero(head.any(axis))[[0, -1]] for axis in (0, 1))
        return (max(0, int(x0) - margin), max(0, int(y0) - margin),
                min(self.size, int(x1) + 1 + margin), min(self.size, int(y1) + 1 + margin))

    def audio(self) -> np.ndarray:
        """The clip's audio, [samples] float32, 16 kHz mono, -1 ... 1."""
        from ..media.audio import load_audio

        return load_audio(self.root / AUDIO_FILE)

    @cached_property
    def report(self) -> dict:
        """The quality report that `prepare` wrote, which also says where in its source the clip is. Training does not
        depend on it.

        Raises:
            DatasetError: missing or damaged.
        """
        try:
            return read_json(self.root / "report.json", warnings=list)
        except Unreadable as error:
            raise DatasetError(f"the report of the dataset '{shortened(self.root)}'", str(error), AGAIN) from error

    @cached_property
    def hash(self) -> str:
        """SHA-256, first 12 hex digits, of tracking, features and metadata: all that training uses except images."""
        meta, arrays = self._stored
        digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
        for name in (*TRACKING, *(name for name in OPTIONAL if name in arrays)):
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        digest.update(np.ascontiguousarray(arrays["features"], np.float32).tobytes())
        return digest.hexdigest()[:12]


def load_dataset(path: str | Path) -> Dataset:
    """Open a prepared dataset folder.

    Everything but the images is read and checked, which takes a tenth of a second for 7,500 frames; images are checked
    when they are read.

    Raises:
        DatasetError: the folder is missing, incomplete, damaged, contradicts itself, or was made by a later version.
    """
    root = Path(path)
    return Dataset(root, *read_dataset(root))
