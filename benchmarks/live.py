"""How late a live head is: look-ahead, compute per frame, and whether memory grows, as a table and one JSON.

    python benchmarks/live.py outputs/clip-prod [--size 256] [--minutes 10] [--out benchmarks/results/live.json]

The clip's own sound comes in over and over, in chunks of 40 ms, as fast as frames are drawn. `hearing` is the part of
the compute that is spent on the sound, on the CPU. The first tenth is not counted as growth: buffers fill.
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from common import DEVICE, Stretched, facts

import egstalker_nb as egs
from egstalker_nb.media.rates import FPS, SAMPLES_PER_FRAME
from egstalker_nb.rendering.streaming import LOOK_AHEAD, Listener
from egstalker_nb.training.run import Run


def scaled(run: Run, size: int) -> Run:
    """The run as if its clip had been prepared at another size, for timing: camera, plate and torso are scaled."""
    run.__dict__["dataset"] = Stretched(run.dataset, len(run.dataset), size)
    load = run.load_head

    def load_scaled(*given):
        head = load(*given)
        head.torso.picture = _resized(head.torso.picture, size)
        head.torso.plate = _resized(head.torso.plate.permute(2, 0, 1), size).permute(1, 2, 0).contiguous()
        return head

    run.load_head = load_scaled
    return run


def _resized(picture: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [C, S, S] -> [C, size, size]."""
    return F.interpolate(picture[None].float(), (size, size), mode="area")[0].round().byte()


def resident() -> float:
    """Memory of this process in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmRSS in /proc/self/status")


def sound_of(wave: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """Chunks of 40 ms, the wave over and over."""
    for i in range(frames):
        yield np.take(wave, range(i * SAMPLES_PER_FRAME, (i + 1) * SAMPLES_PER_FRAME), mode="wrap")


def milliseconds(times: list[float]) -> dict:
    return {name: round(1000 * float(np.quantile(times, share)), 2) for name, share in (("median", 0.5), ("p95", 0.95))}


def live(run: Run, minutes: float) -> dict:
    """Stream so many minutes of sound through a head."""
    wave, frames, times, memory, card = run.dataset.audio(), round(minutes * 60 * FPS), [], [], []
    source = egs.stream(run, sound_of(wave, frames), blink=17, device=DEVICE)
    began = time.perf_counter()
    for picture in source:  # noqa: B007 (its size is told)
        times.append(time.perf_counter() - began)
        memory.append(resident())
        card.append(torch.cuda.memory_allocated() / 2 ** 20 if DEVICE.type == "cuda" else 0.0)
        began = time.perf_counter()
    full, listener, hearing = len(memory) // 10, Listener(wave), []
    for chunk in sound_of(wave, min(frames, 500)):
        began = time.perf_counter()
        for _ in listener.hear(chunk):
            hearing.append(time.perf_counter() - began)
    # the first frame waits for its look-ahead, the last ones come together
    return {"run": run.root.name, "size": len(picture), "frames": len(times), "look_ahead_ms": 1000 * LOOK_AHEAD,
            "frame_ms": milliseconds(times[1:]), "slowest_ms": round(1000 * max(times[1:]), 1),
            "hearing_ms": milliseconds(hearing), "minutes": minutes, "memory_mib": round(memory[full], 1),
            "memory_growth_mib": round(memory[-1] - memory[full], 1),
            "card_growth_mib": round(card[-1] - card[full], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dataset", type=Path, help="where the dataset of the run lies now")
    parser.add_argument("--size", type=int, help="px, if other than the clip's")
    parser.add_argument("--minutes", type=float, default=2.0, help="of sound")
    parser.add_argument("--out", type=Path, help="the JSON; measurements already in it stay")
    parser.add_argument("--revision", help="git revision, where there is no repository")
    args = parser.parse_args()
    run = egs.load_run(args.run, args.dataset)
    row = live(scaled(run, args.size) if args.size else run, args.minutes) | {"facts": facts(args.revision)}
    for name, value in row.items():
        print(f"{name:18} {value}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        rows = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
        args.out.write_text(json.dumps([*rows, row], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
