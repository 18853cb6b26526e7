"""The CPU rasteriser: three autograd functions (projection, harmonics, blending) around Numba kernels."""
from __future__ import annotations

import math
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..core.numba_jit import run
from . import geometry, kernels
from . import tiles as tile_lists

Shape = tuple[int, ...]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _channels(colors: Tensor, total: int) -> np.ndarray:
    """Colours as [total, D], padded with zeros to at least three channels, which the kernels need."""
    array = _array(colors).reshape(total, -1)
    return np.pad(array, ((0, 0), (0, max(0, 3 - array.shape[1]))))


class _Project(torch.autograd.Function):
    """Means [B, N, 3], quaternions, scales, cameras [B, C, 4, 4] -> means2d [*lead, C, N, 2], depths, conics, radii."""

    @staticmethod
    def forward(ctx: Any, lead: Shape, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, views: Tensor,
                cams: Tensor, width: int, height: int, limits: geometry.Limits
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (batch, count), cameras = means.shape[:2], views.shape[1]
        arrays = [_array(x) for x in (means, quats, scales)]
        views_np, cams_np = _array(views), _array(cams)
        shape, total = (*lead, cameras, count), batch * cameras * count
        means2d, depths, conics = means.new_empty(*shape, 2), means.new_empty(shape), means.new_empty(*shape, 3)
        radii = torch.empty(*shape, 2, dtype=torch.int32)
        flat = [x.view(total, *x.shape[len(shape) :]).numpy() for x in (means2d, depths, conics, radii)]
        run(geometry.project_forward, total // 1000, *arrays, _array(opacities), views_np, cams_np,
            width, height, limits, *flat)  # fmt: skip
        ctx.save_for_backward(means, quats, scales, views, cams, radii, conics)
        ctx.size = width, height
        ctx.mark_non_differentiable(radii)
        return means2d, depths, conics, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means2d: Tensor, v_depths: Tensor, v_conics: Tensor, _: Tensor) -> tuple[Any, ...]:
        means, quats, scales, views, cams, radii, conics = ctx.saved_tensors
        (batch, count), cameras = means.shape[:2], views.shape[1]
        total = batch * cameras * count
        v_means, v_quats, v_scales = torch.zeros(means.shape), torch.zeros(quats.shape), torch.zeros(scales.shape)
        v_views = torch.zeros(batch * cameras, count if ctx.needs_input_grad[5] else 0, 3, 4)
        run(
            geometry.project_backward, total // 1000,
            *(_array(x) for x in (means, quats, scales, views, cams)), *ctx.size,
            _array(radii).reshape(total, 2), _array(conics).reshape(total, 3),
            _array(v_means2d).reshape(total, 2), _array(v_depths).reshape(total), _array(v_conics).reshape(total, 3),
            v_means.numpy(), v_quats.numpy(), v_scales.numpy(), v_views.numpy(),
        )  # fmt: skip
        v_camera = None
        if ctx.needs_input_grad[5]:
            v_camera = torch.zeros(views.shape)
            v_camera[..., :3, :] = v_views.sum(1).view(batch, cameras, 3, 4)
        return None, v_means, v_quats, v_scales, None, v_camera, *(None,) * 4


class _Harmonics(torch.autograd.Function):
    """Coefficients [B, C or 1, N, K, 3] and camera centres [B, C, 3] -> colours [B, C, N, 3]."""

    @staticmethod
    def forward(ctx: Any, degree: int, means: Tensor, centers: Tensor, coeffs: Tensor, radii: Tensor) -> Tensor:
        (batch, count), cameras = means.shape[:2], centers.shape[1]
        images = batch * cameras
        colors = means.new_empty(batch, cameras, count, 3)
        run(geometry.harmonics_forward, images * count // 4000, degree, _array(means), _array(centers), _array(coeffs),
            _array(radii).reshape(images, count, 2), colors.view(images, count, 3).numpy())  # fmt: skip
        ctx.save_for_backward(means, centers, coeffs, radii, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor) -> tuple[Any, ...]:
        means, centers, coeffs, radii, colors = ctx.saved_tensors
        (batch, count), cameras = means.shape[:2], centers.shape[1]
        images = batch * cameras
        v_dirs, v_coeffs = torch.zeros(batch, cameras, count, 3), torch.zeros(coeffs.shape)
        shape = images, count, 3
        run(geometry.harmonics_backward, images * count // 4000, ctx.degree, _array(means), _array(centers),
            _array(coeffs), _array(radii).reshape(images, count, 2), _array(colors).reshape(shape),
            _array(v_colors).reshape(shape), v_dirs.view(shape).numpy(), v_coeffs.numpy())  # fmt: skip
        v_centers = -v_dirs.sum(2) if ctx.needs_input_grad[2] else None
        return None, v_dirs.sum(1), v_centers, v_coeffs, None


