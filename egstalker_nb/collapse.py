"""A collapse on purpose: a run whose network learns far too fast loses its head, and the guard of training stops it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import plots
from .config import Config, load_config
from .device import drawing_device
from .errors import InputError, TrainingError
from .figures import offsets, rendered
from .files import alone_in
from .progress import Progress
from .rendering import Renderer
from .run import Run, open_run
from .trainer import COLLAPSE, Trainer

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
    ds, device, cfg = run.dataset, drawing_device(), collapse_config(rate)
    fallen = open_run(ds, cfg, run.root / f"collapse_{rate:g}", device)
    with alone_in(fallen.root, "training"):
        return _collapsed(Trainer(ds, cfg, fallen, device), rate)


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
        pictures = ds.frame(frame), *(rendered(renderer, [frame])[0] for renderer in (kept, lost))
        logits = trainer.head.gaussians["opacities"].detach()
        shown = (logits + offsets(lost, [frame])["opacities"][..., 0]).sigmoid().mean().item()
        return Collapse(fallen, error, fallen.metrics("train"), frame, pictures,
                        (kept.head.gaussians["opacities"].sigmoid().mean().item(), shown))
    raise InputError("a learning rate at which the head collapses", f"{rate:g}: it did not",
                     f"Take a larger one, for example {TOO_FAST}.")


def collapse_figure(found: Collapse) -> Figure:
    """What the guard watches, with its limits; and the head as the last good checkpoint keeps it, and when stopped."""
    figure, axes = plots.subplots(1, 4, width=14, height=3.3)
    axes[0].get_gridspec().set_width_ratios([2.2, 1, 1, 1])
    at = [r["iteration"] for r in found.rows]
    for style, (name, words) in enumerate((("coverage", "share of the head that is covered"),
                                           ("opacity", "mean opacity before deformation"))):
        values = np.array([r[name] for r in found.rows])
        plots.curve(axes[0], at, values, words, style, linewidth=2)
        plots.curve(axes[0], at, COLLAPSE[name] * np.maximum.accumulate(values),
                    f"its limit: {COLLAPSE[name]:.0%} of the highest so far", style, linewidth=1, alpha=0.6)
    axes[0].plot(at[-1], found.rows[-1]["coverage"], "x", color="black", markersize=10, markeredgewidth=2.5,
                 label=f"stopped at iteration {at[-1]}")
    kept = found.run.iterations[-1]
    axes[0].plot(kept, next(r["coverage"] for r in found.rows if r["iteration"] == kept), "o", color="black",
                 markersize=8, fillstyle="none", markeredgewidth=2, label=f"last good checkpoint: {kept}")
    axes[0].set(ylim=(-0.04, 1.5), yticks=np.arange(0, 1.1, 0.2))  # room for the names
    plots.label(axes[0], "iteration", "share (0 ... 1)", "what the guard watches")
    axes[0].legend(loc="upper left", fontsize=7.5, framealpha=0.9)
    names = (f"frame {found.frame}", f"checkpoint {kept}", f"iteration {at[-1]}: stopped")
    for axis, picture, name in zip(axes[1:], found.pictures, names):
        axis.imshow(picture)
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    return figure
