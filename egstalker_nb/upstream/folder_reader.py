"""`egs.import_dataset`: a dataset of a folder that AD-NeRF, ER-NeRF, GaussianTalker or EGSTalker was trained from.

Images, masks, background, audio, features, blinks, focal length and split are the folder's. Landmarks are tracked in
the images, and head shape and poses solved from them as `egs.prepare` does, so that they fit each other.
"""
from __future__ import annotations

import csv
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ..core.errors import InputError
from ..core.files import atomic_folder, shortened, write_json, write_npy, write_npz
from ..core.progress import progress
from ..core.reading import Unreadable, read_json, read_text, read_torch, shown
from ..data.dataset import Dataset, load_dataset
from ..data.dataset_files import AUDIO_FILE, FEATURES_FILE, FOCALS, FORMAT, META_FILE, SIZES, TRACKING_FILE
from ..face import landmarks as face
from ..face.tracker import WARM_UP, FaceTracker
from ..media.audio import load_audio, load_features, save_wav
from ..media.image_io import is_whole, read_rgb, write_png
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..metrics.landmark_metrics import aperture
from ..preparation.pose import solve_pose
from ..speech.encoders import DEFAULT_ENCODER, EXTERNAL, load_encoder
from .folder_writer import CLOSED_AU, NECK, PARSING, new_folder
from .pose_convention import align, from_euler_trans, rotation_difference

FIX = "Take the folder as the upstream program's data preparation left it, or run egs.prepare on the video instead."
#: audio may be this much shorter than the frames, s; silence is added
MAX_MISSING_AUDIO = 1.0
MAX_ANGLE, MAX_LENGTH = 1e3, 1e6


@dataclass(frozen=True)
class UpstreamFolder:
    """What the small files of a folder say.

    Attributes:
        root: the folder.
        num_frames: N, of both transforms files.
        num_train: frames of `transforms_train.json`, which come first.
        size: side of the images in px.
        focal: px.
        w2c: [N, 4, 4] float64, poses of `track_params.pt` with OpenCV axes, in the head frame of its own face model.
        blink: [N] float32, 0 open ... 1 closed, from `au.csv`; None without the file.
    """

    root: Path
    num_frames: int
    num_train: int
    size: int
    focal: float
    w2c: np.ndarray
    blink: Optional[np.ndarray]


def import_dataset(folder: str | Path, out: str | Path) -> Dataset:
    """Make a dataset of a folder of the AD-NeRF, ER-NeRF, GaussianTalker or EGSTalker kind; `docs/upstream_data.md`
    says what is taken of each file, and what is computed.

    Args:
        folder: the folder, with `transforms_train.json`.
        out: the dataset folder to write, new or empty.

    Returns:
        the dataset. Its `report` says by how many degrees the folder's own poses differ from those that were solved.

    Raises:
        InputError: a file is missing, damaged, or contradicts the others, or `out` is not empty.
        UnusableClipError: no face in the images.
        StorageError: the folder cannot be written.
    """
    out = new_folder(out)
    given = read_folder(Path(folder))
    with atomic_folder(out) as root:
        landmarks, found = _copy_images(given, root)
        landmarks = face.fill_gaps(landmarks, found) if found.any() else landmarks
        solved = solve_pose(landmarks, found, given.size, given.focal)
        blink = face.blink_curve(landmarks, found) if given.blink is None else given.blink
        write_npz(root / TRACKING_FILE, landmarks=landmarks, found=found, w2c=solved.w2c, blink=blink,
                  aperture=aperture(landmarks), mean_face=solved.mean_face, reprojection=solved.reprojection,
                  lip_rect=face.rectangles(landmarks, face.LIPS, face.LIP_MARGIN, given.size),
                  eye_rect=face.rectangles(landmarks, face.EYE_REGION, face.EYE_MARGIN, given.size))
        encoder, notes = _copy_sound(given, root)
        off = rotation_difference(align(given.w2c, solved.w2c), solved.w2c)[found]
        write_json(root / "report.json", {
            "num_frames": given.num_frames, "warnings": notes, "pose_difference_degrees": {
                "median": round(float(np.median(off)), 3), "largest": round(float(off.max()), 3)}})
        os.sync()  # the images, before a file says that they are there
        write_json(root / META_FILE, {
            "format": FORMAT, "source": given.root.resolve().name, "fps": FPS, "size": given.size,
            "num_frames": given.num_frames, "crop": [0, 0, given.size], "focal": solved.focal, "encoder": encoder,
            "num_train": given.num_train, "settings": {}})
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return load_dataset(out)


