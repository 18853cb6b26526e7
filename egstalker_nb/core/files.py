"""Output folders and files, with errors that users can act on."""
from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .errors import InputError


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn the OSError of a `folder` that cannot be written to into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError("a folder that can be written to", f"'{folder}' ({error.strerror})",
                         "Choose another path, or change its permissions.") from error


def make_folder(path: str | Path) -> Path:
    """Make a folder and its parents, if need be.

    Raises:
        InputError: a file of that name exists, or the folder cannot be written to.
    """
    path = Path(path)
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_target(path: str | Path, suffix: str, *inputs: str | Path | None) -> Path:
    """Check the path of a file to write, and make its folder.

    Args:
        path: the file.
        suffix: the suffix that it must have, lower case, such as `.wav`.
        inputs: files that must not be overwritten; None is ignored.

    Returns:
        The path as a Path.

    Raises:
        InputError: another suffix, a folder, or one of the inputs.
    """
    path = Path(path)
    if path.suffix.lower() != suffix or path.is_dir():
        raise InputError(f"the name of a {suffix} file to write", f"'{path}'", f"Choose a name that ends in {suffix}.")
    if any(other is not None and path.resolve() == Path(other).resolve() for other in inputs):
        raise InputError("an output apart from the inputs", f"'{path}'", "Choose another name.")
    make_folder(path.parent)
    return path


@contextmanager
def exclusive_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on the work named `what` in `folder` while the block runs.

    Other threads and processes are kept out. The system releases the lock when the process ends, even when it is
    killed, so there are no stale locks. Where locks are not supported, nothing is locked.

    Raises:
        InputError: another thread or process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # a system without this kind of lock
        yield
        return
    with writing_to(folder):
        handle = os.open(folder / f".{what}.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"nobody else at work in '{folder}'", f"another {what} (here, in another notebook or in a "
                             "terminal)", "Stop that one first, or choose another folder.") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
