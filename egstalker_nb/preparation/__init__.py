"""From a talking-head video to a dataset folder (see `prepare`)."""
from __future__ import annotations

from .pipeline import prepare

__all__ = ["prepare"]
