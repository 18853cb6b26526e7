"""Size and picture of a trained head in each format of Gaussians: its canonical Gaussians from the front.

    python benchmarks/formats.py outputs/run [--dataset data/clip] [--out benchmarks/results/formats.json]
                                 [--images folder]

The PLY holds the checkpoint's numbers as they are (float32), so its picture is the reference for the SPZ's PSNR. The
camera is that of the clip's mean pose, on white, without torso; `psnr_head` counts the pixels with any alpha.
"""
from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Optional

import torch
from common import facts, given_runs
from torch import Tensor

import egstalker_nb as egs
from egstalker_nb.core.files import write_json
from egstalker_nb.media.image_io import encode_png
from egstalker_nb.metrics.image_metrics import psnr
from egstalker_nb.model.gaussian_files import read_gaussians
from egstalker_nb.rendering.motion import mean_pose


def picture(run: egs.Run, path: Path) -> tuple[Tensor, Tensor]:
    """The Gaussians of a file from the front, [S, S, 3] on white, and their alpha [S, S, 1]; 0...1."""
    g, ds = read_gaussians(path), run.dataset
    w2c = torch.tensor(mean_pose(ds.w2c)).float()
    rgb, alpha, _ = egs.rasterize(g["means"], g["quats"], g["scales"].exp(), g["opacities"].sigmoid(),
                                  torch.cat([g["sh0"], g["shN"]], 1), w2c[None], ds.K[None].float(), ds.size, ds.size,
                                  sh_degree=3)
    return (rgb + 1 - alpha)[0].clamp(0, 1), alpha[0]


def measure(run: egs.Run, folder: Path, images: Optional[Path] = None) -> list[dict]:
    """A row for each format; PNG files of the pictures in `images` if that is given."""
    rows: list[dict] = []
    for suffix in ("ply", "spz"):
        path = egs.export_gaussians(run, folder / f"head.{suffix}")
        seen, alpha = picture(run, path)
        if suffix == "ply":
            reference, head = seen, (alpha > 0).float()
        count = len(read_gaussians(path)["means"])
        rows.append({"run": run.root.name, "gaussians": count, "sh_degree": run.config.sh_degree, "format": suffix,
                     "bytes": path.stat().st_size, "bytes_per_gaussian": round(path.stat().st_size / count, 1),
                     "psnr": round(float(psnr(seen, reference)), 2),
                     "psnr_head": round(float(psnr(seen, reference, head)), 2)})
        if images:
            images.mkdir(parents=True, exist_ok=True)
            (images / f"{run.root.name}_{suffix}.png").write_bytes(encode_png((seen * 255).round().byte().numpy()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/formats.json"))
    parser.add_argument("--images", type=Path, help="where to write the pictures; default: nowhere")
    args, runs = given_runs(parser)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for run in runs for row in measure(run, Path(folder), args.images)]
    write_json(args.out, {"facts": facts(args.revision), "formats": rows})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
