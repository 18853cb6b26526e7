"""What can be operated in the notebooks: `from egstalker_nb import widgets`. Each has a still form (`base.Panel`)."""
from __future__ import annotations

import importlib
from typing import Any

#: public name -> module; imported on first use
_PUBLIC = {
    "Panel": "base", "Plot": "base", "Job": "job", "Wipe": "wipe",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
