"""The discriminator of mouths: what it crops, how hard it pulls and where to, and a run that it takes part in."""
import copy
import dataclasses

import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.training.discriminator import BETAS, RATE, MouthDiscriminator

CPU, SIZE = torch.device("cpu"), 64
LIPS = torch.tensor([[24, 40, 44, 52], [0, 0, 6, 4], [58, 60, 64, 64]])  # in the middle, and in two corners
SMALL = dict(iterations=30, coarse_iterations=8, batch_size=2, pose_steps=0, checkpoint_interval=5, keep_checkpoints=9,
             plane_resolution=[8, 16], adversarial_share=0.5)


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return MouthDiscriminator(SIZE, 0.5, len(LIPS), CPU)


def inside(lips):
    """[B, S, S, 1] masks of lip rectangles."""
    masks = torch.zeros(len(lips), SIZE, SIZE, 1)
    for mask, (x0, y0, x1, y1) in zip(masks, lips):
        mask[y0:y1, x0:x1] = 1
    return masks


def step(judge, images, lips, gradient):
    """The pull on the first of two images, and the gradients of the parameters."""
    judge.zero_grad()
    judge.judge(*images, lips)
    pulled = judge.pull(gradient, inside(lips))
    judge.join()
    return pulled, [p.grad for p in judge.parameters()]


def striped(phase, contrast):
    """[3, S, S, 3] stripes across the image, as teeth are."""
    wave = 0.5 + contrast * torch.sin(torch.arange(SIZE) * 1.5 + phase)
    return wave[None, None, :, None].expand(len(LIPS), SIZE, SIZE, 3).contiguous()


def test_crops_lie_around_the_lips_and_inside_the_image(judge):
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    at = torch.stack([y, x, torch.zeros_like(x)], -1)
    crops = ((judge.mouths(LIPS, at.expand(3, -1, -1, -1).float()) + 1) / 2).long()
    assert crops.shape == (3, 3, *judge.crop) and judge.crop == (16, 16)
    assert [crops[i, :2, 0, 0].tolist() for i in range(3)] == [[38, 26], [0, 0], [48, 48]], "y, x of the first pixel"
    assert crops[0, :2, -1, -1].tolist() == [53, 41]


def test_the_pull_is_a_share_of_the_gradient_of_the_loss_and_ends_at_the_lips(judge):
    rgb, gradient = torch.rand(3, SIZE, SIZE, 3), torch.randn(3, SIZE, SIZE, 3)
    pulled, _ = step(judge, (rgb, torch.rand(3, SIZE, SIZE, 3)), LIPS, gradient)
    for own, given, lips in zip(pulled, gradient, inside(LIPS)):
        assert own.norm().item() == pytest.approx(0.5 * (given * lips).norm().item(), rel=1e-4)
        assert not (own * (1 - lips)).any()


def test_blurred_stripes_become_as_strong_as_the_real_ones(judge):
    """Also where their place is unknown, and a mean would be the best answer of a loss on pixels."""
    phases, contrast = torch.Generator().manual_seed(1), torch.tensor(0.05, requires_grad=True)
    optimizers = torch.optim.Adam([contrast], lr=0.01), torch.optim.Adam(judge.parameters(), RATE, BETAS)
    found = []
    for _ in range(200):
        place, other = 6.3 * torch.rand(2, generator=phases)
        image = 0.5 + contrast * (striped(place, 1.0) - 0.5)
        image.backward(step(judge, (image, striped(other, 0.4)), LIPS, torch.ones_like(image))[0])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        found.append(contrast.item())
    assert np.mean(found[50:]) == pytest.approx(0.4, abs=0.1)


def test_a_run_with_it_goes_on_exactly_where_it_was_stopped(tiny_dataset, tmp_path):
    cfg = egs.load_config("quick_test", **SMALL)
    whole = egs.train(tiny_dataset, cfg, tmp_path / "whole")
    egs.train(tiny_dataset, cfg, tmp_path / "parts", until=25)
    parts = egs.train(tiny_dataset, cfg, tmp_path / "parts")
    plain = egs.train(tiny_dataset, dataclasses.replace(cfg, adversarial_share=0.0), tmp_path / "plain")
    one, same, other = (run.load_head().state_dict() for run in (whole, parts, plain))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["gaussians.means"], other["gaussians.means"])
    early = [run.load_head(20).state_dict() for run in (whole, plain)]
    assert all(torch.equal(early[0][name], early[1][name]) for name in one), "it takes part in the last third only"
    assert np.isfinite(egs.evaluate(whole, "val")["psnr_composite"])


def test_gpus_that_share_a_batch_learn_as_one_does(judge):
    """Each has its own frames, and the gradients are summed."""
    images, others = torch.rand(2, 3, SIZE, SIZE, 3), [copy.deepcopy(judge) for _ in range(2)]
    pulled, whole = step(judge, images, LIPS, torch.ones(3, SIZE, SIZE, 3))
    (first, some), (second, rest) = (step(other, images[:, at], LIPS[at], torch.ones_like(images[0, at]))
                                     for other, at in zip(others, (slice(1), slice(1, 3))))
    torch.testing.assert_close(torch.cat([first, second]), pulled)
    for a, b, both in zip(some, rest, whole):
        torch.testing.assert_close(a + b, both, atol=1e-7, rtol=1e-4)


def test_crops_in_any_memory_order_give_gradients_in_that_of_the_parameters(judge, monkeypatch):
    """Crops of images are interleaved in memory, and fused Adam reads gradients as the parameters lie."""
    images, other = torch.rand(2, 3, SIZE, SIZE, 3), copy.deepcopy(judge)
    monkeypatch.setattr(other, "mouths", lambda *given: judge.mouths(*given).contiguous())
    wanted, found = (step(one, images, LIPS, images[0])[1] for one in (judge, other))
    for a, b, parameter in zip(wanted, found, judge.parameters()):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-4)
        assert a.stride() == parameter.stride()
