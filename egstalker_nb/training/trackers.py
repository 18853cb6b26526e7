"""A run's metrics and snapshots in TensorBoard, Weights & Biases or MLflow.

metrics.jsonl is the truth, and trackers follow it: each in a thread of its own, so that no step waits for a server, and
one that fails costs a warning, never the training. What a tracker has already is asked of the tracker itself, so that a
run that was killed continues there with neither a gap nor a step twice, and `track` completes one that failed.

Nothing is sent anywhere unless the setting `tracking` names a service: error reports and usage statistics of the two
packages are off unless the user's environment turns them on.
"""
from __future__ import annotations

import importlib.util
import json
import math
import os
import queue
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Literal, Optional, Protocol, Sequence

import numpy as np

from ..config import TRACKERS, words
from ..core.errors import EgsError, InputError, first_line
from ..core.files import exclusive_lock, make_folder, shortened, write_json
from ..core.reading import Unreadable, read_json, shown
from . import snapshots
from .history import NO_NUMBERS
from .run import Run

PROJECT = "egstalker"     # of W&B, and experiment of MLflow, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME is set
ID_FILE = "{}_id.json"    # in the run folder: what the run is called at wandb, mlflow
CLOSE_SECONDS = 30.0      # that the end of a training waits for a slow server
GENERIC = "runs", "head"  # folders whose names do not tell runs apart
INSTALL = "pip install 'egstalker-nb[tracking]'"


@dataclass(frozen=True)
class Point:
    """What a tracker gets of one iteration.

    Attributes:
        iteration: finished training steps; the tracker's step.
        values: such as `train/loss` or `eval/val_psnr`.
        image: [S, S, 3] uint8, the snapshot's validation frame as rendered then, or None.
    """

    iteration: int
    values: dict[str, float]
    image: Optional[np.ndarray] = None


class Tracker(Protocol):
    """Where points go. Construction opens it, and finds out what it has of this run.

    Attributes:
        last: the last iteration that it has, or -1.
    """

    last: int

    def send(self, point: Point) -> None:
        """Add a point; iterations ascend."""

    def close(self) -> None:
        """Wait until everything has arrived."""


def track(run: Run, to: str = "tensorboard") -> str:
    """Show a trained run in a tracker, or complete there what is missing of it.

    Training does the same while it runs if the setting `tracking` says so.

    Args:
        run: see `load_run`.
        to: `tensorboard`, which writes event files into the run folder; `wandb`; or `mlflow`. The two services are set
            up by their own environment variables (WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, ...).

    Returns:
        one line on where to look.

    Raises:
        InputError: no such tracker, its package is missing, it cannot be reached, or the run is being tracked now.
    """
    if to not in KINDS:
        raise InputError(f"one of {', '.join(KINDS)}", shown(to), "Choose one.")
    try:
        with exclusive_lock(run.root, f"tracking in {to}"):
            tracker = KINDS[to](run)
            for rows in whole_iterations(run.metrics())[0]:
                _send(tracker, run.root, rows)
            tracker.close()
    except EgsError:
        raise
    except Exception as error:  # whatever a service raises
        raise InputError(f"{to} to take the run '{shortened(run.root)}'", first_line(error),
                         "Check its login and address, then repeat the call: it sends what is missing.") from error
    return f"{run_name(run.root)}: {LOOK[to]}"


