"""Time of each part of a training step.

A recorded CUDA graph cannot be profiled from inside, so prefixes of the step of increasing length are recorded and
timed: the difference to the previous prefix is the time of the last part.
"""
from __future__ import annotations

from typing import Callable

import torch
from common import DEVICE, milliseconds

from egstalker_nb.core.cuda_graph import Captured
from egstalker_nb.training.trainer import Trainer


def prefixes(t: Trainer) -> dict[str, Callable[[], object]]:
    """Name of a part -> a function that runs the step up to and including it."""
    t.train_iteration()  # fills the slot, measures the intersection capacity
    isect_capacity = t.capacity.value if DEVICE.type == "cuda" else None
    gaussians = list(t.head.gaussians.values())
    network = list(t.head.deformation.parameters())

    def unpack():
        return t.frames.unpack(*t.slot)

    def deform():
        batch = unpack()
        given = t.frames.conditions(batch["ids"])
        return batch, given, t.head.offsets(given)

    def rasterize():
        batch, given, offsets = deform()
        rgb, alpha, _ = t.head.splat(offsets, given.w2c, t.K, t.ds.size, batch["background"], isect_capacity)
        return batch, offsets, rgb, alpha

    def loss_of():
        batch, offsets, rgb, alpha = rasterize()
        loss, _ = t.losses["fine"](rgb, alpha, batch["frame"], batch["head"], batch["lips"])
        return offsets, rgb, alpha, loss

    def loss_backward():
        _, rgb, alpha, loss = loss_of()
        return torch.autograd.grad(loss, (rgb, alpha))

    def rasterize_backward():
        offsets, _, _, loss = loss_of()
        return torch.autograd.grad(loss, [*offsets.values(), *gaussians])

    def network_backward():
        loss = loss_of()[-1]
        return torch.autograd.grad(loss, [*gaussians, *network], allow_unused=True)

    # the discriminator runs beside all from the losses on
    last = "optimisers" if t.kind[-1] is None else "optimisers, discriminator"
    return {"frames to floats": unpack, "network": deform, "rasteriser": rasterize, "losses": loss_of,
            "losses, backward": loss_backward, "rasteriser, backward": rasterize_backward,
            "network, backward": network_backward, last: t._device_step}


def stages(trainer: Trainer) -> dict:
    """Milliseconds of each part, of the whole step with and without CUDA graph, and of the loop around it."""
    parts, before = {}, 0.0
    for name, function in prefixes(trainer).items():
        recorded = Captured(function, DEVICE)
        now = milliseconds(recorded)
        parts[name] = round(max(now - before, 0.0), 3)
        before = now
    recorded = milliseconds(trainer.train_iteration)
    plain = milliseconds(lambda: trainer.device_step.run_eagerly()) if DEVICE.type == "cuda" else None
    return {"parts_ms": parts, "step_ms": round(before, 3), "iteration_ms": round(recorded, 3),
            "plain_step_ms": None if plain is None else round(plain, 3), "points": len(trainer.head),
            "size": trainer.ds.size, "batch": trainer.cfg.batch_size}
