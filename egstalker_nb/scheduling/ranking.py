"""Which setting of a sweep is best: runs that differ only in their seed form a group, and groups are ranked.

A difference between two settings means little if it is no larger than that between two seeds. So the best setting is
named together with its lead over the second, and the spread over seeds.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Optional, Sequence

import numpy as np

from ..core.errors import InputError
from ..core.table import Table, text
from .planning import PREPARE

if TYPE_CHECKING:
    from .sweep import Sweep

SEED, DATASET = "seed", "dataset"
BEST_SHOWN = 3      # runs whose frames are compared, besides the worst
MAX_SETTINGS = 50   # rows of a table


def short(name: str) -> str:
    """A dotted parameter as tables head it: `overrides.batch_size` -> `batch_size`."""
    return name.removeprefix("overrides.")


def varied_names(sweep: Sweep) -> list[str]:
    """The parameters in which runs of a sweep differ, by dotted name."""
    return list(dict.fromkeys(name for run in sweep.runs for name in run.varied))


def score_of(row: dict[str, Any], metric: str) -> Optional[float]:
    """A finite number of a row of `Sweep.rows`, or None."""
    value: Any = row.get(metric)
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


# ---- rows of the table of runs ----

def arranged(rows: Iterable[dict[str, Any]], names: Sequence[str], sort: str = "", only: str = "", state: str = ""
             ) -> list[dict[str, Any]]:
    """Rows of `Sweep.rows` in an order, and those only that fit.

    Args:
        rows: of the runs.
        names: of the columns that are shown; text is searched in them.
        sort: see `Sweep.table`.
        only: a text that a row must contain, in any case.
        state: that a run must be in; "" for any.

    Raises:
        InputError: no such column to sort by.
    """
    found, name, falls = list(rows), sort.lstrip("-"), sort.startswith("-")
    if sort and name not in {*names, *(key for row in found for key in row)}:
        raise InputError(f"a column to sort by ({', '.join(names)})", repr(sort), "Choose one.")
    if sort:
        have = [row for row in found if row.get(name) is not None]
        have.sort(key=lambda row: _sortable(row[name]), reverse=falls)
        found = have + [row for row in found if row.get(name) is None]
    return [row for row in found if state in ("", row["state"])
            and only.lower() in " ".join(str(row.get(name, "")) for name in names).lower()]


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, (int, float)) else (1, str(value))


# ---- groups of runs that differ only in the seed ----

@dataclass(frozen=True)
class SeedGroup:
    """Finished runs on one dataset that differ only in their seed.

    Attributes:
        dataset: its name; "" if all runs of the sweep share one.
        settings: the varied parameters, by dotted name, without dataset and seed.
        runs: their ids.
        values: of the score, one for each run.
    """

    dataset: str
    settings: dict[str, Any]
    runs: list[str]
    values: list[float]

    @property
    def name(self) -> str:
        """The settings as text."""
        return ", ".join(f"{short(name)} {text(value)}" for name, value in self.settings.items()) or "one setting"

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def std(self) -> Optional[float]:
        """Sample standard deviation (n - 1); None for a single run."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


def seed_groups(sweep: Sweep) -> list[SeedGroup]:
    """Groups of the finished runs that have the score of the sweep's criterion: of each dataset the best mean first.

    Runs that failed or ended early are left out: their scores are those of a shorter training.
    """
    metric, groups = sweep.file.best.metric, dict[str, SeedGroup]()
    for run, row in zip(sweep.runs, sweep.rows()):
        value = score_of(row, metric)
        if value is None or row["state"] != "finished" or run.id.startswith(PREPARE):
            continue
        settings = {name: value for name, value in run.varied.items() if name != DATASET and _last(name) != SEED}
        dataset = str(run.varied.get(DATASET, ""))
        group = groups.setdefault(repr((dataset, settings)), SeedGroup(dataset, settings, [], []))
        group.runs.append(run.id)
        group.values.append(value)
    order = list(dict.fromkeys(group.dataset for group in groups.values()))
    sign = -1 if sweep.file.best.highest else 1
    return sorted(groups.values(), key=lambda group: (order.index(group.dataset), sign * group.mean))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def spread_over_seeds(groups: Sequence[SeedGroup]) -> Optional[float]:
    """The pooled standard deviation over seeds: one value for all groups, since each has only a few runs.

    Returns:
        the root of the mean variance, weighted by n - 1; None if no group has two runs.
    """
    several = [(len(group.values) - 1, group.std) for group in groups if group.std is not None]
    if not several:
        return None
    return math.sqrt(sum(n * std**2 for n, std in several) / sum(n for n, _ in several))


