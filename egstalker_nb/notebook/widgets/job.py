"""Long-running work controlled by buttons: it runs in its own thread, and the kernel stays responsive."""
from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from html import escape
from typing import Any, Callable, Generic, Optional, TypeVar, cast

import ipywidgets

from ...core.errors import EgsError
from ...core.progress import ProgressListener, listening, live_line
from ...core.table import Table
from .base import Panel, live

T = TypeVar("T")
LABELS = {"idle": "Start", "running": "Running", "stopping": "Stopping", "stopped": "Resume", "failed": "Try again",
          "done": "Done"}
STOP_SECONDS = 4.0  # for jobs to stop when the kernel shuts down; Jupyter kills it after 5
_log = logging.getLogger(__name__)
_jobs: "weakref.WeakSet[Job]" = weakref.WeakSet()


class Job(Panel, Generic[T]):
    """Work with buttons to start, stop and resume it, a progress bar and a progress line.

    The work is a function that continues where it was stopped when it is called again, as `egs.prepare`, `egs.train`
    and `egs.render` do. Stopping raises KeyboardInterrupt in it at its next progress update (`egs.train` first finishes
    the step and writes a checkpoint); so does a shutdown of the kernel.

    Args:
        work: the function.
        name: of the work, for its progress line.

    Attributes:
        state: idle, running, stopping, stopped, failed or done.
        line: the newest progress line.
        share: of the work that is done, 0...1.
        value: what the work returned, once it is done.
        error: the exception it failed with.
        watchers: called, in any thread, whenever one of these changes; an exception in one of them is logged once and
            does not interrupt the work.
    """

    def __init__(self, work: Callable[[], T], name: str = "work"):
        self.work, self.name = work, name
        self.state, self.line, self.share = "idle", "", 0.0
        self.error: Optional[BaseException] = None
        self.value: Optional[T] = None
        self.watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._listener: Optional[ProgressListener] = None
        self._logged = False  # whether an exception of a watcher was logged
        self._raised = True  # whether `result` has raised `error`
        _jobs.add(self)

    def __repr__(self) -> str:
        return f"{self.name}: {self.state}" + (f", {self.line}" if self.line else "")

    @property
    def busy(self) -> bool:
        """Whether it is running now."""
        return self.state in ("running", "stopping")

    def start(self, *_: Any) -> None:
        """Start, or continue after a stop or a failure; does nothing while it runs or when it is done."""
        if self._begin(ProgressListener(self._progress)):
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()

    def stop(self, *_: Any) -> None:
        """Request a stop; the work stops at its next progress update."""
        with self._lock:
            if self.state != "running":
                return
            self.state = "stopping"
            if self._listener is not None:
                self._listener.stopping.set()
        self._notify()

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Wait until it is not running any more, at most `seconds`; whether that is so."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.busy

    def result(self) -> T:
        """Wait for the work, starting it if necessary, and return its value. Interrupting the kernel stops it.

        In a headless run, where nobody can press buttons, it runs in this thread like any other call.

        Raises:
            KeyboardInterrupt: it was stopped.
            EgsError: or any other exception it failed with; the next call tries again.
        """
        if self.error is None or self._raised:
            if live():
                self.start()
            elif self._begin(None):
                self._run()
        show = live_line()
        try:
            while not self.wait(0.1):
                show(self.line, self.share)
        except KeyboardInterrupt:
            self.stop()
            self.wait()
        show(self.line, self.share)
        if self.error is not None:
            self._raised = True
            raise self.error
        if self.state == "stopped":
            raise KeyboardInterrupt(f"{self.name} was stopped: press Resume, or run this cell again")
        return cast(T, self.value)

    def _begin(self, listener: Optional[ProgressListener]) -> bool:
        with self._lock:
            if self.busy or self.state == "done":
                return False
            self.state, self.error, self._raised = "running", None, False
            self._listener = listener
        self._notify()
        return True

    def _run(self) -> None:
        state, error = "done", None
        try:
            with listening(self._listener):
                self.value = self.work()
        except KeyboardInterrupt:
            state = "stopped"
        except BaseException as failure:  # shown in the panel, raised by `result`
            state, error = "failed", failure
        with self._lock:
            self.state, self.error = state, error
            self.share = 1.0 if state == "done" else self.share
        self._notify()

    def _progress(self, line: str, share: float) -> None:
        self.line, self.share = line, share
        self._notify()

    def _notify(self) -> None:
        for watcher in (self.refresh, *self.watchers):
            try:
                watcher()
            except Exception:  # a chart that cannot be drawn must not end hours of training
                if not self._logged:
                    _log.exception("a panel of '%s' could not be updated", self.name)
                self._logged = True

    # ---- interactive and static form ----

    def build(self) -> ipywidgets.Widget:
        self.go = ipywidgets.Button(description="Start", icon="play", button_style="primary")
        self.halt = ipywidgets.Button(description="Stop", icon="stop")
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout=ipywidgets.Layout(width="24em"))
        self.go.on_click(self.start)
        self.halt.on_click(self.stop)
        self.text = ipywidgets.HTML()
        return ipywidgets.VBox([ipywidgets.HBox([self.go, self.halt, self.bar]), self.text, self.note])

    def redraw(self) -> None:
        self.go.description, self.bar.value = LABELS[self.state], self.share
        self.go.disabled = self.busy or self.state == "done"
        self.halt.disabled = self.state != "running"
        self.bar.bar_style = {"done": "success", "failed": "danger", "stopped": "warning"}.get(self.state, "")
        self.text.value = f"<code>{escape(f'{self.name}: {self.state}')}</code> {escape(self.line)}"
        if self.error is not None:
            kind = "" if isinstance(self.error, EgsError) else f"{type(self.error).__name__}: "
            self.show_message(f"{kind}{self.error}", error=True)
        else:
            self.show_message("")

    def still(self) -> Table:
        return Table(("job", "state", "progress"), [(self.name, self.state, self.line or None)])


def stop_all(seconds: float = STOP_SECONDS) -> None:
    """Stop all jobs and give them time to save their work: Python kills these daemon threads at its exit."""
    running = [job for job in _jobs if job.busy]
    for job in running:
        job.stop()
    end = time.monotonic() + seconds
    for job in running:
        job.wait(max(0.0, end - time.monotonic()))


# before Python closes its thread pools, which a training step needs; this hook has no public name
getattr(threading, "_register_atexit", atexit.register)(stop_all)
