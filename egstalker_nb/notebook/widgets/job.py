"""Long work behind buttons: it runs in a thread of its own, and the kernel stays free."""
from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from html import escape
from typing import Any, Callable, Generic, Optional, TypeVar

import ipywidgets

from ...core.errors import EgsError
from ...core.progress import Listener, listening, live_line
from ...core.table import Table
from .base import Panel, live

T = TypeVar("T")
LABELS = {"idle": "Start", "running": "Running", "stopping": "Stopping", "stopped": "Resume", "failed": "Try again",
          "done": "Done"}
PATIENCE = 4.0  # seconds that work has to stop when the kernel ends; Jupyter kills it after 5
_log = logging.getLogger(__name__)
_jobs: "weakref.WeakSet[Job]" = weakref.WeakSet()


class Job(Panel, Generic[T]):
    """A piece of work with buttons to start, stop and resume it, a progress bar and its line.

    The work is a function that can be called again to go on where it was stopped, as `egs.prepare`, `egs.train` and
    `egs.render` can. Stopping raises KeyboardInterrupt in it at its next progress update (`egs.train` finishes the
    step and writes a checkpoint first); so does the end of the kernel.

    Attributes:
        state: idle, running, stopping, stopped, failed or done. line: the newest progress line. share: of the work
        that is done, 0...1. error: what it failed with. watchers: called, in any thread, whenever one of these
        changes; what they raise is logged once and does not disturb the work.
    """

    def __init__(self, work: Callable[[], T], name: str = "work"):
        self.work, self.name = work, name
        self.state, self.line, self.share = "idle", "", 0.0
        self.error: Optional[BaseException] = None
        self.value: Optional[T] = None
        self.watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._listener: Optional[Listener] = None
        self._complained = False
        self._raised = True  # whether `result` has raised `error`
        _jobs.add(self)

    def __repr__(self) -> str:
        return f"{self.name}: {self.state}" + (f", {self.line}" if self.line else "")

    @property
    def busy(self) -> bool:
        """Whether it is at work now."""
        return self.state in ("running", "stopping")

    def start(self, *_: Any) -> None:
        """Begin, or go on after a stop or a failure; nothing happens while it runs or when it is done."""
        if self._begin(Listener(self._progress)):
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()

    def stop(self, *_: Any) -> None:
        """Ask the work to stop; it does so in its own time."""
        with self._lock:
            if self.state != "running":
                return
            self.state = "stopping"
            if self._listener is not None:
                self._listener.stopping.set()
        self._tell()

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Wait until it does not run any more, at most so long; True if that is so."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.busy

    def result(self) -> T:
        """What the work returns; it is started if need be and waited for. Interrupting the kernel stops it.

        Where nobody can press buttons, it runs here and now, like any other call.

        Raises:
            KeyboardInterrupt: it was stopped. EgsError and others: what it failed with; the next call tries again.
        """
        if self.error is None or self._raised:
            self.start() if live() else self._begin(None) and self._run()
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
        return self.value

    def _begin(self, listener: Optional[Listener]) -> bool:
        with self._lock:
            if self.busy or self.state == "done":
                return False
            self.state, self.error, self._raised = "running", None, False
            self._listener = listener
        self._tell()
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
        self._tell()

    def _progress(self, line: str, share: float) -> None:
        self.line, self.share = line, share
        self._tell()

    def _tell(self) -> None:
        for watcher in (self.refresh, *self.watchers):
            try:
                watcher()
            except Exception:  # a chart that cannot be drawn must not end hours of training
                if not self._complained:
                    _log.exception("a panel of '%s' could not be brought up to date", self.name)
                self._complained = True

    # ---- the two forms ----

    def build(self) -> ipywidgets.Widget:
        self.go = ipywidgets.Button(description="Start", icon="play", button_style="primary")
        self.halt = ipywidgets.Button(description="Stop", icon="stop")
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout=ipywidgets.Layout(width="24em"))
        self.go.on_click(self.start)
        self.halt.on_click(self.stop)
        self.text = ipywidgets.HTML()
        box = ipywidgets.VBox([ipywidgets.HBox([self.go, self.halt, self.bar]), self.text, self.note])
        self._built = True
        self.refresh()
        return box

    def refresh(self) -> None:
        """Bring the controls up to date."""
        if not getattr(self, "_built", False):
            return
        self.go.description, self.bar.value = LABELS[self.state], self.share
        self.go.disabled = self.busy or self.state == "done"
        self.halt.disabled = self.state != "running"
        self.bar.bar_style = {"done": "success", "failed": "danger", "stopped": "warning"}.get(self.state, "")
        self.text.value = f"<code>{escape(f'{self.name}: {self.state}')}</code> {escape(self.line)}"
        if self.error is not None:
            kind = "" if isinstance(self.error, EgsError) else f"{type(self.error).__name__}: "
            self.say(f"{kind}{self.error}", error=True)
        else:
            self.say("")

    def still(self) -> Table:
        return Table(("work", "state", "progress"), [(self.name, self.state, self.line or None)])


def stop_all(seconds: float = PATIENCE) -> None:
    """Stop all work and give it some time to write what it has: Python ends these threads in the middle."""
    running = [job for job in _jobs if job.busy]
    for job in running:
        job.stop()
    end = time.monotonic() + seconds
    for job in running:
        job.wait(max(0.0, end - time.monotonic()))


# before Python closes its thread pools, without which no further step can be made; that hook has no public name
getattr(threading, "_register_atexit", atexit.register)(stop_all)
