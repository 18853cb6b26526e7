"""The CUDA rasteriser: gsplat's kernels with tile intersection of our own, which does not synchronise.

gsplat 1.5.3 copies the number of intersections (Gaussian-tile pairs) to the host in the middle of a frame. That
synchronisation takes longer than rendering a head, and it cannot be captured in a CUDA graph. Here the intersections
get a buffer of fixed capacity instead.
"""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from ..core.cuda_extension import load_extension
from . import TILE


def camera_centers(viewmats: Tensor) -> Tensor:
    """Camera centres in the world, [..., 4, 4] -> [..., 3]; by cross products, because torch.inverse synchronises."""
    x, y, z = viewmats[..., :3, :3].unbind(-2)
    adjoint = torch.stack([torch.linalg.cross(y, z), torch.linalg.cross(z, x), torch.linalg.cross(x, y)], -1)
    volume = (x * adjoint[..., 0]).sum(-1, keepdim=True)
    return -(adjoint @ viewmats[..., :3, 3:])[..., 0] / volume


def bin_tiles(means2d: Tensor, radii: Tensor, depths: Tensor, width: int, height: int,
              isect_capacity: Optional[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Intersect Gaussians with tiles of 16 x 16 px, sorted front to back.

    Args:
        means2d: [I, N, 2] px.
        radii: [I, N, 2] int32 px, 0 for culled Gaussians.
        depths: [I, N].
        width, height: image size in pixels.
        isect_capacity: capacity of the list of intersections; None: their number, which synchronises.

    Returns:
        offsets [I, rows, columns] int32, where each tile's list begins; ids [isect_capacity] int32, indices into the
        I * N Gaussians; and the number of intersections (int32 scalar). Beyond the capacity, the farthest Gaussians are
        left out.
    """
    images, count = depths.shape
    columns, rows = -(-width // TILE), -(-height // TILE)
    extent = radii.float()

    def edge(axis: int, sign: int, tiles: int) -> Tensor:
        at = (means2d[..., axis] + sign * extent[..., axis]) / TILE
        return (at.ceil() if sign > 0 else at.floor()).clamp(0, tiles).nan_to_num(0).int()

    x0, y0 = edge(0, -1, columns), edge(1, -1, rows)
    visible = (radii > 0).all(-1)
    across = torch.where(visible, edge(0, 1, columns) - x0, 0)
    number = (across * (edge(1, 1, rows) - y0)).flatten()
    image = torch.arange(images, device=depths.device, dtype=torch.int32)[:, None]
    keys = torch.where(visible, depths, 0.0).contiguous().view(torch.int32)  # bits of floats >= 0 sort like the floats
    order = (keys if images == 1 else (image.long() << 32) + keys).flatten().argsort()
    ends = number[order].cumsum(0, dtype=torch.int32)
    num_isects = ends[-1]
    capacity = int(num_isects) if isect_capacity is None else isect_capacity
    slots = torch.arange(capacity, device=depths.device, dtype=torch.int32)
    rank = torch.searchsorted(ends, slots, right=True).clamp_max(images * count - 1)
    owner = order[rank]
    begin, span = (ends - number[order])[rank], across.flatten()[owner].clamp_min(1)
    within = slots - begin
    down = torch.div(within, span, rounding_mode="floor")
    tile = ((y0 + image * rows) * columns + x0).flatten()[owner] + down * columns + within - down * span
    tile = torch.where(slots < num_isects, tile, -1)  # unused slots sort before the first tile
    tile, front = tile.sort(stable=True)
    first = torch.arange(images * rows * columns, device=depths.device, dtype=torch.int32)
    offsets = torch.searchsorted(tile, first, out_int32=True)
    return offsets.reshape(images, rows, columns), owner[front].int(), num_isects


def rasterize_cuda(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
                   Ks: Tensor, width: int, height: int, *, sh_degree: Optional[int], near_plane: float,
                   far_plane: float, radius_clip: float, eps2d: float, backgrounds: Optional[Tensor], render_mode: str,
                   absgrad: bool, isect_capacity: Optional[int]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """`rasterize` on CUDA, which checks the arguments."""
    load_extension()
    from gsplat import fully_fused_projection, rasterize_to_pixels, spherical_harmonics

    lead, cameras, count = means.shape[:-2], viewmats.shape[-3], means.shape[-2]
    each = (*lead, cameras, count)
    radii, means2d, depths, conics, _ = fully_fused_projection(
        means, None, quats, scales, viewmats, Ks, width, height, eps2d=eps2d, near_plane=near_plane,
        far_plane=far_plane, radius_clip=radius_clip, opacities=opacities)  # fmt: skip
    opacities = opacities[..., None, :].expand(each)
    shared = colors.dim() == len(lead) + (2 if sh_degree is None else 3)
    if shared:
        colors = colors.unsqueeze(len(lead)).expand(*each, *colors.shape[len(lead) + 1:])
    if sh_degree is not None:
        directions = means[..., None, :, :] - camera_centers(viewmats)[..., None, :]
        colors = spherical_harmonics(sh_degree, directions, colors, masks=(radii > 0).all(-1))
        colors = (colors + 0.5).clamp_min(0.0)
    if render_mode != "RGB":
        colors = torch.cat([colors, depths[..., None]], -1) if "RGB" in render_mode else depths[..., None]
        if backgrounds is not None:
            used = backgrounds if "RGB" in render_mode else backgrounds[..., :0]
            backgrounds = torch.nn.functional.pad(used, (0, 1))
    with torch.no_grad():
        images = depths.numel() // count
        offsets, ids, num_isects = bin_tiles(means2d.reshape(images, count, 2), radii.reshape(images, count, 2),
                                             depths.reshape(images, count), width, height, isect_capacity)
    images_behind = backgrounds if backgrounds is not None and backgrounds.dim() == viewmats.dim() + 1 else None
    image, alpha = rasterize_to_pixels(means2d, conics, colors, opacities, width, height, TILE,
                                       offsets.reshape(*lead, cameras, *offsets.shape[1:]), ids,
                                       backgrounds=None if images_behind is not None else backgrounds, absgrad=absgrad)
    if images_behind is not None:
        image = image + (1 - alpha) * images_behind
    if "ED" in render_mode:
        image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp(min=1e-10)], -1)
    info = dict(means2d=means2d, radii=radii, depths=depths, conics=conics, opacities=opacities, num_isects=num_isects,
                width=width, height=height, n_cameras=cameras, n_batches=images // cameras, gaussian_ids=None)
    return image, alpha, info
