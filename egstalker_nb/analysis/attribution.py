"""What training looks at: where each loss term lies in a frame, how it pulls on the Gaussians, who sees what."""
from __future__ import annotations

import copy
from typing import Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.frame_loader import Frames
from ..metrics.image_metrics import ssim_map
from ..model.deformation import TOKENS
from ..rendering.inspection import paint_values
from ..rendering.renderer import Renderer
from ..training.losses import Losses
from .audio_curves import PARTS, attention_of_parts

#: parameters of the Gaussians whose gradients `term_gradients` gives, and what a reader calls them
PARAMETERS = {"means": "place", "scales": "size", "opacities": "opacity", "sh0": "colour"}


def _seen(renderer: Renderer, ids: Sequence[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Frames `ids` as training sees them: rgb [B, S, S, 3], alpha [B, S, S, 1], and the batch (see `Frames`)."""
    head, ds = renderer.head, renderer.ds
    frames = Frames(ds, list(ids), renderer.device, place="disk").for_head(head)
    b = frames.batch(list(ids))
    rgb, alpha, _ = head.render(frames.conditions(b["ids"]), renderer.K, ds.size, b["background"],
                                deform=renderer.deform)
    return rgb, alpha, b


def _losses(renderer: Renderer) -> Losses:
    return Losses(renderer.head.cfg, "fine" if renderer.deform else "coarse", renderer.ds.head_box)


@torch.no_grad()
def term_maps(renderer: Renderer, i: int) -> dict[str, np.ndarray]:
    """Where each weighted loss term lies in frame i.

    Args:
        renderer: its `deform` says whose terms and picture, the fine stage's or the coarse stage's.

    Returns:
        term -> [S, S] float32, at least 0 but for rounding; the mean over the picture is the term's value.
    """
    losses = _losses(renderer)
    rgb, alpha, b = _seen(renderer, [i])
    near = (rgb - b["frame"]).abs().mean(-1)                                    # [1, S, S]
    x0, y0, x1, y1 = losses.box
    dissimilar = torch.zeros_like(near)
    dissimilar[:, y0:y1, x0:x1] = (1 - ssim_map(rgb[:, y0:y1, x0:x1], b["frame"][:, y0:y1, x0:x1])).mean(-1)
    lips = b["lips"][..., 0]
    maps = {"l1": near, "dssim": dissimilar, "mask": (alpha - b["head"]).abs()[..., 0],
            "lip": near * lips * lips.numel() / lips.sum().clamp_min(1)}
    return {name: weight * maps[name][0].cpu().numpy() for name, weight in losses.weights.items()}


def term_gradients(renderer: Renderer, ids: Sequence[int]) -> dict[str, dict[str, Tensor]]:
    """How each weighted loss term alone, and the whole loss, would move the Gaussians: gradients over frames `ids`.

    Returns:
        term or "loss" -> parameter (see `PARAMETERS`) -> gradient, [N, ...] as the parameter. The terms' gradients
        sum to that of the loss. Of the loss per head unit (means), per e-fold (scales), per logit (opacities) and per
        degree-0 coefficient (sh0).
    """
    head = renderer.head
    own = copy.copy(head)  # gradients must not stick to the head that was given
    free = torch.nn.ParameterDict({k: v.detach().clone().requires_grad_(True) for k, v in head.gaussians.items()})
    own._modules = {**head._modules, "gaussians": free}
    losses, parameters = _losses(renderer), [free[name] for name in PARAMETERS]
    found, free_renderer = {}, Renderer(own, renderer.ds, renderer.deform)
    for name, weights in {**{k: {k: v} for k, v in losses.weights.items()}, "loss": losses.weights}.items():
        rgb, alpha, b = _seen(free_renderer, ids)  # anew for each term: a rasteriser's backward pass runs once
        part = _losses(renderer)
        part.weights = weights
        value, _ = part(rgb, alpha, b["frame"], b["head"], b["lips"])
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        found[name] = {p: torch.zeros_like(free[p]) if g is None else g for p, g in zip(PARAMETERS, gradients)}
    return found


def gradient_norms(found: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Norms of `term_gradients` over all Gaussians: term -> parameter -> norm."""
    return {term: {p: float(g.norm()) for p, g in by.items()} for term, by in found.items()}


def attention_maps(renderer: Renderer, i: int) -> np.ndarray:
    """How much each place of the face looks at each token in frame i: [S, S, 4] 0...1 in the order of `TOKENS`, NaN
    where there is no head."""
    return paint_values(renderer, i, renderer.head.attention(renderer.conditions([i]))[0])


def attention_by_part(renderer: Renderer, ids: Sequence[int]) -> np.ndarray:
    """Mean attention of the Gaussians of each part of the face in frames `ids`.

    Returns:
        [len(ids), 3, 4] float32 0...1: `PARTS` by `TOKENS`; the four sum to 1.
    """
    return attention_of_parts(renderer.head, renderer.conditions(ids)).cpu().numpy()


def favourite(renderer: Renderer, i: int, part: str = "mouth") -> str:
    """The token that a part of the face (see `PARTS`) looks at most in frame i."""
    return TOKENS[int(attention_by_part(renderer, [i])[0, PARTS.index(part)].argmax())]
