"""The torso layer alone, by the length of the clip: with the same steps for every length, and with those of the kit.

    python benchmarks/torso.py data/a data/b --out outputs/torso [--seconds 10 20] [--workers 2]

Parts of a clip as in `length.py`. PSNR of plate and torso over whole frames, without the error under the head. No head
is trained, so a CPU will do: some minutes a row at 512 px. Written into `results/torso.json` as rows come.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Iterable, Optional
from unittest.mock import patch

import numpy as np
import torch
from length import parts, shorter, write_rows

import egstalker_nb as egs
from egstalker_nb.core.device import default_device
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.media.rates import FPS
from egstalker_nb.metrics.image_metrics import decibels
from egstalker_nb.model.torso import Torso
from egstalker_nb.training import fit_torso

RESULT = Path(__file__).parent / "results" / "torso.json"
SCORED = 50  # training frames


@torch.no_grad()
def outside(torso: Torso, frames: Frames, ids: Iterable[int]) -> float:
    """PSNR (dB) of plate and torso where the head is not."""
    errors = []
    for i in ids:
        given = frames.batch([i])
        difference = (torso(torso.codes[given["ids"]]) - given["frame"]).square()
        errors.append((difference * (1 - given["head"])).mean())
    return decibels(torch.stack(errors).mean()).item()


def row(source: Path, seconds: Optional[int], longer: bool, out: Path) -> dict[str, Any]:
    """Fit the layer to a part of a clip; with more steps for longer ones, or not."""
    folder = out / f"{source.name}-{seconds or 'all'}-{longer}"
    ds = egs.load_dataset(shorter(source, seconds, folder))
    device = default_device()
    frames = Frames(ds, range(len(ds)), device)
    began = time.perf_counter()
    with patch.object(fit_torso, "BASE_FRAMES", fit_torso.BASE_FRAMES if longer else fit_torso.MAX_FRAMES):
        torso = fit_torso.fit_torso(ds, frames)
    train = np.unique(np.linspace(0, ds.num_train - 1, SCORED).astype(int)).tolist()
    return {"dataset": source.name, "size": ds.size, "seconds": round(ds.num_train / FPS, 1), "longer": longer,
            "fit_s": round(time.perf_counter() - began, 1), "train": round(outside(torso, frames, train), 2),
            "val": round(outside(torso, frames, ds.val_ids), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for shortened datasets")
    parser.add_argument("--seconds", nargs="+", type=int, default=[10, 20])
    parser.add_argument("--workers", type=int, default=1, help="layers at the same time; times are then not its own")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    jobs = [(*part, longer, args.out) for part in parts(args.datasets, args.seconds) for longer in (False, True)]
    write_rows(row, jobs, args.workers, args.result)


if __name__ == "__main__":
    main()