class Followers:
    """The trackers that `tracking` names, while a run is trained.

    Args:
        run: whose metrics they follow; nothing happens before `start`.
    """

    def __init__(self, run: Run):
        self.run = run
        self.threads: list[_Follower] = []
        self.rest: list[dict[str, Any]] = []  # rows of an iteration that may get more

    def start(self) -> None:
        self.threads = [_Follower(self.run, name) for name in words(self.run.config.tracking)]

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Pass rows on as soon as all rows of their iteration are there."""
        if not self.threads:
            return
        done, self.rest = whole_iterations([*self.rest, *rows])
        for thread in self.threads:
            for group in done:
                thread.given.put(group)

    def close(self) -> None:
        """Wait until all is sent, but not forever."""
        for thread in self.threads:
            thread.given.put(None)
        end = time.monotonic() + CLOSE_SECONDS
        for thread in self.threads:
            thread.join(max(end - time.monotonic(), 0.0))
            if thread.is_alive():
                warnings.warn(f"{thread.kind} has not taken everything within {CLOSE_SECONDS:.0f} s; complete it with "
                              f"`egs track {shortened(self.run.root)} --to {thread.kind}`.", stacklevel=2)
        self.threads = []


class _Follower(threading.Thread):
    """Sends what it is given to one tracker, until None comes or something fails."""

    def __init__(self, run: Run, kind: str):
        super().__init__(name=f"tracking in {kind}", daemon=True)  # a server that hangs does not hold up the program
        self.tracked, self.kind = run, kind
        self.given: queue.SimpleQueue[Optional[list[dict[str, Any]]]] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        root = self.tracked.root
        try:
            with exclusive_lock(root, f"tracking in {self.kind}"):
                tracker = KINDS[self.kind](self.tracked)
                while (rows := self.given.get()) is not None:
                    _send(tracker, root, rows)
                tracker.close()
        except Exception as error:  # whatever a service raises: the training is worth more
            warnings.warn(f"{self.kind} is not tracking this run ({first_line(error)}). Training goes on; "
                          f"`egs track {shortened(root)} --to {self.kind}` completes it later.", stacklevel=1)


def whole_iterations(rows: Sequence[dict[str, Any]]) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Rows of the metrics by iteration: those of which no more will come, and those of the last one.

    An iteration is complete when the next one has a row, or with its checkpoint, which is written last.
    """
    done: list[list[dict[str, Any]]] = []
    current: list[dict[str, Any]] = []
    for row in rows:
        if current and row["iteration"] != current[0]["iteration"]:
            done.append(current)
            current = []
        current.append(row)
        if row["kind"] == "checkpoint":
            done.append(current)
            current = []
    return done, current


def _send(tracker: Tracker, root: Path, rows: list[dict[str, Any]]) -> None:
    """Send the rows of one iteration, and snapshots since the one before, unless the tracker has them."""
    for point in _points(root, tracker.last, rows):
        tracker.send(point)
        tracker.last = point.iteration


def _points(root: Path, after: int, rows: list[dict[str, Any]]) -> Iterator[Point]:
    iteration = rows[0]["iteration"]
    values = {f"{row['kind']}/{name}": float(value) for row in rows if row["kind"] != "checkpoint"
              for name, value in row.items()
              if name not in (*NO_NUMBERS, "iteration") and value is not None and math.isfinite(value)}
    for at in snapshots.iterations(root):
        if after < at < iteration:
            yield Point(at, {}, _image(root, at))
    if iteration > after:
        yield Point(iteration, values, _image(root, iteration))


def _image(root: Path, iteration: int) -> Optional[np.ndarray]:
    with suppress(EgsError):  # no snapshot then, or a damaged one
        return snapshots.load(root, iteration).picture
    return None


def run_name(root: Path) -> str:
    """`outputs/me/runs/production` -> `me/production`; a run of a sweep: the sweep and the run's own name."""
    return "/".join([part for part in root.resolve().parts if part not in GENERIC][-2:])


def facts(run: Run) -> dict[str, Any]:
    """Settings and origin of a run, by name: text and numbers."""
    known = ("dataset_hash", "dataset_size", "device", "git")
    settings = {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in run.config.to_dict().items()}
    return {**settings, **{k: run.manifest[k] for k in known if k in run.manifest},
            **{f"version_{k}": v for k, v in run.manifest.get("versions", {}).items()}}


def _known_id(root: Path, kind: str) -> Optional[str]:
    """What a run is called in a tracker, if it was there before."""
    try:
        found: str = read_json(root / ID_FILE.format(kind), id=str)["id"]
        return found
    except Unreadable:
        return None


def _keep_id(root: Path, kind: str, name: str) -> str:
    write_json(root / ID_FILE.format(kind), {"id": name})
    return name


