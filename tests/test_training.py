"""Protects: learning, exact resume, guards, and that nothing is lost when training stops."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.errors import ConfigError, DatasetError, InputError, Terminated, TrainingError
from egstalker_nb.core.progress import Progress
from egstalker_nb.training import checkpoint
from egstalker_nb.training.densification import Densifier, to_grow
from egstalker_nb.training.init_head import new_head
from egstalker_nb.training.trainer import Trainer, frame_order

CPU = torch.device("cpu")
SMALL = dict(iterations=90, coarse_iterations=30, batch_size=1, checkpoint_interval=25, eval_interval=50,
             densify_from_iter=10, densify_until_iter=60, densification_interval=10, max_points=600,
             densify_grad_threshold_coarse=1e-5, densify_grad_threshold_fine=1e-5, plane_resolution=[8, 16],
             torso_steps=100)


def small(**more):
    return egs.load_config("production", **{**SMALL, **more})


def tensors(run, iteration=90):
    trainer = checkpoint.load(run.root, iteration, checkpoint.TRAINER)
    flat = dict(checkpoint.load(run.root, iteration, checkpoint.HEAD))
    flat.update({f"network.{k}": v for k, v in trainer["network"].items()})
    for name, state in trainer["optimizers"].items():
        for number, slot in state["state"].items():
            flat.update({f"{name}.{number}.{k}": v for k, v in slot.items()})
    return flat, trainer


def assert_same(a, b):
    (flat_a, trainer_a), (flat_b, trainer_b) = tensors(a), tensors(b)
    assert flat_a.keys() == flat_b.keys()
    different = [k for k in flat_a if not torch.equal(flat_a[k], flat_b[k])]
    assert different == [] and torch.equal(trainer_a["rng"], trainer_b["rng"])


@pytest.fixture(scope="module")
def uninterrupted(tiny_dataset, tmp_path_factory):
    return egs.train(tiny_dataset, small(), tmp_path_factory.mktemp("run") / "a", device="cpu")


def test_training_learns_and_grows(uninterrupted):
    rows = uninterrupted.metrics("train")
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3
    assert [r["iteration"] for r in uninterrupted.metrics("eval")] == [50, 90]
    growth = uninterrupted.metrics("densify")
    assert [r["iteration"] for r in growth] == [20, 30, 40, 50], "gsplat's window is open at both ends"
    assert 478 < rows[-1]["points"] <= 600
    assert sum(sum(r["births"].values()) for r in growth) >= sum(r["cloned"] + r["split"] for r in growth) > 0
    assert {"l1", "dssim", "mask", "lip", "loss", "psnr"} <= set(rows[-1])


def test_refined_poses_are_the_heads_and_tracked_ones_the_datasets(uninterrupted, tiny_dataset, tmp_path):
    """Each checkpoint has the poses that it was trained on; the dataset, and what tells it from others, stays."""
    run = egs.load_run(uninterrupted.root)
    tracked, first, last = (torch.from_numpy(tiny_dataset.w2c), *(run.load_head(i, "cpu").w2c for i in (25, 90)))
    refined = run.load_head(30, "cpu").w2c
    assert torch.equal(first, tracked) and not torch.equal(refined, tracked), "refined after the coarse stage"
    assert not torch.equal(last, refined), "and once more"
    assert (run.dataset.w2c == tiny_dataset.w2c).all() and run.dataset.hash == tiny_dataset.hash
    as_tracked = egs.train(tiny_dataset, small(pose_steps=0), tmp_path / "t", until=35, device="cpu")
    assert torch.equal(as_tracked.load_head(device="cpu").w2c, tracked)


def test_stopping_and_going_on_changes_nothing(uninterrupted, tiny_dataset, tmp_path):
    egs.train(tiny_dataset, small(), tmp_path / "b", until="coarse", device="cpu")
    egs.train(tiny_dataset, small(), tmp_path / "b", until=42, device="cpu")
    run = egs.train(tiny_dataset, small(), tmp_path / "b", device="cpu")
    assert {30, 42, 90} <= set(run.iterations)
    assert_same(run, uninterrupted)
    shown = [[r["iteration"], r["points"]] for r in run.metrics("densify")]
    assert shown == [[r["iteration"], r["points"]] for r in uninterrupted.metrics("densify")]


SCRIPT = """
import sys, egstalker_nb as egs
ds = egs.load_dataset(sys.argv[1])
egs.train(ds, egs.load_config(sys.argv[2]), sys.argv[3], device="cpu")
"""


def start_training(ds, cfg, folder):
    cfg.save(folder.parent / "config.yaml")
    arguments = [str(ds.root), str(folder.parent / "config.yaml"), str(folder)]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.PIPE)


def wait_for_iteration(folder, iteration, process):
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        path = folder / "metrics.jsonl"
        if path.is_file() and any(f'"iteration": {iteration}' in line for line in path.read_text().splitlines()):
            return
        time.sleep(0.02)
    raise AssertionError(f"iteration {iteration} was not reached: {process.stderr.read().decode()[-500:]}")


@pytest.mark.slow
def test_resume_after_sigkill_is_exact(uninterrupted, tiny_dataset, tmp_path):
    process = start_training(tiny_dataset, small(), tmp_path / "killed")
    wait_for_iteration(tmp_path / "killed", 40, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (tmp_path / "killed" / "checkpoints" / ".iteration_50.1").mkdir()  # what a kill while saving leaves behind
    run = egs.train(tiny_dataset, small(), tmp_path / "killed", device="cpu")
    assert_same(run, uninterrupted)
    iterations = [r["iteration"] for r in run.metrics("train")]
    assert iterations == sorted(set(iterations)), "rows after the checkpoint must not be there twice"


def stop_before(monkeypatch, iteration, what):
    """Do something just before a training step, once."""
    real, done = Trainer.train_iteration, []

    def train_iteration(trainer):
        if trainer.iteration + 1 == iteration and not done:
            done.append(iteration)
            what()
        real(trainer)

    monkeypatch.setattr(Trainer, "train_iteration", train_iteration)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_writes_a_checkpoint(uninterrupted, tiny_dataset, tmp_path, monkeypatch, number):
    """The step at work is finished. `tests/faults/test_interruptions.py` stops the command, as a process of its own."""
    stop_before(monkeypatch, 43, lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt, match="stopped at iteration 43") as error:
        egs.train(tiny_dataset, small(), tmp_path / "run", device="cpu")
    assert isinstance(error.value, Terminated) is (number == signal.SIGTERM)
    assert egs.load_run(tmp_path / "run").iterations[-1] == 43
    assert_same(egs.train(tiny_dataset, small(), tmp_path / "run", device="cpu"), uninterrupted)


def test_a_finished_run_is_not_trained_again(uninterrupted, tiny_dataset):
    before = os.stat(uninterrupted.root / "metrics.jsonl").st_mtime_ns
    egs.train(tiny_dataset, small(), uninterrupted.root, device="cpu")
    assert os.stat(uninterrupted.root / "metrics.jsonl").st_mtime_ns == before


def test_a_folder_with_another_run_is_refused(uninterrupted, tiny_dataset):
    with pytest.raises(ConfigError, match="lambda_lip: 0.2 there, 0.9 now"):
        egs.train(tiny_dataset, small(lambda_lip=0.9), uninterrupted.root)


@pytest.mark.parametrize("until", ["fine", 0, 91, 2.5])
def test_a_wrong_end_is_refused(tiny_dataset, tmp_path, until):
    with pytest.raises(InputError, match="until"):
        egs.train(tiny_dataset, small(), tmp_path / "x", until=until)


def test_a_non_finite_loss_stops_with_the_iteration_and_the_last_good_checkpoint(tiny_dataset, tmp_path, monkeypatch):
    from egstalker_nb.training.losses import Losses

    real = Losses.forward

    def poisoned(self, rgb, alpha, frame, head, lips):
        return real(self, rgb, alpha, frame, head, lips * float("nan") if "lip" in self.names else lips)

    monkeypatch.setattr(Losses, "forward", poisoned)
    with pytest.raises(TrainingError, match="not finite at iteration 31 .*lip nan.*iteration 30") as error:
        egs.train(tiny_dataset, small(), tmp_path / "x", device="cpu")
    assert "train again" in str(error.value)
    assert egs.load_run(tmp_path / "x").iterations == [25, 30], "a spoiled state must not be saved"


def test_a_collapse_stops_the_run(tiny_dataset, tmp_path):
    run = egs.train(tiny_dataset, small(), tmp_path / "x", until=40, device="cpu")
    trainer = Trainer(tiny_dataset, small(), run, CPU).resume(40)
    trainer.train_iteration()
    with torch.no_grad():
        trainer.head.gaussians["opacities"].fill_(-8)
    with pytest.raises(TrainingError, match="collapse by iteration 41: opacity 0.0003"):
        trainer.log(Progress(1, "x"))


def test_a_collapse_of_the_deformed_head_stops_the_run(tiny_dataset, tmp_path):
    """The canonical head may be fine while the network makes it invisible: upstream's way of losing heads."""
    run = egs.train(tiny_dataset, small(), tmp_path / "x", until=40, device="cpu")
    trainer = Trainer(tiny_dataset, small(), run, CPU).resume(40)
    with torch.no_grad():
        trainer.head.deformation.heads["opacities"].bias.fill_(-20)
    trainer.train_iteration()
    with pytest.raises(TrainingError, match="collapse by iteration 41: .*coverage"):
        trainer.log(Progress(1, "x"))


