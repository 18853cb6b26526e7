"""Protects: a batch is the same wherever its frames wait, with and without the torso behind them."""
import numpy as np
import pytest
import torch

from egstalker_nb import frames as module
from egstalker_nb.frames import Frames
from egstalker_nb.torso import CODES, Torso

IDS = [7, 2, 5]


@pytest.fixture
def torso(tiny_dataset):
    """A layer that no one learned: another picture behind every frame."""
    generator = torch.Generator().manual_seed(0)
    layer = Torso.blank(tiny_dataset.size, len(tiny_dataset))
    for values in (layer.picture, layer.plate):
        values.random_(0, 256, generator=generator)
    layer.fields.normal_(0, 0.1, generator=generator)
    layer.codes.normal_(generator=generator)
    assert layer.codes.shape == (12, CODES)
    return layer


@pytest.fixture(params=["device", "host", "disk"])
def waiting(request, tiny_dataset, monkeypatch):
    """Frames 2, 5 and 7 in each place; without a GPU there is no pinned memory, so ordinary memory stands for it."""
    real = torch.empty
    monkeypatch.setattr(module.torch, "empty", lambda *shape, pin_memory=False, **options: real(*shape, **options))
    return Frames(tiny_dataset, sorted(IDS), torch.device("cpu"), request.param)


def test_before_there_is_a_torso_there_is_no_background(waiting, tiny_dataset):
    batch = waiting.batch(IDS)
    assert set(batch) == {"ids", "frame", "head", "lips", "eyes", "w2c"} and batch["ids"].tolist() == IDS
    for i, picture, head, lips in zip(IDS, batch["frame"], batch["head"], batch["lips"]):
        np.testing.assert_array_equal((picture * 255).round().numpy(), tiny_dataset.frame(i))
        np.testing.assert_array_equal((head[..., 0] * 255).round().numpy(), tiny_dataset.mask(i)[..., 0])
        x0, y0, x1, y1 = tiny_dataset.lip_rect[i]
        assert lips[y0:y1, x0:x1].all() and lips.sum() == (x1 - x0) * (y1 - y0)


def test_the_torso_is_painted_behind_each_frame(waiting, torso):
    before = waiting.batch(IDS)
    assert waiting.paint(torso) is waiting
    batch = waiting.batch(IDS)
    assert batch.pop("background").sub(torso(torso.codes[IDS])).abs().max() <= 0.6 / 255, "rounded to bytes once"
    assert batch.keys() == before.keys()
    for name in before:
        assert torch.equal(batch[name], before[name]), name


def test_another_torso_is_painted_over(waiting, torso):
    """Poses that are refined give validation frames other torso codes."""
    waiting.paint(torso)
    torso.codes[2] += 1
    waiting.paint(torso)
    assert (waiting.batch([2])["background"] - torso(torso.codes[2:3])).abs().max() <= 0.6 / 255


def test_frames_that_were_read_ahead_are_the_same(waiting, torso):
    waiting.paint(torso).prefetch(IDS[:2])
    ahead = waiting.batch(IDS)
    waiting.prefetch([])
    again = waiting.batch(IDS)
    for name in again:
        assert torch.equal(ahead[name], again[name]), name
