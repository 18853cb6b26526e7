"""`egs.sweep`: many runs from one small file, as many at a time as there is room for."""
from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..core.errors import InputError, require_package
from ..core.files import exclusive_lock, make_folder, replacing, write_json, write_text
from ..core.progress import Progress, clock
from ..core.reading import read_json
from ..core.table import Table
from .engine import run_tasks
from .halving import run_halving
from .ranking import arranged, short, varied_names
from .run_folder import LOST_SECONDS, OVER, STATUS, RunFolder
from .storage import RemoteFolder, is_remote, local_folder
from .sweep_file import PlannedRun, SweepFile, read_sweep_file
from .worker import Task

if TYPE_CHECKING:
    import pandas

RESULTS = "results.parquet"
FETCH_SECONDS = 10.0   # between looks at an object store
WRITE_SECONDS = 30.0   # between results while runs are going on
#: columns of the table besides the varied parameters: name -> heading
COLUMNS = {"state": "state", "iteration": "iteration", "psnr": "PSNR (training)", "val_psnr": "PSNR (validation)",
           "it_per_s": "it/s", "left": "time left", "node": "node", "best": "best"}


def sweep(file: str | Path, out: Optional[str | Path] = None, address: Optional[str] = None) -> Sweep:
    """Run all runs of a sweep file that are not finished yet.

    Each run is a folder with its executed notebooks, its state and its trained head. Runs that failed or were
    interrupted continue from their checkpoints; finished and stopped ones are left alone; a changed parameter is a new
    run. Results are written to `results.parquet`, and the report notebook to `notebooks/`.

    Args:
        file: see `read_sweep_file`; or the folder of a sweep, whose file it has a copy of.
        out: the folder of the sweep, also one in an object store (`s3://`, `gs://`); default: `outputs/<name>`.
        address: of a Ray cluster; default: RAY_ADDRESS, else this computer alone.

    Returns:
        the sweep, see `Sweep`.

    Raises:
        InputError: see `read_sweep_file`; no cluster at the address; another process runs this sweep now.
        MissingPackageError: Ray is not installed.
        KeyboardInterrupt: stopped by Ctrl-C or a button; all runs have written checkpoints.
    """
    return load_sweep(file, out).run(address)


def load_sweep(file: str | Path, out: Optional[str | Path] = None) -> Sweep:
    """Open a sweep without running it: its plan, and whatever has been run of it already.

    Args:
        file, out: see `sweep`.

    Raises:
        InputError: see `read_sweep_file`.
    """
    path = Path(file)
    if path.is_dir():
        path, out = path / "sweep.yaml", path
    return Sweep(read_sweep_file(path), out)