def _need(package: str) -> None:
    """Raises: InputError: the package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise InputError(f"the package {package}", "none", f"{INSTALL}, or set tracking to another.")


class TensorBoard:
    """Event files in the folder `tensorboard` of the run, written anew from its metrics each time that it is opened: so
    each step is there once, whatever a kill left behind."""

    def __init__(self, run: Run):
        _need("tensorboard")
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.last = -1
        folder = make_folder(run.root / "tensorboard")
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(folder), purge_step=0, flush_secs=10)  # a server that is open begins anew
        known = facts(run)
        self.writer.add_text("run", "    " + json.dumps(known, indent=1).replace("\n", "\n    "), 0)
        for summary in hparams(known, {"eval/val_psnr": 0.0}):
            self.writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # there from the start

    def send(self, point: Point) -> None:
        for name, value in point.values.items():
            self.writer.add_scalar(name, value, point.iteration)
        if point.image is not None:
            self.writer.add_image("snapshot", point.image, point.iteration, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases, or its files in the folder `wandb` of the run with WANDB_MODE=offline."""

    def __init__(self, run: Run):
        _need("wandb")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        chosen = wandb.setup().settings
        if chosen.mode == "online" and not _has_login(chosen):  # it would ask, in the middle of a training
            raise InputError("a login at Weights & Biases", "none", "`wandb login`, or WANDB_MODE=offline.")
        name = _known_id(run.root, "wandb") or _keep_id(run.root, "wandb", wandb.util.generate_id())
        self.last = _last_offline(run.root, name)
        resume: Optional[Literal["allow"]] = "allow" if chosen.mode == "online" else None
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=name, resume=resume, dir=str(run.root),
            name=run_name(run.root), config=facts(run),
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, silent=True))
        self.last = max(self.last, self.run.starting_step - 1)
        self.picture = wandb.Image

    def send(self, point: Point) -> None:
        image = {} if point.image is None else {"snapshot": self.picture(point.image)}
        self.run.log({**point.values, **image}, step=point.iteration, commit=True)

    def close(self) -> None:
        self.run.finish()


def _has_login(chosen: Any) -> bool:
    from requests.utils import get_netrc_auth

    return bool(chosen.api_key or chosen.identity_token_file or get_netrc_auth(chosen.base_url))


def _last_offline(root: Path, name: str) -> int:
    """The last step in the files of offline runs of this id; what a kill left half-written ends a file."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]
    from wandb.sdk.internal.datastore import DataStore

    last = -1
    for path in (root / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"):
        store = DataStore()
        store.open_for_scan(str(path))
        with suppress(AssertionError, EOFError):
            while (data := store.scan_data()) is not None:
                record = Record()
                record.ParseFromString(data)
                if record.HasField("history"):
                    last = max(last, record.history.step.num)
    return last


class MLflow:
    """A run in MLflow, on the server or in the folder at MLFLOW_TRACKING_URI."""

    def __init__(self, run: Run):
        _need("mlflow")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder is a choice, also of newer versions
        from mlflow import MlflowClient, get_tracking_uri
        from mlflow.entities import Metric, Param

        self.metric, address = Metric, get_tracking_uri()
        if address.startswith("sqlite") and importlib.util.find_spec("sqlalchemy") is None:
            address = Path("mlruns").resolve().as_uri()  # the small package knows folders and servers
        self.client = MlflowClient(address)
        self.id, self.last = self._opened(run)
        known = [Param(name, str(value)[:6000]) for name, value in facts(run).items()]
        if self.last < 0:  # parameters are final
            self.client.log_batch(self.id, params=known)

    def _opened(self, run: Run) -> tuple[str, int]:
        """The run in MLflow, made if need be, and the last iteration that it has."""
        from mlflow.exceptions import MlflowException

        before = _known_id(run.root, "mlflow")
        with suppress(MlflowException):  # another server, or deleted there
            if before:
                found = self.client.get_run(before)
                self.client.update_run(found.info.run_id, status="RUNNING")
                return found.info.run_id, int(found.data.metrics.get("iteration", -1))
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self.client.create_experiment(name)
        made = self.client.create_run(place, run_name=run_name(run.root)).info.run_id
        return _keep_id(run.root, "mlflow", made), -1

    def send(self, point: Point) -> None:
        if point.image is not None:
            self.client.log_image(self.id, point.image, key="snapshot", step=point.iteration)
        now = int(1000 * time.time())
        # last: what says that all before it has arrived
        values = {**point.values, "iteration": float(point.iteration)}
        self.client.log_batch(self.id, [self.metric(name, value, now, point.iteration)
                                        for name, value in values.items()])

    def close(self) -> None:
        self.client.set_terminated(self.id)


KINDS: dict[str, Any] = dict(zip(TRACKERS, (TensorBoard, WeightsAndBiases, MLflow)))
LOOK = {"tensorboard": "`tensorboard --logdir FOLDER` shows all runs below a folder",
        "wandb": "sent; runs of WANDB_MODE=offline wait in its folder wandb for `wandb sync`",
        "mlflow": "sent to MLFLOW_TRACKING_URI"}
