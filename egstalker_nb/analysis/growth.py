"""How a head grows: when Gaussians are born and die, where, and what other settings would do. Tables of notebook 04."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from ..config import Config, densification_steps, first_densification_step, load_config, loadable
from ..core.errors import DatasetError, InputError
from ..core.table import Table
from ..data.dataset import Dataset
from ..face.regions import REGIONS, region_of
from ..model.gaussians import make_gaussians
from ..training import snapshots
from ..training.densification import MAX_CLONE_SCALE
from ..training.run import Run
from ..training.snapshots import Snapshot
from ..training.train import train

LESSON_ITERATIONS, LESSON_POINTS = 300, 2_000
#: what a round does, by region: key in its row -> what is counted
KINDS = {"cloned": "born: clones", "split": "born: children of splits", "pruned": "gone: pruned"}
#: the settings that decide growth
SETTINGS = {
    "iterations": "the whole run", "coarse_iterations": "end of the static stage",
    "densify_from_iter": "growth begins after this iteration", "densify_until_iter": "and ends before this one",
    "densification_interval": "iterations between rounds",
    "densify_grad_threshold_coarse": "gradient from which a Gaussian grows, coarse stage",
    "densify_grad_threshold_fine": "the same in the fine stage",
    "opacity_threshold": "less opaque Gaussians are pruned", "max_points": "cap on their number",
}


# ---- the schedule ----

def schedule(*runs: Run) -> Table:
    """The settings that decide growth and how many rounds follow from them, one column for each run."""
    def facts(run: Run) -> dict[str, Any]:
        planned = densification_steps(run.config)
        return {**{name: getattr(run.config, name) for name in SETTINGS},
                "planned": f"{len(planned)}: {planned[0]} ... {planned[-1]}" if planned else "none",
                "done": len(run.metrics("densify"))}

    about = {**SETTINGS, "planned": "rounds that follow from the above", "done": "rounds that took place"}
    columns = [facts(run) for run in runs]
    rows = [(name, *[c[name] for c in columns], meaning) for name, meaning in about.items()]
    return Table(("setting", *[run.root.name for run in runs], "meaning"), rows, "What decides growth")


def presets() -> Table:
    """What the window of each preset leads to: rounds, and how long a run must be to grow at all."""
    rows = []
    for name, c in loadable().items():
        rows.append((name, c.iterations, f"{c.densify_from_iter} ... {c.densify_until_iter}", c.densification_interval,
                     first_densification_step(c), len(densification_steps(c))))
    return Table(("preset", "iterations", "window", "interval", "first round at", "rounds"), rows,
                 "A round needs an iteration inside the window that the interval divides")


def grew(run: Run) -> bool:
    """Whether any Gaussian was cloned or split."""
    return any(r["cloned"] + r["split"] for r in run.metrics("densify"))


def explain(run: Run) -> str:
    """Why the run grew or did not, in a few sentences with its own numbers."""
    c, planned, done = run.config, densification_steps(run.config), run.metrics("densify")
    now = run.pick()
    if grew(run):
        return (f"'{run.root.name}' grew: {len(done)} rounds up to iteration {now} took it from {start_count(run)} to "
                f"{done[-1]['points']} Gaussians (cap {c.max_points}).")
    if not planned:
        return (f"'{run.root.name}' cannot grow. A round takes place every {c.densification_interval} iterations "
                f"between densify_from_iter ({c.densify_from_iter}) and densify_until_iter ({c.densify_until_iter}): "
                f"the first one would be at iteration {first_densification_step(c)}, but the run ends at iteration "
                f"{c.iterations}. It keeps the {start_count(run)} Gaussians it started with, one for each landmark.")
    if not done:
        return (f"'{run.root.name}' has not grown yet: its first round comes at iteration {planned[0]}, and its newest "
                f"checkpoint is of iteration {now}. Train on.")
    return (f"'{run.root.name}' had {len(done)} rounds, but no Gaussian's mean gradient exceeded the threshold (coarse "
            f"{c.densify_grad_threshold_coarse:g}, fine {c.densify_grad_threshold_fine:g}). Lower it.")


# ---- the lesson run ----

def lesson_config(iterations: int = LESSON_ITERATIONS, **overrides: Any) -> Config:
    """`quick_test` with a growth window inside its own length, one frame a step, and a low cap.

    Args:
        iterations: of the whole run. overrides: settings that replace the lesson's.

    Raises:
        InputError: fewer than 40 iterations, which leave no room for rounds.
    """
    if iterations < 40:
        raise InputError("at least 40 iterations", str(iterations), "Choose a few hundred.")
    n = iterations
    settings = {"preset": "growth lesson", "iterations": n, "batch_size": 1, "coarse_iterations": n // 2,
                "densify_from_iter": n // 4, "densify_until_iter": 3 * n // 4, "densification_interval": n // 20,
                "max_points": LESSON_POINTS, "checkpoint_interval": n, "eval_interval": n // 8}
    return load_config("quick_test", **{**settings, **overrides})


def lesson_run(run: Run, iterations: int = LESSON_ITERATIONS) -> Run:
    """A short run that does grow, on the dataset of `run`; it lies in that run's folder and is made only once.

    Raises:
        InputError: too few iterations. DatasetError: the dataset of `run` is gone or changed.
    """
    folder = run.root / f"lesson_{iterations}"
    if folder.is_dir() and not snapshots.iterations(folder):  # an older version left none
        folder = run.root / f"lesson_{iterations}_again"
    return train(run.dataset, lesson_config(iterations), folder)


def to_show(run: Run, iterations: int = LESSON_ITERATIONS) -> Run:
    """The run itself if it grew and left snapshots of its rounds, else a short lesson run on its dataset."""
    return run if grew(run) and counted_rounds(run) else lesson_run(run, iterations)


def with_snapshots(run: Run) -> list[int]:
    """Iterations of its snapshots, ascending.

    Raises:
        DatasetError: it has none.
    """
    if not run.snapshots:
        raise DatasetError(f"snapshots in the run '{run.root.name}'", "none: an older version trained it",
                           "Train again into a new folder, or look at analysis.lesson_run(run).")
    return run.snapshots


# ---- births and deaths ----

def start_count(run: Run) -> int:
    """The number of Gaussians before the first round."""
    for r in run.metrics("densify"):
        return r["points"] - r["cloned"] - r["split"] + r["pruned"]
    return len(run.dataset.mean_face)


def history(run: Run) -> tuple[list[int], list[int]]:
    """Iterations and the number of Gaussians from each on, as steps: the start, each round, the newest row."""
    steps = [(0, start_count(run))] + [(r["iteration"], r["points"]) for r in run.metrics("densify")]
    last = max((r["iteration"] for r in run.metrics("train")), default=0)
    steps.append((max(last, steps[-1][0]), steps[-1][1]))
    return [i for i, _ in steps], [n for _, n in steps]


def ledger(run: Run) -> Table:
    """Where the Gaussians of the newest checkpoint come from: start + births - deaths, beside its own count."""
    done = [r for r in run.metrics("densify") if r["iteration"] <= run.pick()]
    cloned, split, pruned = (sum(r[k] for r in done) for k in ("cloned", "split", "pruned"))
    rows = [("at the start", start_count(run), "one for each landmark"),
            ("born by cloning", cloned, "small ones: each gets a copy"),
            ("born by splitting", 2 * split, "large ones: two smaller ones each"),
            ("gone by splitting", -split, "the large ones they replace"),
            ("pruned", -pruned, f"opacity below {run.config.opacity_threshold:g}")]
    rows.append(("sum", sum(r[1] for r in rows), "all lines above"))
    rows.append(("in the checkpoint", len(run.added_at()), f"iteration {run.pick()}"))
    return Table(("Gaussians", "number", ""), rows, f"Births and deaths in '{run.root.name}'")


def census(run: Run) -> Table:
    """Gaussians by region: at the start, born in all rounds, alive in the newest checkpoint (where they are now)."""
    mean_face = torch.from_numpy(run.dataset.mean_face)
    gaussians = run.load_head(device="cpu").gaussians
    start = torch.bincount(region_of(mean_face, mean_face), minlength=len(REGIONS))
    alive = torch.bincount(region_of(gaussians["means"], mean_face), minlength=len(REGIONS))
    births = {name: sum(r["births"][name] for r in run.metrics("densify")) for name in REGIONS}
    rows = [(name, int(start[k]), births[name], int(alive[k])) for k, name in enumerate(REGIONS)]
    return Table(("region", "at the start", "born", "alive"), rows, f"Gaussians of '{run.root.name}' by region")


def stages(run: Run) -> dict[str, dict[str, Tensor]]:
    """Raw Gaussians (see `make_gaussians`) at the start, after the coarse stage and at the end, where they exist."""
    ds, c, have = run.dataset, run.config, run.iterations
    start = make_gaussians(torch.from_numpy(ds.mean_face), torch.zeros(len(ds.mean_face), 3), c.sh_degree)
    found = {"start": {k: v.detach() for k, v in start.items()}}
    for number in [i for i in have if i == c.coarse_iterations] + have[-1:]:
        name = f"after coarse ({number})" if number == c.coarse_iterations else f"end ({number})"
        found[name] = {k: v.detach() for k, v in run.load_head(number, "cpu").gaussians.items()}
    return found


def size_px(scales: Tensor | np.ndarray, ds: Dataset) -> np.ndarray:
    """Standard deviation of Gaussians, geometric mean of the axes, in px of a frame at the mean distance: logs of
    standard deviations [N, 3], head units -> [N]."""
    distance = float(np.linalg.norm(ds.w2c[:, :3, 3], axis=1).mean())
    return np.exp(np.asarray(scales).mean(1)) * ds.focal / distance


# ---- what a round does, and would do ----

@dataclass(frozen=True)
class Outcome:
    """What one growth round does to a snapshot's Gaussians at a threshold and a cap.

    Attributes:
        above: Gaussians whose gradient exceeds the threshold. cloned, split: what becomes of them.
        held: those that the cap holds back. pruned: too faint, after growth. points: their number afterwards.
    """

    threshold: float
    cap: int
    above: int
    cloned: int
    split: int
    held: int
    pruned: int
    points: int


def threshold_at(cfg: Config, iteration: int) -> float:
    """The configuration's own threshold at an iteration."""
    fine = cfg.stage(iteration) == "fine"
    return cfg.densify_grad_threshold_fine if fine else cfg.densify_grad_threshold_coarse


