"""Bad input of `egs checkpoint`."""
from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Callable, Optional

import made_up_checkpoint as made
import torch

from .bad_input import Case


def checkpoint(ply: Callable[[bytes], Optional[bytes]] = lambda data: data,
               weights: Callable[[bytes], bytes] = lambda data: data, cfg_args: str = "Namespace(n_head=2)"
               ) -> Callable[[Path], list[Any]]:
    """A model's folder of which one file is changed."""
    def command(folder: Path) -> list[Any]:
        place = folder / "model/point_cloud/iteration_7"
        made.write_ply(place / "point_cloud.ply", [(0, 0, 0)], [(1, 0, 0)])
        torch.save({"deformation_net.null_vector": torch.ones(1, 1, 64)}, place / "deformation.pth")
        cloud, network = place / "point_cloud.ply", place / "deformation.pth"
        changed = ply(cloud.read_bytes())
        cloud.unlink() if changed is None else cloud.write_bytes(changed)
        network.write_bytes(weights(network.read_bytes()))
        (folder / "model/cfg_args").write_text(cfg_args)
        return ["checkpoint", "model"]

    return command


class Code:
    def __reduce__(self) -> tuple:
        return Path("made").touch, ()


def saved(value: Any) -> Callable[[bytes], bytes]:
    def write(_: bytes) -> bytes:
        torch.save(value, "saved.pth")
        return Path("saved.pth").read_bytes()

    return write


PLY, WEIGHTS = ("PLY", "point_cloud.ply"), ("weights of a deformation", "deformation.pth")
CASES: list[Case] = [
    Case("checkpoint_missing", lambda folder: ["checkpoint", "model"], ("no point_cloud.ply", "'model'")),
    Case("checkpoint_without_ply", checkpoint(lambda data: None), ("no point_cloud.ply",)),
    Case("checkpoint_with_ply_cut_off", checkpoint(lambda data: data[:-5]), (*PLY, "announces")),
    Case("checkpoint_with_more_vertices_announced",
         checkpoint(lambda data: data.replace(b"vertex 1", b"vertex 9")), (*PLY, "announces 9 vertices, but 1")),
    Case("checkpoint_with_another_ply", checkpoint(lambda data: data.replace(b"opacity", b"opaque")),
         (*PLY, "opacity")),
    Case("checkpoint_with_weights_cut_off", checkpoint(weights=lambda data: data[:-50]), WEIGHTS),
    Case("checkpoint_with_code", checkpoint(weights=saved({"a": Code()})), (*WEIGHTS, "holds more than tensors")),
    Case("checkpoint_with_bare_pickle", checkpoint(weights=lambda data: pickle.dumps(Code())), WEIGHTS),
    Case("checkpoint_with_numbers", checkpoint(weights=saved({"a": 1})), ("named tensors", "'a'")),
    Case("checkpoint_that_is_a_tensor", checkpoint(weights=saved(torch.ones(3))), (*WEIGHTS, "Tensor")),
    Case("checkpoint_with_cfg_args_that_runs", checkpoint(cfg_args="Namespace(n_head=open('made', 'w'))"),
         ("Namespace(...) of literals", "cfg_args")),
    Case("checkpoint_with_cfg_args_of_another_kind", checkpoint(cfg_args="print(1)"), ("cfg_args",)),
    Case("checkpoint_with_arguments_missing", lambda folder: [*checkpoint()(folder), "--arguments", "no.py"],
         ("arguments file", "no.py")),
]
