"""The table of a sweep in a terminal, rewritten while the runs go on."""
from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Any, Iterator

from ..core.progress import ProgressListener, listening
from ..core.table import text
from .sweep import Sweep

REFRESH_SECONDS = 2.0
LOG_SECONDS = 30.0  # between lines where the output is not a terminal


@contextmanager
def show_live(sweep: Sweep, sort: str = "", only: str = "") -> Iterator[None]:
    """Show a sweep while the block runs it: in a terminal the table, elsewhere a line where something has changed.

    Args:
        sweep: whose runs are shown.
        sort, only: see `Sweep.table`.

    Raises:
        InputError: no such column.
    """
    sweep.table(sort, only)  # a wrong column is said before the first run
    if not sys.stdout.isatty():
        sweep.watchers.append(_Lines(sweep))
        yield
        return
    from rich.console import Console
    from rich.live import Live

    # a console of its own: the shared one may have been made where rich saw a notebook, and then draws nothing here
    console = Console(force_jupyter=False)
    quiet = listening(ProgressListener(lambda line, share: None))  # the table says it all
    with quiet, Live(_rich(sweep, sort, only), console=console, auto_refresh=False, transient=True) as screen:
        shown = 0.0

        def update() -> None:
            nonlocal shown
            if time.monotonic() - shown >= REFRESH_SECONDS:
                screen.update(_rich(sweep, sort, only, screen.console.height - 4), refresh=True)
                shown = time.monotonic()

        sweep.watchers.append(update)
        yield


COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "lost": "yellow", "pruned": "dim",
           "stopped": "yellow", "queued": "dim"}


def _rich(sweep: Sweep, sort: str, only: str, height: int = 20) -> Any:
    """The table, running runs first if not all rows fit on the screen."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    found = sweep.table(sort, only)
    state, rows = list(found.columns).index("state"), list(found.rows)
    if len(rows) > height and not sort:
        rows.sort(key=lambda row: row[state] not in ("running", "lost", "failed"))
    more = f", {len(rows) - height} more" if len(rows) > height else ""
    table = Table(title=escape(found.caption + more), box=box.SIMPLE_HEAD, title_justify="left")
    for name in found.columns:
        table.add_column(escape(name), overflow="fold")
    for row in rows[:height]:
        colour = "bold green" if row[-1] is True else COLOURS.get(str(row[state]), "")
        table.add_row(*[escape("" if cell is None else text(cell)) for cell in row], style=colour)
    return table


class _Lines:
    """For logs: a line for each run that changes its state, and one now and then for all."""

    def __init__(self, sweep: Sweep):
        self.sweep, self.known, self.said = sweep, {r["run"]: r["state"] for r in sweep.rows()}, time.monotonic()

    def __call__(self) -> None:
        for row in self.sweep.rows():
            if self.known[row["run"]] != row["state"]:
                self.known[row["run"]] = row["state"]
                facts = [f"{row['val_psnr']:.2f} dB"] if row.get("val_psnr") and row["state"] == "finished" else []
                facts += [row["error"]] if row["state"] == "failed" and row["error"] else []
                print(f"{row['run']}: {', '.join([row['state'], *facts])}", flush=True)
        if time.monotonic() - self.said > LOG_SECONDS:
            self.said = time.monotonic()
            print(f"{self.sweep.name}: {self.sweep.summary()}", flush=True)
