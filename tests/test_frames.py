"""Protects: a batch is the same wherever its frames wait, with and without the torso behind them."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from egstalker_nb.data import frame_loader as module
from egstalker_nb.data.conditions import Conditions
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.model.torso import CODES, Torso

IDS = [7, 2, 5]
POSES = torch.arange(12 * 16.0).reshape(12, 4, 4)  # of a head; other ones than those that were tracked


@pytest.fixture
def torso(tiny_dataset):
    """A layer that was never fitted: another image behind every frame."""
    generator = torch.Generator().manual_seed(0)
    layer = Torso.blank(tiny_dataset.size, len(tiny_dataset))
    for values in (layer.picture, layer.plate):
        values.random_(0, 256, generator=generator)
    layer.fields.normal_(0, 0.1, generator=generator)
    layer.codes.normal_(generator=generator)
    assert layer.codes.shape == (12, CODES)
    return layer


@pytest.fixture
def head(torso):
    """As much of a head as frames need."""
    w2c, mouth = POSES.clone(), torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(w2c=w2c, background=lambda ids: torso(torso.codes[ids]),
                           conditions=lambda ids, eyes: Conditions(mouth[ids], eyes, w2c[ids]))


@pytest.fixture(params=["device", "host", "disk"])
def waiting(request, tiny_dataset, monkeypatch):
    """Frames 2, 5 and 7 in each place; without a GPU there is no pinned memory, so ordinary memory stands for it."""
    real = torch.empty
    monkeypatch.setattr(module.torch, "empty", lambda *shape, pin_memory=False, **options: real(*shape, **options))
    return Frames(tiny_dataset, sorted(IDS), torch.device("cpu"), request.param)


def test_before_there_is_a_head_there_is_no_background_and_poses_are_as_tracked(waiting, tiny_dataset):
    batch = waiting.batch(IDS)
    assert set(batch) == {"ids", "frame", "head", "lips"} and batch["ids"].tolist() == IDS
    np.testing.assert_array_equal(waiting.w2c[IDS], tiny_dataset.w2c[IDS])
    for i, picture, head, lips in zip(IDS, batch["frame"], batch["head"], batch["lips"]):
        np.testing.assert_array_equal((picture * 255).round().numpy(), tiny_dataset.frame(i))
        np.testing.assert_array_equal((head[..., 0] * 255).round().numpy(), tiny_dataset.mask(i)[..., 0])
        x0, y0, x1, y1 = tiny_dataset.lip_rect[i]
        assert lips[y0:y1, x0:x1].all() and lips.sum() == (x1 - x0) * (y1 - y0)


def test_a_head_brings_its_poses_and_the_torso_behind_each_frame(waiting, head, torso):
    before = waiting.batch(IDS)
    assert waiting.for_head(head) is waiting
    batch = waiting.batch(IDS)
    given = waiting.conditions(batch["ids"])
    assert torch.equal(given.w2c, POSES[IDS]) and torch.equal(given.network_pose, POSES[IDS])
    np.testing.assert_array_equal(given.eyes, waiting.ds.eyes[IDS])
    assert batch.pop("background").sub(torso(torso.codes[IDS])).abs().max() <= 0.6 / 255, "rounded to bytes once"
    assert batch.keys() == before.keys()
    for name in before:
        assert torch.equal(batch[name], before[name]), name


def test_refined_poses_are_followed(waiting, head, torso):
    """Training goes on with them at once; validation frames get other torso codes, which are painted over the old."""
    waiting.for_head(head)
    head.w2c[2] += 1
    assert torch.equal(waiting.conditions(torch.tensor([2])).w2c[0], POSES[2] + 1)
    torso.codes[2] += 1
    waiting.for_head(head)
    assert (waiting.batch([2])["background"] - torso(torso.codes[2:3])).abs().max() <= 0.6 / 255


def test_frames_that_were_read_ahead_are_the_same(waiting, head):
    waiting.for_head(head).prefetch(IDS[:2])
    ahead = waiting.batch(IDS)
    waiting.prefetch([])
    again = waiting.batch(IDS)
    for name in again:
        assert torch.equal(ahead[name], again[name]), name
