"""`prepare`: its arguments, and the state of the dataset folder; the steps are in `build`."""
from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ..core.errors import EgsError, InputError, UnfinishedError
from ..core.files import exclusive_lock, make_folder, write_json, writing_to
from ..data.dataset import Dataset, load_dataset
from ..media import audio
from ..media.rates import FPS
from ..media.video_reader import VideoInfo, probe
from ..speech.encoders import DEFAULT_ENCODER, EXTERNAL, Encoder, describe, load_encoder
from .build import Clip, build
from .people import FACES, FaceChoice
from .shots import SCENES, Scenes
from .steps import WORK

#: incremented when a step computes something else than before, so that unfinished datasets are not continued with it
VERSION = 3
#: values of settings that earlier versions did not have
EARLIER_SETTINGS = {"face": "largest", "track": None}
#: frames for which the last window of given features may be repeated, if the audio ends before the video
MAX_REPEATED = 25


def prepare(video: str | Path, out: str | Path, size: int = 512, features: str | Path | None = None,
            focal: float | None = None, encoder: str | Path = DEFAULT_ENCODER, face: FaceChoice = "largest",
            scenes: Scenes = "longest", track: Optional[int] = None) -> Dataset:
    """Turn a talking-head video into a dataset folder.

    Interrupted work continues where it stopped; with other settings, the steps that depend on them are repeated. A
    finished folder is returned at once, and other settings for it are refused. Memory does not grow with the length of
    the clip; from 20 s on, chunks are processed in parallel.

    Args:
        video: a clip of one person with audio, at any size and frame rate. An alpha channel is used as it is: it
            separates the person, over plain grey.
        out: the dataset folder to write.
        size: side of the square frames in px, a multiple of 16 from 64 to 1024.
        features: `.npy` [num_frames, 16, 29] to use instead of computing them from the audio.
        focal: focal length in px at `size`; by default 2.5 image widths (see `pose.FOCAL_WIDTHS`).
        encoder: the audio feature extractor, see `load_encoder`: heads trained on this dataset are always driven by its
            features. Not used with `features`.
        face: of several people in view the `largest`, the one on the `left` or `right` (as the viewer sees them), or
            the one `speaking`: whose mouth movement correlates with the audio.
        scenes: of a video with cuts, the `longest` shot that shows a face, or `all` of it.
        track: number of the audio track, see `load_audio`; by default the one that players choose.

    Returns:
        the Dataset. `dataset.report["warnings"]` lists in plain sentences what will make it train badly, and
        `dataset.report["account"]` which frames were kept; `report/overlays.jpg` and `report/curves.jpg` show
        the results of tracking.

    Raises:
        InputError: the video is missing, not a video, without audio or without a face; a setting or the folder is not
            usable; the encoder does not exist; the folder holds another video's dataset.
        DatasetError: frames are missing at the end, without a reason.
        MissingPackageError: a CTC encoder without `transformers`.
    """
    video, root = Path(video), Path(out)
    _check_settings(size, focal, face, scenes)
    info = check_video(video)
    feature_source: str | Path | Encoder = load_encoder(encoder) if features is None else features
    settings = {"version": VERSION, "video": _digest(video), "size": int(size),
                "features": None if features is None else _digest(_check_features_file(features)), "focal": focal,
                "encoder": feature_source.spec if isinstance(feature_source, Encoder) else EXTERNAL,
                "face": face, "scenes": scenes, "track": track}
    if _is_finished(root, settings):
        return load_dataset(root)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        wave = audio.load_audio(video, track=track)
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    if features is not None:
        _check_lengths(features, wave, info)
    with exclusive_lock(make_folder(root), "preparation"):
        _open(root, settings)
        try:
            build(Clip(video, info, wave, notes, feature_source), root, settings)
        except UnfinishedError:
            raise
        except EgsError:
            _remove_partial_results(root)
            raise
    return load_dataset(root)


def _check_lengths(features: str | Path, wave: np.ndarray, info: VideoInfo) -> None:
    """Refuse features of audio that ends long before the video.

    Raises:
        InputError: more than `MAX_REPEATED` frames are missing.
    """
    missing = info.frames_at() - len(audio.load_features(features, wave))
    if missing > MAX_REPEATED:
        raise InputError("features as long as the video", f"{missing / FPS:.1f} s less",
                         "Trim the video to the length of its audio, or use audio that is as long as the video.")


