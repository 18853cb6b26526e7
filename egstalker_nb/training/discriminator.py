"""An adversarial term for the mouth: a small discriminator learns, along with the head, to tell rendered mouths from
real ones, and pulls the rendering towards the real."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..core.cuda_graph import Branch

CROP = 40 / 256, 64 / 256  # height and width around the middle of the lips, of the image's edge
CHANNELS = 32, 64, 128
RATE, BETAS = 2e-4, (0.5, 0.9)  # of its Adam
FEATURES = 4.0             # weight of the features' difference against the score
SLOPE = 0.2


class MouthDiscriminator(nn.Module):
    """A patch discriminator of mouths (Isola et al. 2017) with spectral normalisation, hinge loss, and feature matching
    (Wang et al. 2018): the differences of its inner features, which need no pretrained network. Not in upstream.

    Its pull is scaled: `share` times as strong as that of the other terms on the same pixels, whatever their size. A
    step is `judge`, `pull` and `join`; its many small kernels run beside those of the loss and of its gradients.

    Args:
        size: edge of the images, px.
        share: norm of its gradient over that of the loss, for each frame.
        batch: frames of a step, on all GPUs together, which sum the gradients of the parameters.
        device: of the images.
    """

    judged: tuple[Tensor, Tensor]  # the gradient of the rendered images, and the loss to learn from
    given: tuple[Tensor, ...]      # what another stream reads

    def __init__(self, size: int, share: float, batch: int, device: torch.device):
        super().__init__()
        self.branch, self.batch = Branch(device), batch
        self.share, self.crop = share, tuple(8 * max(2, round(x * size / 8)) for x in CROP)
        sides = ((3, *CHANNELS), (4, 4, 3), (2, 2, 1))
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, kernel, stride, 1))
                                    for a, b, kernel, stride in zip(sides[0], CHANNELS, *sides[1:]))
        self.score = spectral_norm(nn.Conv2d(CHANNELS[-1], 1, 3, 1, 1))
        self.to(device)

    def forward(self, mouths: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mouths [B, 3, h, w] -1...1 -> scores of their patches [B, 1, h / 4, w / 4], and each layer's features."""
        features = []
        for layer in self.layers:
            mouths = F.leaky_relu(layer(mouths), SLOPE)
            features.append(mouths)
        return self.score(mouths), features

    def mouths(self, lips: Tensor, *images: Tensor) -> Tensor:
        """Crop `images` [B, S, S, 3] 0...1 around lip rectangles [B, 4] px (see `Dataset.lip_rect`), all of the first
        before all of the second: [n B, 3, h, w] -1...1 of n images."""
        middle = (lips[:, :2] + lips[:, 2:]) // 2                                     # [B, 2] x, y

        def window(axis: int, length: int) -> Tensor:
            first = (middle[:, axis] - length // 2).clamp(0, images[0].shape[1] - length)
            return first[:, None] + torch.arange(length, device=lips.device)          # [B, length] px

        height, width = self.crop
        frames = torch.arange(len(lips), device=lips.device)[:, None, None]
        at = frames, window(1, height)[:, :, None], window(0, width)[:, None]
        return 2 * torch.cat([image[at] for image in images]).permute(0, 3, 1, 2) - 1

    def judge(self, rgb: Tensor, frame: Tensor, lips: Tensor) -> None:
        """Begin with a batch.

        Args:
            rgb: [B, S, S, 3] rendered composite.
            frame: [B, S, S, 3] ground truth, 0...1.
            lips: [B, 4] lip rectangles, px.
        """
        self.given = rgb, frame, lips
        with self.branch():
            seen = rgb.detach().requires_grad_()
            scores, features = self(self.mouths(lips, seen, frame))
            rendered, real = scores.chunk(2)
            differences = torch.stack([(a - b).abs().mean() for a, b in (x.chunk(2) for x in features)])
            own, = torch.autograd.grad(FEATURES * differences.sum() - rendered.mean(), seen, retain_graph=True)
            wrong = F.relu(1 - real) + F.relu(1 + rendered)  # real mouths are to score above 1, rendered ones below -1
            self.judged = own, wrong.mean((1, 2, 3)).sum() / self.batch

    def pull(self, gradient: Tensor, inside: Tensor) -> Tensor:
        """Go on with the batch: the parameters get their gradients, too.

        Args:
            gradient: [B, S, S, 3] of the loss with respect to `rgb`.
            inside: [B, S, S, 1] masks of the lip rectangles. Beyond them, the pull would draw strokes on the skin.

        Returns:
            [B, S, S, 3] what is to be added to `gradient`.
        """
        self.branch.join()
        own, loss = self.judged
        with self.branch():
            loss.backward(inputs=list(self.parameters()))
        own = own * inside
        return own * (self.share * _norms(gradient * inside) / (_norms(own) + 1e-12))

    def join(self) -> None:
        """Wait until the parameters have their gradients."""
        self.branch.join()
        del self.judged, self.given


def _norms(images: Tensor) -> Tensor:
    return torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
