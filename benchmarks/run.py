"""Measure everything on this machine, and write one JSON.

    python benchmarks/run.py data/clip [data/other ...] --out benchmarks/results/gpu.json    (on a GPU host)
    make bench                                                                               (on a CPU, the sample)

Then `python benchmarks/report.py` draws the plots and fills README's tables from `benchmarks/results/`. Stages,
growth and speech are measured on the first dataset. Runs are written to `--runs`; existing ones are deleted.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Optional

import torch
from common import DEVICE, facts
from growth import growth, streaming
from speech import speech
from stages import stages
from training import measure

import egstalker_nb as egs
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.metrics.image_metrics import psnr
from egstalker_nb.training.trainer import Trainer

GPU = DEVICE.type == "cuda"


def precision(run: egs.Run) -> dict:
    """Mean PSNR of the validation frames with the network in bfloat16 (as rendered) and in float32."""
    ds, head = run.dataset, run.load_head()
    frames, found = Frames(ds, list(ds.val_ids), DEVICE).for_head(head), {}
    for name, grad in (("rendered", False), ("float32", True)):  # with gradients the network runs in full precision
        values = []
        for i in ds.val_ids:
            given = frames.batch([i])
            with torch.set_grad_enabled(grad):
                rgb, _, _ = head.render(frames.conditions(given["ids"]), ds.K.to(DEVICE), ds.size, given["background"])
            values.append(psnr(rgb.clamp(0, 1), given["frame"]).item())
        found[name] = round(sum(values) / len(values), 4)
    return found


def preparation(video: Path, size: int) -> dict:
    """Wall time from a video to a dataset."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ds = egs.prepare(video, Path(folder) / "data", size=size)
        return {"clip": video.stem, "frames": len(ds), "size": size, "seconds": round(time.perf_counter() - start, 1)}


def parts(datasets: list[Path], presets: list[str], runs: Path, video: Optional[Path]) -> dict[str, Callable[[], Any]]:
    """Key of the JSON -> the function that measures it."""
    first = egs.load_dataset(datasets[0])
    best = runs / f"{datasets[0].name}-{presets[0]}"

    def train_all() -> list[dict]:
        return [measure(d, preset, runs) for d in datasets for preset in presets]

    def step_parts() -> dict:
        run = egs.load_run(best)
        return stages(Trainer(run.dataset, run.config, run, DEVICE).resume(run.iterations[-1]))

    wanted = {"presets": train_all, "stages": step_parts, "precision": lambda: precision(egs.load_run(best)),
              "speech": lambda: speech(egs.load_run(best), 60 if GPU else 8, 32 if GPU else 8),
              "streaming": lambda: streaming(first), "growth": lambda: growth(first)}
    if importlib.util.find_spec("av") is None:
        del wanted["speech"]
        print("PyAV is not installed: speech to video is not measured")
    if video:
        wanted["preparation"] = lambda: preparation(video, 512)
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--presets", nargs="+", default=["production", "quick_test"] if GPU else ["quick_test"])
    parser.add_argument("--parts", nargs="+", help="only these keys; others in --out are kept, each with its own facts")
    parser.add_argument("--video", type=Path, help="measure the preparation of this clip")
    parser.add_argument("--runs", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--revision", help="git revision, if this is no repository")
    args = parser.parse_args()
    wanted = parts(args.datasets, args.presets, args.runs, args.video)
    chosen = args.parts or list(wanted)
    result = json.loads(args.out.read_text(encoding="utf-8")) if args.parts and args.out.exists() else {}
    now = facts(args.revision)
    result.setdefault("facts", now)
    if "presets" in chosen:
        shutil.rmtree(args.runs, ignore_errors=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        start = time.perf_counter()
        result[name] = wanted[name]()
        if now != result["facts"]:  # of the parts that were kept
            result.setdefault("facts_of", {})[name] = now
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {time.perf_counter() - start:.1f} s\n{json.dumps(result[name])}", flush=True)


if __name__ == "__main__":
    main()
