"""Heads as pages (`egs.export_web`): size, cost in image quality, and speed in Chromium, as a table and one JSON.

    python benchmarks/web_head.py outputs/clip-prod ... [--audio speech.wav] [--browser-args --use-gl=angle]
                                  [--out benchmarks/results/web_head.json]

Without --browser-args the browser draws without a GPU (SwiftShader): the figures of its drawing are then those of the
CPU. A frame is timed until its pixels can be read.
"""
from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import facts
from PIL import Image
from report_web import web_head

import egstalker_nb as egs
from egstalker_nb.metrics.image_metrics import psnr
from egstalker_nb.rendering.script import audio_script

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from lab import SOFTWARE, chromium  # noqa: E402

COMPARED = 8  # frames of the audio, evenly spaced
FRAME = """async ([i, mouth]) => {
  await talkingHead.show(i, Float32Array.from(mouth));
  return document.querySelector("canvas").toDataURL("image/png");
}"""
TIMES = """async (mouths) => {
  const canvas = document.querySelector("canvas"), gl = canvas.getContext("webgl2"), pixel = new Uint8Array(4);
  const frame = [], worker = [];
  for (let i = 0; i < mouths.length; i++) {
    const began = performance.now();
    await talkingHead.show(i, Float32Array.from(mouths[i]));
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    frame.push(performance.now() - began);
    worker.push(talkingHead.cost.worker);
  }
  return { frame, worker };
}"""


def measured(run: egs.Run, audio: Path, arguments: list[str]) -> dict:
    renderer = egs.Renderer.from_run(run, device="cpu")
    script = audio_script(renderer, audio)
    mouths = renderer.mouth_coefficients(script).numpy()
    with tempfile.TemporaryDirectory() as folder, chromium(arguments) as browser:
        began = time.perf_counter()
        done = egs.export_web(run, Path(folder) / "head.html", device="cpu")
        export_s, page, version = time.perf_counter() - began, browser.new_page(), browser.version
        began = time.perf_counter()
        page.goto(done.path.as_uri())
        page.locator("#listen").wait_for()
        load_s = time.perf_counter() - began
        page.evaluate("() => { window.requestAnimationFrame = () => 0; }")  # no frames but those asked for
        page.wait_for_timeout(500)
        times = page.evaluate(TIMES, mouths[:100].tolist())
        agreement = []
        for i in np.linspace(0, len(script) - 1, COMPARED).astype(int).tolist():
            data = page.evaluate(FRAME, [i, mouths[i].tolist()]).partition(",")[2]
            shown = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
            agreement.append(float(psnr(shown, renderer.render_frames(script.part(i, i + 1))[0])))
    found = {"run": run.root.name, "size": renderer.ds.size, "gaussians": done.gaussians, "bases": done.bases,
             "mb": done.bytes / 1e6, "export_s": export_s, "load_s": load_s, "network_psnr": done.network_psnr,
             "page_psnr": done.page_psnr, "render_agreement_min": min(agreement),
             "render_agreement_mean": float(np.mean(agreement)), "browser": version}
    for name, values in times.items():
        found[f"{name}_ms"], found[f"{name}_ms_95"] = (float(np.quantile(values, q)) for q in (0.5, 0.95))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--audio", type=Path, default=ROOT / "data" / "sample" / "speech.wav")
    parser.add_argument("--browser-args", nargs="+", default=SOFTWARE)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    heads = [measured(egs.load_run(run), args.audio, args.browser_args) for run in args.runs]
    result = {"facts": facts(), "browser": heads[0].pop("browser"), "heads": heads}
    print(web_head(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
