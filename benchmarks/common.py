"""Shared by all benchmarks: facts about the machine, clips of any length and size, timing."""
from __future__ import annotations

import argparse
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Callable, Optional

import cv2
import numpy as np
import torch

import egstalker_nb as egs
from egstalker_nb.config import FIELDS
from egstalker_nb.core.device import device_name, rendering_device
from egstalker_nb.core.processes import cores
from egstalker_nb.data.dataset import Dataset
from egstalker_nb.model.gaussians import make_gaussians
from egstalker_nb.rendering.motion import cycle
from egstalker_nb.training.optimizers import make_optimizers
from egstalker_nb.training.run import git_revision, open_run, versions
from egstalker_nb.training.trainer import Trainer

DEVICE = rendering_device()
SCALE = 4.0  # scale of N Gaussians times sqrt(N), head units: as many intersections as in trained heads


def facts(revision: Optional[str] = None) -> dict:
    """Date, device, cores, versions and git revision, to be stored with every measurement."""
    return {"date": date.today().isoformat(), "device": device_name(DEVICE), "cores": cores(),
            "machine": platform.machine(), "versions": versions(), "git": revision or git_revision()}


def given_runs(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[egs.Run]]:
    """Parse the arguments of a script that measures runs: `runs`, `--dataset`, `--revision` and those of the parser."""
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--dataset", type=Path, help="current path of the run's dataset (with one run)")
    parser.add_argument("--revision", help="git revision, if this is no repository")
    args = parser.parse_args()
    if args.dataset and len(args.runs) > 1:
        parser.error("--dataset requires exactly one run")
    return args, [egs.load_run(path, args.dataset) for path in args.runs]


def wait() -> None:
    """Wait until the device has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(function: Callable[[], object], seconds: float = 0.5, min_calls: int = 5) -> float:
    """Median wall time of a call in ms, including the work on the device, after three calls to warm up.

    Args:
        function: what to time.
        seconds: time to repeat it for.
        min_calls: number of repetitions at least.
    """
    for _ in range(3):
        function()
    wait()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < min_calls or time.perf_counter() - start < seconds:
        call = time.perf_counter()
        function()
        wait()
        times.append(time.perf_counter() - call)
    return 1000 * statistics.median(times)


class Stretched(Dataset):
    """A dataset played back and forth to any number of frames and scaled to any image size, without files of its own,
    and as if its camera stood still.

    Args:
        ds: the dataset.
        frames: number of frames.
        size: image size, px.
    """

    def __init__(self, ds: Dataset, frames: int, size: int):
        own = "canvas", "head_box", "exposes", "gains"
        self.__dict__.update({k: v for k, v in ds.__dict__.items() if k not in own})
        at, scale = cycle(len(ds), frames), size / ds.size
        for name in ("landmarks", "found", "w2c", "blink", "aperture", "lip_rect", "eye_rect", "reprojection",
                     "features", "eyes", "mouth"):
            setattr(self, name, getattr(ds, name)[at])
        self.camera = np.zeros_like(ds.camera, shape=(frames, ds.camera.shape[1]))
        self.landmarks = self.landmarks * np.float32(scale)
        self.lip_rect, self.eye_rect = ((r * scale).round().astype(np.int32) for r in (self.lip_rect, self.eye_rect))
        self.num_frames, self.num_train, self.size = frames, frames - max(frames // 10, 1), size
        self.focal, self.K = ds.focal * scale, ds.K.clone()
        self.K[:2] *= scale
        self._ds, self._at, self._cache = ds, at, {}

    def _image(self, path: Path, largest: Optional[int] = None) -> np.ndarray:
        if path not in self._cache:
            image = self._ds._image(path, 2 * self._ds.size)
            self._cache[path] = image if image.shape[0] == self.size else cv2.resize(
                image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return self._cache[path]

    def packed(self, i: int) -> np.ndarray:
        at = int(self._at[i])
        if at not in self._cache:
            self._cache[at] = super().packed(i)
        return self._cache[at]

    def frame(self, i: int) -> np.ndarray:
        return super().frame(int(self._at[i]))

    def mask(self, i: int) -> np.ndarray:
        return super().mask(int(self._at[i]))


def fine_trainer(ds: Dataset, folder: Path, points: Optional[int] = None, batch: int = 1) -> Trainer:
    """A trainer in the fine stage whose head does not change: learning rates are 0, so that all steps do the same work.

    Args:
        ds: the dataset.
        folder: of the run.
        points: number of Gaussians, randomly placed on the face and around it; by default those of an initial head.
        batch: frames per step.
    """
    rates = {name: 0.0 for name in FIELDS if name.endswith(("_lr", "_lr_init", "_lr_final"))}
    cfg = egs.load_config("production", coarse_iterations=1, densify_from_iter=0, densify_until_iter=0, pose_steps=0,
                          batch_size=batch, **rates)
    trainer = Trainer(ds, cfg, open_run(ds, cfg, folder, DEVICE), DEVICE).start()
    if points is not None:
        g = torch.Generator().manual_seed(0)
        face = torch.from_numpy(ds.mean_face)
        means = face[torch.randint(len(face), (points,), generator=g)] * (1 + 0.3 * torch.rand(points, 1, generator=g))
        # copies of four: initial scales need memory quadratic in the number of Gaussians
        initial = make_gaussians(means[:4], torch.rand(4, 3, generator=g), cfg.sh_degree)
        values = {name: x.detach()[:1].repeat(points, *[1] * (x.dim() - 1)) for name, x in initial.items()}
        values["means"] = means
        values["scales"] = torch.full((points, 3), float(np.log(SCALE / np.sqrt(points))))
        values["opacities"] = torch.rand(points, generator=g) * 4 - 2
        for name, x in values.items():
            trainer.head.gaussians[name] = torch.nn.Parameter(x.float().contiguous().to(DEVICE))
        trainer.optimizers = make_optimizers(cfg, trainer.head)
    trainer.iteration = 1
    return trainer
