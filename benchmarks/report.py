"""Draw the plots and fill README's tables from `benchmarks/results/`.

    python benchmarks/report.py

`gpu.json` and `cpu.json` are written by `run.py`; `gpu_clips.json`, also by `run.py`, has more clips and presets;
`sync_<name>.json` is by `sync.py`; the others are named after their scripts.
Each table is in README.md or a page of docs/ between `<!-- bench: name -->` and `<!-- end -->`.
"""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Optional

import report_prior
import report_quality
import report_scale
import report_web
from matplotlib.ticker import FuncFormatter, LogLocator
from report_table import made, table, where

from egstalker_nb.notebook import plots

ROOT = Path(__file__).parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("experiments", "scale", "web_head"))]
AXES = {"points": "Gaussians", "frames": "frames", "size": "image size (px)", "batch": "batch size"}


def trained(result: dict) -> str:
    """Time and scores of every clip and preset."""
    rows = [[r["dataset"], r["preset"], f"{r['seconds']:.0f} s", r["points"],
             f"{r['train']['psnr_composite']:.2f} / {r['train']['ssim_composite']:.3f}",
             f"{r['val']['psnr_composite']:.2f} / {r['val']['ssim_composite']:.3f}",
             f"{r['val']['psnr_head']:.2f} / {r['val']['ssim_head']:.3f}", r.get("gpu_memory_gib", "-")]
            for r in result["presets"]]
    return table(["clip", "preset", "time", "Gaussians", "training PSNR / SSIM", "validation PSNR / SSIM",
                  "validation, head", "GPU GiB"], rows) + f"\n\n{where(facts_of(result, 'presets'))}"


def facts_of(result: dict, part: str) -> dict:
    """Device, versions and date of a part of `run.py`, which may have been measured again, later than the others."""
    return result.get("facts_of", {}).get(part, result["facts"])


def reached(result: dict) -> str:
    """Measurements of the first clip against their targets."""
    first, speed = result["presets"][0], result["presets"][0]["speed"]
    long = max((r for r in result["growth"] if r["varies"] == "frames"), key=lambda r: r["frames"])
    step_ms = {r["place"]: r["step_ms"] for r in result["streaming"]}
    rows = [
        [f"`production`, {first['iterations']:,} iterations, evaluation and checkpoints included",
         f"{first['seconds']:.0f} s", "240 s", "150 s"],
        ["PSNR, validation frames", f"{first['val']['psnr_composite']:.2f} dB", "28.5 dB", "30.5 dB"],
        ["PSNR, training frames", f"{first['train']['psnr_composite']:.2f} dB", "35 dB", "37 dB"],
        ["rendering, batch 1", f"{speed['batch_1_fps']:,.0f} frames/s", "800", "1,200"],
        ["rendering, batch 32", f"{speed['batch_32_fps']:,.0f} frames/s", "7,000", "10,000"],
        [f"training memory, {long['frames']:,} frames", f"{long['train_gib']:.1f} GiB", "24 GB", "12 GB"],
        ["step time with frames in host memory over that with frames on the GPU",
         f"{step_ms['host'] / step_ms['device']:.2f} x", "1.3 x", ""],
        ["PSNR lost by rendering in bfloat16",
         f"{result['precision']['float32'] - result['precision']['rendered']:.4f} dB", "0.05 dB", ""],
        ["training step with the discriminator (last third) without CUDA graph",
         f"{result['stages']['plain_step_ms']:.1f} ms, with: {result['stages']['step_ms']:.1f} ms", "", ""],
    ]
    if found := read("speech"):
        first_video, *later = (row["frames_per_s"] for row in found["speech"])
        rows.insert(5, [f"{found['speech'][0]['seconds_of_speech']} s of speech to an MP4 with audio (features given)",
                        f"{min(later):,.0f} to {max(later):,.0f} frames/s; the first of a process {first_video:,.0f}",
                        "600", "1,000"])
    kept = where(facts_of(result, "growth"))
    return (table([f"measure ({first['dataset']}, {first['size']} px)", "measured", "at least", "target"], rows)
            + f"\n\n{where(facts_of(result, 'presets'))}; memory and frames in host memory: {kept}")


