"""What each change against upstream buys: `production`, it with one thing after another changed back, and all of them.

    python benchmarks/ablation.py data/clip [data/clip2 ...] [--iterations 30000] [--workers 1]
        [--work outputs/ablation] [--out benchmarks/results/ablation.json] [--only NAME ...]

Each run is trained in a process of its own, as many at a time as there are workers, on one GPU. A row is printed and
written as soon as it is known. Runs that are finished in the work folder are not trained again.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from common import facts

import egstalker_nb as egs
from egstalker_nb.analysis.ablation import PAPER_CHANGES, Ablation
from egstalker_nb.cli.options import parse_settings
from egstalker_nb.core.errors import EgsError
from egstalker_nb.core.files import write_json


def ablation_of(dataset: Path, work: Path, iterations: int, settings: dict[str, Any]) -> Ablation:
    return Ablation(egs.load_dataset(dataset), work / dataset.name, iterations, **settings)


def measured(dataset: Path, name: str, work: Path, iterations: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The row of one run, with the seconds that it took; trained and scored in this process."""
    began, threads = time.time(), torch.get_num_threads()
    torch.set_num_threads(min(threads, 4))
    row = ablation_of(dataset, work, iterations, settings).row(name)
    return {**row, "seconds": round(time.time() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--iterations", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time")
    parser.add_argument("--only", nargs="+", choices=list(PAPER_CHANGES), help="only these changes, and production")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all runs")
    parser.add_argument("--work", type=Path, default=Path("outputs/ablation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation.json"))
    parser.add_argument("--revision", help="git revision, if this is no repository")
    args = parser.parse_args()
    settings = parse_settings(args.set)
    tables = {path.name: ablation_of(path, args.work, args.iterations, settings) for path in args.datasets}
    names = [n for n in next(iter(tables.values())).changes if not args.only or n in (*args.only, "production")]
    result: dict[str, Any] = {"facts": facts(args.revision), "iterations": args.iterations, "workers": args.workers,
                              "settings": settings, "clips": {}}
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(measured, path, name, args.work, args.iterations, settings): (path.name, name)
                for path in args.datasets for name in names}
        for number, job in enumerate(as_completed(jobs), 1):
            clip, name = jobs[job]
            try:
                tables[clip].add(job.result())
            except EgsError as error:
                print(f"{clip}, {name}: {error}", flush=True)
                continue
            done = tables[clip].done
            rows = [tables[clip].add(done[n]) for n in names if n in done]  # differences, once production is known
            result["clips"][clip] = {"frames": len(tables[clip].ds), "size": tables[clip].ds.size, "rows": rows}
            write_json(args.out, result)
            print(f"{number} of {len(jobs)}: {clip} {json.dumps(done[name])}", flush=True)
    for clip, table in tables.items():
        print(f"\n{clip}\n{table.table()}", flush=True)


if __name__ == "__main__":
    main()