def test_a_kill_before_the_first_checkpoint_leaves_no_rows_behind(tiny_dataset, tmp_path, monkeypatch):
    """An error that nobody expects leaves the same files as a kill."""
    stop_before(monkeypatch, 45, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        egs.train(tiny_dataset, small(checkpoint_interval=1000), tmp_path / "killed", device="cpu")
    killed = egs.load_run(tmp_path / "killed")
    assert killed.metrics("train")[-1]["iteration"] == 40 and max(killed.iterations, default=0) < 40
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"kind": "densify", "births": {"lips": 1}')  # a row torn by the kill
    run = egs.train(tiny_dataset, small(checkpoint_interval=1000), tmp_path / "killed", device="cpu")
    rows = [r["iteration"] for r in run.metrics("train")]
    assert rows == sorted(set(rows)) and rows[0] == 20 and rows[-1] == 90
    assert [r["iteration"] for r in run.metrics("densify")] == [20, 30, 40, 50]


def test_copies_of_checkpoints_do_not_count(uninterrupted, tmp_path):
    copy = shutil.copytree(uninterrupted.root, tmp_path / "copy")
    shutil.copytree(copy / "checkpoints" / "iteration_30", copy / "checkpoints" / "iteration_30.bak")
    assert egs.load_run(copy).iterations == uninterrupted.iterations


def test_a_moved_run_finds_its_dataset_again(uninterrupted, tiny_dataset, tmp_path):
    copy = shutil.copytree(uninterrupted.root, tmp_path / "deeper" / "run")
    with pytest.raises(DatasetError, match="dataset=..."):
        print(egs.load_run(copy).dataset)
    assert egs.load_run(copy, dataset=tiny_dataset.root).dataset.num_frames == len(tiny_dataset)
    assert egs.train(tiny_dataset, small(), copy).dataset.hash == tiny_dataset.hash


def test_too_few_frames_are_refused(tiny_dataset, tmp_path):
    short = egs.load_dataset(tiny_dataset.root)
    short.num_train = 5
    with pytest.raises(DatasetError, match="at least 8"):
        egs.train(short, small(), tmp_path / "x")


def test_a_run_whose_dataset_changed_says_so(uninterrupted, tmp_path):
    manifest = json.loads((uninterrupted.root / "manifest.json").read_text())
    run = egs.Run(uninterrupted.root, uninterrupted.config, {**manifest, "dataset_hash": "0" * 12})
    with pytest.raises(DatasetError, match="which this run was trained on"):
        print(run.dataset)


def test_a_dataset_folder_takes_no_run(tiny_dataset, tmp_path):
    with pytest.raises(InputError, match="folder of its own"):
        egs.train(tiny_dataset, small(), tiny_dataset.root)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can be written to"):
        egs.train(tiny_dataset, small(), tmp_path / "file" / "run")


def test_not_a_run_folder_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="a run folder"):
        egs.load_run(tmp_path)


