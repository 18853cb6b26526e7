"""Upstream `arguments/*.py` files, read as literals: parsed, never executed."""
from __future__ import annotations

import ast
import math
import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

from ..config import FIELDS, PRESETS, Config, densification_steps, load_config, problems_of
from ..core.errors import ConfigError, first_line
from ..core.files import shortened
from ..core.reading import MAX_YAML_BYTES, Unreadable, read_text, read_yaml, shown
from ..core.table import Table
from .setting_verdicts import RENAMED, SettingVerdict, verdict

OPERATORS: dict[type, Any] = {ast.Mult: operator.mul, ast.Add: operator.add, ast.Sub: operator.sub}
MAX_NUMBER = 1e12  # a number beyond this is no setting
MAX_NESTING = 20   # of lists, dictionaries and sums
FIX = "Write settings as ModelHiddenParams = dict(name=1, ...), with literals only."
KINDS = {ast.Import: "an import", ast.ImportFrom: "an import", ast.ClassDef: "a class", ast.FunctionDef: "a function",
         ast.Call: "a call", ast.Name: "a name whose value is not in the file"}
#: preset -> the upstream file that it comes from
UPSTREAM_FILES = {"quick_test": "args.py, the quick test", "extended_test": "args.py with 20,000 iterations",
                  "production": "args_original.py, the original defaults; its method is in egstalker_paper",
                  "args_default": "args_default.py, the incomplete one"}
#: settings that tell those files apart
SIGNATURE = ("coarse_iterations", "densify_from_iter", "densify_until_iter", "batch_size",
             "densify_grad_threshold_coarse", "iterations", "input_coordinate_dim", "net_width")


@dataclass
class UpstreamArguments:
    """Settings of an upstream file: of all its groups in `settings`; `lines` says where each stands."""

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def verdicts(self) -> dict[str, SettingVerdict]:
        """Upstream name -> what becomes of it here."""
        return {name: verdict(name, self.settings) for name in self.settings}

    def overrides(self) -> dict[str, Any]:
        """The settings here that the file sets, under our names; unchecked."""
        return {name: value for found in self.verdicts().values() for name, value in found.sets.items()}

    def nearest(self) -> tuple[str, list[str]]:
        """The preset that it resembles most, and the settings of `SIGNATURE` that differ; what the file leaves open is
        taken from `production`, whose values are upstream's defaults."""
        ours, given = load_config("production").to_dict(), self.overrides()
        differing = {}
        for name in UPSTREAM_FILES:
            preset = _raw_preset(name).to_dict()
            differing[name] = [key for key in SIGNATURE if given.get(key, ours[key]) != preset[key]]
        name = min(differing, key=lambda name: len(differing[name]))
        return name, differing[name]

    def problems(self) -> list[str]:
        """What is inconsistent in it, in plain sentences; empty if nothing is. Densification that never takes place is
        named too, although such a configuration trains."""
        found = problems_of(self.overrides())
        if not found and not densification_steps(self.config()):
            found.append("no densification step takes place before training ends: the head stays at 478 Gaussians")
        return found

    def table(self) -> Table:
        """Each setting: its line, theirs, that of the nearest preset, and what becomes of it here."""
        name, differing = self.nearest()
        preset = _raw_preset(name)
        rows = [(shortened(key), self.lines[key], _cell(value),
                 getattr(preset, RENAMED.get(key, key), None), self.verdicts()[key].text)
                for key, value in self.settings.items()]
        caption = (f"{shortened(self.path.name)} resembles the preset {name} (upstream's {UPSTREAM_FILES[name]}); "
                   + (f"it differs in {', '.join(differing)}" if differing else "their schedules are the same"))
        return Table(("setting", "line", "theirs", name, "here"), rows, caption)

    def config(self) -> Config:
        """The settings that exist here, over those of `production`, as a configuration that trains.

        Raises:
            ConfigError: a setting out of range, or settings that contradict each other; all are listed.
        """
        stem = self.path.stem
        try:
            return load_config("production", preset=stem if stem.isprintable() else "custom", **self.overrides())
        except ConfigError as error:
            raise ConfigError(f"a consistent configuration from '{shortened(self.path)}'", error.found,
                              error.fix) from error


