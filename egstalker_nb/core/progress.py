"""One live progress line for the terminal, for notebooks and for Papermill."""
from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Callable, Iterable, Iterator, Optional, TypeVar

T = TypeVar("T")
REFRESH_SECONDS = 0.25


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


class Listener:
    """Where the progress of a thread goes instead of a cell, and how the work in it is asked to stop.

    Attributes:
        show: called with the line and the share that is done, 0...1.
        stopping: set from another thread; the next update then raises KeyboardInterrupt in the working thread.
        graceful: the work looks at `stopping` by itself, and an update raises nothing.
    """

    def __init__(self, show: Callable[[str, float], None]):
        self.show, self.stopping, self.graceful = show, threading.Event(), False


_listener: ContextVar[Optional[Listener]] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Optional[Listener]) -> Iterator[None]:
    """All progress lines of this thread go to `listener` inside the block; None: where they would go anyway."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Optional[Listener]:
    """This thread's listener, if it has one."""
    return _listener.get()


class _Line:
    """What a notebook shows: a bar as HTML, the same line as text for exports that drop HTML."""

    def __init__(self, text: str, fraction: float):
        self.text, self.fraction = text, fraction

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return (f'<progress max="1" value="{self.fraction:.4f}" style="width:16em"></progress> '
                f"<code>{escape(self.text)}</code>")


def live_line() -> Callable[[str, float], None]:
    """A line and a bar for a cell that waits for work of another thread: call it with the text and the share done."""
    handle, shown = None, ""

    def show(text: str, share: float) -> None:
        nonlocal handle, shown
        if not in_notebook() or text == shown:
            return
        from IPython.display import display

        shown, line = text, _Line(text, share)
        if handle is None:
            handle = display(line, display_id=True)
        else:
            handle.update(line)

    return show


class Progress:
    """A progress line: `desc 120/1000 12% 31.0 it/s 0:28 left  loss 0.12  psnr 27.1`.

    In a terminal it rewrites one line of stderr (plain lines every 10 s where stderr is a file). In a
    notebook it updates one display, which Papermill saves with the notebook; in a thread with a `Listener` it goes
    there, and in any other thread, which has no cell to write to, nowhere. Where the variable `EGS_PROGRESS_FILE`
    names a file, the newest line is also kept there, so that the program that runs a notebook headless can show it.

    Args:
        total: number of steps; `initial` of them are already done (a resumed run).
        desc: what is counted.
        unit: name of one step in the speed, for instance `it` or `frame`.
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
        return time.perf_counter() - self.start

    def line(self) -> str:
        steps, elapsed = self.done - self.initial, max(self.seconds, 1e-9)
        rate = steps / elapsed
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        percent = 100.0 * self.done / max(self.total, 1)
        when = f"{clock(left)} left" if self.done < self.total else f"{clock(elapsed)} in all"
        parts = [f"{self.desc} {self.done}/{self.total} {percent:.0f}%", f"{rate:.1f} {self.unit}/s", when]
        parts += [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.fields.items()]
        return "  ".join(parts)

    def update(self, n: int = 1, **fields: object) -> None:
        """Count `n` more steps; `fields` (numbers or short text) are shown behind the speed."""
        self.done += n
        self.fields.update(fields)
        if self._listener and self._listener.stopping.is_set() and not self._listener.graceful:
            raise KeyboardInterrupt(f"stopped: {self.line()}")
        patience = REFRESH_SECONDS if (self._notebook or self._terminal or self._listener) else 10.0
        if time.perf_counter() - self._shown >= patience:
            self._show()

    def _show(self, last: bool = False) -> None:
        self._shown = time.perf_counter()
        text = self.line()
        if self._file:
            with open(self._file, "w", encoding="utf-8") as f:
                f.write(text)
        if self._listener:
            self._listener.show(text, self.done / max(self.total, 1))
        elif self._quiet:
            pass
        elif self._notebook:
            from IPython.display import display

            shown = _Line(text, self.done / max(self.total, 1))
            if self._handle is None:
                self._handle = display(shown, display_id=True)
            else:
                self._handle.update(shown)
        elif self._terminal:
            sys.stderr.write("\r\033[K" + text + ("\n" if last else ""))
            sys.stderr.flush()
        else:
            sys.stderr.write(text + "\n")

    def close(self) -> None:
        self._show(last=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def progress(items: Iterable[T], desc: str, total: Optional[int] = None, unit: str = "frame") -> Iterator[T]:
    """Iterate over `items` with a progress line; `total` is needed where `items` has no length."""
    if total is None:
        total = len(items)  # type: ignore[arg-type]
    with Progress(total, desc, unit) as bar:
        for item in items:
            yield item
            bar.update()
