"""Time and memory against number of Gaussians, number of frames, image size and batch size."""
from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import DEVICE, Stretched, fine_trainer, milliseconds

from egstalker_nb.data.dataset import Dataset
from egstalker_nb.data.frame_loader import BYTES_PER_PIXEL, Frames
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.training.trainer import Trainer

GPU = DEVICE.type == "cuda"
POINTS = (1_000, 3_000, 10_000, 30_000, 100_000) if GPU else (500, 1_000, 3_000)
FRAMES = (100, 750, 2_000, 7_500) if GPU else (100, 300)
SIZES = (128, 256, 512, 1024) if GPU else (128, 256, 512)
BATCHES = (1, 2, 4, 8, 16) if GPU else (1, 4, 8)
SIZE = 512 if GPU else 256
BASE = dict(points=10_000 if GPU else 1_000, frames=100, size=SIZE, batch=1)


def growth(ds: Dataset) -> list[dict[str, Any]]:
    """One row for each setting: what varies, the setting, ms per training step and per rendered frame, GPU memory."""
    sweeps = {"points": POINTS, "frames": FRAMES, "size": SIZES, "batch": BATCHES}
    return [{"varies": name, **measure(ds, **{**BASE, name: value})} for name, values in sweeps.items()
            for value in values]


def measure(ds: Dataset, points: int, frames: int, size: int, batch: int) -> dict[str, Any]:
    """One row of `growth`."""
    gc.collect()  # frees CUDA graphs of the previous setting
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = fine_trainer(Stretched(ds, frames, size), Path(folder) / "run", points, batch)
        row = {"points": points, "frames": frames, "size": size, "batch": batch, "place": trainer.frames.place,
               "frames_gib": round(frames * size ** 2 * BYTES_PER_PIXEL / 2 ** 30, 3),
               "setup_s": round(time.perf_counter() - start, 2),
               "step_ms": round(milliseconds(trainer.train_iteration), 3)}
        if GPU:
            row["train_gib"] = round(torch.cuda.max_memory_allocated() / 2 ** 30, 3)
        row["frame_ms"] = round(rendering(trainer, batch) / batch, 4)
        if GPU:
            row["pairs"] = trainer.capacity.value  # intersections that fit into the buffers
    return row


def rendering(trainer: Trainer, batch: int) -> float:
    """ms per batch of network, rasteriser and compositing."""
    head = trainer.ema_head().eval().requires_grad_(False)
    renderer, ids = Renderer(head, trainer.ds), [i % trainer.ds.num_train for i in range(batch)]
    given = trainer.frames.batch(ids)
    inputs = trainer.frames.conditions(given["ids"]), given["background"]
    return milliseconds(lambda: renderer.batch(*inputs))


def streaming(ds: Dataset) -> list[dict[str, Any]]:
    """Training steps with frames on the device, in host memory and on disk."""
    rows: list[dict[str, Any]] = []
    for place in ("device", "host", "disk") if GPU else ("device", "disk"):
        with tempfile.TemporaryDirectory() as folder:
            trainer = fine_trainer(Stretched(ds, BASE["frames"], SIZE), Path(folder) / "run", BASE["points"])
            trainer.frames = Frames(trainer.ds, trainer.ds.train_ids, DEVICE, place).for_head(trainer.head)
            rows.append({"place": place, "step_ms": round(milliseconds(trainer.train_iteration, 1.0), 3)})
    return rows
