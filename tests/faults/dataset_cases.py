"""Bad input: datasets with each of their files missing, truncated, contradicting the others, or from elsewhere."""
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np

from .bad_input import Case
from .made import DATASET


def broken(*breaks: Callable[[Path], Any]) -> Callable[[Path], list[Any]]:
    """The command that gets a dataset in which something was changed."""
    def command(folder: Path) -> list[Any]:
        data = shutil.copytree(DATASET, folder / "data")
        for change in breaks:
            change(data)
        return ["train", "data", "run", "--config", "quick_test", "--device", "cpu"]

    return command


def missing(name: str) -> Callable[[Path], list[Any]]:
    def remove(data: Path) -> None:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return broken(remove)


def cut(name: str, share: float = 0.5) -> Callable[[Path], list[Any]]:
    def change(data: Path) -> None:
        content = (data / name).read_bytes()
        (data / name).write_bytes(content[:int(len(content) * share)])

    return broken(change)


def meta(**values: Any) -> Callable[[Path], list[Any]]:
    """Other values in dataset.json; None removes one."""
    def change(data: Path) -> None:
        known = {**json.loads((data / "dataset.json").read_text()), **values}
        (data / "dataset.json").write_text(json.dumps({k: v for k, v in known.items() if v is not None}))

    return broken(change)


def camera(values: np.ndarray) -> Callable[[Path], list[Any]]:
    """A camera that moves in tracking.npz."""
    def write(data: Path) -> None:
        with np.load(data / "tracking.npz") as file:
            arrays = dict(file)
        np.savez(data / "tracking.npz", **arrays, camera=values)

    return broken(write)


def tracking(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], list[Any]]:
    """Another array in tracking.npz."""
    def write(data: Path) -> None:
        with np.load(data / "tracking.npz") as file:
            arrays = dict(file)
        np.savez(data / "tracking.npz", **{**arrays, name: change(arrays[name].copy())})

    return broken(write)


def features(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], list[Any]]:
    return broken(lambda data: np.save(data / "features.npy", change(np.load(data / "features.npy"))))


def text(name: str, content: str) -> Callable[[Path], list[Any]]:
    return broken(lambda data: (data / name).write_text(content))


