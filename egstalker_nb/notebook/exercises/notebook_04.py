"""Exercises of notebook 04: when a preset would grow, what a threshold would do, where a head grows most."""
from __future__ import annotations

import numpy as np

from ...analysis import growth as analysis
from ...config import load_config
from ...face.regions import REGIONS
from ...training.run import Run
from . import Exercise, Exercises

THRESHOLD = 0.002


def gained(run: Run) -> dict[str, int]:
    """Gaussians that each region gained between the first and the newest moment, see `analysis.count_by_region`."""
    return {name: alive - start for name, start, _, alive in analysis.count_by_region(run).rows}


def growth(run: Run) -> Exercises:
    """The exercises on a run that has grown and has snapshots.

    Args:
        run: the one that notebook 04 shows.
    """
    moment = (analysis.recorded_steps(run) or [0])[0]

    def above() -> int:
        return int((run.snapshot(moment).gradient > np.float32(THRESHOLD)).sum())

    def most() -> str:
        found = gained(run)
        return max(REGIONS, key=found.get)

    return Exercises([
        Exercise("How many iterations must a run have at least to grow once, all other settings being those of "
                 "quick_test?",
                 lambda: analysis.first_densification_step(load_config("quick_test")),
                 hint="The window is open at both ends, and a round needs an iteration that the interval divides.",
                 solution="cfg = egs.load_config('quick_test')\n"
                          "next(i for i in range(cfg.densify_from_iter + 1, cfg.densify_until_iter)\n"
                          "     if i % cfg.densification_interval == 0)"),
        Exercise(f"How many Gaussians had a gradient above {THRESHOLD:g} when they entered the round at iteration "
                 f"{moment}?",
                 above, hint="Choose that round above the histogram and put the line there: the table says how many "
                 f"lie above it. Or ask shown.snapshot({moment}): its gradient has one number for each Gaussian.",
                 solution=f"int((shown.snapshot({moment}).gradient > {THRESHOLD:g}).sum())"),
        Exercise("Which region has gained most Gaussians from the start to the newest checkpoint? (its name in quotes)",
                 most, hint=f"One of: {'; '.join(REGIONS)}. The table by region has both moments: at the start, and "
                 "alive.",
                 solution="max(analysis.count_by_region(shown).rows, key=lambda row: row[3] - row[1])[0]"),
    ])
