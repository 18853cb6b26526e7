"""Executes one run of a sweep, on whichever computer it was scheduled."""
from __future__ import annotations

import os
import platform
import signal
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, cast

from .. import __version__
from ..core.errors import EgsError, InputError, first_line
from ..core.files import exclusive_lock, make_folder, write_json
from ..training.history import History
from .execute import NotebookError, execute, kernel_environment
from .run_folder import OVER, STATUS, RunFolder
from .storage import RemoteFolder, is_remote, local_folder

POLL_SECONDS = 1.0     # between looks at the metrics and at requests to stop
PUSH_SECONDS = 20.0    # between copies of a running run to an object store
PUSHES = 10            # times that the end of a run is tried to be copied there, before the run counts as lost
LOCK_SECONDS = 180.0   # to wait for what another worker, now dead or dying, still holds


@dataclass(frozen=True)
class Task:
    """What a worker is told about a run; everything in it can be sent to another computer.

    Attributes:
        id: of the run.
        place: its folder: a path that all computers see, or an address in an object store.
        parameters: of its notebooks.
        dataset: folder, address, or "".
        notebooks: name -> folder that it works in, in order.
        declared: name -> its parameters.
        iterations: of the whole training, 0 without.
        threads: of the kernels.
        device: `cpu` hides the GPUs.
        version: of the package that planned it.
    """

    id: str
    place: str
    parameters: dict[str, Any]
    dataset: str
    notebooks: dict[str, str]
    declared: dict[str, list[str]]
    iterations: int
    threads: int = 1
    device: Optional[str] = None
    version: str = __version__


def work(task: Task, sources: dict[str, str], before: str = "finished") -> str:
    """Execute the notebooks of a run, or continue where another worker was interrupted.

    The training goes on from its newest checkpoint; notebooks that ended well in an earlier attempt are not repeated.

    Args:
        task: what to do.
        sources: name -> text of the notebooks; those on this computer may be others.
        before: the state that the run which makes its dataset ended in.

    Returns:
        the state that the run is in now, see `run_folder.State`.
    """
    remote = RemoteFolder(task.place) if is_remote(task.place) else None
    folder = RunFolder(make_folder(local_folder(task.place)))
    with _lock(folder.root, "run"):
        if remote:
            remote.pull(folder.root)
            if not remote.has("stop"):
                folder.clear_stop()
        if folder.state["state"] in OVER:
            return folder.state["state"]
        if folder.stop_requested:  # before it was its turn
            folder.set_state(folder.stop_requested)  # type: ignore[arg-type]
            return _over(folder, remote)
        if before != "finished":
            folder.set_state("failed", error=f"its dataset was not prepared: that run is {before}", cell=None)
            return _over(folder, remote)
        now = {"node": platform.node(), "process": os.getpid(), "started": time.time(), "error": None, "cell": None}
        state = folder.set_state("running", attempt=folder.state["attempt"] + 1, **now)
        write_json(folder.root / "run.json", {"id": task.id, "dataset": task.dataset, "parameters": task.parameters,
                                              "notebooks": list(task.notebooks), "version": task.version})
        ended, facts = "failed", dict[str, Any]()
        try:
            ended, facts = _notebooks(task, sources, folder, remote, state)
        except EgsError as error:
            facts = {"error": first_line(error, 2000)}
        except Exception as error:  # of another package: the run failed, the sweep goes on
            facts = {"error": f"{type(error).__name__}: {first_line(error, 2000)}"}
        facts["seconds"] = state.get("seconds", 0.0) + time.time() - now["started"]
        folder.set_state(ended, ended=time.time(), **facts, results=folder.results())  # type: ignore[arg-type]
        return _over(folder, remote)


def _over(folder: RunFolder, remote: Optional[RemoteFolder]) -> str:
    for left in reversed(range(PUSHES if remote else 0)):
        try:
            _push(folder, cast(RemoteFolder, remote))
            break
        except EgsError:
            if not left:
                raise
            time.sleep(PUSH_SECONDS)
    return folder.state["state"]


def _push(folder: RunFolder, remote: RemoteFolder) -> None:
    """Copy a run to the object store. Last comes its status, a small file beside those of all other runs of the sweep:
    all that the table needs."""
    remote.push(folder.root)
    sweep, _, run = remote.address.rpartition("/runs/")
    RemoteFolder(sweep).write(f"{STATUS}/{run}.json", folder.status())


