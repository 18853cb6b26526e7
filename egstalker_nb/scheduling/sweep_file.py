"""A sweep as a small YAML file, and the runs that it asks for."""
from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Optional, cast

import yaml

from ..core.errors import InputError
from ..core.files import shortened
from ..core.kit_files import NOTEBOOK_DIR
from ..core.reading import Unreadable, read_yaml, shown
from .parameters import declared_parameters
from .planning import PREPARE, PlannedRun, combinations, find_datasets, listed, plan_run, with_varied
from .storage import is_remote

MAX_BYTES = 4 << 20           # of a sweep file: 10,000 datasets by name have 0.4 MB
DEFAULT_NOTEBOOKS = ["08_train_and_score"]
PREPARATION = "01_data_prep"  # the notebook that makes datasets of `videos`
#: scores of which less is better
LESS_IS_BETTER = ("lmd_", "seam", "seconds", "points", "loss")


@dataclass(frozen=True)
class Resources:
    """What one run reserves while it runs.

    Attributes:
        cpu: cores; a run uses as many threads.
        gpu: GPUs, or a share of one (0.5: two runs share a card); None: one where there is any, else none; 0 hides
            them.
        memory: GB; None: not reserved.
    """

    cpu: float = 1.0
    gpu: Optional[float] = None
    memory: Optional[float] = None


@dataclass(frozen=True)
class Halving:
    """Successive halving: at each rung, runs that are not among the best so far end early.

    Attributes:
        first: iteration of the first rung; at least this far every run gets.
        reduction: one in this many runs goes on from rung to rung, each of which is as many times as far.
        metric: of the evaluations during training (`val_psnr`).
    """

    first: int = 1000
    reduction: int = 3
    metric: str = "val_psnr"


@dataclass(frozen=True)
class Criterion:
    """What makes a run the best.

    Attributes:
        metric: name of a score.
        mode: whether the highest or the lowest is best; by default the usual one of the score.
    """

    metric: str = "val_psnr"
    mode: Literal["max", "min", ""] = ""

    @property
    def highest(self) -> bool:
        return (self.mode or ("min" if self.metric.startswith(LESS_IS_BETTER) else "max")) == "max"

    def __str__(self) -> str:
        return f"{'highest' if self.highest else 'lowest'} {self.metric}"


@dataclass(frozen=True)
class SweepFile:
    """A sweep file that was read and checked.

    Attributes:
        path: of the file.
        name: of the sweep.
        notebooks: of each run, in order.
        declared: notebook -> name -> type of its parameters.
        runs: all of them, in the order of the file; those that prepare videos first.
        resources, halving, best: see there.
        retries: how often a run that failed is started again in the same call.
        text: of the file, with absolute paths, so that it can be read elsewhere.
    """

    path: Path
    name: str
    notebooks: list[Path]
    declared: dict[Path, dict[str, str]]
    runs: list[PlannedRun]
    resources: Resources
    retries: int
    halving: Optional[Halving]
    best: Criterion
    text: str

    def notebooks_of(self, run: PlannedRun) -> list[Path]:
        """Those that a run executes."""
        return [_notebook(PREPARATION, self.path)] if run.id.startswith(PREPARE) else self.notebooks


KEYS = ("name", "notebooks", "datasets", "videos", "base", "grid", "list", "sample", "seeds", "resources", "retries",
        "halving", "best")


def read_sweep_file(path: str | Path) -> SweepFile:
    """Read and check a sweep file. Paths in it are relative to it.

    Args:
        path: a YAML file with these keys, all optional: `name`; `notebooks`, names of the kit's or paths; `datasets`,
            folders, patterns of them (`data/*`) or addresses (s3://, gs://); `videos`, which are prepared first;
            `base`, parameters of all runs; `grid`, parameter -> values, every combination; `list` of parameters, one
            run each; `sample`, `count` random draws of parameter -> list of values or {low, high, log}; `seeds`;
            `resources`; `retries`; `halving`; `best`, the criterion. A dotted parameter is an entry of a dictionary:
            `overrides.batch_size`.

    Raises:
        InputError: not such a file, unknown keys or parameters, values of another type, runs that are the same.
        ConfigError: settings of a run contradict each other.
        DatasetError: a dataset is missing or damaged.
    """
    path = Path(path)
    try:
        given = read_yaml(path, MAX_BYTES)
    except Unreadable as error:
        raise InputError("a sweep as a YAML file", str(error), "Correct it, see docs/scale.md for examples.") from error
    _check_keys(given, KEYS, path)
    notebooks = [_notebook(name, path) for name in listed(given, "notebooks", path) or DEFAULT_NOTEBOOKS]
    declared = declared_parameters(notebooks)
    prepared, datasets = find_datasets(given, path)
    runs = [plan_run(parameters, dataset, path, declared)
            for dataset in datasets for parameters in combinations(given, path)]
    (double, count), = Counter(run.id for run in runs).most_common(1)
    if count > 1:
        raise InputError(f"runs that differ in '{shortened(path)}'", f"'{double}' {count} times",
                         "Remove what is there twice from the file.")
    name = str(given.get("name") or path.stem)
    if not re.fullmatch(r"[\w.+-]{1,80}", name) or name.startswith("."):
        raise InputError("a name of letters, digits, . + - and _", shown(name), "Choose another `name`.")
    retries = given.get("retries", 0)
    if not isinstance(retries, int) or not 0 <= retries <= 100:
        raise InputError("retries from 0 to 100", shown(retries), "Correct it in the sweep file.")
    halving = _section(given, "halving", Halving, path) if "halving" in given else None
    if halving and not (halving.first >= 1 and halving.reduction >= 2):
        raise InputError("halving with first >= 1 and reduction >= 2", shown(given["halving"]), "Correct the two.")
    return SweepFile(path.resolve(), name, notebooks, declared, [*prepared, *with_varied(runs)],
                     _resources(given, path), retries, halving, _criterion(given, path),
                     yaml.safe_dump(_absolute({**given, "name": name}, path.parent.resolve()), sort_keys=False))


