"""A deliberately induced opacity collapse: training with a far too high learning rate, and the guard that stops it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import Config, load_config
from ..core.device import rendering_device
from ..core.errors import InputError, TrainingError
from ..core.files import exclusive_lock, make_folder
from ..core.progress import Progress
from ..rendering.inspection import offsets, render_frames
from ..rendering.renderer import Renderer
from ..training import checkpoint
from ..training.run import Run, find_run, open_run
from ..training.trainer import Trainer
from .growth import LESSON_TORSO

COARSE_ITERATIONS, FINE_ITERATIONS = 60, 60  # a usable head; upper bound until the collapse
COLLAPSE_LR = 0.1       # of the deformation network; the presets have 0.0008


@dataclass
class Collapse:
    """A collapsed run.

    Attributes:
        run: its folder.
        error: the exception that stopped training.
        rows: its metrics, one row for each iteration up to the collapse.
        frame: number of a validation frame (0 without validation frames).
        images: three of [S, S, 3] uint8: that frame of the clip, its rendering by the last good checkpoint, and its
            rendering by the collapsed head.
        opacity: mean opacity of the Gaussians in the last good checkpoint, and of the collapsed head after deformation.
    """

    run: Run
    error: TrainingError
    rows: list[dict[str, Any]]
    frame: int
    images: tuple[np.ndarray, np.ndarray, np.ndarray]
    opacity: tuple[float, float]


def collapse_config(rate: float = COLLAPSE_LR) -> Config:
    """`quick_test` with short stages and `rate` as the learning rate of the deformation network."""
    return load_config("quick_test", preset="collapse", iterations=COARSE_ITERATIONS + FINE_ITERATIONS,
                       coarse_iterations=COARSE_ITERATIONS, batch_size=1, torso_steps=LESSON_TORSO,
                       deformation_lr_init=rate, deformation_lr_final=rate)


def induce_collapse(run: Run, rate: float = COLLAPSE_LR) -> Collapse:
    """Train a head on the dataset of `run` until it collapses; kept in `collapse_<rate>` in that run's folder.

    The steps are those of `egs.train`, with a row of metrics after each one. The last good checkpoint is that of the
    coarse stage; another call continues from it, and collapses again.

    Args:
        run: gives the dataset and the folder.
        rate: learning rate of the deformation network.

    Raises:
        InputError: the head does not collapse at this learning rate, or another process trains it now.
        DatasetError: the dataset is missing or was changed.
    """
    ds, device, cfg = run.dataset, rendering_device(), collapse_config(rate)
    root = run.root / f"collapse_{rate:g}"
    find_run(ds, cfg, root)
    with exclusive_lock(make_folder(root), "training"):
        trainer = Trainer(ds, cfg, open_run(ds, cfg, root, device), device)
        done = checkpoint.newest(root, checkpoint.HEAD, checkpoint.TRAINER)
        return _train_to_collapse(trainer.resume(done) if done else trainer.start(), rate)


def _train_to_collapse(trainer: Trainer, rate: float) -> Collapse:
    ds, cfg, run = trainer.ds, trainer.cfg, trainer.run
    frame = trainer.eval_ids[len(trainer.eval_ids) // 2] if trainer.eval_ids else 0
    try:
        with Progress(cfg.iterations, "train until collapse", initial=trainer.iteration) as bar:
            while trainer.iteration < cfg.iterations:
                trainer.train_iteration()
                trainer.log(bar)
                bar.update(stage=cfg.stage(trainer.iteration))
                if trainer.iteration == COARSE_ITERATIONS:
                    trainer.save()
    except TrainingError as error:
        trainer.head.eval()
        kept, lost = Renderer.from_run(run), Renderer(trainer.head, ds)
        renderings = [render_frames(renderer, [frame])[0] for renderer in (kept, lost)]
        images = ds.frame(frame), renderings[0], renderings[1]
        logits = trainer.head.gaussians["opacities"].detach()
        deformed = (logits + offsets(lost, [frame])["opacities"][..., 0]).sigmoid().mean().item()
        return Collapse(run, error, run.metrics("train"), frame, images,
                        (kept.head.gaussians["opacities"].sigmoid().mean().item(), deformed))
    raise InputError("a learning rate at which the head collapses", f"{rate:g}: it does not",
                     f"Use a higher one, for example {COLLAPSE_LR}.")
