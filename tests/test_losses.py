"""Protects the loss's sums on the CPU: hand-written kernels, with the values and gradients of the formula."""

import pytest
import torch

from egstalker_nb.config import load_config
from egstalker_nb.metrics.image_metrics import ssim_map
from egstalker_nb.training.losses import Losses, image_sums


def pictures(batch, height, width, seed=0):
    """rgb, alpha, frame, head, lips: alike in places, equal in some pixels, alpha partly outside of the head."""
    generator = torch.Generator().manual_seed(seed)
    rgb, noise = torch.rand(2, batch, height, width, 3, generator=generator)
    frame = torch.where(noise > 0.8, rgb, (rgb + 0.3 * noise - 0.15).clamp(0, 1))
    alpha, head, lips = torch.rand(3, batch, height, width, 1, generator=generator)
    return rgb, alpha, frame, torch.where(head > 0.9, alpha, head), (lips > 0.7).float()


def plain_sums(rgb, alpha, frame, head, lips, box):
    """The definition, in the precision of its arguments."""
    x0, y0, x1, y1 = box
    near = (rgb - frame).abs()
    dissimilar = 1 - ssim_map(rgb[:, y0:y1, x0:x1], frame[:, y0:y1, x0:x1])
    return torch.stack([near.sum(), (near * lips).sum(), near.detach().square().sum(), (alpha - head).abs().sum(),
                        (alpha.detach() * head).sum(), head.sum(), lips.sum(), dissimilar.sum()])


def with_gradients(function, rgb, alpha, *others):
    rgb, alpha = rgb.clone().requires_grad_(), alpha.clone().requires_grad_()
    sums = torch.stack(tuple(function(rgb, alpha, *others)))
    (sums * torch.tensor([0.7, 1.3, 0, -2, 0, 0, 0, 0.4], dtype=sums.dtype)).sum().backward()
    return sums.detach(), rgb.grad, alpha.grad


@pytest.mark.parametrize("shape, box", [
    ((2, 33, 47), (0, 0, 47, 33)),        # odd sizes
    ((3, 40, 31), (5, 9, 28, 40)),        # a box that touches one border
    ((2, 9, 12), (3, 2, 7, 5)),           # smaller than the window
    ((1, 20, 20), (8, 8, 9, 9)),          # one pixel
    ((1, 290, 24), (1, 3, 22, 288)),      # more than one strip of rows, the last one short
    ((1, 129, 300), (0, 0, 300, 129)),    # more than one panel of columns, a strip of one row
    ((1, 24, 512), (0, 0, 512, 24)),
])
def test_sums_and_gradients_are_the_definition(shape, box):
    """In float64, where the formula's own rounding plays no part."""
    given = pictures(*shape)
    ours = with_gradients(image_sums, *given, box)
    true = with_gradients(plain_sums, *(x.double() for x in given), box)
    torch.testing.assert_close(ours[0].double(), true[0], atol=1e-4, rtol=1e-5)
    for grad, wanted in zip(ours[1:], true[1:]):
        torch.testing.assert_close(grad.double(), wanted, atol=2e-5, rtol=1e-5)
    x0, y0, x1, y1 = box
    outside = torch.ones(shape[1:], dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    equal = given[0] == given[2]
    assert not ours[1][equal & outside[None, ..., None]].any(), "neither differences nor SSIM reach there"


def test_equal_images_have_no_loss():
    rgb, alpha, _, _, lips = pictures(2, 30, 26)
    sums, v_rgb, v_alpha = with_gradients(image_sums, rgb, alpha, rgb, alpha, lips, (0, 0, 26, 30))
    assert not sums[[0, 1, 2, 3]].any() and not v_alpha.any()
    assert abs(sums[7]) < 1e-2 and v_rgb.abs().max() < 1e-3


def test_the_same_bits_for_any_number_of_threads():
    """Training is resumed on other machines; and the inputs stay as they are."""
    given = pictures(3, 150, 64)
    kept, before, results = [x.clone() for x in given], torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7, 1):
            torch.set_num_threads(threads)
            results.append(with_gradients(image_sums, *given, (2, 1, 60, 149)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))
    assert all(torch.equal(a, b) for a, b in zip(given, kept))


def test_views_count_like_copies():
    """A batch may be part of a larger tensor."""
    given = [x.expand(2, *x.shape[1:]).transpose(1, 2) for x in pictures(1, 20, 24)]
    box = (0, 0, 20, 24)
    for a, b in zip(image_sums(*given, box), image_sums(*(x.contiguous() for x in given), box)):
        assert torch.equal(a, b)


def test_not_a_number_is_not_hidden():
    """The training guard looks at the loss."""
    rgb, *others = pictures(1, 20, 24)
    rgb[0, 3, 4, 1] = float("nan")
    sums = image_sums(rgb, *others, (0, 0, 24, 20))
    assert all(torch.isnan(sums[i]) for i in (0, 2, 7)) and torch.isfinite(sums[3])


def test_terms_are_means():
    """What is logged: weighted terms, their sum, PSNR over all pixels, the covered share of the head."""
    rgb, alpha, frame, head, lips = pictures(2, 30, 26)
    cfg = load_config("production")
    losses = Losses(cfg, "fine")
    loss, shown = losses(rgb, alpha, frame, head, lips)
    shown = dict(zip(losses.names, shown.tolist()))
    near = (rgb - frame).abs()
    assert shown["l1"] == pytest.approx(cfg.lambda_l1 * near.mean().item(), rel=1e-5)
    assert shown["dssim"] == pytest.approx(cfg.lambda_dssim * (1 - ssim_map(rgb, frame)).mean().item(), rel=1e-4)
    assert shown["mask"] == pytest.approx(cfg.lambda_mask * (alpha - head).abs().mean().item(), rel=1e-5)
    lip = (near * lips).sum() / (3 * lips.sum())
    assert shown["lip"] == pytest.approx(cfg.lambda_lip * lip.item(), rel=1e-5)
    assert shown["loss"] == pytest.approx(loss.item()) == pytest.approx(
        sum(shown[k] for k in ("l1", "dssim", "mask", "lip")), rel=1e-5)
    assert shown["psnr"] == pytest.approx(-10 * near.square().mean().log10().item(), rel=1e-5)
    assert shown["coverage"] == pytest.approx(((alpha * head).sum() / head.sum()).item(), rel=1e-5)
    assert "lip" not in Losses(cfg, "coarse").names
