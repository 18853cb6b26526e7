"""The canonical head: 3D Gaussians that start at the landmarks of the mean face."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

SH_C0 = 0.28209479177387814  # the constant harmonic: colour = 0.5 + SH_C0 * sh0
START_OPACITY = 0.1
NAMES = ("means", "scales", "quats", "opacities", "sh0", "shN")


def make_gaussians(means: Tensor, colors: Tensor, sh_degree: int) -> nn.ParameterDict:
    """Isotropic Gaussians at given points, as wide as the distance to their neighbours.

    Args:
        means: [N, 3] head frame.
        colors: [N, 3] 0...1.
        sh_degree: 0...3.

    Returns:
        means [N, 3]; scales [N, 3] (log of standard deviations); quats [N, 4] wxyz; opacities [N] (logits);
        sh0 [N, 1, 3]; shN [N, (sh_degree+1)^2 - 1, 3]. All float32 parameters: gsplat's layout.
    """
    n = len(means)
    nearest = torch.cdist(means, means).topk(4, largest=False).values[:, 1:]  # [N, 3], without itself
    scales = nearest.mean(1).clamp_min(1e-4).log()[:, None].repeat(1, 3)
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1.0
    values = {
        "means": means.float().clone(), "scales": scales, "quats": quats,
        "opacities": torch.full((n,), float(np.log(START_OPACITY / (1 - START_OPACITY)))),
        "sh0": ((colors.float() - 0.5) / SH_C0)[:, None],
        "shN": torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3),
    }
    return nn.ParameterDict({k: nn.Parameter(v.contiguous()) for k, v in values.items()})
