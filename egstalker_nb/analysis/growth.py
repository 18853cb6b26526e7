"""Densification of a run: schedule; Gaussians cloned, split and pruned; effect of other thresholds."""
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
from ..training.densification import is_small, threshold_at, to_grow
from ..training.run import Run
from ..training.snapshots import Snapshot
from ..training.train import train

LESSON_ITERATIONS, LESSON_POINTS = 300, 2_000
LESSON_TORSO = 40  # steps: the lesson is about the head
#: key of the counts by region in a row of the metrics -> what is counted
KIND_LABELS = {"cloned": "added by cloning", "split": "added by splitting", "pruned": "pruned"}
#: the settings that decide densification -> their meaning
GROWTH_SETTINGS = {
    "iterations": "length of the run", "coarse_iterations": "end of the coarse stage",
    "densify_from_iter": "densification begins after this iteration", "densify_until_iter": "and ends before this one",
    "densification_interval": "iterations between densification steps",
    "densify_grad_threshold_coarse": "gradient above which a Gaussian is cloned or split, coarse stage",
    "densify_grad_threshold_fine": "the same in the fine stage",
    "opacity_threshold": "Gaussians below this opacity are pruned", "max_points": "cap on the number of Gaussians",
}


# ---- the schedule ----

def schedule(*runs: Run) -> Table:
    """The settings that decide densification, and how many steps follow from them, one column for each run."""
    def facts(run: Run) -> dict[str, Any]:
        planned = densification_steps(run.config)
        return {**{name: getattr(run.config, name) for name in GROWTH_SETTINGS},
                "planned": f"{len(planned)}: {planned[0]} ... {planned[-1]}" if planned else "none",
                "done": len(run.metrics("densify"))}

    about = {**GROWTH_SETTINGS, "planned": "densification steps that follow from the above",
             "done": "densification steps that took place"}
    columns = [facts(run) for run in runs]
    rows = [(name, *[c[name] for c in columns], meaning) for name, meaning in about.items()]
    return Table(("setting", *[run.root.name for run in runs], "meaning"), rows, "What decides densification")


def preset_schedules() -> Table:
    """The densification steps of each preset, and the length that a run must have for the first one."""
    rows = []
    for name, c in loadable().items():
        rows.append((name, c.iterations, f"{c.densify_from_iter} ... {c.densify_until_iter}", c.densification_interval,
                     first_densification_step(c), len(densification_steps(c))))
    return Table(("preset", "iterations", "window", "interval", "first step at", "steps"), rows,
                 "Densification steps: the iterations inside the window (both ends excluded) that the interval divides")


def grew(run: Run) -> bool:
    """Whether any Gaussian was cloned or split."""
    return any(r["cloned"] + r["split"] for r in run.metrics("densify"))


def explain_growth(run: Run) -> str:
    """Why the number of Gaussians of a run grew or did not, in a few sentences with the run's own numbers."""
    c, planned, done = run.config, densification_steps(run.config), run.metrics("densify")
    now = run.pick()
    if grew(run):
        return (f"'{run.root.name}' grew: {len(done)} densification steps up to iteration {now} took it from "
                f"{start_count(run)} to {done[-1]['points']} Gaussians (cap {c.max_points}).")
    if not planned:
        return (f"'{run.root.name}' cannot grow. A densification step takes place every {c.densification_interval} "
                f"iterations between densify_from_iter ({c.densify_from_iter}) and densify_until_iter "
                f"({c.densify_until_iter}): the first one would be at iteration {first_densification_step(c)}, but the "
                f"run ends at iteration {c.iterations}. It keeps the {start_count(run)} Gaussians it started with, one "
                "for each landmark.")
    if not done:
        return (f"'{run.root.name}' has not grown yet: its first densification step is at iteration {planned[0]}, and "
                f"its newest checkpoint is of iteration {now}. Continue training.")
    return (f"'{run.root.name}' had {len(done)} densification steps, but no Gaussian's mean gradient exceeded the "
            f"threshold (coarse {c.densify_grad_threshold_coarse:g}, fine {c.densify_grad_threshold_fine:g}). "
            "Lower the threshold.")


# ---- the lesson run ----

def lesson_config(iterations: int = LESSON_ITERATIONS, **overrides: Any) -> Config:
    """`quick_test` with the densification window inside its own length, one frame a step, and a low cap.

    Args:
        iterations: length of the run.
        overrides: settings that replace these.

    Raises:
        InputError: fewer than 40 iterations, too few for densification steps.
    """
    if iterations < 40:
        raise InputError("at least 40 iterations", str(iterations), "Choose a few hundred.")
    n = iterations
    settings = {"preset": "growth lesson", "iterations": n, "batch_size": 1, "coarse_iterations": n // 2,
                "densify_from_iter": n // 4, "densify_until_iter": 3 * n // 4, "densification_interval": n // 20,
                "max_points": LESSON_POINTS, "checkpoint_interval": n, "eval_interval": n // 8,
                "torso_steps": LESSON_TORSO}
    return load_config("quick_test", **{**settings, **overrides})


