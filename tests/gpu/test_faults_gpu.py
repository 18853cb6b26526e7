"""On CUDA: a killed run goes on, too little GPU memory says so, and a run moves between GPU and CPU."""
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.errors import MemoryLimitError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SMALL = dict(iterations=90, coarse_iterations=30, checkpoint_interval=25, eval_interval=50, densify_from_iter=10,
             densify_until_iter=60, densification_interval=10, max_points=600, densify_grad_threshold_coarse=1e-5,
             densify_grad_threshold_fine=1e-5, plane_resolution=[8, 16], pose_steps=1)


def small(**more):
    return egs.load_config("production", **{**SMALL, **more})


@pytest.mark.parametrize("after", [25, 60])
def test_a_killed_run_goes_on_from_its_last_checkpoint(tiny_dataset, tmp_path, after):
    """After 25 iterations in the coarse stage, after 60 in the fine one."""
    cfg, root = small(iterations=4000, densify_until_iter=3000), tmp_path / "run"
    cfg.save(tmp_path / "config.yaml")
    program = ("import egstalker_nb as egs, sys\n"
               "egs.train(egs.load_dataset(sys.argv[1]), egs.load_config(sys.argv[2]), sys.argv[3])")
    process = subprocess.Popen([sys.executable, "-c", program, str(tiny_dataset.root), str(tmp_path / "config.yaml"),
                                str(root)], env=os.environ)
    while process.poll() is None and not any((root / "checkpoints").glob(f"iteration_{after - after % 25}/*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = egs.load_run(root).iterations
    assert saved and saved[-1] < cfg.iterations, "it was killed too late"
    run = egs.train(tiny_dataset, cfg, root, until=saved[-1] + 30)
    assert run.iterations[-1] == saved[-1] + 30 and set(saved[-5:]) <= set(run.iterations)
    assert not list(root.rglob(".egs-*"))


def test_too_little_memory_says_so_and_the_run_goes_on(tiny_dataset, tmp_path):
    run = egs.train(tiny_dataset, small(), tmp_path / "run", until=30)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (1 << 20)) / total)
    try:
        with pytest.raises(MemoryLimitError, match="on the GPU.*checkpoints.*are intact"):
            egs.train(tiny_dataset, small(), tmp_path / "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    run = egs.train(tiny_dataset, small(), tmp_path / "run")
    assert run.finished


def test_a_run_moves_from_gpu_to_cpu_and_back(tiny_dataset, tmp_path):
    egs.train(tiny_dataset, small(), tmp_path / "a" / "run", until=30, device="cuda")
    shutil.copytree(tiny_dataset.root, tmp_path / "b" / "dataset")
    shutil.move(tmp_path / "a" / "run", tmp_path / "b" / "run")
    ds = egs.load_dataset(tmp_path / "b" / "dataset")
    egs.train(ds, small(), tmp_path / "b" / "run", until=60, device="cpu")
    run = egs.train(ds, small(), tmp_path / "b" / "run", device="cuda")
    rows = run.metrics("train")
    assert run.finished and rows[-1]["psnr"] > rows[0]["psnr"]
    on = [egs.evaluate(run, device=device)["psnr_composite"] for device in ("cuda", "cpu")]
    assert on[0] == pytest.approx(on[1], abs=0.05)
