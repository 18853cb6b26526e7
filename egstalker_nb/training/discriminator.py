"""An adversarial term for the mouth: a small discriminator learns, along with the head, to tell rendered mouths from
real ones, and pulls the rendering towards the real."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .optimizers import fused_on, load_optimizers

CROP = 40 / 256, 64 / 256  # height and width around the middle of the lips, of the image's edge
CHANNELS = 32, 64, 128
RATE, BETAS = 2e-4, (0.5, 0.9)
FEATURES = 4.0             # weight of the features' difference against the score
SLOPE = 0.2


class MouthDiscriminator(nn.Module):
    """A patch discriminator of mouths (Isola et al. 2017) with spectral normalisation, hinge loss, and feature matching
    (Wang et al. 2018): the differences of its inner features, which need no pretrained network. Not in upstream.

    Its pull is scaled: `share` times as strong as that of the other terms on the same pixels, whatever their size.

    Args:
        size: edge of the images, px.
        share: norm of its gradient over that of the loss.
        device: of the images.
    """

    def __init__(self, size: int, share: float, device: torch.device):
        super().__init__()
        self.share, self.crop = share, tuple(8 * max(2, round(x * size / 8)) for x in CROP)
        sides = ((3, *CHANNELS), (4, 4, 3), (2, 2, 1))
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, kernel, stride, 1))
                                    for a, b, kernel, stride in zip(sides[0], CHANNELS, *sides[1:]))
        self.score = spectral_norm(nn.Conv2d(CHANNELS[-1], 1, 3, 1, 1))
        self.to(device)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=RATE, betas=BETAS, **fused_on(device))

    def forward(self, mouths: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mouths [B, 3, h, w] -1...1 -> scores of their patches [B, 1, h / 4, w / 4], and each layer's features."""
        features = []
        for layer in self.layers:
            mouths = F.leaky_relu(layer(mouths), SLOPE)
            features.append(mouths)
        return self.score(mouths), features

    def mouths(self, images: Tensor, lips: Tensor) -> Tensor:
        """Crop images [B, S, S, 3] 0...1 around lip rectangles [B, 4] px (see `Dataset.lip_rect`): [B, 3, h, w]."""
        middle = (lips[:, :2] + lips[:, 2:]) // 2                                     # [B, 2] x, y

        def window(axis: int, length: int) -> Tensor:
            first = (middle[:, axis] - length // 2).clamp(0, images.shape[1] - length)
            return first[:, None] + torch.arange(length, device=images.device)        # [B, length] px

        height, width = self.crop
        frames = torch.arange(len(images), device=images.device)[:, None, None]
        return 2 * images[frames, window(1, height)[:, :, None], window(0, width)[:, None]].permute(0, 3, 1, 2) - 1

    def learn(self, rendered: Tensor, real: Tensor) -> None:
        """One step on mouths [B, 3, h, w] each: real ones score above 1, rendered ones below -1."""
        (F.relu(1 - self(real)[0]).mean() + F.relu(1 + self(rendered)[0]).mean()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def pull(self, rgb: Tensor, frame: Tensor, lips: Tensor, gradient: Tensor) -> Tensor:
        """Learn from a batch, and return the gradient that is added to that of the loss.

        Args:
            rgb: [B, S, S, 3] rendered composite.
            frame: [B, S, S, 3] ground truth, 0...1.
            lips: [B, 4] lip rectangles, px.
            gradient: [B, S, S, 3] of the loss with respect to `rgb`.

        Returns:
            [B, S, S, 3], 0 outside the mouths.
        """
        seen = rgb.detach().requires_grad_()
        rendered, real = self.mouths(seen, lips), self.mouths(frame, lips)
        self.learn(rendered.detach(), real)
        with torch.no_grad():
            _, wanted = self(real)
        score, found = self(rendered)
        differences = torch.stack([(a - b).abs().mean() for a, b in zip(wanted, found)])
        own, = torch.autograd.grad(FEATURES * differences.sum() - score.mean(), seen)
        there = torch.linalg.vector_norm(gradient * (own != 0))
        return own * (self.share * there / (torch.linalg.vector_norm(own) + 1e-12))

    def state(self) -> dict[str, Any]:
        """For `restore`."""
        return {"network": self.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.load_state_dict(state["network"])
        load_optimizers({"": self.optimizer}, {"": state["optimizer"]})
