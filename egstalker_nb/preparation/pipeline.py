"""`prepare`: its arguments, and what becomes of errors. The steps are in `build`, the folder's state is in `folder`."""
from __future__ import annotations

import math
import warnings
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Mapping, Optional

import numpy as np

from ..core.errors import InputError, UnfinishedError, first_line
from ..core.files import shortened, writing_to
from ..core.reading import Unreadable, digest, shown
from ..data.dataset import Dataset, load_dataset
from ..media import audio
from ..media.rates import FPS
from ..media.video_reader import VideoInfo, probe
from ..speech.encoders import BUILT_IN, DEFAULT_ENCODER, EXTERNAL, Encoder, load_encoder
from . import folder
from .build import Clip, build
from .crop import MAX_SIZE, MIN_SIZE, NATIVE, SIZE_STEP
from .parallel import enough_memory
from .people import FACES, FaceChoice
from .shots import SCENES, Scenes
from .source import InputFile, UnusableClipError

#: incremented when a step computes something else than before, so that unfinished datasets are not continued with it
VERSION = 3
#: frames for which the last window of given features may be repeated, if the audio ends before the video
MAX_REPEATED = 25


def prepare(video: str | Path, out: str | Path, size: int | Literal["native"] = 512,
            features: str | Path | None = None, focal: float | None = None, encoder: str | Path = DEFAULT_ENCODER,
            face: FaceChoice = "largest", scenes: Scenes = "longest", track: Optional[int] = None) -> Dataset:
    """Turn a talking-head video into a dataset folder.

    Interrupted work continues where it stopped, and what was damaged meanwhile is made again; with other settings, the
    steps that depend on them are repeated. A finished folder is returned at once, and other settings for it are
    refused. Files that are not the dataset's are never touched. No images are kept in memory, only landmarks and audio:
    about 40 KiB a frame, 0.3 GB for five minutes. From 20 s on, chunks are processed in parallel.

    Args:
        video: a clip of one person with audio, at any size and frame rate. An alpha channel is used as it is: it
            separates the person, over plain grey.
        out: the dataset folder to write: a new or an empty one, or this video's. Video and features lie elsewhere.
        size: side of the square frames in px, a multiple of 16 from 64 to 1024; `native` is that of the head's crop in
            the video, rounded down to one of these. Above it frames are enlarged, which adds no detail.
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
            usable; the encoder does not exist; the folder holds something else, another preparation is at work in it,
            or the video is in it.
        UnfinishedError: the work was interrupted, by a full disk (StorageError), for want of memory (MemoryLimitError),
            or because the video or the folder was changed: the same call continues it.
        DatasetError: frames are missing at the end, without a reason.
        MissingPackageError: a CTC encoder without `transformers`.
    """
    video, root = Path(video), Path(out)
    features = None if features is None else Path(features)
    _check_settings(size, focal, face, scenes, track)
    info = check_video(video)
    source: Encoder | Path = _load_encoder(encoder) if features is None else _checked_features_file(features)
    given = [InputFile.now(path) for path in (video, features) if path]
    settings = {"version": VERSION, "video": digest(video), "size": size if size == NATIVE else int(size),
                "features": None if features is None else digest(features),
                "focal": focal.item() if isinstance(focal, np.generic) else focal,
                "encoder": source.spec if isinstance(source, Encoder) else EXTERNAL,
                "face": face, "scenes": scenes, "track": None if track is None else int(track)}
    inputs = [file.path for file in given]
    if folder.is_finished(root, settings, inputs):
        folder.remove_leftover_work(root)
        return load_dataset(root)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        wave = audio.load_audio(video, track=track)
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    windows = source if isinstance(source, Encoder) else _load_features(source, wave, info)
    for file in given:
        with file.unchanged():
            pass
    clip = Clip(given[0], info, wave, notes, windows)
    with folder.exclusive(root):
        if not folder.is_finished(root, settings, inputs):  # asked again: now nobody else can change it
            _build(clip, root, settings)
    return load_dataset(root)


