"""`train`: when to step, log, evaluate, save and stop."""
from __future__ import annotations

import signal
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Iterator, Literal, Optional, Sequence

import torch

from ..config import Config
from ..core.device import memory_limits
from ..core.errors import DatasetError, InputError, Terminated
from ..core.files import exclusive_lock, make_folder, shortened
from ..core.progress import Progress, listener
from ..data.dataset import Dataset
from . import checkpoint
from .data_parallel import trainer_on, training_devices
from .pose_refinement import is_due
from .run import Run, find_run, open_run
from .trainer import LOG_INTERVAL, Trainer

MIN_TRAIN_FRAMES = 8    # of a dataset


def train(ds: Dataset, cfg: Config, out: str | Path, until: Optional[Literal["coarse"] | int] = None,
          device: Optional[str | torch.device] = None, gpus: int = 1) -> Run:
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
        gpus: number of GPUs that share each batch, see `data_parallel`; `batch_size` must be a multiple of it. It may
            differ each time that a run is continued.

    Returns:
        the run, see `Run`.

    Raises:
        ConfigError: the folder holds a run with other settings, or the batch cannot be shared equally.
        DatasetError: the folder holds a run on another dataset, or the dataset is too short.
        InputError: another process is training this run now, the folder holds something else, an unknown `until`,
            or too few GPUs.
        TrainingError: the loss is not finite, or the head collapses; the last good checkpoint stays.
        StorageError: the disk is full, or the folder was moved away or cannot be written to.
        MemoryLimitError: the GPU or the computer has too little memory.
        UnfinishedError: the process of another GPU ended.
    """
    return train_on(training_devices(cfg, device, gpus), ds, cfg, out, until)


def train_on(devices: Sequence[torch.device], ds: Dataset, cfg: Config, out: str | Path,
             until: Optional[Literal["coarse"] | int] = None) -> Run:
    """`train` on devices that share each batch. They may all be the CPU."""
    stop = stop_iteration(cfg, until)
    if ds.num_train < MIN_TRAIN_FRAMES:
        raise DatasetError(f"at least {MIN_TRAIN_FRAMES} training frames", str(ds.num_train), "Use a longer clip.")
    root = Path(out)
    found = find_run(ds, cfg, root)  # what stands in the way is said before anything is written
    if found and (checkpoint.newest(root, checkpoint.HEAD) or 0) >= stop:
        return found
    with exclusive_lock(make_folder(root), "training"), memory_limits(*_needs(cfg, ds, root)):
        run = open_run(ds, cfg, root, devices[0])
        done = checkpoint.newest(root, checkpoint.HEAD, checkpoint.TRAINER)
        checkpoint.set_damaged_aside(root, done or 0)
        with trainer_on(devices, ds, cfg, run, stop) as trainer, closing(trainer.metrics):
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
            if is_due(cfg, now):  # after the evaluation: the end of the curve shows what the last steps did
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
