"""One live progress line for terminals, notebooks and Papermill."""
from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from pathlib import Path
from typing import Callable, Iterable, Iterator, Optional, TypeVar

T = TypeVar("T")
REFRESH_SECONDS = 0.25
#: if this environment variable is 1, only static forms are shown: for notebooks that are executed headless
STATIC = "EGS_STATIC"


def in_notebook() -> bool:
    """True inside a Jupyter kernel (JupyterLab, Papermill), False in a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and shell.__class__.__name__ == "ZMQInteractiveShell"


def clock(seconds: float) -> str:
    """`75.2` -> `1:15`, `4000` -> `1:06:40`."""
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class ProgressListener:
    """Receives the progress of a worker thread, and asks the thread to stop.

    Attributes:
        show: called with the progress line and the completed fraction, 0...1.
        stopping: set from another thread; the next update then raises KeyboardInterrupt in the worker thread.
        graceful: whether the work checks `stopping` itself; updates then raise nothing.
    """

    def __init__(self, show: Callable[[str, float], None]):
        self.show, self.stopping, self.graceful = show, threading.Event(), False


_listener: ContextVar[Optional[ProgressListener]] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Optional[ProgressListener]) -> Iterator[None]:
    """Send all progress lines of this thread to `listener` inside the block; None: to the default output."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Optional[ProgressListener]:
    """This thread's listener, or None."""
    return _listener.get()


class _Line:
    """Progress in a notebook: a bar as HTML, and the same line as text for exports without HTML."""

    def __init__(self, text: str, fraction: float):
        self.text, self.fraction = text, fraction

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return (f'<progress max="1" value="{self.fraction:.4f}" style="width:16em"></progress> '
                f"<code>{escape(self.text)}</code>")


def live_line() -> Callable[[str, float], None]:
    """A progress bar in a cell that waits for another thread: a function of the text and the completed fraction."""
    handle, shown = None, ""

    def show(text: str, fraction: float) -> None:
        nonlocal handle, shown
        if not in_notebook() or text == shown:
            return
        from IPython.display import display

        shown, line = text, _Line(text, fraction)
        if handle is None:
            handle = display(line, display_id=True)
        else:
            handle.update(line)

    return show


class Progress:
    """A progress line: `desc 120/1000 12% 31.0 it/s 0:28 left  loss 0.12  psnr 27.1`.

    In a terminal it rewrites one line of stderr (if stderr is a file, it appends a line every 10 s). In a notebook it
    updates one display, which Papermill saves with the notebook. In a thread with a `ProgressListener` it goes to
    that; in any other worker thread, which has no cell to write to, it shows nothing. If the environment variable
    `EGS_PROGRESS_FILE` names a file, the latest line is also written there, so that a program that runs a notebook
    headless can show it.

    Args:
        total: number of steps.
        desc: what is counted.
        unit: name of one step in the speed, for instance `it` or `frame`.
        initial: number of steps already done (a resumed run).
    """

    def __init__(self, total: int, desc: str, unit: str = "it", initial: int = 0):
        self.total, self.desc, self.unit = int(total), desc, unit
        self.done = self.initial = int(initial)
        self.fields: dict[str, object] = {}
        self.start = time.perf_counter()
        self._shown = self.start
        self._handle = None
        self._listener = listener()
        self._quiet = self._listener is None and threading.current_thread() is not threading.main_thread()
        self._notebook = in_notebook() and not self._quiet
        self._terminal = sys.stderr.isatty()
        self._file = os.environ.get("EGS_PROGRESS_FILE")

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self.start

    def line(self) -> str:
        """The progress line as text."""
        steps, elapsed = self.done - self.initial, max(self.seconds, 1e-9)
        rate = steps / elapsed
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        percent = 100.0 * self.done / max(self.total, 1)
        when = f"{clock(left)} left" if self.done < self.total else f"{clock(elapsed)} in all"
        parts = [f"{self.desc} {self.done}/{self.total} {percent:.0f}%", f"{rate:.1f} {self.unit}/s", when]
        parts += [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.fields.items()]
        return "  ".join(parts)

    def update(self, n: int = 1, **fields: object) -> None:
        """Count `n` more steps; `fields` (numbers or short text) are shown after the speed."""
        self.done += n
        self.fields.update(fields)
        if self._listener and self._listener.stopping.is_set() and not self._listener.graceful:
            raise KeyboardInterrupt(f"stopped: {self.line()}")
        interval = REFRESH_SECONDS if (self._notebook or self._terminal or self._listener) else 10.0
        if time.perf_counter() - self._shown >= interval:
            self._show()

    def _show(self, last: bool = False) -> None:
        self._shown = time.perf_counter()
        text = self.line()
        if self._listener:
            self._listener.show(text, self.done / max(self.total, 1))
        elif self._notebook:
            from IPython.display import display

            shown = _Line(text, self.done / max(self.total, 1))
            if self._handle is None:
                self._handle = display(shown, display_id=True)
            else:
                self._handle.update(shown)
        with contextlib.suppress(OSError):  # a log on a full disk, or a terminal that is gone, must not end the work
            if self._file:
                Path(self._file).write_text(text, encoding="utf-8")
            if not (self._listener or self._quiet or self._notebook):
                sys.stderr.write(f"\r\033[K{text}" + ("\n" if last else "") if self._terminal else f"{text}\n")
                sys.stderr.flush()

    def close(self) -> None:
        """Show the last state."""
        self._show(last=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def progress(items: Iterable[T], desc: str, total: Optional[int] = None, unit: str = "frame") -> Iterator[T]:
    """Iterate over `items` with a progress line; `total` is required if `items` has no length."""
    if total is None:
        total = len(items)  # type: ignore[arg-type]  # documented: an iterable without a length needs a total
    with Progress(total, desc, unit) as bar:
        for item in items:
            yield item
            bar.update()
