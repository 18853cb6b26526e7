"""The CPU rasteriser: same images and gradients as a dense float64 reference, repeatable, never NaN, clear errors."""

import importlib
import multiprocessing

import pytest
import reference_rasterizer as reference
import torch

import egstalker_nb.core.numba_jit as numba_jit
import egstalker_nb.rasterizer.cpu as rasterize_cpu
from egstalker_nb.core.errors import InputError
from egstalker_nb.rasterizer import rasterize

PARAMETERS = "means", "quats", "scales", "opacities", "colors"


def make_scene(count=60, cameras=1, size=(52, 37), seed=0, sh_degree=None, channels=3, scale=0.15, per_camera=False):
    """Random Gaussians in a box of 2 units, 3 units before the cameras; the sizes are no multiples of 16."""
    g = torch.Generator().manual_seed(seed)
    width, height = size
    tail = (channels,) if sh_degree is None else ((sh_degree + 1) ** 2 + 2, 3)  # 2 coefficients more than used
    lead = (cameras, count) if per_camera else (count,)
    scene = dict(
        means=2 * torch.rand(count, 3, generator=g) - 1,
        quats=torch.randn(count, 4, generator=g),
        scales=scale * (0.3 + torch.rand(count, 3, generator=g)),
        opacities=0.05 + 0.9 * torch.rand(count, generator=g),
        colors=0.4 * torch.randn(*lead, *tail, generator=g) + 0.3 * (sh_degree is None),
    )
    viewmats = torch.eye(4).repeat(cameras, 1, 1)
    viewmats[:, :3, :3] = reference.rotation_matrix(
        torch.tensor([1.0, 0, 0, 0]) + 0.1 * torch.randn(cameras, 4, generator=g)
    )
    viewmats[:, :3, 3] = torch.tensor([0.1, -0.1, 3.0])
    f = 1.1 * width
    Ks = torch.tensor([[f, 0, width / 2 + 1.5], [0, 0.9 * f, height / 2], [0, 0, 1]]).repeat(cameras, 1, 1)
    return scene, dict(viewmats=viewmats, Ks=Ks, width=width, height=height, sh_degree=sh_degree)


def leaves(tensors, dtype=torch.float32):
    return {k: v.detach().to(dtype).clone().requires_grad_() for k, v in tensors.items()}


def relative(found, wanted):
    """Norm of the difference over the norm of what is wanted; plain norm where that is zero."""
    difference, norm = (found.double() - wanted.double()).norm().item(), wanted.double().norm().item()
    return difference / norm if norm > 0 else difference


def check_against_reference(scene, camera, **options):
    """Images within 1e-3 and every gradient within 1e-2 (in fact far closer) of the float64 reference."""
    scene = dict(scene, viewmats=camera["viewmats"])
    if options.get("backgrounds") is not None:
        scene["backgrounds"] = options.pop("backgrounds")
    rest = dict({k: v for k, v in camera.items() if k not in ("viewmats", "Ks")}, **options)
    ours, theirs = leaves(scene), leaves(scene, torch.float64)
    image, alpha, info = rasterize(**ours, Ks=camera["Ks"], **rest)
    info["means2d"].retain_grad()
    wanted, wanted_alpha, wanted_info = reference.rasterize(**theirs, Ks=camera["Ks"].double(), **rest)
    assert image.dtype == torch.float32 and image.shape == wanted.shape and alpha.shape == wanted_alpha.shape
    clear = ~wanted_info["doubtful"][..., None]  # float32 may take the other side of a threshold elsewhere
    assert clear.float().mean() > 0.97
    assert torch.equal(info["radii"].long(), wanted_info["radii"])
    assert ((image - wanted) * clear).abs().max() < 1e-3 * max(1.0, wanted.abs().max().item())
    assert ((alpha - wanted_alpha) * clear).abs().max() < 1e-3
    g = torch.Generator().manual_seed(1)
    weight, weight_alpha = torch.randn(image.shape, generator=g) * clear, torch.randn(alpha.shape, generator=g) * clear
    ((image * weight).sum() + (alpha * weight_alpha).sum()).backward()
    ((wanted * weight).sum() + (wanted_alpha * weight_alpha).sum()).backward()
    for name in scene:
        ours_grad, theirs_grad = ours[name].grad, theirs[name].grad
        if theirs_grad is None:
            assert ours_grad is None or not ours_grad.any(), name
            continue
        if name == "viewmats":  # the last row of a camera is no parameter of the image
            ours_grad, theirs_grad = ours_grad[:, :3], theirs_grad[:, :3]
        assert relative(ours_grad, theirs_grad) < 1e-2, name
    assert relative(info["means2d"].grad, torch.stack([x.grad for x in wanted_info["means2d"]])) < 1e-2
    return image, alpha, info