def read_folder(root: Path) -> UpstreamFolder:
    """Read and check the transforms files, `track_params.pt` and `au.csv`.

    Raises:
        InputError: one is missing, damaged, or contradicts the others.
    """
    where = f"a dataset folder of EGSTalker or one of its relatives in '{shortened(root)}'"
    try:
        splits = [read_json(root / f"transforms_{name}.json", frames=list, focal_len=(int, float), cx=(int, float),
                            cy=(int, float)) for name in ("train", "val")]
        ids = [_frame_ids(split["frames"], name) for split, name in zip(splits, ("train", "val"))]
        count, num_train = len(ids[0]) + len(ids[1]), len(ids[0])
        if num_train == 0 or ids[0] + ids[1] != list(range(count)):
            raise Unreadable("img_id of the two transforms files that are not 0, 1, 2 ... one after the other: the "
                             "training frames must come first, without gaps")
        size, focal = 2 * splits[0]["cx"], float(splits[0]["focal_len"])
        if 2 * splits[0]["cy"] != size or size != int(size) or not SIZES[0] <= size <= SIZES[1]:
            raise Unreadable(f"images of {size:g} x {2 * splits[0]['cy']:g} px instead of squares of {SIZES[0]} ... "
                             f"{SIZES[1]} px")
        if not FOCALS[0] * size <= focal <= FOCALS[1] * size:
            raise Unreadable(f"focal_len {focal:g} at {size:g} px")
        return UpstreamFolder(root, count, num_train, int(size), focal, _poses(root, count), _blink(root, count))
    except Unreadable as error:
        raise InputError(where, str(error), FIX) from error


def _frame_ids(frames: list[Any], name: str) -> list[int]:
    ids = []
    for frame in frames:
        i = frame.get("img_id") if isinstance(frame, dict) else None
        if type(i) is not int or frame.get("aud_id", i) != i:
            raise Unreadable(f"transforms_{name}.json with the frame {shown(frame)} instead of an img_id and an equal "
                             "aud_id")
        ids.append(i)
    return ids


def _poses(root: Path, count: int) -> np.ndarray:
    """The poses of `track_params.pt`, [count, 4, 4]."""
    import torch

    arrays, params = [], read_torch(root / "track_params.pt")
    for name, limit in (("euler", MAX_ANGLE), ("trans", MAX_LENGTH)):
        value = params.get(name)
        if not isinstance(value, torch.Tensor) or value.ndim != 2 or value.shape[1] != 3 or len(value) < count:
            shape = list(value.shape) if isinstance(value, torch.Tensor) else "nothing"
            raise Unreadable(f"track_params.pt with {name} {shape} instead of [{count}, 3]")
        array = value.detach().double().numpy()[:count]
        good = (np.abs(array) <= limit).all(1)  # False for NaN
        if not good.all():
            raise Unreadable(f"track_params.pt with {name} {shown(array[~good][0].tolist())} of frame "
                             f"{int(np.argmin(good))}")
        arrays.append(array)
    return from_euler_trans(*arrays)


def _blink(root: Path, count: int) -> Optional[np.ndarray]:
    """Eye closure from `AU45_r` of `au.csv`, scaled as upstream does, [count]; None without the file."""
    if not (root / "au.csv").exists():
        return None
    text = read_text(root / "au.csv")
    try:
        rows = csv.DictReader(io.StringIO(text))
        column = next((name for name in rows.fieldnames or () if name.strip() == "AU45_r"), None)
        if column is None:
            raise Unreadable("au.csv without a column AU45_r")
        values = np.array([float(row[column]) for row in rows][:count])
    except Unreadable:
        raise
    except (TypeError, ValueError, csv.Error) as error:
        raise Unreadable(f"au.csv with an AU45_r that is no number ({error})") from error
    if len(values) < count or not np.isfinite(values).all():
        raise Unreadable(f"au.csv with {int(np.isfinite(values).sum())} values of AU45_r for {count} frames")
    return (np.clip(values, 0, CLOSED_AU) / CLOSED_AU).astype(np.float32)


