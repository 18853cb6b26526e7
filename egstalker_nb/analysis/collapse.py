"""A collapse on purpose: a run whose network learns far too fast loses its head, and the guard of training stops it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import Config, load_config
from ..core.device import rendering_device
from ..core.errors import InputError, TrainingError
from ..core.files import exclusive_lock
from ..core.progress import Progress
from ..rendering.inspection import offsets, render_frames
from ..rendering.renderer import Renderer
from ..training.run import Run, open_run
from ..training.trainer import Trainer

COARSE, FINE = 60, 60   # iterations: to build a head, and at most so many to lose it
TOO_FAST = 0.1          # learning rate of the network; the presets have 0.0008


@dataclass
class Collapse:
    """What happened.

    Attributes:
        run: its folder. error: what training was stopped with. rows: its metrics, one row for each iteration, the last
        one of the collapse. frame: a validation frame (or 0). pictures: three of [S, S, 3] uint8: the frame itself, as
        the last good checkpoint renders it, and as the network showed it when it was stopped. opacity: mean of the
        Gaussians in the kept checkpoint, and as the network deformed them when it was stopped.
    """

    run: Run
    error: TrainingError
    rows: list[dict[str, Any]]
    frame: int
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray]
    opacity: tuple[float, float]


def collapse_config(rate: float = TOO_FAST) -> Config:
    """`quick_test` with a short coarse stage, and a network that learns `rate` a step in the fine one."""
    return load_config("quick_test", preset="collapse", iterations=COARSE + FINE, coarse_iterations=COARSE,
                       batch_size=1, deformation_lr_init=rate, deformation_lr_final=rate)


def provoke(run: Run, rate: float = TOO_FAST) -> Collapse:
    """Train a head on the dataset of `run` until it collapses; `collapse_<rate>` in that run's folder keeps it.

    These are the steps of `egs.train`, with a row of metrics after each one. The last good checkpoint is that of the
    coarse stage; another call goes on from it, and collapses again.

    Raises:
        InputError: this learning rate does not make it collapse, or somebody else is at it now. DatasetError: the
            dataset is gone or changed.
    """
    ds, device, cfg = run.dataset, rendering_device(), collapse_config(rate)
    fallen = open_run(ds, cfg, run.root / f"collapse_{rate:g}", device)
    with exclusive_lock(fallen.root, "training"):
        trainer = Trainer(ds, cfg, fallen, device)
        return _collapsed(trainer.resume(fallen.iterations[-1]) if fallen.iterations else trainer.start(), rate)


def _collapsed(trainer: Trainer, rate: float) -> Collapse:
    ds, cfg, fallen = trainer.ds, trainer.cfg, trainer.run
    frame = trainer.eval_ids[len(trainer.eval_ids) // 2] if trainer.eval_ids else 0
    try:
        with Progress(cfg.iterations, "train a head to be lost", initial=trainer.iteration) as bar:
            while trainer.iteration < cfg.iterations:
                trainer.train_iteration()
                trainer.log(bar)
                bar.update(stage=cfg.stage(trainer.iteration))
                if trainer.iteration == COARSE:
                    trainer.save()
    except TrainingError as error:
        trainer.head.eval()
        kept, lost = Renderer.from_run(fallen), Renderer(trainer.head, ds)
        pictures = ds.frame(frame), *(render_frames(renderer, [frame])[0] for renderer in (kept, lost))
        logits = trainer.head.gaussians["opacities"].detach()
        shown = (logits + offsets(lost, [frame])["opacities"][..., 0]).sigmoid().mean().item()
        return Collapse(fallen, error, fallen.metrics("train"), frame, pictures,
                        (kept.head.gaussians["opacities"].sigmoid().mean().item(), shown))
    raise InputError("a learning rate at which the head collapses", f"{rate:g}: it did not",
                     f"Take a larger one, for example {TOO_FAST}.")


