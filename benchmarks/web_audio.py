"""The mouth that the page of `egs.export_web` predicts: speed in Chromium, and agreement with the package.

    python benchmarks/web_audio.py RUN AUDIO... [--page head.html] [--out benchmarks/results/web_audio.json]

Without `--page`, the run is exported first. `predict` takes a whole file, the stream chunks of 20 ms as a microphone
gives them; both on the page's main thread, on one core. The stream is compared with `LiveFeatures`.
"""
from __future__ import annotations

import argparse
import base64
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import facts
from safetensors.numpy import save

import egstalker_nb as egs
from egstalker_nb.media.audio import frames_of, load_audio
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.rendering.streaming import LiveFeatures
from egstalker_nb.speech.encoders import load_encoder
from egstalker_nb.speech.voice_activity import shut_in_silence
from egstalker_nb.web.audio_tensors import audio_tensors

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))
from lab import SOFTWARE, chromium  # noqa: E402

MEASURE = """(text) => {
  const { audio } = window.talkingHead, bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const wave = new Float32Array(bytes.buffer), stream = audio.stream(), times = [], live = [];
  audio.predict(wave);
  const begin = performance.now(), whole = audio.predict(wave), predict = performance.now() - begin;
  for (let at = 0; at < wave.length; at += 320) {
    const start = performance.now(), frames = stream.push(wave.subarray(at, at + 320));
    if (frames.length) times.push(performance.now() - start);
    live.push(...frames);
  }
  live.push(...stream.finish());
  return { predict, times, whole: [...whole], live: live.flatMap((frame) => [...frame]) };
}"""


@torch.no_grad()
def measure(page: Any, run: egs.Run, wave: np.ndarray) -> dict:
    """Times and agreement for one recording."""
    found = page.evaluate(MEASURE, base64.b64encode(wave.tobytes()).decode())
    mouth, frames = run.load_head(device="cpu").mouth, frames_of(len(wave))
    windows = load_encoder("phones").features(wave)
    expected = mouth.predict(torch.from_numpy(windows), torch.from_numpy(shut_in_silence(wave, frames))).numpy()
    live_features = LiveFeatures(run.dataset.audio())
    features, silent = zip(*live_features.push(wave), *live_features.finish())
    live = mouth.predict(torch.from_numpy(np.stack(features)), torch.tensor(silent, dtype=torch.float32)).numpy()
    error = np.asarray(found["whole"]).reshape(expected.shape) - expected
    streamed = np.asarray(found["live"]).reshape(live.shape)
    p50, p95 = np.percentile(found["times"], [50, 95])
    return {"seconds": len(wave) / SAMPLE_RATE, "times_real_time": len(wave) / SAMPLE_RATE * 1000 / found["predict"],
            "stream_ms_p50": float(p50), "stream_ms_p95": float(p95), "stream_ms_max": max(found["times"]),
            "stream_share": sum(found["times"]) / 1000 * SAMPLE_RATE / len(wave),
            "relative_error": float(np.sqrt(np.square(error).mean() / np.square(expected).mean())),
            "stream_r": [float(np.corrcoef(streamed[:, k], live[:, k])[0, 1]) for k in range(live.shape[1])]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("audio", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, help="the run's exported page, if it is there")
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args()
    run = egs.load_run(args.run)
    tensors, constants = audio_tensors(run.load_head(device="cpu"), run.dataset.audio())
    packed = gzip.compress(save(tensors, metadata={"facts": json.dumps(constants)}), 9)
    result: dict = {"facts": facts(), "packed_bytes": len(packed), "audio": {}}
    with tempfile.TemporaryDirectory() as folder, chromium(SOFTWARE) as browser:
        path = args.page or egs.export_web(run, Path(folder) / "head.html").path
        result["browser"] = browser.version
        page = browser.new_page()
        page.goto(path.resolve().as_uri())
        while not page.evaluate("() => !!window.talkingHead"):
            page.wait_for_timeout(100)
        for audio in args.audio:
            row = result["audio"][audio.stem] = measure(page, run, load_audio(audio))
            print(audio.stem, {name: np.round(value, 7).tolist() for name, value in row.items()})
    print(f"tensors and constants packed: {len(packed) / 1e6:.2f} MB; Chromium {result['browser']}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
