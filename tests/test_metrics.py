"""Protects the scores that runs are judged by, and the SSIM that training differentiates through."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from egstalker_nb.core.errors import InputError
from egstalker_nb.face.regions import PARTS
from egstalker_nb.metrics.image_metrics import blur, psnr, seam, ssim, ssim_map
from egstalker_nb.metrics.landmark_metrics import (
    aperture,
    blink_ratio,
    correlation_and_lag,
    landmark_distance,
    temporal_jitter,
)


def plain_blur(x, sigma=1.5, size=11):
    """The definition: one two-dimensional convolution, [B, H, W, C]."""
    offsets = torch.arange(size, dtype=x.dtype) - size // 2
    line = torch.exp(-offsets ** 2 / (2 * sigma ** 2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = x.shape[-1]
    planes = F.conv2d(x.permute(0, 3, 1, 2), kernel.expand(channels, 1, size, size), padding=size // 2, groups=channels)
    return planes.permute(0, 2, 3, 1)


def plain_ssim_map(a, b):
    """The definition of Wang et al. 2004 with five blurs."""
    mean_a, mean_b = plain_blur(a), plain_blur(b)
    var_a, var_b = plain_blur(a * a) - mean_a ** 2, plain_blur(b * b) - mean_b ** 2
    covariance = plain_blur(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
            / ((mean_a ** 2 + mean_b ** 2 + 1e-4) * (var_a + var_b + 9e-4)))


def images(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=dtype)


def faces(num_frames, seed=0):
    """Random landmarks around a face-like layout: float64 [N, 478, 3] px."""
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.uniform(100, 400, (1, 478, 3)), num_frames, axis=0)
    points[:, 10] = (250, 100, 0)
    points[:, 152] = (250, 400, 0)
    return points


@pytest.mark.parametrize("shape", [(1, 7, 9, 1), (3, 20, 33, 3), (2, 16, 16, 5), (2, 30, 8, 16)])
@pytest.mark.parametrize("sigma, size", [(1.5, 11), (0.8, 5)])
def test_blur_is_the_convolution(shape, sigma, size):
    """Every channel count and image of a batch, borders included; and for a view that is not contiguous."""
    x = images(*shape)
    torch.testing.assert_close(blur(x, sigma, size), plain_blur(x, sigma, size), atol=1e-12, rtol=0)
    torch.testing.assert_close(blur(x.float(), sigma, size), plain_blur(x, sigma, size).float(), atol=1e-6, rtol=0)
    view = x.transpose(1, 2)
    torch.testing.assert_close(blur(view, sigma, size), plain_blur(view, sigma, size), atol=1e-12, rtol=0)


def test_blur_gradients():
    """The backward pass of the OpenCV blur is written by hand; first and second derivatives."""
    x = images(2, 4, 5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: blur(y, 1.0, 5), (x,))
    assert torch.autograd.gradgradcheck(lambda y: blur(y, 1.0, 5).square(), (x,))


def test_blur_repeats_bit_for_bit_and_leaves_its_input():
    """Resumed training must equal uninterrupted training, whatever the threads do."""
    x = images(8, 64, 64, 3, dtype=torch.float32)
    kept = x.clone()
    first = blur(x)
    for _ in range(5):
        assert torch.equal(blur(x), first)
    assert torch.equal(x, kept)
    with pytest.raises(InputError, match=r"\[B, H, W, C\]"):
        blur(x[0])
    with pytest.raises(InputError, match="odd size"):
        blur(x, 1.5, 10)


def test_ssim_is_the_definition():
    """Against five plain convolutions in float64: values for different, similar and equal images."""
    a = images(2, 24, 32, 3)
    for b in (images(2, 24, 32, 3, seed=1), (a + 0.05 * images(2, 24, 32, 3, seed=2)).clamp(0, 1), a):
        torch.testing.assert_close(ssim_map(a, b), plain_ssim_map(a, b), atol=1e-10, rtol=0)
        torch.testing.assert_close(ssim(a, b), plain_ssim_map(a, b).mean((1, 2, 3)), atol=1e-10, rtol=0)
        torch.testing.assert_close(ssim(a.float(), b.float()), ssim(a, b).float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(ssim(a, a), torch.ones(2, dtype=a.dtype))


def test_ssim_gradients():
    """Training follows them: gradcheck, and equality with the plain formula, for both arguments."""
    a, b = images(1, 6, 7, 3).requires_grad_(), images(1, 6, 7, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(ssim_map, (a, b))
    for function in (ssim_map, plain_ssim_map):
        a.grad = b.grad = None
        (1 - function(a, b).mean()).backward()
        if function is ssim_map:
            ours = a.grad.clone(), b.grad.clone()
    torch.testing.assert_close(ours, (a.grad, b.grad), atol=1e-10, rtol=0)


def test_ssim_knows_structure_from_brightness():
    """A blurred image scores far below an evenly brightened one of equal error."""
    a = images(40, 40, 3) * 0.8
    blurred = blur(a[None])[0]
    bright = a + (a - blurred).square().mean().sqrt()
    assert psnr(a, bright) == pytest.approx(float(psnr(a, blurred)), abs=0.01)
    assert ssim(a, bright) > 0.8 > 0.5 > ssim(a, blurred)


def test_psnr_values():
    """0.1 off everywhere is 20 dB; one number for each image; equal images stay finite."""
    a = images(2, 3, 8, 8, 3) * 0.5
    off = a.clone()
    off[0] += 0.1
    scores = psnr(a, off)
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[0], torch.full((3,), 20.0, dtype=a.dtype))
    torch.testing.assert_close(scores[1], torch.full((3,), 100.0, dtype=a.dtype))
    assert psnr(a[0, 0], off[0, 0]).shape == ()


def test_masks_choose_what_counts():
    """Errors outside a mask do not matter, weights are relative, and an empty mask has no score."""
    a = images(2, 32, 32, 3) * 0.5
    b = a.clone()
    b[:, :, 16:] += 0.5
    mask = torch.zeros(2, 32, 32, 1, dtype=torch.bool)
    mask[:, :, :8] = True
    assert psnr(a, b, mask).min() == 100 and ssim(a, b, mask).min() > 0.9999
    assert psnr(a, b, ~mask).max() < 10 and ssim(a, b, ~mask).max() < 0.9
    torch.testing.assert_close(psnr(a, b, 0.5 * (~mask).double()), psnr(a, b, ~mask))
    torch.testing.assert_close(psnr(a, b, torch.ones(32, 32, 1)), psnr(a, b))
    torch.testing.assert_close(ssim(a, b, torch.ones(32, 32, 1)), ssim(a, b))
    assert psnr(a, b, mask & False).isnan().all() and ssim(a, b, mask & False).isnan().all()


def test_seam_is_the_edge_against_the_inside():
    """Known errors inside, in the band (6 px at 512, 3 at 256) and outside; the border of the image is no edge."""
    head = torch.zeros(256, 256, 1)
    head[100:, 50:200] = 1
    band = torch.zeros(256, 256, 1, dtype=torch.bool)
    band[97:, 47:203] = True
    band[103:, 53:197] = False
    true = images(256, 256, 3) * 0.3
    error = torch.where(band, 0.15, torch.where(head > 0, 0.1, 0.4))
    assert seam(true + error, true, head) == pytest.approx(1.5)
    assert seam(torch.stack([true + error] * 2), torch.stack([true] * 2), torch.stack([head] * 2)).shape == (2,)
    off = torch.where(band, 0.0, error.double())
    assert seam(true + off, true, head) == 0, "what lies outside the band does not count"
    for empty in (head * 0, head * 0 + 1):
        assert torch.isnan(seam(true + error, true, empty))
    assert torch.isnan(seam(true, true, head))


def test_shapes_that_do_not_fit_are_named():
    a = images(2, 8, 8, 3)
    for function in (psnr, ssim, ssim_map):
        with pytest.raises(InputError, match=r"\[2, 8, 8, 3\] and \[2, 8, 6, 3\]"):
            function(a, a[:, :, :6])
    with pytest.raises(InputError, match="channels last"):
        psnr(a.permute(0, 3, 1, 2), a.permute(0, 3, 1, 2))
    with pytest.raises(InputError, match=r"a mask \[2, 8, 8, 1\]"):
        ssim(a, a, torch.ones(8, 8))


def test_landmark_distance():
    """The mouth is the lips only, the face is all; depth does not count, lost frames are left out."""
    true = faces(4)
    pred = true.copy()
    pred[:, list(PARTS["lips"]), 0] += 3
    pred[:, list(PARTS["lips"]), 1] += 4
    pred[..., 2] += 100
    assert len(set(PARTS["lips"])) == 40
    assert landmark_distance(pred, true) == pytest.approx(5)
    assert landmark_distance(pred, true, "face") == pytest.approx(5 * 40 / 478)
    pred[0] = np.nan
    assert landmark_distance(pred[..., :2], true) == pytest.approx(5)
    assert np.isnan(landmark_distance(pred[:1], true[:1]))
    for bad in ((pred[:2], true, "mouth"), (pred, true, "nose"), (pred[:, :68], true[:, :68], "face")):
        with pytest.raises(InputError):
            landmark_distance(*bad)


def test_aperture_is_lip_gap_over_face_height():
    """Known gap 30 over height 300; unchanged when the face is moved, scaled and turned; nan when lost."""
    points = faces(3)
    points[:, 13, :2] = (250, 300)
    points[:, 14, :2] = [(250, 300), (250, 315), (250, 330)]
    np.testing.assert_allclose(aperture(points), [0, 0.05, 0.1], atol=1e-6)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(aperture(2.5 * points[..., :2] @ turn + 40), [0, 0.05, 0.1], atol=1e-6)
    points[1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(aperture(points)).tolist() == [False, True, False]
        assert np.isnan(aperture(np.zeros((1, 478, 2)))).all() and np.isnan(blink_ratio(np.zeros((1, 478, 2)))).all()
    assert aperture(points[:0]).shape == (0,)


def test_blink_ratio_is_lid_gap_over_eye_width():
    """Both eyes count; one closed eye halves the value."""
    points = faces(1)
    for corners, lids in (((33, 133), ((160, 144), (159, 145), (158, 153))),
                          ((263, 362), ((387, 373), (386, 374), (385, 380)))):
        points[0, corners[0], :2], points[0, corners[1], :2] = (200, 200), (240, 200)
        for upper, lower in lids:
            points[0, upper, :2], points[0, lower, :2] = (220, 194), (220, 206)
    assert blink_ratio(points)[0] == pytest.approx(0.3)
    for upper, lower in lids:
        points[0, upper] = points[0, lower]
    assert blink_ratio(points * 3)[0] == pytest.approx(0.15)


@pytest.mark.parametrize("lag", [-7, -1, 0, 3, 10])
def test_lag_is_found_with_its_sign(lag):
    """Positive means that the first sequence is late: a render that lags must not be called early."""
    signal = np.convolve(np.random.default_rng(0).normal(size=160), np.ones(5), mode="same")
    b, a = signal[20:120], signal[20 - lag:120 - lag]
    zero, best, found = correlation_and_lag(a, 2 * b + 1)
    assert found == lag and best == pytest.approx(1)
    assert zero == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert correlation_and_lag(a, -b)[0] == pytest.approx(-zero)


def test_correlation_without_an_answer_is_nan():
    """Constant, short or lost sequences: nan and no warning; a few lost frames do not matter."""
    wave = np.sin(np.arange(50) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for a, b in ((np.full(50, 0.1), wave), (wave, np.zeros(50)), (wave[:2], wave[:2]), ([], []),
                     (np.full(50, np.nan), wave)):
            assert np.isnan(correlation_and_lag(a, b)).all()
        holes = wave.copy()
        holes[[3, 20]] = np.nan
        assert correlation_and_lag(holes, wave) == pytest.approx((1, 1, 0))
        assert correlation_and_lag(wave[:3], wave[:3]) == pytest.approx((1, 1, 0))
    with pytest.raises(InputError, match=r"\[50\] and \[49\]"):
        correlation_and_lag(wave, wave[1:])


def test_jitter_measures_noise_and_not_motion():
    """Independent noise of 0.5 px gives 0.5; steady motion gives nothing; too short gives nan."""
    still = faces(200)
    assert temporal_jitter(still + np.arange(200)[:, None, None] * 3.0) == pytest.approx(0, abs=1e-9)
    noisy = still + np.random.default_rng(0).normal(0, 0.5, still.shape)
    assert temporal_jitter(noisy) == pytest.approx(0.5, rel=0.02)
    noisy[50:60] = np.nan
    assert temporal_jitter(noisy) == pytest.approx(0.5, rel=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(temporal_jitter(still[:2]))
