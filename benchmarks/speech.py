"""Time from speech to a video with audio, everything included, and what limits it.

    python benchmarks/speech.py outputs/demo/runs/production [--seconds 60] [--batch 32] [--workers 1 2 4] [--out FILE]
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from common import facts, given_runs

import egstalker_nb as egs
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.rates import FPS, SAMPLE_RATE
from egstalker_nb.media.video_reader import read_frames
from egstalker_nb.media.video_writer import write_video

SPEECH = Path(__file__).parents[1] / "data" / "sample" / "speech.wav"


def speech(run: egs.Run, seconds: int, batch: int, workers: int = 1) -> dict:
    """Frames/s from a WAV to an MP4; without librosa precomputed features are used, and `features` is "given".

    `writing_frames_per_s` is the limit that encoder and muxer set: the same frames, as arrays, to the same file.
    """
    with tempfile.TemporaryDirectory() as folder:
        audio, out, given = Path(folder) / "speech.wav", Path(folder) / "talk.mp4", None
        wave = np.resize(load_audio(SPEECH), seconds * SAMPLE_RATE)
        save_wav(audio, wave)
        if importlib.util.find_spec("librosa") is None:
            given = Path(folder) / "features.npy"
            np.save(given, np.resize(run.dataset.features, (seconds * FPS, 16, 29)))
        start = time.perf_counter()
        video = egs.render(run, audio, out, features=given, batch=batch, workers=workers)
        elapsed = time.perf_counter() - start
        frames = list(read_frames(out, stop=250))
        copies = (frames[i % len(frames)].copy() for i in range(video.frames))
        start = time.perf_counter()
        write_video(Path(folder) / "again.mp4", copies, wave)
        writing = time.perf_counter() - start
        return {"seconds_of_speech": seconds, "frames": video.frames, "size": run.dataset.size, "batch": batch,
                "workers": workers, "seconds": round(elapsed, 2), "frames_per_s": round(video.frames / elapsed, 1),
                "after_set_up_frames_per_s": round(video.total_fps, 1),
                "device_frames_per_s": round(video.render_fps, 1),
                "writing_frames_per_s": round(video.frames / writing, 1),
                "megabytes": round(out.stat().st_size / 1e6, 1), "features": "given" if given else "computed"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of speech")
    parser.add_argument("--batch", type=int, default=32, help="frames rendered at a time")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="each number is measured")
    parser.add_argument("--repeat", type=int, default=2, help="times; the first one includes imports and compilation")
    parser.add_argument("--out", type=Path, help="the JSON to write")
    args, runs = given_runs(parser)
    found = [speech(run, args.seconds, args.batch, workers)
             for run in runs for workers in args.workers for _ in range(args.repeat)]
    text = json.dumps({"facts": facts(args.revision), "speech": found}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
