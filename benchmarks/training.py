"""Train and score presets on prepared datasets, and write what it took.

    python benchmarks/training.py data/clip [data/other ...] --config production --out benchmarks/results/training.json

Each run goes to `outputs/bench/<dataset>-<preset>`; a run that is already there is scored again, not trained again.
The time is that of `egs.train`: loading frames, training, validation curve, checkpoints.
"""
from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path

import torch

import egstalker_nb as egs
from egstalker_nb.frames import Frames
from egstalker_nb.rendering import Renderer
from egstalker_nb.run import default_device, device_name, git_revision, versions


def measure(dataset: Path, preset: str, runs: Path) -> dict:
    """One row: settings, time, points, scores of the train and validation frames, rendering speed."""
    device = default_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ds, root = egs.load_dataset(dataset), runs / f"{dataset.name}-{preset}"
    fresh = not (root / "manifest.json").exists()
    began = time.perf_counter()
    run = egs.train(ds, egs.load_config(preset), root)
    seconds = time.perf_counter() - began
    row = {"dataset": dataset.name, "preset": preset, "size": ds.size, "frames": len(ds),
           "iterations": run.config.iterations, "seconds": round(seconds, 1) if fresh else None,
           "points": len(run.load_head()), "speed": speed(run)}
    if device.type == "cuda":
        row["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    for split in ("train", "val"):
        scores = egs.evaluate(run, split)
        row[split] = {k: round(v, 3) for k, v in scores.items() if isinstance(v, float)}
    return row


def speed(run: egs.Run, batches: tuple[int, ...] = (1, 8, 32)) -> dict[str, float]:
    """Frames/s of network, rasteriser and composite on the device, by batch; the device is waited for."""
    renderer, found = Renderer(run.load_head(), run.dataset), {}
    frames = Frames(run.dataset, list(run.dataset.val_ids), renderer.device)
    for batch in batches:
        ids = [list(run.dataset.val_ids)[i % len(run.dataset.val_ids)] for i in range(batch)]
        given = frames.batch(ids)
        inputs = [given[name] for name in ("ids", "eyes", "w2c", "background")]
        for _ in range(3):
            renderer.batch(frames.features, *inputs)
        renderer.seconds, rounds = 0.0, 0
        while renderer.seconds < 1.0:
            renderer.batch(frames.features, *inputs)
            rounds += 1
        found[f"batch_{batch}_fps"] = round(rounds * batch / renderer.seconds, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--config", nargs="+", default=["production"])
    parser.add_argument("--runs", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--revision", default=git_revision(), help="git revision, where there is no repository")
    args = parser.parse_args()
    facts = {"date": date.today().isoformat(), "device": device_name(default_device()), "machine": platform.machine(),
             "versions": versions(), "git": args.revision}
    rows = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for dataset in args.datasets:
        for preset in args.config:
            rows.append(measure(dataset, preset, args.runs))
            print(json.dumps(rows[-1]), flush=True)
            args.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
