"""One run on several GPUs: each renders its part of every batch, and gradients are summed before the update.

The calling process is rank 0. It does everything that a run on one GPU does; the others repeat its steps on the frames
of their part, and write nothing. Up to rounding, a step is the same as on one GPU: gradients of the whole batch's loss,
densification by the statistics of all frames, the same noise. So the number of GPUs is no part of what a run is, and
any checkpoint can be continued with another number.
"""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Sequence

import torch
from torch import Tensor

from ..config import Config
from ..core.cuda_graph import Captured
from ..core.device import memory_limits, rendering_device
from ..core.errors import ConfigError, InputError
from ..core.progress import Progress, ProgressListener, listening
from ..data.conditions import Conditions
from ..data.dataset import Dataset
from .pose_refinement import is_due, refine_poses
from .ranks import Ranks, Workers
from .run import Run
from .trainer import LOG_INTERVAL, Trainer


def training_devices(cfg: Config, device: Optional[str | torch.device], gpus: int) -> list[torch.device]:
    """The devices of a run, see `train`.

    Raises:
        InputError: no such device, or too few GPUs.
        ConfigError: the batch cannot be shared equally.
    """
    if not isinstance(gpus, int) or gpus < 1:
        raise InputError("gpus as a whole number from 1", repr(gpus), "Leave it out to train on one.")
    first = rendering_device(device)
    if gpus == 1:
        return [first]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if first.type != "cuda" or count < gpus:
        found = f"{count} that torch can use" if device is None or first.type == "cuda" else f"device='{first}'"
        raise InputError(f"{gpus} GPUs", found, f"Train with at most gpus={max(count, 1)}.")
    check_batch(cfg, gpus)
    return [torch.device("cuda", index) for index in range(gpus)]


def check_batch(cfg: Config, ranks: int) -> None:
    """Make sure that a batch can be shared equally.

    Raises:
        ConfigError: it cannot.
    """
    if cfg.batch_size % ranks:
        raise ConfigError(f"a batch_size that {ranks} GPUs can share equally", f"batch_size={cfg.batch_size}",
                          f"Train with a multiple of {ranks} in a folder of its own, or with gpus=1: several heads, "
                          "one on each GPU, need nothing of each other.")


@contextmanager
def trainer_on(devices: Sequence[torch.device], ds: Dataset, cfg: Config, run: Run, stop: int) -> Iterator[Trainer]:
    """A trainer on one device, or one that shares its batches with others; it can train up to iteration `stop`.

    Raises:
        UnfinishedError: the process of another GPU ended.
        EgsError: whichever ended it.
    """
    if len(devices) == 1:
        yield Trainer(ds, cfg, run, devices[0])
        return
    with Workers(follow, (ds, cfg, run, stop), devices) as workers:
        yield Leader(ds, cfg, run, devices[0], workers)


class SummedStep(Captured):
    """A step in two parts, each captured, with a sum over all ranks between them.

    The sum itself is not captured: ranks may capture at different times.

    Args:
        ranks: that share the step.
        before: returns the tensors to sum, and one that stays as it is.
        after: is called with the sums; it returns a tensor, which is followed by the one that stayed.
    """

    def __init__(self, ranks: Ranks, before: Callable[[], tuple[list[Tensor], Tensor]],
                 after: Callable[[list[Tensor]], Tensor]):
        self.ranks, self.before, self.after = ranks, before, after
        self.bucket, self.shapes = torch.empty(0), [torch.Size()]  # all tensors to sum as one, and their shapes
        self.second = Captured(self._after, ranks.device)
        super().__init__(self._before, ranks.device)

    def _before(self) -> Tensor:
        parts, own = self.before()
        self.shapes = [part.shape for part in parts]
        self.bucket = torch.cat([part.flatten() for part in parts])
        return own

    def _after(self) -> Tensor:
        parts = self.bucket.split([shape.numel() for shape in self.shapes])
        return self.after([part.view(shape) for part, shape in zip(parts, self.shapes)])

    def reset(self) -> None:
        super().reset()
        self.second.reset()

    def forget(self) -> None:
        super().forget()
        self.second.forget()

    def __call__(self) -> Tensor:
        own = super().__call__()
        self.ranks.sum_(self.bucket)
        return torch.cat([self.second(), own])


