"""Time of the orbit viewer from a slider's value to the bytes of a JPEG, as a table and one JSON.

    python benchmarks/orbit.py outputs/demo/runs/quick_test [more runs] [--out benchmarks/results/orbit.json]

Each move changes one slider of the panel, as a user does, to a new value: `turn` (yaw and pitch) and `zoom` keep the
frame, so that only the rasteriser runs; `frame` runs the network as well. There is no browser: transfer and display
are not included. `load` is the machine's load average: above the number of cores, other processes slow the
measurement down.
"""
from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import psutil
from common import DEVICE, facts, given_runs

from egstalker_nb.core.table import Table
from egstalker_nb.notebook.widgets.orbit import PITCH, YAW, ZOOM, Orbit, Viewer
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import replay_script
from egstalker_nb.training.run import Run


def moves(frames: int, count: int) -> dict[str, list[dict]]:
    """Values of the sliders; successive ones differ."""
    rng = np.random.default_rng(0)
    turns = [{"yaw": y} if i % 2 else {"pitch": p} for i, (y, p) in enumerate(
        zip(rng.uniform(-YAW, YAW, count), rng.uniform(-PITCH, PITCH, count)))]
    return {"turn": turns, "zoom": [{"zoom": z} for z in rng.uniform(*ZOOM, count)],
            "frame": [{"frame": i % frames} for i in range(1, count + 1)]}


def orbit(run: Run, size: int, count: int) -> list[dict]:
    """Milliseconds of each kind of move."""
    renderer, rows = Renderer.from_run(run, device=DEVICE), []
    panel = Orbit(Viewer(renderer, size).set_script(replay_script(renderer, "all")))
    view = panel.widget.children[0]  # a panel builds its controls when it is first displayed
    for kind, steps in moves(len(panel.viewer.script), count).items():
        panel.show(frame=0, yaw=0.0, pitch=0.0, zoom=1.0)
        times = []
        for step in steps:
            (name, value), = step.items()
            start = time.perf_counter()
            panel.sliders[name].value = value  # renders and encodes before it returns
            times.append(1000 * (time.perf_counter() - start))
        p50, p95 = np.quantile(times, (0.5, 0.95)).round(1)
        rows.append({"run": run.root.name, "gaussians": len(renderer.head), "size": size, "move": kind,
                     "p50_ms": float(p50), "p95_ms": float(p95), "jpeg_bytes": len(view.picture), "moves": len(times)})
    return rows


def processor() -> str:
    """The processor's name if the system reports it, else its architecture."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
             ] if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="px")
    parser.add_argument("--moves", type=int, default=100, help="of each kind")
    parser.add_argument("--out", type=Path, help="the JSON")
    args, runs = given_runs(parser)
    rows = [row for run in runs for row in orbit(run, args.size, args.moves)]
    result = {"facts": facts(args.revision) | {"processor": processor(), "load": round(psutil.getloadavg()[0], 1)},
              "rows": rows}
    print(Table(list(rows[0]), [list(row.values()) for row in rows], f"{result['facts']}"))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
