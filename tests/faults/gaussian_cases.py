"""Bad input: where `egs export-gaussians` is to write, and what of. Damaged files are in `test_gaussian_files.py`: no
command reads them."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import torch

from egstalker_nb.core.reading import digest, read_json
from egstalker_nb.training import checkpoint

from .bad_input import Case
from .made import ITERATION, copy_run


def export(out: str, *more: str) -> Callable[[Path], list[Any]]:
    """The command that writes a head to this file."""
    return lambda folder: ["export-gaussians", copy_run(folder), out, *more]


def _into_a_folder(folder: Path) -> list[Any]:
    (folder / "head.ply").mkdir()
    return export("head.ply")(folder)


def _of_a_head_with_nan(folder: Path) -> list[Any]:
    """A head whose training diverged: its files are intact."""
    import json

    from safetensors.torch import load_file, save_file

    command = export("head.spz")(folder)
    place = checkpoint.folder(folder / "run", ITERATION)
    tensors = load_file(place / checkpoint.HEAD)
    name = next(name for name in tensors if name.endswith("means"))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, place / checkpoint.HEAD)
    state = read_json(place / checkpoint.STATE)
    state["sha256"][checkpoint.HEAD] = digest(place / checkpoint.HEAD)
    (place / checkpoint.STATE).write_text(json.dumps(state))
    return command


CASES: list[Case] = [
    Case("gaussians_to_another_format", export("head.sog"), ("named .ply or .spz", "head.sog")),
    Case("gaussians_to_no_format", export("head"), ("named .ply or .spz",)),
    Case("gaussians_to_a_folder", _into_a_folder, ("folder", "head.ply")),
    Case("gaussians_of_no_checkpoint", export("head.ply", "--iteration", "99"), ("iteration 99", f"[{ITERATION}]")),
    Case("gaussians_of_a_head_with_nan", _of_a_head_with_nan, ("finite",)),
]
