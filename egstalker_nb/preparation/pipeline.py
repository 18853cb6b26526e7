"""`prepare`: all steps from a video to a dataset folder, each done once."""
from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ..core.errors import EgsError, InputError, UnfinishedError
from ..core.files import exclusive_lock, make_folder, writing_to
from ..data.dataset import Dataset, load_dataset
from ..media import audio as sound
from ..media.rates import FPS
from ..media.video_reader import VideoInfo, probe
from ..speech.encoders import DEFAULT_ENCODER, EXTERNAL, describe, load_encoder
from .build import Clip, build
from .people import FACES, Face
from .shots import Scenes
from .steps import WORK, write_json

#: raised where a step computes something else than before, so that half-made datasets are not continued with it
VERSION = 3
#: what earlier versions did where they did not ask
EARLIER = {"face": "largest", "track": None}
#: frames for which the last window of given features is held where the sound ends before the picture
MAX_HELD = 25


def prepare(video: str | Path, out: str | Path, size: int = 512, features: str | Path | None = None,
            focal: float | None = None, encoder: str | Path = DEFAULT_ENCODER, face: Face = "largest",
            scenes: Scenes = "longest", track: Optional[int] = None) -> Dataset:
    """Turn a talking-head video into a dataset folder.

    Interrupted work continues where it stopped; with other settings, what they touch is redone. A finished folder is
    returned at once, and other settings for it are refused. Memory does not grow with the length of the clip; from
    20 s on the work is spread over processes.

    Args:
        video: a clip of one person with sound, at any size and frame rate. A transparent background is taken as it
            is: its alpha separates the person, over plain grey.
        out: the dataset folder to write.
        size: side of the square pictures in px, a multiple of 16 from 64 to 1024.
        features: `.npy` [num_frames, 16, 29] to use instead of computing them from the sound.
        focal: focal length in px at `size`; by default 2.5 picture widths (see `pose.FOCAL_WIDTHS`).
        encoder: what computes features from the sound, see `load_encoder`: the heads of this dataset will always be
            driven by it. Not used with `features`.
        face: of several people in view the `largest`, the one on the `left` or `right` (as the viewer sees them), or
            the one `speaking`: whose mouth moves with the sound.
        scenes: of a video with cuts, the `longest` shot that shows a face, or `all` of it.
        track: number of the audio track, see `load_audio`; by default the one that players take.

    Returns:
        the Dataset. `dataset.report["warnings"]` says in plain sentences what will make it train badly, and
        `dataset.report["account"]` what became of every frame; `report/overlays.jpg` and `report/curves.jpg` show
        what was found.

    Raises:
        InputError: the video is missing, not a video, without sound or without a face; a setting or the folder is not
            usable; the encoder is not there; the folder holds another video's dataset.
        DatasetError: frames are missing at the end, without a reason.
        MissingPackageError: a CTC encoder without `transformers`.
    """
    video, root = Path(video), Path(out)
    _check_settings(size, focal, face, scenes)
    info = check_video(video)
    listener = load_encoder(encoder) if features is None else None
    settings = {"version": VERSION, "video": _digest(video), "size": int(size),
                "features": None if features is None else _digest(_existing(features)), "focal": focal,
                "encoder": EXTERNAL if listener is None else listener.spec, "face": face, "scenes": scenes,
                "track": track}
    if _finished(root, settings):
        return load_dataset(root)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        wave = sound.load_audio(video, track=track)
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    if features is not None:
        _check_lengths(features, wave, info)
    with exclusive_lock(make_folder(root), "preparation"):
        _open(root, settings)
        try:
            build(Clip(video, info, wave, notes, listener or features), root, settings)
        except UnfinishedError:
            raise
        except EgsError:
            _remove_begun(root)
            raise
    return load_dataset(root)


def _check_lengths(features: str | Path, wave: np.ndarray, info: VideoInfo) -> None:
    """Refuse features of a sound that ends long before the picture."""
    missing = info.frames_at() - len(sound.load_features(features, wave))
    if missing > MAX_HELD:
        raise InputError("features as long as the picture", f"{missing / FPS:.1f} s less",
                         "Cut the video to the length of its sound, or take a sound that is as long as the picture.")


def _remove_begun(root: Path) -> None:
    """Take away what was made of an unusable clip: it would refuse the next one."""
    for step, made in (("frames", ("frames", "masks")), ("plate", ("background.png",)),
                       ("sound", ("audio.wav", "features.npy", "tracking.npz", "report", "report.json"))):
        if (root / WORK / step).is_dir():
            for name in made:
                shutil.rmtree(root / name, ignore_errors=True)
                if (root / name).is_file():
                    (root / name).unlink()
    shutil.rmtree(root / WORK, ignore_errors=True)
    if [path.name for path in root.iterdir()] == [".preparation.lock"]:
        shutil.rmtree(root)


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


def _check_settings(size: int, focal: float | None, face: str, scenes: str) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 64 <= size <= 1024 or size % 16:
        raise InputError("a picture size that is a multiple of 16 from 64 to 1024", repr(size),
                         "Use 512, or 256 for quick trials.")
    if focal is not None and not 0.5 * size <= focal <= 20 * size:
        raise InputError(f"a focal length of {size // 2} to {20 * size} px at size {size}", repr(focal),
                         "Leave it out: the usual value does for most clips.")
    for name, value, allowed in (("face", face, FACES), ("scenes", scenes, ("longest", "all"))):
        if value not in allowed:
            raise InputError(f"{name}={', '.join(map(repr, allowed))}", repr(value), "Choose one of these.")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _finished(root: Path, settings: dict[str, Any]) -> bool:
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
    # scenes: an earlier version kept all of them, and what is finished is not done again
    before = EARLIER | {"scenes": settings["scenes"]} | (records[0] if records else {})
    other = [f"{k} {_shown(k, before[k])} there, {_shown(k, v)} now" for k, v in settings.items()
             if k != "version" and k in before and before[k] != v]
    if made.is_file() and other:
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
