"""Differentiable rasterisation of 3D Gaussians: `rasterize`, with gsplat's conventions, on CUDA and on the CPU.

- `cuda`: gsplat's kernels with tile intersection of our own, which CUDA graphs can capture.
- `cpu`: autograd functions around the Numba kernels.
- `geometry`, `tiles`, `kernels`: Numba kernels of projection and harmonics, tile intersection, and blending.
- `capacity`: how many intersections a captured rendering has memory for.

May import: core.
"""
from __future__ import annotations

import math
from typing import Any, Literal, Optional

import torch
from torch import Tensor

from ..core.errors import InputError

RenderMode = Literal["RGB", "RGB+D", "RGB+ED", "D", "ED"]
RENDER_MODES = ("RGB", "RGB+D", "RGB+ED", "D", "ED")
MAX_SH_DEGREE = 3
TILE = 16  # px, side of a tile, as in gsplat


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    sh_degree: Optional[int] = None,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    backgrounds: Optional[Tensor] = None,
    render_mode: RenderMode = "RGB",
    packed: bool = False,
    absgrad: bool = False,
    isect_capacity: Optional[int] = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render 3D Gaussians into pinhole cameras, differentiably.

    A subset of `gsplat.rasterization` 1.5.3 with `packed=False`, with the same conventions and results: it uses
    gsplat's kernels on CUDA, and Numba kernels with the same maths on the CPU (bit-identical for any number of
    threads). Batch dimensions `...` must be equal for all tensors; there may be none.

    Args:
        means: [..., N, 3] float32 centres, world frame. N may be 0.
        quats: [..., N, 4] rotations as wxyz quaternions, of any norm.
        scales: [..., N, 3] positive standard deviations along the axes, world units.
        opacities: [..., N] in 0..1.
        colors: [..., N, D] or [..., C, N, D], any D >= 1. With `sh_degree`, spherical harmonics coefficients
            [..., N, K, 3] or [..., C, N, K, 3], K >= (sh_degree + 1)², evaluated along the direction from the camera to
            the Gaussian; 0.5 is added and the result clamped at 0. Ignored in modes "D" and "ED".
        viewmats: [..., C, 4, 4] world-to-camera (x right, y down, z forward).
        Ks: [..., C, 3, 3] intrinsics in pixels, pixel centres at +0.5. No gradient.
        width, height: image size in pixels.
        sh_degree: 0 to 3, or None if `colors` are colours.
        near_plane, far_plane: Gaussians at depths outside this range are culled.
        radius_clip: Gaussians with radii up to this many pixels are culled.
        eps2d: variance in px² added to every projected covariance.
        backgrounds: colours [..., C, D] or images [..., C, height, width, D]; None: black. Not applied to depth.
        render_mode: "D" is the accumulated depth, "ED" the expected depth (divided by alpha).
        packed: only False is supported.
        absgrad: set `info["means2d"].absgrad` in the backward pass (sums of |gradient| over pixels).
        isect_capacity: on CUDA, capacity for the intersections (Gaussian-tile pairs) of all images. None: it is
            measured, which synchronises and cannot be captured in a CUDA graph. If `info["num_isects"]` exceeds it, the
            farthest Gaussians are not rendered. No effect on the CPU.

    Returns:
        colors [..., C, height, width, channels] (depth last), alphas [..., C, height, width, 1] in 0..1, and info:
        means2d [..., C, N, 2] px (part of the graph: `retain_grad()` gives the gradient that gsplat's strategies use),
        radii int32 [..., C, N, 2] px (0: culled), depths and opacities [..., C, N], conics [..., C, N, 3], width,
        height, n_cameras, n_batches, gaussian_ids (None), and on CUDA num_isects (int32 scalar, see `isect_capacity`).
        Entries of culled Gaussians are zero on the CPU and undefined on CUDA.

    Raises:
        InputError: unsuitable shapes, dtypes, devices or options.
    """
    tensors = dict(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors, viewmats=viewmats, Ks=Ks
    )
    if backgrounds is not None:
        tensors["backgrounds"] = backgrounds
    _check_tensors(tensors)
    _check_options(width, height, sh_degree, render_mode, packed)
    _check_shapes(tensors, sh_degree, render_mode, width, height)
    options: dict[str, Any] = dict(sh_degree=sh_degree, backgrounds=backgrounds, render_mode=render_mode,
                                   absgrad=bool(absgrad))
    limits = dict(near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d)
    options.update({name: float(x) for name, x in limits.items()})  # Numba would recompile for other types
    args = means, quats, scales, opacities, colors, viewmats, Ks, width, height
    if means.shape[-2] == 0:
        return _empty_scene(means, quats, scales, opacities, colors, viewmats, width, height, backgrounds, render_mode)
    if means.is_cuda:
        from .cuda import rasterize_cuda

        return rasterize_cuda(*args, **options, isect_capacity=isect_capacity)
    return _rasterize_cpu(*args, **options)


def _check_tensors(tensors: dict[str, Tensor]) -> None:
    device = tensors["means"].device if isinstance(tensors["means"], Tensor) else None
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise InputError(f"`{name}` as a torch tensor", type(x).__name__, "Convert it with torch.as_tensor.")
        if x.dtype != torch.float32:
            raise InputError(f"`{name}` as float32", str(x.dtype), f"Pass {name}.float().")
        if x.device != device:
            raise InputError(f"`{name}` on {device} like `means`", str(x.device), f"Pass {name}.to({str(device)!r}).")


def _check_options(width: int, height: int, sh_degree: Optional[int], render_mode: str, packed: bool) -> None:
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise InputError("width and height as positive integers", f"{width!r} x {height!r}", "Pass the size in pixels.")
    if render_mode not in RENDER_MODES:
        raise InputError(f"a render_mode of {', '.join(RENDER_MODES)}", repr(render_mode), "Choose one of them.")
    if packed:
        raise InputError("packed=False", f"packed={packed!r}", "The packed layout is not supported: leave it out.")
    if sh_degree is not None and sh_degree not in range(MAX_SH_DEGREE + 1):
        raise InputError(f"sh_degree None or 0 to {MAX_SH_DEGREE}", repr(sh_degree), "Use a lower degree.")


def _check_shapes(tensors: dict[str, Tensor], sh_degree: Optional[int], render_mode: str, width: int, height: int
                  ) -> None:
    means, viewmats, colors = tensors["means"], tensors["viewmats"], tensors["colors"]
    if means.dim() < 2 or means.shape[-1] != 3:
        raise InputError("`means` of shape [..., N, 3]", str(list(means.shape)), "One row of x, y, z per Gaussian.")
    if viewmats.dim() < 3:
        raise InputError("`viewmats` of shape [..., C, 4, 4]", str(list(viewmats.shape)), "Add the camera dimension.")
    lead, n, c = list(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    expected = dict(
        quats=[*lead, n, 4], scales=[*lead, n, 3], opacities=[*lead, n], viewmats=[*lead, c, 4, 4], Ks=[*lead, c, 3, 3]
    )  # fmt: skip
    for name, shape in expected.items():
        if list(tensors[name].shape) != shape:
            fix = f"It must agree with means {list(means.shape)} and viewmats {list(viewmats.shape)}."
            raise InputError(f"`{name}` of shape {shape}", str(list(tensors[name].shape)), fix)
    if c * math.prod(lead) == 0:
        raise InputError("at least one image", f"viewmats {list(viewmats.shape)}", "Do not pass empty batches.")
    tail = 1 if sh_degree is None else 2
    shape = list(colors.shape)
    if shape[:-tail] not in ([*lead, n], [*lead, c, n]) or shape[-1] < 1:
        kind = "[..., N, D] or [..., C, N, D]" if tail == 1 else "[..., N, K, 3] or [..., C, N, K, 3]"
        raise InputError(f"`colors` of shape {kind}", str(shape), f"Here N = {n}, C = {c} and ... = {lead}.")
    if sh_degree is not None and (shape[-1] != 3 or shape[-2] < (sh_degree + 1) ** 2):
        needed = f"at least {(sh_degree + 1) ** 2} coefficients of 3 channels for degree {sh_degree}"
        raise InputError(needed, f"{shape[-2]} x {shape[-1]}", "Pass more coefficients, or lower sh_degree.")
    if "backgrounds" in tensors and render_mode in ("RGB", "RGB+D", "RGB+ED"):
        found = list(tensors["backgrounds"].shape)
        if found not in ([*lead, c, shape[-1]], [*lead, c, height, width, shape[-1]]):
            needed = f"`backgrounds` of shape {[*lead, c, shape[-1]]} or {[*lead, c, height, width, shape[-1]]}"
            raise InputError(needed, str(found), "One colour or image per camera.")


def _rasterize_cpu(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
                   Ks: Tensor, width: int, height: int, *, sh_degree: Optional[int], near_plane: float,
                   far_plane: float, radius_clip: float, eps2d: float, backgrounds: Optional[Tensor], render_mode: str,
                   absgrad: bool) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """gsplat's interface around `cpu`: flattens the batch dimensions and builds info."""
    from .cpu import rasterize_cpu

    lead, cameras, count = means.shape[:-2], viewmats.shape[-3], means.shape[-2]
    with_color, with_depth = render_mode.startswith("RGB"), render_mode != "RGB"
    batch = math.prod(lead)
    shared = colors.dim() == len(lead) + (2 if sh_degree is None else 3)
    tail = colors.shape[-1:] if sh_degree is None else colors.shape[-2:]
    channels = tail[-1] * with_color
    if backgrounds is None or not with_color:
        backgrounds = means.new_zeros(*lead, cameras, channels)
    size = backgrounds.shape[len(lead) + 1:-1] or (1, 1)
    background = torch.nn.functional.pad(backgrounds.reshape(batch * cameras, *size, channels), (0, int(with_depth)))
    image, alpha, projected = rasterize_cpu(
        lead, means.reshape(batch, count, 3), quats.reshape(batch, count, 4), scales.reshape(batch, count, 3),
        opacities.reshape(batch, count), colors.reshape(batch, 1 if shared else cameras, count, *tail),
        viewmats.reshape(batch, cameras, 4, 4), Ks.reshape(batch, cameras, 3, 3), width, height, sh_degree,
        (near_plane, far_plane, radius_clip, eps2d), background, with_depth, with_color, absgrad,
    )  # fmt: skip
    if render_mode in ("ED", "RGB+ED"):
        image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp(min=1e-10)], -1)
    info: dict[str, Any] = dict(zip(("means2d", "depths", "conics", "radii", "opacities"), projected))
    info.update(width=width, height=height, n_cameras=cameras, n_batches=batch, gaussian_ids=None)
    return image, alpha, info


