"""From a talking-head video to a dataset folder (see `prepare`)."""
from __future__ import annotations

from typing import Any

__all__ = ["prepare"]


def __getattr__(name: str) -> Any:
    # on first use: the processes that work on chunks need neither torch nor what else `prepare` brings
    if name != "prepare":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from .pipeline import prepare

    return prepare
