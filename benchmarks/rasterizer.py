"""Time of the rasteriser, forward and forward + backward, by image size and number of Gaussians.

    python benchmarks/rasterizer.py [--device cuda] [--threads 2] [--repeats 20] [--out times.json]

Prints a table and writes JSON. The scene resembles a head: Gaussians on an ellipsoid that fills most of the image,
with scales of about the distance to their neighbours. `batch` images, each of its own deformed copy, are rendered in
one call (batch dimensions [batch], one camera each).
"""

import argparse
import json
import math
from pathlib import Path

import torch
from common import milliseconds

from egstalker_nb.rasterizer import rasterize

CASES = [  # size in px, Gaussians, images
    (256, 478, 8),
    (256, 2000, 1),
    (256, 5000, 1),
    (512, 5000, 1),
    (512, 13000, 1),
]


def head_scene(count: int, batch: int, size: int, device: str) -> dict:
    """Arguments of `rasterize`, up to the image size, for `batch` deformed copies of one ellipsoid."""
    g = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1) * torch.tensor([0.8, 1.1, 0.8])
    spacing = math.sqrt(4 * math.pi * 0.8 / count)
    scene = dict(
        means=points + 0.02 * torch.randn(batch, count, 3, generator=g),
        quats=torch.randn(batch, count, 4, generator=g),
        scales=spacing * (0.2 + 0.6 * torch.rand(batch, count, 3, generator=g)),
        opacities=0.1 + 0.9 * torch.rand(batch, count, generator=g),
        colors=0.3 * torch.randn(batch, count, 16, 3, generator=g),
    )
    scene = {name: x.to(device).requires_grad_() for name, x in scene.items()}
    view = torch.eye(4)
    view[2, 3] = 6.0
    K = torch.tensor([[2.2 * size, 0, size / 2], [0, 2.2 * size, size / 2], [0, 0, 1]])
    scene["viewmats"] = view.to(device).expand(batch, 1, 4, 4)
    scene["Ks"] = K.to(device).expand(batch, 1, 3, 3)
    return scene


def bench(size: int, count: int, batch: int, repeats: int, device: str) -> dict:
    """One row of the table."""
    scene = head_scene(count, batch, size, device)
    target = torch.rand(batch, 1, size, size, 3).to(device)

    def train():
        image, _, _ = rasterize(**scene, width=size, height=size, sh_degree=3)
        (image - target).abs().mean().backward()

    def render():
        with torch.no_grad():
            rasterize(**scene, width=size, height=size, sh_degree=3)

    row = dict(size=size, gaussians=count, images=batch)
    row["forward_ms"] = round(milliseconds(render, 0.0, repeats), 2)
    row["forward_backward_ms"] = round(milliseconds(train, 0.0, repeats), 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=None, help="also write the JSON here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = dict(device=args.device, threads=args.threads, torch=torch.__version__, rows=[])
    for size, count, batch in CASES:
        row = bench(size, count, batch, args.repeats, args.device)
        result["rows"].append(row)
        print("{images:3d} x {size} px, {gaussians:6d} Gaussians: forward {forward_ms:7.2f} ms, "
              "forward + backward {forward_backward_ms:7.2f} ms".format(**row), flush=True)  # fmt: skip
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
