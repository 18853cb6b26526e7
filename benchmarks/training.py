"""Training time, number of Gaussians, memory, scores and rendering speed of a preset on a prepared dataset."""
from __future__ import annotations

import gc
import time
from pathlib import Path

import torch

import egstalker_nb as egs
from egstalker_nb.core.device import rendering_device
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.rendering.renderer import Renderer


def measure(dataset: Path, preset: str, runs: Path) -> dict:
    """One row: settings, time, number of Gaussians, scores of training and validation frames, frames/s of rendering.

    The time is that of `egs.train`: loading frames, training, pose refinement, validation curve, checkpoints.
    """
    device = rendering_device()
    if device.type == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
    ds, root = egs.load_dataset(dataset), runs / f"{dataset.name}-{preset}"
    start = time.perf_counter()
    run = egs.train(ds, egs.load_config(preset), root)
    seconds = time.perf_counter() - start
    row = {"dataset": dataset.name, "preset": preset, "size": ds.size, "frames": len(ds),
           "iterations": run.config.iterations, "seconds": round(seconds, 1),
           "points": len(run.load_head()), "speed": speed(run)}
    if device.type == "cuda":
        row["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    for split in ("train", "val"):
        scores = egs.evaluate(run, split)
        row[split] = {k: round(v, 3) for k, v in scores.items() if isinstance(v, float)}
    return row


def speed(run: egs.Run, batches: tuple[int, ...] = (1, 8, 32)) -> dict[str, float]:
    """Frames/s of network, rasteriser and compositing, by batch size; includes the work on the device."""
    renderer, found = Renderer.from_run(run), {}
    frames = Frames(run.dataset, list(run.dataset.val_ids), renderer.device).for_head(renderer.head)
    for batch in batches:
        ids = [list(run.dataset.val_ids)[i % len(run.dataset.val_ids)] for i in range(batch)]
        given = frames.batch(ids)
        inputs = frames.conditions(given["ids"]), given["background"]
        for _ in range(3):
            renderer.batch(*inputs)
        renderer.seconds, calls = 0.0, 0
        while renderer.seconds < 1.0:
            renderer.batch(*inputs)
            calls += 1
        found[f"batch_{batch}_fps"] = round(calls * batch / renderer.seconds, 1)
    return found