@dataclass(frozen=True)
class Verdict:
    """The best setting on one dataset, and how far that can be trusted.

    Attributes:
        best: group with the best mean.
        second: the next one, or None.
        spread: see `spread_over_seeds`, over the groups of this dataset.
    """

    best: SeedGroup
    second: Optional[SeedGroup]
    spread: Optional[float]

    @property
    def lead(self) -> Optional[float]:
        """By how much the best mean is better than the second, at least 0; None if there is no second."""
        return None if self.second is None else abs(self.best.mean - self.second.mean)

    @property
    def remark(self) -> str:
        """Whether the lead means anything, in one sentence."""
        if self.lead is None:
            return "No other setting has a finished run with this score."
        if self.spread is None:
            return ("Each setting has one seed, so the spread over seeds is unknown: add seeds before trusting this "
                    "order.")
        if self.lead > self.spread:
            return f"The lead of {self.lead:.3g} exceeds the spread over seeds, {self.spread:.3g}."
        return (f"The lead of {self.lead:.3g} is within the spread over seeds, {self.spread:.3g}: only more seeds can "
                "tell the two apart.")


def verdicts(sweep: Sweep) -> list[Verdict]:
    """The best setting on each dataset; [] if no finished run has the score."""
    groups, found = seed_groups(sweep), []
    for dataset in dict.fromkeys(group.dataset for group in groups):
        here = [group for group in groups if group.dataset == dataset]
        found.append(Verdict(here[0], here[1] if len(here) > 1 else None, spread_over_seeds(here)))
    return found


# ---- tables ----

def settings_table(sweep: Sweep) -> Table:
    """Mean and standard deviation over seeds of each setting, the best first."""
    groups, several = seed_groups(sweep), DATASET in varied_names(sweep)
    rows = [((group.dataset,) if several else ()) + (group.name, len(group.values), group.mean, group.std,
                                                     min(group.values), max(group.values))
            for group in groups[:MAX_SETTINGS]]
    more = f"; {len(groups) - MAX_SETTINGS} more settings" if len(groups) > MAX_SETTINGS else ""
    return Table((*((DATASET,) if several else ()), "setting", "seeds", "mean", "standard deviation", "lowest",
                  "highest"), rows, f"{sweep.file.best.metric} of the finished runs by setting{more}")


def verdict_table(sweep: Sweep) -> Table:
    """The best run, the best setting on each dataset, and whether its lead exceeds the spread over seeds."""
    metric, states = sweep.file.best.metric, [row["state"] for row in sweep.rows()]
    best, early = sweep.best(), sum(state != "finished" for state in states)
    rows: list[tuple[str, Any, Any, str]] = []
    if best:
        rows.append(("best run", best["run"], best[metric], "" if best["state"] == "finished" else
                     f"It is {best['state']}: this is the score of its training so far."))
    for verdict in verdicts(sweep)[:MAX_SETTINGS]:
        where = f" on {verdict.best.dataset}" if verdict.best.dataset else ""
        rows.append((f"best setting{where}", verdict.best.name, verdict.best.mean, verdict.remark))
        if verdict.second:
            rows.append((f"second{where}", verdict.second.name, verdict.second.mean, ""))
    if not rows:
        rows.append(("best run", None, None, f"No run has the score '{metric}' yet."))
    return Table(("", "which", metric, "remark"), rows, f"Criterion: {sweep.file.best}; a setting counts by its mean "
                 "over seeds" + (f", without the {early} runs that are not finished" if early else ""))


# ---- runs to look at ----

def runs_to_show(sweep: Sweep, best: int = BEST_SHOWN) -> list[str]:
    """Ids of the best runs, the best first, and of the worst: of trained runs on the dataset of the best one.

    Args:
        sweep: whose runs.
        best: how many of the best.
    """
    metric, sign = sweep.file.best.metric, -1 if sweep.file.best.highest else 1
    known = [(sign * value, run) for run, row in zip(sweep.runs, sweep.rows())
             if (value := score_of(row, metric)) is not None and run.iterations and not run.id.startswith(PREPARE)]
    known.sort(key=lambda pair: pair[0])
    here = [run.id for _, run in known if run.dataset == known[0][1].dataset]
    return here[:best] + here[best:][-1:]