def test_each_epoch_shows_every_frame_once():
    seen = [i for it in range(1, 8) for i in frame_order(it, 3, 7, seed=0)]
    assert [sorted(seen[e:e + 7]) for e in (0, 7, 14)] == [list(range(7))] * 3
    assert seen[:7] != seen[7:14] and frame_order(2, 3, 7, seed=1) != frame_order(2, 3, 7, seed=0)


def test_the_cap_keeps_the_largest_gradients(tiny_dataset):
    cfg = egs.load_config("production")
    head = new_head(tiny_dataset, cfg)
    optimizers = {k: torch.optim.Adam([p], lr=1e-3) for k, p in head.gaussians.items()}
    densifier = Densifier(replace(cfg, max_points=500), 478, torch.from_numpy(tiny_dataset.mean_face), CPU)
    densifier.state.update(grad2d=torch.arange(478.0) + 1, count=torch.ones(478))
    top = head.gaussians["means"].detach()[-22:].clone()
    done = densifier.step(head.gaussians, optimizers, 700)
    assert len(head) == done["points"] == 500 and done["cloned"] + done["split"] == 22 and done["pruned"] == 0
    new = head.gaussians["means"].detach()[densifier.state["added_at"] == 700]
    scale = head.gaussians["scales"].detach().exp().max()
    assert (torch.cdist(new, top).min(1).values < 6 * scale).all(), "new ones lie next to the 22 largest gradients"
    assert not densifier.state["grad2d"].any() and len(densifier.state["count"]) == 500
    assert densifier.step(head.gaussians, optimizers, 701) == {}, "only every `densification_interval` iterations"


