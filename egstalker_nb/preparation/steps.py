"""Steps that run once: each has a key made from its settings, keeps partial results, and continues when interrupted.

An unfinished dataset has a hidden folder `.work` with one folder per step. A step's folder holds its key (a hash of the
settings and of the earlier steps that it depends on), its partial results (one file per chunk of frames, each written
to a temporary name and renamed), and `done.json` once it is finished. Results that are missing or damaged are made
again whenever the work is continued, also those of finished steps.
"""
from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import numpy as np

from ..core.files import flush, write_json
from ..core.progress import listener
from ..core.reading import Unreadable, read_json, read_npz
from .results import Result

WORK = ".work"
#: frames per chunk: the most that an interruption costs. The face tracker is reset at the start of each chunk, so that
#: the result does not depend on where preparation was interrupted
CHUNK = 250


class Step:
    """One step's folder in `.work`: its key, its chunks and whether it is done."""

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key

    @property
    def done(self) -> bool:
        return self._record.get("key") == self.key

    @property
    def seconds(self) -> float:
        return self._record["seconds"]

    @property
    def _record(self) -> dict[str, Any]:
        """What `done.json` says; nothing if it is missing or damaged."""
        try:
            return read_json(self.folder / "done.json", key=str, seconds=(int, float))
        except Unreadable:
            return {}

    def chunk(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def begin(self) -> bool:
        """Create the folder; True if it has results for the same key, False if the step is new."""
        if self._marker.is_file():
            return True
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()  # without its parents: a dataset folder that was moved away must not come back
        return False

    def mark(self) -> None:
        """Mark the folder: everything in it belongs to this key."""
        self._marker.touch()

    @property
    def _marker(self) -> Path:
        return self.folder / f"key-{self.key}"


class Workspace:
    """The `.work` folder of an unfinished dataset.

    Args:
        root: the dataset folder, which exists.
    """

    def __init__(self, root: Path):
        self.root, self.folder = root, root / WORK
        self.folder.mkdir(exist_ok=True)
        self.steps: dict[str, Step] = {}
        self._identity = self._stat()

    def run(self, name: str, make: Callable[[Step], None], settings: dict | None = None, needs: Iterable[str] = (),
            clears: Iterable[str] = (), publishes: Iterable[str] = (),
            results: Callable[[Step], Iterable[Result]] = lambda step: ()) -> Step:
        """Run a step unless it is done with the same settings, and all of its results are there and undamaged.

        Args:
            name: of the step and of its folder.
            make: does the work that has no results yet; called with the Step.
            settings: JSON-able, everything that the result depends on.
            needs: earlier steps that it depends on.
            clears: folders of the dataset that the step fills; emptied when the step starts from the beginning.
            publishes: files of the dataset that `make` writes into `.work`, see `publish`.
            results: what the step leaves.

        Returns:
            the Step.
        """
        self._check()
        text = json.dumps([name, settings or {}, [self.steps[n].key for n in needs]], sort_keys=True)
        step = Step(self.folder / name, hashlib.sha256(text.encode()).hexdigest()[:16])
        self.steps[name] = step
        continued = step.begin()
        if continued and not remove_damaged(results(step)) and step.done:
            return step
        for filled in clears:
            if not continued:
                shutil.rmtree(self.root / filled, ignore_errors=True)
            (self.root / filled).mkdir(exist_ok=True)
        step.mark()
        _announce(f"{name} ...", 0.0)
        start = time.perf_counter()
        make(step)
        self._check()
        for file in publishes:
            self.publish(file)
        write_json(step.folder / "done.json", {"key": step.key, "seconds": round(time.perf_counter() - start, 2)})
        _announce(f"{name} done", 1.0)
        return step

    def publish(self, name: str) -> None:
        """Move a file from `.work` into the dataset, in place of one of that name. Files are written in `.work`, so
        that what a kill leaves of them lies there and not beside the dataset's files."""
        self._check()
        os.replace(self.folder / name, self.root / name)
        flush(self.root)

    def remove(self) -> None:
        """Remove the folder; what cannot be removed is left for the next call."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Whatever fails in the block because the dataset folder was moved or deleted, say that.

        Raises:
            OSError: it was.
        """
        try:
            yield
        except Exception:
            self._check()
            raise

    def _stat(self) -> tuple[int, int]:
        stat = self.folder.stat()
        return stat.st_dev, stat.st_ino

    def _check(self) -> None:
        """Raise an OSError if the folder was moved or deleted, or another one has its name now."""
        if self._stat() != self._identity:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def remove_damaged(results: Iterable[Result]) -> int:
    """Remove the files that say that damaged results are done, so that these are made again.

    Returns:
        the number of results that are missing or damaged.
    """
    bad = [result for result in results if not result.is_whole()]
    for result in bad:
        result.path.unlink(missing_ok=True)
    return len(bad)


def _announce(line: str, share: float) -> None:
    """Report to a progress listener that a step begins or ends, since some have no progress line; a stop request takes
    effect here too."""
    if target := listener():
        target.show(line, share)
        if target.stopping.is_set():
            raise KeyboardInterrupt(f"stopped at '{line}'")


def chunks(num_frames: int) -> list[range]:
    """Frame numbers of each chunk."""
    return [range(a, min(a + CHUNK, num_frames)) for a in range(0, num_frames, CHUNK)]


def missing_chunks(step: Step, num_frames: int) -> list[tuple[int, range]]:
    """Number and frames of the chunks that are not done yet."""
    return [(k, ids) for k, ids in enumerate(chunks(num_frames)) if not step.chunk(k).is_file()]


def read_chunks(step: Step) -> Iterator[dict[str, np.ndarray]]:
    """The chunks of a step in order, one in memory at a time."""
    for path in sorted(step.folder.glob("*.npz")):
        yield read_npz(path)


def load_chunks(step: Step) -> dict[str, np.ndarray]:
    """All chunks of a step, concatenated along their first axis."""
    parts = list(read_chunks(step))
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


class WriterThreads:
    """Two threads that encode and write images; at most eight images wait, so that memory use is bounded."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._waiting: list = []

    def __enter__(self) -> "WriterThreads":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, work: Callable, *args: object) -> None:
        if len(self._waiting) >= 8:
            self._waiting.pop(0).result()
        self._waiting.append(self._pool.submit(work, *args))

    def finish(self) -> None:
        """Wait until everything is written; raises the first exception of a writer."""
        for future in self._waiting:
            future.result()
        self._waiting.clear()