def small(snapshot: Snapshot) -> np.ndarray:
    """[N] bool: small enough to be cloned; a larger one is split."""
    longest = torch.from_numpy(snapshot.scales).exp().amax(1)
    return (longest <= MAX_CLONE_SCALE).numpy()


def outcome(snapshot: Snapshot, cfg: Config, threshold: Optional[float] = None, cap: Optional[int] = None) -> Outcome:
    """Count what a round would do at this moment, as `Densifier` does it.

    Args:
        threshold, cap: gradient per half image size, and number of Gaussians; default: the configuration's own.
    """
    threshold = threshold_at(cfg, snapshot.iteration) if threshold is None else threshold
    cap = cfg.max_points if cap is None else cap
    gradient, room = snapshot.gradient, max(cap - len(snapshot), 0)
    above = gradient > np.float32(threshold)
    grows = above if above.sum() <= room else above & (gradient > np.sort(gradient)[-1 - room])
    clones, faint = small(snapshot) & grows, snapshot.opacity < cfg.opacity_threshold
    cloned, split = int(clones.sum()), int((grows & ~clones).sum())
    pruned = int(faint.sum() + (faint & grows).sum())  # clones and children are as faint as their parents
    return Outcome(threshold, cap, int(above.sum()), cloned, split, int(above.sum()) - cloned - split, pruned,
                   len(snapshot) + cloned + split - pruned)