class Replica(Trainer):
    """A trainer that renders its part of each batch. It must be told its `ranks` before it is made ready."""

    ranks: Ranks

    def join(self, ranks: Ranks) -> None:
        """Share the batches with others from now on."""
        self.ranks, self.part = ranks, ranks.part(self.cfg.batch_size)
        self.device_step = SummedStep(ranks, self._part_of_step, self._rest_of_step)
        self.trained: list[Tensor] = []  # parameters that have gradients in this stage

    def _part_of_step(self) -> tuple[list[Tensor], Tensor]:
        """What is summed over all ranks: gradients, what the densifier collects, and the loss terms."""
        terms, num_isects, gradients2d = self._backward()
        parameters = [p for o in self.optimizers.values() for group in o.param_groups for p in group["params"]]
        self.trained = [p for p in parameters if p.grad is not None]
        gradients = [p.grad for p in self.trained if p.grad is not None]
        sums = [*gradients, *(x.float() for x in gradients2d), terms / self.ranks.size]
        for parameter in self.trained:
            parameter.grad = None
        return sums, num_isects

    def _rest_of_step(self, sums: list[Tensor]) -> Tensor:
        count = len(self.trained)
        for parameter, gradient in zip(self.trained, sums):
            parameter.grad = gradient
        self._update(tuple(sums[count:-1]))
        return sums[-1].clone()

    def _fetch(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        """The numbers of all frames of the batch, and the bytes of those of this part."""
        return self.frames._to_device(torch.tensor(ids)), super()._fetch(ids[self.part])[1]

    def _offsets(self, given: Conditions) -> dict[str, Tensor]:
        """The noise is drawn for the whole batch, so that all ranks draw the same numbers as one would."""
        network = self.head.deformation
        return network.decode(self.head.spatial(), network.tokens(given)[self.part])

    def _loss(self, stage: str, rgb: Tensor, alpha: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """This part's share of the loss of the whole batch; its terms are those of this part."""
        assert self.slot is not None
        x0, y0, x1, y1 = self.frames.lip_rect[self.slot[0]].unbind(1)
        lip_area = ((x1 - x0) * (y1 - y0)).sum() / self.ranks.size
        loss, terms = self.losses[stage](rgb, alpha, batch["frame"], batch["head"], batch["lips"], lip_area)
        return loss / self.ranks.size, terms

    def _densify(self, iteration: int) -> None:
        super()._densify(iteration)
        if self.densifier.is_due(iteration):  # each rank decides for itself: they must not drift apart
            self.ranks.check_same(list(self.head.gaussians.values()))

    def _refined_poses(self, deform: bool) -> Tensor:
        part = slice(self.ranks.rank, None, self.ranks.size)
        w2c = refine_poses(self.ema_head(), self.ds, self.device, self.cfg.pose_steps, deform, part)
        return self.ranks.sum_(torch.from_numpy(w2c).to(self.device))


class Leader(Replica):
    """The trainer of rank 0, which does everything that a `Trainer` does."""

    def __init__(self, ds: Dataset, cfg: Config, run: Run, device: torch.device, workers: Workers):
        super().__init__(ds, cfg, run, device)
        self.workers = workers

    def _ready(self) -> None:
        """The others join late: they start while the head is made, and see what memory this one's frames left."""
        super()._ready()
        self.join(self.workers.join())
        self.ranks.broadcast((self.iteration, self.head.state_dict(), self.ema.state_dict(), self._state()))
        self.workers.check()

    def _finished_steps(self) -> tuple[str, Tensor, float]:
        finished = super()._finished_steps()
        self.workers.check()  # before anything of these steps is believed, or saved
        return finished

    def record(self, row: dict[str, Any]) -> None:
        super().record({**row, "gpus": self.ranks.size} if row["kind"] == "train" else row)


class Follower(Replica):
    """The trainer of another rank, which writes nothing."""

    def start(self) -> Follower:
        """Take over the state of rank 0."""
        self.iteration, tensors, average, state = self.ranks.broadcast()
        head = self.run.head_of(tensors)
        for part in (head.gaussians, head.deformation):
            part.requires_grad_(True)
        self._take(head)
        self.ema.load_state_dict(average)
        self._restore(state)
        self.frames.for_head(self.head)
        return self

    def record(self, row: dict[str, Any]) -> None:
        """Rank 0 does."""

    def log(self, bar: Progress) -> None:
        if self.steps:
            self._finished_steps()

    def snapshot(self, iteration: int) -> None:
        """Rank 0 does."""


def follow(ranks: Ranks, ds: Dataset, cfg: Config, run: Run, stop: int) -> None:
    """The work of a worker process: the same steps as rank 0, up to iteration `stop`."""
    with listening(ProgressListener(lambda text, fraction: None)), memory_limits(
            f"training on {ranks.device}", "Close other programs and train again to go on, or train with fewer GPUs."):
        trainer = Follower(ds, cfg, run, rendering_device(ranks.device))
        trainer.join(ranks)
        trainer.start()
        with Progress(stop, "train") as bar:
            while trainer.iteration < stop:
                trainer.train_iteration()
                if trainer.iteration % LOG_INTERVAL == 0:
                    trainer.log(bar)
                if is_due(cfg, trainer.iteration):
                    trainer.refine_poses()
