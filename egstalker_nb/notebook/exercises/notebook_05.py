"""Exercises of notebook 05: frames processed, time to reach a PSNR, the setting that makes a run densify."""
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
    """Three questions about presets and about the runs that are compared.

    Args:
        runs: those compared.
        names: their names in the tables.
    """
    level, quick, production = common_level(runs), load_config("quick_test"), load_config("production")
    kind, key = ("eval", "val_psnr") if psnr_source(runs) == "val" else ("train", "psnr")
    return Exercises([
        Exercise(
            "How many times as many frames as `production` does `extended_test` process in its whole training?",
            lambda: frames_seen(load_config("extended_test")) / frames_seen(production), 0.05,
            "A training step processes a whole batch: multiply iterations by the batch size for both, then divide.",
            "long, production = egs.load_config('extended_test'), egs.load_config('production')\n"
            "long.iterations * long.batch_size / (production.iterations * production.batch_size)"),
        Exercise(
            f"Which run was the first to reach {level:g} dB, by training time? (its name in quotes)",
            lambda: fastest(runs, names, level), 0.0,
            "Plot the curves 'by time', or look for the * in the table of times.",
            "seconds = {}  # training time until the PSNR is reached\n"
            "for name, run in zip(result.names, result.runs):\n"
            f"    at, psnr = nb.cost.series(run, '{kind}', '{key}', by='time')\n"
            f"    seconds[name] = min((t for t, value in zip(at, psnr) if value >= {level:g}), default=float('inf'))\n"
            "min(seconds, key=seconds.get)"),
        Exercise(
            "Keep the length of `quick_test`. Which single setting, taken from `production`, makes it densify? (in "
            "quotes)",
            lambda: makes_grow(quick, production)[0], 0.0,
            f"It ends at iteration {quick.iterations}, and densification begins only after {quick.densify_from_iter}.",
            "quick, production = (egs.load_config(name).to_dict() for name in ('quick_test', 'production'))\n\n"
            "def steps(cfg):  # iterations at which a run with these settings densifies\n"
            "    window = range(cfg['densify_from_iter'] + 1, min(cfg['densify_until_iter'], cfg['iterations'] + 1))\n"
            "    return [i for i in window if i % cfg['densification_interval'] == 0]\n\n"
            "next(name for name in quick if name != 'iterations' and steps({**quick, name: production[name]}))"),
    ])
