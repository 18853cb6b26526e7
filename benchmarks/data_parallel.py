"""One run on one GPU and on several: speed by batch size, where the time goes, and quality.

    python benchmarks/data_parallel.py data/clip [--gpus 1 2] [--out benchmarks/results/data_parallel.json]

Speed is that of fine steps with 10,000 Gaussians, after densification, between rows of the metrics. Quality is that of
a shortened production run of batch 8, made several times, as sums on a GPU differ from run to run. A measurement that
was stopped goes on.
"""
from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import facts

import egstalker_nb as egs
from egstalker_nb.core.files import write_json
from egstalker_nb.training.ranks import Ranks, Workers

BATCHES = 2, 4, 8, 16
#: reaches the cap of 10,000 Gaussians within 500 steps, and then trains on
SPEED = dict(iterations=900, coarse_iterations=200, densify_from_iter=40, densify_until_iter=500, pose_steps=0,
             densification_interval=20, densify_grad_threshold_coarse=1e-5, densify_grad_threshold_fine=1e-5)
QUALITY = dict(iterations=4000, coarse_iterations=1000, densify_until_iter=2500, batch_size=8)
LAST_ROWS = 15  # of 20 steps each
PARAMETERS = 2_300_000  # of the network and of 10,000 Gaussians


def speed(ds: egs.Dataset, batch: int, gpus: int, folder: Path) -> dict:
    """Steps/s of a run, median over its last rows."""
    run = egs.train(ds, egs.load_config("production", **SPEED, batch_size=batch), folder, gpus=gpus)
    rows = run.metrics("train")[-LAST_ROWS:]
    rate = statistics.median(row["it_per_s"] for row in rows)
    return {"batch": batch, "gpus": gpus, "it_per_s": round(rate, 1), "step_ms": round(1000 / rate, 3),
            "frames_per_s": round(batch * rate), "points": rows[-1]["points"]}


def quality(ds: egs.Dataset, gpus: int, folder: Path) -> dict:
    """Seconds and scores of a whole run."""
    start = time.perf_counter()
    run = egs.train(ds, egs.load_config("production", **QUALITY), folder, gpus=gpus)
    seconds = time.perf_counter() - start
    rows = run.metrics("train")
    scores = {f"{name}_{split}": round(egs.evaluate(run, split)[name], 3) for split in ("train", "val")
              for name in ("psnr_composite", "ssim_composite")}
    return {"gpus": gpus, "seconds": round(seconds, 1), "points": rows[-1]["points"],
            "it_per_s": round(statistics.median(row["it_per_s"] for row in rows[-LAST_ROWS:]), 1), **scores}


def sums(ranks: Ranks, repeats: int = 200) -> float:
    """Milliseconds of one sum of all gradients over the GPUs."""
    values = torch.ones(PARAMETERS, device=ranks.device)
    for _ in range(20):
        ranks.sum_(values.fill_(1))
    torch.cuda.synchronize(ranks.device)
    start = time.perf_counter()
    for _ in range(repeats):
        ranks.sum_(values)
    torch.cuda.synchronize(ranks.device)
    return 1000 * (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--gpus", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--repeats", type=int, default=2, help="runs of `quality` with each number of GPUs")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data_parallel.json"))
    parser.add_argument("--revision", help="git revision, if this is no repository")
    args = parser.parse_args()
    ds = egs.load_dataset(args.dataset)
    found: dict = json.loads(args.out.read_text()) if args.out.is_file() else {"speed": [], "quality": []}
    found.update(facts=facts(args.revision), dataset=args.dataset.name, size=ds.size)
    devices = [torch.device("cuda", index) for index in range(max(args.gpus))]
    with Workers(sums, (), devices) as workers:
        found["sum_ms"] = round(sums(workers.join()), 3)
    done = {(row["batch"], row["gpus"]) for row in found["speed"]}
    settings = [(batch, gpus) for batch in args.batches for gpus in args.gpus if batch % gpus == 0]
    with tempfile.TemporaryDirectory() as folder:
        for batch, gpus in (setting for setting in settings if setting not in done):
            found["speed"].append(speed(ds, batch, gpus, Path(folder) / f"speed-{batch}-{gpus}"))
            write_json(args.out, found)
        for gpus in args.gpus:
            for _ in range(args.repeats - sum(row["gpus"] == gpus for row in found["quality"])):
                found["quality"].append(quality(ds, gpus, Path(folder) / f"quality-{len(found['quality'])}"))
                write_json(args.out, found)


if __name__ == "__main__":
    main()
