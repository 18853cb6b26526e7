"""Exercises of notebook 09: the size of a sweep, the time that its runs took, the standard error over seeds."""
from __future__ import annotations

import math

from ...scheduling.planning import PREPARE
from ...scheduling.ranking import SEED, seed_groups
from ...scheduling.sweep import Sweep
from . import Exercise, Exercises


def runs_with_more_seeds(sweep: Sweep, more: int) -> int:
    """The number of runs if each setting had `more` seeds more; videos are prepared once all the same."""
    prepared = [run for run in sweep.runs if run.id.startswith(PREPARE)]
    others = [run for run in sweep.runs if not run.id.startswith(PREPARE)]
    seeds = {value for run in others for name, value in run.varied.items() if name.rpartition(".")[2] == SEED}
    return len(prepared) + len(others) * (max(len(seeds), 1) + more) // max(len(seeds), 1)


def sweeps(sweep: Sweep) -> Exercises:
    """Three questions about a sweep that was run."""
    def standard_error() -> float:
        groups = seed_groups(sweep)
        return (groups[0].std or 0.0) / math.sqrt(len(groups[0].values)) if groups else 0.0

    minutes = sum(row["seconds"] or 0.0 for row in sweep.rows()) / 60
    return Exercises([
        Exercise(
            "How many runs would this sweep have with two more seeds?",
            lambda: runs_with_more_seeds(sweep, 2), 0.0,
            "Every setting is run with every seed: how many settings are there?",
            "trained = [run for run in loaded.runs if not run.id.startswith('prepare-')]\n"
            "seeds = len({run.varied.get('overrides.seed') for run in trained})\n"
            "len(loaded.runs) + 2 * len(trained) // seeds"),
        Exercise(
            "How long would its runs have taken one after another (minutes)?",
            lambda: minutes, 0.02 * minutes,
            "Each row of `loaded.rows()` has its `seconds`, None if it was never started.",
            "sum(row['seconds'] or 0 for row in loaded.rows()) / 60"),
        Exercise(
            "What is the standard error of the best setting's mean?",
            standard_error, max(0.02 * standard_error(), 1e-6),
            "The mean of more runs is more certain: scores.std(ddof=1) over the root of their number.",
            "float(scores.std(ddof=1) / n ** 0.5) if n > 1 else 0.0"),
    ])
