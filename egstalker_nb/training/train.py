"""`train`: when to step, log, evaluate, save and stop."""
from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Literal, Optional

import torch

from ..config import Config
from ..core.device import memory_limits, rendering_device
from ..core.errors import DatasetError, InputError, Terminated
from ..core.files import exclusive_lock, make_folder, shortened
from ..core.progress import Progress, listener
from ..data.dataset import Dataset
from . import checkpoint
from .run import Run, find_run, open_run
from .trainer import Trainer

LOG_INTERVAL = 20       # steps between rows of metrics.jsonl; losses wait on the device until then
MIN_TRAIN_FRAMES = 8    # of a dataset


def train(ds: Dataset, cfg: Config, out: str | Path, until: Optional[Literal["coarse"] | int] = None,
          device: Optional[str | torch.device] = None) -> Run:
    """Train a talking head, or continue the run in `out`.

    On the CPU a continued run equals an uninterrupted one bit for bit, wherever it was killed. Ctrl-C (or SIGTERM)
    finishes the step, writes a checkpoint and raises KeyboardInterrupt. A damaged newest checkpoint is named, set aside
    as `iteration_N.damaged`, and the one before is used.

    Args:
        ds: a prepared dataset.
        cfg: see `load_config`.
        out: the run folder.
        until: "coarse" stops after the coarse stage, a number after that iteration, None at the end.
        device: default CUDA, else the CPU.

    Returns:
        the run, see `Run`.

    Raises:
        ConfigError: the folder holds a run with other settings.
        DatasetError: the folder holds a run on another dataset, or the dataset is too short.
        InputError: another process is training this run now, the folder holds something else, or an unknown `until`.
        TrainingError: the loss is not finite, or the head collapses; the last good checkpoint stays.
        StorageError: the disk is full, or the folder was moved away or cannot be written to.
        MemoryLimitError: the GPU or the computer has too little memory.
    """
    device = rendering_device(device)
    stop = stop_iteration(cfg, until)
    if ds.num_train < MIN_TRAIN_FRAMES:
        raise DatasetError(f"at least {MIN_TRAIN_FRAMES} training frames", str(ds.num_train), "Use a longer clip.")
    root = Path(out)
    found = find_run(ds, cfg, root)  # what stands in the way is said before anything is written
    if found and (checkpoint.newest(root, checkpoint.HEAD) or 0) >= stop:
        return found
    with exclusive_lock(make_folder(root), "training"), memory_limits(*_needs(cfg, ds, root)):
        run = open_run(ds, cfg, root, device)
        done = checkpoint.newest(root, checkpoint.HEAD, checkpoint.TRAINER)
        checkpoint.set_damaged_aside(root, done or 0)
        trainer = Trainer(ds, cfg, run, device)
        _steps(trainer.resume(done) if done else trainer.start(), stop)
    return run


def _needs(cfg: Config, ds: Dataset, root: Path) -> tuple[str, str]:
    """What training needs memory for, and what to do if there is too little, see `memory_limits`."""
    smaller = f", or use batch_size={cfg.batch_size // 2} in another folder" if cfg.batch_size > 1 else ""
    return (f"training with batch_size={cfg.batch_size} and max_points={cfg.max_points} at {ds.size} px",
            f"The checkpoints in '{shortened(root)}' are intact: close other programs and train again to go on"
            f"{smaller}, or prepare the clip at a smaller size.")


def _steps(trainer: Trainer, stop: int) -> None:
    """Train up to iteration `stop`."""
    cfg = trainer.cfg
    with Progress(stop, f"train {trainer.run.root.name}", initial=trainer.iteration) as bar, stop_signal() as stopping:
        while trainer.iteration < stop:
            trainer.train_iteration()
            now = trainer.iteration
            stopped = stopping.is_set()  # read once: a stop that comes later in this iteration has no checkpoint yet
            keep = now in (stop, cfg.coarse_iterations) or now % cfg.checkpoint_interval == 0 or stopped
            if keep or now % LOG_INTERVAL == 0:
                trainer.log(bar)
            bar.update(stage=cfg.stage(now), points=len(trainer.head))
            if now % cfg.eval_interval == 0 or now == stop:
                bar.update(0, val_psnr=trainer.evaluate())
            if cfg.pose_steps and now in (cfg.coarse_iterations, 2 * cfg.coarse_iterations):
                trainer.refine_poses()
            if keep:
                trainer.save()
            if stopped and now < stop:
                kind = Terminated if getattr(stopping, "terminated", False) else KeyboardInterrupt
                raise kind(f"stopped at iteration {now}; a checkpoint is written, train again to go on")


def stop_iteration(cfg: Config, until: Optional[str | int]) -> int:
    """The iteration after which training stops, see `train`."""
    if until is None:
        return cfg.iterations
    if until == "coarse":
        return max(cfg.coarse_iterations, 1)
    if isinstance(until, int) and 1 <= until <= cfg.iterations:
        return until
    raise InputError(f"until=None, 'coarse' or an iteration from 1 to {cfg.iterations}", repr(until), "Choose one.")


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is never cut in the middle; a second Ctrl-C is immediate.

    In a thread it is the event of the thread's `ProgressListener`, which a button sets.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        job = listener()
        if job is None:
            yield event
            return
        job.graceful = True
        try:
            yield job.stopping
        finally:
            job.graceful = False
        return

    def on_signal(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.terminated = number == signal.SIGTERM  # type: ignore[attr-defined]
        event.set()

    old = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