def with_value(at: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[at] = value
        return array

    return change


def loop(name: str) -> Callable[[Path], list[Any]]:
    """A link to itself in place of a file."""
    def change(data: Path) -> None:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(path.name)

    return broken(change)


def _other_size(data: Path) -> None:
    path = str(data / "frames" / "000000.jpg")
    cv2.imwrite(path, cv2.resize(cv2.imread(path), (32, 32)))


def _nothing(folder: Path) -> list[Any]:
    return ["train", "no such folder", "run", "--config", "quick_test"]


def _a_file(folder: Path) -> list[Any]:
    (folder / "data").write_text("x")
    return ["train", "data", "run", "--config", "quick_test"]



CASES: list[Case] = [
    Case("dataset_none", _nothing, ("a prepared dataset in 'no such folder'", "egs.prepare")),
    Case("dataset_is_a_file", _a_file, ("a prepared dataset", "none")),
    Case("dataset_json_missing", missing("dataset.json"), ("dataset.json", "none")),
    Case("dataset_json_cut", cut("dataset.json"), ("dataset.json", "not JSON")),
    Case("dataset_json_empty", text("dataset.json", ""), ("dataset.json", "not JSON")),
    Case("dataset_json_list", text("dataset.json", "[1, 2]"), ("not a JSON object",)),
    Case("dataset_json_deep", text("dataset.json", "[" * 100_000), ("not JSON",)),
    Case("dataset_json_is_a_link_loop", loop("dataset.json"), ("none",)),
    Case("dataset_without_format", meta(format=None), ("no format",)),
    Case("dataset_of_a_later_version", meta(format=2), ("format 2", "a later version", "update")),
    Case("dataset_of_no_version", meta(format=-1), ("format -1",)),
    Case("dataset_without_size", meta(size=None), ("no size", "16 ... 4096")),
    Case("dataset_size_as_text", meta(size="64"), ("size '64'",)),
    Case("dataset_negative_focal", meta(focal=-160.0), ("focal -160.0",)),
    Case("dataset_focal_nan", meta(focal=float("nan")), ("focal nan",)),
    Case("dataset_focal_huge", meta(focal=10 ** 400), ("focal 10000",)),
    Case("dataset_other_fps", meta(fps=30), ("fps 30",)),
    Case("dataset_more_frames", meta(num_frames=13), ("[13, 16, 29]", "features.npy")),
    Case("dataset_no_frames", meta(num_frames=0), ("num_frames 0",)),
    Case("dataset_too_many_for_training", meta(num_train=13), ("num_train 13", "1 ... 12")),
    Case("dataset_encoder_as_text", meta(encoder="phones"), ("encoder 'phones'",)),
    Case("dataset_crop_of_text", meta(crop=["a", 0, 64]), ("crop ['a', 0, 64]",)),
    Case("dataset_settings_as_list", meta(settings=[1]), ("settings [1]",)),
    Case("dataset_features_missing", missing("features.npy"), ("no file", "features.npy")),
    Case("dataset_features_cut", cut("features.npy"), ("features.npy", "announces")),
    Case("dataset_features_of_objects", features(lambda x: x.astype(object)), ("Python objects",)),
    Case("dataset_features_complex", features(lambda x: x.astype(np.complex64)), ("complex numbers",)),
    Case("dataset_features_nan", features(with_value((5, 0, 0), np.nan)), ("NaN or infinite", "entry 5")),
    Case("dataset_features_huge", features(with_value((5, 0, 0), 1e30)), ("features with 1.0",)),
    Case("dataset_features_integers", features(lambda x: x.astype(int)), ("int64", "floats [12, 16, 29]")),
    Case("dataset_tracking_missing", missing("tracking.npz"), ("no file", "tracking.npz")),
    Case("dataset_tracking_cut", cut("tracking.npz"), ("tracking.npz", "damaged")),
    Case("dataset_tracking_text", text("tracking.npz", "no archive"), ("tracking.npz", "damaged")),
    Case("dataset_tracking_other_length", tracking("blink", lambda x: x[:-1]), ("blink", "[11]", "[12]")),
    Case("dataset_tracking_other_dtype", tracking("found", lambda x: x.astype(float)), ("found", "booleans")),
    Case("dataset_tracking_nan", tracking("w2c", with_value((3, 0, 0), np.nan)), ("w2c", "NaN", "entry 3")),
    Case("dataset_not_rigid", tracking("w2c", with_value((3, 0, 0), 5.0)), ("w2c of frame 3", "a rotation")),
    Case("dataset_head_behind_the_camera", tracking("w2c", with_value((3, 2, 3), -9.0)), ("frame 3", "in front")),
    Case("dataset_camera_other_length", camera(np.zeros((11, 7), np.float32)), ("camera", "[11, 7]", "[12, 7]")),
    Case("dataset_camera_huge", camera(np.full((12, 7), 9, np.float32)), ("camera of frame 0", "small motion")),
    Case("dataset_rectangle_outside", tracking("lip_rect", with_value((3, 2), 65)), ("lip_rect of frame 3", "64 px")),
    Case("dataset_rectangle_empty", tracking("eye_rect", with_value((3, 2), 0)), ("eye_rect of frame 3",)),
    Case("dataset_blink_outside", tracking("blink", with_value((3,), 1.5)), ("blink of frame 3",)),
    Case("dataset_audio_missing", missing("audio.wav"), ("no audio.wav",)),
    Case("dataset_audio_cut", cut("audio.wav"), ("audio.wav", "3829 samples", "7680")),
    Case("dataset_audio_text", text("audio.wav", "no sound"), ("audio.wav", "no WAV")),
    Case("dataset_background_missing", missing("background.png"), ("no background.png",)),
    Case("dataset_background_cut", cut("background.png"), ("background.png", "64 x 64 px")),
    Case("dataset_frames_missing", missing("frames"), ("no folder frames/",)),
    Case("dataset_masks_are_a_link_loop", loop("masks"), ("masks/",)),
    Case("dataset_frame_missing", missing("frames/000007.jpg"), ("no frames/000007.jpg",)),
    Case("dataset_mask_missing", missing("masks/000011.png"), ("no masks/000011.png",)),
    Case("dataset_frame_too_many", broken(lambda data: shutil.copy(data / "frames" / "000000.jpg",
                                                                   data / "frames" / "000012.jpg")),
          ("12 frames", "frames/000012.jpg")),
    Case("dataset_frame_cut", cut("frames/000000.jpg", 0.9), ("000000.jpg", "cut off")),
    Case("dataset_frame_empty", cut("frames/000000.jpg", 0.0), ("000000.jpg", "cut off")),
    Case("dataset_frame_of_another_size", broken(_other_size), ("64 x 64 px", "000000.jpg", "32 x 32 px")),
    Case("dataset_mask_cut", cut("masks/000000.png", 0.9), ("000000.png", "cut off")),
]
