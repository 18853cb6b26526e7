"""Time of a training on a minute of video, where only a shorter clip is at hand: its frames several times over.

    python benchmarks/minute.py data/clip [--seconds 60] [--preset production] [--out benchmarks/results/minute.json]

For the time alone: repeated frames teach a head nothing new, so no score is taken.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from common import facts
from length import selected

import egstalker_nb as egs
from egstalker_nb.media.rates import FPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--preset", default="production")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "minute.json")
    parser.add_argument("--revision", help="git revision, if this is no repository")
    args = parser.parse_args()
    clip = egs.load_dataset(args.dataset)
    with tempfile.TemporaryDirectory() as folder:
        at = [i % len(clip) for i in range(args.seconds * FPS)]
        ds = egs.load_dataset(selected(clip, at, Path(folder) / "dataset"))
        began = time.perf_counter()
        run = egs.train(ds, egs.load_config(args.preset), Path(folder) / "run")
        row = {"dataset": args.dataset.name, "frames": len(ds), "size": ds.size, "preset": args.preset,
               "iterations": run.config.iterations, "training_s": round(time.perf_counter() - began, 1)}
    args.out.write_text(json.dumps({"facts": facts(args.revision), **row}, indent=1) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