def read_arguments(path: str | Path) -> UpstreamArguments:
    """Read the groups `Name = dict(...)` of an upstream file; `_base_` is kept as a setting and not followed.

    Args:
        path: the file that `train.py --configs` was given. Docstrings and comments are ignored.

    Raises:
        ConfigError: a file that cannot be read or parsed, a value that is no literal, or a setting given twice; with
            file and line.
    """
    found = UpstreamArguments(Path(path))
    try:
        body = ast.parse(read_text(found.path, MAX_YAML_BYTES)).body
    except Unreadable as error:
        raise ConfigError("an upstream arguments file", str(error), FIX) from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}: not Python" if line else f": {first_line(error)}"
        raise ConfigError("an upstream arguments file", shortened(found.path.name) + where, FIX) from error
    for name, node in _settings(body, found.path):
        if name in found.settings:
            raise ConfigError("each setting once", f"{shortened(found.path.name)}, line {node.lineno}: "
                              f"'{shortened(name)}' again, after line {found.lines[name]}", "Remove one of the two.")
        found.settings[name], found.lines[name] = _literal(node, found.path), node.lineno
    if not found.settings:
        raise ConfigError("an upstream arguments file", f"{shortened(found.path.name)}: no settings", FIX)
    return found


def _settings(body: list[ast.stmt], path: Path) -> Iterator[tuple[str, ast.expr]]:
    """Name and value of each setting, in the order of the file."""
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str):
            continue  # a docstring
        if not isinstance(statement, ast.Assign) or len(statement.targets) > 1 or not isinstance(
                statement.targets[0], ast.Name):
            raise _wrong(path, statement)
        group = statement.value
        if not (_is_dict_call(group) or isinstance(group, ast.Dict)):
            yield statement.targets[0].id, group
            continue
        for key, node in _pairs(group, path):
            if not isinstance(key, str):
                raise _wrong(path, node)
            yield key, node


def _is_dict_call(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict" and not node.args


def _pairs(node: ast.expr, path: Path, depth: int = 0) -> Iterator[tuple[Any, ast.expr]]:
    """Keys and values of `dict(...)` or `{...}`."""
    if isinstance(node, ast.Call):
        pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
    else:
        assert isinstance(node, ast.Dict)
        pairs = [(key if key is None else _literal(key, path, depth + 1), value)
                 for key, value in zip(node.keys, node.values)]
    for key, value in pairs:
        if key is None or isinstance(key, (list, dict)):  # **other, or no key that Python takes
            raise _wrong(path, value)
        yield key, value


def _literal(node: ast.expr, path: Path, depth: int = 0) -> Any:
    """The value of a literal, or of a sum, difference or product of numbers."""
    if depth > MAX_NESTING:
        raise _wrong(path, node)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _literal(node.left, path, depth + 1), _literal(node.right, path, depth + 1)
        if all(type(value) in (int, float) for value in (left, right)):
            return _within_limits(OPERATORS[type(node.op)](left, right), path, node)
        raise _wrong(path, node)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item, path, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict) or _is_dict_call(node):
        return {key: _literal(value, path, depth + 1) for key, value in _pairs(node, path, depth)}
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise _wrong(path, node) from error
    return _within_limits(value, path, node)


def _within_limits(value: Any, path: Path, node: ast.expr) -> Any:
    """A value that a setting may have: text, None, a truth value, or a finite number of ordinary size."""
    if isinstance(value, (str, bool, type(None))):
        return value
    if type(value) in (int, float) and abs(value) <= MAX_NUMBER and math.isfinite(value):
        return value
    raise _wrong(path, node, "a number out of range" if type(value) in (int, float) else "something else")


def _wrong(path: Path, node: ast.stmt | ast.expr, what: str = "") -> ConfigError:
    thing = node.value if isinstance(node, ast.Expr) else node
    what = what or KINDS.get(type(thing), "something else")
    fix = ("Give the file that train.py had after --configs; the schedule of upstream's arguments/__init__.py is "
           "that of 'production'." if what in ("a class", "an import", "a function") else FIX)
    return ConfigError("settings that are literals", f"{shortened(path.name)}, line {node.lineno}: {what}", fix)


def _cell(value: Any) -> Any:
    """A value for a column that stays narrow."""
    text = shown(value)
    return value if isinstance(value, (int, float)) else text if len(text) <= 40 else f"{text[:37]}..."


def _raw_preset(name: str) -> Config:
    """A preset, also one that does not load."""
    return Config(**{key: value for key, value in read_yaml(PRESETS / f"{name}.yaml").items() if key in FIELDS})
