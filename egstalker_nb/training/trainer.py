"""One step of training, and everything that changes while training."""
from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any, Optional, Sequence

import torch
from torch import Tensor

from ..config import Config
from ..core.cuda_graph import Branch, Captured, in_place
from ..core.errors import DatasetError, first_line
from ..core.progress import Progress
from ..data.conditions import Conditions
from ..data.dataset import Dataset
from ..data.frame_loader import Frames
from ..metrics.image_metrics import psnr
from ..metrics.perceptual import load_vgg_loss
from ..model.deformation import Deformation
from ..model.head import Head
from ..rasterizer.capacity import IsectCapacity
from . import checkpoint, snapshots
from .densification import Densifier
from .discriminator import MouthDiscriminator
from .fit_torso import fit_torso
from .health import HealthGuard
from .init_head import new_head
from .losses import Losses
from .metrics_log import MetricsWriter, StepLog
from .optimizers import DISCRIMINATOR, NETWORK, load_optimizers, make_optimizers, set_learning_rates
from .pose_refinement import refine_poses
from .run import Run

EMA_INTERVAL = 4    # steps between updates of the network's moving average
EVAL_FRAMES = 8     # validation frames behind the PSNR curve
LOG_INTERVAL = 20   # steps between rows of metrics.jsonl; losses wait on the device until then


@lru_cache(4)
def _shuffle(num_frames: int, seed: int) -> list[int]:
    return torch.randperm(num_frames, generator=torch.Generator().manual_seed(seed)).tolist()


