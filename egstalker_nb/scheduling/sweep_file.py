"""A sweep as a small YAML file, and the runs that it asks for."""
from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Iterator, Literal, Optional, cast

import numpy as np
import yaml

from ..config import load_config
from ..core.errors import EgsError, InputError
from ..core.files import shortened
from ..core.reading import Unreadable, digest, read_yaml, shown
from ..data.dataset import load_dataset
from ..training.run import FREE_SETTINGS
from .parameters import check_parameters, declared_parameters
from .runner import NOTEBOOK_DIR
from .storage import is_remote

DEFAULT_NOTEBOOKS = ["08_train_and_score"]
PREPARATION = "01_data_prep"  # the notebook that makes datasets of `videos`
PREPARE = "prepare-"          # prefix of the runs that do
PREPARED_WITH = "size", "encoder", "features"
FILLED_IN = "run", "out"      # parameters that the sweep itself gives to each run
MAX_RUNS = 100_000
MAX_NAME = 60                 # characters of the readable part of a run's name
HASH_DIGITS = 10
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
class PlannedRun:
    """One run of a sweep.

    Attributes:
        id: readable words and a hash of all that decides the result: a changed parameter is another run.
        parameters: of the notebooks, as they declare them, without `dataset` and `run`.
        varied: those that not all runs share, by dotted name, for tables.
        dataset: folder or address; with `after`, only its name; "" if the notebooks need none.
        iterations: of the whole training; 0 if the notebooks do not train.
        after: the run that makes the dataset, or "".
    """

    id: str
    parameters: dict[str, Any]
    varied: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    iterations: int = 0
    after: str = ""


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
            folders or addresses (s3://, gs://); `videos`, which are prepared first; `base`, parameters of all runs;
            `grid`, parameter -> values, every combination; `list` of parameters, one run each; `sample`, `count` random
            draws of parameter -> list of values or {low, high, log}; `seeds`; `resources`; `retries`; `halving`;
            `best`, the criterion. A dotted parameter is an entry of a dictionary: `overrides.batch_size`.

    Raises:
        InputError: not such a file, unknown keys or parameters, values of another type, runs that are the same.
        ConfigError: settings of a run contradict each other.
        DatasetError: a dataset is missing or damaged.
    """
    path = Path(path)
    try:
        given = read_yaml(path)
    except Unreadable as error:
        raise InputError("a sweep as a YAML file", str(error), "Correct it, see docs/scale.md for examples.") from error
    _check_keys(given, KEYS, path)
    notebooks = [_notebook(name, path) for name in _listed(given, "notebooks", path) or DEFAULT_NOTEBOOKS]
    declared = declared_parameters(notebooks)
    prepared, datasets = _datasets(given, path)
    runs = [_planned(parameters, dataset, path, declared)
            for dataset in datasets for parameters in _combinations(given, path)]
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
    return SweepFile(path.resolve(), name, notebooks, declared, [*prepared, *_with_varied(runs)],
                     _resources(given, path), retries, halving, _criterion(given, path),
                     yaml.safe_dump(_absolute({**given, "name": name}, path.parent.resolve()), sort_keys=False))


def _absolute(value: Any, folder: Path) -> Any:
    """The content of a sweep file with absolute paths in place of those that exist beside it."""
    if isinstance(value, dict):
        return {key: _absolute(part, folder) for key, part in value.items()}
    if isinstance(value, list):
        return [_absolute(part, folder) for part in value]
    is_path = isinstance(value, str) and ("/" in value or "." in value) and not is_remote(value)
    return str((folder / value).resolve()) if is_path and (folder / value).exists() else value


def _check_keys(given: Any, known: tuple[str, ...], path: Path, what: str = "keys of a sweep file") -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key)[:50], known, 1, 0.6)
            raise InputError(f"{what} ({', '.join(known)}) in '{shortened(path)}'", shown(key),
                             f"Did you mean '{near[0]}'?" if near else "Check the spelling.")


def _listed(given: dict[str, Any], key: str, path: Path) -> list[str]:
    value = given.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise InputError(f"'{key}' as a list of names in '{shortened(path)}'", shown(value), "Put each after a dash.")
    return value


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


# ---- datasets ----

@dataclass(frozen=True)
class _Data:
    """A dataset of the sweep: its place, what the results depend on (content of a folder, address of a remote one,
    the video that it will be made of), and the run that makes it or ""."""

    place: str = ""
    identity: str = ""
    after: str = ""


def _datasets(given: dict[str, Any], path: Path) -> tuple[list[PlannedRun], list[_Data]]:
    """The runs that prepare videos, and all datasets."""
    prepared, found = [], []
    base = {key: value for key, value in _mapping(given, "base", path).items() if key in PREPARED_WITH}
    for name in _listed(given, "videos", path):
        video = (path.parent / name).resolve()
        if not video.is_file():
            raise InputError(f"a video at '{shortened(video)}'", "no such file", "Correct `videos` in the sweep file.")
        stem = re.sub(r"[^\w.-]+", "_", video.stem)
        run = PlannedRun(f"{PREPARE}{stem}-{_hash([digest(video), base])}", {"video": str(video), **base})
        prepared.append(run)
        found.append(_Data(stem, run.id, run.id))
    for name in _listed(given, "datasets", path):
        if is_remote(name):
            found.append(_Data(name, name))
        else:
            folder = (path.parent / name).resolve()
            found.append(_Data(str(folder), load_dataset(folder).hash))
    return prepared, found or [_Data()]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:HASH_DIGITS]


# ---- parameters ----

def _combinations(given: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Parameters of each run by dotted name, without the dataset."""
    base, grid = (_mapping(given, key, path) for key in ("base", "grid"))
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"values of '{key}' in the grid as a list", shown(values), "Write [one, two].")
    listed = given.get("list") or [{}]
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f"'list' as a list of parameters in '{shortened(path)}'", shown(listed), "See docs/scale.md.")
    seeds = given.get("seeds") or [None]
    if not isinstance(seeds, list) or not all(seed is None or type(seed) is int for seed in seeds):
        raise InputError("'seeds' as a list of whole numbers", shown(seeds), "For instance: seeds: [0, 1, 2]")
    drawn = _drawn(_mapping(given, "sample", path), path)
    total = len(listed) * len(drawn) * len(seeds) * int(np.prod([len(values) for values in grid.values()], dtype=float))
    if total > MAX_RUNS:
        raise InputError(f"at most {MAX_RUNS:,} runs", f"{total:,} in '{shortened(path)}'", "Make the grid smaller.")
    for entry, draw, *values in itertools.product(listed, drawn, *grid.values()):
        for seed in seeds:
            chosen = {**base, **entry, **draw, **dict(zip(grid, values))}
            yield chosen if seed is None else {**chosen, "overrides.seed": seed}


