"""Head poses refined against the images: tracked landmarks are good to a pixel, a trained head to a tenth of one."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..core.progress import Progress
from ..data.dataset import Dataset
from ..data.frame_loader import Frames
from ..model.head import Head, Splats
from ..rasterizer import rasterize

DIFFERENCE = 2e-3  # rotation in rad and translation in head units of finite differences: a quarter of a pixel
NOISE = 0.03       # colour error up to which the robust loss is quadratic
DAMPING = 1e-3     # of Levenberg-Marquardt, relative to the diagonal
MAX_SHIFT = 0.1, 0.1, 0.5  # head units along the camera's axes: beyond lies another optimum
BATCH = 8          # frames at a time


def moved(w2c: Tensor, twist: Tensor) -> Tensor:
    """Apply a rigid motion to heads in front of their cameras.

    Args:
        w2c: [..., 4, 4] world-to-camera.
        twist: [..., 6] rotation vector (rad, about the head's origin) and translation (head units), both along the
            camera's axes.

    Returns:
        [..., 4, 4].
    """
    x, y, z = twist[..., :3].unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    turned = torch.matrix_exp(skew) @ w2c[..., :3, :3]
    top = torch.cat([turned, w2c[..., :3, 3:] + twist[..., 3:, None]], -1)
    return torch.cat([top, w2c[..., 3:, :].expand(*top.shape[:-2], 1, 4)], -2)


def is_due(cfg: Config, iteration: int) -> bool:
    """Whether poses are refined after this iteration, see `pose_steps`."""
    return cfg.pose_steps > 0 and iteration in (cfg.coarse_iterations, 2 * cfg.coarse_iterations, cfg.iterations)


@torch.no_grad()
def refine_poses(head: Head, ds: Dataset, device: torch.device, steps: int, deform: bool,
                 part: slice = slice(None)) -> np.ndarray:
    """Fit the pose of every frame to its image, by Gauss-Newton steps on the photometric error of the rendered head.

    All of the head counts where the network moves its mouth as in the frame. In the coarse stage nothing moves, and
    the mouth of a validation frame is heard, not seen: there only what lies above the lips counts, where a face is
    nearly rigid. Robust weights (inverse to the error) leave brows, eyelids and stray hair aside. A frame keeps its
    pose where no step near it lowers the error. Upstream keeps the poses of its tracker.

    Validation frames are fitted as well, as by any tracker: six numbers each, against a head that was not trained on
    them.

    Args:
        head: trained so far, on `device`; the search begins at its poses.
        ds: its dataset.
        device: to render on.
        steps: Gauss-Newton steps, each renders a frame seven times.
        deform: False in the coarse stage, where the head is the same in all frames.
        part: of the frames, in groups of `BATCH`, for work that is shared; by default all.

    Returns:
        w2c [N, 4, 4] float32; zeros for frames that are not in `part`.
    """
    frames, K = Frames(ds, range(len(ds)), device, place="disk").for_head(head), ds.K.to(device)
    max_shift = torch.tensor(MAX_SHIFT, device=device)
    twists = torch.cat([torch.zeros(1, 6), DIFFERENCE * torch.eye(6)]).to(device)

    def rendered(splats: Splats, poses: Tensor, background: Tensor) -> Tensor:
        """Gaussians of B frames, w2c [B, V, 4, 4], background [B, S, S, 3] -> [B, V, S, S, 3]."""
        rgb, alpha, _ = rasterize(*splats, poses, K.expand(*poses.shape[:2], 3, 3), ds.size, ds.size,
                                  sh_degree=head.cfg.sh_degree)
        return rgb + (1 - alpha) * background[:, None]

    found = torch.zeros(len(ds), 4, 4)
    chunks = [list(range(i, min(i + BATCH, len(ds)))) for i in range(0, len(ds), BATCH)][part]
    with Progress(sum(map(len, chunks)), "refine poses", "frame") as bar:
        for n, ids in enumerate(chunks):
            given = frames.batch(ids)
            frames.prefetch(chunks[n + 1] if n + 1 < len(chunks) else [])
            conditions = frames.conditions(given["ids"])
            splats = head.activated(head.offsets(conditions) if deform else None, len(ids))
            down = torch.arange(ds.size, device=device)[:, None, None]
            above = down < frames.lip_rect[ids][:, 1, None, None, None]
            seen = deform & (given["ids"] < ds.num_train)[:, None, None, None]  # its mouth, not a heard one
            weight = given["head"] * (above | seen)
            pose = best = conditions.w2c
            error = torch.full((len(ids),), torch.inf, device=device)
            for step in range(steps + 1):
                views = twists if step < steps else twists[:1]  # the last step only sees whether it was better
                images = rendered(splats, moved(pose[:, None], views), given["background"])
                difference = images[:, 0] - given["frame"]                       # [B, S, S, 3]
                now = (difference.abs() * weight).flatten(1).sum(1)
                near = ((pose - conditions.w2c)[:, :3, 3].abs() < max_shift).all(1)
                better = (now < error) & near
                best, error = torch.where(better[:, None, None], pose, best), torch.where(better, now, error)
                if step < steps:
                    pose = moved(pose, _step(difference, images, weight))
            found[ids] = best.cpu()
            bar.update(len(ids))
    return found.numpy()


def _step(difference: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """The twist [B, 6] that lowers the weighted squares of `difference` [B, S, S, 3]; `images` [B, 7, S, S, 3]."""
    weight = weight / (difference.abs().mean(-1, keepdim=True) + NOISE)
    jacobian = ((images[:, 1:] - images[:, :1]) / DIFFERENCE).flatten(2)         # [B, 6, S * S * 3]
    weight, difference = weight.expand_as(difference).flatten(1), difference.flatten(1)
    weighted = jacobian * weight[:, None]
    normal = weighted @ jacobian.transpose(1, 2)
    normal = normal + DAMPING * torch.diag_embed(normal.diagonal(dim1=1, dim2=2) + 1e-6)
    return -torch.linalg.solve(normal, weighted @ difference[..., None])[..., 0]
