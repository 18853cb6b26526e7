"""On two GPUs: one run spread over them by NCCL is the run on one, and nothing hangs when a process dies."""
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.errors import UnfinishedError
from egstalker_nb.training.data_parallel import Leader

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
SMALL = dict(iterations=120, coarse_iterations=30, checkpoint_interval=25, eval_interval=50, densify_from_iter=10,
             densify_until_iter=60, densification_interval=10, max_points=600, densify_grad_threshold_coarse=1e-5,
             densify_grad_threshold_fine=1e-5, plane_resolution=[8, 16], batch_size=4)


def small(**more):
    return egs.load_config("production", **{**SMALL, **more})


def at(monkeypatch, iteration, action):
    """Call `action(trainer)` when rank 0 has made an iteration."""
    real = Leader.train_iteration

    def train_iteration(self):
        real(self)
        if self.iteration == iteration:
            action(self)

    monkeypatch.setattr(Leader, "train_iteration", train_iteration)


def test_two_gpus_train_as_one(tiny_dataset, tmp_path, monkeypatch):
    recorded = []
    at(monkeypatch, 110, lambda trainer: recorded.append((trainer.device_step.recorded,
                                                          trainer.device_step.second.recorded)))
    one, two = (egs.train(tiny_dataset, small(), tmp_path / str(gpus), gpus=gpus) for gpus in (1, 2))
    assert recorded == [(True, True)]
    rows, wanted = two.metrics("train"), one.metrics("train")
    assert [r["gpus"] for r in rows] == [2] * len(rows)
    assert len(two.metrics("densify")) == len(one.metrics("densify")) == 4
    assert rows[0]["loss"] == pytest.approx(wanted[0]["loss"], rel=0.02)
    assert rows[-1]["psnr"] == pytest.approx(wanted[-1]["psnr"], abs=0.5)
    scores = [egs.evaluate(run, "val")["psnr_composite"] for run in (one, two)]
    assert scores[1] == pytest.approx(scores[0], abs=0.7)


def test_a_run_goes_on_with_another_number_of_gpus(tiny_dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at(patch, 40, lambda trainer: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match="iteration 40; a checkpoint is written"):
            egs.train(tiny_dataset, small(), tmp_path / "run", gpus=2)
    egs.train(tiny_dataset, small(), tmp_path / "run", until=70)
    run = egs.train(tiny_dataset, small(), tmp_path / "run", gpus=2)
    rows = run.metrics("train")
    assert [(r["iteration"], r.get("gpus", 1)) for r in rows] == [
        (20, 2), (25, 2), (30, 2), (40, 2), (50, 1), (60, 1), (70, 1), (75, 2), (80, 2), (100, 2), (120, 2)]
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3


def test_the_death_of_a_worker_is_an_error_and_no_hang(tiny_dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at(patch, 47, lambda trainer: os.kill(trainer.workers.processes[0].pid, signal.SIGKILL))
        with pytest.raises(UnfinishedError, match="cuda:1 ended .SIGKILL.. Train again"):
            egs.train(tiny_dataset, small(), tmp_path / "run", gpus=2)
    assert egs.load_run(tmp_path / "run").iterations == [25, 30]
    assert egs.train(tiny_dataset, small(), tmp_path / "run", gpus=2).finished, "in the same process"


SCRIPT = """
import sys
import egstalker_nb as egs
from egstalker_nb.training.data_parallel import Leader
real = Leader._ready
def ready(self):
    real(self)
    print("worker", self.workers.processes[0].pid, flush=True)
Leader._ready = ready
egs.train(egs.load_dataset(sys.argv[1]), egs.load_config(sys.argv[2]), sys.argv[3], gpus=2)
"""


def test_the_workers_end_when_rank_0_is_killed(tiny_dataset, tmp_path):
    small(iterations=100_000).save(tmp_path / "config.yaml")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tiny_dataset.root), str(tmp_path / "config.yaml"),
                                str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    worker = next(int(line.split()[1]) for line in process.stdout if line.startswith("worker "))  # NCCL may print, too
    time.sleep(2)  # into the steps
    process.kill()
    process.wait()
    deadline = time.time() + 30
    while time.time() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("an orphan")
