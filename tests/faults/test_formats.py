"""Protects: runs that were trained by earlier versions load, render and go on. See `tests/data/formats/README.md`."""
import shutil
from pathlib import Path

import pytest

import egstalker_nb as egs
from egstalker_nb.training import checkpoint
from egstalker_nb.training.run import FORMAT

FORMATS = Path(__file__).parents[1] / "data" / "formats"
PSNR = {"run_0": 16.298, "run_1": 16.298}  # dB of its composite on all frames, by the version that trained it


@pytest.fixture(params=sorted(PSNR))
def stored(request, tmp_path):
    """A copy of a stored run, beside a copy of its dataset, as people move both."""
    shutil.copytree(FORMATS / "dataset_1", tmp_path / "dataset_1")
    return Path(shutil.copytree(FORMATS / request.param, tmp_path / request.param))


def test_there_is_a_run_of_each_format():
    assert {path.name for path in FORMATS.glob("run_*")} == {f"run_{n}" for n in range(FORMAT + 1)} == set(PSNR)


def test_an_earlier_run_renders_as_it_did(stored):
    run = egs.load_run(stored)
    assert (run.iterations, run.snapshots, run.config.iterations) == ([9], [6, 8], 12)
    assert run.metrics("train") and len(run.snapshot(6)) == 500
    assert egs.evaluate(run, "all", device="cpu")["psnr_composite"] == pytest.approx(PSNR[stored.name], abs=0.02)


def test_an_earlier_run_goes_on(stored):
    run = egs.load_run(stored)
    assert egs.load_config(stored / "config.yaml") == run.config
    run = egs.train(run.dataset, run.config, stored, device="cpu")
    assert run.finished and run.manifest["format"] == FORMAT and egs.load_run(stored).manifest["format"] == FORMAT
    assert set(checkpoint.load(stored, 12, checkpoint.STATE)["sha256"]) == {
        checkpoint.HEAD, checkpoint.TRAINER, checkpoint.PLY}
