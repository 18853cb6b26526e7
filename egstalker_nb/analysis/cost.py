"""Quality against cost: what runs took, the Pareto front, the time to reach a PSNR, which preset to use."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Optional, Sequence

import numpy as np

from ..config import Config, load_config
from ..core.progress import clock
from ..core.table import Table
from ..training import checkpoint
from ..training.history import History
from ..training.run import Run

MEBIBYTE = 2.0**20
By = Literal["iteration", "time"]
#: preset -> the purpose it suits
PURPOSES = {
    "quick_test": "test the pipeline: every stage runs, no densification, low quality",
    "production": "good quality: long coarse stage, densification, one frame a step",
    "egstalker_paper": "compare with upstream's method: what each of its differences costs, see notebook 05",
    "extended_test": "none: many more frames than production, but no long coarse stage, so the quality stays low",
}


# ---- what runs took ----

def seconds_at(run: Run) -> dict[int, float]:
    """Iteration -> seconds of training up to it, for each training row of the metrics.

    Steps, evaluations and checkpoints count; loading data and pauses between sessions do not.
    """
    iterations, seconds = History(run.root).seconds()
    return dict(zip(iterations.astype(int).tolist(), seconds.tolist()))


def series(run: Run, kind: str, key: str, by: By = "iteration") -> tuple[list[float], list[Any]]:
    """One curve of one run.

    Args:
        run: the run.
        kind: of the rows: `train` or `eval`, see `Run.metrics`.
        key: of the values in these rows.
        by: unit of x.

    Returns:
        x (iterations or seconds of training) and y.
    """
    some = [(r["iteration"], r[key]) for r in run.metrics(kind) if r.get(key)]
    x, y = [i for i, _ in some], [v for _, v in some]
    if by == "time":
        at = seconds_at(run)
        # evaluations lie between the training rows
        x = np.interp(x, [0, *at], [0.0, *at.values()]).tolist()
    return x, y


@dataclass
class RunSummary:
    """Quality and cost of a run.

    Attributes:
        name: of the run.
        psnr: dB on validation frames, the same frames for all runs.
        seconds: of training; None without metrics.
        points: number of Gaussians.
        mib: size of the file that rendering needs, MiB.
        iterations: finished steps.
    """

    name: str
    psnr: float
    seconds: Optional[float]
    points: int
    mib: float
    iterations: int


def summarize(run: Run, name: str, psnr: float) -> RunSummary:
    """Quality and cost of a run's newest checkpoint, whose PSNR (dB) is known."""
    number = run.pick()
    seconds = [s for i, s in seconds_at(run).items() if i <= number]
    file = checkpoint.folder(run.root, number) / checkpoint.HEAD
    return RunSummary(name, psnr, seconds[-1] if seconds else None, len(run.added_at(number)),
                      file.stat().st_size / MEBIBYTE, number)


def pareto(costs: Sequence[float], quality: Sequence[float]) -> list[bool]:
    """Which of several runs lie on the Pareto front: no other is at least as good and as cheap, and better in one."""
    return [not any(c <= cost and q >= good and (c < cost or q > good) for c, q in zip(costs, quality))
            for cost, good in zip(costs, quality)]


def levels(curves: Sequence[Sequence[float]], count: int = 6) -> list[float]:
    """At most `count` round PSNR levels (dB) from the highest first value to the highest value of some curves."""
    some = [c for c in curves if len(c)]
    if not some:
        return []
    low, high = max(c[0] for c in some), max(max(c) for c in some)
    step = next((s for s in (0.25, 0.5, 1, 2) if (high - low) / s < count), 5)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)] or [math.floor(high)]


def first_at(run: Run, level: float, source: str = "val") -> Optional[tuple[float, int]]:
    """When a run first reached a PSNR.

    Args:
        run: the run.
        level: PSNR in dB.
        source: `val` (validation frames) or `train` (training batches).

    Returns:
        seconds and iteration, or None if it never did.
    """
    kind, key = ("eval", "val_psnr") if source == "val" else ("train", "psnr")
    iterations, values = series(run, kind, key)
    seconds, _ = series(run, kind, key, "time")
    return next(((s, int(i)) for s, i, v in zip(seconds, iterations, values) if v >= level), None)


def psnr_source(runs: Sequence[Run]) -> str:
    """`val` where every run was evaluated during training, else `train` (training batches, always logged)."""
    return "val" if all(series(r, "eval", "val_psnr")[1] for r in runs) else "train"


def time_to(runs: Sequence[Run], names: Sequence[str], wanted: Optional[Sequence[float]] = None) -> Table:
    """When each run first reached a PSNR: time (min:s) and iteration; `-`: never.

    Args:
        runs: the runs.
        names: of the runs, for the columns.
        wanted: levels in dB; default: a few round ones that the runs passed.
    """
    source = psnr_source(runs)
    kind, key = ("eval", "val_psnr") if source == "val" else ("train", "psnr")
    wanted = wanted if wanted is not None else levels([series(r, kind, key)[1] for r in runs])
    rows = []
    for level in wanted:
        reached = [first_at(r, level, source) for r in runs]
        fastest = min((x[0] for x in reached if x), default=None)
        rows.append((f"{level:g} dB", *[None if x is None else f"{clock(x[0])} (iteration {x[1]})"
                                        f"{' *' if x[0] == fastest else ''}" for x in reached]))
    what = "validation frames" if source == "val" else "training batches (not every run has validation frames)"
    return Table(("PSNR of", *names), rows, f"Time to reach a PSNR on {what}, min:s; * is the first")


# ---- which preset to use ----

def frames_seen(cfg: Config) -> int:
    """Frames that all steps of a run process together."""
    return cfg.iterations * cfg.batch_size


def advice(runs: Sequence[Run]) -> Table:
    """Which preset suits which purpose, and the time it takes at the measured speed of some runs.

    The speed of a run is the median of its frames/s (batch size x it/s). Runs on the same device and image size share a
    column, which uses the median of their speeds. Runs without metrics are ignored.
    """
    speeds: dict[str, list[float]] = {}
    for run in runs:
        steps_per_second = [row["it_per_s"] for row in run.metrics("train")]
        if steps_per_second:
            key = f"{run.manifest.get('device', 'unknown device')}, {run.manifest.get('dataset_size', '?')} px"
            speeds.setdefault(key, []).append(run.config.batch_size * float(np.median(steps_per_second)))
    rows = []
    for name, purpose in PURPOSES.items():
        frames = frames_seen(load_config(name))
        rows.append((purpose, name, frames, *[clock(frames / float(np.median(some))) for some in speeds.values()]))
    return Table(("purpose", "preset", "frames seen", *[f"time on {key}" for key in speeds]), rows,
                 "Which preset to use. Times (h:min:s): frames seen / frames/s of the runs at hand; a head with more "
                 "Gaussians than theirs takes longer")
