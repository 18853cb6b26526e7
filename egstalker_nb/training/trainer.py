"""One step of training, and everything that changes while training."""
from __future__ import annotations

import copy
import json
import math
import time
from functools import lru_cache
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..config import Config
from ..core.cuda_graph import Captured
from ..core.errors import TrainingError
from ..core.progress import Progress
from ..data.dataset import Dataset
from ..data.frame_loader import Frames
from ..metrics.image_metrics import psnr
from ..model.head import Head
from ..rasterizer.cuda import SPARE
from . import checkpoint, snapshots
from .densification import Densifier
from .fit_torso import fit_torso
from .init_head import new_head
from .losses import Losses
from .pose_refinement import refine_poses
from .run import METRICS, Run

AVERAGE_INTERVAL = 4    # steps between updates of the averaged network
EVAL_FRAMES = 8         # validation frames behind the PSNR curve
#: a head has collapsed when one of these falls below this share of its highest value so far: mean opacity of the
#: Gaussians, share of the head mask that the (deformed) splats cover, number of Gaussians
COLLAPSE = {"opacity": 0.3, "coverage": 0.3, "points": 0.5}


def decayed(first: float, last: float, progress: float) -> float:
    """Exponential interpolation from `first` (progress 0) to `last` (progress 1)."""
    if first <= 0 or last <= 0:
        return first
    return math.exp(math.log(first) + (math.log(last) - math.log(first)) * min(max(progress, 0.0), 1.0))


@lru_cache(4)
def _shuffle(num_frames: int, seed: int) -> list[int]:
    return torch.randperm(num_frames, generator=torch.Generator().manual_seed(seed)).tolist()