def _tile_lists(means2d: np.ndarray, depths: np.ndarray, radii: np.ndarray, tiles_x: int, tiles_y: int
                ) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians of every tile, nearest first: starts int64 [I * tiles + 1] and ids int32 [starts[-1]]."""
    images, tiles = means2d.shape[0], tiles_x * tiles_y
    counts = np.zeros((images, tiles), np.int64)
    run(tile_lists.count_tiles, images, means2d, radii, tiles_x, tiles_y, counts)
    starts = np.zeros(images * tiles + 1, np.int64)
    np.cumsum(counts.reshape(-1), out=starts[1:])
    ids = np.empty(starts[-1], np.int32)
    cursors = starts[:-1].reshape(images, tiles).copy()
    run(tile_lists.fill_tiles, images, means2d, radii, depths.view(np.uint32), tiles_x, tiles_y, cursors, ids)
    return starts, ids


class _Blend(torch.autograd.Function):
    """Splats [..., N, .] of images [...] -> image [..., H, W, D] and alpha [..., H, W, 1]."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, background: Tensor,
                depths: Tensor, radii: Tensor, width: int, height: int, absgrad: bool, keep: bool
                ) -> tuple[Tensor, Tensor]:
        lead, count, channels = means2d.shape[:-2], means2d.shape[-2], colors.shape[-1]
        images = math.prod(lead)
        total = images * count
        tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
        tiles = tiles_x * tiles_y
        means2d_np, radii_np = _array(means2d).reshape(images, count, 2), _array(radii).reshape(images, count, 2)
        starts, ids = _tile_lists(means2d_np, _array(depths).reshape(images, count), radii_np, tiles_x, tiles_y)
        splats = (
            means2d_np.reshape(total, 2), _array(conics).reshape(total, 3), _array(opacities).reshape(total),
            _channels(colors, total), _array(background),
        )  # fmt: skip
        image, alpha = means2d.new_empty(*lead, height, width, channels), means2d.new_empty(*lead, height, width, 1)
        saved = np.empty((images * tiles if keep else 0, 2, kernels.PIXELS), np.float32)  # used by backward only
        run(kernels.blend_forward, images * tiles, *splats, tiles_x, tiles, starts, ids,
            image.view(images, height, width, channels).numpy(), alpha.view(images, height, width).numpy(),
            saved)  # fmt: skip
        ctx.save_for_backward(means2d, conics, colors, opacities, background, alpha)
        ctx.lists = tiles_x, tiles, starts, ids, saved
        ctx.absgrad = absgrad
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Tensor, v_alpha: Tensor) -> tuple[Any, ...]:
        means2d, conics, colors, opacities, background, alpha = ctx.saved_tensors
        tiles_x, tiles, starts, ids, saved = ctx.lists
        channels = colors.shape[-1]
        total, (height, width) = opacities.numel(), v_image.shape[-3:-1]
        splats = (
            _array(means2d).reshape(total, 2), _array(conics).reshape(total, 3), _array(opacities).reshape(total),
            _channels(colors, total), _array(background),
        )  # fmt: skip
        slots = np.empty((len(ids), 6 + channels + 2 * ctx.absgrad), np.float32)
        v_image_np = _array(v_image).reshape(-1, height, width, channels)
        run(kernels.blend_backward, len(starts) - 1, *splats, tiles_x, tiles, starts, ids, saved,
            v_image_np, _array(v_alpha).reshape(-1, height, width), ctx.absgrad, slots)  # fmt: skip
        sums = torch.zeros(total, slots.shape[1])
        run(tile_lists.gather_slots, len(ids) // 4000, ids, slots, sums.numpy())
        if ctx.absgrad:
            means2d.absgrad = sums[:, -2:].reshape(means2d.shape)
        v_background = None
        if ctx.needs_input_grad[4]:
            v_background = (v_image * (1 - alpha)).reshape(-1, height, width, channels).sum_to_size(background.shape)
        columns = (means2d, slice(0, 2)), (conics, slice(2, 5)), (colors, slice(6, 6 + channels)), (opacities, 5)
        return *(sums[:, part].reshape(x.shape) for x, part in columns), v_background, *(None,) * 6


def rasterize_cpu(lead: Shape, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
                  views: Tensor, cams: Tensor, width: int, height: int, sh_degree: Optional[int],
                  limits: geometry.Limits, background: Tensor, with_depth: bool, with_color: bool, absgrad: bool
                  ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Render [B, N] Gaussians into [B, C] cameras; float32 CPU tensors, already checked, N >= 1.

    Args:
        lead: the batch dimensions of the results, with product B.
        means: [B, N, 3].
        quats: [B, N, 4].
        scales: [B, N, 3].
        opacities: [B, N].
        colors: [B, C or 1, N, D], or [B, C or 1, N, K, 3] with `sh_degree`.
        views: [B, C, 4, 4] world-to-camera.
        cams: [B, C, 3, 3] intrinsics.
        width, height: image size in pixels.
        sh_degree: see `rasterize`.
        limits: near plane, far plane, radius_clip, eps2d.
        background: [B * C, H, W, channels of the output], or [B * C, 1, 1, channels].
        with_depth, with_color: which channels to render.
        absgrad: see `rasterize`.

    Returns:
        image [*lead, C, H, W, channels], alpha [*lead, C, H, W, 1], and the projection (means2d, depths, conics,
        radii, opacities), each [*lead, C, N, ...].
    """
    (batch, cameras), count = views.shape[:2], means.shape[1]
    means2d, depths, conics, radii = _Project.apply(
        lead, means, quats, scales, opacities, views, cams, width, height, limits
    )
    if with_color and sh_degree is not None:
        centers = torch.linalg.inv(views)[..., :3, 3]
        colors = _Harmonics.apply(sh_degree, means, centers, colors, radii)
    elif with_color:
        colors = colors.expand(batch, cameras, count, colors.shape[-1])
    if with_depth:
        depth = depths.view(batch, cameras, count, 1)
        colors = torch.cat([colors, depth], -1) if with_color else depth
    opacities = opacities[:, None].expand(batch, cameras, count).reshape(*lead, cameras, count)
    keep = torch.is_grad_enabled()
    image, alpha = _Blend.apply(
        means2d, conics, colors, opacities, background, depths.detach(), radii, width, height, absgrad, keep
    )
    return image, alpha, (means2d, depths, conics, radii, opacities)
