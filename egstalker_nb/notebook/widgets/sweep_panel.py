"""The live table of a sweep, with buttons that start and stop it, or single runs of it."""
from __future__ import annotations

import threading
import time
from html import escape
from typing import Any

import ipywidgets

from ...core.files import lock_owner
from ...core.progress import live_line
from ...core.table import Table, text
from ...scheduling.ranking import arranged
from ...scheduling.sweep import Sweep
from .base import Panel, choices, live
from .job import Job

REFRESH_SECONDS = 2.0
MAX_ROWS = 200           # on the screen; the others are counted
ANY = "any state"
STATES = ("running", "queued", "finished", "failed", "lost", "stopped", "pruned")
#: where not all rows fit, these come first
URGENT = "running", "lost", "failed"
#: text colours in both themes; states that are not listed have the usual one
COLOURS = {"failed": "var(--jp-error-color0, #b00020)", "lost": "var(--jp-warn-color0, #8a4b00)",
           "running": "var(--jp-brand-color0, #0b5cad)"}


class SweepPanel(Panel):
    """Run a sweep with buttons, watch all its runs, stop and resume single ones. `result` waits for it in a later cell.

    It also follows a sweep that another process runs, on this computer or another one that shares the folder.

    Args:
        sweep: see `egs.load_sweep`.

    Attributes:
        job: the sweep as a `Job`.
        sort: column that rows are sorted by, "" as planned.
        falls: whether its highest value comes first.
        state: only runs in this state are shown; "" for all.
        only: only rows that contain this text are shown.
        run: id of the run that the buttons stop and resume.
    """

    def __init__(self, sweep: Sweep):
        self.sweep, self.job = sweep, Job(sweep.run, f"sweep {sweep.name}")
        self.sort, self.falls, self.state, self.only, self.run = "", False, "", "", ""
        self.owner = ""  # of another process that runs the sweep
        self._follower: threading.Thread | None = None
        self._lock = threading.RLock()
        self._over, self._offering = threading.Event(), False
        self.job.watchers.append(self._job_changed)

    def __repr__(self) -> str:
        return f"SweepPanel({self.sweep.name}: {self.sweep.summary()})"

    # ---- running ----

    def start(self) -> None:
        """Run what is not finished, as the button does."""
        self.job.start()

    def stop(self) -> None:
        """Stop all runs in order, as the button does: they write checkpoints and continue with the next start."""
        self.job.stop()

    def stop_run(self, run: str) -> None:
        """Stop one run: it writes a checkpoint, and is not started again until `resume_run`.

        Raises:
            InputError: no such run.
        """
        self.sweep.stop(run)
        self.refresh()

    def resume_run(self, run: str) -> None:
        """Let a stopped or pruned run continue with the next start.

        Raises:
            InputError: no such run.
        """
        self.sweep.resume(run)
        self.refresh()

    def result(self) -> Sweep:
        """The sweep with its results. In a live notebook, runs that are still to be done are waited for, and started if
        need be; headless, where a report of what there is is wanted, nothing is started.

        Raises:
            KeyboardInterrupt: it was stopped; all runs have written checkpoints.
            InputError: and other errors of `Sweep.run`.
        """
        if not live():
            return self.sweep
        show = live_line()
        while self._running_elsewhere():
            over = [row for row in self.sweep.rows() if row["state"] not in ("queued", "running", "lost")]
            show(f"{self.sweep.name} is running already: {self.sweep.summary()}", len(over) / len(self.sweep.runs))
            time.sleep(REFRESH_SECONDS)
        if self.job.busy or any(row["state"] in ("queued", "running", "lost") for row in self.sweep.rows()):
            self.job.result()
        return self.sweep

    def _running_elsewhere(self) -> bool:
        self.owner = "" if self.job.busy else lock_owner(self.sweep.folder, "sweep")
        return bool(self.owner)

    def _job_changed(self) -> None:
        if self.job.busy:
            self._follow()
            return
        self._over.set()
        if self.job.state == "done" and any(row["state"] in ("queued", "failed") for row in self.sweep.rows()):
            self.job.state = "idle"  # failed runs can be tried again
            self.job.refresh()
        self.refresh()

    def _follow(self) -> None:
        """Redraw every few seconds, in a thread that ends with the sweep."""
        with self._lock:
            if self.built and (self._follower is None or not self._follower.is_alive()):
                self._over.clear()
                self._follower = threading.Thread(target=self._redraw_on, name="sweep panel", daemon=True)
                self._follower.start()

    def _redraw_on(self) -> None:
        while True:
            self.guarded(self.redraw)()
            if not self.job.busy and not self.owner:
                return
            self._over.wait(REFRESH_SECONDS)

    # ---- interactive and static form ----

    def rows(self) -> list[dict[str, Any]]:
        """All rows that fit the choice of state and text, in the chosen order; see `Sweep.rows`."""
        return self._chosen(self.sweep.rows())

    def _chosen(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sort = f"{'-' if self.falls else ''}{self.sort}" if self.sort else ""
        found = arranged(rows, list(self.sweep.columns), sort, self.only, self.state)
        if len(found) > MAX_ROWS and not self.sort:
            found.sort(key=lambda row: row["state"] not in URGENT)
        return found

    def build(self) -> ipywidgets.Widget:
        columns = [("as planned", ""), *[(heading, name) for name, heading in self.sweep.columns.items()
                                         if name not in ("left", "best")]]
        self.order = choices("sort by", columns, self.sort, "19em")
        self.high = ipywidgets.ToggleButton(value=self.falls, description="highest first", icon="sort-amount-desc")
        self.states = choices("show", [(ANY, ""), *[(state, state) for state in STATES]], self.state, "17em")
        self.words = ipywidgets.Text(value=self.only, placeholder="part of a name, a value, a node",
                                     description="containing", style={"description_width": "6em"})
        self.picked = choices("one run", [""], "", "36em")
        self.halt = ipywidgets.Button(description="Stop run", icon="stop")
        self.onward = ipywidgets.Button(description="Resume run", icon="play")
        self.again = ipywidgets.Button(description="Refresh", icon="refresh")
        self.facts, self.table = ipywidgets.HTML(), ipywidgets.HTML()
        for widget in (self.order, self.high, self.states, self.words, self.picked):
            widget.observe(self.guarded(self._changed), "value")
        self.halt.on_click(self.guarded(lambda _: self._on_one("stop")))
        self.onward.on_click(self.guarded(lambda _: self._on_one("resume")))
        self.again.on_click(self.guarded(lambda _: self.redraw()))
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        scrolled = ipywidgets.Box([self.table], layout=ipywidgets.Layout(max_height="30em", overflow="auto"))
        return ipywidgets.VBox([
            self.job.widget, self.facts,
            ipywidgets.HBox([self.order, self.high, self.states, self.words, self.again], layout=wrap), scrolled,
            ipywidgets.HBox([self.picked, self.halt, self.onward], layout=wrap), self.note])

    def _changed(self, *_: Any) -> None:
        if self._offering:
            return
        self.sort, self.falls, self.state, self.only = (
            widget.value for widget in (self.order, self.high, self.states, self.words))
        self.run = self.picked.value
        self.redraw()

    def _on_one(self, action: str) -> None:
        if not self.run:
            self.show_message("Choose a run beside the button first.", error=True)
        elif action == "stop":
            self.stop_run(self.run)
            self.show_message(f"{self.run} is asked to stop: it finishes its step and writes a checkpoint.")
        else:
            self.resume_run(self.run)
            self.show_message(f"{self.run} continues with the next start of the sweep.")

    def redraw(self) -> None:
        with self._lock:
            every = self.sweep.rows()
            rows = self._chosen(every)
            if self._running_elsewhere():
                self._follow()
            drawn = rows[:MAX_ROWS]
            self.facts.value = f"<b>{escape(self.sweep.name)}</b>: {escape(self._facts(every, rows))}"
            self.table.value = table_html(drawn, self.sweep.columns)
            self._offer(["", *sorted(row["run"] for row in drawn)])
            self.halt.disabled = self.onward.disabled = not self.run
            if self.owner:
                self.job.go.disabled = True
            elif self.job.built:
                self.job.redraw()

    def _offer(self, runs: list[str]) -> None:
        """Replace the runs that can be chosen; the chosen one stays if it is among them."""
        if list(self.picked.options) != runs:
            self.run = self.run if self.run in runs else ""
            self._offering = True
            self.picked.options = runs
            self.picked.value, self._offering = self.run, False

    def _facts(self, every: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
        best, metric = next((row for row in every if row["best"]), None), self.sweep.file.best
        parts = [self.sweep.summary(every)]
        if best:
            parts.append(f"best by {metric} so far: {best['run']} ({best[metric.metric]:.4g})")
        if len(rows) < len(every):
            parts.append(f"{len(rows)} of {len(every)} runs fit the choice")
        if len(rows) > MAX_ROWS:
            parts.append(f"the first {MAX_ROWS} are shown, {len(rows) - MAX_ROWS} more are not")
        if self.owner:
            parts.append(f"it is running already ({self.owner}), and this table follows")
        return "; ".join(parts) + "."

    def still(self) -> Table:
        rows, columns = self.rows(), self.sweep.columns
        more = f", {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
        return Table(list(columns.values()), [[_cell(row, name) for name in columns] for row in rows[:MAX_ROWS]],
                     f"{self.sweep.name}: {self.sweep.summary(rows)}{more}")


def _cell(row: dict[str, Any], name: str) -> Any:
    """A value as the table shows it."""
    if name == "best":
        return "best" if row["best"] else ""
    value = row.get(name)
    return "" if value is None else value


def table_html(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """Rows of `Sweep.rows` as HTML: the best one bold, under failed ones the failing cell and the error."""
    heads = "".join(f"<th align='left'>{escape(heading)}</th>" for heading in columns.values())
    body = []
    for row in rows:
        colour = COLOURS.get(row["state"])
        style = "font-weight:bold" if row["best"] else f"color:{colour}" if colour else ""
        cells = "".join(f"<td style='white-space:nowrap'>{escape(text(_cell(row, name)))}</td>" for name in columns)
        body.append(f"<tr style='{style}'>{cells}</tr>" if style else f"<tr>{cells}</tr>")
        if row["state"] == "failed" and row["error"]:
            said = f"{row['cell']}: {row['error']}" if row["cell"] else row["error"]
            body.append(f"<tr><td colspan='{len(columns)}' style='color:{COLOURS['failed']};padding-left:2em'>"
                        f"{escape(said)}</td></tr>")
    return (f"<table cellpadding='4' style='border-collapse:collapse;line-height:1.3'><tr>{heads}</tr>{''.join(body)}"
            "</table>")
