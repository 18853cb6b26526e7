"""gsplat on CUDA against the CPU rasteriser and the float64 reference: one function, the same images and gradients.

Run with `python -m pytest tests/gpu`. Where Numba is not installed only the comparison with the reference runs.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from egstalker_nb.rasterizer import rasterize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import reference_rasterizer as reference  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="the CPU path needs numba")
NAMES = "means", "quats", "scales", "opacities", "colors"


def make_scene(kind: str, sh_degree=None):
    """Gaussians in a box of 2 units seen by two cameras from 3 units away; sizes are no multiples of 16."""
    g = torch.Generator().manual_seed(3)
    n, width, height = 120, 61, 45
    tail = (3,) if sh_degree is None else ((sh_degree + 1) ** 2, 3)
    scene = dict(
        means=2 * torch.rand(n, 3, generator=g) - 1,
        quats=torch.randn(n, 4, generator=g),
        scales=0.15 * (0.3 + torch.rand(n, 3, generator=g)),
        opacities=0.05 + 0.9 * torch.rand(n, generator=g),
        colors=0.4 * torch.randn(n, *tail, generator=g) + 0.3 * (sh_degree is None),
    )
    if kind == "saturated":
        scene["opacities"][:] = 1.0
    if kind == "large":
        scene["scales"] *= 12
        scene["opacities"] *= 0.2
    if kind == "behind":
        scene["means"][:40, 2] -= 6
        scene["means"][40:60, 0] += 6
    viewmats = torch.eye(4).repeat(2, 1, 1)
    viewmats[:, :3, :3] = reference.rotation_matrix(torch.tensor([1.0, 0, 0, 0]) + 0.1 * torch.randn(2, 4, generator=g))
    viewmats[:, 2, 3] = 3.0
    Ks = torch.tensor([[70.0, 0, 31.0], [0, 66.0, 22.0], [0, 0, 1]]).repeat(2, 1, 1)
    return scene, dict(viewmats=viewmats, Ks=Ks), dict(width=width, height=height, sh_degree=sh_degree)


def draw(function, scene, camera, options, device, dtype, weights=None):
    """Image, alpha, radii and gradients (means2d's last) on the CPU as float64."""
    ours = {k: v.to(device, dtype).clone().requires_grad_() for k, v in scene.items()}
    image, alpha, info = function(**ours, **{k: v.to(device, dtype) for k, v in camera.items()}, **options)
    doubtful = info["doubtful"] if "doubtful" in info else None
    means2d = info["means2d"]
    for x in means2d if isinstance(means2d, list) else [means2d]:
        x.retain_grad()
    weights = torch.ones(image.shape[:-1]) if weights is None else weights
    g = torch.Generator().manual_seed(1)
    random = (torch.randn(*image.shape, generator=g) * weights[..., None]).to(image)
    random_alpha = (torch.randn(*alpha.shape, generator=g) * weights[..., None]).to(alpha)
    ((image * random).sum() + (alpha * random_alpha).sum()).backward()
    grad2d = torch.stack([x.grad for x in means2d]) if isinstance(means2d, list) else means2d.grad
    drawn = (info["radii"] > 0).all(-1, keepdim=True)  # the rest is undefined on CUDA
    # a depth image has no gradient for colours
    grads = {name: (torch.zeros_like(x) if x.grad is None else x.grad).double().cpu() for name, x in ours.items()}
    grads["means2d"] = torch.where(drawn, grad2d, torch.zeros_like(grad2d)).double().cpu()
    return image.detach().double().cpu(), alpha.detach().double().cpu(), info["radii"].cpu(), grads, doubtful


def check(found, wanted, clear):
    assert (found[2].long() - wanted[2].long()).abs().max() <= 1  # fast log and square root in gsplat's extents
    limit = 1e-3 * max(1.0, wanted[0].abs().max().item())
    assert ((found[0] - wanted[0]) * clear).abs().max() < limit
    assert ((found[1] - wanted[1]) * clear).abs().max() < 1e-3
    for name, grad in wanted[3].items():
        assert (found[3][name] - grad).norm() <= 1e-2 * grad.norm(), name


CASES = [
    ("plain", None, "RGB"), ("plain", None, "RGB+D"), ("plain", None, "RGB+ED"), ("plain", None, "D"),
    ("plain", None, "ED"), ("plain", 0, "RGB"), ("plain", 1, "RGB"), ("plain", 2, "RGB"), ("plain", 3, "RGB+ED"),
    ("saturated", None, "RGB"), ("large", None, "RGB"), ("behind", 3, "RGB"),
]  # fmt: skip


@pytest.mark.parametrize("kind,degree,mode", CASES)
@pytest.mark.parametrize("path", ["reference", pytest.param("cpu", marks=needs_numba)])
def test_same_as_gsplat(kind, degree, mode, path):
    """Protects the promise that code written on the CPU gives the same on CUDA: images, gradients, info's scale."""
    scene, camera, options = make_scene(kind, degree)
    scene["colors"] = scene["colors"].contiguous()
    camera["backgrounds"] = torch.rand(2, 3, generator=torch.Generator().manual_seed(7))
    options["render_mode"] = mode
    with torch.no_grad():
        as_double = {k: v.double() for k, v in {**scene, **camera}.items()}
        doubtful = reference.rasterize(**as_double, **options)[2]["doubtful"]
    clear = (~doubtful).double()  # elsewhere float32 may take the other side of a threshold
    assert clear.mean() > 0.97
    found = draw(rasterize, scene, camera, options, "cuda", torch.float32, clear)
    if path == "reference":
        wanted = draw(reference.rasterize, scene, camera, options, "cpu", torch.float64, clear)
    else:
        wanted = draw(rasterize, scene, camera, options, "cpu", torch.float32, clear)
    check(found, wanted, clear[..., None])


@needs_numba
def test_batch_dimensions():
    """Protects [B] sets of Gaussians with one camera each, the way that the deformed heads are drawn."""
    parts = [make_scene(kind, 1) for kind in ("plain", "saturated", "behind")]
    scene = {k: torch.stack([s[k] for s, _, _ in parts]) for k in NAMES}
    camera = {k: torch.stack([c[k][:1] for _, c, _ in parts]) for k in parts[0][1]}
    found = draw(rasterize, scene, camera, parts[0][2], "cuda", torch.float32)
    wanted = draw(rasterize, scene, camera, parts[0][2], "cpu", torch.float32)
    assert found[0].shape == wanted[0].shape == (3, 1, 45, 61, 3)
    close = ((found[0] - wanted[0]).abs() < 1e-3).all(-1)
    assert close.float().mean() > 0.998  # pixels at a threshold may differ by one step of 1/255
    for name, grad in wanted[3].items():
        assert (found[3][name] - grad).norm() <= 1e-2 * grad.norm(), name


def test_images_as_backgrounds():
    """Protects the composite: a background image shows through by what their opacity leaves."""
    scene, camera, options = make_scene("plain")
    scene, camera = ({k: v.cuda() for k, v in part.items()} for part in (scene, camera))
    pictures = torch.rand(2, 45, 61, 3, device="cuda")
    alone, alpha, _ = rasterize(**scene, **camera, **options)
    image, _, _ = rasterize(**scene, **camera, **options, backgrounds=pictures)
    torch.testing.assert_close(image, alone + (1 - alpha) * pictures)


def test_no_gaussians():
    """Protects the empty scene on CUDA, where gsplat 1.5.3 itself fails."""
    scene, camera, options = make_scene("plain")
    scene = {k: v[:0].cuda().requires_grad_() for k, v in scene.items()}
    camera = {k: v.cuda() for k, v in camera.items()}
    image, alpha, info = rasterize(**scene, **camera, **options, backgrounds=torch.full((2, 3), 0.25, device="cuda"))
    assert (image == 0.25).all() and not alpha.any() and info["means2d"].shape == (2, 0, 2)
    image.sum().backward()
    assert scene["means"].grad.shape == (0, 3)


def test_a_fixed_capacity_renders_the_same_without_synchronising():
    """Protects captured steps: with capacity for all intersections nothing changes, else some are left out."""
    scene, camera, options = make_scene("plain")
    scene, camera = ({k: v.cuda() for k, v in part.items()} for part in (scene, camera))
    wanted, _, info = rasterize(**scene, **camera, **options)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, _, fixed = rasterize(**scene, **camera, **options, isect_capacity=20_000)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found, wanted) and int(fixed["num_isects"]) == int(info["num_isects"]) > 300
    less, _, short = rasterize(**scene, **camera, **options, isect_capacity=300)
    assert int(short["num_isects"]) == int(info["num_isects"])
    assert torch.isfinite(less).all() and not torch.equal(less, wanted)
