"""Time from speech to a video with audio, everything included."""
from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np

import egstalker_nb as egs
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.rates import FPS, SAMPLE_RATE

SPEECH = Path(__file__).parents[1] / "data" / "sample" / "speech.wav"


def speech(run: egs.Run, seconds: int, batch: int) -> dict:
    """Frames/s from a WAV to an MP4; without librosa precomputed features are used, and `features` is "given"."""
    with tempfile.TemporaryDirectory() as folder:
        audio, out, given = Path(folder) / "speech.wav", Path(folder) / "talk.mp4", None
        save_wav(audio, np.resize(load_audio(SPEECH), seconds * SAMPLE_RATE))
        if importlib.util.find_spec("librosa") is None:
            given = Path(folder) / "features.npy"
            np.save(given, np.resize(run.dataset.features, (seconds * FPS, 16, 29)))
        start = time.perf_counter()
        video = egs.render(run, audio, out, features=given, batch=batch)
        elapsed = time.perf_counter() - start
        return {"seconds_of_speech": seconds, "frames": video.frames, "size": run.dataset.size, "batch": batch,
                "seconds": round(elapsed, 2), "frames_per_s": round(video.frames / elapsed, 1),
                "device_frames_per_s": round(video.render_fps, 1), "megabytes": round(out.stat().st_size / 1e6, 1),
                "features": "given" if given else "computed"}
