"""Options that several commands share, and how their values are read."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from ..core.errors import ConfigError
from ..core.reading import Unreadable, parse_yaml, shown
from ..preparation.people import FACES
from ..preparation.shots import SCENES

SPLITS = ("train", "val", "all")
#: adds a command: its function, a line of help, the names of its positional paths
AddCommand = Callable[..., argparse.ArgumentParser]


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["iterations=200", "seed=1"]` -> `{"iterations": 200, "seed": 1}`.

    Args:
        pairs: `key=value`; values are read as YAML, never evaluated.

    Raises:
        ConfigError: a pair without `=`, or a value that is not YAML.
    """
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError("settings as key=value", shown(pair), "For instance: --set iterations=200")
        try:
            values[key.strip()] = parse_yaml(text)
        except Unreadable as error:
            raise ConfigError("settings as key=value", f"{shown(pair)} ({error})",
                              "Write the value as in a YAML file.") from error
    return values


def rate_or_name(text: str) -> float | str:
    """`"17"` -> 17.0; `"dataset"` and paths stay strings."""
    try:
        return float(text)
    except ValueError:
        return text


def size_or_native(text: str) -> int | str:
    """`"512"` -> 512; `"native"` stays a string."""
    return text if text == "native" else int(text)


def add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--config", default="production", help="preset or YAML file")
    sub.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
                     help="settings that override the file's (last on the line, or before another option)")


def add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", help="cpu or cuda; default: cuda where available")


def add_clip(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--face", default="largest", choices=FACES,
                     help="which of several people in view (left and right as the viewer sees them)")
    sub.add_argument("--scenes", default="longest", choices=SCENES,
                     help="which part of a video with cuts: the longest shot that shows a face, or all of it")
    sub.add_argument("--track", type=int, help="number of the audio track, from 1; default: the one flagged as default")


def add_script(sub: argparse.ArgumentParser, out: Optional[str]) -> None:
    sub.add_argument("--features", type=Path, help="precomputed audio features .npy [num_frames, 16, 29] of the audio")
    sub.add_argument("--poses", default="cycle", help="cycle, static, orbit, the folder of a dataset whose head "
                                                      "motion to use, or world-to-camera matrices .npy [F, 4, 4]")
    sub.add_argument("--blink", type=rate_or_name, default="dataset",
                     help="dataset, blinks per minute, or an .npy [F] of 0 open ... 1 closed")
    add_part(sub, out)


def add_part(sub: argparse.ArgumentParser, out: Optional[str]) -> None:
    """`out`: help on what is written; None: nothing is."""
    if out is not None:
        sub.add_argument("--out", type=Path, help=out)
    sub.add_argument("--iteration", type=int, help="checkpoint; default: the newest")
    sub.add_argument("--start", type=float, default=0.0, help="seconds into the audio")
    sub.add_argument("--duration", type=float, help="seconds; default: to the end of the audio")


def script(args: argparse.Namespace) -> dict[str, Any]:
    """Values of the options of `add_script` and `add_device`, as arguments of `egs.render` and of the exports."""
    names = ("out", "features", "poses", "blink", "iteration", "start", "duration", "device")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}
