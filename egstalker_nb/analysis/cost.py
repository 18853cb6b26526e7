"""Quality against cost: what runs took, which is best for its price, how long other settings would take."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Optional, Sequence

import numpy as np
from scipy.optimize import nnls

from ..config import Config, densification_steps, load_config
from ..core.errors import InputError
from ..core.progress import clock
from ..core.table import Table
from ..data.dataset import Dataset
from ..data.frame_loader import BYTES_PER_PIXEL
from ..training import checkpoint
from ..training.metrics_log import History
from ..training.run import Run
from .growth import LESSON_ITERATIONS, lesson_config

MEBIBYTE = 2.0**20
LANDMARKS = 478         # Gaussians that every run starts with
LOOK_ITERATIONS = 3000  # of a look on a CPU: the coarse stage's share of production is kept
NAMED = 2               # runs by name where the source of an estimate is told
By = Literal["iteration", "time"]


# ---- what runs took ----

def seconds_at(run: Run) -> dict[int, float]:
    """Iteration -> seconds of training until then, for each row of the metrics.

    Steps, evaluations and checkpoints count; loading data and pauses between sessions do not.
    """
    iterations, seconds = History(run.root).seconds()
    return dict(zip(iterations.astype(int).tolist(), seconds.tolist()))


def series(run: Run, kind: str, key: str, by: By = "iteration") -> tuple[list[float], list[Any]]:
    """x (iterations or seconds) and y of one curve of one run; kind: `train` or `eval`, see `Run.metrics`."""
    some = [(r["iteration"], r[key]) for r in run.metrics(kind) if r.get(key)]
    x, y = [i for i, _ in some], [v for _, v in some]
    if by == "time":
        at = seconds_at(run)
        # evaluations lie between rows of the metrics
        x = np.interp(x, [0, *at], [0.0, *at.values()]).tolist()
    return x, y


@dataclass
class Outcome:
    """What came out of a run and what it took.

    Attributes:
        name: of the run. psnr: dB on validation frames, all runs on the same ones. seconds: of training, None without
        metrics. points: Gaussians. mib: file that rendering needs (MiB). iterations: done.
    """

    name: str
    psnr: float
    seconds: Optional[float]
    points: int
    mib: float
    iterations: int


def outcome(run: Run, name: str, psnr: float) -> Outcome:
    """The outcome of a run's newest checkpoint, whose PSNR is known."""
    number = run.pick()
    seconds = [s for i, s in seconds_at(run).items() if i <= number]
    file = checkpoint.folder(run.root, number) / checkpoint.HEAD
    return Outcome(name, psnr, seconds[-1] if seconds else None, len(run.added_at(number)),
                   file.stat().st_size / MEBIBYTE, number)


def pareto(costs: Sequence[float], quality: Sequence[float]) -> list[bool]:
    """For each of several things whether no other is at least as good and as cheap, and better in one of the two."""
    return [not any(c <= cost and q >= good and (c < cost or q > good) for c, q in zip(costs, quality))
            for cost, good in zip(costs, quality)]


def levels(curves: Sequence[Sequence[float]], count: int = 6) -> list[float]:
    """At most so many round PSNR levels (dB) between where the best start and the best end of some curves lie."""
    some = [c for c in curves if len(c)]
    if not some:
        return []
    low, high = max(c[0] for c in some), max(max(c) for c in some)
    step = next((s for s in (0.25, 0.5, 1, 2) if (high - low) / s < count), 5)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)] or [math.floor(high)]


def first_at(run: Run, level: float, source: str = "val") -> Optional[tuple[float, int]]:
    """Seconds and iteration at which PSNR first reached a level (dB), or None; source: `val` or `train`."""
    kind, key = ("eval", "val_psnr") if source == "val" else ("train", "psnr")
    iterations, values = series(run, kind, key)
    seconds, _ = series(run, kind, key, "time")
    return next(((s, i) for s, i, v in zip(seconds, iterations, values) if v >= level), None)


def psnr_source(runs: Sequence[Run]) -> str:
    """`val` where every run was evaluated while it trained, else `train`: the training batches, which always are."""
    return "val" if all(series(r, "eval", "val_psnr")[1] for r in runs) else "train"