def frame_order(iteration: int, batch: int, num_frames: int, seed: int) -> list[int]:
    """The frames of a step: a fresh shuffle each epoch, found from the iteration alone, so that resuming is exact."""
    positions = range((iteration - 1) * batch, iteration * batch)
    return [_shuffle(num_frames, seed * 1_000_003 + p // num_frames)[p % num_frames] for p in positions]


class Trainer:
    """Everything that changes while training. To be made ready by `start` or `resume`, then stepped.

    Construction reads the frames; it writes nothing and draws no random number.

    Args:
        ds: the dataset.
        cfg: the configuration.
        run: where checkpoints, snapshots and metrics go, see `open_run`.
        device: to train on.

    Attributes:
        iteration: finished steps.
        head: what is being trained.
        ema: the exponential moving average of its deformation network.
        discriminator: of mouths; None without an adversarial term.
        part: the part of each batch that is rendered here: all of it, unless several GPUs share it (`data_parallel`).
    """

    head: Head
    ema: Deformation
    optimizers: dict[str, torch.optim.Optimizer]
    discriminator: Optional[MouthDiscriminator] = None
    part = slice(None)

    def __init__(self, ds: Dataset, cfg: Config, run: Run, device: torch.device):
        self.ds, self.cfg, self.run, self.device = ds, cfg, run, device
        self.iteration = 0
        perceptual = load_vgg_loss(device) if cfg.lambda_perceptual > 0 else None
        self.losses = {stage: Losses(cfg, stage, ds.head_box, perceptual) for stage in ("coarse", "fine")}
        self.densifier = Densifier(cfg, len(ds.mean_face), torch.from_numpy(ds.mean_face), device)
        self.device_step: Captured = Captured(self._device_step, device)
        # of the captured step: its stage, whether it densifies, and the discriminator that takes part
        self.kind: tuple[str, bool, Optional[MouthDiscriminator]] = "", False, None
        self.slot: Optional[Sequence[Tensor]] = None  # where it reads its frames: numbers and bytes
        self.capacity = IsectCapacity()
        self.metrics, self.steps, self.guard = MetricsWriter(run), StepLog(), HealthGuard(run)
        self.frames = Frames(ds, ds.train_ids, device)
        every = max(1, len(ds.val_ids) // EVAL_FRAMES)
        self.eval_ids = list(ds.val_ids)[::every][:EVAL_FRAMES]
        self.eval_frames = Frames(ds, self.eval_ids, device)
        self.moments = set(snapshots.moments(cfg))
        self.K = ds.K.to(device)

    # ---- beginning ----

    def start(self) -> Trainer:
        """Begin a run: seed every random generator, make the head, fit the torso layer, write the first snapshot."""
        torch.manual_seed(self.cfg.seed)
        self._take(new_head(self.ds, self.cfg))
        self.head.torso = fit_torso(self.ds, self.frames, self.cfg.torso_steps, seed=self.cfg.seed)
        self._ready()
        self.snapshot(0)
        self.steps.restart()
        return self

    def resume(self, iteration: int) -> Trainer:
        """Continue from a checkpoint: everything that `save` wrote. Rows and snapshots of later steps are dropped.

        Raises:
            DatasetError: no such checkpoint, or a damaged one.
        """
        head = self.run.load_head(iteration, self.device)  # its network is the average
        for part in (head.gaussians, head.deformation):
            part.requires_grad_(True)
        self._take(head)
        saved = checkpoint.load(self.run.root, iteration, checkpoint.TRAINER)
        try:
            self._restore(saved)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise DatasetError(f"a {checkpoint.TRAINER} of this version that fits the run",
                               f"another one in checkpoint iteration_{iteration} ({first_line(error)})",
                               "Delete this checkpoint's folder to go on from the one before.") from error
        self.iteration = iteration
        self._ready()
        return self

    def _restore(self, saved: dict[str, Any]) -> None:
        """Take over what only training needs of a checkpoint."""
        self.head.deformation.load_state_dict(saved["network"])
        load_optimizers(self.optimizers, saved["optimizers"])
        self.densifier.load_state_dict(saved["densifier"])
        self.guard.peak.update(saved["peak"])
        torch.set_rng_state(saved["rng"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(saved["discriminator"])
        if saved["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"], self.device)

    def _take(self, head: Head) -> None:
        """Train this head from now on; its network is also where the average begins."""
        self.head = head.to(self.device).train()
        self.ema = copy.deepcopy(self.head.deformation).eval().requires_grad_(False)
        if self.cfg.adversarial_share:
            with torch.random.fork_rng(devices=[]):  # until it takes part, the run is as without it
                self.discriminator = MouthDiscriminator(self.ds.size, self.cfg.adversarial_share,
                                                        self.cfg.batch_size, self.device)
        self.optimizers = make_optimizers(self.cfg, self.head, self.discriminator)
        self.branches = {name: Branch(self.device) for name in self.optimizers}

    def _ready(self) -> None:
        for frames in (self.frames, self.eval_frames):
            frames.for_head(self.head)
        self.metrics.cut(self.iteration)
        snapshots.cut(self.run.root, self.iteration)
        self.steps.restart()

    # ---- a step ----

    def train_iteration(self) -> None:
        """One step on one batch."""
        it = self.iteration + 1
        stage, densifying = self.cfg.stage(it), self.densifier.active(it)
        discriminator = self.discriminator if it > self.cfg.adversarial_from else None
        self.slot = in_place(self.slot, self._fetch(self._ids(it)))
        self.frames.prefetch(self._ids(it + 1)[self.part])
        set_learning_rates(self.optimizers, self.cfg, it)
        if self.kind != (stage, densifying, discriminator):
            self.kind = stage, densifying, discriminator
            self.device_step.reset()
        terms = self.device_step()
        self.steps.add(stage, terms.clone())  # a captured step writes the next terms into the same memory
        if self.device.type == "cuda" and not self.device_step.recorded:
            self._grow_capacity(terms[-1].item())
        if it > self.cfg.network_from and it % EMA_INTERVAL == 0:
            self.iteration = it
            self._update_average()
        if it in self.moments:
            self.snapshot(it)
        if densifying:
            self._densify(it)
        self.iteration = it

    def _device_step(self) -> Tensor:
        """Forward, backward and update on the frames in `slot`, without waiting: [terms + 1] the loss's terms, and the
        number of intersections of Gaussians and tiles (0 on the CPU)."""
        terms, num_isects, gradients2d = self._backward()
        self._update(gradients2d)
        return torch.cat([terms, num_isects])

    def _backward(self) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Forward and backward pass: the terms, [1] the number of intersections, and what the densifier collects."""
        stage, densifying, discriminator = self.kind
        assert self.slot is not None
        ids, packed = self.slot
        batch = self.frames.unpack(ids[self.part], packed)
        given = self.frames.conditions(ids)
        offsets = self._offsets(given) if stage == "fine" else None
        rgb, alpha, info = self.head.splat(offsets, given.w2c[self.part], self.K, self.ds.size, batch["background"],
                                           self.capacity.value if self.device_step.recording else None)
        if discriminator is not None:
            discriminator.judge(rgb, batch["frame"], self.frames.lip_rect[batch["ids"]])
        loss, terms = self._loss(stage, rgb, alpha, batch)
        if densifying:
            info["means2d"].retain_grad()
        if discriminator is not None:
            of_rgb, = torch.autograd.grad(loss, rgb, retain_graph=True)
            torch.autograd.backward((loss, rgb), (None, discriminator.pull(of_rgb, batch["lips"])))
            discriminator.join()
        else:
            loss.backward()
        gradients2d = self.densifier.measured(info, self.cfg.batch_size) if densifying else ()
        return terms, info.get("num_isects", terms.new_zeros(())).to(terms)[None], gradients2d

    def _offsets(self, given: Conditions) -> dict[str, Tensor]:
        return self.head.offsets(given)

    def _loss(self, stage: str, rgb: Tensor, alpha: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss, and its terms, see `Losses.forward`."""
        return self.losses[stage](rgb, alpha, batch["frame"], batch["head"], batch["lips"])

    def _update(self, gradients2d: tuple[Tensor, ...]) -> None:
        """What follows from the gradients: they are used up."""
        if gradients2d:
            self.densifier.add(*gradients2d)
        stage, _, discriminator = self.kind
        waits = {NETWORK: stage == "coarse" and self.cfg.network_from > 0, DISCRIMINATOR: discriminator is None}
        trained = [name for name in self.optimizers if not waits.get(name)]
        for name in trained:
            with self.branches[name]():
                self.optimizers[name].step()
        for name in trained:
            self.branches[name].join()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def _ids(self, iteration: int) -> list[int]:
        return frame_order(iteration, self.cfg.batch_size, self.ds.num_train, self.cfg.seed)

    def _fetch(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        return self.frames.fetch(ids)

    def _densify(self, iteration: int) -> None:
        before = len(self.head)
        if self.densifier.is_due(iteration):
            self.head.write_attributes()
        optimizers = {name: optimizer for name, optimizer in self.optimizers.items() if name in self.head.gaussians}
        done = self.densifier.step(self.head.gaussians, optimizers, iteration)
        if done:
            self.record({"kind": "densify", "iteration": iteration, **done})
            self.capacity.scale(len(self.head) / before)
            self.device_step.forget()

    def _grow_capacity(self, num_isects: float) -> None:
        self.capacity.grow(num_isects)
        self.device_step.forget()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged network towards the trained one; quickly at first, so that the start is forgotten.

        torch's `AveragedModel` would wait for the device every time.
        """
        steps = self.iteration - self.cfg.network_from
        decay = min(self.cfg.weight_average, (1 + steps) / (10 + steps)) ** EMA_INTERVAL
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.head.deformation.parameters()), 1 - decay)

    # ---- between steps ----

    def record(self, row: dict[str, Any]) -> None:
        """Append a row to the metrics, see `MetricsWriter.write`."""
        self.metrics.write(row)

    def log(self, bar: Progress) -> None:
        """Write the mean of the steps since the last row, and stop the run if it has gone wrong."""
        if not self.steps:
            return
        stage, terms, seconds = self._finished_steps()
        names = self.losses[stage].names
        self.guard.check_losses(names, terms, self.iteration - len(terms) + 1)
        self.head.write_attributes()
        opacity, points = self.head.gaussians["opacities"].detach().sigmoid().mean().item(), len(self.head)
        values = dict(zip(names, terms.mean(0).tolist()))
        memory = {"gpu_mib": torch.cuda.memory_allocated(self.device) / 2**20} if self.device.type == "cuda" else {}
        self.record({"kind": "train", "iteration": self.iteration, "stage": self.cfg.stage(self.iteration),
                     **values, "points": points, "opacity": opacity, "it_per_s": len(terms) / seconds, **memory})
        bar.update(0, **{k: v for k, v in values.items() if k != "coverage"})
        self.guard.check_collapse(
            self.iteration, {"opacity": opacity, "coverage": values["coverage"], "points": points}, values)

    def _finished_steps(self) -> tuple[str, Tensor, float]:
        """Wait for the steps since the last call: their stage, [steps, terms] and the seconds they took."""
        stage, rows, seconds = self.steps.take()
        num_isects = int(rows[:, -1].max())
        if self.device.type == "cuda" and not self.capacity.fits(num_isects):
            self._grow_capacity(num_isects)  # the farthest Gaussians of some steps were left out
        return stage, rows[:, :-1], seconds

    @torch.no_grad()
    def evaluate(self) -> float:
        """PSNR (dB, composite) on a few validation frames with the averaged network; written to the metrics."""
        ids = self.eval_ids
        value = psnr(*self._rendered(self.ema_head(), ids, self.iteration)).mean().item() if ids else float("nan")
        self.record({"kind": "eval", "iteration": self.iteration, "val_psnr": value})
        return value

    def _rendered(self, head: Head, ids: list[int], iteration: int) -> tuple[Tensor, Tensor]:
        """Validation frames as the head renders them, and the ground truth, [B, S, S, 3] each."""
        b = self.eval_frames.batch(ids)
        rgb, _, _ = head.render(self.eval_frames.conditions(b["ids"]), self.K, self.ds.size, b["background"],
                                deform=self.cfg.stage(max(iteration, 1)) == "fine")
        return rgb.clamp(0, 1), b["frame"]

    @torch.no_grad()
    def snapshot(self, iteration: int) -> None:
        """Write a snapshot, see `snapshots`."""
        image, frame = None, -1
        if self.eval_ids:
            frame = self.eval_ids[len(self.eval_ids) // 2]
            rgb, _ = self._rendered(self.ema_head(), [frame], iteration)
            image = (rgb[0] * 255).round().byte().cpu().numpy()
        # once nothing is collected any more, there are no gradients to record
        gradients = self.densifier.active(iteration) * self.densifier.mean_gradients()
        snapshots.save(self.run.root, iteration, dict(self.head.gaussians), self.densifier.state["added_at"],
                       gradients, image, frame)

    def refine_poses(self) -> None:
        """Refine the poses of all frames against their images; they are used from now on."""
        fine = self.cfg.stage(self.iteration) == "fine"
        self.head.w2c.copy_(self._refined_poses(fine))
        self.device_step.reset()

    def _refined_poses(self, deform: bool) -> Tensor:
        return torch.from_numpy(refine_poses(self.ema_head(), self.ds, self.device, self.cfg.pose_steps, deform))

    def ema_head(self) -> Head:
        """The head as it is rendered and saved: trained Gaussians, averaged network. It shares all tensors."""
        head = self.head
        averaged = Head(self.cfg, head.gaussians, self.ema, head.mouth, head.torso, head.w2c)
        averaged.write_attributes()
        return averaged

    def save(self) -> None:
        """Write a checkpoint of this iteration, and remove the oldest (see `keep_checkpoints`).

        Raises:
            TrainingError: a parameter is not finite.
            StorageError: the disk is full, or the run folder is gone or cannot be written to.
        """
        self.guard.check_parameters(self.head, self.iteration)
        state = {"iteration": self.iteration, "stage": self.cfg.stage(self.iteration), "points": len(self.head)}
        head = {**self.ema_head().state_dict(), "added_at": self.densifier.state["added_at"]}
        # the row first: after a kill between the two, `cut` drops it, whereas a missing one could not be told
        self.record({"kind": "checkpoint", "iteration": self.iteration, "points": len(self.head)})
        self.metrics.flush()
        checkpoint.save(self.run.root, self.iteration, head, self._state(), state, dict(self.head.gaussians))
        checkpoint.remove_oldest(self.run.root, self.cfg.keep_checkpoints, (self.cfg.coarse_iterations,))

    def _state(self) -> dict[str, Any]:
        """What only training needs of a checkpoint, for `_restore`."""
        return {"network": self.head.deformation.state_dict(), "densifier": self.densifier.state_dict(),
                "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()}, "peak": self.guard.peak,
                "discriminator": None if self.discriminator is None else self.discriminator.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None}
