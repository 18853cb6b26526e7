"""The named loss terms of one training step."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from .config import Config
from .metrics import dissimilarity


class Losses(nn.Module):
    """The weighted terms of a stage, stacked in the order of `names`; the loss is their sum.

    Terms of weight 0 are left out. Without parameters; a module because CUDA graphs want one.

    Args:
        box: x0, y0, x1, y1 px around the head. Outside it render and frame are both background, so SSIM is taken as 1
            there and only computed inside: most of a step's time on a CPU. None: the whole picture.
    """

    def __init__(self, cfg: Config, stage: str, box: Optional[tuple[int, int, int, int]] = None):
        super().__init__()
        self.box = box
        weights = {"l1": cfg.lambda_l1, "dssim": cfg.lambda_dssim, "mask": cfg.lambda_mask,
                   "lip": cfg.lambda_lip if stage == "fine" else 0.0}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.names = (*self.weights, "loss", "psnr", "coverage")

    def forward(self, rgb: Tensor, alpha: Tensor, frame: Tensor, head: Tensor, lips: Tensor) -> tuple[Tensor, Tensor]:
        """One batch.

        Args:
            rgb: [B, H, W, 3] composite. alpha: [B, H, W, 1] splat opacity. frame: [B, H, W, 3] 0...1.
            head: [B, H, W, 1] soft head mask 0...1. lips: [B, H, W, 1], 1 inside the lip rectangle.

        Returns:
            the loss (scalar), and [len(names)] detached: weighted terms, loss, PSNR in dB, share
            of the head mask that is covered.
        """
        difference = (rgb - frame).abs()
        terms = {"l1": lambda: difference.mean(),
                 "dssim": lambda: self._dssim(rgb, frame),
                 "mask": lambda: (alpha - head).abs().mean(),
                 "lip": lambda: (difference * lips).sum() / (3 * lips.sum()).clamp_min(1)}
        values = [weight * terms[name]() for name, weight in self.weights.items()]
        loss = torch.stack(values).sum()
        coverage = (alpha * head).sum() / head.sum().clamp_min(1)  # 1 where the splats hide all of the head mask
        shown = [v.detach() for v in (*values, loss, psnr_of(rgb, frame), coverage)]
        return loss, torch.stack(shown)

    def _dssim(self, rgb: Tensor, frame: Tensor) -> Tensor:
        box = self.box or (0, 0, rgb.shape[2], rgb.shape[1])
        return dissimilarity(rgb, frame, box) / rgb.numel()


def psnr_of(rgb: Tensor, frame: Tensor) -> Tensor:
    """PSNR in dB of a batch, over all pixels, without leaving the device."""
    return -10 * torch.log10((rgb.detach() - frame).square().mean().clamp_min(1e-10))