def on_cpu(result: dict) -> str:
    """Measurements on the CPU against their targets."""
    run, speed = result["presets"][0], result["presets"][0]["speed"]
    rows = [[f"`{run['preset']}`, {run['iterations']:,} iterations, {run['size']} px", f"{run['seconds']:.0f} s",
             "120 s", "60 s"]]
    if "preparation" in result:
        p = result["preparation"]
        rows.append([f"preparation, {p['frames']} frames of {p['clip']} at {p['size']} px", f"{p['seconds']:.0f} s",
                     "30 s", "15 s"])
    rows.append([f"rendering, {run['size']} px, {run['points']} Gaussians, batch 8",
                 f"{speed['batch_8_fps']:.0f} frames/s", "", ""])
    if "speech" in result:
        rows.append([f"{result['speech']['seconds_of_speech']} s of speech to an MP4 with audio",
                     f"{result['speech']['frames_per_s']:.0f} frames/s", "", ""])
    return table(["measure", "measured", "at least", "target"], rows) + f"\n\n{where(result['facts'])}"


def preparation(result: dict) -> str:
    """Preparation of a long video against its targets."""
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in result["seconds_per_step"].items())
    minutes = result["frames"] / 25 / 60
    rows = [[f"{result['frames']:,} frames ({minutes:.0f} min) of {result['clip']} at {result['size']} px",
             f"{result['seconds']:.0f} s", "300 s"],
            ["by step (s)", steps, ""],
            ["peak memory, all processes", f"{result['peak_mib']:,} MiB", "1,500 MiB"]]
    return table(["measure", "measured", "at most"], rows) + f"\n\n{where(result['facts'])}"


#: result -> column of README's table of voices
METHODS = {"sync_before": "audio features to Gaussians directly (before)",
           "sync_prior": "speaker prior"}


def mean(scores: list[dict], name: str, foreign: bool) -> str:
    """Mean of the known values of a score; of a lag the range."""
    values = [s[name] for s in scores if s["foreign"] is foreign and s[name] is not None]
    if not values:
        return "-"
    return f"{min(values)} ... {max(values)}" if name == "lag" else f"{sum(values) / len(values):.2f}"


def voices(results: dict[str, dict]) -> str:
    """Scores of encoders and methods, against their targets."""
    scores = [("r of foreign voices", "r", True, "0.55", "0.65"),
             ("the same, at the best lag", "best_r", True, "", ""),
             ("lag (frames)", "lag", True, "within 1", ""),
             ("r of its own voice, validation frames", "r", False, "0.6", "0.75"),
             ("mouth opening in a pause appended to the audio, over that in speech", "pause", True, "0.1", "0.05"),
             ("the same, in pauses of the clips", "silence", True, "", ""),
             ("of the speakers themselves", "silence_own", True, "", ""),
             ("r with the head's own clip, with another speaker's audio (ideal: 0)", "leak", True, "", ""),
             ("jitter over that of the video", "jitter", True, "1.2", "1.0")]
    rows = [[title, *[mean(r["scores"], name, foreign) for r in results.values()], minimum, target]
            for title, name, foreign, minimum, target in scores]
    heads = [f"{METHODS[name]}, heads: {len({s['head'] for s in r['scores']})}" for name, r in results.items()]
    return table(["measure", *heads, "at least", "target"], rows) + f"\n\n{where(list(results.values())[-1]['facts'])}"


def pairs(result: dict) -> str:
    """Scores of every ordered pair of head and audio."""
    def short(value: Any) -> str:
        return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    rows = [[s["head"], s["sound"] if s["foreign"] else "its own, validation frames",
             *[short(s[name]) for name in ("r", "best_r", "lag", "pause", "jitter")]] for s in result["scores"]]
    return table(["head", "audio", "r", "best r", "lag", "pause", "jitter"], rows)


def live(rows: list[dict]) -> str:
    """Latency and memory of streams."""
    lines = [[r["run"], r["facts"]["device"], f"{r['size']} px", f"{r['look_ahead_ms']:.0f} ms",
              *[f"{r[part][name]:.1f} ms" for part, name in
                (("frame_ms", "median"), ("frame_ms", "p95"), ("hearing_ms", "median"))],
              f"{r['memory_growth_mib']:+.1f} MiB in {r['minutes']:g} min"] for r in rows]
    heads = ["head", "device", "size", "look-ahead", "per frame, median", "95th percentile",
             "of it audio features (CPU)", "memory"]
    return table(heads, lines)


