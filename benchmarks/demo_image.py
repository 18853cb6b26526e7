"""The README's demo image: frames of a clip above, the trained head below; the right half are validation frames.

    python benchmarks/demo_image.py outputs/demo/runs/quick_test docs/images/demo.jpg
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

import egstalker_nb as egs
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.media.image_io import write_jpeg
from egstalker_nb.rendering.renderer import Renderer

FRAMES_PER_SPLIT = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    run = egs.load_run(args.run)
    ds = run.dataset
    ids = [int(i) for split in (ds.train_ids, ds.val_ids)
           for i in np.linspace(split[0], split[-1], FRAMES_PER_SPLIT + 2)[1:-1]]
    renderer = Renderer.from_run(run)
    frames = Frames(ds, ids, renderer.device).for_head(renderer.head)
    given = frames.batch(ids)
    rgb, _ = renderer.batch(frames.conditions(given["ids"]), given["background"])
    sheet = np.vstack([np.hstack(list(x.cpu().numpy())) for x in (given["frame"], rgb)])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    small = cv2.resize((sheet * 255).astype(np.uint8), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    write_jpeg(args.out, small)


if __name__ == "__main__":
    main()
