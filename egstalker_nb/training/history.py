"""Reading the rows of a run's metrics.jsonl, also while they are being written. Needs no torch."""
from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any, Optional

import numpy as np

METRICS = "metrics.jsonl"
#: what rows of the metrics hold beside numbers
NO_NUMBERS = "kind", "stage", "births", "by_region"
MAX_POINTS = 300  # of a curve on the screen
RECENT = 5        # rows from whose speed the time left is estimated
#: what a training row holds beside the loss terms
NOT_A_TERM = ("kind", "iteration", "stage", "loss", "psnr", "points", "opacity", "coverage", "it_per_s", "gpu_mib",
              "gpus")

#: of the validation curve: evaluations that a mean is over, and that are needed to tell anything; dB that count as the
#: same; share of a run until which a rise means that it was too short
SMOOTHED, MIN_EVALUATIONS, SAME_DB, FLAT_SHARE = 3, 5, 0.1, 0.8


def parse_rows(data: bytes) -> list[dict[str, Any]]:
    """The intact rows of a metrics.jsonl: a kill leaves a row without an end, a power cut leaves NULs."""
    rows = []
    for line in data[:data.rfind(b"\n") + 1].splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("kind"), str) and type(row.get("iteration")) is int and all(
                type(value) in (int, float, type(None)) for key, value in row.items() if key not in NO_NUMBERS):
            rows.append(row)
    return rows


def plateau(evaluations: list[dict[str, Any]]) -> str:
    """Whether more steps would have helped, in one sentence, by the PSNR of validation frames during training.

    Args:
        evaluations: rows of that kind, oldest first.
    """
    at, psnr = np.array([(r["iteration"], r["val_psnr"]) for r in evaluations if r.get("val_psnr") is not None],
                        float).reshape(-1, 2).T
    if len(at) < MIN_EVALUATIONS:
        return f"{len(at)} evaluations in training are too few to say whether more steps would help."
    curve = np.array([psnr[max(n + 1 - SMOOTHED, 0):n + 1].mean() for n in range(len(psnr))])
    best, since, last = curve.max(), int(at[np.argmax(curve > curve.max() - SAME_DB)]), int(at[-1])
    if curve[-1] < best - SAME_DB:
        return (f"More steps than {int(at[curve.argmax()]):,} hurt: the PSNR of validation frames was {best:.1f} dB at "
                f"best, and is {curve[-1]:.1f} dB after {last:,}.")
    if since > FLAT_SHARE * last:
        return f"More steps may help: the PSNR of validation frames still rose at iteration {since:,} of {last:,}."
    return (f"More steps stopped helping: the PSNR of validation frames has been within {SAME_DB} dB of its best "
            f"({best:.1f} dB) since iteration {since:,} of {last:,}.")


def thinned(x: np.ndarray, y: np.ndarray, points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A curve x, y [n] with at most `points` points: means over equal groups, each at its last x; short curves as they
    are."""
    group = -(-len(x) // points)
    if group <= 1:
        return x, y
    ends = np.minimum(np.arange(group, len(x) + group, group), len(x))
    sums = np.add.reduceat(y.astype(float), ends - np.diff(ends, prepend=0))
    return x[ends - 1], sums / np.diff(ends, prepend=0)


class History:
    """Rows of a run folder's metrics, oldest first; `read` adds what was written since.

    Args:
        root: the run folder.

    Attributes:
        rows: all of them: `kind`, `iteration` and the values of that kind.
    """

    def __init__(self, root: str | Path):
        self.path = Path(root) / METRICS
        self.rows: list[dict[str, Any]] = []
        self._at, self._file = 0, (-1, -1)  # bytes read, and which file they were read from
        self._reading = threading.Lock()  # a cell and the thread that trains may both read
        self.read()

    def read(self) -> bool:
        """Take in new rows; True if there are any. A row that is still being written waits for the next time."""
        with self._reading:
            return self._read()

    def _read(self) -> bool:
        try:
            with open(self.path, "rb") as file:
                whole = _identity(file.fileno())
                fresh = whole[0] != self._file or whole[1] < self._at
                if fresh:  # a resumed run rewrites the file, without rows of steps that will be done again
                    self.rows, self._at, self._file = [], 0, whole[0]
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return False
        new = new[:new.rfind(b"\n") + 1]
        self._at += len(new)
        self.rows = self.rows + parse_rows(new)  # a new list: others may hold the old
        return fresh or bool(new)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Rows of one kind: train, eval, densify or checkpoint."""
        return [row for row in self.rows if row["kind"] == kind]

    def upto(self, last: Optional[int]) -> History:
        """The same, as if it had ended at iteration `last`."""
        part = object.__new__(History)
        part.__dict__.update(self.__dict__)
        part.rows = [r for r in self.rows if last is None or r["iteration"] <= last]
        return part

    @property
    def iteration(self) -> int:
        """The last one that has a row."""
        return self.rows[-1]["iteration"] if self.rows else 0

    @property
    def terms(self) -> list[str]:
        """Names of the loss terms."""
        return list(dict.fromkeys(k for row in self.of("train") for k in row if k not in NOT_A_TERM))

    def curve(self, name: str, kind: str = "train", points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
        """Iterations and values of a named number, at most `points` of each."""
        some = [(r["iteration"], r[name]) for r in self.of(kind) if r.get(name) is not None]
        x, y = np.array(some, float).reshape(-1, 2).T
        return thinned(x, y, points)

    def seconds(self) -> tuple[np.ndarray, np.ndarray]:
        """Iterations of the training rows and the time that training had taken by then, over all sessions, in s."""
        rows = self.of("train")
        at = np.array([r["iteration"] for r in rows], float)
        return at, np.cumsum(np.diff(at, prepend=0) / np.array([max(r["it_per_s"], 1e-9) for r in rows]))

    def facts(self, stop: int) -> dict[str, Any]:
        """The newest numbers: stage, iteration, seconds (elapsed, left to `stop`), it_per_s, points, psnr, val_psnr,
        gpu_mib; only those that are known."""
        rows, evals = self.of("train"), self.of("eval")
        if not rows:
            return {}
        speed = float(np.mean([r["it_per_s"] for r in rows[-RECENT:]]))
        names = ("stage", "iteration", "points", "psnr", "gpu_mib")
        known: dict[str, Any] = {k: rows[-1][k] for k in names if k in rows[-1]}
        return {**known, "it_per_s": speed, "elapsed": float(self.seconds()[1][-1]),
                "left": max(stop - rows[-1]["iteration"], 0) / max(speed, 1e-9),
                **({"val_psnr": evals[-1]["val_psnr"]} if evals else {})}

    def shares(self, points: int = MAX_POINTS) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Iterations [n], and of each loss term its share of the loss there, [n] 0...1; they sum to 1."""
        rows = self.of("train")
        at, total = np.array([r["iteration"] for r in rows], float), np.array([r["loss"] for r in rows])
        parts = {name: thinned(at, np.array([r.get(name, 0.0) for r in rows]) / total, points) for name in self.terms}
        return thinned(at, at, points)[0], {name: y for name, (_, y) in parts.items()}


def _identity(handle: int) -> tuple[tuple[int, int], int]:
    """Which file it is, and its length in bytes."""
    stat = os.fstat(handle)
    return (stat.st_dev, stat.st_ino), stat.st_size
