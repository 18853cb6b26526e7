"""Protects: one run on several GPUs is the run on one GPU, and no process outlives it. Here by gloo, on the CPU."""
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.errors import ConfigError, InputError, TrainingError, UnfinishedError
from egstalker_nb.training import checkpoint
from egstalker_nb.training.data_parallel import Leader
from egstalker_nb.training.ranks import Ranks, Workers
from egstalker_nb.training.train import train_on

CPU = torch.device("cpu")
CFG = dict(iterations=24, coarse_iterations=8, batch_size=4, checkpoint_interval=100, densify_from_iter=2,
           densify_until_iter=17, densification_interval=3, max_points=900, plane_resolution=[8, 16], pose_steps=1,
           densify_grad_threshold_coarse=1e-4, densify_grad_threshold_fine=1e-4)


def config(**more):
    return egs.load_config("production", **{**CFG, **more})


def numbers(run, iteration):
    """Everything that a checkpoint holds: name -> tensor."""
    trainer = checkpoint.load(run.root, iteration, checkpoint.TRAINER)
    slots = {f"{name}.{i}.{k}": v for name, state in trainer["optimizers"].items()
             for i, slot in state["state"].items() for k, v in slot.items()}
    return {**checkpoint.load(run.root, iteration, checkpoint.HEAD), **trainer["network"], **trainer["densifier"],
            **trainer["discriminator"], **slots, "rng": trainer["rng"]}


def children():
    return subprocess.run(["pgrep", "-f", "-P", str(os.getpid()), "popen_loky"], capture_output=True).stdout.split()


@pytest.fixture(scope="module")
def single(tiny_dataset, tmp_path_factory):
    """One process, from the start until 14 and from there to 18."""
    root = tmp_path_factory.mktemp("single") / "run"
    train_on([CPU], tiny_dataset, config(), root, until=14)
    return train_on([CPU], tiny_dataset, config(), root, until=18)


@pytest.fixture
def at(monkeypatch):
    """`at(iteration, action)`: call `action(trainer)` when rank 0 has finished an iteration."""
    def install(iteration, action):
        real = Leader.train_iteration

        def train_iteration(self):
            real(self)
            if self.iteration == iteration:
                action(self)

        monkeypatch.setattr(Leader, "train_iteration", train_iteration)
    return install


def test_two_ranks_train_as_one_process_until_they_are_stopped(single, tiny_dataset, tmp_path, at):
    """From the start, through densification and pose refinement; Adam's first steps amplify rounding."""
    at(14, lambda trainer: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="iteration 14; a checkpoint is written"):
        train_on([CPU, CPU], tiny_dataset, config(), tmp_path / "run")
    assert not children()
    run = egs.load_run(tmp_path / "run")
    assert [(r["iteration"], r["cloned"], r["split"]) for r in run.metrics("densify")] == [
        (r["iteration"], r["cloned"], r["split"]) for r in single.metrics("densify") if r["iteration"] <= 14]
    row, wanted = run.metrics("train")[-1], single.metrics("train")[1]
    assert row.pop("gpus") == 2 and "gpus" not in wanted and row["iteration"] == wanted["iteration"] == 14
    for name in ("l1", "dssim", "mask", "lip", "loss", "psnr", "coverage", "points", "opacity"):
        assert row[name] == pytest.approx(wanted[name], rel=5e-3), name
    again = train_on([CPU], tiny_dataset, config(), tmp_path / "run", until=15)
    assert again.iterations[-1] == 15, "one process goes on"


def test_two_ranks_go_on_from_one_process_until_one_dies(single, tiny_dataset, tmp_path, at):
    """Four steps with a densification step and a pose refinement among them: the same numbers."""
    root = shutil.copytree(single.root, tmp_path / "run")
    shutil.rmtree(root / "checkpoints" / "iteration_18")
    at(19, lambda trainer: os.kill(trainer.workers.processes[0].pid, signal.SIGKILL))
    with pytest.raises(UnfinishedError, match="ended .SIGKILL.. Train again"):
        train_on([CPU, CPU], tiny_dataset, config(checkpoint_interval=18), root)
    assert not children()
    found, wanted = numbers(egs.load_run(root), 18), numbers(single, 18)
    assert found.keys() == wanted.keys() and torch.equal(found.pop("rng"), wanted.pop("rng"))
    for name, values in wanted.items():
        torch.testing.assert_close(found[name].float(), values.float(), atol=2e-3, rtol=2e-3, msg=name)


def differ(ranks):
    ranks.check_same([torch.ones(3), torch.full((2,), float(ranks.rank))])


def test_ranks_that_differ_are_found_and_errors_of_workers_are_told():
    with pytest.raises(TrainingError, match="some that differ"), Workers(differ, (), [CPU, CPU]) as workers:
        ranks = workers.join()
        with pytest.raises(TrainingError):
            differ(ranks)
        deadline = time.time() + 30
        while time.time() < deadline:
            workers.check()
            time.sleep(0.01)


PARENT = """
import subprocess, sys, time
code = "import os, sys, time; from egstalker_nb.core.processes import begin_worker; begin_worker(os.getppid()); " \
       "print(os.getpid(), flush=True); time.sleep(30); print('orphan')"
subprocess.Popen([sys.executable, "-c", code])
time.sleep(60)
"""


def test_a_worker_ends_when_its_parent_is_killed():
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    os.kill(worker, signal.SIGINT)  # Ctrl-C is the parent's
    process.kill()
    process.wait()
    assert process.stdout.read() == "", "its end closes the pipe"


@pytest.mark.parametrize("gpus, more, error, said", [
    (0, {}, InputError, "gpus as a whole number"), (2.0, {}, InputError, "gpus as a whole number"),
    (2, {"device": "cpu"}, InputError, "2 GPUs; found device='cpu'")])
def test_what_cannot_be_is_refused(tiny_dataset, tmp_path, gpus, more, error, said):
    with pytest.raises(error, match=said):
        egs.train(tiny_dataset, config(), tmp_path / "x", gpus=gpus, **more)
    assert not (tmp_path / "x").exists()


def test_a_batch_that_cannot_be_shared_is_refused(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("egstalker_nb.training.data_parallel.rendering_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for size in 1, 3:
        with pytest.raises(ConfigError, match=f"batch_size={size}. Train with a multiple of 2"):
            egs.train(tiny_dataset, config(batch_size=size), tmp_path / "x", gpus=2)
    with pytest.raises(InputError, match="4 GPUs; found 2 that torch can use"):
        egs.train(tiny_dataset, config(), tmp_path / "x", gpus=4)


def test_a_part_of_a_batch_is_each_frame_once():
    """Whatever the number of ranks: contiguous, in order, equal."""
    for size in 1, 2, 4:
        parts = []
        for rank in range(size):
            ranks = object.__new__(Ranks)
            ranks.rank, ranks.size = rank, size
            parts += list(range(8))[ranks.part(8)]
        assert parts == list(range(8))
