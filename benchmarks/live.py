"""Latency of a live head: look-ahead, compute time per frame, and memory growth, as a table and one JSON.

    python benchmarks/live.py outputs/clip-prod [--size 256] [--minutes 10] [--out benchmarks/results/live.json]

The clip's own audio is streamed in a loop, in chunks of 40 ms, as fast as frames are rendered. `hearing` is the part
of the compute time that the audio features take, on the CPU. Growth is counted after the first tenth, when the
buffers are full.
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
from egstalker_nb.rendering.streaming import LOOK_AHEAD, LiveFeatures
from egstalker_nb.training.run import Run


def scaled(run: Run, size: int) -> Run:
    """The run as if its clip had been prepared at another size, for timing: camera, background and torso are scaled."""
    run.__dict__["dataset"] = Stretched(run.dataset, len(run.dataset), size)
    load = run.load_head

    def load_scaled(*args, **kwargs):
        head = load(*args, **kwargs)
        torso, side = head.torso, round(size * len(head.torso.plate) / head.torso.size)
        torso.picture = _resized(torso.picture, side)
        torso.plate = _resized(torso.plate.permute(2, 0, 1), side).permute(1, 2, 0).contiguous()
        torso.size = size
        return head

    run.load_head = load_scaled
    return run


def _resized(image: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [C, S, S] -> [C, size, size]."""
    return F.interpolate(image[None].float(), (size, size), mode="area")[0].round().byte()


def resident() -> float:
    """Resident memory of this process in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmRSS in /proc/self/status")


def audio_chunks(wave: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """Chunks of 40 ms of the wave in a loop, one for each of `frames` frames."""
    for i in range(frames):
        yield np.take(wave, range(i * SAMPLES_PER_FRAME, (i + 1) * SAMPLES_PER_FRAME), mode="wrap")


def quantiles_ms(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile in ms, of seconds."""
    return {name: round(1000 * float(np.quantile(times, share)), 2) for name, share in (("median", 0.5), ("p95", 0.95))}


def live(run: Run, minutes: float) -> dict:
    """Stream so many minutes of audio through a head, and measure each frame."""
    wave, frames, times, memory, card = run.dataset.audio(), round(minutes * 60 * FPS), [], [], []
    source = egs.stream(run, audio_chunks(wave, frames), blink=17, device=DEVICE)
    start = time.perf_counter()
    for image in source:  # noqa: B007 (its size is reported)
        times.append(time.perf_counter() - start)
        memory.append(resident())
        card.append(torch.cuda.memory_allocated() / 2 ** 20 if DEVICE.type == "cuda" else 0.0)
        start = time.perf_counter()
    full, live_features, feature_times = len(memory) // 10, LiveFeatures(wave), []
    for chunk in audio_chunks(wave, min(frames, 500)):
        start = time.perf_counter()
        for _ in live_features.push(chunk):
            feature_times.append(time.perf_counter() - start)
    # the first frame waits for the look-ahead: it is not counted
    return {"run": run.root.name, "size": len(image), "frames": len(times), "look_ahead_ms": 1000 * LOOK_AHEAD,
            "frame_ms": quantiles_ms(times[1:]), "slowest_ms": round(1000 * max(times[1:]), 1),
            "hearing_ms": quantiles_ms(feature_times), "minutes": minutes, "memory_mib": round(memory[full], 1),
            "memory_growth_mib": round(memory[-1] - memory[full], 1),
            "card_growth_mib": round(card[-1] - card[full], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dataset", type=Path, help="current path of the run's dataset")
    parser.add_argument("--size", type=int, help="px; default: that of the clip")
    parser.add_argument("--minutes", type=float, default=2.0, help="of audio")
    parser.add_argument("--out", type=Path, help="the JSON; the measurement is appended")
    parser.add_argument("--revision", help="git revision, if this is no repository")
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