def lesson_run(run: Run, iterations: int = LESSON_ITERATIONS) -> Run:
    """A short run that is densified, on the dataset of `run`; kept in that run's folder and trained only once.

    Raises:
        InputError: too few iterations.
        DatasetError: the dataset of `run` is missing or was changed.
    """
    return train(run.dataset, lesson_config(iterations), run.root / f"lesson_{iterations}")


def growing_run(run: Run, iterations: int = LESSON_ITERATIONS) -> Run:
    """The run itself if it grew, else a short lesson run on its dataset."""
    return run if grew(run) else lesson_run(run, iterations)


# ---- cloned, split, pruned ----

def start_count(run: Run) -> int:
    """The number of Gaussians before the first densification step."""
    for r in run.metrics("densify"):
        return r["points"] - r["cloned"] - r["split"] + r["pruned"]
    return len(run.dataset.mean_face)


def gaussian_counts(run: Run) -> tuple[list[int], list[int]]:
    """Iterations, and the number of Gaussians from each on: the start, each densification step, the newest row."""
    steps = [(0, start_count(run))] + [(r["iteration"], r["points"]) for r in run.metrics("densify")]
    last = max((r["iteration"] for r in run.metrics("train")), default=0)
    steps.append((max(last, steps[-1][0]), steps[-1][1]))
    return [i for i, _ in steps], [n for _, n in steps]


def count_balance(run: Run) -> Table:
    """Origin of the Gaussians of the newest checkpoint: start + added - removed, beside the checkpoint's own count."""
    done = [r for r in run.metrics("densify") if r["iteration"] <= run.pick()]
    cloned, split, pruned = (sum(r[k] for r in done) for k in ("cloned", "split", "pruned"))
    rows = [("at the start", start_count(run), "one for each landmark"),
            ("cloned", cloned, "a copy of each small Gaussian"),
            ("added by splitting", 2 * split, "two smaller ones for each large Gaussian"),
            ("replaced by splitting", -split, "the large Gaussians that were split"),
            ("pruned", -pruned, f"opacity below {run.config.opacity_threshold:g}")]
    rows.append(("sum", sum(r[1] for r in rows), "all lines above"))
    rows.append(("in the checkpoint", len(run.added_at()), f"iteration {run.pick()}"))
    return Table(("Gaussians", "number", ""), rows, f"Gaussians added to and removed from '{run.root.name}'")


def count_by_region(run: Run) -> Table:
    """Gaussians by region of the face: at the start, added in all densification steps, and in the newest checkpoint.

    Added ones are counted where they were added, those of the checkpoint where they are now.
    """
    mean_face = torch.from_numpy(run.dataset.mean_face)
    gaussians = run.load_head(device="cpu").gaussians
    start = torch.bincount(region_of(mean_face, mean_face), minlength=len(REGIONS))
    now = torch.bincount(region_of(gaussians["means"], mean_face), minlength=len(REGIONS))
    added = {name: sum(r["births"][name] for r in run.metrics("densify")) for name in REGIONS}
    rows = [(name, int(start[k]), added[name], int(now[k])) for k, name in enumerate(REGIONS)]
    return Table(("region", "at the start", "added", "now"), rows, f"Gaussians of '{run.root.name}' by region")


def stages(run: Run) -> dict[str, dict[str, Tensor]]:
    """Raw Gaussians (see `make_gaussians`) at the start, after the coarse stage and at the end, as far as trained."""
    ds, c, have = run.dataset, run.config, run.iterations
    start = make_gaussians(torch.from_numpy(ds.mean_face), torch.zeros(len(ds.mean_face), 3), c.sh_degree)
    found = {"start": {k: v.detach() for k, v in start.items()}}
    for number in [i for i in have if i == c.coarse_iterations] + have[-1:]:
        name = f"after coarse ({number})" if number == c.coarse_iterations else f"end ({number})"
        found[name] = {k: v.detach() for k, v in run.load_head(number, "cpu").gaussians.items()}
    return found


def size_px(scales: Tensor | np.ndarray, ds: Dataset) -> np.ndarray:
    """Standard deviation of Gaussians, geometric mean of the three axes, in px at the head's mean distance.

    Args:
        scales: [N, 3] logarithms of the standard deviations, head units.
        ds: gives focal length and distance.

    Returns:
        [N] px.
    """
    distance = float(np.linalg.norm(ds.w2c[:, :3, 3], axis=1).mean())
    return np.exp(np.asarray(scales).mean(1)) * ds.focal / distance


# ---- what a densification step does, and would do ----