@pytest.mark.parametrize("mode", ["RGB", "RGB+D", "RGB+ED", "D", "ED"])
def test_render_modes_and_backgrounds(mode):
    """Protects every depth mode, with a background behind the colours only."""
    scene, camera = make_scene(cameras=2)
    image, _, _ = check_against_reference(scene, camera, render_mode=mode, backgrounds=torch.rand(2, 3))
    assert image.shape[-1] == {"RGB": 3, "RGB+D": 4, "RGB+ED": 4, "D": 1, "ED": 1}[mode]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("per_camera", [False, True])
def test_harmonics(degree, per_camera):
    """Protects the harmonics' signs and order, their cut at zero, and the gradient through the direction."""
    scene, camera = make_scene(25, cameras=2, size=(35, 21), sh_degree=degree, per_camera=per_camera)
    scene["colors"][..., 0, :] -= 1.2  # bring part of the colours below zero
    check_against_reference(scene, camera)


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_channel_counts(channels):
    """Protects the kernels' split into three unrolled channels and the rest."""
    scene, camera = make_scene(channels=channels)
    check_against_reference(scene, camera, backgrounds=torch.rand(1, channels))


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (33, 15), (64, 48)])
def test_image_sizes(size):
    """Protects the border: tiles that stick out of the image."""
    check_against_reference(*make_scene(size=size))


def test_saturated_opacities():
    """Protects the clamp of alpha at 0.999 (whose gradient stops there) and the stop at low transmittance."""
    scene, camera = make_scene(80, size=(40, 35), scale=0.4)
    scene["opacities"][:] = 1.0
    scene["scales"][:8] = 3.0  # flat in the image: saturated all over
    _, alpha, _ = check_against_reference(scene, camera)
    assert alpha.max() > 0.999


def test_larger_than_the_image_by_the_hundred():
    """Protects the gradient sums where every Gaussian lies in every tile (a shared buffer loses updates here)."""
    scene, camera = make_scene(150, size=(50, 40), scale=3.0)
    scene["opacities"] = 0.02 + 0.1 * scene["opacities"]
    _, _, info = check_against_reference(scene, camera)
    assert (info["radii"] > 50).all(-1).float().mean() > 0.8


def test_behind_near_far_and_outside():
    """Protects culling: behind the camera, before the near plane, beyond the far one, beside the image, too small."""
    scene, camera = make_scene(120)
    scene["means"][:20, 2] -= 6.0
    scene["means"][20:40, 2] = -2.97
    scene["means"][40:50, 2] += 30.0
    scene["means"][50:60, 0] += 9.0
    scene["opacities"][60:65] = 0.003
    options = dict(near_plane=0.2, far_plane=20.0, radius_clip=6.0)
    _, _, info = check_against_reference(scene, camera, **options)
    drawn = (info["radii"] > 0).all(-1)[0]
    assert not drawn[:65].any() and drawn[65:].any() and not drawn[65:].all()


def test_thin_gaussians():
    """Protects the row limits of long thin ellipses, which cross many tiles obliquely."""
    scene, camera = make_scene(60, size=(90, 75))
    scene["scales"] = scene["scales"] * torch.tensor([4.0, 0.02, 0.02])
    check_against_reference(scene, camera)


def test_absolute_gradient():
    """Protects absgrad: for a loss on one pixel it is the magnitude of the plain gradient."""
    scene, camera = make_scene(channels=5)
    for channels in (3, 5):
        ours = leaves(dict(scene, colors=scene["colors"][:, :channels]))
        image, _, info = rasterize(**ours, **camera, absgrad=True)
        info["means2d"].retain_grad()
        image[0, 20, 21].sum().backward()
        assert info["means2d"].grad.abs().max() > 0
        torch.testing.assert_close(info["means2d"].absgrad, info["means2d"].grad.abs(), rtol=1e-4, atol=1e-8)
    wide = leaves(scene)
    image, _, info = rasterize(**wide, **camera, absgrad=True)
    info["means2d"].retain_grad()
    image.sum().backward()
    assert (info["means2d"].absgrad.sum() > 1.1 * info["means2d"].grad.abs().sum()).item()


