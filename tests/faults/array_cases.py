"""Bad input: poses and blinks that are given as arrays in files, backgrounds, and what part of the picture is shown."""
from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Callable, Union

import numpy as np

from .bad_input import Case
from .made import DATASET, copy_run

Content = Union[np.ndarray, bytes, Callable[[], bytes]]


def npy(array: np.ndarray, announced: str = "") -> bytes:
    """A `.npy` file; with another shape in its header if one is `announced`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    data = buffer.getvalue()
    if announced:
        length = int.from_bytes(data[8:10], "little")
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {announced}, }}".ljust(length - 1) + "\n"
        data = data[:10] + header.encode() + data[10 + length:]
    return data


def motion(option: str, content: Callable[[], Content], name: str = "m.npy") -> Callable[[Path], list[Any]]:
    """The command that renders with these poses or blinks, or this background."""
    def command(folder: Path) -> list[Any]:
        made = content()
        copy_run(folder)
        (folder / name).write_bytes(made if isinstance(made, bytes) else npy(made))
        return ["render", "run", "--audio", "data/audio.wav", option, name, "--out", "out.mp4", "--device", "cpu"]

    return command


def given(*options: str) -> Callable[[Path], list[Any]]:
    """... with these options: names of poses, blinks or a background, a shape of the picture."""
    return lambda folder: ["render", copy_run(folder), "--audio", "data/audio.wav", *options, "--device", "cpu"]


def _poses() -> np.ndarray:
    with np.load(DATASET / "tracking.npz") as file:
        return file["w2c"].copy()


def _with(array: np.ndarray, at: Any, value: float) -> np.ndarray:
    array[at] = value
    return array


def _pickled() -> bytes:
    """An array of objects, one of which would make a folder if it were unpickled."""
    class Payload:
        def __reduce__(self) -> tuple:
            import os

            return os.mkdir, ("planted",)

    return npy(np.array([Payload()], dtype=object))


def _archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w2c=_poses())
    return buffer.getvalue()


CASES: list[Case] = [
    Case("poses_of_objects", motion("--poses", _pickled), ("m.npy", "Python objects")),
    Case("poses_wrong_shape", motion("--poses", lambda: np.zeros((12, 3, 3))), ("[F, 4, 4]", "[12, 3, 3]")),
    Case("poses_nan", motion("--poses", lambda: _with(_poses(), (2, 0, 0), np.nan)), ("m.npy", "NaN")),
    Case("poses_not_rigid", motion("--poses", lambda: 2 * _poses()), ("rigid", "frame 0")),
    Case("poses_too_few", motion("--poses", lambda: _poses()[:5]), ("12 frames", "5 frames")),
    Case("poses_ten_gigabytes", motion("--poses", lambda: npy(_poses(), f"({10 ** 8}, 4, 4)")), ("announces",)),
    Case("poses_archive_renamed", motion("--poses", _archive), ("m.npy", "no .npy")),
    Case("poses_too_large", motion("--poses", lambda: _with(_poses().astype(float), (2, 0, 3), 1e300)),
         ("finite", "first: 2")),
    Case("poses_complex", motion("--poses", lambda: _poses().astype(complex)), ("m.npy", "complex")),
    Case("poses_shape_negative", motion("--poses", lambda: npy(_poses(), "(-3, -64)")), ("m.npy", "announces")),
    Case("poses_behind_the_camera", motion("--poses", lambda: _with(_poses(), (2, 2, 3), -9)), ("in front", "frame 2")),
    Case("poses_empty", motion("--poses", lambda: b""), ("m.npy", "no .npy")),
    Case("poses_missing", given("--poses", "no.npy"), ("no.npy", "cycle")),
    Case("poses_are_a_folder", given("--poses", "."), ("a prepared dataset", "none")),
    Case("blinks_wrong_shape", motion("--blink", lambda: np.zeros((12, 2))), ("[F]", "[12, 2]")),
    Case("blinks_outside", motion("--blink", lambda: np.full(12, 2.0)), ("0 open ... 1 closed", "2.00")),
    Case("blinks_text_renamed", motion("--blink", lambda: b"x" * 500), ("m.npy", "no .npy")),
    Case("blinks_not_a_rate", given("--blink", "nan"), ("per minute", "nan")),
    Case("blinks_of_a_missing_file", given("--blink", "no.npy"), ("no.npy", "dataset")),
    Case("background_unknown_colour", given("--background", "greenish"), ("background as clip", "greenish")),
    Case("background_missing", given("--background", "no.png"), ("no.png", "no file")),
    Case("background_cut_off", motion("--background", lambda: b"\x89PNG\r\n\x1a\n" + bytes(50), "b.png"),
         ("b.png", "cannot be decoded")),
    Case("background_transparent_mp4", given("--background", "transparent", "--out", "a.mp4"),
         (".mov", "export_frames")),
    *(Case(f"aspect_{name}", given("--aspect", value), ("aspect", *words)) for name, value, words in (
        ("word", "portrait", ("portrait", "9:16")), ("zero", "0:16", ("0:16",)), ("decimal", "1.5:1", ("1.5:1",)),
        ("line", "1:999", ("32 px", "64x64")), ("huge", "9" * 5000 + ":1", ("WIDTH:HEIGHT",)))),
    Case("pasted_in_other_poses", given("--background", "source", "--poses", "orbit"), ("cycle", "orbit")),
    Case("pasted_without_a_place", given("--background", "source"), ("source=", "sample.mp4")),
    Case("pasted_into_another", given("--background", "source", "--source", "data/audio.wav"),
         ("changed", "audio.wav")),
    Case("pasted_into_a_folder", given("--background", "source", "--source", "data"), ("no file", "--source")),
    Case("source_of_nothing", given("--source", "clip.mp4"), ("background='source'",)),
    Case("background_no_video", motion("--background", lambda: b"no video" * 50, "b.mp4"), ("b.mp4",)),
]
