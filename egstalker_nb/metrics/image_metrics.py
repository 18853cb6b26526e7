"""Image metrics (PSNR, SSIM, error at the head's edge), and the differentiable blur that SSIM is made of."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Optional

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError

_SEAM = 6 / 512  # half the width of the band around the head's edge, relative to the image width
_C1, _C2 = 0.01 ** 2, 0.03 ** 2  # SSIM's constants for a value range of 1 (Wang et al. 2004)


@lru_cache(maxsize=8)
def _gaussian(sigma: float, size: int) -> np.ndarray:
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


@lru_cache(maxsize=8)
def _kernel(sigma: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # cached on the device: copying it there would synchronise every step, and cannot be captured in a CUDA graph
    return torch.as_tensor(_gaussian(sigma, size), dtype=dtype, device=device)


class _Blur(torch.autograd.Function):
    """Blur with a symmetric kernel and zero padding, which is self-adjoint: backward blurs the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: float, size: int) -> Tensor:
        ctx.kernel = sigma, size
        return _blurred(x, *ctx.kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # apply, so that second derivatives exist
        return _Blur.apply(grad, *ctx.kernel), None, None


def blur(x: Tensor, sigma: float = 1.5, size: int = 11) -> Tensor:
    """Gaussian blur with zero padding, differentiable.

    Args:
        x: [B, H, W, C] float32 or float64 (images, any number of channels up to 512), CPU or CUDA.
        sigma: standard deviation in px.
        size: taps of the kernel, odd.

    Returns:
        Tensor like x, contiguous; the border is blurred with the zeros outside.

    Raises:
        InputError: another number of dimensions, too many channels, or an even size.
    """
    if x.ndim != 4 or x.shape[-1] > 512 or size % 2 == 0:
        raise InputError("x [B, H, W, C] with C of at most 512, and an odd size", f"{list(x.shape)}, size {size}",
                         "Reshape to [B, H, W, C].")
    return _Blur.apply(x, float(sigma), int(size))


def _blurred(x: Tensor, sigma: float, size: int) -> Tensor:
    weights = _gaussian(sigma, size)
    if x.device.type == "cpu":
        return _blurred_cpu(x, weights)
    channels = x.shape[-1]
    kernel = _kernel(sigma, size, x.dtype, x.device).expand(channels, 1, size)
    planes = x.permute(0, 3, 1, 2).contiguous()  # cuDNN is twice as slow on interleaved channels
    planes = F.conv2d(planes, kernel[:, :, None, :], padding=(0, size // 2), groups=channels)
    planes = F.conv2d(planes, kernel[:, :, :, None], padding=(size // 2, 0), groups=channels)
    return planes.permute(0, 2, 3, 1).contiguous()


def _blurred_cpu(x: Tensor, weights: np.ndarray) -> Tensor:
    # OpenCV on interleaved channels, one image per thread: torch's depthwise convolutions take 1 to 6 times as long.
    # The pool is made for each call (0.1 ms), since threads do not survive a fork.
    source = x.detach().contiguous().numpy()
    result = np.empty_like(source)

    def blur_image(index: int) -> None:
        height, width, channels = source.shape[1:]
        cv2.sepFilter2D(source[index], -1, weights, weights, borderType=cv2.BORDER_CONSTANT,
                        dst=result[index] if channels > 1 else result[index].reshape(height, width))

    workers = min(len(source), torch.get_num_threads())
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(blur_image, range(len(source))))
    else:
        for index in range(len(source)):
            blur_image(index)
    return torch.from_numpy(result)


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pixel and channel, differentiable in both images.

    Window: 11 x 11 Gaussian, sigma 1.5, zero padding as in 3D Gaussian Splatting (which affects the outer 5 px). Value
    range 1, K = 0.01 and 0.03 (Wang et al. 2004).

    Args:
        a, b: [..., H, W, 3] float, 0..1, equal shapes.

    Returns:
        [..., H, W, 3], -1..1.

    Raises:
        InputError: other or unequal shapes.
    """
    _require_images(a, b)
    shape, x, y = a.shape, a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:])
    # Only the sum of the two variances is needed: four blurs instead of five. y is blurred separately, so that a
    # constant target (training) needs no backward pass. Stacked along the batch, so that the chunks are contiguous.
    mean_y = blur(y)
    mean_x, square, product = blur(torch.cat((x, x * x + y * y, x * y))).chunk(3)
    mean_product, mean_square = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * mean_product + _C1) / (mean_square + _C1)
    structure = (2 * (product - mean_product) + _C2) / (square - mean_square + _C2)
    return (luminance * structure).reshape(shape)


def ssim(a: Tensor, b: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    """Mean structural similarity of each image; see `ssim_map`.

    Args:
        a, b: [..., H, W, 3] float, 0..1.
        mask: None, or weights [..., H, W, 1], 0..1, of the average.

    Returns:
        [...], 1 for equal images; nan where the mask is empty.

    Raises:
        InputError: see `ssim_map`; a mask of another shape.
    """
    return _averaged(ssim_map(a, b), mask)


def psnr(a: Tensor | np.ndarray, b: Tensor | np.ndarray, mask: Optional[Tensor] = None) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB.

    Args:
        a, b: [..., H, W, 3], tensors of float 0..1, or arrays or tensors of uint8 (a peak of 255).
        mask: None, or weights [..., H, W, 1], 0..1, of the mean squared error.

    Returns:
        [...], at most 100 (for equal images, so that means stay finite); nan where the mask is empty. Computed on the
        device of the images, without synchronising.

    Raises:
        InputError: other or unequal shapes.
    """
    x, y = _unit_range(torch.as_tensor(a)), _unit_range(torch.as_tensor(b))
    _require_images(x, y)
    return decibels(_averaged((x - y).square(), mask))


def gradient_energy(image: Tensor, mask: Tensor) -> Tensor:
    """How much detail there is: the mean square of the differences between neighbouring pixels.

    Args:
        image: [H, W, 3] 0...1; the mean of its colours counts.
        mask: [H, W, 1], weights of the pixels.

    Returns:
        scalar.
    """
    grey = image.mean(-1)
    across, down = grey.diff(dim=1)[:-1], grey.diff(dim=0)[:, :-1]
    weight = mask[:-1, :-1, 0]
    return ((across.square() + down.square()) * weight).sum() / weight.sum().clamp_min(1e-6)


def decibels(square: Tensor) -> Tensor:
    """PSNR in dB of mean squared errors for a peak of 1, at most 100 so that means stay finite."""
    return -10 * torch.log10(square.clamp_min(1e-10))


def _unit_range(image: Tensor) -> Tensor:
    """uint8 as float32 0..1; other dtypes unchanged."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def seam(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    """Visibility of the head's edge: mean absolute error in a band around the edge, divided by that inside the head.

    The band extends 6 px (for images of 512 px; other sizes in proportion) to both sides of the edge; the inside is the
    rest of the head. The image border is not an edge.

    Args:
        a, b: [..., S, S, 3] float, 0..1.
        head: [..., S, S, 1] mask, 0..1; above 0.5 is head.

    Returns:
        [...], 1 if the error in the band equals that inside, above 1 for a visible seam; nan without an edge or an
        inside, or without any error inside.

    Raises:
        InputError: other or unequal shapes.
    """
    _require_images(a, b)
    reach = max(1, round(_SEAM * a.shape[-2]))
    covered = (head > 0.5).to(a.dtype).expand(*a.shape[:-1], 1).reshape(-1, 1, *a.shape[-3:-1])
    # the head and its complement, both dilated
    grown, outside = F.max_pool2d(torch.cat([covered, 1 - covered], 1), 2 * reach + 1, 1, reach).unbind(1)
    error, shape = (a - b).abs(), (*a.shape[:-1], 1)
    inside = _averaged(error, (1 - outside).reshape(shape))
    return _averaged(error, (grown * outside).reshape(shape)) / torch.where(inside > 0, inside, torch.nan)


def _require_images(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim < 3 or a.shape[-1] != 3:
        raise InputError("two equal shapes [..., H, W, 3]", f"{list(a.shape)} and {list(b.shape)}",
                         "Bring both to one size, channels last.")


def _averaged(values: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Mean over the last three dimensions, weighted by a mask."""
    if mask is None:
        return values.mean(dim=(-3, -2, -1))
    if mask.shape[-1] != 1 or mask.shape[-3:-1] != values.shape[-3:-1]:
        raise InputError(f"a mask {list(values.shape[:-1]) + [1]}", str(list(mask.shape)), "Resize the mask.")
    mask = mask.to(values.dtype).expand(*values.shape[:-1], 1)
    return (values * mask).sum(dim=(-3, -2, -1)) / (values.shape[-1] * mask.sum(dim=(-3, -2, -1)))
