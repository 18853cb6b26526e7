"""The report of a sweep: a notebook that compares its runs, executed when they have come to an end."""
from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..core.errors import EgsError, first_line
from ..core.files import make_folder
from ..core.kit_files import NOTEBOOK_DIR
from .execute import execute, kernel_environment
from .ranking import runs_to_show
from .runner import SWEEP_NOTEBOOKS

if TYPE_CHECKING:
    from .sweep import Sweep

REPORT = SWEEP_NOTEBOOKS[-1]


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
                for run in sweep.runs:  # of a sweep in an object store: the report reads the copy on this computer
                    sweep.open(run, head=False)
                for name in runs_to_show(sweep):
                    sweep.open(name)
                execute(NOTEBOOK_DIR / f"{REPORT}.ipynb", saved, {"sweep": str(sweep.folder)}, io.StringIO())
            except EgsError as error:
                warnings.warn(f"The report of the sweep was not finished: {first_line(error)}", stacklevel=2)
                return None
    return saved
