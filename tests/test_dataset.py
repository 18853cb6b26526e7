"""Protects: a damaged dataset is named, and one that was ever written is read for ever. (More damage is in
`tests/faults/dataset_cases.py`.)"""
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import egstalker_nb as egs
from egstalker_nb.core.errors import DatasetError
from egstalker_nb.data import dataset_files

FORMATS = Path(__file__).parent / "data" / "formats"


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
    with pytest.raises(DatasetError, match=r"float32 \[5, 16, 29\] instead of floats \[12, 16, 29\]"):
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


# ---- formats ----

def test_a_dataset_of_format_1_is_read_as_it_was_when_it_was_written():
    """The folder is never made again (see its README): what users have must load in every later version."""
    ds = egs.load_dataset(FORMATS / "dataset_1")
    assert ds.hash == "5c3d57a8f321", "runs that were trained on it would refuse it"
    assert (len(ds), ds.size, ds.num_train, ds.focal, ds.encoder["name"]) == (12, 64, 10, 160.0, "phones")
    assert ds.frame(11).shape == ds.mask(11).shape == ds.plate.shape == (64, 64, 3) and len(ds.audio()) == 12 * 640
    assert np.isfinite(ds.eyes).all() and np.isfinite(ds.mouth).all() and ds.report["warnings"]


def test_formats_that_are_in_the_tests_are_all_that_there_have_been():
    written = {int(path.name.removeprefix("dataset_")) for path in FORMATS.glob("dataset_*")}
    assert written == set(range(1, dataset_files.FORMAT + 1)) and set(dataset_files.MIGRATIONS) == written - {
        dataset_files.FORMAT}


@pytest.fixture
def next_format(monkeypatch):
    """As if a later version stored the eyelids the other way round."""
    def migrate(meta, arrays):
        return {**meta, "format": 2, "size": meta["size"]}, {**arrays, "blink": 1 - arrays["blink"]}

    monkeypatch.setattr(dataset_files, "FORMAT", 2)
    monkeypatch.setitem(dataset_files.MIGRATIONS, 1, migrate)


def test_a_dataset_of_an_earlier_format_is_migrated_and_stays_the_one_that_runs_know(tiny_dataset, next_format):
    ds = egs.load_dataset(tiny_dataset.root)
    np.testing.assert_array_equal(ds.blink, 1 - tiny_dataset.blink)
    assert ds.meta["format"] == 2 and ds.hash == tiny_dataset.hash


def test_a_migration_that_fails_says_that_the_dataset_is_damaged(copy, next_format):
    with np.load(copy / "tracking.npz") as file:
        np.savez(copy / "tracking.npz", **{name: file[name] for name in file.files if name != "blink"})
    with pytest.raises(DatasetError, match="not of format 1"):
        egs.load_dataset(copy)


# ---- places ----

def test_datasets_load_wherever_they_lie(tiny_dataset, tmp_path, monkeypatch):
    moved = shutil.copytree(tiny_dataset.root, tmp_path / "ä folder with spaces" / "-dash")
    (tmp_path / "link").symlink_to(moved)
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for path in moved.iterdir():
        (pieces / path.name).symlink_to(path)
    monkeypatch.chdir(moved.parent)
    for place in (moved, tmp_path / "link", pieces, "-dash", os.path.join("..", "link")):
        ds = egs.load_dataset(place)
        assert ds.hash == tiny_dataset.hash and ds.frame(3).shape == (64, 64, 3), place


def test_a_dataset_that_cannot_be_written_to_is_used(copy, tiny_dataset):
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        ds = egs.load_dataset(copy)
        assert ds.hash == tiny_dataset.hash and ds.head_box and ds.report
    finally:
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755)


def test_files_that_do_not_belong_to_it_are_ignored(copy):
    for name in (".DS_Store", "frames/Thumbs.db", "frames/.000000.jpg.swp", "masks/notes.txt", "report.html"):
        (copy / name).touch()
    assert len(egs.load_dataset(copy)) == 12


def test_arrays_of_another_byte_order_or_precision_are_used(copy, tiny_dataset):
    with np.load(copy / "tracking.npz") as file:
        np.savez(copy / "tracking.npz", **{
            name: file[name].astype({"f": ">f8", "i": ">i8", "b": "?"}[file[name].dtype.kind]) for name in file.files})
    ds = egs.load_dataset(copy)
    for name in dataset_files.TRACKING:
        found, expected = getattr(ds, name), getattr(tiny_dataset, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype, f"{name}: torch cannot use {found.dtype}"


# ---- what is read later ----

@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{"),
                                    lambda path: path.write_text("[]"), lambda path: path.write_text("{}")])
def test_a_dataset_without_its_report_can_be_trained_on(copy, damage):
    damage(copy / "report.json")
    ds = egs.load_dataset(copy)
    with pytest.raises(DatasetError, match="report"):
        print(ds.report)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("name", ["frames/000003.jpg", "masks/000003.png"])
def test_an_image_that_is_cut_off_is_no_image(copy, name, share):
    """A decoder would fill up the rest of it with grey, on which a head would be trained."""
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:int(share * len(data))])
    ds = egs.load_dataset(copy)
    with pytest.raises(DatasetError, match=rf"(?s){name}.*cut off"):
        ds[3]