def _build(clip: Clip, root: Path, settings: dict[str, Any]) -> None:
    """Prepare in a folder that is ours. Whatever goes wrong, the same call continues; unless the clip is unusable."""
    folder.open_folder(root, settings)
    try:
        with writing_to(root), enough_memory():
            build(clip, root, settings)
    except UnusableClipError:
        folder.remove_partial_results(root)
        raise
    except Unreadable as error:
        raise UnfinishedError("the results of the finished steps", str(error),
                              "Repeat the same call: what is damaged is made again.") from error


def _load_features(features: Path, wave: np.ndarray, info: VideoInfo) -> np.ndarray:
    """Features from a file. Those of audio that ends long before the video are refused.

    Raises:
        InputError: the file is not usable, or more than `MAX_REPEATED` frames are missing.
    """
    windows = audio.load_features(features, wave)
    missing = info.frames_at() - len(windows)
    if missing > MAX_REPEATED:
        raise InputError("features as long as the video", f"{missing / FPS:.1f} s less",
                         "Trim the video to the length of its audio, or use audio that is as long as the video.")
    return windows


def check_video(video: str | Path) -> VideoInfo:
    """Properties of a video that has the image and audio streams that preparation needs.

    Raises:
        InputError: it is missing, not a video, or without audio.
    """
    info = probe(video)
    if not info.has_audio:
        raise InputError("a video with audio", f"'{shortened(video)}' without an audio stream",
                         "Record the clip with audio, or add its audio track in a video editor: the mouth is trained "
                         "on it.")
    return info


def _checked_features_file(features: Path) -> Path:
    if not features.is_file():
        raise InputError("a .npy file of features", f"no file at '{shortened(features)}'", "Check the path.")
    return features


def _load_encoder(encoder: str | Path | Mapping[str, Any]) -> Encoder:
    """Load an encoder; a name that can be none is an error like that of one that does not exist.

    Raises:
        InputError: see `load_encoder`.
    """
    expected = f"an encoder: {', '.join(BUILT_IN)}, or a CTC speech model on this computer"
    if not isinstance(encoder, (str, Path, Mapping)) or not str(encoder).strip() or "\0" in str(encoder):
        raise InputError(expected, shown(encoder), f"Omit it to use '{DEFAULT_ENCODER}'.")
    try:
        return load_encoder(encoder)
    except OSError as error:  # a name that is too long for a path
        raise InputError(expected, f"{shown(encoder)} ({error.strerror or first_line(error)})",
                         f"Omit it to use '{DEFAULT_ENCODER}'.") from error


def _check_settings(size: int | str, focal: float | None, face: str, scenes: str, track: Optional[int]) -> None:
    _check_size(size, focal)
    for name, value, allowed in (("face", face, FACES), ("scenes", scenes, SCENES)):
        if not isinstance(value, str) or value not in allowed:
            raise InputError(f"{name}={', '.join(map(repr, allowed))}", shown(value), "Choose one of these.")
    if track is not None and (not _is_integer(track) or track < 1):
        raise InputError("track, the number of an audio track from 1 on, or None", shown(track),
                         "Omit it: the track that players choose is taken.")


def _check_size(size: int | str, focal: float | None) -> None:
    if isinstance(size, str) and size == NATIVE:
        if focal is not None:
            raise InputError("a size in px for a focal length, which is in px at that size", f"size='{NATIVE}'",
                             "Omit one of the two.")
        return
    if not _is_integer(size) or not MIN_SIZE <= int(size) <= MAX_SIZE or int(size) % SIZE_STEP:
        raise InputError(f"an image size that is a multiple of {SIZE_STEP} from {MIN_SIZE} to {MAX_SIZE}, or {NATIVE}",
                         shown(size), "Use 512, or 256 for quick trials.")
    real = isinstance(focal, Real) and not isinstance(focal, bool) and math.isfinite(focal)
    if focal is not None and not (real and 0.5 * int(size) <= focal <= 20 * int(size)):
        raise InputError(f"a focal length of {int(size) // 2} to {20 * int(size)} px at size {size}", shown(focal),
                         "Omit it: the default works for most clips.")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
