"""Where each millisecond of a training step goes.

A recorded step cannot be looked into, so growing beginnings of it are recorded and timed: what a beginning takes more
than the one before is the time of its last part.
"""
from __future__ import annotations

from typing import Callable

import torch
from common import DEVICE, milliseconds

from egstalker_nb.core.cuda_graph import Captured
from egstalker_nb.training.trainer import Trainer


def beginnings(t: Trainer) -> dict[str, Callable[[], object]]:
    """Name of a part -> a function that does the step up to and including it."""
    t.train_iteration()  # fills the slot, measures the number of intersections
    capacity = t.capacity.value if DEVICE.type == "cuda" else None
    gaussians = list(t.head.gaussians.values())
    network = list(t.head.deformation.parameters())

    def unpack():
        return t.frames.unpack(*t.slot)

    def deform():
        batch = unpack()
        return batch, t.head.offsets(t.frames.conditions(batch["ids"]))

    def draw():
        batch, offsets = deform()
        w2c = t.frames.conditions(batch["ids"]).w2c
        rgb, alpha, _ = t.head.splat(offsets, w2c, t.K, t.ds.size, batch["background"], capacity)
        return batch, offsets, rgb, alpha

    def compare():
        batch, offsets, rgb, alpha = draw()
        loss, _ = t.losses["fine"](rgb, alpha, batch["frame"], batch["head"], batch["lips"])
        return offsets, rgb, alpha, loss

    def compare_back():
        _, rgb, alpha, loss = compare()
        return torch.autograd.grad(loss, (rgb, alpha))

    def draw_back():
        offsets, _, _, loss = compare()
        return torch.autograd.grad(loss, [*offsets.values(), *gaussians])

    def deform_back():
        loss = compare()[-1]
        return torch.autograd.grad(loss, [*gaussians, *network], allow_unused=True)

    return {"frames to floats": unpack, "network": deform, "rasteriser": draw, "losses": compare,
            "losses, backward": compare_back, "rasteriser, backward": draw_back, "network, backward": deform_back,
            "optimisers": t._device_step}


def stages(trainer: Trainer) -> dict:
    """Milliseconds of each part, of a whole step recorded and plain, and of the loop around it."""
    parts, before = {}, 0.0
    for name, function in beginnings(trainer).items():
        recorded = Captured(function, DEVICE)
        now = milliseconds(recorded)
        parts[name] = round(max(now - before, 0.0), 3)
        before = now
    recorded = milliseconds(trainer.train_iteration)
    plain = milliseconds(lambda: trainer.device_step._plainly()) if DEVICE.type == "cuda" else None
    return {"parts_ms": parts, "step_ms": round(before, 3), "iteration_ms": round(recorded, 3),
            "plain_step_ms": None if plain is None else round(plain, 3), "points": len(trainer.head),
            "size": trainer.ds.size, "batch": trainer.cfg.batch_size}
