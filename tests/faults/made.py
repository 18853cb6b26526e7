"""A dataset and a run that are complete, small, and there at once: what rows and fuzzing damage."""
from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path

import torch

import egstalker_nb as egs
from egstalker_nb.training import checkpoint
from egstalker_nb.training.init_head import new_head
from egstalker_nb.training.run import METRICS, open_run

#: 12 frames of 64 px
DATASET = Path(__file__).parents[1] / "data" / "formats" / "dataset_1"
ITERATION = 5


def make_run(root: Path, ds: egs.Dataset) -> egs.Run:
    """A run with a checkpoint, untrained: all the files of one, without the time that training takes."""
    cfg = egs.load_config("quick_test", iterations=10, coarse_iterations=2, net_width=32, plane_resolution=[8],
                          num_heads=4, num_agents=2)
    run = open_run(ds, cfg, root, torch.device("cpu"))
    torch.manual_seed(0)
    head = new_head(ds, cfg)
    optimizer = torch.optim.Adam([head.gaussians["means"]])
    head.gaussians["means"].sum().backward()
    optimizer.step()
    trainer = {"network": {k: v for k, v in head.deformation.state_dict().items() if v.numel() < 100},
               "optimizers": {"means": optimizer.state_dict()}, "peak": 0.5, "rng": torch.get_rng_state(),
               "cuda_rng": None}
    state = {"iteration": ITERATION, "stage": "fine", "points": len(head)}
    tensors = {**head.state_dict(), "added_at": torch.zeros(len(head))}
    checkpoint.save(root, ITERATION, tensors, trainer, state, dict(head.gaussians))
    rows = [{"kind": "train", "iteration": i, "stage": "fine", "loss": 0.5, "l1": 0.4, "psnr": 20.0, "points": 478,
             "it_per_s": 9.0} for i in (1, 2, 3)] + [{"kind": "eval", "iteration": 3, "val_psnr": 19.0}]
    (root / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@functools.cache
def _made() -> Path:
    top = Path(tempfile.mkdtemp())
    shutil.copytree(DATASET, top / "data")
    make_run(top / "run", egs.load_dataset(top / "data"))
    return top


def copy_run(folder: Path) -> Path:
    """Put a copy of the run and of its dataset into a folder, as `run` and `data`; returns `run`."""
    for name in ("data", "run"):
        shutil.copytree(_made() / name, folder / name)
    return folder / "run"
