"""The folder of one run of a sweep, which says all about it: to the scheduler, to tables, and to later sessions.

    run.json        the parameters, as planned
    state.json      queued, running, finished, failed, stopped or pruned; attempts, node, time, error, results
    progress.json   the newest numbers of the training, while it runs
    stop            a request to stop
    log.txt         what the notebooks print
    notebooks/      as executed
    head/           the run folder of the training, see `load_run`
"""
from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal, Optional

from ..core.files import make_folder, write_json, write_text
from ..core.reading import Unreadable, read_json
from ..training.history import History

State = Literal["queued", "running", "finished", "failed", "stopped", "pruned"]
STATUS = "status"                       # folder of a sweep in an object store: state and progress of each run
OVER = "finished", "stopped", "pruned"  # not started again by themselves
LOST_SECONDS = 60.0                     # without progress, after which a running run counts as lost


class RunFolder:
    """The folder of one run.

    Args:
        root: the folder.

    Attributes:
        head: the run folder of its training.
        notebooks: the folder of its executed notebooks.
    """

    def __init__(self, root: Path):
        self.root, self.head, self.notebooks = root, root / "head", root / "notebooks"

    @property
    def state(self) -> dict[str, Any]:
        """What `state.json` says; a run that was never started is queued."""
        return {"state": "queued", "attempt": 0, **_read(self.root / "state.json")}

    def set_state(self, state: State, **facts: Any) -> dict[str, Any]:
        """Change the state; other facts stay unless they are given."""
        new = {**self.state, "state": state, **facts}
        make_folder(self.root)
        write_json(self.root / "state.json", new)
        return new

    def status(self) -> bytes:
        """State and progress in one file, for tables of runs in an object store."""
        return json.dumps({"state": self.state, "progress": self.progress}).encode()

    @property
    def progress(self) -> dict[str, Any]:
        """What `progress.json` says: iteration, psnr, val_psnr, it_per_s, left (s), points, line, updated."""
        return _read(self.root / "progress.json")

    def write_progress(self, history: History, planned: int, line: str = "") -> None:
        """Write the newest numbers of the training."""
        history.read()
        facts = history.facts(planned) if planned else {}
        write_json(self.root / "progress.json", {**facts, "line": line, "updated": time.time()})

    def request_stop(self, state: State = "stopped") -> None:
        """Ask the run to stop: training finishes its step and writes a checkpoint."""
        make_folder(self.root)
        write_text(self.root / "stop", state)

    @property
    def stop_requested(self) -> Optional[str]:
        """The state that a requested stop leads to, or None."""
        try:
            return (self.root / "stop").read_text(encoding="utf-8").strip() or "stopped"
        except OSError:
            return None

    def clear_stop(self) -> None:
        (self.root / "stop").unlink(missing_ok=True)

    def results(self) -> dict[str, Any]:
        """Numbers of a run that has come to an end: of its training, its evaluations, and all scores on validation
        frames that its notebooks computed."""
        history = History(self.head)
        rows, evals = history.of("train"), history.of("eval")
        found: dict[str, Any] = {}
        if rows:
            found = {name: rows[-1].get(name) for name in ("iteration", "loss", "psnr", "points")}
            found["seconds_training"] = float(history.seconds()[1][-1])
        if evals:
            found["val_psnr"] = evals[-1]["val_psnr"]
        files = sorted((self.head / "scores").glob("val_*.json"), key=lambda p: p.stat().st_mtime)
        scores = _read(files[-1]) if files else {}
        scores.pop("iteration", None)
        return {**found, **{key: value for key, value in scores.items() if type(value) in (int, float)}}


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of the folder; {} where it is missing or damaged (a folder copied from a full disk)."""
    try:
        return read_json(path)
    except Unreadable:
        return {}

