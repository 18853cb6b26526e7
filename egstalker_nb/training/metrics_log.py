"""Writing the rows of a run's metrics.jsonl."""
from __future__ import annotations

import json
import time
from typing import Any

import torch
from torch import Tensor

from ..core.files import flush, write_text, writing_to
from .history import METRICS
from .run import Run
from .trackers import Followers


class MetricsWriter:
    """Appends rows to the metrics of a run; trackers follow what is written (see `trackers`)."""

    def __init__(self, run: Run):
        self.run = run
        self.followers = Followers(run)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row: `kind` (train, eval, densify, checkpoint), `iteration` and its values."""
        with writing_to(self.run.root), open(self.run.root / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.followers.add([row])

    def flush(self) -> None:
        """Wait until all rows are on the disk."""
        with writing_to(self.run.root):
            flush(self.run.root / METRICS)

    def cut(self, iteration: int) -> None:
        """Drop rows of later steps, which will be done again: a killed run has logged more than it has saved.

        To be called before the first `write`: trackers begin here, with the rows that stay.
        """
        rows = [r for r in self.run.metrics() if r["iteration"] <= iteration]
        write_text(self.run.root / METRICS, "".join(json.dumps(r) + "\n" for r in rows))
        self.followers.start()
        self.followers.add(rows)

    def close(self) -> None:
        """Let the trackers finish; no row is written after this."""
        self.followers.close()


class StepLog:
    """Loss terms of the steps since the last row; they stay on the device until then, so that no step waits for it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Tensor]] = []
        self.restart()

    def __len__(self) -> int:
        return len(self.rows)

    def restart(self) -> None:
        """Restart the timer."""
        self.began = time.perf_counter()

    def add(self, stage: str, terms: Tensor) -> None:
        """Append the terms of one step, [terms]."""
        self.rows.append((stage, terms))

    def take(self) -> tuple[str, Tensor, float]:
        """The newest stage, [steps, terms] of it on the CPU, and the seconds since the last call."""
        stage = self.rows[-1][0]
        rows = torch.stack([terms for at, terms in self.rows if at == stage]).cpu()
        self.rows, began = [], self.began
        self.restart()
        return stage, rows, self.began - began
