"""The README's image of a sweep: parallel coordinates of its report, and the frames of its best run below the video's.

    python benchmarks/sweep_image.py outputs/sample docs/images/sweep.jpg
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from egstalker_nb.media.image_io import read_rgb, write_jpeg

TITLE, FRAMES = 20, 665  # px: where the frames of the video begin in the figure, and where those of the best run end
WIDTH = 640              # px of the frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    lines, frames = (read_rgb(args.sweep / "figures" / f"sweep_{name}.png") for name in ("parallel", "frames"))
    frames = frames[TITLE:FRAMES]
    right = cv2.resize(frames, (WIDTH, round(len(frames) * WIDTH / frames.shape[1])), interpolation=cv2.INTER_AREA)
    width = round(lines.shape[1] * len(right) / len(lines))
    left = cv2.resize(lines, (width, len(right)), interpolation=cv2.INTER_AREA)
    write_jpeg(args.out, np.hstack([left, right]))


if __name__ == "__main__":
    main()
