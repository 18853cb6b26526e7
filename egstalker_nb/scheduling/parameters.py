"""Reading notebooks, and the parameters that they declare."""
from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Union

from ..core.errors import InputError, first_line, require_package
from ..core.files import shortened
from ..core.reading import Unreadable, read_text, shown

MAX_BYTES = 512 << 20  # of a notebook; an executed one with embedded videos has some 20 MB
#: names in the type of a declared parameter -> the types of its values; a type with other names accepts any value
KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "list": (list, tuple), "dict": (dict,),
    "Optional": (type(None),), "Union": ()}


def read_notebook(path: Path) -> Any:
    """A notebook, of any format that Jupyter has had.

    Raises:
        InputError: missing, too large, or not a valid notebook; the message names it.
    """
    import nbformat

    invalid: dict[str, Exception] = {}
    try:
        notebook = nbformat.reads(read_text(path, MAX_BYTES), as_version=4, capture_validation_error=invalid)
        if not invalid:
            return notebook
        cause: Exception = invalid["ValidationError"]
    except Unreadable as error:
        raise InputError("a notebook", str(error), "Remove it, or make it again.") from error
    except Exception as error:  # JSON, nesting, formats: nbformat has no common error
        cause = error
    raise InputError("a notebook as Jupyter saves it", f"'{shortened(path)}', which cannot be read "
                     f"({type(cause).__name__}: {first_line(cause, 100)})", "Remove it, or make it again.") from cause


def plan_notebooks(paths: list[Path], values: dict[str, Any], extra: dict[str, Any]
                   ) -> list[tuple[Path, dict[str, Any]]]:
    """Each notebook with the values of those parameters that its `parameters` cell declares.

    Args:
        paths: of the notebooks.
        values: parameters of the run by name.
        extra: the same, given by the user: each must be declared by a notebook, and of the declared type.

    Raises:
        InputError: a damaged notebook, an undeclared parameter, or a value of another type.
        MissingPackageError: without Papermill.
    """
    declared = declared_parameters(paths)
    check_parameters(declared, extra)
    values = {**values, **extra}
    return [(path, {key: values[key] for key in values if key in names}) for path, names in declared.items()]


def declared_parameters(paths: list[Path]) -> dict[Path, dict[str, str]]:
    """Of each notebook, name -> type of the parameters that its `parameters` cell declares; "None": any type.

    Raises:
        InputError: a damaged notebook.
        MissingPackageError: without Papermill.
    """
    require_package("papermill", "papermill, which runs notebooks headless", "pip install 'egstalker-nb[notebooks]'")
    return {path: _declared(path) for path in paths}


def check_parameters(declared: dict[Path, dict[str, str]], given: dict[str, Any]) -> None:
    """Raise an InputError where a parameter is not declared by any notebook, or has a value of another type."""
    known = {name for types in declared.values() for name in types}
    unknown = sorted(set(given) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1, 0.7)
        raise InputError(f"parameters that the notebooks declare ({', '.join(sorted(known))})",
                         shortened(", ".join(unknown)), f"Did you mean '{near[0]}'?" if near else "Check the spelling.")
    for name, value in given.items():
        for path, types in declared.items():
            if name in types and not _fits(value, types[name]):
                raise InputError(f"{name} of type {types[name]}, as notebook {path.stem} declares it",
                                 f"{shown(value)}, which is {type(value).__name__}", "Give a value of that type.")


def _declared(path: Path) -> dict[str, str]:
    import papermill

    read_notebook(path)
    try:
        return {name: str(found["inferred_type_name"]) for name, found in
                papermill.inspect_notebook(verbatim(path)).items()}
    except Exception as error:  # papermill raises many kinds
        raise InputError("a notebook with a Python kernel and a parameters cell",
                         f"'{shortened(path)}' ({first_line(error)})", "Save it again in Jupyter.") from error


def _fits(value: Any, declared: str) -> bool:
    """Whether a value is of a declared type, such as `Optional[str]`."""
    names = re.findall(r"\w+", declared)
    if declared == "None" or not set(names) <= set(KINDS):
        return True
    return isinstance(value, tuple(kind for name in names for kind in KINDS[name])) and (
        not isinstance(value, bool) or "bool" in names)


def verbatim(path: Union[str, Path]) -> str:
    """A path for Papermill, which takes braces in it for the names of parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")