@dataclass(frozen=True)
class DensificationPreview:
    """Counts of one densification step at a threshold and a cap.

    Attributes:
        threshold: image-plane gradient per half image size.
        cap: on the number of Gaussians.
        above: Gaussians whose gradient exceeds the threshold.
        cloned, split: Gaussians that are cloned, and that are split.
        held: Gaussians above the threshold that the cap excludes.
        pruned: Gaussians below the opacity threshold after cloning and splitting.
        points: number of Gaussians after the step.
    """

    threshold: float
    cap: int
    above: int
    cloned: int
    split: int
    held: int
    pruned: int
    points: int


def preview(snapshot: Snapshot, cfg: Config, threshold: Optional[float] = None,
            cap: Optional[int] = None) -> DensificationPreview:
    """Count what a densification step would do to the Gaussians of a snapshot, by the rules of `Densifier`.

    Args:
        snapshot: the Gaussians and their gradients before the step.
        cfg: of the run.
        threshold: image-plane gradient per half image size; default: the configuration's.
        cap: on the number of Gaussians; default: the configuration's `max_points`.
    """
    threshold = threshold_at(cfg, snapshot.iteration) if threshold is None else threshold
    cap = cfg.max_points if cap is None else cap
    gradients, faint = torch.from_numpy(snapshot.gradient), torch.from_numpy(snapshot.opacity) < cfg.opacity_threshold
    total, grows = int((gradients > threshold).sum()), to_grow(gradients, threshold, cap)
    clones = is_small(torch.from_numpy(snapshot.scales)) & grows
    cloned, split = int(clones.sum()), int((grows & ~clones).sum())
    pruned = int(faint.sum() + (faint & grows).sum())  # copies have the opacity of their originals
    points = len(snapshot) + cloned + split - pruned
    return DensificationPreview(threshold, cap, above=total, cloned=cloned, split=split, held=total - cloned - split,
                                pruned=pruned, points=points)


def recorded_steps(run: Run) -> list[int]:
    """Densification steps (iterations) for which the run has a snapshot, taken just before the step."""
    done = {r["iteration"] for r in run.metrics("densify")}
    return [i for i in run.snapshots if i in done]


def steps_with_gradients(run: Run) -> list[int]:
    """Iterations of the snapshots that hold gradients: those of densification steps, or without any, all others."""
    return recorded_steps(run) or [i for i in run.snapshots if run.snapshot(i).gradient.any()]


def recount(run: Run) -> Table:
    """Densification steps counted again from their snapshots at the run's own settings, beside the logged counts."""
    logged, rows = {r["iteration"]: r for r in run.metrics("densify")}, []
    for i in recorded_steps(run):
        again, row = preview(run.snapshot(i), run.config), logged[i]
        pairs = [(getattr(again, k), row[k]) for k in ("cloned", "split", "pruned", "points")]
        rows.append((i, threshold_at(run.config, i), *[a if a == b else f"{a}, not {b}" for a, b in pairs],
                     all(a == b for a, b in pairs)))
    return Table(("iteration", "threshold", "cloned", "split", "pruned", "Gaussians after", "as logged"), rows,
                 f"Densification steps of '{run.root.name}', counted again from its snapshots")


def settings_to_try(run: Run, iteration: int) -> dict[str, float]:
    """Thresholds to compare: the run's own at this iteration, and those of two presets."""
    named = {name: threshold_at(load_config(name), iteration) for name in ("quick_test", "production")}
    return {"this run": threshold_at(run.config, iteration), **named}


def what_if(run: Run, iteration: int, threshold: Optional[float] = None, cap: Optional[int] = None) -> Table:
    """What the densification step of an iteration would have done at other thresholds, one row each.

    Args:
        run: the run.
        iteration: of the snapshot.
        threshold: one more to compare, listed as "your line".
        cap: on the number of Gaussians; default: the run's `max_points`.

    Raises:
        DatasetError: no snapshot of that iteration.
    """
    named, now = settings_to_try(run, iteration), run.snapshot(iteration)
    if threshold is not None:
        named["your line"] = threshold
    rows = []
    for name, value in named.items():
        o = preview(now, run.config, value, cap)
        rows.append((name, f"{value:.2g}", o.above, o.cloned, o.split, o.held, len(now) - o.above, o.pruned, o.points))
    return Table(("setting", "threshold", "above it", "cloned", "split", "excluded by the cap", "unchanged", "pruned",
                  "Gaussians after"), rows,
                 f"{len(now)} Gaussians at iteration {iteration}, cap {run.config.max_points if cap is None else cap}")


def by_region(run: Run) -> dict[str, np.ndarray]:
    """Counts of each densification step by region of the face: kind (see `KIND_LABELS`) -> [steps, regions] int.

    Raises:
        DatasetError: there was no densification step.
    """
    done = run.metrics("densify")
    if not done:
        raise DatasetError("a run with densification steps", explain_growth(run),
                           "Use nb.growth.lesson_run(run) for one that grows.")
    return {kind: np.array([[r["by_region"][kind][name] for name in REGIONS] for r in done]) for kind in KIND_LABELS}
