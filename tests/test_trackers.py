"""Protects: runs in TensorBoard, W&B and MLflow: each step once, also after a kill; none of them stops a training."""
import json
import os
import signal
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.config import TRACKERS
from egstalker_nb.core.errors import EgsError
from egstalker_nb.training import snapshots, trackers
from egstalker_nb.training.metrics_log import MetricsWriter
from egstalker_nb.training.run import Run

MANIFEST = {"dataset": "../ds", "dataset_hash": "abc123", "dataset_size": 64, "encoder": {}, "device": "cpu",
            "git": "x", "versions": {"torch": "2"}}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Nothing leaves this computer."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, os.environ.get(name, "x"))  # so that what the code sets is undone
        monkeypatch.delenv(name)


def made_run(root: Path, tracking: str) -> Run:
    (root / "snapshots").mkdir(parents=True, exist_ok=True)
    cfg = egs.load_config("quick_test", tracking=tracking)
    (root / "manifest.json").write_text(json.dumps(MANIFEST))
    cfg.save(root / "config.yaml")
    return Run(root, cfg, MANIFEST)


def steps(writer: MetricsWriter, first: int, last: int, checkpoint: int) -> None:
    """What training writes from one iteration to another."""
    for i in range(first, last + 1, 20):
        writer.write({"kind": "densify", "iteration": i, "births": {"lips": 1}, "cloned": 3})
        writer.write({"kind": "train", "iteration": i, "stage": "fine", "loss": 1 / (i + 1), "psnr": float("nan")})
        writer.write({"kind": "eval", "iteration": i, "val_psnr": 20 + i / 100})
        if i % checkpoint == 0:
            writer.write({"kind": "checkpoint", "iteration": i, "points": 478})


def snapshot(root: Path, iteration: int, gray: int) -> None:
    g = {"means": torch.zeros(2, 3), "scales": torch.zeros(2, 3), "opacities": torch.zeros(2),
         "sh0": torch.zeros(2, 1, 3)}
    snapshots.save(root, iteration, g, torch.zeros(2), torch.zeros(2), np.full((16, 16, 3), gray, np.uint8), 0)