def time_to(runs: Sequence[Run], names: Sequence[str], wanted: Optional[Sequence[float]] = None) -> Table:
    """When each run first reached a PSNR: time (min:s) and iteration; `-`: never.

    Args:
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


# ---- how long other settings would take ----

@dataclass
class Speed:
    """Seconds of a training step by stage, batch and Gaussians, fitted to runs at hand.

    A step costs batch x (b + c x Gaussians), times how much slower or faster than that the nearest measured batch size
    was: so what was measured comes out as measured.

    Attributes:
        device, size: what the runs were trained on, and the edge of their pictures in px.
        stages: stage -> (b, c), both >= 0. scales: stage -> batch size -> factor. about: what it is estimated from.
        least: stage -> the smallest number of Gaussians of a measured step; fewer are taken to cost as much.
        most: the largest number of any; beyond it is extrapolated.
    """

    device: str
    size: int
    stages: dict[str, np.ndarray]
    scales: dict[str, dict[int, float]]
    about: str
    least: dict[str, int]
    most: int

    def step(self, stage: str, batch: int, points: int) -> float:
        """Seconds of one step; a stage that was never measured costs what the other does."""
        stage = stage if stage in self.stages else next(iter(self.stages))
        (b, c), scales = self.stages[stage], self.scales[stage]
        nearest = min(scales, key=lambda n: abs(math.log(n / batch)))
        return batch * (b + c * max(points, self.least[stage])) * scales[nearest]

    def seconds(self, cfg: Config, grown: int) -> float:
        """Seconds of a whole run whose growth, if it has any, goes evenly from 478 Gaussians to `grown`."""
        planned = densification_steps(cfg)
        at = np.arange(1, cfg.iterations + 1, max(1, cfg.iterations // 1000))
        points = np.full(len(at), float(LANDMARKS))
        if planned:
            points = np.interp(at, [planned[0], max(planned[-1], planned[0] + 1)], [LANDMARKS, grown])
        steps = [self.step(cfg.stage(i), cfg.batch_size, n) for i, n in zip(at, points)]
        return float(np.mean(steps)) * cfg.iterations


def speeds(runs: Sequence[Run]) -> list[Speed]:
    """How fast training was on each device and picture size among some runs; those without metrics do not count."""
    groups: dict[tuple[str, int], list[Run]] = {}
    for r in runs:
        if r.metrics("train"):
            key = r.manifest.get("device", "unknown device"), r.manifest.get("dataset_size", 0)
            groups.setdefault(key, []).append(r)
    return [_fit(device, size, some) for (device, size), some in groups.items()]


def _fit(device: str, size: int, runs: Sequence[Run]) -> Speed:
    """Fit the medians of steps with equal stage, batch and Gaussians: single rows hold compilation and other noise."""
    steps: dict[tuple[str, int, int], list[float]] = {}
    for r in runs:
        for row in r.metrics("train"):
            key = row.get("stage", "fine"), r.config.batch_size, row["points"]
            steps.setdefault(key, []).append(1 / max(row["it_per_s"], 1e-9))
    stages, scales, least = {}, {}, {}
    for stage in sorted({key[0] for key in steps}, reverse=True):  # fine first
        batch, points = (np.array([k[j] for k in steps if k[0] == stage], float) for j in (1, 2))
        took = np.array([np.median(v) for k, v in steps.items() if k[0] == stage])
        # one number of Gaussians cannot tell what each costs: all of it is put on them, the higher estimate
        base = np.ones_like(points) if np.ptp(points) > 0 else np.zeros_like(points)
        parts = np.stack([base, points], 1) * (batch / took)[:, None]  # relative: slow steps shall not decide alone
        stages[stage] = nnls(parts, np.ones_like(took))[0]
        ratio = took / (batch * (stages[stage][0] + stages[stage][1] * points))
        least[stage] = int(points.min())
        scales[stage] = {int(n): float(np.median(ratio[batch == n])) for n in set(batch)}
    named = [_pace(r) for r in runs[:NAMED]] + ([f"{len(runs) - NAMED} more"] if len(runs) > NAMED else [])
    return Speed(device, size, stages, scales, f"{', '.join(named)} on {device}, {size} px", least,
                 max(key[2] for key in steps))


def _pace(run: Run) -> str:
    """A run's name and speed."""
    rows = run.metrics("train")
    speed = float(np.median([row["it_per_s"] for row in rows]))
    return f"'{run.root.name}' ({speed:.3g} it/s at batch {run.config.batch_size}, {rows[-1]['points']} Gaussians)"


def _span(low: float, high: float) -> str:
    """A time or a range of times."""
    def short(seconds: float) -> str:
        if seconds < 90:
            return f"{seconds:.0f} s"
        return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

    return short(low) if short(low) == short(high) else f"{short(low)} - {short(high)}"


def expected(cfg: Config, speed: Optional[Speed]) -> Optional[str]:
    """The time a configuration takes, from no growth to its cap; None without a measured speed."""
    if speed is None:
        return None
    grown = cfg.max_points if densification_steps(cfg) else LANDMARKS
    span = _span(speed.seconds(cfg, LANDMARKS), speed.seconds(cfg, grown))
    return f"{span}{' (extrapolated)' if grown > speed.most else ''}"


