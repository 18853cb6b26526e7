"""What the loss and the network attend to: loss terms per pixel, their gradients, attention of Gaussians to tokens."""
from __future__ import annotations

import threading
from typing import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..data.frame_loader import Frames
from ..metrics.image_metrics import ssim_map
from ..model.deformation import TOKENS
from ..rendering.inspection import render_values
from ..rendering.renderer import Renderer
from ..training.losses import Losses
from .audio_curves import ATTENTION_PARTS, attention_of_parts

#: parameters of the Gaussians whose gradients `term_gradients` gives -> their names for readers
PARAMETERS = {"means": "position", "scales": "scale", "opacities": "opacity", "sh0": "colour"}
_lock = threading.Lock()  # `functional_call` replaces the parameters of a module in place while it runs


def _seen(renderer: Renderer, ids: Sequence[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Frames `ids` as in a training step: rgb [B, S, S, 3], alpha [B, S, S, 1], and the batch (see `Frames`)."""
    head, ds = renderer.head, renderer.ds
    frames = Frames(ds, list(ids), renderer.device, place="disk").for_head(head)
    b = frames.batch(list(ids))
    rgb, alpha, _ = head.render(frames.conditions(b["ids"]), renderer.K, ds.size, b["background"],
                                deform=renderer.deform)
    return rgb, alpha, b


def _losses(renderer: Renderer) -> Losses:
    losses = Losses(renderer.head.cfg, "fine" if renderer.deform else "coarse", renderer.ds.head_box)
    losses.weights.pop("perceptual", None)  # features of a network have no place in a single pixel
    return losses


@torch.no_grad()
def term_maps(renderer: Renderer, i: int) -> dict[str, np.ndarray]:
    """Each weighted loss term per pixel of frame i.

    Args:
        renderer: its `deform` selects the terms and the rendering of the fine or of the coarse stage.
        i: frame number.

    Returns:
        term -> [S, S] float32, non-negative up to rounding; the mean over the image is the value of the term.
    """
    losses = _losses(renderer)
    rgb, alpha, b = _seen(renderer, [i])
    near = (rgb - b["frame"]).abs().mean(-1)                                    # [1, S, S]
    x0, y0, x1, y1 = losses.box or (0, 0, rgb.shape[2], rgb.shape[1])
    dissimilar = torch.zeros_like(near)
    dissimilar[:, y0:y1, x0:x1] = (1 - ssim_map(rgb[:, y0:y1, x0:x1], b["frame"][:, y0:y1, x0:x1])).mean(-1)
    lips = b["lips"][..., 0]
    maps = {"l1": near, "dssim": dissimilar, "mask": (alpha - b["head"]).abs()[..., 0],
            "lip": near * lips * lips.numel() / lips.sum().clamp_min(1)}
    return {name: weight * maps[name][0].cpu().numpy() for name, weight in losses.weights.items()}


class _FrameLoss(nn.Module):
    """Some weighted loss terms of frames as a function of the parameters of the head, for `functional_call`."""

    def __init__(self, renderer: Renderer, weights: dict[str, float]):
        super().__init__()
        self.head, self.renderer, self.losses = renderer.head, renderer, _losses(renderer)
        self.losses.weights = weights

    def forward(self, ids: Sequence[int]) -> Tensor:
        rgb, alpha, b = _seen(self.renderer, ids)
        return self.losses(rgb, alpha, b["frame"], b["head"], b["lips"])[0]


def term_gradients(renderer: Renderer, ids: Sequence[int]) -> dict[str, dict[str, Tensor]]:
    """Gradients of each weighted loss term, and of the whole loss, over frames `ids` with respect to the Gaussians.

    Args:
        renderer: its `deform` selects the terms and the rendering of the fine or of the coarse stage.
        ids: frame numbers.

    Returns:
        term or "loss" -> parameter (see `PARAMETERS`) -> gradient, [N, ...] as the parameter. The gradients of the
        terms sum to that of the loss. Units: loss per head unit (means), per e-fold (scales), per logit (opacities) and
        per degree-0 coefficient (sh0).
    """
    parameters = {f"head.gaussians.{name}": renderer.head.gaussians[name].detach().clone().requires_grad_(True)
                  for name in PARAMETERS}
    weights, found = _losses(renderer).weights, {}
    for name, terms in {**{k: {k: v} for k, v in weights.items()}, "loss": weights}.items():
        with _lock:  # one forward pass for each term: the rasteriser cannot run its backward pass twice
            value = functional_call(_FrameLoss(renderer, terms), parameters, (ids,))
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        found[name] = {p: torch.zeros_like(x) if g is None else g
                       for p, x, g in zip(PARAMETERS, parameters.values(), gradients)}
    return found


def gradient_norms(found: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Norms of `term_gradients` over all Gaussians: term -> parameter -> norm."""
    return {term: {p: float(g.norm()) for p, g in by.items()} for term, by in found.items()}


def attention_maps(renderer: Renderer, i: int) -> np.ndarray:
    """Attention to each token per pixel of frame i: [S, S, 4] 0...1 in the order of `TOKENS`, NaN outside the head."""
    return render_values(renderer, i, renderer.head.attention(renderer.conditions([i]))[0])


def attention_by_part(renderer: Renderer, ids: Sequence[int]) -> np.ndarray:
    """Mean attention of the Gaussians of each part of the face in frames `ids`.

    Returns:
        [len(ids), 3, 4] float32 0...1: `ATTENTION_PARTS` by `TOKENS`; the four sum to 1.
    """
    return attention_of_parts(renderer.head, renderer.conditions(ids)).cpu().numpy()


def most_attended_token(renderer: Renderer, i: int, part: str = "mouth") -> str:
    """The token with the highest mean attention of a part of the face (see `ATTENTION_PARTS`) in frame i."""
    return TOKENS[int(attention_by_part(renderer, [i])[0, ATTENTION_PARTS.index(part)].argmax())]
