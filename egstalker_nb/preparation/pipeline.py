"""`prepare`: all steps from a video to a dataset folder, each done once."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from .. import audio as sound
from ..audio import FPS, SAMPLES_PER_FRAME
from ..dataset import FORMAT, Dataset, load_dataset
from ..encoders import DEFAULT_ENCODER, EXTERNAL, Encoder, describe, load_encoder
from ..errors import EgsError, InputError
from ..expression import lower_face, motion
from ..files import writing_to
from ..metrics import aperture
from ..video import VideoInfo, probe
from . import crop as cropping
from . import face, masks, offset, overlay, plate, pose, quality, track
from .steps import WORK, Step, Workspace, joined_chunks, read_npz, write_json, write_npz

#: raised where a step computes something else than before, so that half-made datasets are not continued with it
VERSION = 2


def prepare(video: str | Path, out: str | Path, size: int = 512, features: str | Path | None = None,
            focal: float | None = None, encoder: str | Path = DEFAULT_ENCODER) -> Dataset:
    """Turn a talking-head video into a dataset folder.

    Interrupted work continues where it stopped; with another size, encoder or other features, what they touch is
    redone. A finished folder is returned at once, and other settings for it are refused. Memory does not grow with
    the length of the clip.

    Args:
        video: a clip of one person with sound, at any size and frame rate.
        out: the dataset folder to write.
        size: side of the square pictures in px, a multiple of 16 from 64 to 1024.
        features: `.npy` [num_frames, 16, 29] to use instead of computing them from the sound.
        focal: focal length in px at `size`; by default 2.5 picture widths (see `pose.FOCAL_WIDTHS`).
        encoder: what computes features from the sound, see `load_encoder`: the heads of this dataset will always be
            driven by it. Not used with `features`.

    Returns:
        the Dataset. `dataset.report["warnings"]` says in plain sentences what will make it train badly;
        `report/overlays.jpg` and `report/curves.jpg` show what was found.

    Raises:
        InputError: the video is missing, not a video, without sound or without a face; the size, the features or the
            folder are not usable; the encoder is not there; the folder holds another video's dataset.
        MissingPackageError: a CTC encoder without `transformers`.
    """
    video, root = Path(video), Path(out)
    _check_size(size, focal)
    info = check_video(video)
    listener = load_encoder(encoder) if features is None else None
    settings = {"version": VERSION, "video": _digest(video), "size": int(size),
                "features": None if features is None else _digest(_existing(features)), "focal": focal,
                "encoder": EXTERNAL if listener is None else listener.spec}
    if _finished(root, settings):
        return load_dataset(root)
    wave = sound.load_audio(video)
    if features is not None:
        sound.load_features(features, wave)
    _open(root, settings)
    try:
        _build(video, root, settings, wave, features if listener is None else listener, info.frames_at(FPS))
    except EgsError:
        # an unusable clip leaves no half-made dataset that would refuse the next clip
        shutil.rmtree(root / WORK, ignore_errors=True)
        if not any(root.iterdir()):
            root.rmdir()
        raise
    return load_dataset(root)


def check_video(video: str | Path) -> VideoInfo:
    """What `probe` finds in a video that has the picture and the sound that preparation needs.

    Raises:
        InputError: it is missing, not a video, or without sound.
    """
    info = probe(video)
    if not info.has_audio:
        raise InputError("a video with sound", f"{video} without a sound stream",
                         "Record the clip with sound, or add its sound track with a video editor: the mouth is "
                         "learned from it.")
    return info


def _existing(features: str | Path) -> Path:
    path = Path(features)
    if not path.is_file():
        raise InputError("a .npy file of features", f"no file at {path}", "Check the path.")
    return path


def _check_size(size: int, focal: float | None) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 64 <= size <= 1024 or size % 16:
        raise InputError("a picture size that is a multiple of 16 from 64 to 1024", repr(size),
                         "Use 512, or 256 for quick trials.")
    if focal is not None and not 0.5 * size <= focal <= 20 * size:
        raise InputError(f"a focal length of {size // 2} to {20 * size} px at size {size}", repr(focal),
                         "Leave it out: the usual value does for most clips.")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _finished(root: Path, settings: dict) -> bool:
    """True where the folder is finished with these settings.

    Raises:
        InputError: it holds something else.
    """
    if root.exists() and not root.is_dir():
        raise InputError("a folder to write to", f"a file at '{root}'", "Choose another path.")
    made, begun = root / "dataset.json", root / WORK / "settings.json"
    records = [_settings_of(record) for record in (made, begun) if record.is_file()]
    if any(before.get("video") != settings["video"] for before in records):
        raise InputError("an empty folder or one with this video's dataset",
                         f"'{root}' with the dataset of another video",
                         "Choose another folder, or delete this one.")
    if not records and any((root / name).exists() for name in ("frames", "masks")):
        raise InputError("an empty folder or a dataset that prepare has begun", f"'{root}' with something else in it",
                         "Choose another folder.")
    if made.is_file() and records[0] != settings:
        other = [f"{k} {_shown(k, records[0].get(k))} there, {_shown(k, v)} now" for k, v in settings.items()
                 if records[0].get(k) != v]
        raise InputError(f"the settings of the finished dataset in '{root}'", "; ".join(other),
                         "Give the settings that it was made with, or prepare into another folder: runs that were "
                         "trained on this one need it as it is.")
    return made.is_file()


def _shown(setting: str, value: object) -> str:
    return describe(value) if setting == "encoder" and isinstance(value, dict) else repr(value)


def _open(root: Path, settings: dict) -> None:
    """Make the folder, or open it again: from here on it counts as unfinished."""
    with writing_to(root):
        (root / WORK).mkdir(parents=True, exist_ok=True)
        write_json(root / WORK / "settings.json", settings)
        (root / "dataset.json").unlink(missing_ok=True)


def _settings_of(record: Path) -> dict:
    try:
        value = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("a dataset folder", f"'{record}' that cannot be read ({error})",
                         "Choose another folder, or delete this one.") from error
    # the encoder is a setting too; it stands beside the others where all who use the dataset find it
    return {**value.get("settings", {}), "encoder": value.get("encoder")} if record.name == "dataset.json" else value


def _build(video: Path, root: Path, settings: dict, wave: np.ndarray, features: str | Path | Encoder,
           expected: int) -> None:
    work = Workspace(root)
    size, key = settings["size"], {"version": settings["version"], "video": settings["video"]}

    scanned = work.run("scan", lambda step: track.scan(step, video, expected), key)
    seen = track.load_scan(scanned)
    tracked = work.run("track", lambda step: track.track(step, video, seen), needs=["scan"])
    raw = joined_chunks(tracked)
    if not raw["found"].any():
        raise InputError("a face in the clip", "none that could be tracked",
                         "Use a clip that shows one person's face from the front, well lit and not too small.")
    n = seen.num_frames
    square = cropping.choose_crop(raw["landmarks"], raw["found"], seen.width, seen.height)
    landmarks = face.fill_gaps(cropping.to_crop(raw["landmarks"], square, size), raw["found"])
    cut = work.run("frames", lambda step: cropping.write_frames(step, video, root / "frames", n, square, size),
                   {"size": size}, ["track"], clears="frames")
    person = masks.PersonStore(cut, n)
    posed = work.run("pose", lambda step: _pose(step, landmarks, raw["found"], size, settings["focal"]),
                     {"size": size, "focal": settings["focal"]}, ["track"])
    masked = work.run("masks", lambda step: masks.write_masks(step, root / "masks", root / "frames", person, landmarks),
                      needs=["frames"], clears="masks")
    plated = work.run("plate", lambda step: plate.write_plate(step, root, n), needs=["masks"])
    poses = read_npz(posed.folder / "pose.npz")
    focal, opening = float(poses.pop("focal")), aperture(landmarks)
    mouth = lower_face(motion(landmarks, poses["w2c"], poses["mean_face"], focal, size))
    heard = work.run("sound", lambda step: _sound(step, root, wave, features, mouth, opening),
                     {"features": settings["features"], "encoder": settings["encoder"]}, ["pose"])
    late = float(read_npz(heard.folder / "sound.npz")["late"])

    tracking = {"landmarks": landmarks, "found": raw["found"], **poses,
                "blink": face.blink_curve(landmarks, raw["found"]), "aperture": opening,
                "lip_rect": face.rectangles(landmarks, face.LIPS, face.LIP_MARGIN, size),
                "eye_rect": face.rectangles(landmarks, face.EYE_REGION, face.EYE_MARGIN, size)}
    write_npz(root / "tracking.npz", **tracking)
    padded = sound.load_audio(root / "audio.wav")
    uncovered = float(read_npz(plated.folder / "plate.npz")["uncovered"])
    person_share = 1 - float(joined_chunks(masked)["shares"][:, 2].mean())
    report = quality.measure(seen, landmarks, raw["found"], tracking["w2c"], tracking["reprojection"], square, size,
                             opening, tracking["blink"], padded, uncovered, person_share, late)
    report["warnings"] = quality.find_problems(report)
    report["seconds_per_step"] = {name: step.seconds for name, step in work.steps.items()}
    (root / "report").mkdir(exist_ok=True)
    overlay.write_sheet(root, tracking, focal)
    overlay.write_curves(root, tracking, quality.euler(tracking["w2c"]), padded)
    write_json(root / "report.json", report)
    write_json(root / "dataset.json", {
        "format": FORMAT, "source": video.name, "fps": FPS, "size": size, "num_frames": n, "crop": list(square),
        "focal": focal, "encoder": settings["encoder"], "num_train": max(1, n * 10 // 11),
        "settings": {name: value for name, value in settings.items() if name != "encoder"}})
    work.remove()


def _pose(step: Step, landmarks: np.ndarray, found: np.ndarray, size: int, focal: float | None) -> None:
    result = pose.solve_pose(landmarks, found, size, focal)
    write_npz(step.folder / "pose.npz", w2c=result.w2c, mean_face=result.mean_face, reprojection=result.reprojection,
              focal=np.float64(result.focal))


def _sound(step: Step, root: Path, wave: np.ndarray, features: str | Path | Encoder, mouth: np.ndarray,
           opening: np.ndarray) -> None:
    """Write audio.wav, in time with the picture and of its length, and features.npy, from an encoder or a file.

    Features from a file stay beside the sound that they were made from.
    """
    num_frames, late = len(mouth), 0.0
    samples = num_frames * SAMPLES_PER_FRAME
    if isinstance(features, Encoder):
        late, _ = offset.sound_offset(np.pad(wave[:samples], (0, max(0, samples - len(wave)))), mouth, opening)
        wave = offset.moved_earlier(wave, late)
    windows = (features.features(wave[:samples], num_frames) if isinstance(features, Encoder)
               else sound.load_features(features, wave))
    if len(windows) < num_frames:
        # one frame shorter is within rounding: the last window is held
        windows = np.concatenate([windows, np.repeat(windows[-1:], num_frames - len(windows), axis=0)])
    temporary = root / ".features.npy"
    np.save(temporary, windows[:num_frames])
    os.replace(temporary, root / "features.npy")
    write_npz(step.folder / "sound.npz", late=np.float64(late))
    sound.save_wav(root / "audio.wav", np.pad(wave[:samples], (0, max(0, samples - len(wave)))))
