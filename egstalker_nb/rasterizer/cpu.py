"""The CPU rasteriser: Numba kernels behind three autograd Functions (projection, harmonics, blending)."""

import math

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ..core.numba_jit import run
from . import geometry, kernels
from . import tiles as tile_lists


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _channels(colors, total):
    """Colours as [total, D], padded with zeros to the three channels that the kernels have at least."""
    colors = _array(colors).reshape(total, -1)
    return np.pad(colors, ((0, 0), (0, max(0, 3 - colors.shape[1]))))


class _Project(torch.autograd.Function):
    """Means [B, N, 3], quaternions, scales, cameras [B, C, 4, 4] -> means2d [*lead, C, N, 2], depths, conics, radii."""

    @staticmethod
    def forward(ctx, lead, means, quats, scales, opacities, views, cams, width, height, limits):
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
    def backward(ctx, v_means2d, v_depths, v_conics, _):
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
    """Coefficients [B, C or 1, N, K, 3] seen from eyes [B, C, 3] -> colours [B, C, N, 3]."""

    @staticmethod
    def forward(ctx, degree, means, eyes, coeffs, radii):
        (batch, count), cameras = means.shape[:2], eyes.shape[1]
        images = batch * cameras
        colors = means.new_empty(batch, cameras, count, 3)
        run(geometry.harmonics_forward, images * count // 4000, degree, _array(means), _array(eyes), _array(coeffs),
             _array(radii).reshape(images, count, 2), colors.view(images, count, 3).numpy())  # fmt: skip
        ctx.save_for_backward(means, eyes, coeffs, radii, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx, v_colors):
        means, eyes, coeffs, radii, colors = ctx.saved_tensors
        (batch, count), cameras = means.shape[:2], eyes.shape[1]
        images = batch * cameras
        v_dirs, v_coeffs = torch.zeros(batch, cameras, count, 3), torch.zeros(coeffs.shape)
        shape = images, count, 3
        run(geometry.harmonics_backward, images * count // 4000, ctx.degree, _array(means), _array(eyes),
             _array(coeffs), _array(radii).reshape(images, count, 2), _array(colors).reshape(shape),
             _array(v_colors).reshape(shape), v_dirs.view(shape).numpy(), v_coeffs.numpy())  # fmt: skip
        v_eyes = -v_dirs.sum(2) if ctx.needs_input_grad[2] else None
        return None, v_dirs.sum(1), v_eyes, v_coeffs, None


def _tile_lists(means2d, depths, radii, tiles_x, tiles_y):
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
    def forward(ctx, means2d, conics, colors, opacities, background, depths, radii, width, height, absgrad, keep):
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
        kept = np.empty((images * tiles if keep else 0, 2, kernels.PIXELS), np.float32)  # read by backward alone
        run(kernels.blend_forward, images * tiles, *splats, tiles_x, tiles, starts, ids,
             image.view(images, height, width, channels).numpy(), alpha.view(images, height, width).numpy(),
             kept)  # fmt: skip
        ctx.save_for_backward(means2d, conics, colors, opacities, background, alpha)
        ctx.lists = tiles_x, tiles, starts, ids, kept
        ctx.absgrad = absgrad
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, v_image, v_alpha):
        means2d, conics, colors, opacities, background, alpha = ctx.saved_tensors
        tiles_x, tiles, starts, ids, kept = ctx.lists
        channels = colors.shape[-1]
        total, (height, width) = opacities.numel(), v_image.shape[-3:-1]
        splats = (
            _array(means2d).reshape(total, 2), _array(conics).reshape(total, 3), _array(opacities).reshape(total),
            _channels(colors, total), _array(background),
        )  # fmt: skip
        slots = np.empty((len(ids), 6 + channels + 2 * ctx.absgrad), np.float32)
        v_image_np = _array(v_image).reshape(-1, height, width, channels)
        run(kernels.blend_backward, len(starts) - 1, *splats, tiles_x, tiles, starts, ids, kept,
             v_image_np, _array(v_alpha).reshape(-1, height, width), ctx.absgrad, slots)  # fmt: skip
        sums = torch.zeros(total, slots.shape[1])
        run(tile_lists.gather_slots, len(ids) // 4000, ids, slots, sums.numpy())
        if ctx.absgrad:
            means2d.absgrad = sums[:, -2:].reshape(means2d.shape)
        v_background = None
        if ctx.needs_input_grad[4]:
            v_background = (v_image * (1 - alpha)).reshape(-1, height, width, channels).sum_to_size(background.shape)
        places = (means2d, slice(0, 2)), (conics, slice(2, 5)), (colors, slice(6, 6 + channels)), (opacities, 5)
        return *(sums[:, place].reshape(x.shape) for x, place in places), v_background, *(None,) * 6


def rasterize_cpu(lead, means, quats, scales, opacities, colors, views, cams, width, height, sh_degree, limits,
                  background, with_depth, with_color, absgrad):  # fmt: skip
    """Render [B, N] Gaussians into [B, C] cameras; float32 CPU tensors, already checked, N >= 1.

    Args:
        lead: the batch dimensions that B stands for; results have them.
        means, quats, scales, opacities: [B, N, 3], [B, N, 4], [B, N, 3], [B, N].
        colors: [B, C or 1, N, D], or [B, C or 1, N, K, 3] with `sh_degree`.
        views, cams: [B, C, 4, 4], [B, C, 3, 3]. limits: (near, far, radius_clip, eps2d).
        background: [B * C, H, W, channels of the output], or [B * C, 1, 1, channels].

    Returns:
        image [*lead, C, H, W, channels], alpha [*lead, C, H, W, 1], and the projection (means2d, depths, conics,
        radii, opacities), each [*lead, C, N, ...].
    """
    batch, cameras, count = *views.shape[:2], means.shape[1]
    means2d, depths, conics, radii = _Project.apply(
        lead, means, quats, scales, opacities, views, cams, width, height, limits
    )
    if with_color and sh_degree is not None:
        eyes = torch.linalg.inv(views)[..., :3, 3]
        colors = _Harmonics.apply(sh_degree, means, eyes, colors, radii)
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