@pytest.mark.parametrize("points", [478, 479, 500, 1000])
def test_no_more_gaussians_grow_than_the_cap_leaves(points):
    """Whatever the gradients are, equal ones included: a tie at the threshold is left out rather than let in."""
    for gradients in (torch.rand(478), torch.ones(478), torch.zeros(478), torch.arange(478.0)):
        grows = to_grow(gradients, 0.5, points)
        assert grows.sum() <= points - 478 and not (grows & (gradients <= 0.5)).any()
        left_out = gradients[~grows & (gradients > 0.5)]
        if grows.any() and len(left_out):
            assert gradients[grows].min() > left_out.max()
    assert to_grow(torch.arange(478.0), 470, 1000).sum() == 7


def test_batched_gradients_count_like_single_frames(tiny_dataset):
    """A batch of deformed copies must collect what its frames collect one by one (gsplat indexes another axis)."""
    torch.manual_seed(0)
    grad, radii = torch.randn(2, 1, 478, 2), torch.randint(0, 3, (2, 1, 478, 2))

    def collected(pieces):
        densifier = Densifier(egs.load_config("production"), 478, torch.from_numpy(tiny_dataset.mean_face), CPU)
        for g, r in pieces:
            means2d = torch.zeros_like(g)
            means2d.grad = g
            densifier.collect({"means2d": means2d, "radii": r, "width": 64, "height": 64})
        return densifier.state

    together, single = collected([(grad, radii)]), collected([(grad[i:i + 1] * 2, radii[i:i + 1]) for i in (0, 1)])
    torch.testing.assert_close(together["grad2d"], single["grad2d"])
    assert torch.equal(together["count"], single["count"])
