"""Public names of a package, imported on first use, yet visible to completion and static checkers."""
from __future__ import annotations

import importlib
import sys
from typing import Any, Callable, Mapping, Sequence


def lazy_names(package: str, names: Mapping[str, str], modules: Sequence[str] = ()
               ) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package (PEP 562); an `if TYPE_CHECKING` block has the same names.

    Args:
        package: its `__name__`.
        names: public name -> module that defines it, relative to the package (`.core.errors`).
        modules: modules that are public themselves, relative to the package; their last part is the name.

    Returns:
        `__getattr__`, `__dir__`, `__all__`.
    """
    places = {path.rpartition(".")[2]: path for path in modules}
    public = [*names, *places]

    def getattribute(name: str) -> Any:
        if name in names:
            value = getattr(importlib.import_module(names[name], package), name)
        elif name in places:
            value = importlib.import_module(places[name], package)
        else:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        setattr(sys.modules[package], name, value)
        return value

    def directory() -> list[str]:
        return sorted([*public, *(name for name in vars(sys.modules[package]) if name.startswith("__"))])

    return getattribute, directory, public
