"""Checkpoints: atomic, complete, with checksums, and readable without executing anything from the file."""
from __future__ import annotations

import io
import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional

import torch
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from ..core.errors import DatasetError
from ..core.files import atomic_folder, remove_folder, shortened, write_json, writing_to
from ..core.reading import Unreadable, digest, read_json, read_safetensors, read_torch
from ..model.ply import save_ply

HEAD, TRAINER, STATE, PLY = "head.safetensors", "trainer.pt", "state.json", "point_cloud.ply"
DAMAGED = "damaged"  # suffix of the folder of a damaged checkpoint that training has set aside


def folder(run: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return run / "checkpoints" / f"iteration_{iteration}"


def iterations(run: Path) -> list[int]:
    """Iterations of the checkpoints of a run, ascending, whether or not their files are intact."""
    found = (re.fullmatch(r"iteration_(\d+)", p.parent.name) for p in (run / "checkpoints").glob(f"*/{STATE}"))
    return sorted(int(m[1]) for m in found if m)


def save(run: Path, iteration: int, head: dict[str, Tensor], trainer: dict[str, Any], state: dict[str, Any],
         gaussians: dict[str, Tensor]) -> Path:
    """Write one checkpoint.

    Args:
        run: the run folder.
        iteration: finished training steps.
        head: every tensor that rendering needs.
        trainer: every tensor and number that only training needs.
        state: small facts as JSON (iteration, stage, points); the checksums are added.
        gaussians: for `point_cloud.ply`.

    Returns:
        the folder of the checkpoint.

    Raises:
        StorageError: the disk is full, or the run folder is gone or cannot be written to.
    """
    target, buffer = folder(run, iteration), io.BytesIO()
    torch.save(trainer, buffer)  # in memory: PyTorch's own writing to a full disk dies with an internal error
    with writing_to(run):
        target.parent.mkdir(exist_ok=True)  # without parents: a run that was moved away is not made again
    with atomic_folder(target) as temporary:
        (temporary / HEAD).write_bytes(tensor_bytes({k: v.detach().cpu().contiguous() for k, v in head.items()}))
        (temporary / TRAINER).write_bytes(buffer.getbuffer())
        save_ply(temporary / PLY, gaussians)
        write_json(temporary / STATE, {**state, "sha256": {n: digest(temporary / n) for n in (HEAD, TRAINER, PLY)}})
    return target


def load(run: Path, iteration: int, part: str) -> Any:
    """Read `HEAD`, `TRAINER` or `STATE` of a checkpoint, on the CPU.

    Raises:
        DatasetError: missing or damaged, with the checkpoints that exist.
    """
    if problem := damage(run, iteration, part):
        raise _damaged(run, iteration, problem)
    path = folder(run, iteration) / part
    try:
        if part == HEAD:
            tensors, _ = read_safetensors(path)
            bad = next((name for name, value in tensors.items() if not value.isfinite().all()), None)
            if bad:
                raise Unreadable(f"'{shortened(path)}' holds NaN or infinite values in {bad}")
            return tensors
        return read_torch(path) if part == TRAINER else read_json(path)
    except Unreadable as error:
        raise _damaged(run, iteration, str(error)) from error


def _damaged(run: Path, iteration: int, problem: str) -> DatasetError:
    good = [i for i in iterations(run) if i != iteration and not damage(run, i, HEAD)]
    have = f"Use iteration {good[-1]}, or train" if good else "There is no other: train"
    return DatasetError(f"an intact checkpoint of iteration {iteration} in '{shortened(run)}'", problem,
                        f"{have} the run again, which sets the damaged one aside and goes on from the one before.")


def damage(run: Path, iteration: int, *parts: str) -> str:
    """What is wrong with these parts of a checkpoint, in one sentence, or "". Files are read once, unless they change.

    A head without what only training needs (`TRAINER`) is complete for rendering.
    """
    place = folder(run, iteration)
    try:
        known = read_json(place / STATE, iteration=int).get("sha256", {})  # format 0 has no checksums
        for path in (place / part for part in parts if part != STATE):
            stat = path.stat()
            if known and known.get(path.name) != _digest(path, stat.st_size, stat.st_mtime_ns):
                return f"'{shortened(path)}' does not match its checksum: it was damaged or changed"
    except OSError as error:
        return f"'{shortened(error.filename)}' is missing"
    except (Unreadable, AttributeError) as error:
        return str(error)
    return ""


@lru_cache(1000)
def _digest(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; its size and time of modification tell whether it is the same as before."""
    return digest(path)


def newest(run: Path, *parts: str) -> Optional[int]:
    """The newest checkpoint whose `parts` are intact, or None; damaged newer ones are named in a UserWarning."""
    for iteration in reversed(iterations(run)):
        problem = damage(run, iteration, *parts)
        if not problem:
            return iteration
        warnings.warn(f"checkpoint iteration_{iteration} is damaged ({problem}); the one before is used.", stacklevel=3)
    return None


def set_damaged_aside(run: Path, after: int) -> None:
    """Rename the folders of the checkpoints after an iteration, which are damaged (see `newest`), so that training goes
    on from there and can save again."""
    for iteration in iterations(run):
        if iteration > after:
            path = folder(run, iteration)
            with writing_to(run):
                path.rename(free_name(path.with_name(f"{path.name}.{DAMAGED}")))


def free_name(path: Path) -> Path:
    """The path, with a number if it is taken."""
    others = (path.with_name(f"{path.name}{n}") for n in range(2, 1000))
    return next(p for p in (path, *others) if not p.exists())


def remove_oldest(run: Path, keep: int, always: tuple[int, ...]) -> None:
    """Remove all but the newest checkpoints.

    Args:
        run: the run folder.
        keep: how many stay; the newest is always among them.
        always: iterations of those that stay in any case.
    """
    for iteration in iterations(run)[:-keep]:
        if iteration not in always:
            remove_folder(folder(run, iteration))
