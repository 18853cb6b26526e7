"""Head poses refined by pictures: tracked landmarks are good to about a pixel, a trained head tells a tenth of one."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.progress import Progress
from ..data.dataset import Dataset
from ..data.frame_loader import Frames
from ..model.head import Head
from ..rasterizer import rasterize

NUDGE = 2e-3       # rotation in rad and shift in head units by which derivatives are taken: a quarter of a pixel
NOISE = 0.03       # colour difference up to which errors count by their square
DAMPING = 1e-3
FURTHEST = 0.1, 0.1, 0.5  # head units along the camera's axes: further off lies another optimum
BATCH = 8


def moved(w2c: Tensor, twist: Tensor) -> Tensor:
    """Turn and shift heads before their cameras.

    Args:
        w2c: [..., 4, 4]. twist: [..., 6], rotation vector (rad, about the head's origin) and shift (head units), both
            along the camera's axes.
    """
    x, y, z = twist[..., :3].unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    turned = torch.matrix_exp(skew) @ w2c[..., :3, :3]
    top = torch.cat([turned, w2c[..., :3, 3:] + twist[..., 3:, None]], -1)
    return torch.cat([top, w2c[..., 3:, :].expand(*top.shape[:-2], 1, 4)], -2)


@torch.no_grad()
def refine_poses(head: Head, ds: Dataset, device: torch.device, steps: int, deform: bool) -> np.ndarray:
    """Fit the pose of every frame to its picture, by Gauss-Newton steps on the head as it shows that frame.

    Only what lies above the lips counts, where a face is nearly rigid. Robust weights (inverse to the error) leave
    brows, lids and stray hair aside. A frame keeps its pose where no step near it lowers the error. Upstream trusts
    its tracker.

    Validation frames are fitted as well, as by any tracker: six numbers each, against a head that never saw them.

    Args:
        head: trained so far, on `device`; the search begins at its poses. steps: Gauss-Newton steps, each draws a
            frame seven times. deform: False in the coarse stage, where the head is the same in all frames.

    Returns:
        w2c [N, 4, 4] float32.
    """
    frames, K = Frames(ds, range(len(ds)), device, place="disk").for_head(head), ds.K.to(device)
    furthest = torch.tensor(FURTHEST, device=device)
    nudges = torch.cat([torch.zeros(1, 6), NUDGE * torch.eye(6)]).to(device)

    def draw(shapes: dict[str, Tensor], poses: Tensor, background: Tensor) -> Tensor:
        """Gaussians of B frames, w2c [B, V, 4, 4], background [B, S, S, 3] -> [B, V, S, S, 3]."""
        rgb, alpha, _ = rasterize(**shapes, viewmats=poses, Ks=K.expand(*poses.shape[:2], 3, 3), width=ds.size,
                                  height=ds.size, sh_degree=head.cfg.sh_degree)
        return rgb + (1 - alpha) * background[:, None]

    found = torch.empty(len(ds), 4, 4)
    chunks = [list(range(i, min(i + BATCH, len(ds)))) for i in range(0, len(ds), BATCH)]
    with Progress(len(ds), "refine poses", "frame") as bar:
        for n, ids in enumerate(chunks):
            given = frames.batch(ids)
            frames.prefetch(chunks[n + 1] if n + 1 < len(chunks) else [])
            conditions = frames.conditions(given["ids"])
            shapes = head.shapes(head.offsets(conditions) if deform else None, len(ids))
            down = torch.arange(ds.size, device=device)[:, None, None]
            counts = given["head"] * (down < frames.lip_rect[ids][:, 1, None, None, None])
            pose = best = conditions.w2c
            error = torch.full((len(ids),), torch.inf, device=device)
            for step in range(steps + 1):
                pictures = draw(shapes, moved(pose[:, None], nudges), given["background"])
                difference = pictures[:, 0] - given["frame"]                     # [B, S, S, 3]
                now = (difference.abs() * counts).flatten(1).sum(1)
                near = ((pose - conditions.w2c)[:, :3, 3].abs() < furthest).all(1)
                better = (now < error) & near
                best, error = torch.where(better[:, None, None], pose, best), torch.where(better, now, error)
                if step < steps:
                    pose = moved(pose, _step(difference, pictures, counts))
            found[ids] = best.cpu()
            bar.update(len(ids))
    return found.numpy()


def _step(difference: Tensor, pictures: Tensor, counts: Tensor) -> Tensor:
    """The twist [B, 6] that lowers the weighted squares of `difference` [B, S, S, 3]; `pictures` [B, 7, S, S, 3]."""
    weight = counts / (difference.abs().mean(-1, keepdim=True) + NOISE)
    slopes = ((pictures[:, 1:] - pictures[:, :1]) / NUDGE).flatten(2)            # [B, 6, S * S * 3]
    weight, difference = weight.expand_as(difference).flatten(1), difference.flatten(1)
    weighted = slopes * weight[:, None]
    normal = weighted @ slopes.transpose(1, 2)
    normal = normal + DAMPING * torch.diag_embed(normal.diagonal(dim1=1, dim2=2) + 1e-6)
    return -torch.linalg.solve(normal, weighted @ difference[..., None])[..., 0]
