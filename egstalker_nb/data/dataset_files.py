"""The files of a dataset folder: what must be in them, checked when a dataset is opened, in this one place."""
from __future__ import annotations

import os
import re
import wave
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..core.errors import DatasetError
from ..core.files import shortened
from ..core.reading import ArraySpec, Unreadable, has_array, read_json, read_npy, read_npz, shown
from ..media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from .camera_view import CAMERA

Meta = dict[str, Any]
Arrays = dict[str, np.ndarray]

#: of the datasets that `prepare` writes
FORMAT = 1
#: format -> a function that makes metadata and arrays of the next format, and leaves those that it gets as they are
MIGRATIONS: dict[int, Callable[[Meta, Arrays], tuple[Meta, Arrays]]] = {}
#: arrays of tracking.npz
TRACKING = ("landmarks", "found", "w2c", "blink", "aperture", "lip_rect", "eye_rect", "mean_face", "reprojection")
#: arrays that it may lack: of a camera that moves, or whose exposure changes
OPTIONAL = ("camera",)
META_FILE, TRACKING_FILE, FEATURES_FILE, AUDIO_FILE = "dataset.json", "tracking.npz", "features.npy", "audio.wav"
#: folder -> suffix of its files, one for each frame
IMAGES = {"frames": ".jpg", "masks": ".png"}
MAX_VALUE = 1e6         # of any number in an array; larger ones overflow in float32 arithmetic
RIGID_TOLERANCE = 1e-2  # by how much a pose may deviate from a rotation
MAX_CAMERA = 4.0        # of a number in `camera`: two images, 55 times the size, or the brightness
SIZES, MAX_FRAMES = (16, 4096), 10_000_000
FOCALS = 0.1, 100.0     # image widths

AGAIN = "Prepare the clip again into a fresh folder, or restore the file from a copy."
MAKE = "Run egs.prepare(video, folder) to make it, or to finish what was interrupted."


def read_dataset(root: Path) -> tuple[Meta, Arrays, tuple[Meta, Arrays]]:
    """Read and check everything of a dataset but its images, of which only the names are checked.

    Args:
        root: the folder.

    Returns:
        the contents of `dataset.json` and the arrays (`TRACKING`, `features`, and those of `OPTIONAL` that are there),
        both in this format, and the same as they are stored, for the dataset's hash: a dataset stays the one that a run
        was trained on.

    Raises:
        DatasetError: the folder is missing, incomplete, damaged, contradicts itself, or was made by a later version.
    """
    where = f"'{shortened(root)}'"
    if not os.path.isfile(root / META_FILE):
        raise DatasetError(f"a prepared dataset in {where} ({META_FILE})", "none", MAKE)
    try:
        stored_meta = read_json(root / META_FILE, format=int)
        _check_format(stored_meta["format"], where)
        current = stored_meta["format"] == FORMAT
        if current:
            _check_meta(stored_meta)
        specs = _specs(stored_meta["num_frames"]) if current else None
        features = read_npy(root / FEATURES_FILE, specs.pop("features") if specs else None)
        optional = {name: spec for name, spec in _optional_specs(stored_meta["num_frames"]).items()
                    if has_array(root / TRACKING_FILE, name)} if current else {}
        stored = {**read_npz(root / TRACKING_FILE, specs and {**specs, **optional}), "features": features}
        meta, arrays = _migrated(stored_meta, stored)
        _check_meta(meta)
        _check_arrays(meta, arrays)
        _check_images(root, meta["num_frames"])
        _check_audio(root / AUDIO_FILE, meta["num_frames"])
        if not os.path.isfile(root / "background.png"):
            raise Unreadable("there is no background.png")
    except Unreadable as error:
        raise DatasetError(f"a complete dataset in {where}", str(error), AGAIN) from error
    return meta, arrays, (stored_meta, stored)


