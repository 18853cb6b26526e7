"""The discriminator of mouths: what it crops, how hard it pulls and where to, and a run that it takes part in."""
import copy
import dataclasses

import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.errors import ConfigError
from egstalker_nb.training.data_parallel import check_batch
from egstalker_nb.training.discriminator import MouthDiscriminator

CPU, SIZE = torch.device("cpu"), 64
LIPS = torch.tensor([[24, 40, 44, 52], [0, 0, 6, 4], [58, 60, 64, 64]])  # in the middle, and in two corners
SMALL = dict(iterations=40, coarse_iterations=8, batch_size=2, pose_steps=0, checkpoint_interval=25,
             plane_resolution=[8, 16], adversarial_share=0.5)


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return MouthDiscriminator(SIZE, 0.5, CPU)


def striped(phase, contrast):
    """[3, S, S, 3] stripes across the image, as teeth are."""
    wave = 0.5 + contrast * torch.sin(torch.arange(SIZE) * 1.5 + phase)
    return wave[None, None, :, None].expand(len(LIPS), SIZE, SIZE, 3).contiguous()


def test_crops_lie_around_the_lips_and_inside_the_image(judge):
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    at = torch.stack([y, x, torch.zeros_like(x)], -1)
    crops = ((judge.mouths(at.expand(3, -1, -1, -1).float(), LIPS) + 1) / 2).long()
    assert crops.shape == (3, 3, *judge.crop) and judge.crop == (16, 16)
    assert [crops[i, :2, 0, 0].tolist() for i in range(3)] == [[38, 26], [0, 0], [48, 48]], "y, x of the first pixel"
    assert crops[0, :2, -1, -1].tolist() == [53, 41]


def test_the_pull_is_a_share_of_the_gradient_of_the_loss_and_ends_at_the_mouth(judge):
    rgb, gradient = torch.rand(3, SIZE, SIZE, 3), torch.randn(3, SIZE, SIZE, 3)
    pull = judge.pull(rgb, torch.rand(3, SIZE, SIZE, 3), LIPS, gradient)
    there = pull != 0
    assert pull.norm().item() == pytest.approx(0.5 * (gradient * there).norm().item(), rel=1e-4)
    inside = torch.zeros_like(there)
    inside[0, 38:54, 26:42], inside[1, :16, :16], inside[2, 48:, 48:] = True, True, True
    assert there.any() and not (there & ~inside).any()


def test_blurred_stripes_become_as_strong_as_the_real_ones(judge):
    """Also where their place is unknown, and a mean would be the best answer of a loss on pixels."""
    phases, contrast = torch.Generator().manual_seed(1), torch.tensor(0.05, requires_grad=True)
    optimizer = torch.optim.Adam([contrast], lr=0.01)
    for _ in range(200):
        place, other = 6.3 * torch.rand(2, generator=phases)
        image = 0.5 + contrast * (striped(place, 1.0) - 0.5)
        image.backward(judge.pull(image, striped(other, 0.4), LIPS, torch.ones_like(image)))
        optimizer.step()
        optimizer.zero_grad()
    assert 0.25 < abs(contrast.item()) < 0.6


def test_a_run_with_it_goes_on_exactly_where_it_was_stopped(tiny_dataset, tmp_path):
    cfg = egs.load_config("quick_test", **SMALL)
    whole = egs.train(tiny_dataset, cfg, tmp_path / "whole")
    egs.train(tiny_dataset, cfg, tmp_path / "parts", until=25)
    parts = egs.train(tiny_dataset, cfg, tmp_path / "parts")
    plain = egs.train(tiny_dataset, dataclasses.replace(cfg, adversarial_share=0.0), tmp_path / "plain")
    one, same, other = (run.load_head().state_dict() for run in (whole, parts, plain))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["gaussians.means"], other["gaussians.means"])
    early = [run.load_head(8).state_dict() for run in (whole, plain)]
    assert all(torch.equal(early[0][name], early[1][name]) for name in one), "it takes no part in the coarse stage"
    assert np.isfinite(egs.evaluate(whole, "val")["psnr_composite"])


def test_several_gpus_refuse_it():
    cfg = egs.load_config("production", batch_size=2, adversarial_share=0.5)
    check_batch(cfg, 1)
    with pytest.raises(ConfigError, match="adversarial_share"):
        check_batch(cfg, 2)


def test_it_learns_the_same_from_crops_in_any_memory_order(judge):
    """Crops of images are interleaved in memory, and so are gradients of convolutions over them."""
    start, other = copy.deepcopy(judge), copy.deepcopy(judge)
    rendered, real = torch.rand(2, 3, 3, *judge.crop)
    judge.learn(rendered, real)
    other.learn(*(x.to(memory_format=torch.channels_last) for x in (rendered, real)))
    for a, b, before in zip(*(x.parameters() for x in (judge, other, start))):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
        assert a.ndim == 1 or not torch.equal(a, before)