def frame_order(iteration: int, batch: int, num_frames: int, seed: int) -> list[int]:
    """The frames of a step: a fresh shuffle each epoch, found from the iteration alone, so that resuming is exact."""
    positions = range((iteration - 1) * batch, iteration * batch)
    return [_shuffle(num_frames, seed * 1_000_003 + p // num_frames)[p % num_frames] for p in positions]


class Trainer:
    """Everything that changes while training; `iteration` counts finished steps."""

    def __init__(self, ds: Dataset, cfg: Config, run: Run, device: torch.device):
        self.ds, self.cfg, self.run, self.device = ds, cfg, run, device
        torch.manual_seed(cfg.seed)
        self.head = new_head(ds, cfg).to(device).train()
        self.average = copy.deepcopy(self.head.deformation).eval().requires_grad_(False)
        self._averaged = list(self.average.parameters()), list(self.head.deformation.parameters())
        self.optimizers = self._optimizers()
        self.densifier = Densifier(cfg, len(self.head), torch.from_numpy(ds.mean_face), device)
        self.iteration = 0
        self.losses = {stage: Losses(cfg, stage, ds.head_box) for stage in ("coarse", "fine")}
        self.pending: list[tuple[str, Tensor]] = []  # stage and loss terms of the steps since the last row
        self.device_step = Captured(self._device_step, device)
        self.kind: Optional[tuple[str, bool]] = None  # stage and growth of the recorded step
        self.room = 0                                 # for pairs of Gaussian and tile, see `rasterize`
        self.slot: Optional[tuple[Tensor, Tensor]] = None  # the frames of the step: numbers and bytes
        self.peak = {"opacity": 0.0, "coverage": 0.0, "points": 0}
        self.frames = Frames(ds, ds.train_ids, device)
        step = max(1, len(ds.val_ids) // EVAL_FRAMES)
        self.eval_ids = list(ds.val_ids)[::step][:EVAL_FRAMES]
        self.eval_frames = Frames(ds, self.eval_ids, device)
        self.moments = set(snapshots.moments(cfg))
        self.K = ds.K.to(device)
        if run.iterations:
            self.restore(run.iterations[-1])
        else:
            self.head.torso = fit_torso(ds, self.frames, seed=cfg.seed)
        for frames in (self.frames, self.eval_frames):
            frames.for_head(self.head)
        self._cut_metrics()
        snapshots.cut(run.root, self.iteration)
        if self.iteration == 0:
            self.snapshot(0)
        self.clock = time.perf_counter()

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c, g, net = self.cfg, self.head.gaussians, self.head.deformation
        options = {"fused": True, "capturable": self.device.type == "cuda"}
        rates = {"means": c.position_lr_init, "scales": c.scaling_lr, "quats": c.rotation_lr,
                 "opacities": c.opacity_lr, "sh0": c.feature_lr, "shN": c.feature_lr / 20}
        optimizers = {name: torch.optim.Adam([{"params": [g[name]], "lr": self._rate(rate)}], eps=1e-15, **options)
                      for name, rate in rates.items()}
        grid = list(net.triplane.parameters())
        rest = [p for name, p in net.named_parameters() if not name.startswith("triplane.")]
        optimizers["network"] = torch.optim.AdamW(
            [{"params": grid, "lr": self._rate(c.grid_lr_init)},
             {"params": rest, "lr": self._rate(c.deformation_lr_init)}],
            weight_decay=c.weight_decay, **options)
        return optimizers

    def _rate(self, value: float) -> float | Tensor:
        """A learning rate that a recorded step reads anew each time."""
        return torch.tensor(value, device=self.device) if self.device.type == "cuda" else value

    @property
    def gaussian_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {k: v for k, v in self.optimizers.items() if k != "network"}

    def train_iteration(self) -> None:
        """One step on one batch."""
        it = self.iteration + 1
        stage, growing = self.cfg.stage(it), self.densifier.active(it)
        self._fill_slot(self._ids(it))
        self.frames.prefetch(self._ids(it + 1))
        self._set_rates(it, stage == "fine")
        if self.kind != (stage, growing):
            self.kind = stage, growing
            self.device_step.reset()
        shown = self.device_step()
        # cloned: a recorded step writes the next terms into the same memory
        self.pending.append((stage, shown.clone()))
        if self.device.type == "cuda" and not self.device_step.recorded:
            self._make_room(shown[-1].item())
        if stage == "fine" and it % AVERAGE_INTERVAL == 0:
            self._average(it - self.cfg.coarse_iterations)
        if it in self.moments:
            self.snapshot(it)
        if growing:
            self._grow(it)
        self.iteration = it

    def _grow(self, it: int) -> None:
        before = len(self.head)
        done = self.densifier.round(self.head.gaussians, self.gaussian_optimizers, it)
        if done:
            self.write({"kind": "densify", "iteration": it, **done})
            self._make_room(self.room / SPARE * len(self.head) / before)

    def _make_room(self, pairs: float) -> None:
        self.room = max(self.room, int(SPARE * pairs))
        self.device_step.forget()

    def _fill_slot(self, ids: list[int]) -> None:
        given = self.frames.fetch(ids)
        if self.slot is None:
            self.slot = given
        for place, values in zip(self.slot, given):
            place.copy_(values)

    def _device_step(self) -> Tensor:
        """Forward, backward and update on the frames in `slot`, without waiting: [terms + 1] the loss's terms, and the
        number of pairs of Gaussian and tile (0 on the CPU)."""
        stage, growing = self.kind
        batch = self.frames.unpack(*self.slot)
        given = self.frames.conditions(batch["ids"])
        offsets = self.head.offsets(given) if stage == "fine" else None
        rgb, alpha, info = self.head.splat(offsets, given.w2c, self.K, self.ds.size, batch["background"],
                                           self.room if self.device_step.recording else None)
        loss, shown = self.losses[stage](rgb, alpha, batch["frame"], batch["head"], batch["lips"])
        if growing:
            info["means2d"].retain_grad()
        loss.backward()
        if growing:
            self.densifier.collect(self.head.gaussians, info)
        for name, optimizer in self.optimizers.items():
            if stage == "fine" or name != "network":
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        pairs = info.get("num_isects", shown.new_zeros(()))
        return torch.cat([shown, pairs.to(shown)[None]])

    def _ids(self, iteration: int) -> list[int]:
        return frame_order(iteration, self.cfg.batch_size, self.ds.num_train, self.cfg.seed)

    def _set_rates(self, it: int, fine: bool) -> None:
        """This iteration's learning rates."""
        c = self.cfg
        values = {"means": [decayed(c.position_lr_init, c.position_lr_final, it / c.iterations)]}
        if fine:
            progress = (it - c.coarse_iterations) / max(c.iterations - c.coarse_iterations, 1)
            values["network"] = [decayed(c.grid_lr_init, c.grid_lr_final, progress),
                                 decayed(c.deformation_lr_init, c.deformation_lr_final, progress)]
        for name, rates in values.items():
            for group, rate in zip(self.optimizers[name].param_groups, rates):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    @torch.no_grad()
    def _average(self, steps: int) -> None:
        """Move the averaged network towards the trained one; quickly at first, so that the start is forgotten."""
        decay = min(self.cfg.weight_average, (1 + steps) / (10 + steps)) ** AVERAGE_INTERVAL
        torch._foreach_lerp_(*self._averaged, 1 - decay)

    def log(self, bar: Progress) -> None:
        """Write the mean of the steps since the last row, and stop the run if it has gone wrong."""
        if not self.pending:
            return
        stage = self.pending[-1][0]
        names = self.losses[stage].names
        rows = torch.stack([terms for at, terms in self.pending if at == stage]).cpu()
        rows, pairs = rows[:, :-1], int(rows[:, -1].max())
        if pairs > self.room and self.device.type == "cuda":  # the farthest Gaussians of some steps were not drawn
            self._make_room(pairs)
        first = self.iteration - len(rows) + 1
        self.pending = []
        for offset in (~torch.isfinite(rows).all(1)).nonzero()[:1, 0].tolist():
            raise self._stopped(f"a loss that is not finite at iteration {first + offset}",
                                dict(zip(names, rows[offset].tolist())))
        opacity, points = self.head.gaussians["opacities"].detach().sigmoid().mean().item(), len(self.head)
        values = dict(zip(names, rows.mean(0).tolist()))
        memory = {"gpu_mib": torch.cuda.memory_allocated(self.device) / 2**20} if self.device.type == "cuda" else {}
        self.write({"kind": "train", "iteration": self.iteration, "stage": self.cfg.stage(self.iteration), **values,
                    "points": points, "opacity": opacity, "it_per_s": len(rows) / (time.perf_counter() - self.clock),
                    **memory})
        self.clock = time.perf_counter()
        bar.update(0, **{k: v for k, v in values.items() if k != "coverage"})
        now = {"opacity": opacity, "coverage": values["coverage"], "points": points}
        self.peak = {k: max(self.peak[k], v) for k, v in now.items()}
        if any(now[k] < share * self.peak[k] for k, share in COLLAPSE.items()):
            facts = ", ".join(f"{k} {v:.4g} (peak {self.peak[k]:.4g})" for k, v in now.items())
            raise self._stopped(f"a collapse by iteration {self.iteration}: {facts}", values)

    def _stopped(self, what: str, terms: dict[str, float]) -> TrainingError:
        listed = ", ".join(f"{k} {v:.4g}" for k, v in terms.items())
        good = self.run.iterations
        kept = f"The last good checkpoint is iteration {good[-1]}." if good else "No checkpoint was written yet."
        return TrainingError("a finite loss and a head that stays", f"{what} ({listed})",
                             f"{kept} Lower the learning rates or check the dataset's report, and train again.")

    @torch.no_grad()
    def evaluate(self) -> float:
        """PSNR (dB, composite) on a few validation frames with the averaged network; written to the metrics."""
        head, values = self.ema_head(), []
        for i in self.eval_ids:
            rgb, frame = self._shown(head, i, self.iteration)
            values.append(psnr(rgb, frame)[0])
        value = torch.stack(values).mean().item() if values else float("nan")
        self.write({"kind": "eval", "iteration": self.iteration, "val_psnr": value})
        return value

    def _shown(self, head: Head, i: int, iteration: int) -> tuple[Tensor, Tensor]:
        """Validation frame i as the head shows it, and as it is, [1, S, S, 3] each."""
        b = self.eval_frames.batch([i])
        rgb, _, _ = head.render(self.eval_frames.conditions(b["ids"]), self.K, self.ds.size, b["background"],
                                deform=self.cfg.stage(max(iteration, 1)) == "fine")
        return rgb.clamp(0, 1), b["frame"]

    @torch.no_grad()
    def snapshot(self, iteration: int) -> None:
        """Leave a small record of this moment, see `snapshots`."""
        picture, frame = None, -1
        if self.eval_ids:
            frame = self.eval_ids[len(self.eval_ids) // 2]
            rgb, _ = self._shown(self.ema_head(), frame, iteration)
            picture = (rgb[0] * 255).round().byte().cpu().numpy()
        snapshots.save(self.run.root, iteration, dict(self.head.gaussians), self.densifier.state["added_at"],
                       self.densifier.gradients(iteration), picture, frame)

    def refine_poses(self) -> None:
        """From here on, poses that fit the pictures of all frames."""
        fine = self.cfg.stage(self.iteration) == "fine"
        w2c = refine_poses(self.ema_head(), self.ds, self.device, self.cfg.pose_steps, deform=fine)
        self.head.w2c.copy_(torch.from_numpy(w2c))
        torso, val = self.head.torso, slice(self.ds.num_train, None)
        torso.codes[val] = torso.codes_of(self.head.w2c[val])
        self.eval_frames.for_head(self.head)
        self.device_step.reset()

    def ema_head(self) -> Head:
        """The head as it is rendered: trained Gaussians, averaged network."""
        head = copy.copy(self.head)
        head._modules = {**self.head._modules, "deformation": self.average}
        return head

    def write(self, row: dict[str, Any]) -> None:
        with open(self.run.root / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def save(self) -> None:
        """Write a checkpoint of this iteration."""
        self.check_finite()
        state = {"iteration": self.iteration, "stage": self.cfg.stage(self.iteration), "points": len(self.head)}
        trainer = {"network": self.head.deformation.state_dict(), "densifier": self.densifier.state_dict(),
                   "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()}, "peak": self.peak,
                   "rng": torch.get_rng_state(),
                   "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None}
        shown = {**self.ema_head().state_dict(), "added_at": self.densifier.state["added_at"]}
        checkpoint.save(self.run.root, self.iteration, shown, trainer, state, dict(self.head.gaussians))
        self.write({"kind": "checkpoint", "iteration": self.iteration, "points": len(self.head)})

    def check_finite(self) -> None:
        bad = [name for name, p in self.head.named_parameters() if not torch.isfinite(p).all()]
        if bad:
            raise self._stopped(f"parameters that are not finite at iteration {self.iteration}: {', '.join(bad)}", {})

    def _cut_metrics(self) -> None:
        """Drop rows of steps that will be done again: a killed run has logged more than it has saved."""
        rows = [r for r in self.run.metrics() if r["iteration"] <= self.iteration]
        checkpoint.write_text_atomic(self.run.root / METRICS, "".join(json.dumps(r) + "\n" for r in rows))

    def restore(self, iteration: int) -> None:
        """Continue from a checkpoint: everything that `save` wrote, and metrics up to it."""
        tensors = checkpoint.load(self.run.root, iteration, checkpoint.HEAD)
        trainer = checkpoint.load(self.run.root, iteration, checkpoint.TRAINER)
        for name in self.head.gaussians:
            self.head.gaussians[name] = nn.Parameter(tensors[f"gaussians.{name}"].to(self.device))
        self.head.deformation.load_state_dict(trainer["network"])
        parts = {"deformation": self.average, "mouth": self.head.mouth, "torso": self.head.torso}
        for name, part in parts.items():
            own = {k: v for k, v in tensors.items() if k.startswith(f"{name}.")}
            part.load_state_dict({k.removeprefix(f"{name}."): v for k, v in own.items()})
        self.optimizers = self._optimizers()
        for name, optimizer in self.optimizers.items():
            own = [{k: group[k] for k in ("lr", "fused", "capturable")} for group in optimizer.param_groups]
            optimizer.load_state_dict(trainer["optimizers"][name])
            for group, options in zip(optimizer.param_groups, own):  # of this device, not of the one that saved them
                group.update(options)
        self.densifier.load_state_dict(trainer["densifier"])
        self.head.w2c.copy_(tensors["w2c"])
        self.peak.update(trainer["peak"])
        self.iteration = iteration
        torch.set_rng_state(trainer["rng"])
        if trainer["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(trainer["cuda_rng"], self.device)