def in_tensorboard(root: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(root / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    pictures = [(e.step, 0.0) for e in found.Images("snapshot")] if "snapshot" in found.Tags()["images"] else []
    assert "run/text_summary" in found.Tags()["tensors"] and "abc123" in str(found.Tensors("run/text_summary"))
    return {**{tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]},
            "snapshot": pictures}


def in_wandb(root: Path) -> dict[str, list[tuple[int, float]]]:
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    found, ids, config = {}, set(), ""
    for path in sorted((root / "wandb").glob("offline-run-*/run-*.wandb")):
        store = DataStore()
        store.open_for_scan(str(path))
        while True:
            try:
                data = store.scan_data()
            except (AssertionError, EOFError):
                break
            if data is None:
                break
            record = Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
                config += str(record.run.config)
            if record.HasField("history"):
                for item in record.history.item:
                    name, value = "/".join(item.nested_key) or item.key, json.loads(item.value_json)
                    at = record.history.step.num
                    if name == "snapshot/path":
                        assert (path.parent / "files" / value).is_file()
                        found.setdefault("snapshot", []).append((at, 0.0))
                    elif not name.startswith(("_", "snapshot")):
                        found.setdefault(name, []).append((at, value))
    assert len(ids) == 1 and "abc123" in config
    return found


def in_mlflow(root: Path) -> dict[str, list[tuple[int, float]]]:
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    run, = client.search_runs([client.get_experiment_by_name(trackers.PROJECT).experiment_id])
    assert run.data.params["dataset_hash"] == "abc123" and run.info.run_name == trackers.run_name(root)
    assert run.info.status == "FINISHED"
    images = sorted({int(Path(a.path).name.replace("+", "%").split("%step%")[1].split("%")[0])
                     for a in client.list_artifacts(run.info.run_id, "images") if a.path.endswith(".png")})
    values = {name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
              for name in run.data.metrics if name != "iteration"}
    return {**values, "snapshot": [(i, 0.0) for i in images]}


READ = dict(zip(TRACKERS, (in_tensorboard, in_wandb, in_mlflow)))


def wait_for(condition, seconds: float = 30.0) -> None:
    event = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        event.wait(0.05)
    raise AssertionError("it never came")


def killed_training(root: Path, writing) -> None:
    """Run `writing` in a process that ends by SIGKILL, without any goodbye."""
    child = os.fork()
    if child == 0:
        try:
            writing()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_each_step_is_there_once_after_a_kill(tmp_path):
    """The first session is killed at 140, its last checkpoint was 100: 120 and 140 are done again."""
    import mlflow  # noqa: F401  (once, not in the child as well)

    root = tmp_path / "runs" / "me"
    run = made_run(root, ",".join(TRACKERS))

    def first_session() -> None:
        writer = MetricsWriter(run)
        writer.cut(0)
        snapshot(root, 0, 0)
        snapshot(root, 30, 100)
        steps(writer, 20, 140, 100)
        wait_for(lambda: all(t.given.empty() for t in writer.followers.threads))

    killed_training(root, first_session)
    writer = MetricsWriter(run)
    writer.cut(100)
    snapshots.cut(root, 100)
    snapshot(root, 200, 200)
    steps(writer, 120, 200, 100)
    writer.close()

    expected = [(i, pytest.approx(1 / (i + 1), rel=1e-5)) for i in range(20, 201, 20)]
    for name, read in READ.items():
        found = read(root)
        assert found["train/loss"] == expected, name
        assert [i for i, _ in found["eval/val_psnr"]] == [i for i, _ in found["densify/cloned"]] == [
            i for i, _ in expected], name
        assert [i for i, _ in found["snapshot"]] == [0, 30, 200], name
        assert "train/psnr" not in found and "checkpoint/points" not in found, name  # not finite; no measurement
    assert os.environ["WANDB_ERROR_REPORTING"] == "false" and os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_finished_run_can_be_shown_later(tmp_path, capsys):
    """TensorBoard is possible for any run, also one trained without; twice gives the same."""
    from egstalker_nb.cli import main

    root = tmp_path / "me"
    writer = MetricsWriter(made_run(root, ""))
    writer.cut(0)
    steps(writer, 20, 100, 100)
    writer.close()
    assert not (root / "tensorboard").exists() and not (root / "wandb").exists()
    for _ in range(2):
        assert main(["track", str(root)]) == 0
        assert [i for i, _ in in_tensorboard(root)["train/loss"]] == [20, 40, 60, 80, 100]
    assert "tensorboard --logdir" in capsys.readouterr().out


class Broken:
    def __init__(self, run):
        raise ConnectionError("no network")


def test_a_tracker_that_fails_costs_one_line(tmp_path, monkeypatch):
    """And what it missed can be sent later, where the same failure is an error."""
    monkeypatch.setitem(trackers.KINDS, "mlflow", Broken)
    root = tmp_path / "me"
    run = made_run(root, "mlflow")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        writer = MetricsWriter(run)
        writer.cut(0)
        steps(writer, 20, 100, 100)
        writer.close()
    line, = [str(w.message) for w in said if "mlflow" in str(w.message)]
    assert "no network" in line and "egs track" in line and "\n" not in line
    assert len(run.metrics("train")) == 5
    with pytest.raises(EgsError, match="no network"):
        egs.track(run, "mlflow")


def test_a_server_that_hangs_does_not_hold_up_the_end(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setitem(trackers.KINDS, "mlflow", lambda run: release.wait(30))
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.05)
    writer = MetricsWriter(made_run(tmp_path / "me", "mlflow"))
    writer.cut(0)
    steps(writer, 20, 100, 100)
    thread, = writer.followers.threads
    with pytest.warns(UserWarning, match="complete it"):
        writer.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        release.set()
        thread.join()


def test_without_a_login_nobody_is_asked(tmp_path, monkeypatch):
    """W&B would ask for a key in the middle of a training."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    wandb.teardown()  # it reads the environment once
    try:
        with pytest.raises(EgsError, match="wandb login"):
            egs.track(made_run(tmp_path / "me", ""), "wandb")
    finally:
        wandb.teardown()


@pytest.mark.parametrize("value, good", [("", True), ("wandb", True), ("tensorboard, mlflow", True),
                                         ("tensorbord", False), ("wandb;mlflow", False), (["wandb"], False)])
def test_tracking_is_a_checked_setting_that_decides_nothing(value, good, tmp_path):
    """A run may be continued with another tracker, and a sweep does not take it for another run."""
    from egstalker_nb.training.run import FREE_SETTINGS

    assert "tracking" in FREE_SETTINGS
    if good:
        assert egs.load_config("quick_test", tracking=value).tracking == value
    else:
        with pytest.raises(EgsError, match="tracking"):
            egs.load_config("quick_test", tracking=value)


def test_runs_have_names_that_tell_them_apart():
    names = {"outputs/me/runs/production": "me/production", "outputs/sweep/runs/clip-seed0-ab12/head":
             "sweep/clip-seed0-ab12"}
    assert {path: trackers.run_name(Path(path)) for path in names} == names
