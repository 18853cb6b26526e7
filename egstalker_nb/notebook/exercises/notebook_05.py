"""Exercises of notebook 05: frames seen, time to a quality, the setting that lets a run grow."""
from __future__ import annotations

from typing import Sequence

from ...analysis.cost import first_at, frames_seen, levels, psnr_source, series
from ...analysis.setting_effects import makes_grow
from ...config import load_config
from ...training.run import Run
from . import Exercise, Exercises


def common_level(runs: Sequence[Run]) -> float:
    """A PSNR (dB) that most runs reach, and one of them first: the middle one of the levels of the table."""
    kind, key = ("eval", "val_psnr") if psnr_source(runs) == "val" else ("train", "psnr")
    found = levels([series(r, kind, key)[1] for r in runs])
    return found[(len(found) - 1) // 2]


def fastest(runs: Sequence[Run], names: Sequence[str], level: float) -> str:
    """The name of the run that first reached a PSNR (dB), in time of training."""
    reached = [(at[0], name) for r, name in zip(runs, names) if (at := first_at(r, level, psnr_source(runs)))]
    return min(reached)[1] if reached else "none"


def comparison(runs: Sequence[Run], names: Sequence[str]) -> Exercises:
    """Three questions about presets and about the runs that are compared; names: theirs in the tables."""
    level, quick, production = common_level(runs), load_config("quick_test"), load_config("production")
    return Exercises([
        Exercise(
            "How many times as many frames as `production` does `extended_test` see in its whole training?",
            lambda: frames_seen(load_config("extended_test")) / frames_seen(production), 0.05,
            "A step works on a whole batch: multiply iterations by the batch size for both, then divide.",
            "from egstalker_nb.analysis.cost import frames_seen\n"
            'frames_seen(egs.load_config("extended_test")) / frames_seen(egs.load_config("production"))'),
        Exercise(
            f"Which run was the first to reach {level:g} dB, by time of training? (its name, in quotes)",
            lambda: fastest(runs, names, level), 0.0,
            "Set the curves to 'by time', or look for the * in the table of times.",
            "from egstalker_nb.notebook.exercises.notebook_05 import fastest\n"
            f"fastest(result.runs, result.names, {level:g})"),
        Exercise(
            "Keep the length of `quick_test`. Which one setting, taken from `production`, lets it grow? (in quotes)",
            lambda: makes_grow(quick, production)[0], 0.0,
            f"It ends at iteration {quick.iterations}, and growth begins only after {quick.densify_from_iter}.",
            'nb.setting_effects.makes_grow(egs.load_config("quick_test"), egs.load_config("production"))[0]'),
    ])
