"""Checkpoints: atomic, complete, and readable without executing anything from the file."""
from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.errors import DatasetError
from ..model.ply import save_ply

HEAD, TRAINER, STATE, PLY = "head.safetensors", "trainer.pt", "state.json", "point_cloud.ply"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block succeeds, and vanishes when it fails."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in temporary.iterdir():  # on the disk before the name says that it is complete
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def folder(run: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return run / "checkpoints" / f"iteration_{iteration}"


def iterations(run: Path) -> list[int]:
    """Finished checkpoints of a run, ascending. Folders that a crash left half-written do not count."""
    found = (re.fullmatch(r"iteration_(\d+)", p.parent.name) for p in (run / "checkpoints").glob(f"*/{STATE}"))
    return sorted(int(m[1]) for m in found if m)


def remove_leftovers(run: Path) -> None:
    """Delete what a kill while saving left behind."""
    for path in (run / "checkpoints").glob(".iteration_*"):
        shutil.rmtree(path, ignore_errors=True)


def save(run: Path, iteration: int, head: dict[str, Tensor], trainer: dict[str, Any], state: dict[str, Any],
         gaussians: dict[str, Tensor]) -> Path:
    """Write one checkpoint.

    Args:
        run: the run folder.
        iteration: finished training steps.
        head: every tensor that rendering needs.
        trainer: every tensor and number that only training needs.
        state: small facts as JSON (iteration, stage, points).
        gaussians: for `point_cloud.ply`.

    Returns:
        the folder of the checkpoint.
    """
    target = folder(run, iteration)
    with atomic_folder(target) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in head.items()}, temporary / HEAD)
        torch.save(trainer, temporary / TRAINER)
        save_ply(temporary / PLY, gaussians)
        (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    return target


def load(run: Path, iteration: int, part: str) -> Any:
    """Read `HEAD`, `TRAINER` or `STATE` of a checkpoint, on the CPU.

    Raises:
        DatasetError: missing or damaged, with the checkpoints that exist.
    """
    path = folder(run, iteration) / part
    try:
        if part == HEAD:
            return load_file(path)
        if part == TRAINER:
            return torch.load(path, map_location="cpu", weights_only=True)
        return json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # safetensors, pickle and zip readers each raise their own kinds
        have = ", ".join(map(str, iterations(run))) or "none"
        what = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        raise DatasetError(f"a readable checkpoint at '{path}'", what, f"Checkpoints in this run: {have}. Delete "
                           "the folder of a damaged one to go on from the one before."
                           ) from error
