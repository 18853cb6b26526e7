"""The runs that a sweep file asks for: every combination of datasets and parameters, each with a name of its own."""
from __future__ import annotations

import glob
import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from ..config import load_config
from ..core.errors import InputError
from ..core.files import shortened
from ..core.reading import digest, shown
from ..data.dataset import load_dataset
from ..training.run import FREE_SETTINGS
from .parameters import check_parameters
from .storage import is_remote

PREPARE = "prepare-"          # prefix of the runs that make datasets of `videos`
PREPARED_WITH = "size", "encoder", "features"
FILLED_IN = "run", "out"      # parameters that the sweep itself gives to each run
MAX_RUNS = 100_000
MAX_NAME = 60                 # characters of the readable part of a run's name
HASH_DIGITS = 10


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


def listed(given: dict[str, Any], key: str, path: Path) -> list[str]:
    value = given.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise InputError(f"'{key}' as a list of names in '{shortened(path)}'", shown(value), "Put each after a dash.")
    return value


# ---- datasets ----

@dataclass(frozen=True)
class DataSource:
    """A dataset of the sweep: its place, what the results depend on (content of a folder, address of a remote one,
    the video that it will be made of), and the run that makes it or ""."""

    place: str = ""
    identity: str = ""
    after: str = ""


def find_datasets(given: dict[str, Any], path: Path) -> tuple[list[PlannedRun], list[DataSource]]:
    """The runs that prepare videos, and all datasets."""
    prepared, found = [], []
    base = {key: value for key, value in mapping(given, "base", path).items() if key in PREPARED_WITH}
    for video in _expanded(listed(given, "videos", path), path, "videos"):
        if not video.is_file():
            raise InputError(f"a video at '{shortened(video)}'", "no such file", "Correct `videos` in the sweep file.")
        stem = re.sub(r"[^\w.-]+", "_", video.stem)
        run = PlannedRun(f"{PREPARE}{stem}-{_hash([digest(video), base])}", {"video": str(video), **base})
        prepared.append(run)
        found.append(DataSource(stem, run.id, run.id))
    for name in listed(given, "datasets", path):
        if is_remote(name):
            found.append(DataSource(name, name))
        else:
            folders = _expanded([name], path, "datasets")
            found += [DataSource(str(folder), load_dataset(folder).hash) for folder in folders]
    return prepared, found or [DataSource()]


def _expanded(names: list[str], path: Path, key: str) -> list[Path]:
    """Absolute paths; names with `*` stand for all that fit, hidden ones apart."""
    found: list[Path] = []
    for name in names:
        fitting = sorted(glob.glob(str(path.parent / name))) if "*" in name else [path.parent / name]
        if not fitting:
            raise InputError(f"something that `{key}` '{shortened(name)}' fits", "nothing", "Correct the pattern.")
        found += [Path(place).resolve() for place in fitting]
    return found


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:HASH_DIGITS]


# ---- parameters ----

def combinations(given: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Parameters of each run by dotted name, without the dataset."""
    base, grid = (mapping(given, key, path) for key in ("base", "grid"))
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"values of '{key}' in the grid as a list", shown(values), "Write [one, two].")
    entries = given.get("list") or [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"'list' as a list of parameters in '{shortened(path)}'", shown(entries), "See docs/scale.md.")
    seeds = given.get("seeds") or [None]
    if not isinstance(seeds, list) or not all(seed is None or type(seed) is int for seed in seeds):
        raise InputError("'seeds' as a list of whole numbers", shown(seeds), "For instance: seeds: [0, 1, 2]")
    drawn = _drawn(mapping(given, "sample", path), path)
    combined = int(np.prod([len(values) for values in grid.values()], dtype=float))
    total = len(entries) * len(drawn) * len(seeds) * combined
    if total > MAX_RUNS:
        raise InputError(f"at most {MAX_RUNS:,} runs", f"{total:,} in '{shortened(path)}'", "Make the grid smaller.")
    for entry, draw, *values in itertools.product(entries, drawn, *grid.values()):
        for seed in seeds:
            chosen = {**base, **entry, **draw, **dict(zip(grid, values))}
            yield chosen if seed is None else {**chosen, "overrides.seed": seed}


def mapping(given: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
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


def plan_run(chosen: dict[str, Any], data: DataSource, path: Path, declared: dict[Path, dict[str, str]]) -> PlannedRun:
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
    except TypeError as error:
        raise InputError("overrides as 'setting: value'", shown(overrides), "Check their names.") from error
    settings = {key: value for key, value in config.to_dict().items() if key not in FREE_SETTINGS}
    return {**parameters, "config": str(name)}, config.iterations, settings


def with_varied(runs: list[PlannedRun]) -> list[PlannedRun]:
    """The same runs; of their parameters only those that differ between them are left in `varied`."""
    names = list(dict.fromkeys(name for run in runs for name in run.varied))
    differing = [name for name in names if len({_hash(run.varied.get(name)) for run in runs}) > 1]
    return [replace(run, varied={name: run.varied.get(name) for name in differing}) for run in runs]
