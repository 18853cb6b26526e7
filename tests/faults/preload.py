"""Imported by the server from which children are forked: they start with libraries loaded and kernels compiled.

No thread of ours may be at work when a child is forked; with one thread, PyTorch and the kernels start none.
"""
import contextlib
import gc
import os
import tempfile
from pathlib import Path

import cv2
import torch
from conftest import make_tiny_dataset

from egstalker_nb import cli  # noqa: F401 - children call it
from egstalker_nb.preparation import pipeline  # noqa: F401 - children call it
from egstalker_nb.training import trainer

from . import works

torch.set_num_threads(1)
cv2.setNumThreads(1)
fit_torso = trainer.fit_torso
# by default 1,200 steps, most of the time of a tiny run
trainer.fit_torso = lambda ds, frames, steps, seed: fit_torso(ds, frames, 3, seed=seed)


def warm_up() -> None:
    """Train and render once."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
        make_tiny_dataset(Path(folder) / "dataset")
        works.train(Path(folder), Path(folder) / "dataset", {"iterations": 4, "coarse_iterations": 2})
        works.render(Path(folder), Path(folder) / "run")
        works.export(Path(folder), Path(folder) / "run")


warm_up()
gc.collect()
