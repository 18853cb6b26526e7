"""How repeatable training is: the scores of one configuration with several seeds, and with the first seed twice.

    python benchmarks/seeds.py data/clip [--config production] [--set iterations=10000] [--seeds 5]
        [--out benchmarks/results/seeds.json] [--work outputs/seeds]

Runs that exist in the work folder are continued, so that a killed measurement loses nothing.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from common import DEVICE, facts

import egstalker_nb as egs
from egstalker_nb.cli.options import parse_settings
from egstalker_nb.core.files import write_json
from egstalker_nb.training.history import History

SCORES = "psnr_composite", "ssim_composite", "psnr_head", "lmd_mouth", "aperture_r"


def trained(ds: egs.Dataset, config: egs.Config, folder: Path) -> dict:
    """Scores on validation and training frames, Gaussians and seconds of one run."""
    run = egs.train(ds, config, folder)
    seconds = round(float(History(run.root).seconds()[1][-1]), 1)  # of all steps, also of those before a kill
    rows = {split: {k: v for k, v in egs.evaluate(run, split).items() if k in SCORES} for split in ("val", "train")}
    return {"seed": config.seed, **rows, "gaussians": len(run.load_head()), "seconds": seconds}


def largest_difference(folders: list[Path]) -> Optional[float]:
    """Largest difference of any parameter between two runs; None if they have other numbers of Gaussians."""
    a, b = (egs.load_run(folder).load_head(device="cpu").state_dict() for folder in folders)
    if any(a[name].shape != b[name].shape for name in a):
        return None
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a if a[name].numel())


def spread(rows: list[dict], split: str) -> dict:
    """Mean and standard deviation over runs, of each score."""
    names = rows[0][split]
    return {name: [round(float(np.mean([r[split][name] for r in rows])), 4),
                   round(float(np.std([r[split][name] for r in rows], ddof=1)), 4)] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--config", default="production")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("outputs/seeds"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/seeds.json"))
    parser.add_argument("--revision", help="git revision, if this is no repository")
    args = parser.parse_args()
    ds, settings = egs.load_dataset(args.dataset), parse_settings(args.set)
    rows = []
    for name, seed in [*((f"seed_{k}", k) for k in range(args.seeds)), ("seed_0_again", 0)]:
        config = egs.load_config(args.config, **settings, seed=seed)
        rows.append({"run": name, **trained(ds, config, args.work / name)})
        print(json.dumps(rows[-1]), flush=True)
    seeds = rows[:args.seeds]
    twice = [args.work / rows[k]["run"] for k in (0, -1)]
    result = {"facts": facts(args.revision), "clip": ds.root.name, "frames": len(ds), "size": ds.size,
              "config": args.config, "settings": settings, "runs": rows,
              "spread": {split: spread(seeds, split) for split in ("val", "train")},
              "same_seed": {"largest_difference": largest_difference(twice),
                            "deterministic": DEVICE.type == "cpu" or torch.are_deterministic_algorithms_enabled()}}
    write_json(args.out, result)
    print(json.dumps(result["spread"], indent=1))


if __name__ == "__main__":
    main()
