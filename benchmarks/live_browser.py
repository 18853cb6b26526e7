"""Latency of `egs live`, from sound to picture, in a real browser with a made-up microphone, or with a plain client.

    python benchmarks/live_browser.py outputs/demo/runs/quick_test [--minutes 3] [--device cpu] [--client]
        [--out benchmarks/results/live_browser.json]

The server is the command `egs live` in a process of its own. Chromium's microphone is a WAV that repeats. The page
stamps each chunk of the microphone when it gets it, the server says which sample a frame shows, and the page takes the
difference in the animation frame in which it draws. Not in it: the delays of the microphone's own driver before the
page gets the samples, and of the screen after the page has drawn. Then a file is played with sound, and the offset is
that of the frame that is drawn to the sample that is heard by the browser's audio clock.

`--client` needs no browser, as on a GPU host: a WebSocket client in Python sends the same chunks at the pace of a
microphone and takes the difference when it has decoded the JPEG.

On a GPU host, the production head at 512 px:

    python benchmarks/live_browser.py outputs/clip-prod --device cuda --client --minutes 3
"""
from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import cv2
import numpy as np
import psutil
from common import facts

from egstalker_nb.media.audio import load_audio, save_wav

ROOT = Path(__file__).resolve().parents[1]
CHUNK, HEADER = 160, struct.Struct("<BBHIq")  # samples of 10 ms; see docs/live.md
ROUND = 20  # s between looks at the page, whose lists are bounded


@contextmanager
def server(run: Path, device: str) -> Iterator[tuple[str, psutil.Process]]:
    """`egs live`; yields the page's address and the process."""
    command = [sys.executable, "-m", "egstalker_nb", "live", str(run), *(["--device", device] if device else [])]
    environment = {**os.environ,
                   "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "http" not in line:
            raise SystemExit("egs live did not start")
        yield line[line.index("http"):].split()[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def quantiles(values: list[float]) -> dict[str, float]:
    found = np.quantile(values, (0.5, 0.95, 1)) if values else [float("nan")] * 3
    return {name: round(float(value), 1) for name, value in zip(("median", "p95", "max"), found)}


def taken(page: Any, name: str) -> list[float]:
    """What the page has measured since the last look."""
    return page.evaluate("name => window.egsLive[name].splice(0)", name)


def browser_rows(url: str, process: psutil.Process, speech: Path, minutes: float) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from lab import chromium

    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-audio-capture={speech}", "--autoplay-policy=no-user-gesture-required"]
    latency: list[float] = []
    drawn, memory = 0, []
    with chromium(fake) as browser:
        page = browser.new_page()
        page.goto(url)
        page.get_by_role("button", name="Microphone on").click()
        page.wait_for_function("() => window.egsLive.latency.length > 50")
        taken(page, "latency"), taken(page, "drawn")
        began = time.monotonic()
        while (seconds := time.monotonic() - began) < 60 * minutes:
            page.wait_for_timeout(1000 * min(ROUND, 60 * minutes - seconds + 0.1))
            latency += taken(page, "latency")
            drawn += len(taken(page, "drawn"))
            memory.append(process.memory_info().rss / 2 ** 20)
        page.get_by_role("button", name="Microphone off").click()
        page.get_by_role("button", name="Sound on").click()
        page.get_by_label("Audio file").set_input_files(speech)
        page.wait_for_timeout(3000)
        taken(page, "offset")
        page.wait_for_timeout(15000)
        offset = taken(page, "offset")
        version = browser.version
    return {"browser": f"Chromium {version}", "latency_ms": quantiles(latency),
            "frames_per_s": round(drawn / seconds, 2),
            "late_share": round(float(np.mean(np.array(latency) > 250)), 4), "offset_ms": quantiles(offset),
            "offset_least_ms": round(min(offset), 1), "memory_mib": [round(value, 1) for value in memory]}


def client_rows(url: str, process: psutil.Process, wave: np.ndarray, minutes: float) -> dict[str, Any]:
    from websockets.sync.client import connect

    latency: list[float] = []
    memory, stop, began = [], threading.Event(), 0.0
    with connect(url.replace("http", "ws", 1) + "socket", max_size=None, compression=None) as socket:
        socket.send(json.dumps({"microphone": True}))

        def send() -> None:
            for k in range(2 ** 30):
                delay = began + (k + 1) * CHUNK / 16_000 - time.perf_counter()  # when its last sample is captured
                if stop.wait(max(0.0, delay)):
                    return
                samples = np.take(wave, range(k * CHUNK, (k + 1) * CHUNK), mode="wrap")
                socket.send(struct.pack("<I", k * CHUNK) + (samples * 32767).astype("<i2").tobytes())

        began = time.perf_counter()
        sender = threading.Thread(target=send)
        sender.start()
        looked = 0.0
        while (seconds := time.perf_counter() - began) < 60 * minutes:
            message = socket.recv()
            if isinstance(message, str):
                continue
            _, _, count, frame, heard = HEADER.unpack_from(message)
            jpeg = np.frombuffer(message, np.uint8, offset=HEADER.size + 2 * count)
            if len(jpeg) and heard >= 0:
                cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
                latency.append(1000 * (time.perf_counter() - began - heard / 16_000))
            socket.send(json.dumps({"confirm": frame}))
            if seconds - looked > ROUND:
                looked = seconds
                memory.append(process.memory_info().rss / 2 ** 20)
        stop.set()
        sender.join()
    latency = latency[50:]
    return {"browser": None, "latency_ms": quantiles(latency), "frames_per_s": round((len(latency) + 50) / seconds, 2),
            "late_share": round(float(np.mean(np.array(latency) > 250)), 4),
            "memory_mib": [round(value, 1) for value in memory]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--speech", type=Path, default=ROOT / "data" / "sample" / "speech.wav", help="what is spoken")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--device", default="", help="cpu or cuda; default: cuda where available")
    parser.add_argument("--client", action="store_true", help="a client in Python in place of a browser")
    parser.add_argument("--out", type=Path, help="the JSON; the measurement is appended")
    parser.add_argument("--revision", help="git revision, if this is no repository")
    args = parser.parse_args()
    wave = load_audio(args.speech)
    with tempfile.TemporaryDirectory() as folder, server(args.run, args.device) as (url, process):
        speech = save_wav(Path(folder) / "speech.wav", wave)
        load = os.getloadavg()[0]
        measured = (client_rows(url, process, wave, args.minutes) if args.client
                    else browser_rows(url, process, speech, args.minutes))
    row = {"run": args.run.name, "minutes": args.minutes, "load_before": round(load, 2),
           "load_after": round(os.getloadavg()[0], 2), **measured, "facts": facts(args.revision)}
    for name, value in row.items():
        print(f"{name:18} {value}")
    if args.out:
        rows = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
        args.out.write_text(json.dumps([*rows, row], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
