"""Worker processes that do not outlive the process that started them, and the cores that they share."""
from __future__ import annotations

import os
import signal
import threading
import time

_POLL_SECONDS = 0.2


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_worker(parent: int) -> None:
    """Set up a worker process, in its main thread: it leaves Ctrl-C to its parent, and exits when the parent does.

    Args:
        parent: number of the parent process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def exit_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
