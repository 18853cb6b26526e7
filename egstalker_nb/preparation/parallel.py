"""Chunks of a clip in parallel: in worker processes if the clip is long enough."""
from __future__ import annotations

import os
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Callable, Iterator, Optional, Sequence

from ..core.errors import MemoryLimitError, is_out_of_memory
from ..core.processes import begin_worker
from ..core.progress import Progress

#: each process uses 0.3 to 0.4 GB
MAX_PROCESSES = 4
#: frames from which worker processes save more time than they take to start
MIN_FRAMES_FOR_POOL = 500
#: of the workers: fewer malloc arenas for their threads, 40 MB less each
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}
_POLL_SECONDS = 0.1

#: in a worker process: the queue that counts finished frames, and the event that stops it
_done: Any = None
_stopping: Any = None


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn every way in which memory runs out into one error.

    Raises:
        MemoryLimitError: memory could not be reserved, or a worker process was killed.
    """
    try:
        yield
    except Exception as error:
        killed = isinstance(error, BrokenProcessPool)
        if not killed and not is_out_of_memory(error):
            raise
        found = "a worker process that was killed, as systems do when they run out of it" if killed else "too little"
        raise MemoryLimitError("enough free memory", found,
                               "End other programs, then repeat the same call: what is finished is kept.") from error


def processes_for(num_frames: int) -> int:
    """Number of processes for a clip; 1: this process only."""
    if num_frames < MIN_FRAMES_FOR_POOL:
        return 1
    from loky import cpu_count

    return min(cpu_count(), MAX_PROCESSES)


class WorkerPool:
    """Runs a function on many chunks of a clip. Use it in a `with` block: its processes end with the block.

    The processes are loky's: unlike those of the standard library they do not execute the user's script again, so that
    `egs.prepare` works at the top level of a script. They exit when this process is killed.

    Args:
        num_frames: of the clip; a short one is processed in this process.
    """

    def __init__(self, num_frames: int):
        self.processes = processes_for(num_frames)
        self._executor: Any = None
        self._broken = False

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if self._executor is None:
            return
        if not self._broken:  # a process that was killed may have held the lock of the event
            self._stop.set()
        self._executor.shutdown(wait=True, kill_workers=self._broken)

    def run(self, work: Callable[..., Any], tasks: Sequence[tuple], bar: Progress) -> list[Any]:
        """Call `work(*task, tick)` for each task; `tick()` counts one finished frame on the progress line.

        Args:
            work: a function of a module, so that it can be pickled.
            tasks: arguments of each call, sent to the processes.
            bar: the progress line.

        Returns:
            the results, in the order of the tasks.

        Raises:
            BrokenProcessPool: a process was killed.
            Exception: the first one that `work` raised; the other chunks in progress are abandoned.
        """
        if self.processes == 1 or len(tasks) < 2:
            return [work(*task, bar.update) for task in tasks]
        futures: list[Any] = []
        try:
            executor = self._started()
            futures += [executor.submit(_call, work, task) for task in tasks]
            while not all(future.done() for future in futures):
                wait(futures, timeout=_POLL_SECONDS)
                self._count(bar)
                for future in futures:
                    if future.done():
                        future.result()
            return [future.result() for future in futures]
        except BrokenProcessPool:
            self._broken = True
            raise
        finally:
            for future in futures:
                future.cancel()
            if self._executor is not None:
                self._count(bar)

    def _started(self) -> Any:
        if self._executor is None:
            from loky import ProcessPoolExecutor
            from loky.backend import get_context

            context = get_context("loky")
            self._queue, self._stop = context.SimpleQueue(), context.Event()
            self._executor = ProcessPoolExecutor(self.processes, context=context, initializer=_init_worker,
                                                 initargs=(self._queue, self._stop, os.getpid()), env=ENVIRONMENT)
        return self._executor

    def _count(self, bar: Progress) -> None:
        count = 0
        while not self._queue.empty():
            self._queue.get()
            count += 1
        bar.update(count)


def _init_worker(done: Any, stopping: Any, parent: int) -> None:
    """Set up a worker process: it leaves Ctrl-C to its parent, and exits when the parent does."""
    global _done, _stopping
    import cv2

    _done, _stopping = done, stopping
    cv2.setNumThreads(1)
    begin_worker(parent)


def _call(work: Callable[..., Any], task: tuple) -> Any:
    with enough_memory():  # here, since errors of other packages do not all survive the way to the parent
        return work(*task, _tick)


def _tick() -> None:
    if _stopping.is_set():
        raise KeyboardInterrupt("stopped by the parent process")
    _done.put(None)
