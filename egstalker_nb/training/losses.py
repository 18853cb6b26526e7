"""The named loss terms of one training step."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from ..config import Config
from ..metrics.image_metrics import decibels, ssim_map


class Losses(nn.Module):
    """The weighted loss terms of a stage, stacked in the order of `names`; the loss is their sum.

    Terms of weight 0 are left out. A module without trainable parameters. To add a term: compute it in `forward`, give
    it a name and a weight, and add its weight to `LossWeights`; it is then logged, drawn and explained like the others.

    Args:
        cfg: the weights.
        stage: `coarse` or `fine`; the lip term belongs to the fine stage.
        box: x0, y0, x1, y1 px around the head. Outside it render and frame are both background, so SSIM is taken as 1
            there and only computed inside: most of a step's time on a CPU. None: the whole image.
        perceptual: see `load_vgg_loss`; only needed by `forward`, where `lambda_perceptual` is above 0.

    Attributes:
        weights: name of a term -> weight.
        names: of what `forward` returns: the terms, `loss`, `psnr` and `coverage`.
    """

    def __init__(self, cfg: Config, stage: str, box: Optional[tuple[int, int, int, int]] = None,
                 perceptual: Optional[nn.Module] = None):
        super().__init__()
        self.box, self.perceptual = box, perceptual
        weights = {"l1": cfg.lambda_l1, "dssim": cfg.lambda_dssim, "mask": cfg.lambda_mask,
                   "lip": cfg.lambda_lip if stage == "fine" else 0.0,
                   "perceptual": cfg.lambda_perceptual}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.names = (*self.weights, "loss", "psnr", "coverage")

    def forward(self, rgb: Tensor, alpha: Tensor, frame: Tensor, head: Tensor, lips: Tensor,
                lip_area: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """The loss of one batch.

        Args:
            rgb: [B, H, W, 3] rendered composite.
            alpha: [B, H, W, 1] opacity of the splats.
            frame: [B, H, W, 3] ground truth, 0...1.
            head: [B, H, W, 1] soft head mask, 0...1.
            lips: [B, H, W, 1], 1 inside the lip rectangle.
            lip_area: scalar, px of lip rectangles that the lip term is divided by; None: those of this batch. Another
                number where the batch is a part of a larger one.

        Returns:
            the loss (scalar), and [len(names)] detached: weighted terms, loss, PSNR in dB, and the share of the head
            mask that the splats cover.
        """
        box = self.box or (0, 0, rgb.shape[2], rgb.shape[1])
        l1, lip, square, mask, covered, area, own_area, dssim = image_sums(rgb, alpha, frame, head, lips, box)
        means = {"l1": l1 / rgb.numel(), "dssim": dssim / rgb.numel(), "mask": mask / alpha.numel(),
                 "lip": lip / (3 * (own_area if lip_area is None else lip_area)).clamp_min(1)}
        if self.perceptual is not None and "perceptual" in self.weights:
            means["perceptual"] = self.perceptual(rgb, frame)
        values = [weight * means[name] for name, weight in self.weights.items()]
        loss = torch.stack(values).sum()
        coverage = covered / area.clamp_min(1)  # 1 where the splats hide all of the head mask
        logged = [v.detach() for v in (*values, loss, decibels(square.detach() / rgb.numel()), coverage)]
        return loss, torch.stack(logged)


def image_sums(rgb: Tensor, alpha: Tensor, frame: Tensor, head: Tensor, lips: Tensor,
               box: tuple[int, int, int, int]) -> tuple[Tensor, ...]:
    """The sums that the loss terms are made of: eight scalars, differentiable in rgb and alpha where the loss needs it.

    Args:
        rgb, alpha, frame, head, lips: see `Losses.forward`.
        box: x0, y0, x1, y1 px, end exclusive.

    Returns:
        the sums of |rgb - frame|, the same within the lips, (rgb - frame)², |alpha - head|, alpha * head, head and
        lips, and of 1 - SSIM within the box.
    """
    if rgb.device.type == "cpu":
        from .losses_cpu import ImageSums

        return tuple(ImageSums.apply(rgb, alpha, frame, head, lips, box).unbind())
    x0, y0, x1, y1 = box
    difference = rgb - frame
    near = difference.abs()
    dissimilar = 1 - ssim_map(rgb[:, y0:y1, x0:x1], frame[:, y0:y1, x0:x1])
    return (near.sum(), (near * lips).sum(), difference.detach().square().sum(), (alpha - head).abs().sum(),
            (alpha.detach() * head).sum(), head.sum(), lips.sum(), dissimilar.sum())