def _empty_scene(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
                 width: int, height: int, backgrounds: Optional[Tensor], render_mode: str
                 ) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The background alone, still part of the graph (gsplat 1.5.3 fails for N = 0: its launchers divide by N)."""
    lead, cameras = means.shape[:-2], viewmats.shape[-3]
    with_color, with_depth = render_mode.startswith("RGB"), render_mode != "RGB"
    zero = torch.stack([x.sum() for x in (means, quats, scales, opacities, colors)]).sum()  # with gradients of [0, ...]
    image = means.new_zeros(*lead, cameras, height, width, colors.shape[-1] * with_color + with_depth) + zero
    if backgrounds is not None and with_color:
        padded = torch.nn.functional.pad(backgrounds, (0, int(with_depth)))
        image = image + (padded if padded.shape == image.shape else padded[..., None, None, :])
    alpha = means.new_zeros(*lead, cameras, height, width, 1) + zero
    shape = *lead, cameras, 0
    info: dict[str, Any] = dict(means2d=means.new_zeros(*shape, 2) + zero, depths=means.new_zeros(shape))
    info.update(conics=means.new_zeros(*shape, 3), opacities=means.new_zeros(shape))
    info.update(radii=torch.zeros(*shape, 2, dtype=torch.int32, device=means.device), gaussian_ids=None)
    info.update(width=width, height=height, n_cameras=cameras, n_batches=math.prod(lead))
    return image, alpha, info
