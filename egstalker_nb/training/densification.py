"""Densification by the criteria of gsplat's DefaultStrategy, on its public operations, with a cap and a record."""
from __future__ import annotations

from typing import Any, Mapping, Optional

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import duplicate, remove, split
from torch import Tensor, nn

from ..config import Config
from ..core.errors import TrainingError
from ..face.regions import count_regions

SCENE_SCALE = 3.0  # radius of a head with hair and neck, in head units
#: a Gaussian whose largest scale (standard deviation, head units) is at most this is cloned, a larger one is split
MAX_CLONE_SCALE = DefaultStrategy.grow_scale3d * SCENE_SCALE


def threshold_at(cfg: Config, iteration: int) -> float:
    """The image-plane gradient above which a Gaussian grows, in the stage of this iteration."""
    return cfg.densify_grad_threshold_coarse if cfg.stage(iteration) == "coarse" else cfg.densify_grad_threshold_fine


def is_small(scales: Tensor) -> Tensor:
    """Logs of scales [N, 3], head units -> [N] bool: small enough to be cloned; a larger Gaussian is split."""
    return scales.exp().amax(-1) <= MAX_CLONE_SCALE


def to_grow(gradients: Tensor, threshold: float, max_points: int) -> Tensor:
    """The Gaussians that a densification step clones or splits.

    Args:
        gradients: [N] mean image-plane gradients, per half image size.
        threshold: those above it grow ...
        max_points: ... but only the largest of them, so that there are no more than this many Gaussians afterwards.

    Returns:
        [N] bool.
    """
    capacity = max(max_points - len(gradients), 0)
    above = gradients > threshold
    if int(above.sum()) <= capacity:
        return above
    return above & (gradients > gradients.topk(capacity + 1).values[-1])


class Densifier:
    """Clones, splits and prunes the Gaussians while the loop trains.

    Differences from `gsplat.strategy.DefaultStrategy` 1.5.3: gradients come from a batch of differently deformed
    copies ([B, 1, N, 2]; the original would index the wrong axis) and are summed without waiting for the device; growth
    is capped (`to_grow`); Gaussians are not pruned by size; and it is recorded when each was added. Opacities are
    never reset: in gsplat 1.5.3 an operator-precedence slip switches the reset off (`step % n == 0 & step > 0`), the
    measured runs of this kit were made without it, and resets are the known way to lose a head (opacity collapse).

    Args:
        cfg: thresholds, schedule and cap.
        points: number of Gaussians at the start.
        mean_face: [478, 3] head frame, defines the regions by which Gaussians are counted.
        device: of the Gaussians.

    Attributes:
        state: grad2d [N], the sum of image-plane gradients; count [N], the number of images in them; added_at [N], the
            iteration at which each Gaussian was added, 0 for one that was there at the start. All float32.
    """

    def __init__(self, cfg: Config, points: int, mean_face: Tensor, device: torch.device):
        self.cfg, self.mean_face = cfg, mean_face.to(device)
        self.state = {name: torch.zeros(points, device=device) for name in ("grad2d", "count", "added_at")}

    def is_due(self, iteration: int) -> bool:
        """Whether this iteration, while `active`, ends with a densification step."""
        return iteration > self.cfg.densify_from_iter and iteration % self.cfg.densification_interval == 0

    def active(self, iteration: int) -> bool:
        """Whether image-plane gradients are still being collected."""
        return iteration < self.cfg.densify_until_iter

    @torch.no_grad()
    def collect(self, info: Mapping[str, Any]) -> None:
        """Add the image-plane gradients of a training step; work on the device only.

        Args:
            info: of `rasterize`, after the backward pass, its `means2d` with their gradient.
        """
        self.add(*self.measured(info))

    @torch.no_grad()
    def measured(self, info: Mapping[str, Any], batch: Optional[int] = None) -> tuple[Tensor, Tensor]:
        """The image-plane gradients of a training step.

        Args:
            info: see `collect`.
            batch: number of images whose mean is the loss; by default those in `info`.

        Returns:
            for `add`, of each Gaussian the sum of its gradients and the number of images that it is in, [N] each.
        """
        grad = info["means2d"].grad.reshape(-1, len(self.state["count"]), 2)     # [B, N, 2]
        visible = (info["radii"].reshape(grad.shape) > 0).all(-1)                # [B, N]
        # per half image size, and of each image's own loss instead of the batch's mean
        size = torch.hypot(grad[..., 0] * (info["width"] / 2), grad[..., 1] * (info["height"] / 2))
        return (size * (batch or len(grad)) * visible).sum(0), visible.sum(0)

    @torch.no_grad()
    def add(self, gradients: Tensor, images: Tensor) -> None:
        """Add what `measured` returns."""
        self.state["grad2d"] += gradients
        self.state["count"] += images

    def mean_gradients(self) -> Tensor:
        """Mean image-plane gradient of each Gaussian since the last densification step, [N] per half image size; 0 for
        one that was in no image."""
        return self.state["grad2d"] / self.state["count"].clamp_min(1)

    @torch.no_grad()
    def step(self, params: nn.ParameterDict, optimizers: dict[str, torch.optim.Optimizer],
             iteration: int) -> dict[str, Any]:
        """Densify, every `densification_interval` iterations; replaces the parameters and what `collect` adds to.

        Args:
            params: the Gaussians, see `make_gaussians`.
            optimizers: one for each parameter, by its name.
            iteration: finished training steps.

        Returns:
            {} where none is due, or what was done: `cloned`, `split` and `pruned`, the numbers of Gaussians; `points`,
            their number afterwards; `births`, by region, those that were added and not pruned at once; `by_region`, the
            numbers of clones, of Gaussians that replace split ones, and of pruned ones, each by region.

        Raises:
            TrainingError: all Gaussians would be pruned.
        """
        c = self.cfg
        if not self.is_due(iteration):
            return {}
        grows = to_grow(self.mean_gradients(), threshold_at(c, iteration), c.max_points)
        small = is_small(params["scales"])
        cloned, halved = grows & small, grows & ~small
        clones, splits = int(cloned.sum()), int(halved.sum())
        if clones:
            duplicate(params, optimizers, self.state, cloned)
        if splits:  # clones come last, and are not split
            split(params, optimizers, self.state, torch.cat([halved, halved.new_zeros(clones)]))
        first_new = len(params["means"]) - clones - 2 * splits
        self.state["added_at"][first_new:] = iteration
        new = params["means"].detach()[first_new:]
        faint = params["opacities"].sigmoid() < c.opacity_threshold
        if faint.all():
            found = f"all {len(faint)} with an opacity below {c.opacity_threshold} at iteration {iteration}"
            raise TrainingError("Gaussians that stay", found, "Train elsewhere with a lower opacity_threshold.")
        pruned = params["means"].detach()[faint]
        if len(pruned):
            remove(params, optimizers, self.state, faint)
        for name in ("grad2d", "count"):
            self.state[name].zero_()
        added = params["means"].detach()[self.state["added_at"] == iteration]
        means_of = {"cloned": new[:clones], "split": new[clones:], "pruned": pruned}
        return {"cloned": clones, "split": splits, "pruned": len(pruned), "points": len(params["means"]),
                "births": count_regions(added, self.mean_face),
                "by_region": {kind: count_regions(means, self.mean_face) for kind, means in means_of.items()}}

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.state = {k: v.to(self.mean_face.device) for k, v in state.items()}
