"""Children that do the work of the package and meet a fault at a chosen moment, and what is compared afterwards.

A moment is counted, not timed, so that the same one is met again: an audit hook sees each file that is opened for
writing, renamed or removed below the folder of the work, and some functions of the package are wrapped. Children are
forked from a server that has loaded everything (`preload`), and use one thread.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Optional
from unittest import mock

import numpy as np
import torch

TESTS = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "EGS_PROGRESS_FILE": "",
               **dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
AFTER_LIMIT = 40  # events after which a process is killed that never reached its limit of file size

#: events: functions, and under which label the events inside them are counted; None: that of the caller
WATCHED = (
    ("training.densification", "Densifier.step", "densification"), ("training.densification", "duplicate", None),
    ("training.densification", "split", None), ("training.densification", "remove", None),
    ("training.checkpoint", "save", "checkpoint"), ("training.snapshots", "save", "snapshot"),
    ("model.head", "Head.render", "rendering"), ("model.torso", "Torso.forward", "rendering"),
    ("core.progress", "Progress.update", None),
    ("media.video_writer", "write_video", "muxing"), ("media.video_writer", "AudioTrack.write_until", "muxing"),
    ("media.video_writer", "AudioTrack.finish", "muxing"),
    ("rendering.export", "export_frames", "export"))


@dataclass(frozen=True)
class Fault:
    """What happens to a child, and when.

    Attributes:
        event: the number of the event at which it happens; -1: never.
        kind: `kill`; `torn`: killed by the system in the middle of writing the first file that grows beyond `bytes`;
            `full`: such a file cannot grow, as on a full disk; the name of a signal; an exception; or a function.
        bytes: see `kind`.
    """

    event: int = -1
    kind: str | BaseException | Callable[[], object] = "kill"
    bytes: int = 0


@dataclass
class Outcome:
    """How a child ended.

    Attributes:
        status: its exit status; negative: the signal that ended it.
        output: what it wrote to stdout and stderr.
        labels: of all its events, unless it was killed.
        first: the iteration from which it trained on, or -1.
    """

    status: int
    output: str
    labels: list[str] = field(default_factory=list)
    first: int = -1

    @property
    def lines(self) -> list[str]:
        """What it wrote, without progress lines."""
        progress = re.compile(r".* \d+/\d+ \d+%  ")
        return [line for line in self.output.splitlines() if line.strip() and not progress.match(line)]


@dataclass
class Undisturbed:
    """A piece of work as it ends without a fault.

    Attributes:
        args: of the work.
        outcome: how it ended.
        seconds: how long it took.
        folder: what it made. Read only.
        state: of that folder, see `state`.
    """

    args: tuple
    outcome: Outcome
    seconds: float
    folder: Path
    state: dict[str, str]


class Watch:
    """In a child: counts the events of its work, and lets the fault happen."""

    def __init__(self, folder: Path, fault: Fault, label: str):
        self.folder, self.fault, self.label = os.path.realpath(folder), fault, label
        self.labels: list[str] = []
        self.first, self.limited = -1, False

    def install(self) -> None:
        import importlib

        from egstalker_nb.training.trainer import Trainer

        for module, name, label in WATCHED:
            owner: Any = importlib.import_module(f"egstalker_nb.{module}")
            *path, name = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            self._wrap(owner, name, label)
        self._wrap(os, "fsync", None)
        real = Trainer.train_iteration

        def train_iteration(trainer: Trainer) -> None:
            self.first = trainer.iteration if self.first < 0 else self.first
            self.label = trainer.cfg.stage(trainer.iteration + 1)
            real(trainer)

        Trainer.train_iteration = train_iteration  # type: ignore[method-assign]
        sys.addaudithook(self._audit)

    def _wrap(self, owner: Any, name: str, label: Optional[str]) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, self.label = self.label, label or self.label
            self.event()
            try:
                result = real(*args, **kwargs)
                self.event()
                return result
            finally:
                self.label = before

        setattr(owner, name, wrapped)

    def _audit(self, name: str, args: tuple) -> None:
        if name == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) and self._inside(path):
                self.event()
        elif name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") and self._inside(args[0]):
            self.event()

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        text = os.fsdecode(path)  # relative where a folder is removed, through the descriptor of the folder
        return not os.path.isabs(text) or os.path.abspath(text).startswith(self.folder)

    def event(self) -> None:
        """Count an event. The fault comes before what follows."""
        number = len(self.labels)
        self.labels.append(self.label)
        if self.limited and number >= self.fault.event + AFTER_LIMIT:
            os.kill(os.getpid(), signal.SIGKILL)
        if number != self.fault.event:
            return
        kind = self.fault.kind
        if isinstance(kind, BaseException):
            raise kind
        if callable(kind):
            kind()
        elif kind in ("torn", "full"):
            self.limited = kind == "torn"
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.fault.bytes, resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else getattr(signal, kind))


# ---- children ----

class Child:
    """A started child.

    Args:
        work: a function of a module, called with `folder` and `args`; an int that it returns is the exit status.
        folder: of the work; created if need be, events below it are counted.
        args: picklable.
        fault: what happens to the child.
        log: a folder for what the child reports, outside of `folder`.
    """

    def __init__(self, work: Callable[..., Any], folder: Path, *args: Any, fault: Fault = Fault(), log: Path):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["faults.preload"])
        with mock.patch.dict(os.environ, ENVIRONMENT):
            forkserver.ensure_running()
        folder.mkdir(parents=True, exist_ok=True)
        log.mkdir(parents=True, exist_ok=True)
        self.report = log / "events.json"
        self.report.unlink(missing_ok=True)
        self._read, write = context.Pipe(duplex=False)
        self._process = context.Process(target=_child, args=(work, folder, args, fault, log, write))
        self._process.start()
        write.close()
        self.pid: int = self._process.pid
        self._timer: Optional[threading.Timer] = None

    def kill_after(self, seconds: float) -> None:
        """Kill it unless it ends before."""
        self._timer = threading.Timer(seconds, self._process.kill)
        self._timer.start()

    def finish(self) -> Outcome:
        """Wait for its end."""
        with os.fdopen(os.dup(self._read.fileno()), "rb") as file:
            output = file.read().decode(errors="replace")
        self._read.close()
        self._process.join()
        if self._timer:
            self._timer.cancel()
        report = json.loads(self.report.read_text()) if self.report.is_file() else {}
        return Outcome(self._process.exitcode or 0, output, **report)


def run(work: Callable[..., Any], folder: Path, *args: Any, fault: Fault = Fault(), log: Path) -> Outcome:
    """Start a child, see `Child`, and wait for it."""
    return Child(work, folder, *args, fault=fault, log=log).finish()


def succeed(work: Callable[..., Any], folder: Path, *args: Any, log: Path) -> Outcome:
    """Run a child that must succeed."""
    outcome = run(work, folder, *args, log=log)
    assert outcome.status == 0, outcome.output[-2000:]
    return outcome


def _child(work: Callable[..., Any], folder: Path, args: tuple, fault: Fault, log: Path,
           output: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(output.fileno(), 1)  # a pipe, which no limit of file size concerns
    os.dup2(output.fileno(), 2)
    if fault.kind == "torn":  # Python ignores the signal, so that writing fails with an error
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.stdout, sys.stderr = open(1, "w", buffering=1, closefd=False), open(2, "w", buffering=1, closefd=False)
    watch = Watch(folder, fault, work.__name__)
    watch.install()
    status: Any = 1
    try:
        status = work(folder, *args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with contextlib.suppress(OSError):  # no room
            (log / "events.json").write_text(json.dumps({"labels": watch.labels, "first": watch.first}))
    sys.exit(status if isinstance(status, int) else 0)


# ---- what is compared ----

#: what tells the time; what follows from the way in which equal values were pickled; and the highest means between two
#: rows of the metrics, of which a stop writes one more (they serve only to notice a collapse)
VARYING = ("it_per_s", "seconds_per_step", "sha256", "peak")


def state(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder that is not hidden; of arrays, pickles and JSON by values, without times."""
    files = ((path, path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(name): hashlib.sha256(_contents(path)).hexdigest() for path, name in files
            if not any(part.startswith(".") for part in name.parts)}


def _contents(path: Path) -> bytes:
    if path.suffix == ".npz":
        with np.load(path) as file:
            return _values({name: file[name] for name in file.files})
    if path.suffix == ".pt":
        return _values(torch.load(path, weights_only=True))
    if path.suffix in (".json", ".jsonl"):
        return _values([json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else
                       json.loads(path.read_text()))
    return path.read_bytes()


def _values(value: Any) -> bytes:
    """Everything in nested dicts and lists, to the bit."""
    if isinstance(value, dict):
        return b"{%s}" % b",".join(repr(key).encode() + b":" + _values(value[key]) for key in sorted(value, key=repr)
                                   if key not in VARYING)
    if isinstance(value, (list, tuple)):
        return b"[%s]" % b",".join(map(_values, value))
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    return repr(value).encode()


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Names of files that are missing, too many or different."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def leftovers(folder: Path) -> list[str]:
    """Hidden files and folders below a folder, but locks."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                  if path.name.startswith(".") and not path.name.endswith(".lock"))
