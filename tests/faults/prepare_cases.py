"""Bad input of `egs prepare`: folders of others, inputs in the folder, settings, features, clips without a face."""
from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from egstalker_nb.core.reading import digest
from egstalker_nb.media.video_writer import write_video

from .bad_input import Case

COUNT = 50
_folder = tempfile.TemporaryDirectory(prefix="bad-input-")


@cache
def clip(shade: int = 120, count: int = COUNT, audio: bool = True) -> Path:
    """A grey video without a face, made once."""
    images = (np.full((64, 64, 3), shade, np.uint8) for _ in range(count))
    wave = np.random.default_rng(0).normal(0, 0.1, count * 640).astype(np.float32)
    return write_video(Path(_folder.name) / f"{shade}-{count}-{audio}.mp4", images, wave if audio else None)


def prepare(*options: Any, **kinds: Any) -> Callable[[Path], list[Any]]:
    """The command on a clip of some kind, with options."""
    return lambda folder: ["prepare", clip(**kinds), "ds", *options]


def into(make: Callable[[Path], Any]) -> Callable[[Path], list[Any]]:
    """The command on a folder `ds`, which exists and in which something is made first."""
    def command(folder: Path) -> list[Any]:
        (folder / "ds").mkdir()
        make(folder / "ds")
        return ["prepare", clip(), "ds"]

    return command


def given(features: Optional[np.ndarray] = None, data: bytes = b"") -> Callable[[Path], list[Any]]:
    """The command with a file of features."""
    def command(folder: Path) -> list[Any]:
        if features is not None:
            np.save(folder / "own.npy", features)
        else:
            (folder / "own.npy").write_bytes(data)
        return ["prepare", clip(), "ds", "--features", "own.npy"]

    return command


