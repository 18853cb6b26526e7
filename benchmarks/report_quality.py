"""Tables of docs/experiments.md on image quality: length of the clip, and what each change against upstream buys."""
from __future__ import annotations

from typing import Any, Callable, Optional

from report_table import made, table, where


def length(result: dict) -> str:
    """Scores and time by clip and seconds of training frames; rows may be of an earlier revision."""
    head = ["clip", "training frames", "training PSNR: composite / head", "validation PSNR: composite / head",
            "validation SSIM", "sharpness of the lips: training / validation", "training", "side by side",
            "revision"]
    rows = [[r["dataset"], f"{r['seconds']:.1f} s",
             f"{r['train']['psnr_composite']:.2f} / {r['train']['psnr_head']:.2f}",
             f"{r['val']['psnr_composite']:.2f} / {r['val']['psnr_head']:.2f}", f"{r['val']['ssim_composite']:.3f}",
             f"{r['train']['sharpness_lips']:.2f} / {r['val']['sharpness_lips']:.2f}", f"{r['training_s']:.0f} s",
             r.get("workers", result.get("workers")), r.get("git", result["facts"]["git"])] for r in result["rows"]]
    return f"{table(head, rows)}\n\n{where(result['facts'])}"


def length_cpu(result: dict) -> str:
    """The same with few steps and small frames, and how near the mouth is to the clip's."""
    head = ["clip", "training frames", "validation PSNR: composite / head", "validation SSIM",
            "mouth landmarks: training / validation", "mouth opening r: training / validation", "training"]
    rows = [[r["dataset"], f"{r['seconds']:.1f} s",
             f"{r['val']['psnr_composite']:.2f} / {r['val']['psnr_head']:.2f}", f"{r['val']['ssim_composite']:.3f}",
             f"{r['train']['lmd_mouth']:.2f} / {r['val']['lmd_mouth']:.2f} px",
             f"{r['train']['aperture_r']:.2f} / {r['val']['aperture_r']:.2f}", f"{r['training_s']:.0f} s"]
            for r in result["rows"]]
    settings = ", ".join(f"`{key}={value}`" for key, value in result["settings"].items())
    return (f"{table(head, rows)}\n\n{result['rows'][0]['size']} px, {settings}, {result['workers']} trainings side by "
            f"side. {where(result['facts'])}")


def torso(result: dict) -> str:
    """The torso layer with as many steps for all lengths, and with more for longer ones."""
    by_part: dict[tuple, dict[bool, dict]] = {}
    for r in result["rows"]:
        by_part.setdefault((r["dataset"], r["seconds"]), {})[r["longer"]] = r
    head = ["clip", "training frames", "the same steps for all: training / validation", "in proportion to the frames",
            "fit"]
    rows = [[name, f"{seconds:.1f} s", *(f"{r['train']:.2f} / {r['val']:.2f}" for r in (same, more)),
             f"{same['fit_s']:.0f} / {more['fit_s']:.0f} s"]
            for (name, seconds), found in by_part.items() for same, more in [(found[False], found[True])]]
    return (f"{table(head, rows)}\n\n{result['rows'][0]['size']} px, {result['workers']} side by side. "
            f"{where(result['facts'])}")


def ablation(result: dict) -> str:
    """Validation PSNR of `production` with one change each taken back."""
    clips = result["clips"]
    names = list(dict.fromkeys(row["change"] for clip in clips.values() for row in clip["rows"]))
    by_clip = {clip: {row["change"]: row for row in found["rows"]} for clip, found in clips.items()}

    def cell(row: Optional[dict]) -> str:
        if row is None:
            return "not run"
        if row.get("psnr_composite") is None:
            return "head lost"
        return f"{row['psnr_composite']:.2f} / {row['psnr_head']:.2f} / {row['psnr_lips']:.2f}"

    rows = [[name, *(cell(found.get(name)) for found in by_clip.values())] for name in names]
    head = ["changed back to upstream's", *(f"{clip}: composite / head / lips (dB)" for clip in clips)]
    return f"{table(head, rows)}\n\n{result['iterations']:,} iterations. {where(result['facts'])}"


def texts(read: Callable[[str], Optional[dict[str, Any]]]) -> dict[str, str]:
    """Table by name, of those whose results are there."""
    return made({"length": length, "length_cpu": length_cpu, "torso": torso, "ablation": ablation}, read)