def orbit(result: dict) -> str:
    """Time of the orbit viewer from a slider to the bytes of an image."""
    lines = [[r["gaussians"], f"{r['size']} px", r["move"], f"{r['p50_ms']:.0f} ms", f"{r['p95_ms']:.0f} ms"]
             for r in result["rows"]]
    return table(["Gaussians", "size", "moved", "median", "95th percentile"], lines) + f"\n\n{where(result['facts'])}"


def seeds(result: dict) -> str:
    """Mean and standard deviation of each score over seeds, and the difference of a run from itself."""
    names = {"psnr_composite": "PSNR (dB)", "ssim_composite": "SSIM", "psnr_head": "PSNR of the head (dB)",
             "lmd_mouth": "landmark distance, mouth (px)", "aperture_r": "r of mouth opening"}
    digits = {"psnr_composite": 2, "psnr_head": 2}

    def text(split: str, name: str) -> str:
        mean, deviation = result["spread"][split][name]
        return f"{mean:.{digits.get(name, 3)}f} ± {deviation:.{digits.get(name, 3)}f}"

    rows = [[title, text("train", name), text("val", name)] for name, title in names.items()
            if name in result["spread"]["val"]]
    count = len({row["seed"] for row in result["runs"]})
    first, again = result["runs"][0], result["runs"][-1]
    rows.append(["PSNR of seed 0, and of seed 0 again (dB)",
                 *[f"{first[split]['psnr_composite']:.2f}, {again[split]['psnr_composite']:.2f}"
                   for split in ("train", "val")]])
    what = f"{result['clip']}, {result['size']} px, {result['config']}, {count} seeds"
    return table([what, "training frames", "validation frames"], rows) + f"\n\n{where(result['facts'])}"


def read(name: str) -> Optional[Any]:
    """A result, None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def draw_stages(results: dict[str, dict]) -> None:
    """Bars: time of each part of a training step."""
    figure, axes = plots.subplots(len(results), 1, width=9, height=2.4)
    for axis, result in zip(axes, results.values()):
        s, device = result["stages"], facts_of(result, "stages")["device"]
        names, values = list(s["parts_ms"]), list(s["parts_ms"].values())
        bars = axis.barh(names[::-1], values[::-1], color=plots.STYLES[0][0])
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axis.margins(x=0.1)
        plots.label(axis, "ms", "", f"{device}: {s['step_ms']:.1f} ms per step, {s['batch']} x "
                    f"{s['size']} px, {s['points']:,} Gaussians")
    figure.savefig(IMAGES / "stages.png", dpi=80)


def draw_growth(results: dict[str, dict]) -> None:
    """Time and memory against each setting; both axes are logarithmic, so that a slope of 1 is linear growth."""
    figure, axes = plots.subplots(3, 4, width=14, height=2.8)
    for style, (name, result) in enumerate(results.items()):
        for column, (varies, title) in enumerate(AXES.items()):
            rows = [r for r in result["growth"] if r["varies"] == varies]
            at = [r[varies] for r in rows]
            for line, (key, y) in enumerate((("step_ms", "training step (ms)"), ("frame_ms", "rendered frame (ms)"),
                                             ("train_gib", "GPU memory (GiB)"))):
                axis = axes[4 * line + column]
                if rows and key in rows[0]:
                    plots.curve(axis, at, [r[key] for r in rows], name, style, marker="o")
                    plots.label(axis, title, y)
                    if style == 0:  # ticks at the measured settings, as plain numbers
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
    methods = {name: found for name in METHODS if (found := read(name))}
    if methods:
        texts["voices"], texts["pairs"] = voices(methods), pairs(list(methods.values())[-1])
    texts.update(made({"live": live, "orbit": orbit, "preparation": preparation, "seeds": seeds}, read))
    if found := read("prior"):
        texts.update(report_prior.texts(found))
    texts.update(report_scale.texts(read))
    texts.update(report_web.texts(read))
    texts.update(report_quality.texts(read))
    for page in PAGES:
        if page.exists():
            filled = page.read_text(encoding="utf-8")
            for name, text in texts.items():
                pattern = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
                filled = pattern.sub(lambda m, text=text: f"{m[1]}{text}\n{m[2]}", filled)
            page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