def _remove_partial_results(root: Path) -> None:
    """Remove what was written for an unusable clip: other clips would be refused because of it."""
    for step, written in (("frames", ("frames", "masks")), ("plate", ("background.png",)),
                          ("sound", ("audio.wav", "features.npy", "tracking.npz", "report", "report.json"))):
        if (root / WORK / step).is_dir():
            for name in written:
                shutil.rmtree(root / name, ignore_errors=True)
                if (root / name).is_file():
                    (root / name).unlink()
    shutil.rmtree(root / WORK, ignore_errors=True)
    if [path.name for path in root.iterdir()] == [".preparation.lock"]:
        shutil.rmtree(root)


def check_video(video: str | Path) -> VideoInfo:
    """Properties of a video that has the image and audio streams that preparation needs.

    Raises:
        InputError: it is missing, not a video, or without audio.
    """
    info = probe(video)
    if not info.has_audio:
        raise InputError("a video with audio", f"{video} without an audio stream",
                         "Record the clip with audio, or add its audio track in a video editor: the mouth is trained "
                         "on it.")
    return info


def _check_features_file(features: str | Path) -> Path:
    path = Path(features)
    if not path.is_file():
        raise InputError("a .npy file of features", f"no file at {path}", "Check the path.")
    return path


def _check_settings(size: int, focal: float | None, face: str, scenes: str) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 64 <= size <= 1024 or size % 16:
        raise InputError("an image size that is a multiple of 16 from 64 to 1024", repr(size),
                         "Use 512, or 256 for quick trials.")
    if focal is not None and not 0.5 * size <= focal <= 20 * size:
        raise InputError(f"a focal length of {size // 2} to {20 * size} px at size {size}", repr(focal),
                         "Omit it: the default works for most clips.")
    for name, value, allowed in (("face", face, FACES), ("scenes", scenes, SCENES)):
        if value not in allowed:
            raise InputError(f"{name}={', '.join(map(repr, allowed))}", repr(value), "Choose one of these.")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_finished(root: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder is a finished dataset with these settings.

    Raises:
        InputError: it holds something else.
    """
    if root.exists() and not root.is_dir():
        raise InputError("a folder to write to", f"a file at '{root}'", "Choose another path.")
    finished, unfinished = root / "dataset.json", root / WORK / "settings.json"
    records = [_read_settings(record) for record in (finished, unfinished) if record.is_file()]
    if any(before.get("video") != settings["video"] for before in records):
        raise InputError("an empty folder or one with this video's dataset",
                         f"'{root}' with the dataset of another video",
                         "Choose another folder, or delete this one.")
    if not records and any((root / name).exists() for name in ("frames", "masks")):
        raise InputError("an empty folder or an unfinished dataset", f"'{root}' with something else in it",
                         "Choose another folder.")
    # scenes: an earlier version kept all of them, and finished datasets are not prepared again
    before = EARLIER_SETTINGS | {"scenes": settings["scenes"]} | (records[0] if records else {})
    other = [f"{k} {_setting_text(k, before[k])} there, {_setting_text(k, v)} now" for k, v in settings.items()
             if k != "version" and k in before and before[k] != v]
    if finished.is_file() and other:
        raise InputError(f"the settings of the finished dataset in '{root}'", "; ".join(other),
                         "Use the settings that it was made with, or prepare into another folder: runs that were "
                         "trained on this one need it unchanged.")
    return finished.is_file()


def _setting_text(setting: str, value: object) -> str:
    return describe(value) if setting == "encoder" and isinstance(value, dict) else repr(value)


def _open(root: Path, settings: dict[str, Any]) -> None:
    """Create the folder, or reopen it: from now on it counts as unfinished."""
    with writing_to(root):
        (root / WORK).mkdir(parents=True, exist_ok=True)
        write_json(root / WORK / "settings.json", settings)
        (root / "dataset.json").unlink(missing_ok=True)


def _read_settings(record: Path) -> dict[str, Any]:
    try:
        value = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("a dataset folder", f"'{record}' that cannot be read ({error})",
                         "Choose another folder, or delete this one.") from error
    # in dataset.json the encoder, also a setting, is a key of its own: users of the dataset need it
    return {**value.get("settings", {}), "encoder": value.get("encoder")} if record.name == "dataset.json" else value
