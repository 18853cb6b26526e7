"""Draw the plots and fill README's tables from `benchmarks/results/gpu.json` and `cpu.json`.

`gpu_clips.json` holds more clips and presets, of another run of the benchmarks.

    python benchmarks/report.py

Each table stands in README.md between `<!-- bench: name -->` and `<!-- end -->`.
"""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator

from egstalker_nb import plots

ROOT = Path(__file__).parents[1]
RESULTS, IMAGES, README = ROOT / "benchmarks" / "results", ROOT / "docs" / "images", ROOT / "README.md"
AXES = {"points": "Gaussians", "frames": "frames", "size": "picture edge (px)", "batch": "frames a step"}


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *[[str(x) for x in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def where(facts: dict) -> str:
    versions = facts["versions"]
    return (f"{facts['device']}, {facts['cores']} cores, torch {versions['torch']}, gsplat {versions['gsplat']}, "
            f"{facts['date']}, revision {facts['git']}")


def trained(result: dict) -> str:
    """Every clip and preset."""
    rows = [[r["dataset"], r["preset"], f"{r['seconds']:.0f} s", r["points"],
             f"{r['train']['psnr_composite']:.2f} / {r['train']['ssim_composite']:.3f}",
             f"{r['val']['psnr_composite']:.2f} / {r['val']['ssim_composite']:.3f}",
             f"{r['val']['psnr_head']:.2f} / {r['val']['ssim_head']:.3f}", r.get("gpu_memory_gib", "-")]
            for r in result["presets"]]
    return table(["clip", "preset", "time", "Gaussians", "training PSNR / SSIM", "validation PSNR / SSIM",
                  "validation, head", "GPU GiB"], rows) + f"\n\n{where(result['facts'])}"


def reached(result: dict) -> str:
    """The figures that were aimed at, for the first clip."""
    first, speed = result["presets"][0], result["presets"][0]["speed"]
    long = max((r for r in result["growth"] if r["varies"] == "frames"), key=lambda r: r["frames"])
    slowest = {r["place"]: r["step_ms"] for r in result["streaming"]}
    rows = [
        [f"`production`, {first['iterations']:,} iterations, evaluation and checkpoints included",
         f"{first['seconds']:.0f} s", "240 s", "150 s"],
        ["PSNR, validation frames", f"{first['val']['psnr_composite']:.2f} dB", "28.5 dB", "30.5 dB"],
        ["PSNR, training frames", f"{first['train']['psnr_composite']:.2f} dB", "35 dB", "37 dB"],
        ["drawing one by one (latency)", f"{speed['batch_1_fps']:,.0f} frames/s", "800", "1,200"],
        ["drawing in batches of 32", f"{speed['batch_32_fps']:,.0f} frames/s", "7,000", "10,000"],
        [f"training memory, {long['frames']:,} frames", f"{long['train_gib']:.1f} GiB", "24 GB", "12 GB"],
        ["frames from the host's memory against frames on the card", f"{slowest['host'] / slowest['device']:.2f} x",
         "1.3 x", ""],
        ["PSNR lost by bfloat16 in drawing",
         f"{result['precision']['float32'] - result['precision']['rendered']:.4f} dB", "0.05 dB", ""],
        ["the same step without recording it", f"{result['stages']['plain_step_ms']:.1f} ms, recorded "
         f"{result['stages']['step_ms']:.1f} ms", "", ""],
    ]
    if "speech" in result:
        s = result["speech"]
        rows.insert(5, [f"{s['seconds_of_speech']} s of speech to an MP4 with sound (features {s['features']})",
                        f"{s['frames_per_s']:,.0f} frames/s", "600", "1,000"])
    return table([f"figure ({first['dataset']}, {first['size']} px)", "measured", "at least", "aim"], rows)


def on_cpu(result: dict) -> str:
    run, speed = result["presets"][0], result["presets"][0]["speed"]
    rows = [[f"`{run['preset']}`, {run['iterations']:,} iterations, {run['size']} px", f"{run['seconds']:.0f} s",
             "120 s", "60 s"]]
    if "preparation" in result:
        p = result["preparation"]
        rows.append([f"preparation, {p['frames']} frames of {p['clip']} at {p['size']} px", f"{p['seconds']:.0f} s",
                     "30 s", "15 s"])
    rows.append([f"drawing, {run['size']} px, {run['points']} Gaussians, batches of 8",
                 f"{speed['batch_8_fps']:.0f} frames/s", "", ""])
    if "speech" in result:
        rows.append([f"{result['speech']['seconds_of_speech']} s of speech to an MP4 with sound",
                     f"{result['speech']['frames_per_s']:.0f} frames/s", "", ""])
    return table(["figure", "measured", "at least", "aim"], rows) + f"\n\n{where(result['facts'])}"


def draw_stages(results: dict[str, dict]) -> None:
    """Bars: where each millisecond of a step goes."""
    figure, axes = plots.subplots(len(results), 1, width=9, height=2.4)
    for axis, result in zip(axes, results.values()):
        s = result["stages"]
        names, values = list(s["parts_ms"]), list(s["parts_ms"].values())
        bars = axis.barh(names[::-1], values[::-1], color=plots.STYLES[0][0])
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axis.margins(x=0.1)
        plots.label(axis, "ms", "", f"{result['facts']['device']}: {s['step_ms']:.1f} ms a step, {s['batch']} x "
                    f"{s['size']} px, {s['points']:,} Gaussians")
    figure.savefig(IMAGES / "stages.png", dpi=80)


def draw_growth(results: dict[str, dict]) -> None:
    """Time and memory against everything that can grow; both axes logarithmic, so that a line of slope 1 is linear."""
    figure, axes = plots.subplots(3, 4, width=14, height=2.8)
    for style, (name, result) in enumerate(results.items()):
        for column, (varies, title) in enumerate(AXES.items()):
            rows = [r for r in result["growth"] if r["varies"] == varies]
            at = [r[varies] for r in rows]
            for line, (key, y) in enumerate((("step_ms", "training step (ms)"), ("frame_ms", "drawn frame (ms)"),
                                             ("train_gib", "GPU memory (GiB)"))):
                axis = axes[4 * line + column]
                if rows and key in rows[0]:
                    plots.curve(axis, at, [r[key] for r in rows], name, style, marker="o")
                    plots.label(axis, title, y)
                    if style == 0:  # ticks at the settings that were measured, as plain numbers
                        axis.set(xscale="log", yscale="log")
                        axis.set_xticks(at, [f"{x:,}" for x in at], fontsize=8)
                        axis.minorticks_off()
                        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    figure.savefig(IMAGES / "growth.png", dpi=70)


def main() -> None:
    results = {name: json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))
               for name, file in (("GPU", "gpu"), ("CPU", "cpu")) if (RESULTS / f"{file}.json").exists()}
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_stages(results)
    draw_growth(results)
    texts = {}
    if "GPU" in results:
        more = RESULTS / "gpu_clips.json"
        runs = [results["GPU"], *([json.loads(more.read_text(encoding="utf-8"))] if more.exists() else [])]
        texts.update(trained="\n\n".join(map(trained, runs)), reached=reached(results["GPU"]))
    if "CPU" in results:
        texts["cpu"] = on_cpu(results["CPU"])
    readme = README.read_text(encoding="utf-8")
    for name, text in texts.items():
        pattern = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme = pattern.sub(lambda m, text=text: f"{m[1]}{text}\n{m[2]}", readme)
    README.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