def counted_rounds(run: Run) -> list[int]:
    """Iterations of growth rounds that left a snapshot of the Gaussians as they entered."""
    done = {r["iteration"] for r in run.metrics("densify")}
    return [i for i in run.snapshots if i in done]


def measured(run: Run) -> list[int]:
    """Iterations of snapshots at which gradients can be looked at: those of rounds; without rounds, all with any."""
    return counted_rounds(run) or [i for i in with_snapshots(run) if run.snapshot(i).gradient.any()]


def recount(run: Run) -> Table:
    """Rounds counted again from their snapshots at the run's own settings, beside what the run noted."""
    noted, rows = {r["iteration"]: r for r in run.metrics("densify")}, []
    for i in counted_rounds(run):
        again, row = outcome(run.snapshot(i), run.config), noted[i]
        pairs = [(getattr(again, k), row[k]) for k in ("cloned", "split", "pruned", "points")]
        rows.append((i, threshold_at(run.config, i), *[a if a == b else f"{a}, not {b}" for a, b in pairs],
                     all(a == b for a, b in pairs)))
    return Table(("iteration", "threshold", "cloned", "split", "pruned", "Gaussians after it", "as in the run"), rows,
                 f"Rounds of '{run.root.name}', counted again from its snapshots" if rows
                 else f"'{run.root.name}' left no snapshots of growth rounds: it had none, or is of an older version")


def settings_to_try(run: Run, iteration: int) -> dict[str, float]:
    """Thresholds worth a look: the run's own at this iteration, and those of the presets."""
    named = {name: threshold_at(load_config(name), iteration) for name in ("quick_test", "production")}
    return {"this run": threshold_at(run.config, iteration), **named}


def what_if(run: Run, iteration: int, threshold: Optional[float] = None, cap: Optional[int] = None) -> Table:
    """What the round of this iteration would have done at other thresholds, one row each; caps as given or the run's.

    Raises:
        DatasetError: no snapshot of that iteration.
    """
    named, now = settings_to_try(run, iteration), run.snapshot(iteration)
    if threshold is not None:
        named["your line"] = threshold
    rows = []
    for name, value in named.items():
        o = outcome(now, run.config, value, cap)
        rows.append((name, f"{value:.2g}", o.above, o.cloned, o.split, o.held, len(now) - o.above, o.pruned, o.points))
    return Table(("setting", "threshold", "above it", "cloned", "split", "held back by cap", "not touched", "pruned",
                  "Gaussians after it"), rows,
                 f"{len(now)} Gaussians at iteration {iteration}, cap {run.config.max_points if cap is None else cap}")


def by_region(run: Run) -> dict[str, np.ndarray]:
    """Counts of each round by region: kind (see `KINDS`) -> [rounds, regions] int; runs of an older version noted
    births only, as one kind `added_at`.

    Raises:
        DatasetError: there was no round.
    """
    done = run.metrics("densify")
    if not done:
        raise DatasetError("a run with growth rounds", explain(run), "Use analysis.lesson_run(run) for one that grows.")
    if any("by_region" not in r for r in done):
        return {"born": np.array([[r["births"][name] for name in REGIONS] for r in done])}
    return {kind: np.array([[r["by_region"][kind][name] for name in REGIONS] for r in done]) for kind in KINDS}