def _absolute(value: Any, folder: Path, surely: bool = False) -> Any:
    """The content of a sweep file with absolute paths in place of those that exist beside it; `surely`: those of
    datasets and videos, whose names may look like any other word."""
    if isinstance(value, dict):
        return {key: _absolute(part, folder, key in ("datasets", "videos")) for key, part in value.items()}
    if isinstance(value, list):
        return [_absolute(part, folder, surely) for part in value]
    if isinstance(value, str) and "*" in value and not is_remote(value):
        return str(folder / value)
    is_path = isinstance(value, str) and (surely or "/" in value or "." in value) and not is_remote(value)
    return str((folder / value).resolve()) if is_path and (folder / value).exists() else value


def _check_keys(given: Any, known: tuple[str, ...], path: Path, what: str = "keys of a sweep file") -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key)[:50], known, 1, 0.6)
            raise InputError(f"{what} ({', '.join(known)}) in '{shortened(path)}'", shown(key),
                             f"Did you mean '{near[0]}'?" if near else "Check the spelling.")


def _section(given: dict[str, Any], key: str, kind: Any, path: Path) -> Any:
    """A dictionary of the file as a dataclass, its numbers checked against the types of the defaults."""
    value = given.get(key) or {}
    names = tuple(f.name for f in fields(kind))
    if not isinstance(value, dict):
        raise InputError(f"'{key}' as entries {', '.join(names)} in '{shortened(path)}'", shown(value), "Indent them.")
    _check_keys(value, names, path, f"entries of {key}")
    for f in fields(kind):
        found = value.get(f.name)
        numeric = f.default is None or isinstance(f.default, (int, float))
        right = (int, float) if f.default is None or isinstance(f.default, float) else type(f.default)
        if f.name in value and (not isinstance(found, right) or isinstance(found, bool) or (
                numeric and not 0 <= cast(float, found) < 1e9)):
            raise InputError(f"{key}: {f.name} as a {'number of at least 0' if numeric else 'name'}", shown(found),
                             "Correct it in the sweep file.")
    return kind(**value)


def _resources(given: dict[str, Any], path: Path) -> Resources:
    found: Resources = _section(given, "resources", Resources, path)
    if found.cpu < 0.01 or (found.gpu or 0) > 1 and found.gpu != int(found.gpu or 0):
        raise InputError("resources with some cpu, and gpu as a share below 1 or a whole number",
                         shown(asdict(found)), "For two runs on one card: gpu: 0.5")
    return found


def _criterion(given: dict[str, Any], path: Path) -> Criterion:
    if isinstance(given.get("best"), str):
        return Criterion(given["best"])
    found: Criterion = _section(given, "best", Criterion, path)
    if found.mode not in ("max", "min", ""):
        raise InputError("best: mode as max or min", shown(found.mode), "Choose one.")
    return found


def _notebook(name: str, path: Path) -> Path:
    """A notebook of the kit by its name, or any other by its path as seen from the sweep file."""
    known = NOTEBOOK_DIR / f"{name}.ipynb"
    found = known if known.is_file() else (path.parent / name).resolve()
    if not found.is_file():
        names = sorted(p.stem for p in NOTEBOOK_DIR.glob("*.ipynb"))
        near = difflib.get_close_matches(name, names, 1, 0.5)
        raise InputError(f"a notebook of the kit ({', '.join(names)}) or the path of one", f"'{shortened(name)}'",
                         f"Did you mean '{near[0]}'?" if near else "Check the path.")
    return found
