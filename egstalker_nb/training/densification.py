"""Growth and pruning: gsplat's DefaultStrategy with a cap, for batches of deformed Gaussians, with a record."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy
from torch import Tensor

from ..config import Config
from ..face.regions import count_regions

SCENE_SCALE = 3.0  # radius of a head with hair and neck, in head units


@dataclass
class HeadStrategy(DefaultStrategy):
    """DefaultStrategy whose growth stops at a cap: a round keeps to the largest gradients.

    Differences from gsplat 1.5.3: gradients may come from a batch of differently deformed copies ([B, 1, N, 2]; the
    original would index the wrong axis); statistics are summed without waiting for the device; growth is capped; and
    `state["added_at"]` [N] holds the iteration at which each Gaussian appeared (0: a landmark), for the analysis
    notebook. Opacities are never reset: in gsplat 1.5.3 the reset is switched off by an operator-precedence slip
    (`step % n == 0 & step > 0`), the measured runs of this kit were made without it, and resets are the known way to
    lose a head (opacity collapse).
    """

    max_points: int = 12_000
    last_round: dict[str, int] = field(default_factory=dict)
    """What the newest round did: cloned, split, pruned."""
    last_places: dict[str, Tensor] = field(default_factory=dict)
    """The same as centres in the head frame [n, 3]: of clones, of the pairs that splits left, of what was pruned."""

    def initialize_state(self, scene_scale: float = SCENE_SCALE, points: int = 0,
                         device: torch.device | str = "cpu") -> dict[str, Any]:
        state = super().initialize_state(scene_scale)
        for name in ("grad2d", "count", "added_at"):
            state[name] = torch.zeros(points, device=device)
        return state

    def _update_state(self, params, state, info, packed: bool = False) -> None:
        grad = info["means2d"].grad.reshape(-1, len(params["means"]), 2)  # [B, N, 2]
        seen = (info["radii"].reshape(grad.shape) > 0).all(-1)            # [B, N]
        # to half image sizes, and from the batch's mean loss to each frame's own
        size = torch.hypot(grad[..., 0] * (info["width"] / 2), grad[..., 1] * (info["height"] / 2)) * len(grad)
        state["grad2d"] += (size * seen).sum(0)
        state["count"] += seen.sum(0)

    def _grow_gs(self, params, optimizers, state, step: int) -> tuple[int, int]:
        room = self.max_points - len(params["means"])
        threshold = self.grow_grad2d
        mean_grad = state["grad2d"] / state["count"].clamp_min(1)
        self.last_round = {"cloned": 0, "split": 0, "pruned": 0}
        none = params["means"].detach()[:0]
        self.last_places = {"cloned": none, "split": none, "pruned": none}
        if room <= 0:
            return 0, 0
        if int((mean_grad > threshold).sum()) > room:
            self.grow_grad2d = mean_grad.topk(room + 1).values[-1].item()
        try:
            cloned, split = super()._grow_gs(params, optimizers, state, step)
        finally:
            self.grow_grad2d = threshold
        if cloned + split:
            state["added_at"][-(cloned + 2 * split):] = step
            new = params["means"].detach()[-(cloned + 2 * split):]  # gsplat appends clones first
            self.last_places.update(cloned=new[:cloned], split=new[cloned:])
        self.last_round.update(cloned=cloned, split=split)
        return cloned, split

    def _prune_gs(self, params, optimizers, state, step: int) -> int:
        self.last_places["pruned"] = params["means"].detach()[params["opacities"].sigmoid() < self.prune_opa]
        self.last_round["pruned"] = super()._prune_gs(params, optimizers, state, step)
        return self.last_round["pruned"]


class Densifier:
    """The strategy, its state and its schedule, for the training loop.

    Args:
        points: number of Gaussians at the start. mean_face: [478, 3], names the regions where Gaussians are born.
    """

    def __init__(self, cfg: Config, points: int, mean_face: Tensor, device: torch.device):
        self.cfg, self.mean_face = cfg, mean_face.to(device)
        # no pruning by size, which begins after `reset_every`; `active` and `round` keep the schedule
        self.strategy = HeadStrategy(prune_opa=cfg.opacity_threshold, reset_every=cfg.iterations + 1,
                                     max_points=cfg.max_points)
        self.state = self.strategy.initialize_state(points=points, device=device)

    def active(self, iteration: int) -> bool:
        """Whether image-plane gradients are still being collected."""
        return iteration < self.cfg.densify_until_iter

    def collect(self, params, info: dict) -> None:
        """Add the image-plane gradients of a step (device work only)."""
        with torch.no_grad():
            self.strategy._update_state(params, self.state, info)

    def round(self, params, optimizers, iteration: int) -> dict[str, Any]:
        """Grow and prune, every `densification_interval` steps; replaces the parameters and what `collect` adds to.

        Returns:
            {} or what the round did: cloned, split, pruned, points, births by region (alive after pruning), and
            `by_region` where the clones, the splits' children (two each) and the pruned ones lie.
        """
        c = self.cfg
        if iteration <= c.densify_from_iter or iteration % c.densification_interval:
            return {}
        coarse = c.stage(iteration) == "coarse"
        self.strategy.grow_grad2d = c.densify_grad_threshold_coarse if coarse else c.densify_grad_threshold_fine
        with torch.no_grad():
            self.strategy._grow_gs(params, optimizers, self.state, iteration)
            self.strategy._prune_gs(params, optimizers, self.state, iteration)
        for name in ("grad2d", "count"):
            self.state[name].zero_()
        newborn = params["means"].detach()[self.state["added_at"] == iteration]
        return {**self.strategy.last_round, "points": len(params["means"]),
                "births": count_regions(newborn, self.mean_face),
                "by_region": {kind: count_regions(places, self.mean_face)
                              for kind, places in self.strategy.last_places.items()}}

    def gradients(self, iteration: int) -> Tensor:
        """Mean image-plane gradient of each Gaussian since the last round [N], per half image size: what a round
        compares with the threshold; 0 for one that was not seen, and for all once nothing is collected any more."""
        return self.active(iteration) * self.state["grad2d"] / self.state["count"].clamp_min(1)

    def state_dict(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.state.items() if isinstance(v, Tensor)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.state.update({k: v.to(self.mean_face.device) for k, v in state.items()})