def file(name: str, text: str = "mine") -> Callable[[Path], Any]:
    def make(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return make


def dataset(video: Optional[str] = None, **settings: Any) -> Callable[[Path], Any]:
    """A finished dataset, as far as its folder says."""
    def make(root: Path) -> None:
        of = {"video": video or digest(clip()), "size": 512, "features": None, "focal": None, **settings}
        (root / "dataset.json").write_text(json.dumps({"format": 1, "encoder": {"name": "phones"}, "settings": of}))

    return make


def unfinished(video: Optional[str] = None) -> Callable[[Path], Any]:
    """An unfinished dataset of the clip, or of another video."""
    def make(root: Path) -> None:
        file(".work/settings.json", json.dumps({"version": 3, "video": video or digest(clip())}))(root)

    return make


def linked(name: str, is_folder: bool = False) -> Callable[[Path], Any]:
    """An unfinished dataset in which something is a link to the user's own."""
    def make(root: Path) -> None:
        unfinished()(root)
        own = root.parent / "own"
        own.mkdir()
        (own / "notes.txt").write_text("mine")
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(own if is_folder else own / "notes.txt")

    return make


def work_elsewhere(root: Path) -> None:
    (root.parent / "own").mkdir()
    unfinished()(root.parent / "own")
    (root / ".work").symlink_to(root.parent / "own" / ".work")


def copied(to: str, *command: str) -> Callable[[Path], list[Any]]:
    """A command, after the clip was copied."""
    def make(folder: Path) -> list[Any]:
        (folder / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip(), folder / to)
        return ["prepare", *command]

    return make


def through_links(folder: Path) -> list[Any]:
    (folder / "real").mkdir()
    shutil.copy(clip(), folder / "real" / "clip.mp4")
    (folder / "ds").symlink_to("real")
    (folder / "clip.mp4").symlink_to(folder / "real" / "clip.mp4")
    return ["prepare", "clip.mp4", "ds"]


def features_inside(folder: Path) -> list[Any]:
    (folder / "ds").mkdir()
    np.save(folder / "ds" / "features.npy", np.zeros((COUNT, 16, 29), np.float32))
    return ["prepare", clip(), "ds", "--features", "ds/features.npy"]


def link(to: str) -> Callable[[Path], list[Any]]:
    def make(folder: Path) -> list[Any]:
        os.symlink(to, folder / "ds")
        return ["prepare", clip(), "ds"]

    return make


ELSE, NO_FACE = ("empty folder", "something else"), ("face", "none")
INSIDE = ("outside the dataset folder", "inside it")
FEATURES = np.zeros((COUNT, 16, 29), np.float32)

CASES: list[Case] = [
    # folders of others
    *(Case(f"prepare_into_a_folder_with_{Path(name).stem}", into(file(name)), (*ELSE, name.split("/")[0]))
      for name in ("audio.wav", "background.png", "report.json", "frames/0.jpg", "report/notes.txt", "thesis.tex")),
    Case("prepare_into_work_of_another_program", into(file(".work/settings.json", "{}")), ELSE),
    Case("prepare_into_a_file_named_work", into(file(".work")), ("a link or a file", ".work")),
    Case("prepare_into_work_that_is_a_link", into(work_elsewhere), ("a link or a file", ".work")),
    Case("prepare_into_another_dataset", into(dataset("0" * 64)), ("another video",)),
    Case("prepare_into_another_unfinished_dataset", into(unfinished("0" * 64)), ("unfinished dataset of another",)),
    Case("prepare_with_another_size", into(dataset(size=256)), ("size 256 there, 512 now",)),
    Case("prepare_into_somebodys_dataset_json", into(file("dataset.json", "[1]")), ("not a JSON object",)),
    Case("prepare_into_a_cut_off_dataset_json", into(file("dataset.json", '{"format": 1, ')), ("not JSON",)),
    Case("prepare_into_a_dataset_json_of_lists", into(file("dataset.json", '{"settings": [1, 2]}')), ("no dataset",)),
    Case("prepare_into_a_link_to_nowhere", link("nowhere"), ("link that leads nowhere",)),
    Case("prepare_into_a_link_loop", link("ds"), ("link that leads nowhere",)),
    Case("prepare_through_a_link_named_frames", into(linked("frames", True)), ("no links", "frames")),
    Case("prepare_through_a_link_named_audio", into(linked("audio.wav")), ("no links", "audio.wav")),
    Case("prepare_through_a_link_among_frames", into(linked("frames/000001.jpg")), ("no links", "000001.jpg")),
    # inputs and output in each other's way
    Case("prepare_into_the_video", copied("clip.mp4", "clip.mp4", "clip.mp4"), ("a folder to write to", "a file at")),
    Case("prepare_below_the_video", copied("clip.mp4", "clip.mp4", "clip.mp4/ds"), ("clip.mp4/ds",)),
    Case("prepare_beside_the_video", copied("clip.mp4", "clip.mp4", "."), INSIDE),
    Case("prepare_into_a_parent", copied("a/b/clip.mp4", "a/b/clip.mp4", "a"), INSIDE),
    Case("prepare_into_a_parent_by_dots", copied("a/b/clip.mp4", "a/b/clip.mp4", "a/b/c/../.."), INSIDE),
    Case("prepare_into_a_parent_through_links", through_links, INSIDE),
    Case("prepare_with_features_in_the_folder", features_inside, INSIDE),
    Case("prepare_into_a_name_that_is_too_long", lambda folder: ["prepare", clip(), "d" * 300], ("shorter name",)),
    # settings
    *(Case(f"prepare_size_{size}", prepare("--size", size), ("multiple of 16", "native", size))
      for size in ("0", "-64", "500", "4096")),
    Case("prepare_track_0", prepare("--track", "0"), ("audio track", "0")),
    Case("prepare_track_9", prepare("--track", "9"), ("track", "9")),
    *(Case(f"prepare_encoder_{name}", prepare("--encoder", text), ("encoder",)) for name, text in
      (("misspelt", "lgomel"), ("empty", ""), ("too_long", "e" * 5000), ("of_two_lines", "phones\nlogmel"))),
    # features
    Case("prepare_features_missing", prepare("--features", "no.npy"), ("features", "no.npy")),
    Case("prepare_features_too_short", given(FEATURES[:20]), ("50 frames", "20 frames")),
    Case("prepare_features_of_nan", given(FEATURES * np.nan), ("NaN",)),
    Case("prepare_features_of_another_shape", given(FEATURES[:, :8]), ("16, 29",)),
    Case("prepare_features_of_objects", given(np.array([{"a": 1}])), ("own.npy",)),
    Case("prepare_features_of_text", given(data=b"features"), ("own.npy",)),
    # clips
    Case("prepare_without_audio", prepare(audio=False), ("a video with audio", "without an audio stream")),
    Case("prepare_without_a_face", prepare(), NO_FACE),
    Case("prepare_black", prepare(shade=0), NO_FACE),
    Case("prepare_one_frame_without_a_face", prepare(count=1), NO_FACE),
    Case("prepare_into_new_folders_without_a_face", lambda folder: ["prepare", clip(), "a/b/c"], NO_FACE),
]