def _image(given: UpstreamFolder, name: str) -> np.ndarray:
    """An image of the folder, [S, S, 3] uint8."""
    path, expected = given.root / name, f"{name} of {given.size} x {given.size} px in '{shortened(given.root)}'"
    if not path.is_file():
        raise InputError(expected, "no such file", FIX)
    if not is_whole(path):
        raise InputError(expected, "a file that is cut off, or no image", FIX)
    image = read_rgb(path)
    if image.shape != (given.size, given.size, 3):
        raise InputError(expected, f"one of {image.shape[1]} x {image.shape[0]} px", FIX)
    return image


def _copy_images(given: UpstreamFolder, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Copy frames, masks and background, and track the face: landmarks [N, 478, 3] px, and found [N]."""
    count, parsing = given.num_frames, np.array([*PARSING, NECK])
    landmarks, found = np.zeros((count, face.NUM_LANDMARKS, 3), np.float32), np.zeros(count, bool)
    write_png(root / "background.png", _image(given, "bc.jpg"))
    (root / "frames").mkdir()
    (root / "masks").mkdir()
    tracker = FaceTracker()
    try:
        for i in progress(range(count), "import"):
            image, parts = _image(given, f"ori_imgs/{i}.jpg"), _image(given, f"parsing/{i}.png")
            same = (parts[:, :, None] == parsing).all(axis=3)
            if not same.any(axis=2).all():
                raise InputError(f"parsing/{i}.png with the colours of head, neck, torso and background",
                                 f"{shown(parts[~same.any(axis=2)][0].tolist())} (RGB)", FIX)
            (root / "frames" / f"{i:06d}.jpg").write_bytes((given.root / "ori_imgs" / f"{i}.jpg").read_bytes())
            same[..., 1] |= same[..., 3]
            write_png(root / "masks" / f"{i:06d}.png", same[..., :3].astype(np.uint8) * 255)
            for _ in range(WARM_UP if i == 0 else 0):
                tracker(image)
            points = tracker(image)
            if points is not None and np.isfinite(points).all():
                landmarks[i], found[i] = points, True
    finally:
        tracker.close()
    return landmarks, found


def _copy_sound(given: UpstreamFolder, root: Path) -> tuple[dict[str, Any], list[str]]:
    """Write audio and features; returns the spec of the encoder, and warnings."""
    count, path = given.num_frames, given.root / "aud.wav"
    if not path.is_file():
        raise InputError(f"aud.wav in '{shortened(given.root)}'", "no such file",
                         "Extract the audio of the clip to it.")
    wave = load_audio(path)[:count * SAMPLES_PER_FRAME]
    missing = count / FPS - len(wave) / (FPS * SAMPLES_PER_FRAME)
    if missing > MAX_MISSING_AUDIO:
        raise InputError(f"{count / FPS:.2f} s of audio for {count} frames at {FPS} fps in '{shortened(path)}'",
                         f"{len(wave) / (FPS * SAMPLES_PER_FRAME):.2f} s", "Extract the audio of the same clip.")
    wave = np.pad(wave, (0, count * SAMPLES_PER_FRAME - len(wave)))
    save_wav(root / AUDIO_FILE, wave)
    if (given.root / "aud_ds.npy").exists():
        features = load_features(given.root / "aud_ds.npy", wave)
        # the usual extractors leave out the last window
        write_npy(root / FEATURES_FILE, features[np.minimum(np.arange(count), len(features) - 1)])
        return EXTERNAL, []
    encoder = load_encoder(DEFAULT_ENCODER)
    write_npy(root / FEATURES_FILE, encoder.features(wave, count))
    return encoder.spec, [f"'{shortened(given.root)}' has no aud_ds.npy: audio features were computed from aud.wav by "
                          f"the encoder '{DEFAULT_ENCODER}'"]
