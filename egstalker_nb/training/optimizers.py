"""Optimisers of the Gaussians and of the network, and their learning rates over time."""
from __future__ import annotations

import math
from typing import Any, Optional

import torch
from torch import Tensor

from ..config import Config
from ..model.head import Head
from .discriminator import BETAS, RATE, MouthDiscriminator

NETWORK, DISCRIMINATOR = "network", "discriminator"  # their optimisers; others are named as the Gaussians' parameters


def make_optimizers(cfg: Config, head: Head,
                    discriminator: Optional[MouthDiscriminator] = None) -> dict[str, torch.optim.Optimizer]:
    """Adam for each parameter of the Gaussians, by its name, and for the discriminator; AdamW for the deformation
    network.

    Args:
        cfg: learning rates and weight decay.
        head: on its device.
        discriminator: on the same one, if one takes part.
    """
    g, net = head.gaussians, head.deformation
    device = g["means"].device
    options = fused_on(device)
    rates = {"means": cfg.position_lr_init, "scales": cfg.scaling_lr, "quats": cfg.rotation_lr,
             "opacities": cfg.opacity_lr, "sh0": cfg.feature_lr, "shN": cfg.feature_lr / 20}
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam([{"params": [g[name]], "lr": rate_on(device, value)}], eps=1e-15, **options)
        for name, value in rates.items()}
    grid = list(net.triplane.parameters())
    rest = [p for name, p in net.named_parameters() if not name.startswith("triplane.")]
    optimizers[NETWORK] = torch.optim.AdamW(
        [{"params": parameters, "lr": rate_on(device, rate)}
         for parameters, rate in ((grid, cfg.grid_lr_init), (rest, cfg.deformation_lr_init))],
        weight_decay=cfg.weight_decay, **options)
    if discriminator is not None:
        optimizers[DISCRIMINATOR] = torch.optim.Adam(discriminator.parameters(), RATE, BETAS, **options)
    return optimizers


def set_learning_rates(optimizers: dict[str, torch.optim.Optimizer], cfg: Config, iteration: int) -> None:
    """The learning rates of an iteration: positions decay over the whole run, the network over the fine stage."""
    c = cfg
    values = {"means": [decayed(c.position_lr_init, c.position_lr_final, iteration / c.iterations)]}
    if c.stage(iteration) == "fine":
        progress = (iteration - c.coarse_iterations) / max(c.iterations - c.coarse_iterations, 1)
        values[NETWORK] = [decayed(c.grid_lr_init, c.grid_lr_final, progress),
                           decayed(c.deformation_lr_init, c.deformation_lr_final, progress)]
    for name, rates in values.items():
        for group, rate in zip(optimizers[name].param_groups, rates):
            set_rate(group, rate)


def fused_on(device: torch.device) -> dict[str, Any]:
    """Options of Adam for one kernel over all parameters, which a CUDA graph can capture."""
    return {"fused": True, "capturable": device.type == "cuda"}


def rate_on(device: torch.device, rate: float) -> float | Tensor:
    """A learning rate for Adam, which a captured step reads anew at every replay, see `set_rate`."""
    return torch.tensor(rate, device=device) if device.type == "cuda" else rate


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Change the learning rate of a parameter group, as `rate_on` made it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def decayed(first: float, last: float, progress: float) -> float:
    """Exponential interpolation from `first` (progress 0) to `last` (progress 1)."""
    if first <= 0 or last <= 0:
        return first
    return math.exp(math.log(first) + (math.log(last) - math.log(first)) * min(max(progress, 0.0), 1.0))


def load_optimizers(optimizers: dict[str, torch.optim.Optimizer], saved: dict[str, dict]) -> None:
    """Restore their states, on this device and not on the one that saved them."""
    for name, optimizer in optimizers.items():
        own = [{k: group[k] for k in ("lr", "fused", "capturable")} for group in optimizer.param_groups]
        optimizer.load_state_dict(saved[name])
        for group, options in zip(optimizer.param_groups, own):
            group.update(options)
