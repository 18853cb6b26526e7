"""Protects: the torso follows any head pose without frames of the video, and never bends as it was not seen."""
import shutil

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import egstalker_nb as egs
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.model.torso import CODES, POSE, Torso
from egstalker_nb.training import fit_torso as fitting
from egstalker_nb.training.fit_torso import fit_torso


def loaded(ds):
    return Frames(ds, ds.train_ids, torch.device("cpu"))


@pytest.fixture(scope="module")
def torso(tiny_dataset):
    return fit_torso(tiny_dataset, loaded(tiny_dataset), steps=300)


def outside_error(picture, ds, i):
    """Mean absolute error where the head is not."""
    counts = torch.from_numpy(ds.mask(i)[..., :1] < 5)
    difference = (picture - torch.from_numpy(ds.frame(i)).float() / 255).abs() * counts
    return float(difference.sum() / (3 * counts.sum()))


def test_it_is_better_than_a_torso_that_stands_still(torso, tiny_dataset):
    """The torso of the fixture moves; its code in a frame is better than what follows from the head's pose alone."""
    ds = tiny_dataset
    still = torso(torso.codes[:ds.num_train].mean(0, keepdim=True))[0]
    assert ((torso(torso.codes) >= 0) & (torso(torso.codes) <= 1)).all()
    for ids in (ds.train_ids, ds.val_ids):
        error, standing, plate = (np.mean([outside_error(picture(i), ds, i) for i in ids]) for picture in (
            lambda i: torso(torso.codes[i:i + 1])[0], lambda i: still, lambda i: torch.from_numpy(ds.plate) / 255))
        assert error < 0.8 * standing < 0.5 * plate


def test_shoulders_that_move_by_themselves_are_followed(torso, tiny_dataset, tmp_path):
    """In validation frames too: their code is the torso's pose, which does not follow from the head's."""
    root, rows = tmp_path / "shrug", 3
    shutil.copytree(tiny_dataset.root, root)
    for i in tiny_dataset.val_ids:
        up, body = np.roll(tiny_dataset.frame(i), -rows, 0), np.roll(tiny_dataset.mask(i)[..., 1:2], -rows, 0) / 255
        frame = body * up + (1 - body) * tiny_dataset.frame(i)
        cv2.imwrite(str(root / "frames" / f"{i:06d}.jpg"), frame[..., ::-1])
    ds = egs.load_dataset(root)
    layer = fit_torso(ds, loaded(ds), steps=300)
    by_pose = layer.codes_of(torch.from_numpy(ds.w2c))
    followed, stayed = (np.mean([outside_error(layer(codes[i:i + 1])[0], ds, i) for i in ds.val_ids])
                        for codes in (layer.codes, by_pose))
    assert followed < 0.9 * stayed


def test_validation_frames_are_not_used(torso, tiny_dataset, tmp_path):
    """Scores of validation frames would mean nothing. Their codes are poses, which are their own."""
    ds, root = tiny_dataset, tmp_path / "changed"
    shutil.copytree(tiny_dataset.root, root)
    for i in tiny_dataset.val_ids:
        cv2.imwrite(str(root / "frames" / f"{i:06d}.jpg"), np.zeros((64, 64, 3), np.uint8))
    changed = egs.load_dataset(root)
    again = fit_torso(changed, loaded(changed), steps=300)
    for name, value in torso.state_dict().items():
        other = again.state_dict()[name]
        if name == "codes":
            assert not torch.equal(value[ds.num_train:], other[ds.num_train:])
            value, other = value[:ds.num_train], other[:ds.num_train]
        assert torch.equal(value, other), f"{name} differs: validation frames, or not repeatable"


