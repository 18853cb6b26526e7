"""Long work behind buttons: it runs in a thread of its own, and the kernel stays free."""
from __future__ import annotations

import threading
from typing import Any, Callable, Generic, Optional, TypeVar

import ipywidgets

from ..errors import EgsError
from ..progress import Listener, listening
from ..tables import Table
from .base import Panel

T = TypeVar("T")
LABELS = {"idle": "Start", "running": "Running", "stopping": "Stopping", "stopped": "Resume", "failed": "Try again",
          "done": "Done"}


class Job(Panel, Generic[T]):
    """A piece of work with buttons to start, stop and resume it, a progress bar and its line.

    The work is a function that can be called again to go on where it was stopped, as `egs.prepare`, `egs.train` and
    `egs.render` can. Stopping raises KeyboardInterrupt in it at its next progress update (`egs.train` finishes the
    step and writes a checkpoint first).

    Attributes:
        state: idle, running, stopping, stopped, failed or done. line: the newest progress line. share: of the work
        that is done, 0...1. error: what it failed with.
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

    def __repr__(self) -> str:
        return f"{self.name}: {self.state}" + (f", {self.line}" if self.line else "")

    def start(self, *_: Any) -> None:
        """Begin, or go on after a stop or a failure; nothing happens while it runs or when it is done."""
        with self._lock:
            if self.state in ("running", "stopping", "done"):
                return
            self.error, self._listener = None, Listener(self._progress)
            self._set("running")
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()

    def stop(self, *_: Any) -> None:
        """Ask the work to stop; it does so in its own time."""
        with self._lock:
            if self.state == "running":
                self._set("stopping")
                self._listener.stopping.set()

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Wait until it does not run any more, at most so long; True if that is so."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.state not in ("running", "stopping")

    def result(self) -> T:
        """What the work returns; it is started if need be and waited for. Interrupting the kernel stops it.

        Raises:
            KeyboardInterrupt: it was stopped. EgsError and others: what it failed with.
        """
        self.start()
        try:
            while not self.wait(0.1):
                pass
        except KeyboardInterrupt:
            self.stop()
            self.wait()
        if self.error is not None:
            raise self.error
        if self.state == "stopped":
            raise KeyboardInterrupt(f"{self.name} was stopped: press Resume, or run this cell again")
        return self.value

    def _run(self) -> None:
        state = "done"
        try:
            with listening(self._listener):
                self.value = self.work()
        except KeyboardInterrupt:
            state = "stopped"
        except BaseException as error:  # shown in the panel, raised by `result`
            self.error, state = error, "failed"
        with self._lock:
            self.share = 1.0 if state == "done" else self.share
            self._set(state)

    def _progress(self, line: str, share: float) -> None:
        self.line, self.share = line, share
        self._tell()

    def _set(self, state: str) -> None:
        self.state = state
        self._tell()

    def _tell(self) -> None:
        self.refresh()
        for watcher in self.watchers:
            watcher()

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
        self.go.disabled = self.state in ("running", "stopping", "done")
        self.halt.disabled = self.state != "running"
        self.bar.bar_style = {"done": "success", "failed": "danger", "stopped": "warning"}.get(self.state, "")
        self.text.value = f"<code>{self.name}: {self.state}</code> {self.line}"
        if self.error is not None:
            kind = "" if isinstance(self.error, EgsError) else f"{type(self.error).__name__}: "
            self.say(f"{kind}{self.error}", error=True)
        else:
            self.say("")

    def still(self) -> Table:
        return Table(("work", "state", "progress"), [(self.name, self.state, self.line or None)])