def test_batches_equal_single_images():
    """Protects the batch dimensions: [2, 3] sets with 2 cameras each equal the sets drawn one by one."""
    sets = [make_scene(30, cameras=2, seed=seed, sh_degree=1) for seed in range(6)]
    stack = lambda rows: torch.stack(rows).reshape(2, 3, *rows[0].shape)  # noqa: E731
    scene = leaves({k: stack([s[k] for s, _ in sets]) for k in PARAMETERS})
    camera = dict(sets[0][1], viewmats=stack([c["viewmats"] for _, c in sets]), Ks=stack([c["Ks"] for _, c in sets]))
    image, alpha, info = rasterize(**scene, **camera, render_mode="RGB+ED")
    info["means2d"].retain_grad()
    (image.square().sum() + alpha.sum()).backward()
    assert image.shape == (2, 3, 2, 37, 52, 4) and info["means2d"].shape == (2, 3, 2, 30, 2)
    for i, (single, camera) in enumerate(sets):
        single = leaves(single)
        one, one_alpha, one_info = rasterize(**single, **camera, render_mode="RGB+ED")
        one_info["means2d"].retain_grad()
        (one.square().sum() + one_alpha.sum()).backward()
        assert torch.equal(image[i // 3, i % 3], one) and torch.equal(alpha[i // 3, i % 3], one_alpha)
        assert torch.equal(info["means2d"].grad[i // 3, i % 3], one_info["means2d"].grad)
        for name in PARAMETERS:
            assert torch.equal(scene[name].grad[i // 3, i % 3], single[name].grad), name


@pytest.mark.parametrize("mode", ["RGB", "RGB+D"])
def test_images_as_backgrounds(mode):
    """Training composites this way: equal to adding what the splats let through, gradients too."""
    scene, camera = make_scene(cameras=2)
    pictures, weights = torch.rand(2, 37, 52, 3), torch.rand(2, 37, 52, 3 + (mode == "RGB+D"))
    results = []
    for inside in (True, False):
        ours, background = leaves(scene), pictures.clone().requires_grad_()
        options = {"backgrounds": background} if inside else {}
        image, alpha, _ = rasterize(**ours, **camera, render_mode=mode, **options)
        if not inside:
            image = torch.cat([image[..., :3] + (1 - alpha) * background, image[..., 3:]], -1)
        ((image * weights).sum() + (alpha * weights[..., :1]).sum()).backward()
        results.append([image.detach(), alpha.detach(), background.grad, *(ours[name].grad for name in PARAMETERS)])
    assert all(relative(a, b) < 1e-5 for a, b in zip(*results))


def test_no_gaussians():
    """Protects the empty scene: the background alone, and a backward pass that works."""
    for mode, sh_degree in (("RGB", None), ("RGB+ED", 1)):
        scene, camera = make_scene(0, cameras=2, sh_degree=sh_degree)
        scene, background = leaves(scene), torch.rand(2, 3, requires_grad=True)
        image, alpha, info = rasterize(**scene, **camera, backgrounds=background, render_mode=mode)
        assert torch.equal(image[..., :3], background[:, None, None].expand(2, 37, 52, 3))
        assert not image[..., 3:].any() and not alpha.any() and info["radii"].shape == (2, 0, 2)
        picture = torch.rand(2, 37, 52, 3)
        assert torch.equal(rasterize(**scene, **camera, backgrounds=picture, render_mode=mode)[0][..., :3], picture)
        (image.sum() + alpha.sum()).backward()
        assert scene["means"].grad.shape == (0, 3) and torch.equal(background.grad, torch.full((2, 3), 37.0 * 52))


def test_nothing_visible():
    """Protects the case of empty tile lists: everything culled."""
    scene, camera = make_scene(sh_degree=2)
    scene["means"][:, 2] = -10.0
    scene, background = leaves(scene), torch.rand(1, 3)
    image, alpha, info = rasterize(**scene, **camera, backgrounds=background)
    assert torch.equal(image, background[:, None, None].expand_as(image)) and not alpha.any()
    (image.sum() + alpha.sum()).backward()
    assert all(not scene[name].grad.any() for name in PARAMETERS) and not info["radii"].any()


@pytest.mark.parametrize("eps2d", [0.3, 0.0])
def test_wild_values_stay_finite(eps2d):
    """Protects against NaN and infinity from extreme but finite Gaussians, zero quaternions and eyes inside them."""
    scene, camera = make_scene(300, sh_degree=3)
    g = torch.Generator().manual_seed(5)
    scene["scales"] = 10.0 ** (12 * torch.rand(300, 3, generator=g) - 8)
    scene["means"] *= 10.0 ** (4 * torch.rand(300, 1, generator=g) - 1)
    scene["means"][:100, 2] = -3 + 0.011
    scene["means"][100] = torch.linalg.inv(camera["viewmats"][0])[:3, 3]
    scene["quats"][:5] = 0.0
    scene["scales"][105:120, 1:] = 0.0  # lines
    scene["scales"][120:140] = 0.0
    scene["opacities"][:150] = 1.0
    scene = leaves(scene)
    image, alpha, _ = rasterize(**scene, **camera, render_mode="RGB+ED", near_plane=0.0, eps2d=eps2d)
    (image.square().mean() + alpha.mean()).backward()
    assert image.isfinite().all() and alpha.isfinite().all()
    assert alpha.min() >= 0 and alpha.max() <= 1
    for name in PARAMETERS:
        assert scene[name].grad.isfinite().all(), name


def test_footprint_without_area_is_not_rendered():
    """Protects the gradients from a division by the area of a footprint: a line without blur, on pixel centres."""
    scene = dict(means=torch.zeros(1, 3), quats=torch.tensor([[1.0, 0, 0, 0]]), scales=torch.tensor([[0.5, 0, 0]]))
    scene = leaves(dict(scene, opacities=torch.ones(1), colors=torch.ones(1, 3)))
    view, K = torch.eye(4), torch.tensor([[20.0, 0, 10.5], [0, 20.0, 10.5], [0, 0, 1]])
    view[2, 3] = 2.0
    image, _, info = rasterize(**scene, viewmats=view[None], Ks=K[None], width=20, height=20, eps2d=0.0)
    image.sum().backward()
    assert not image.any() and not info["radii"].any()
    assert all(x.grad.isfinite().all() for x in scene.values())


def test_values_that_are_not_numbers_are_not_rendered():
    """Protects memory: a NaN position must not become an index. (A diverging run shows as a NaN loss elsewhere.)"""
    scene, camera = make_scene()
    clean, _, _ = rasterize(**{k: v[1:] for k, v in scene.items()}, **camera)
    for name in ("means", "quats", "scales", "opacities"):
        broken = {k: v.clone() for k, v in scene.items()}
        broken[name][0] = float("nan")
        image, _, info = rasterize(**broken, **camera)
        assert torch.equal(image, clean) and not info["radii"][0, 0].any(), name


def test_repeatable_with_any_number_of_threads():
    """Protects bitwise repeatability: same images and gradients in every run, with 1, 2 or 3 threads."""
    scene, camera = make_scene(3000, size=(150, 130), sh_degree=2, scale=0.2)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2, 2):
            torch.set_num_threads(threads)
            ours = leaves(scene)
            image, alpha, info = rasterize(**ours, **camera, render_mode="RGB+D")
            info["means2d"].retain_grad()
            (image.square().mean() + alpha.mean()).backward()
            results.append([image, alpha, info["means2d"].grad, *(ours[k].grad for k in PARAMETERS)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_without_gradients_nothing_is_kept(monkeypatch):
    """Protects memory when only rendering: the blending kernel gets no place for the backward pass's data."""
    scene, camera = make_scene()
    kept, run = [], rasterize_cpu.run

    def spy(kernel, items, *args):
        run(kernel, items, *args)
        if kernel is rasterize_cpu.kernels.blend_forward:
            kept.append(args[-1].shape[0])

    monkeypatch.setattr(rasterize_cpu, "run", spy)
    with_grad, _, _ = rasterize(**leaves(scene), **camera)
    with torch.no_grad():
        without, _, _ = rasterize(**leaves(scene), **camera)
    assert torch.equal(with_grad, without)
    assert kept[0] > 0 and kept[1] == 0


def test_feeds_gsplats_strategy():
    """Protects info's use by gsplat's DefaultStrategy: it accumulates the image-plane gradient in its own scale."""
    strategy = importlib.import_module("gsplat.strategy").DefaultStrategy()
    scene, camera = make_scene(cameras=2)
    ours = leaves(scene)
    image, _, info = rasterize(**ours, **camera)
    state = strategy.initialize_state()
    strategy.step_pre_backward(ours, {}, state, 1, info)
    image.square().mean().backward()
    strategy.step_post_backward(ours, {}, state, 1, info)
    drawn = (info["radii"] > 0).all(-1)
    scaled = info["means2d"].grad * torch.tensor([52 / 2 * 2, 37 / 2 * 2])
    torch.testing.assert_close(state["grad2d"], (scaled.norm(dim=-1) * drawn).sum(0))
    assert torch.equal(state["count"], drawn.sum(0).float()) and state["grad2d"].max() > 0


def _draw_in_child(scene, camera, queue):
    queue.put(rasterize(**scene, **camera)[0].numpy())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_works_after_a_fork():
    """Protects forked workers: a child must not wait for its parent's threads, which it does not have."""
    scene, camera = make_scene()
    wanted, _, _ = rasterize(**scene, **camera)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_draw_in_child, args=(scene, camera, queue))
    child.start()
    try:
        assert torch.equal(torch.from_numpy(queue.get(timeout=30)), wanted)
    finally:
        child.join(5)
        child.kill()


def test_read_only_installation(monkeypatch):
    """Protects installations without a writable place for Numba's cache: the kernels compile without one."""
    njit = numba_jit.numba.njit

    def refuse_cache(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **options)

    monkeypatch.setattr(numba_jit.numba, "njit", refuse_cache)
    assert numba_jit.jit(lambda x: x + 1)(1) == 2


BAD = [
    ("means", lambda s: s["means"].double(), "float32"),
    ("means", lambda s: s["means"].numpy(), "torch tensor"),
    ("means", lambda s: s["means"][:, :2], "[..., N, 3]"),
    ("quats", lambda s: s["quats"][:-1], "`quats` of shape [60, 4]"),
    ("scales", lambda s: s["scales"][:, 0], "`scales` of shape [60, 3]"),
    ("opacities", lambda s: s["opacities"][:, None], "`opacities` of shape [60]"),
    ("colors", lambda s: s["colors"][:7], "`colors` of shape"),
    ("colors", lambda s: s["colors"][:, :0], "`colors` of shape"),
    ("viewmats", lambda s: s["viewmats"][0], "camera dimension"),
    ("viewmats", lambda s: s["viewmats"][:0], "at least one image"),
    ("Ks", lambda s: s["Ks"][:, :2], "`Ks` of shape [1, 3, 3]"),
    ("backgrounds", lambda s: torch.zeros(3), "`backgrounds` of shape [1, 3]"),
    ("width", lambda s: 0, "positive integers"),
    ("height", lambda s: 12.5, "positive integers"),
    ("render_mode", lambda s: "rgb", "RGB+ED"),
    ("sh_degree", lambda s: 4, "0 to 3"),
    ("sh_degree", lambda s: 1, "`colors` of shape"),
    ("packed", lambda s: True, "packed=False"),
]


@pytest.mark.parametrize("name,change,message", BAD, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD)])
def test_bad_input_is_explained(name, change, message):
    """Protects the error texts: what was expected, in words a user can act on."""
    scene, camera = make_scene()
    arguments = dict(scene, **camera)
    arguments[name] = change(arguments)
    if name == "viewmats" and len(arguments["viewmats"]) == 0:
        arguments["Ks"] = arguments["Ks"][:0]
    with pytest.raises(InputError) as error:
        rasterize(**arguments)
    assert message in str(error.value)


def test_too_few_coefficients_are_explained():
    """Protects the message for harmonics with fewer bands than the degree needs."""
    scene, camera = make_scene(sh_degree=0)
    with pytest.raises(InputError, match="at least 16 coefficients"):
        rasterize(**scene, **dict(camera, sh_degree=3))
