"""Trainings side by side on one GPU: steps/s of each and of all, so that one knows how many share a card.

    python benchmarks/packing.py data/clip [--heads 1 2 4] [--out benchmarks/results/packing.json] [--label text]

Each training is a process that repeats a fine step of `production` (10,000 Gaussians, batch 1). All are made ready
first; then as many as are measured work at the same time, and the others wait. Run it under NVIDIA MPS and with another
`--label` to see what that changes; the results of both are kept.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import DEVICE, facts, fine_trainer

import egstalker_nb as egs
from egstalker_nb.core.files import write_json

HEADS = 1, 2, 3, 4, 8
SECONDS, WARM_UP = 5.0, 1.0
POINTS, LOOK = 10_000, 20  # Gaussians; steps between two looks at the clock


def train(dataset: Path) -> None:
    """A training: it prints a line when it is ready, and then for each line `begin end` (times) its steps/s between."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = fine_trainer(egs.load_dataset(dataset), Path(folder) / "run", POINTS)
        for _ in range(LOOK):
            trainer.train_iteration()
        torch.cuda.synchronize()
        print("ready", flush=True)
        for line in sys.stdin:
            begin, end = map(float, line.split())
            steps, first = 0, 0.0
            while time.time() < end:
                for _ in range(LOOK):
                    trainer.train_iteration()
                trainer.steps.take()  # waits for them, as a row of the metrics does
                now = time.time()
                steps, first, last = (steps + LOOK, first, now) if first else (0, now if now > begin else 0.0, now)
            print(steps / (last - first), flush=True)


def measure(processes: list[subprocess.Popen]) -> dict:
    """Steps/s of as many trainings at the same time."""
    begin = time.time() + WARM_UP
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{begin} {begin + SECONDS}\n")
        process.stdin.flush()
    rates = [_answer(process) for process in processes]
    return {"heads": len(rates), "it_per_s_each": round(statistics.mean(rates), 1),
            "slowest": round(min(rates), 1), "it_per_s_all": round(sum(rates), 1)}


def _answer(process: subprocess.Popen) -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--heads", type=int, nargs="+", default=HEADS)
    parser.add_argument("--label", default="processes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/packing.json"))
    parser.add_argument("--revision", help="git revision, if this is no repository")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        train(args.dataset)
        return
    free = torch.cuda.mem_get_info(DEVICE)[0]
    command = [sys.executable, __file__, str(args.dataset), "--one"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"})
                 for _ in range(max(args.heads))]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        used = (free - torch.cuda.mem_get_info(DEVICE)[0]) / len(processes) / 2**20
        rows = [measure(processes[:heads]) for heads in args.heads]
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()  # ends it
        for process in processes:
            process.wait()
    found = json.loads(args.out.read_text()) if args.out.is_file() else {}
    found.update(facts=facts(args.revision), dataset=args.dataset.name)
    found[args.label] = {"gpu_mib_each": round(used), "rows": rows}
    write_json(args.out, found)
    print(json.dumps(found[args.label], indent=1))


if __name__ == "__main__":
    main()
