"""Protects: damaged checkpoints are named and left out, files of others stay, and a run says what it lacks."""
import json
import shutil
import warnings

import pytest
import torch
from test_training import small, tensors

import egstalker_nb as egs
from egstalker_nb.core.errors import ConfigError, DatasetError, InputError, MemoryLimitError, TrainingError
from egstalker_nb.training import history
from egstalker_nb.training.trainer import Trainer

SHORT = dict(iterations=30, coarse_iterations=10, checkpoint_interval=20, eval_interval=20, pose_steps=0)


def short(**more):
    return small(**{**SHORT, **more})


def assert_same(a, b):
    (flat_a, trainer_a), (flat_b, trainer_b) = tensors(a, 30), tensors(b, 30)
    assert [k for k in flat_a if not torch.equal(flat_a[k], flat_b[k])] == []
    assert flat_a.keys() == flat_b.keys() and torch.equal(trainer_a["rng"], trainer_b["rng"])


@pytest.fixture(scope="module")
def uninterrupted(tiny_dataset, tmp_path_factory):
    return egs.train(tiny_dataset, short(), tmp_path_factory.mktemp("run") / "a", device="cpu")


def flipped(path):
    """Change one byte of a file, as a bad disk does; only a checksum can tell."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["head.safetensors", "state.json", "missing"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(uninterrupted, tiny_dataset, tmp_path, name):
    root = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    newest, before = uninterrupted.iterations[:-3:-1]
    file = root / "checkpoints" / f"iteration_{newest}" / ("head.safetensors" if name == "missing" else name)
    if name == "missing":
        file.unlink()
    elif name == "state.json":
        file.write_bytes(b"\0" * 100)
    else:
        flipped(file)
    run = egs.load_run(root, dataset=tiny_dataset.root)
    with pytest.warns(UserWarning, match=f"iteration_{newest} is damaged.*{file.name}.*the one before is used"):
        assert run.pick() == before
    with pytest.raises(DatasetError, match=f"(?s){file.name}.*Use iteration {before}"):
        run.load_head(newest, device="cpu")
    with pytest.raises(DatasetError, match=r"iteration of 7|iteration 7"):
        run.load_head(7, device="cpu")


def test_a_head_without_the_state_of_training_is_complete(uninterrupted, tiny_dataset, tmp_path):
    """People pass on what renders, and delete the rest to save space; a finished run stays finished."""
    root = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    for path in [*root.glob("checkpoints/*/trainer.pt"), *root.glob("checkpoints/*/point_cloud.ply")]:
        path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = egs.train(tiny_dataset, short(), root, device="cpu")
        assert run.pick() == 30 and len(run.load_head(device="cpu")) == len(uninterrupted.load_head(device="cpu"))


def test_training_sets_a_damaged_checkpoint_aside_and_does_its_steps_again(uninterrupted, tiny_dataset, tmp_path):
    root = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    flipped(root / "checkpoints" / "iteration_30" / "head.safetensors")
    flipped(root / "checkpoints" / "iteration_20" / "trainer.pt")
    with pytest.warns(UserWarning, match="iteration_(30|20) is damaged"):
        run = egs.train(tiny_dataset, short(), root, device="cpu")
    assert_same(uninterrupted, run)
    assert {p.name for p in root.glob("checkpoints/*.damaged")} == {"iteration_20.damaged", "iteration_30.damaged"}


def test_without_an_intact_checkpoint_the_run_says_so(uninterrupted, tmp_path):
    root = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    for iteration in uninterrupted.iterations:
        flipped(root / "checkpoints" / f"iteration_{iteration}" / "head.safetensors")
    with pytest.warns(UserWarning), pytest.raises(DatasetError, match="all damaged"):
        egs.load_run(root).load_head(device="cpu")


def test_only_so_many_checkpoints_are_kept(uninterrupted, tiny_dataset, tmp_path):
    """The disk of a long run does not fill up; the coarse stage's and the newest stay, and the result is the same."""
    cfg = short(keep_checkpoints=2, checkpoint_interval=5)
    run = egs.train(tiny_dataset, cfg, tmp_path / "run", device="cpu")
    assert run.iterations == [cfg.coarse_iterations, 25, 30]
    assert_same(uninterrupted, run)


def test_saving_more_or_less_often_is_not_another_run(uninterrupted, tiny_dataset, tmp_path):
    root = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    run = egs.train(tiny_dataset, short(keep_checkpoints=3, checkpoint_interval=7), root, device="cpu")
    assert run.config.keep_checkpoints == 3
    with pytest.raises(ConfigError, match="seed"):
        egs.train(tiny_dataset, short(seed=5), root, device="cpu")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "notes.txt",
                                  "checkpoints/iteration_9/head.safetensors"])
def test_files_of_others_are_not_overwritten(tiny_dataset, tmp_path, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(InputError, match=f"{name.split('/')[0]}.*would overwrite"):
        egs.train(tiny_dataset, short(), tmp_path / "mine", device="cpu")
    assert file.read_text() == "mine" and [p for p in (tmp_path / "mine").rglob("*") if p.is_file()] == [file]


def test_a_torn_metrics_file_does_not_stop_a_run(uninterrupted, tiny_dataset, tmp_path):
    """A power cut leaves NULs and halves of rows."""
    root = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    shutil.rmtree(root / "checkpoints" / "iteration_30")
    with open(root / "metrics.jsonl", "ab") as file:
        file.write(b"\0" * 512 + b'\n{"kind": "tr\n[1, 2]\n{"kind": "train"}\n' + b"\xff\n")
    assert egs.load_run(root).metrics() == uninterrupted.metrics()
    assert history.History(root).rows == uninterrupted.metrics()
    run = egs.train(tiny_dataset, short(), root, device="cpu")
    assert_same(uninterrupted, run)


def test_pruning_every_gaussian_is_an_error(tiny_dataset, tmp_path):
    with pytest.raises(TrainingError, match="(?s)opacity below 0.5.*lower opacity_threshold"):
        egs.train(tiny_dataset, short(opacity_threshold=0.5, opacity_lr=0.0), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_too_little_memory_says_so_and_offers_a_smaller_batch(tiny_dataset, tmp_path, monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(Trainer, "start", fail)
    with pytest.raises(MemoryLimitError, match="batch_size=8.*on the (GPU|computer).*batch_size=4 in another folder"):
        egs.train(tiny_dataset, short(batch_size=8), tmp_path / "run", device="cpu")


def test_a_later_format_is_refused(uninterrupted, tmp_path):
    root = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(DatasetError, match="format 99.*update the kit"):
        egs.load_run(root)
