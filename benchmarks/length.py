"""How a head gets better with the length of its clip: one held-out end, and 5, 10, 20 and all seconds before it.

    python benchmarks/length.py data/a data/b --out outputs/length [--seconds 5 10 20] [--workers 4]

The last eleventh of a clip is held out; training frames are those right before it, so that a shorter part is the
nearest one. Tracking is that of the whole clip. Rows are written as they come, into `results/length.json`.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
from common import facts

import egstalker_nb as egs
from egstalker_nb.cli.options import parse_settings
from egstalker_nb.data.dataset import Dataset
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.rates import FPS, SAMPLES_PER_FRAME

RESULT = Path(__file__).parent / "results" / "length.json"


def shorter(source: Path, seconds: Optional[int], folder: Path) -> Path:
    """The dataset with this many seconds of training frames (None: all) before the same validation frames."""
    ds = egs.load_dataset(source)
    first = 0 if seconds is None else ds.num_train - seconds * FPS
    if first < 0:
        raise ValueError(f"{ds.root.name} has {ds.num_train / FPS:.1f} s of training frames, not {seconds}")
    return selected(ds, range(first, len(ds)), folder)


def selected(ds: Dataset, at: Sequence[int], folder: Path) -> Path:
    """A dataset of the frames [N] of another one, as many of them held out at the end as there."""
    source, index = ds.root, np.array(at)
    for kind, end in (("frames", "jpg"), ("masks", "png")):
        (folder / kind).mkdir(parents=True)
        for new, old in enumerate(at):
            shutil.copyfile(source / kind / f"{old:06d}.{end}", folder / kind / f"{new:06d}.{end}")
    with np.load(source / "tracking.npz") as arrays:
        np.savez(folder / "tracking.npz", **{k: v[index] if len(v) == len(ds) else v for k, v in arrays.items()})
    np.save(folder / "features.npy", np.load(source / "features.npy")[index])
    audio = load_audio(source / "audio.wav")[:len(ds) * SAMPLES_PER_FRAME]
    save_wav(folder / "audio.wav", audio.reshape(len(ds), SAMPLES_PER_FRAME)[index].ravel())
    for name in ("background.png", "report.json"):
        shutil.copyfile(source / name, folder / name)
    meta = json.loads((source / "dataset.json").read_text())
    meta |= {"num_frames": len(at), "num_train": len(at) - len(ds) + ds.num_train}
    (folder / "dataset.json").write_text(json.dumps(meta))
    return folder


def parts(datasets: list[Path], seconds: list[int]) -> list[tuple[Path, Optional[int]]]:
    """Each dataset with the seconds that it has, and with None: all of its training frames."""
    found: list[tuple[Path, Optional[int]]] = []
    for path in datasets:
        frames = egs.load_dataset(path).num_train
        found += [(path, s) for s in seconds if s * FPS < frames] + [(path, None)]
    return found


def row(source: Path, seconds: Optional[int], preset: str, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train on a part of a clip, and score it."""
    part = out / f"{source.name}-{seconds or 'all'}"
    ds = egs.load_dataset(shorter(source, seconds, part / "dataset"))
    cfg = egs.load_config(preset, **settings)
    began = time.perf_counter()
    run = egs.train(ds, cfg, part / "run")
    found = {"dataset": source.name, "size": ds.size, "seconds": round(ds.num_train / FPS, 1),
             "iterations": cfg.iterations, "training_s": round(time.perf_counter() - began, 1),
             "points": len(run.load_head()), "plateau": run.plateau()}
    for split in ("train", "val"):
        scores = egs.evaluate(run, split)
        found[split] = {k: round(v, 3) for k, v in scores.items() if isinstance(v, float)}
    return found


def write_rows(row: Callable[..., dict[str, Any]], jobs: list[tuple], workers: int, result: Path, **more: Any) -> None:
    """Measure a row for each job, its arguments, in processes, and write them as they come, with `more` beside them."""
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(row, *job) for job in jobs]:
            rows.append(future.result())
            print(json.dumps(rows[-1]), flush=True)
            result.write_text(json.dumps({"facts": facts(), "workers": workers, **more, "rows": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for shortened datasets and runs")
    parser.add_argument("--seconds", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--preset", default="production")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all runs")
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time; times are then not its own")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    settings = parse_settings(args.set)
    jobs = [(*part, args.preset, settings, args.out) for part in parts(args.datasets, args.seconds)]
    write_rows(row, jobs, args.workers, args.result, settings=settings)


if __name__ == "__main__":
    main()
