"""Chunks of a clip worked on side by side, in processes of their own where there is enough to do."""
from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Callable, Optional, Sequence

from ..core.errors import UnfinishedError
from ..core.progress import Progress

#: each process takes 0.3 to 0.4 GB
MAX_PROCESSES = 4
#: frames below which starting processes costs more than they save
MIN_FRAMES = 500
#: of the processes: fewer pools of memory for their threads, 40 MB less each
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}
_POLL_SECONDS = 0.1

#: in a worker process: the queue that counts finished frames, and the event that asks it to stop
_done: Any = None
_stopping: Any = None


def processes_for(num_frames: int) -> int:
    """How many processes work on a clip; 1 stands for this one."""
    if num_frames < MIN_FRAMES:
        return 1
    from loky import cpu_count

    return min(cpu_count(), MAX_PROCESSES)


class Crew:
    """Runs a function on many chunks of a clip. Use it in a `with` block: its processes end with the block.

    The processes are loky's: unlike those of the standard library they do not run the user's script again, so that
    `egs.prepare` works at the top level of a script. They end at once when this program is killed.

    Args:
        num_frames: of the clip; a short one is worked on in this process.
    """

    def __init__(self, num_frames: int):
        self.processes = processes_for(num_frames)
        self._pool: Any = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if self._pool is not None:
            self._stop.set()
            self._pool.shutdown(wait=True)

    def run(self, work: Callable[..., Any], tasks: Sequence[tuple], bar: Progress) -> list[Any]:
        """Call `work(*task, tick)` for each task; `tick()` counts one finished frame on the progress line.

        Args:
            work: a function of a module. tasks: its arguments, which are sent to the processes.

        Returns:
            the results, in the order of the tasks.

        Raises:
            what `work` raised first; other chunks that are being worked on are given up.
        """
        if self.processes == 1 or len(tasks) < 2:
            return [work(*task, bar.update) for task in tasks]
        pool = self._started()
        futures = [pool.submit(_work, work, task) for task in tasks]
        try:
            while not all(future.done() for future in futures):
                wait(futures, timeout=_POLL_SECONDS)
                self._count(bar)
                for future in futures:
                    if future.done():
                        future.result()
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise UnfinishedError("processes that finish their work", "one that was ended from outside, as a system "
                                  "does that runs out of memory",
                                  "Free some memory and run it again: finished chunks are kept.") from error
        finally:
            for future in futures:
                future.cancel()
            self._count(bar)

    def _started(self) -> Any:
        if self._pool is None:
            from loky import ProcessPoolExecutor
            from loky.backend import get_context

            context = get_context("loky")
            self._queue, self._stop = context.SimpleQueue(), context.Event()
            self._pool = ProcessPoolExecutor(self.processes, context=context, initializer=_begin,
                                             initargs=(self._queue, self._stop, os.getpid()), env=ENVIRONMENT)
        return self._pool

    def _count(self, bar: Progress) -> None:
        count = 0
        while not self._queue.empty():
            self._queue.get()
            count += 1
        bar.update(count)


def _begin(done: Any, stopping: Any, parent: int) -> None:
    """Prepare a worker process: Ctrl-C is the parent's business, and without a parent there is nothing to do."""
    global _done, _stopping
    import cv2

    _done, _stopping = done, stopping
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(work: Callable[..., Any], task: tuple) -> Any:
    return work(*task, _tick)


def _tick() -> None:
    if _stopping.is_set():
        raise KeyboardInterrupt("stopped by the program that started this process")
    _done.put(None)