class Sweep:
    """A sweep: its plan, its runs, its results. Made by `sweep` and `load_sweep`; shows itself as a table.

    Args:
        file: as read.
        out: see `sweep`.

    Attributes:
        file: as read.
        folder: where results lie; of a sweep in an object store, the copy on this computer.
        address: of the object store, or "".
    """

    def __init__(self, file: SweepFile, out: Optional[str | Path] = None):
        self.file = file
        place = str(out) if out is not None else str(Path("outputs") / file.name)
        self.address = place.rstrip("/") if is_remote(place) else ""
        self.folder = local_folder(place).resolve()
        self._remote: Optional[RemoteFolder] = None
        self._fetched = self._written = self._next_look = 0.0
        self.watchers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"Sweep({self.file.name}: {len(self.file.runs)} runs, {self.summary()})"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs, as planned."""
        return self.file.runs

    def run_folder(self, run: str | PlannedRun) -> RunFolder:
        """The folder of a run.

        Args:
            run: it, its id, or the beginning or end of the id if no other has the same.

        Raises:
            InputError: no such run, or several.
        """
        return RunFolder(self.folder / "runs" / self._find(run).id)

    def _find(self, run: str | PlannedRun) -> PlannedRun:
        if isinstance(run, PlannedRun):
            return run
        found = [r for r in self.runs if r.id == run] or [r for r in self.runs if r.id.startswith(run)
                                                          or r.id.endswith(run)]
        if len(found) != 1:
            raise InputError(f"the id of one run of the sweep '{self.name}'", f"{run!r}, which {len(found)} have",
                             "See `egs sweep FILE --show`." if not found else "Give more of it.")
        return found[0]

    # ---- running ----

    def run(self, address: Optional[str] = None) -> Sweep:
        """Run what is not finished, see `sweep`."""
        make_folder(self.folder)
        with exclusive_lock(self.folder, "sweep"):
            self._fetch(now=True)
            write_text(self.folder / "sweep.yaml", self.file.text)
            if self.address:
                self._store().push(self.folder, "sweep.yaml")
            for run in self.runs:  # those of an earlier call that was interrupted
                if self.run_folder(run).stop_requested == "queued":
                    self._clear_stop(run)
            tasks = {run.id: self._task(run) for run in self.runs if self.run_folder(run).state["state"] not in OVER}
            if tasks:
                with Progress(len(self.runs), f"sweep {self.name}", "run", len(self.runs) - len(tasks)) as bar:
                    self._bar = bar
                    self._schedule(tasks, address)
            self._fetch(now=True)
            self.write_results()
            self._report()
        return self

    def _schedule(self, tasks: dict[str, Task], address: Optional[str]) -> None:
        notebooks = {path.stem: path for run in self.runs for path in self.file.notebooks_of(run)}
        sources = {name: path.read_text(encoding="utf-8") for name, path in notebooks.items()}
        after = {run.id: run.after for run in self.runs if run.after}
        file, first = self.file, {run.after for run in self.runs if run.after and run.id in tasks} & set(tasks)
        if file.halving is None:
            run_tasks(tasks, after, sources, file.resources, file.retries, self, address)
            return
        if first:  # Tune knows no run that waits for another
            run_tasks({name: tasks[name] for name in first}, {}, sources, file.resources, file.retries, self, address)
        rest = {name: task for name, task in tasks.items() if name not in first}
        run_halving(rest, sources, file.resources, file.retries, file.halving, file.best.highest, self,
                    self.address or str(self.folder), address)

    def _task(self, run: PlannedRun) -> Task:
        notebooks = self.file.notebooks_of(run)
        declared = {p.stem: sorted(self.file.declared.get(p) or _declared(p)) for p in notebooks}
        dataset = f"{self._place(run.after)}/dataset" if run.after else run.dataset
        return Task(run.id, self._place(run.id), run.parameters, dataset,
                    {p.stem: str(p.parent) for p in notebooks}, declared, run.iterations)

    def _place(self, run: str) -> str:
        return f"{self.address or self.folder}/runs/{run}"

    # ---- what the engine asks for ----

    def watch(self) -> None:
        """See `engine.Host`. Looking at very many runs takes long: a tenth of the time, at most, goes into it."""
        began = time.monotonic()
        if began < self._next_look:
            self._bar.update(0)
            return
        self._fetch()
        over = sum(self.run_folder(run).state["state"] in (*OVER, "failed") for run in self.runs)
        new = over - self._bar.done
        self._bar.update(new)
        if new and time.monotonic() - self._written > WRITE_SECONDS:
            self.write_results()
            self._written = time.monotonic()
        for watcher in self.watchers:
            watcher()
        self._next_look = time.monotonic() + 9 * (time.monotonic() - began)

    def running(self) -> bool:
        """See `engine.Host`."""
        self._fetch()
        return any(self.run_folder(run).state["state"] == "running" for run in self.runs)

    def interrupt(self, run: str) -> None:
        """See `engine.Host`."""
        if not self.run_folder(run).stop_requested:
            self._request(self._find(run), "queued")

    def lost(self, run: str, error: str) -> None:
        """See `engine.Host`."""
        folder = self.run_folder(run)
        folder.set_state("failed", error=f"its worker died: {error}")
        if self.address:
            self._publish(folder)

    # ---- one run ----

    def stop(self, run: str | PlannedRun) -> None:
        """Stop a run: it writes a checkpoint, and is not started again until `resume`."""
        self._request(self._find(run), "stopped")

    def _request(self, run: PlannedRun, state: str) -> None:
        folder = self.run_folder(run)
        folder.request_stop(state)  # type: ignore[arg-type]
        if self.address:
            self._store().push(self.folder, f"runs/{run.id}/stop")

    def resume(self, run: str | PlannedRun) -> None:
        """Let a stopped or pruned run continue from its checkpoint with the next `run` of the sweep."""
        planned = self._find(run)
        self._clear_stop(planned)
        folder = self.run_folder(planned)
        if folder.state["state"] in ("stopped", "pruned"):
            folder.set_state("queued")
            if self.address:
                self._publish(folder)

    def _clear_stop(self, run: PlannedRun) -> None:
        self.run_folder(run).clear_stop()
        if self.address:
            self._store().remove(f"runs/{run.id}/stop")

    # ---- object store ----

    def _store(self) -> RemoteFolder:
        if self._remote is None:
            self._remote = RemoteFolder(self.address)
        return self._remote

    def _publish(self, folder: RunFolder) -> None:
        """Copy the state of a run to the store."""
        self._store().push(self.folder, f"runs/{folder.root.name}/state.json")
        self._store().write(f"{STATUS}/{folder.root.name}.json", folder.status())

    def _fetch(self, now: bool = False) -> None:
        """Copy what is new in the object store, at most every few seconds."""
        if not self.address or (not now and time.monotonic() - self._fetched < FETCH_SECONDS):
            return
        for name in self._store().pull(make_folder(self.folder), STATUS):
            folder = RunFolder(self.folder / "runs" / Path(name).stem)
            status = read_json(self.folder / name, state=dict, progress=dict)
            write_json(make_folder(folder.root) / "state.json", status["state"])
            write_json(folder.root / "progress.json", status["progress"])
        self._fetched = time.monotonic()

    def open(self, run: str | PlannedRun, head: bool = True) -> Path:
        """The run folder of a run's training on this computer, for `load_run`; copied from an object store if need be.

        Args:
            run: see `run_folder`.
            head: False: only metrics and scores, without checkpoints.
        """
        folder, planned = self.run_folder(run), self._find(run)
        if self.address:
            parts = ("",) if head else ("/metrics.jsonl", "/config.yaml", "/manifest.json", "/scores")
            for part in parts:
                self._store().pull(self.folder, f"runs/{planned.id}/head{part}")
        return folder.head

    # ---- tables and results ----

    def rows(self) -> list[dict[str, Any]]:
        """The state of each run now: id, the varied parameters, and what `COLUMNS` lists."""
        self._fetch()
        rows = [self._row(run) for run in self.runs]
        key = self.file.best.metric
        known = [row for row in rows if row.get(key) is not None]
        known = [row for row in known if row["state"] == "finished"] or known  # others may still change
        if known:
            best = (max if self.file.best.highest else min)(known, key=lambda row: row[key])
            best["best"] = True
        return rows

    def _row(self, run: PlannedRun) -> dict[str, Any]:
        folder = self.run_folder(run)
        state = folder.state
        now = folder.progress if state["state"] == "running" else {}
        lost = state["state"] == "running" and time.time() - max(
            now.get("updated", 0), state.get("started", 0)) > LOST_SECONDS
        left = now.get("left")
        return {"run": run.id, **run.varied, **state.get("results", {}), **now,
                "state": "lost" if lost else state["state"], "left": None if left is None else clock(left),
                "node": state.get("node"), "attempt": state["attempt"], "seconds": state.get("seconds"),
                "error": state.get("error"), "cell": state.get("cell"), "best": False}

    @property
    def columns(self) -> dict[str, str]:
        """Name in `rows` -> heading of the columns of the table: the varied parameters, `COLUMNS`, and the score of the
        criterion."""
        facts, metric = list(COLUMNS.items()), self.file.best.metric
        if metric not in COLUMNS:
            facts.insert(list(COLUMNS).index("val_psnr") + 1, (metric, metric))
        return {"run": "run", **{name: short(name) for name in varied_names(self)}, **dict(facts)}

    def table(self, sort: str = "", only: str = "") -> Table:
        """The runs as a table.

        Args:
            sort: name of a column (`val_psnr`); with a minus before it, the highest comes first. Default: as planned.
            only: a text that a row must contain, such as `running` or the name of a node.

        Raises:
            InputError: no such column.
        """
        rows, columns = self.rows(), self.columns
        shown = arranged(rows, list(columns), sort, only)
        return Table(list(columns.values()), [[_mark(row.get(name)) for name in columns] for row in shown],
                     f"{self.name}: {self.summary(rows)}")

    def summary(self, rows: Optional[list[dict[str, Any]]] = None) -> str:
        """How many runs are in which state."""
        states = [row["state"] for row in rows or self.rows()]
        return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))

    def plan(self) -> Table:
        """What would be run, without running it."""
        varied = varied_names(self)
        states = [self.run_folder(run).state["state"] for run in self.runs]
        return Table(("run", *map(short, varied), "iterations", "now"), [
            (run.id, *[run.varied.get(name) for name in varied], run.iterations or None,
             state if state in OVER else "to run") for run, state in zip(self.runs, states)],
            f"{self.name}: {len(self.runs)} runs of {', '.join(p.stem for p in self.file.notebooks)}")

    def closing(self) -> str:
        """What to say at the end: table, failures, the best run, and where results are."""
        failures, best = self.failures(), self.best()
        said = [str(self.table()), *([str(failures)] if failures.rows else [])]
        if best:
            said.append(f"best by {self.file.best}: {best['run']} ({best[self.file.best.metric]:.2f})")
        said += [f"results          {self.folder / RESULTS}", f"report           {self.folder / 'notebooks'}"]
        return "\n".join(said)

    def failures(self) -> Table:
        """Runs that failed, with the failing cell and the error."""
        rows = [row for row in self.rows() if row["state"] == "failed"]
        return Table(("run", "cell", "error", "its notebook"), [
            (row["run"], row["cell"], row["error"], str(self.run_folder(row["run"]).notebooks)) for row in rows],
            "Failed runs; they continue from their checkpoints when the sweep is run again")

    def results(self) -> pandas.DataFrame:
        """One row for each run: id, state, every parameter, results and scores, time, node, error."""
        pd = require_package("pandas", "pandas, which holds the results as a table",
                             "pip install 'egstalker-nb[cluster]'")
        rows = []
        for run, row in zip(self.runs, self.rows()):
            row = {key: value for key, value in row.items() if key not in ("left", "line", "updated", "stage", "best")}
            flat = {f"parameter.{name}": value for name, value in _flat(run.parameters).items()}
            rows.append({**row, "dataset": run.dataset, **flat})
        return pd.DataFrame(rows).convert_dtypes()

    def write_results(self) -> Path:
        """Write `results.parquet`, which pandas, DuckDB and others read; its path."""
        frame = self.results()
        for name in frame.select_dtypes("object"):  # lists and mixed types, which Parquet lacks
            frame[name] = frame[name].map(lambda value: None if value is None else str(value))
        path = make_folder(self.folder) / RESULTS
        with replacing(path) as temporary:
            frame.to_parquet(temporary, index=False)
        if self.address:
            self._store().push(self.folder, RESULTS)
        return path

    def best(self) -> Optional[dict[str, Any]]:
        """The row of the best run by the sweep's criterion, see `Criterion`; None if no run has that score."""
        return next((row for row in self.rows() if row["best"]), None)

    def _report(self) -> None:
        """Execute the report notebook, see `report`."""
        from .report import write_report

        saved = write_report(self)
        if self.address and saved:
            self._store().push(self.folder, "notebooks")


def _mark(value: Any) -> Any:
    return "" if value is False else value


def _flat(parameters: dict[str, Any]) -> dict[str, Any]:
    """Nested parameters by dotted name."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        found.update({f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value})
    return found


def _declared(path: Path) -> dict[str, str]:
    from .parameters import declared_parameters

    return declared_parameters([path])[path]

