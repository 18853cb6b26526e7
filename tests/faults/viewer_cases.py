"""Bad input of `egs view`, beyond what all commands with audio share."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from .bad_input import Case
from .made import copy_run


def ply(data: bytes, *options: Any) -> Callable[[Path], list[Any]]:
    """`egs view` of a file `some.ply` with these bytes."""
    def command(folder: Path) -> list[Any]:
        (folder / "some.ply").write_bytes(data)
        return ["view", folder / "some.ply", *options]
    return command


def of_run(*options: Any) -> Callable[[Path], list[Any]]:
    return lambda folder: ["view", copy_run(folder), *options]


CASES: list[Case] = [
    Case("view_no_ply", ply(b"solid"), ("some.ply", "3DGS layout")),
    Case("view_ply_with_audio", ply(b"", "--audio", "speech.wav"), ("some.ply", "a PLY has no mouth")),
    Case("view_port_too_large", of_run("--port", 70000), ("1 ... 65535", "70000")),
    Case("view_address_of_nobody", of_run("--host", "192.0.2.1"), ("192.0.2.1", "this machine")),
    Case("view_poses_without_audio", of_run("--poses", "static"), ("audio", "poses")),
    Case("view_start_after_the_end", of_run("--start", 99), ("99",)),
]