def _notebooks(task: Task, sources: dict[str, str], folder: RunFolder, remote: Optional[RemoteFolder],
               state: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Execute the notebooks; the state that this leads to, and what is to be known about it."""
    if task.version != __version__:
        raise InputError(f"version {task.version} of the kit on every computer", f"{__version__} on this one "
                         f"({platform.node()})", "Install the same version there.")
    values = {**task.parameters, "dataset": _local_dataset(task.dataset), "run": str(folder.head),
              "out": str(folder.root)}
    if "video" in task.parameters:  # a run that prepares a dataset
        values["dataset"] = str(folder.root / "dataset")
    done = list(state.get("done", []))
    if hasattr(signal, "pthread_sigmask"):  # Ray blocks it in its processes, and kernels would inherit that
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if folder.head.is_dir():  # the kernel of a worker that died may still be finishing its last step
        with _lock(folder.head, "training"):
            pass
    with tempfile.TemporaryDirectory(prefix="egs-run-") as temporary, open(
            folder.root / "log.txt", "a", encoding="utf-8", buffering=1) as log:
        line = Path(temporary) / "line"
        with kernel_environment(line, folder.notebooks, task.device, task.threads), _Watch(
                folder, remote, task.iterations, line):
            for name in task.notebooks:
                if name in done:
                    continue
                source = Path(temporary) / f"{name}.ipynb"
                source.write_text(sources[name], encoding="utf-8")
                given = {key: values[key] for key in task.declared[name] if key in values}
                saved = f"{remote.address}/notebooks/{name}.ipynb" if remote else make_folder(
                    folder.notebooks) / f"{name}.ipynb"
                log.write(f"---- {name}\n")
                try:
                    execute(source, saved, given, log, _existing(task.notebooks[name], temporary))
                except NotebookError as error:
                    asked = folder.stop_requested
                    if asked:
                        return asked, {}
                    return "failed", {"error": first_line(error.found, 2000), "cell": error.cell, "notebook": name}
                done.append(name)
                folder.set_state("running", done=done)
    return "finished", {}


def _local_dataset(place: str) -> str:
    """The folder of a dataset; one in an object store is copied to this computer, once."""
    if not is_remote(place):
        return place
    folder = make_folder(local_folder(place))
    with _lock(folder, "copy"):
        RemoteFolder(place).pull(folder)
    return str(folder)


def _existing(folder: str, other: str) -> Path:
    """The folder that a notebook works in: its own, with what lies beside it; on another computer, any."""
    return Path(folder if os.path.isdir(folder) else other)


@contextmanager
def _lock(folder: Path, what: str) -> Iterator[None]:
    """Hold a lock; a worker or kernel that is dying may keep it for a moment."""
    end = time.monotonic() + LOCK_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(exclusive_lock(folder, what))
                break
            except InputError:
                if time.monotonic() > end:
                    raise
            time.sleep(POLL_SECONDS)
        yield


class _Watch:
    """While the notebooks run: writes the progress, copies to the object store, and interrupts the kernel when a stop
    is requested."""

    def __init__(self, folder: RunFolder, remote: Optional[RemoteFolder], planned: int, line: Path):
        self.folder, self.remote, self.planned, self.line = folder, remote, planned, line
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        history, pushed, interrupted = History(self.folder.head), time.monotonic(), False
        while not self._over.wait(POLL_SECONDS):
            try:
                text = self.line.read_text(encoding="utf-8") if self.line.is_file() else ""
                self.folder.write_progress(history, self.planned, text)
                if self.remote and time.monotonic() - pushed > PUSH_SECONDS:
                    _push(self.folder, self.remote)
                    self.remote.pull(self.folder.root, "stop")
                    pushed = time.monotonic()
            except (OSError, EgsError):  # a full disk or a store that cannot be reached for a moment
                continue
            if self.folder.stop_requested and not interrupted:
                interrupted = interrupt_kernels()


def interrupt_kernels() -> bool:
    """Interrupt the kernels that this process has started, as Jupyter does; whether there was one."""
    import psutil

    found = False
    for child in psutil.Process().children():
        try:
            if any("ipykernel" in word for word in child.cmdline()):
                child.send_signal(signal.SIGINT)
                found = True
        except psutil.Error:
            continue
    return found
