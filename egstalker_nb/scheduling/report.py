"""The report of a sweep: a notebook that compares its runs, executed when they have come to an end."""
from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..core.errors import EgsError
from ..core.files import make_folder
from .execute import execute, kernel_environment
from .runner import NOTEBOOK_DIR

if TYPE_CHECKING:
    from .sweep import Sweep

REPORT = "09_sweep"


def write_report(sweep: Sweep) -> Optional[Path]:
    """Execute the report notebook on a sweep.

    Returns:
        the notebook in the `notebooks/` of the sweep, where the gallery finds it; None if it failed, with a warning:
        the results are there all the same.
    """
    folder = make_folder(sweep.folder / "notebooks")
    saved = folder / f"{REPORT}.ipynb"
    with tempfile.TemporaryDirectory(prefix="egs-report-") as temporary:
        with kernel_environment(Path(temporary) / "line", folder, "cpu"):
            try:
                execute(NOTEBOOK_DIR / f"{REPORT}.ipynb", saved, {"sweep": str(sweep.folder)}, sys.stderr)
            except EgsError as error:
                warnings.warn(f"The report of the sweep was not finished: {error}", stacklevel=2)
                return None
    return saved
