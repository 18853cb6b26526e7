"""Exercises of notebook 04: when a preset densifies, what a threshold does, which region gains most Gaussians."""
from __future__ import annotations

import numpy as np

from ...analysis import growth as analysis
from ...config import load_config
from ...face.regions import REGIONS
from ...training.run import Run
from . import Exercise, Exercises

THRESHOLD = 0.002


def gained(run: Run) -> dict[str, int]:
    """Gaussians that each region gained between the start and the newest checkpoint, see `growth.count_by_region`."""
    return {name: alive - start for name, start, _, alive in analysis.count_by_region(run).rows}


def growth(run: Run) -> Exercises:
    """The exercises on a run that has densified and has snapshots.

    Args:
        run: the one that notebook 04 shows.
    """
    moment = (analysis.recorded_steps(run) or [0])[0]

    def above() -> int:
        return int((run.snapshot(moment).gradient > np.float32(THRESHOLD)).sum())

    def most() -> str:
        found = gained(run)
        return max(REGIONS, key=lambda name: found[name])

    return Exercises([
        Exercise("What is the smallest number of iterations with which a run densifies once, all other settings being "
                 "those of quick_test?",
                 lambda: analysis.first_densification_step(load_config("quick_test")),
                 hint="Both ends of the window are excluded, and a densification step needs an iteration that is a "
                 "multiple of the interval.",
                 solution="cfg = egs.load_config('quick_test')\n"
                          "next(i for i in range(cfg.densify_from_iter + 1, cfg.densify_until_iter)\n"
                          "     if i % cfg.densification_interval == 0)"),
        Exercise(f"How many Gaussians had a gradient above {THRESHOLD:g} when they entered the densification step at "
                 f"iteration {moment}?",
                 above, hint="Choose that step above the histogram and put the line there: the table says how many "
                 f"lie above it. Or read shown.snapshot({moment}): its gradient has one number for each Gaussian.",
                 solution=f"gradient = shown.snapshot({moment}).gradient\n"
                          f"int((gradient > np.float32({THRESHOLD:g})).sum())"),
        Exercise("Which face region gained most Gaussians from the start to the newest checkpoint? (its name in "
                 "quotes)",
                 most, hint=f"One of: {'; '.join(REGIONS)}. The table by region has both counts: at the start, and "
                 "in the checkpoint.",
                 solution="rows = nb.growth.count_by_region(shown).rows\n"
                          "gained = {name: now - start for name, start, _, now in rows}\n"
                          "max(gained, key=gained.get)"),
    ])
