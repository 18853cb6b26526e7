"""A camera that moves: how far its measured motion is off, and what the torso layer gains by following it.

    python benchmarks/moving_camera.py clip.mp4 [--frames 400] [--size 256] [--out moving_camera.json]

Frames of a clip of a still camera are seen through a window that moves as a camera would, so that the truth is known.
The clip should have room around the person and a background with texture.
"""
from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import facts

import egstalker_nb as egs
from egstalker_nb.data.camera_view import CORNERS, pixels, view_matrix
from egstalker_nb.data.dataset import Dataset
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.image_io import write_png
from egstalker_nb.media.rates import SAMPLES_PER_FRAME
from egstalker_nb.media.video_reader import read_frames
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.preparation.plate import PlateSum, clean_plate
from egstalker_nb.training.fit_torso import fit_torso

CASES = "still", "zoom", "pan", "hand", "exposure"


def made_up(case: str, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Views [F, 4] of the whole picture of the clip, and log gains [F, 3], of one of `CASES`."""
    time, rng = np.linspace(0, 1, frames), np.random.default_rng(0)
    views, gains = np.zeros((frames, 4)), np.zeros((frames, 3))
    if case == "zoom":
        views[:] = np.stack([-0.04 * time, 0.06 * time, 0.02 + np.log(1 + 0.3 * time), 0 * time], 1)
    elif case == "pan":
        views[:] = np.stack([0.3 * np.sin(5.6 * time), 0.26 - 0.03 * time, 0.27 + 0 * time, 0 * time], 1)
    elif case == "hand":
        kernel = np.hanning(25) / np.linalg.norm(np.hanning(25))
        shake = np.stack([np.convolve(x, kernel, "valid") for x in rng.normal(size=(4, frames + 24))], 1)
        views[:] = shake * [0.015, 0.015, 0.003, 0.004] + [0, 0, 0.1, 0]
    elif case == "exposure":
        gains[:] = 0.08 * np.sin(9.4 * time)[:, None] + np.outer(time, [0.02, 0, -0.02])
    return views, gains


def through_the_camera(clip: Path, views: np.ndarray, gains: np.ndarray, size: int, out: Path) -> Path:
    """Write what a camera with these views sees of a square clip."""
    wave = load_audio(clip)[:len(views) * SAMPLES_PER_FRAME]

    def frames() -> Any:
        for image, view, gain in zip(read_frames(clip), views, gains):
            px = pixels(len(image)) @ np.linalg.inv(view_matrix(view)) @ np.linalg.inv(pixels(size))
            blur = len(image) / size / np.exp(view[2]) / 2.5  # against aliasing
            image = cv2.GaussianBlur(image, (0, 0), max(0.1, blur))
            seen = cv2.warpAffine(image, px[:2], (size, size), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                                  borderMode=cv2.BORDER_REFLECT)
            yield (seen * np.exp(gain)).round().clip(0, 255).astype(np.uint8)

    return write_video(out, frames(), wave)


def errors(ds: Dataset, views: np.ndarray, gains: np.ndarray) -> dict[str, float]:
    """How far corners of the frames are from where they should be against the first frame, px, and the log gains."""
    found, true = (view_matrix(v) @ np.linalg.inv(view_matrix(v[0])) for v in (ds.views, views))
    off, moved = (np.linalg.norm((x @ CORNERS)[:, :2], axis=1).max(1) * ds.size / 2
                  for x in (found - true, true - np.eye(3)))
    light = np.abs(ds.camera[:, 4:] - ds.camera[:, 4:].mean(0) - gains + gains.mean(0))
    return {"moved_px": moved.max(), "error_px": off.mean(), "largest_error_px": off.max(),
            "gain_error": light.mean()}


def without_camera(ds: Dataset, root: Path) -> Dataset:
    """The same clip as if its camera stood still."""
    shutil.copytree(ds.root, root)
    total = PlateSum(ds.size)
    for i in range(len(ds)):
        total.add(ds.frame(i), ds.mask(i))
    write_png(root / "background.png", clean_plate([total.sums()])[0])
    with np.load(root / "tracking.npz") as file:
        np.savez(root / "tracking.npz", **{name: file[name] for name in file if name != "camera"})
    return egs.load_dataset(root)


def layer_psnr(ds: Dataset) -> dict[str, float]:
    """PSNR of the fitted torso layer over the plate where the head is not, dB, mean over frames."""
    torso = fit_torso(ds, Frames(ds, ds.train_ids, torch.device("cpu")))
    found = {}
    for split in ("train", "val"):
        values = []
        for i in list(ds.split(split))[::3]:
            image = (torso(torso.codes[i:i + 1])[0].numpy() * ds.gains[i]).clip(0, 1)
            square = np.square(image - ds.frame(i) / 255)[ds.mask(i)[..., 0] < 5]
            values.append(-10 * np.log10(square.mean()))
        found[split] = float(np.mean(values))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {**facts(), "frames": args.frames, "size": args.size, "cases": {}}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            views, gains = made_up(case, args.frames)
            video = through_the_camera(args.clip, views, gains, args.size, Path(folder) / "seen.mp4")
            ds = egs.prepare(video, Path(folder) / "dataset", size=args.size)
            row = {"report": ds.report["camera"], **errors(ds, views, gains), "follows": layer_psnr(ds),
                   "stands_still": layer_psnr(without_camera(ds, Path(folder) / "ignored"))}
        result["cases"][case] = json.loads(json.dumps(row, default=float), parse_float=lambda x: round(float(x), 4))
        print(case, json.dumps(result["cases"][case]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
