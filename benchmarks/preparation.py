"""Preparation of a long video: time of each step, and peak memory of all processes.

    python benchmarks/preparation.py clip.mp4 [--frames 7500] [--size 512] [--out benchmarks/results/preparation.json]

The clip is played back and forth until it is long enough, so that there are no cuts and no repeated frames. Needs an
idle machine.
"""
from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Iterator

import numpy as np
import psutil
from common import facts

import egstalker_nb as egs
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.rates import SAMPLES_PER_FRAME
from egstalker_nb.media.video_reader import read_frames
from egstalker_nb.media.video_writer import write_video


def long_video(clip: Path, frames: int, out: Path) -> Path:
    """Write `frames` frames of a clip, played back and forth, with its audio in a loop."""
    images, wave = list(read_frames(clip)), load_audio(clip)
    there_and_back = itertools.cycle(images + images[-2:0:-1])
    # the video encoder buffers frames: each needs its own memory
    copies = (image.copy() for image in itertools.islice(there_and_back, frames))
    return write_video(out, copies, np.resize(wave, frames * SAMPLES_PER_FRAME))


class PeakMemory(threading.Thread):
    """Peak memory of this process and its children while the thread runs; shared pages are counted once.

    Attributes:
        mib: the peak so far.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib, self._over = 0.0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.25):
            self.mib = max(self.mib, sum(self._sizes()) / 2**20)

    def _sizes(self) -> Iterator[int]:
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            try:
                found = process.memory_full_info()
                yield getattr(found, "pss", found.uss)
            except psutil.Error:  # it has ended in the meantime
                continue

    def stop(self) -> float:
        """End the measurement and return the peak, MiB."""
        self._over.set()
        self.join()
        return self.mib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=7500)
    parser.add_argument("--size", type=int, default=512, help="px")
    parser.add_argument("--out", type=Path, help="the JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = long_video(args.clip, args.frames, Path(folder) / "long.mp4")
        memory = PeakMemory()
        memory.start()
        start = time.perf_counter()
        ds = egs.prepare(video, Path(folder) / "data", size=args.size)
        seconds = time.perf_counter() - start
        result = {"facts": facts(), "clip": args.clip.stem, "frames": len(ds), "size": ds.size,
                  "seconds": round(seconds, 1), "peak_mib": round(memory.stop()),
                  "seconds_per_step": ds.report["seconds_per_step"]}
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
