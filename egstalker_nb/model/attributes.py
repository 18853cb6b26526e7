"""Opacity and colour of the canonical Gaussians: their own, or predicted by the tri-plane (see `Config.attributes`)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussians import START_OPACITY


class OwnAttributes(nn.Module):
    """Each Gaussian has its own."""

    def forward(self, gaussians: nn.ParameterDict, triplane: nn.Module) -> tuple[Tensor, Tensor]:
        """Logits of the opacities [N], and spherical harmonics [N, K, 3]."""
        return gaussians["opacities"], torch.cat([gaussians["sh0"], gaussians["shN"]], 1)


class TriplaneAttributes(nn.Module):
    """The tri-plane predicts them, as upstream's does in its coarse stage: Gaussians near each other look alike, and
    one step changes the opacity of all. Kept to show what that costs: opacity may collapse, and the head is lost.

    At first all Gaussians are grey, with the opacity that others start with. Positions get no gradient through it.

    Args:
        width: of the tri-plane's features.
        sh_degree: 0...3.
    """

    def __init__(self, width: int, sh_degree: int):
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.opacity, self.sh = nn.Linear(width, 1), nn.Linear(width, 3 * (sh_degree + 1) ** 2)
        for layer in (self.opacity, self.sh):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.opacity.bias, torch.logit(torch.tensor(START_OPACITY)).item())

    def forward(self, gaussians: nn.ParameterDict, triplane: nn.Module) -> tuple[Tensor, Tensor]:
        """Logits of the opacities [N], and spherical harmonics [N, K, 3]."""
        hidden = F.relu(self.hidden(triplane(gaussians["means"].detach())))
        return self.opacity(hidden)[:, 0], self.sh(hidden).unflatten(1, (-1, 3))
