"""The sums of `losses.image_sums` on the CPU, by Numba kernels in two passes instead of forty tensor operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..core.numba_jit import helper, jit, run
from . import ssim_cpu

Array = np.ndarray
ZERO, ONE = np.float32(0), np.float32(1)
TWO = np.uint64(2)


@helper
def _sign(value: np.float32) -> np.float32:
    return ONE if value > ZERO else (-ONE if value < ZERO else ZERO)


@jit
def difference_sums(first: int, step: int, rgb: Array, alpha: Array, frame: Array, head: Array, lips: Array,
                    sums: Array) -> None:
    """Items are rows: rgb, frame [R, 3 W], the others [R, W]; fills sums [R, 7] in the order of `image_sums`."""
    for row in range(first, sums.shape[0], step):
        x, y, a, h, m = rgb[row], frame[row], alpha[row], head[row], lips[row]
        near = lip = square = mask = covered = heads = area = ZERO
        for i in range(np.uint64(a.shape[0])):
            j = i + i + i
            r, g, b = x[j] - y[j], x[j + np.uint64(1)] - y[j + np.uint64(1)], x[j + TWO] - y[j + TWO]
            size = abs(r) + abs(g) + abs(b)
            near += size
            lip += size * m[i]
            square += r * r + g * g + b * b
            mask += abs(a[i] - h[i])
            covered += a[i] * h[i]
            heads += h[i]
            area += m[i]
        out = sums[row]
        out[0], out[1], out[2], out[3], out[4], out[5], out[6] = near, lip, square, mask, covered, heads, area


@jit
def difference_gradients(first: int, step: int, rgb: Array, alpha: Array, frame: Array, head: Array, lips: Array,
                         slopes: Array, weights: tuple[np.float32, ...], v_rgb: Array, v_alpha: Array) -> None:
    """Gradients of `difference_sums` and of the dissimilarity, whose own are `slopes`; items are rows.

    `weights` belong to the sums of |rgb - frame|, of the same within the lips, of |alpha - head| and of dissimilarity.
    """
    by_near, by_lip, by_mask, by_ssim = weights
    for row in range(first, rgb.shape[0], step):
        x, y, a, h, m, s = rgb[row], frame[row], alpha[row], head[row], lips[row], slopes[row]
        v, w = v_rgb[row], v_alpha[row]
        for i in range(np.uint64(a.shape[0])):
            both = by_near + by_lip * m[i]
            for k in range(np.uint64(3)):
                j = i + i + i + k
                v[j] = both * _sign(x[j] - y[j]) + by_ssim * s[j]
            w[i] = by_mask * _sign(a[i] - h[i])


class ImageSums(torch.autograd.Function):
    """See `losses.image_sums`; one tensor [8] instead of eight."""

    @staticmethod
    def forward(ctx: Any, rgb: Tensor, alpha: Tensor, frame: Tensor, head: Tensor, lips: Tensor,
                box: tuple[int, int, int, int]) -> Tensor:
        batch, height, width = rgb.shape[:3]
        arrays = [x.detach().contiguous().view(batch * height, -1).numpy() for x in (rgb, alpha, frame, head, lips)]
        sums, slopes = np.empty((batch * height, 7), np.float32), torch.zeros(rgb.shape)
        run(difference_sums, batch * height, *arrays, sums)
        left, top, right, bottom = box
        strips = np.empty((batch, -(-(bottom - top) // ssim_cpu.STRIP)))
        run(ssim_cpu.dissimilarity, strips.size, *(x.reshape(batch, height, -1) for x in (arrays[0], arrays[2])),
            (3 * left, top, 3 * right, bottom), strips, slopes.view(batch, height, -1).numpy())
        ctx.arrays, ctx.slopes, ctx.shapes = arrays, slopes, (rgb.shape, alpha.shape)
        return torch.from_numpy(np.append(sums.sum(0, np.float64), strips.sum()).astype(np.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_sums: Tensor) -> tuple[Tensor | None, ...]:
        v_rgb, v_alpha = (torch.empty(shape) for shape in ctx.shapes)
        rows, places = len(ctx.arrays[0]), (0, 1, 3, 7)
        run(difference_gradients, rows, *ctx.arrays, ctx.slopes.view(rows, -1).numpy(),
            tuple(np.float32(v_sums[i].item()) for i in places), v_rgb.view(rows, -1).numpy(),
            v_alpha.view(rows, -1).numpy())
        return v_rgb, v_alpha, *(None,) * 4