def _mapping(given: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InputError(f"'{key}' as entries 'parameter: value' in '{shortened(path)}'", shown(value), "Indent them.")
    return value


def _drawn(sample: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The random draws, the same for the same file."""
    if not sample:
        return [{}]
    ranges = {key: value for key, value in sample.items() if key not in ("count", "seed")}
    count, seed = sample.get("count", 0), sample.get("seed", 0)
    if type(count) is not int or not 1 <= count <= MAX_RUNS or type(seed) is not int or not ranges:
        raise InputError("'sample' with count, optionally seed, and parameters", shown(sample), "See docs/scale.md.")
    rng = np.random.default_rng(abs(seed))
    return [{key: _draw(rng, key, values) for key, values in ranges.items()} for _ in range(count)]


def _draw(rng: np.random.Generator, key: str, values: Any) -> Any:
    if isinstance(values, list) and values:
        return values[int(rng.integers(len(values)))]
    right = isinstance(values, dict) and set(values) <= {"low", "high", "log"} and {"low", "high"} <= set(values)
    numbers = [values["low"], values["high"]] if right else []
    if not numbers or not all(type(n) in (int, float) for n in numbers) or not numbers[0] < numbers[1] or (
            values.get("log") and numbers[0] <= 0):
        raise InputError(f"values of '{key}' in the sample as a list, or low < high, optionally log: true",
                         shown(values), "With log, low must be above 0.")
    low, high = numbers
    if values.get("log"):
        value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    else:
        value = float(rng.uniform(low, high))
    # four digits: names and tables stay readable
    return int(round(value)) if type(low) is int and type(high) is int else float(f"{value:.4g}")


def nested(dotted: dict[str, Any]) -> dict[str, Any]:
    """`{"overrides.seed": 1}` -> `{"overrides": {"seed": 1}}`; later entries add to earlier dictionaries."""
    found: dict[str, Any] = {}
    for name, value in dotted.items():
        first, *rest = name.split(".")
        if rest:
            at = found.setdefault(first, {})
            if not isinstance(at, dict) or len(rest) > 1:
                raise InputError("a dotted parameter as dictionary.entry", shown(name), "Check the spelling.")
            found[first] = {**at, rest[0]: value}
        else:
            found[first] = {**found.get(first, {}), **value} if isinstance(value, dict) else value
    return found


def _planned(chosen: dict[str, Any], data: _Data, path: Path, declared: dict[Path, dict[str, str]]) -> PlannedRun:
    """One run, all of it checked."""
    parameters = nested(chosen)
    known = {name for types in declared.values() for name in types}
    reserved = sorted(set(parameters) & {"dataset", *FILLED_IN})
    if reserved:
        raise InputError("datasets under `datasets`, and neither run nor out", f"the parameter {reserved[0]}",
                         "Each run gets its own folder.")
    if data.after:
        parameters = {name: value for name, value in parameters.items() if name not in PREPARED_WITH}
    check_parameters(declared, parameters)
    if "dataset" in known and not data.place:
        raise InputError(f"`datasets` or `videos` in '{shortened(path)}'", "none", "The notebooks need a dataset.")
    iterations, settings = 0, dict[str, Any]()
    words = [Path(data.place).name] if data.place else []
    if "config" in known:
        parameters, iterations, settings = _with_config(parameters, path)
        words += [Path(parameters["config"]).stem, f"seed{settings['seed']}"]
    identity = _hash({"notebooks": [p.stem for p in declared], "dataset": data.identity, "settings": settings,
                      "parameters": {k: v for k, v in parameters.items()
                                     if not settings or k not in ("config", "overrides")}})
    readable = re.sub(r"[^\w.+-]+", "_", "-".join(words))[:MAX_NAME].strip("-_.")
    varied = {**chosen, **({"dataset": Path(data.place).name} if data.place else {})}
    return PlannedRun(f"{readable}-{identity}".lstrip("-"), parameters, varied, data.place, iterations, data.after)


def _with_config(parameters: dict[str, Any], path: Path) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """The parameters with an absolute path of a configuration file, the iterations, and all settings that decide the
    result."""
    name, overrides = parameters.get("config", "production"), parameters.get("overrides") or {}
    beside = path.parent / str(name)
    if beside.is_file():
        name = str(beside.resolve())
    try:
        config = load_config(name, **overrides)
    except EgsError:
        raise
    except TypeError as error:
        raise InputError("overrides as 'setting: value'", shown(overrides), "Check their names.") from error
    settings = {key: value for key, value in config.to_dict().items() if key not in FREE_SETTINGS}
    return {**parameters, "config": str(name)}, config.iterations, settings


def _with_varied(runs: list[PlannedRun]) -> list[PlannedRun]:
    """The same runs; of their parameters only those that differ between them are left in `varied`."""
    names = list(dict.fromkeys(name for run in runs for name in run.varied))
    differing = [name for name in names if len({_hash(run.varied.get(name)) for run in runs}) > 1]
    return [replace(run, varied={name: run.varied.get(name) for name in differing}) for run in runs]
