"""Places to write to, with errors that users can act on."""
from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .errors import InputError


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn what the system says when `folder` cannot be written to into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError("a folder that can be written to", f"'{folder}' ({error.strerror})",
                         "Choose another path, or change its permissions.") from error


def make_folder(path: str | Path) -> Path:
    """Make a folder and its parents, if need be.

    Raises:
        InputError: a file is in the way, or it cannot be written there.
    """
    path = Path(path)
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_target(path: str | Path, suffix: str, *inputs: str | Path | None) -> Path:
    """The path of a file to write: with this suffix, not a folder, not one of the inputs; its folder is made.

    Raises:
        InputError: it is something else.
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
    """Keep others, threads and programs alike, from doing the same work in `folder` while the block runs.

    The system lets go of the lock when the program ends, however it ends: nothing is left to clean up.

    Raises:
        InputError: somebody else is at it.
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
