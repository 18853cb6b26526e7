"""Protects: a batch is the same wherever its frames wait, with and without the torso behind them; and they wait in
memory only where there is enough of it."""
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from egstalker_nb.core import device
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


# ---- memory ----

NEEDED = 10 * 64 * 64 * module.BYTES_PER_PIXEL


@pytest.mark.parametrize("available, most, place", [
    (2 * NEEDED, NEEDED, "device"), (2 * NEEDED - 1, NEEDED, "disk"), (2 * NEEDED, NEEDED - 1, "disk"),
    (0, NEEDED, "disk")])
def test_frames_stay_in_memory_only_if_half_of_it_is_enough(tiny_dataset, monkeypatch, available, most, place):
    monkeypatch.setattr(module, "available_memory", lambda: available)
    monkeypatch.setattr(module, "MAX_CPU_BYTES", most)
    assert Frames(tiny_dataset, tiny_dataset.train_ids, torch.device("cpu")).place == place


@pytest.mark.parametrize("gpu, available, place", [
    (4 * NEEDED, 0, "device"), (NEEDED, 2 * NEEDED, "host"), (NEEDED, 2 * NEEDED - 1, "disk")])
def test_beside_a_gpu_they_are_pinned_only_if_there_is_memory(tiny_dataset, monkeypatch, gpu, available, place):
    monkeypatch.setattr(module, "available_memory", lambda: available)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu, gpu))
    frames = Frames(tiny_dataset, [0], torch.device("cpu"), "disk")
    frames.device = torch.device("cuda")
    assert frames._choose(NEEDED) == place


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A /proc and a /sys/fs/cgroup of its own: `write` makes files in them."""
    monkeypatch.setattr(device, "PROC", tmp_path / "proc")
    monkeypatch.setattr(device, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable:    2000 kB\n")
    write("proc/self/status", "Name: python\nVmSize: 900 kB\nVmData: 300 kB\n")
    return write


def test_what_the_computer_has_is_available(system):
    assert device.available_memory() == 2000 * 1024


def test_limits_of_the_process_count(system, monkeypatch):
    limits = {resource.RLIMIT_AS: 2_000_000, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], -1))
    assert device.available_memory() == 2_000_000 - 900 * 1024
    limits[resource.RLIMIT_DATA] = 1_000_000
    assert device.available_memory() == 1_000_000 - 300 * 1024
    limits[resource.RLIMIT_DATA] = 1000
    assert device.available_memory() == 0


def test_limits_of_containers_count(system):
    system("proc/self/cgroup", "0::/user/job\n")
    system("cgroup/user/job/memory.max", "max\n")
    system("cgroup/user/job/memory.current", "500\n")
    system("cgroup/user/job/memory.stat", "anon 400\ninactive_file 100\n")
    assert device.available_memory() == 2000 * 1024
    system("cgroup/user/memory.max", "10000\n")
    system("cgroup/user/memory.current", "7000\n")
    system("cgroup/user/memory.stat", "inactive_file 1000\n")
    assert device.available_memory() == 10000 - 7000 + 1000, "of the group around it; files that are cached can go"
    system("cgroup/user/job/memory.max", "2000\n")
    assert device.available_memory() == 2000 - 500 + 100


def test_limits_of_containers_of_version_1_count(system):
    system("proc/self/cgroup", "5:cpu:/job\n4:memory:/not/visible/here\n0::/\n")
    system("cgroup/memory/memory.limit_in_bytes", "9000\n")
    system("cgroup/memory/memory.usage_in_bytes", "8000\n")
    system("cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n")
    assert device.available_memory() == 1500


def test_a_system_that_does_not_tell_has_no_limit(system, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)
    monkeypatch.setattr(device, "PROC", device.PROC / "none")
    assert device.available_memory() == 2 ** 62
