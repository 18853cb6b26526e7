"""One notebook, headless: Papermill in a kernel of this Python, and what a failure of it means."""
from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Protocol, Union

from ..core.errors import EgsError, first_line
from ..core.files import writing_to
from ..media import player
from .parameters import verbatim

#: times that a kernel is started before that counts as failed: another program may take one of the ports chosen for it
STARTS = 3
NOT_STARTED = "Kernel died before replying", "Kernel didn't respond"
#: environment variables that limit the threads of a process
THREADS = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"


class Log(Protocol):
    """What receives the text that cells print."""

    def write(self, text: str) -> Any:
        ...

    def flush(self) -> Any:
        ...


class NotebookError(EgsError, RuntimeError):
    """A notebook stopped before its end; its outputs until then are saved.

    Attributes:
        cell: the failing cell, as a person would find it; "" if that is not known.
    """

    cell = ""


def execute(path: Path, saved: Union[str, Path], values: dict[str, Any], log: Log,
            folder: Optional[Path] = None) -> None:
    """Execute a notebook inside `kernel_environment`, and save it after each cell.

    Args:
        path: the notebook.
        saved: where it is saved as executed: a path, or the address of an object (`s3://`, `gs://`) that Papermill has
            a handler for.
        values: its parameters, see `plan_notebooks`.
        log: gets what the cells print.
        folder: that the kernel works in; default: that of the notebook.

    Raises:
        NotebookError: a cell raised an exception, or the kernel died.
        StorageError: it cannot be saved.
    """
    import papermill
    import zmq
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    # between this process and the kernel, where other users of the machine could listen
    encrypted = Config({"KernelManager": {"transport_encryption": "auto"}} if zmq.has("curve") else {})
    task, look = f"notebook {path.stem} to run to its end", f"The notebook up to the error: {saved}"
    try:
        for left in reversed(range(STARTS)):
            try:
                with writing_to(saved.parent if isinstance(saved, Path) else saved):
                    papermill.execute_notebook(
                        verbatim(path), verbatim(saved), parameters=values, kernel_name="python3", language="python",
                        cwd=str(folder or path.parent), progress_bar=False, stdout_file=log, stderr_file=log,
                        config=encrypted)
                return
            except RuntimeError as error:  # a plain one, known by its text: no cell has begun yet
                if not any(text in str(error) for text in NOT_STARTED):
                    raise
                if not left:
                    raise NotebookError(task, f"its kernel did not start: {first_line(error)}", "Try again; if that "
                                        "does not help, free memory.") from error
    except papermill.PapermillExecutionError as error:
        cell = _cell(error.exec_count, error.source)
        failure = NotebookError(task, f"{cell} raised {error.ename}: {error.evalue}".rstrip(": .\n"), look)
        failure.cell = cell
        raise failure from None
    except DeadKernelError as error:
        cell = _last_cell(saved)
        failure = NotebookError(task, f"its kernel died in {cell} (out of memory, or a crash in compiled code)", look)
        failure.cell = cell
        raise failure from error


def _cell(count: Optional[int], source: str) -> str:
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]
    return f"cell [{count if count is not None else '?'}] `{lines[0] if lines else ''}`"


def _last_cell(saved: Union[str, Path]) -> str:
    """The last code cell that was started, from the saved notebook: a dead kernel reports nothing."""
    from papermill.iorw import load_notebook_node

    cells = [c for c in load_notebook_node(verbatim(saved)).cells if c.cell_type == "code"]
    started = [i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("start_time")]
    return _cell(started[-1] + 1, cells[started[-1]].source) if started else "its start"


@contextmanager
def kernel_environment(progress_file: Path, saved: Union[str, Path], device: Optional[str] = None,
                       threads: Optional[int] = None) -> Iterator[None]:
    """Kernels started inside run this Python with this package, show panels' still forms, keep their newest progress
    line in a file, and know the folder where their notebooks are saved.

    A kernel named python3 in the user's home or in JUPYTER_PATH may belong to another Python, so one of our own is
    put in front of them.

    Args:
        progress_file: gets the progress line.
        saved: the folder of the executed notebooks.
        device: `cpu` hides the GPUs.
        threads: of NumPy, torch and Numba; None: as many as they choose.
    """
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory(prefix="egs-kernel-") as folder:
        # an idle kernel logs the interrupt that ends it as an error; errors in cells are reported elsewhere
        quiet = ["--IPKernelApp.log_level=CRITICAL"]
        # the kernels' alone: panels in this process, if it is a notebook itself, must stay alive
        write_kernel_spec(Path(folder) / "kernels" / "python3", {"env": {"EGS_STATIC": "1"}}, extra_arguments=quiet)
        package = str(Path(__file__).resolve().parents[2])
        new = {"JUPYTER_PATH": os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")])),
               "JUPYTER_RUNTIME_DIR": folder,  # services and containers may have no home to write to
               "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
               "EGS_PROGRESS_FILE": str(progress_file), player.NOTEBOOK_FOLDER: str(saved),
               "MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # the caller's own may show no figures
        if device == "cpu":
            new["CUDA_VISIBLE_DEVICES"] = ""
        new.update({name: str(threads) for name in THREADS if threads})
        before = {key: os.environ.get(key) for key in new}
        os.environ.update(new)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