def test_poses_never_seen_stay_within_those_seen(torso, tiny_dataset):
    """Orbits and other clips' poses: the codes stop at the edge, in all directions."""
    poses = torch.from_numpy(tiny_dataset.w2c)
    poses = poses[len(poses) // 4, None]
    codes = torso.codes_of(poses)
    moved = poses.repeat(3, 1, 1)
    moved[0, 0, 3] += 100
    moved[1, 1, 3] -= 100
    moved[2, :3, :3] = torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    furthest = (torch.maximum(torso.high.abs(), torso.low.abs())[:, None] * torso.mix.abs()).sum(0)
    assert (torso.codes_of(moved).abs() <= furthest + 1e-5).all()
    assert (torso.codes_of(moved) - codes).abs().amax(1).min() > 1e-3, "but they follow inside"
    assert torso(torso.codes_of(moved)).isfinite().all()
    assert (torso.high <= 3).all() and (torso.low >= -3).all() and torso.low.shape == (POSE,)


def test_a_checkpoint_holds_all_of_it(torso, tiny_dataset, tmp_path):
    save_file({k: v.contiguous() for k, v in torso.state_dict().items()}, tmp_path / "torso.safetensors")
    blank = Torso.blank(tiny_dataset.size, len(tiny_dataset))
    blank.load_state_dict(load_file(tmp_path / "torso.safetensors"))
    codes = torso.codes[:3]
    assert torch.equal(blank(codes), torso(codes)) and codes.shape == (3, CODES)
    assert not any(p.requires_grad for p in torso.parameters()), "a head's training must not move it"


def test_layers_of_earlier_versions_load(torso, tiny_dataset, tmp_path):
    """They had 8 fields of 12 x 12 points."""
    cfg = egs.load_config("quick_test", iterations=1, coarse_iterations=1, torso_steps=1)
    run = egs.train(tiny_dataset, cfg, tmp_path / "run", device="cpu")
    tensors = {name: value.clone() for name, value in run.load_head(device="cpu").state_dict().items()}
    tensors |= {"torso.fields": tensors["torso.fields"][:8, :, :12, :12], "torso.mix": tensors["torso.mix"][:, :8],
                "torso.codes": tensors["torso.codes"][:, :8]}
    layer = run.head_of(tensors).torso
    assert layer(layer.codes_of(torch.from_numpy(tiny_dataset.w2c))).isfinite().all() and layer.codes.shape[1] == 8


def test_a_chin_that_rises_uncovers_torso_and_not_the_plate(torso, tiny_dataset):
    """Just inside the lowest point of the head, where it always hid the torso, the layer shows torso."""
    ds = tiny_dataset
    head = np.min([ds.mask(i)[..., 0] for i in ds.train_ids], axis=0) > 250
    column = ds.size // 2
    row = np.flatnonzero(head[:, column])[-1] - 1
    shown = torso(torso.codes)[:, row, column]
    plate, cloth = torch.from_numpy(ds.plate[row, column]) / 255, torch.tensor([0.2, 0.25, 0.45])
    assert (shown - cloth).abs().mean() < 0.7 * (plate - cloth).abs().mean()


def test_where_no_torso_was_there_is_the_plate(torso, tiny_dataset):
    """Neither hair at the edge of the head nor a change of colour may leak into the background."""
    upper = torso(torso.codes)[:, :tiny_dataset.size // 3]
    torch.testing.assert_close(upper, torch.from_numpy(tiny_dataset.plate[:tiny_dataset.size // 3]).float().div(255)
                               .expand_as(upper), atol=1e-3, rtol=0)


def test_a_clip_without_a_torso_shows_its_plate(tiny_dataset, tmp_path):
    root = tmp_path / "headless"
    shutil.copytree(tiny_dataset.root, root)
    for path in (root / "masks").glob("*.png"):
        mask = cv2.imread(str(path))
        mask[..., 0] += mask[..., 1]
        mask[..., 1] = 0
        cv2.imwrite(str(path), mask)
    ds = egs.load_dataset(root)
    layer = fit_torso(ds, loaded(ds), steps=5)
    assert (layer(layer.codes[:1])[0] - torch.from_numpy(ds.plate) / 255).abs().max() < 1e-3


def test_longer_clips_are_learned_for_longer(tiny_dataset, monkeypatch):
    """Half a minute must not be worse than its last ten seconds: 10 frames stand for twice, then for five times as many
    as the steps are meant for, of which three times count."""
    layers = {steps: fit_torso(tiny_dataset, loaded(tiny_dataset), steps=steps).state_dict() for steps in (10, 20, 30)}
    for base, most, as_many in ((5, 15, 20), (2, 6, 30), (20, 60, 10)):
        monkeypatch.setattr(fitting, "BASE_FRAMES", base)
        monkeypatch.setattr(fitting, "MAX_FRAMES", most)
        found = fit_torso(tiny_dataset, loaded(tiny_dataset), steps=10).state_dict()
        assert all(torch.equal(found[name], value) for name, value in layers[as_many].items()), (base, most)
    assert not torch.equal(layers[10]["picture"], layers[20]["picture"])
