"""Protects: a damaged dataset is named."""
import json
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import egstalker_nb as egs
from egstalker_nb.core.errors import DatasetError


@pytest.fixture
def copy(tiny_dataset, tmp_path):
    return shutil.copytree(tiny_dataset.root, tmp_path / "copy")


def test_split_is_first_ten_elevenths(tiny_dataset):
    assert list(tiny_dataset.train_ids) == list(range(10)) and list(tiny_dataset.val_ids) == [10, 11]
    with pytest.raises(DatasetError, match="'test'"):
        tiny_dataset.split("test")


def test_missing_and_unfinished_folders_are_errors(tmp_path, copy):
    (copy / "dataset.json").unlink()
    for folder in (tmp_path / "none", copy):
        with pytest.raises(DatasetError, match="egs.prepare"):
            egs.load_dataset(folder)


@pytest.mark.parametrize("name", ["tracking.npz", "features.npy", "dataset.json"])
def test_damaged_files_are_errors(copy, name):
    (copy / name).write_bytes(b"cut")
    with pytest.raises(DatasetError):
        egs.load_dataset(copy)


def test_features_of_another_length_are_an_error(copy):
    np.save(copy / "features.npy", np.zeros((5, 16, 29), np.float32))
    with pytest.raises(DatasetError, match=r"\(12, 16, 29\); found \(5, 16, 29\)"):
        egs.load_dataset(copy)


def test_nothing_is_unpickled(copy):
    np.save(copy / "features.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError):
        egs.load_dataset(copy)


def test_head_box_holds_the_head_of_every_frame(tiny_dataset):
    x0, y0, x1, y1 = tiny_dataset.head_box
    for i in range(len(tiny_dataset)):
        head = tiny_dataset.mask(i)[..., 0].copy()
        assert head[y0:y1, x0:x1].max() == 255
        head[y0:y1, x0:x1] = 0
        assert head.max() == 0
    assert (x1 - x0, y1 - y0) <= (64, 64)


def test_a_missing_image_is_named(copy):
    (copy / "frames" / "000003.jpg").unlink()
    with pytest.raises(DatasetError, match="000003.jpg"):
        egs.load_dataset(copy).frame(3)


def test_hash_follows_the_content(tiny_dataset, copy):
    assert egs.load_dataset(copy).hash == tiny_dataset.hash
    with np.load(copy / "tracking.npz") as file:
        np.savez(copy / "tracking.npz", **{**file, "w2c": file["w2c"] + np.float32(1e-3)})
    assert egs.load_dataset(copy).hash != tiny_dataset.hash, "tracked otherwise"
    shutil.copy(tiny_dataset.root / "tracking.npz", copy / "tracking.npz")
    ds = egs.load_dataset(copy)
    ds.w2c = ds.w2c + np.float32(1e-3)
    assert ds.hash == tiny_dataset.hash, "poses that were not tracked do not count"
    meta = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**meta, "focal": 129.0}))
    assert egs.load_dataset(copy).hash != tiny_dataset.hash


def test_a_frame_as_tensors(tiny_dataset):
    """A torch DataLoader serves them; what numpy and torch indices can do, a dataset can."""
    batch = next(iter(DataLoader(tiny_dataset, batch_size=3, sampler=[2, 0, 11])))
    assert batch["id"].tolist() == [2, 0, 11] and batch["frame"].shape == batch["mask"].shape == (3, 64, 64, 3)
    np.testing.assert_array_equal((255 * batch["frame"][0]).round().numpy(), tiny_dataset.frame(2))
    torch.testing.assert_close(batch["mask"].sum(-1), torch.ones(3, 64, 64))
    np.testing.assert_array_equal(batch["w2c"], tiny_dataset.w2c[[2, 0, 11]])
    assert batch["features"].shape == (3, 16, 29) and batch["eyes"].shape == (3, 7)
    assert tiny_dataset[-1]["id"] == 11 and len(list(tiny_dataset)) == 12
    for wrong in (12, -13):
        with pytest.raises(IndexError, match="12"):
            tiny_dataset[wrong]