def look_config() -> Config:
    """`production` at a tenth of its length: the same proportions of stages and growth, for a look on a CPU."""
    whole = load_config("production")
    part = LOOK_ITERATIONS / whole.iterations
    kept = {name: max(1, round(getattr(whole, name) * part))
            for name in ("coarse_iterations", "densify_from_iter", "densify_until_iter")}
    return load_config("production", iterations=LOOK_ITERATIONS, **kept)


def advice(runs: Sequence[Run], names: Sequence[str], psnrs: Sequence[float], ds: Dataset,
           more: Sequence[Run] = ()) -> Table:
    """Which settings to use for which purpose, with the time they take by the speed of runs at hand.

    Args:
        runs, names, psnrs: those compared, and what they reached (dB on validation frames). ds: their dataset.
        more: other runs whose speed counts, for instance on a GPU.
    """
    if not runs:
        raise InputError("at least one run", "none", "Train one with notebooks 2 and 3.")
    measured = speeds([*runs, *[r for r in more if r.root.resolve() not in {x.root.resolve() for x in runs}]])
    cpu = _nearest([s for s in measured if s.device.startswith("CPU")], ds.size)
    gpu = _nearest([s for s in measured if not s.device.startswith("CPU")], ds.size)
    frames = ds.num_train * ds.size ** 2 * BYTES_PER_PIXEL / MEBIBYTE
    here = f"{frames:.0f} MiB of frames"
    used = max((row.get("gpu_mib") or 0 for r in [*runs, *more] for row in r.metrics("train")), default=0)
    there = f"{used:.0f} MiB of GPU memory at most in the runs at hand" if used else f"{here}, on the card or beside it"

    def saw(cfg: Config) -> str:
        same = [f"{p:.1f} dB ('{n}')" for r, n, p in zip(runs, names, psnrs) if _alike(r.config, cfg)]
        return f"measured here: {', '.join(same)}" if same else ""

    quick, long = load_config("quick_test"), load_config("extended_test")
    prod, look, lesson = load_config("production"), look_config(), lesson_config()
    window = f"{prod.densify_from_iter} - {prod.densify_until_iter}"
    rows = [
        ("try the pipeline", "quick_test", "every stage runs, none for long", expected(quick, cpu), here,
         saw(quick) or f"a soft head of {LANDMARKS} Gaussians: it never grows"),
        ("a lesson on growth", f"analysis.lesson_run(run, {LESSON_ITERATIONS})", "growth within its own length",
         expected(lesson, cpu), here, saw(lesson) or f"growth to at most {lesson.max_points} Gaussians, little motion"),
        ("a look on a CPU", f"production, a tenth as long ({LOOK_ITERATIONS})",
         f"stages and growth in production's proportions, batch {look.batch_size}", expected(look, cpu), here,
         saw(look) or f"up to {look.max_points} Gaussians; motion is learned last"),
        ("good quality, on a GPU", "production", f"a long static stage, growth from {window}, one frame a step",
         expected(prod, gpu) or f"no GPU run at hand; here: {expected(prod, cpu) or 'unknown'}", there,
         saw(prod) or f"the best of these; up to {prod.max_points} Gaussians"),
        ("a long clip", "production", "more frames need no more steps, and short clips overfit sooner",
         "as above", f"{60 * ds.fps * ds.size ** 2 * BYTES_PER_PIXEL / MEBIBYTE:.0f} MiB a minute of clip",
         "read from disk where memory is short; steps cost the same"),
        ("nothing", "extended_test", f"sees {frames_seen(long) / frames_seen(prod):.1f} times production's frames with "
         "quick_test's settings", expected(long, cpu), here,
         saw(long) or "the lesson that time does not mend a wrong config"),
    ]
    sources = [f"{what}: {s.about}" for what, s in (("CPU", cpu), ("GPU", gpu)) if s is not None]
    caption = (f"Which should I use? Frames of {ds.size} px. Times are estimated from "
               f"{'; '.join(sources) or 'nothing: no run has metrics'}. A range goes from no growth to the cap; "
               "extrapolated: more Gaussians than were measured.")
    return Table(("purpose", "settings", "why", "time to train", "memory", "what to expect"), rows, caption)


def frames_seen(cfg: Config) -> int:
    """Frames that all steps of a run work on together."""
    return cfg.iterations * cfg.batch_size


def _nearest(some: Sequence[Speed], size: int) -> Optional[Speed]:
    """The speed measured at pictures of the nearest size."""
    return min(some, key=lambda s: abs(s.size - size), default=None)


def _alike(a: Config, b: Config) -> bool:
    """Whether two configurations train alike: all settings the same but those that only keep books."""
    ignored = ("preset", "eval_interval", "checkpoint_interval", "seed")
    one, two = a.to_dict(), b.to_dict()
    return all(one[k] == two[k] for k in one if k not in ignored)