def _check_format(found: int, where: str) -> None:
    if found > FORMAT:
        raise DatasetError(f"a dataset of format {FORMAT} or earlier in {where}", f"format {shown(found)}",
                           "It was made by a later version of the kit: update it.")
    if found < FORMAT and not all(step in MIGRATIONS for step in range(max(found, 0), FORMAT)) or found < 0:
        raise DatasetError(f"a dataset of format {FORMAT} in {where}", f"format {shown(found)}", "Prepare it again.")


def _migrated(meta: Meta, arrays: Arrays) -> tuple[Meta, Arrays]:
    try:
        for step in range(meta["format"], FORMAT):
            meta, arrays = MIGRATIONS[step](meta, arrays)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, ArithmeticError) as error:
        raise Unreadable(f"contents that are not of format {meta.get('format')} ({type(error).__name__})") from error
    return meta, arrays


def _specs(num_frames: int) -> dict[str, ArraySpec]:
    """What each array must be."""
    n = num_frames
    return {"landmarks": ArraySpec((n, 478, 3)), "found": ArraySpec((n,), "b"), "w2c": ArraySpec((n, 4, 4)),
            "blink": ArraySpec((n,)), "aperture": ArraySpec((n,)), "lip_rect": ArraySpec((n, 4), "iu"),
            "eye_rect": ArraySpec((n, 4), "iu"), "mean_face": ArraySpec((478, 3)), "reprojection": ArraySpec((n,)),
            "features": ArraySpec((n, 16, 29))}


def _optional_specs(num_frames: int) -> dict[str, ArraySpec]:
    """What each array of `OPTIONAL` must be."""
    return {"camera": ArraySpec((num_frames, CAMERA))}


def _check_meta(meta: Meta) -> None:
    """Raise Unreadable for metadata of this format that cannot be."""
    def number(name: str, low: float, high: float, kinds: tuple[type, ...] = (int,), why: str = "") -> None:
        value: Any = meta.get(name)
        if type(value) not in kinds or not low <= value <= high:
            found = f"{name} {shown(value)}" if name in meta else f"no {name}"
            raise Unreadable(f"{META_FILE} with {found} instead of {low:g} ... {high:g}{why}")

    number("size", *SIZES, why=" px")
    number("num_frames", 1, MAX_FRAMES)
    number("num_train", 1, meta["num_frames"])
    number("fps", FPS, FPS, (int, float))
    number("focal", FOCALS[0] * meta["size"], FOCALS[1] * meta["size"], (int, float), f" px at size {meta['size']}")
    encoder, crop = meta.get("encoder"), meta.get("crop")
    if not isinstance(encoder, dict) or not isinstance(encoder.get("name"), str):
        raise Unreadable(f"{META_FILE} with encoder {shown(encoder)} instead of its name and settings")
    if not isinstance(crop, list) or len(crop) != 3 or not all(type(x) is int and abs(x) < 1e6 for x in crop):
        raise Unreadable(f"{META_FILE} with crop {shown(crop)} instead of x, y and side in px")
    if not isinstance(meta.get("source"), str) or not isinstance(meta.get("settings", {}), dict):
        raise Unreadable(f"{META_FILE} with source {shown(meta.get('source'))} and settings "
                         f"{shown(meta.get('settings'))} instead of a name and settings")


def _check_arrays(meta: Meta, arrays: Arrays) -> None:
    """Raise Unreadable for arrays of this format that do not fit the metadata, or that cannot be of a head."""
    optional = {name: spec for name, spec in _optional_specs(meta["num_frames"]).items() if name in arrays}
    for name, spec in {**_specs(meta["num_frames"]), **optional}.items():
        values = arrays[name]
        if not spec.fits(values.shape, values.dtype):
            raise Unreadable(f"{name} of {values.dtype.name} {list(values.shape)} instead of {spec}")
        if values.dtype.kind == "f" and np.abs(values).max() > MAX_VALUE:
            raise Unreadable(f"{name} with {shown(float(np.abs(values).max()))}, far too large")
    for name in ("lip_rect", "eye_rect"):
        _check_rows(name, _is_rectangle(arrays[name], meta["size"]), f"a rectangle within {meta['size']} px")
    _check_rows("blink", np.abs(arrays["blink"] - 0.5) <= 0.5, "0 open ... 1 closed")
    _check_rows("w2c", _is_rigid(arrays["w2c"]), "a rotation and a translation")
    if "camera" in arrays:
        _check_rows("camera", np.abs(arrays["camera"]).max(1) <= MAX_CAMERA, "a small motion of the camera")
    depth = np.einsum("nj,kj->nk", arrays["w2c"][:, 2, :3], arrays["mean_face"]) + arrays["w2c"][:, 2, 3:]
    _check_rows("w2c", depth.min(1) > 0, "a head in front of the camera")


def _check_rows(name: str, good: np.ndarray, what: str) -> None:
    if not good.all():
        raise Unreadable(f"{name} of frame {int(np.argmin(good))} is not {what}")


def _is_rectangle(rects: np.ndarray, size: int) -> np.ndarray:
    """Whether each of rects [N, 4] (x0, y0, x1, y1) is one with an area inside the image: [N] bool."""
    return ((rects >= 0) & (rects <= size)).all(1) & (rects[:, 0] < rects[:, 2]) & (rects[:, 1] < rects[:, 3])


def _is_rigid(w2c: np.ndarray) -> np.ndarray:
    """Whether each of the matrices [N, 4, 4] is a rotation and a translation: [N] bool."""
    turn = w2c[:, :3, :3].astype(np.float64)
    off = np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    row = np.abs(w2c[:, 3] - np.array([0, 0, 0, 1])).max(1)
    return (off <= RIGID_TOLERANCE) & (row <= RIGID_TOLERANCE) & (np.linalg.det(turn) > 0)


def _check_images(root: Path, num_frames: int) -> None:
    """Raise Unreadable unless there is one image for each frame."""
    for folder, suffix in IMAGES.items():
        try:
            pattern = re.compile(rf"\d{{6,}}{re.escape(suffix)}")
            there = {name for name in os.listdir(root / folder) if pattern.fullmatch(name)}
        except OSError as error:
            raise Unreadable(f"there is no folder {folder}/ ({error.strerror})") from error
        wanted = {f"{i:06d}{suffix}" for i in range(num_frames)}
        if missing := wanted - there:
            raise Unreadable(f"there is no {folder}/{min(missing)} ({len(missing)} of {num_frames} are missing)")
        if more := there - wanted:
            raise Unreadable(f"there are {num_frames} frames, but also {folder}/{min(more)}")


def _check_audio(path: Path, num_frames: int) -> None:
    """Raise Unreadable unless the header of audio.wav says that it lasts as long as the frames, and the file does."""
    try:
        with open(path, "rb") as file, wave.open(file) as opened:
            form = opened.getframerate(), opened.getnchannels(), opened.getsampwidth()
            samples = min(opened.getnframes(), (os.fstat(file.fileno()).st_size - file.tell()) // 2)
    except (OSError, EOFError, RuntimeError, wave.Error) as error:
        missing = isinstance(error, FileNotFoundError)
        raise Unreadable(f"there is no {AUDIO_FILE}" if missing else f"{AUDIO_FILE} is damaged, or no WAV") from error
    if form != (SAMPLE_RATE, 1, 2) or abs(samples - num_frames * SAMPLES_PER_FRAME) >= SAMPLES_PER_FRAME:
        raise Unreadable(f"{AUDIO_FILE} with {samples} samples ({form[0]} Hz, {form[1]} channel(s), {8 * form[2]} bit) "
                         f"instead of {num_frames * SAMPLES_PER_FRAME} (16000 Hz, 1 channel, 16 bit)")
