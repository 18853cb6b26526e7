"""Output folders and files: complete or absent, with errors that users can act on.

Everything is written under a temporary name `.egs-...` beside its target, flushed to the disk, and renamed. The process
that writes it holds a lock on it, so what a killed process left behind is known by its missing lock, and the next one
that writes into the folder removes it.
"""
from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import secrets
import shutil
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from .errors import InputError, StorageError, first_line

TEMPORARY = ".egs-"
WINDOWS = os.name == "nt"  # it neither locks, flushes nor renames folders as needed here

#: errno -> what is expected of '{place}', what was found, what to do
_CAUSES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (
        "free space on the disk of '{place}'", "none left",
        "Free some, then repeat the same call: nothing is lost, and it continues from what is finished.")),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), (
        "a folder that can be written to", "'{place}' ({why})", "Choose another path, or change its permissions.")),
    errno.ENAMETOOLONG: ("a shorter name", "'{place}' ({why})", "Most file systems allow 255 bytes a name."),
    **dict.fromkeys((errno.ENOENT, errno.ESTALE), (
        "a folder that is there and can be written to", "'{place}' ({why})",
        "If it was moved or deleted, put it back and repeat the same call, which continues from what is finished.")),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), (
        "enough memory to write to '{place}'", "too little",
        "Close other programs, then repeat the same call: it continues from what is finished.")),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), (
        "a folder that can be written to", "'{place}', in whose path a file stands", "Choose another path.")),
}
_OTHER = "a folder that can be written to", "'{place}' ({why})", "Choose another path, or repair the disk."


@contextmanager
def writing_to(folder: str | Path) -> Iterator[None]:
    """Turn the OSError of a `folder` that cannot be written to into a StorageError."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)  # FFmpeg's errors have one, but are not always an OSError
        if not (isinstance(error, OSError) or number in _CAUSES or "null byte" in str(error)):
            raise
        expected, found, fix = _CAUSES.get(number or 0, _OTHER)
        facts = {"place": shortened(folder), "why": getattr(error, "strerror", None) or first_line(error)}
        raise StorageError(expected.format(**facts), found.format(**facts), fix) from error


def shortened(path: str | Path) -> str:
    """A path for a message: one line, and not the whole of a very long one."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


def short_name(stem: str) -> str:
    """A stem for a file name that is made of others, which together could be too long for the file system."""
    return stem.encode("utf-8", "surrogateescape")[:100].decode("utf-8", "ignore")


def make_folder(path: str | Path) -> Path:
    """Make a folder and its parents, if need be.

    Raises:
        StorageError: a file of that name exists, or the folder cannot be written to.
    """
    path = Path(path)
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def foreign_files(folder: Path) -> list[str]:
    """Names of the files and folders in a folder, except hidden ones; empty if it does not exist.

    Raises:
        InputError: a file of that name exists.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder to write to", f"a file at '{shortened(folder)}'", "Choose another path.")
    with writing_to(folder):
        return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


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
        StorageError: its folder cannot be written to.
    """
    path = Path(path)
    with writing_to(path):
        if path.suffix.lower() != suffix or path.is_dir():
            raise InputError(f"the name of a {suffix} file to write", f"'{shortened(path)}'",
                             f"Choose a name that ends in {suffix}.")
        if any(other is not None and _same_file(path, Path(other)) for other in inputs):
            raise InputError("an output apart from the inputs", f"'{shortened(path)}'", "Choose another name.")
    make_folder(path.parent)
    return path


def _same_file(path: Path, other: Path) -> bool:
    """Whether two paths name one file: also through links, and where neither exists yet."""
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))


# ---- whole files and folders ----

@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Atomic writing of a file: yields a temporary path beside `path`, renamed to `path` on success and removed on
    failure. The folder must exist: one that was moved away is not made again.

    Raises:
        InputError: `path` is a folder.
        StorageError: the disk is full, or the folder is gone or cannot be written to.
    """
    path = Path(path)
    with writing_to(path):
        if path.is_dir():  # an OSError if the name is too long
            raise InputError("the name of a file to write", f"the folder '{shortened(path)}'", "Choose another name.")
    with _temporary(path.parent, path.suffix) as temporary:
        with writing_to(path.parent):
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` (replacing one that is there) when the block succeeds, and vanishes when
    it fails. The parent must exist.

    Raises:
        StorageError: the disk is full, or the parent is gone or cannot be written to.
    """
    with _temporary(target.parent, is_folder=True) as temporary:
        with writing_to(target.parent):
            yield temporary
            mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
            for path in temporary.iterdir():  # on the disk before the name says that it is complete
                if path.is_file():
                    os.chmod(path, mode)  # some libraries write files that only their owner can read
                    flush(path)
            flush(temporary)
            if target.exists():
                with _temporary(target.parent, is_folder=True) as old:
                    target.rename(old / "old")
                    temporary.rename(target)
            else:
                temporary.rename(target)
            flush(target.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is there as a whole or not at all, whenever the process is killed."""
    with _temporary(path.parent, is_folder=True) as temporary:
        with writing_to(path.parent):
            path.rename(temporary / path.name)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file as a whole."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file as a whole."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write one array as a whole."""
    buffer = io.BytesIO()  # NumPy's own writing to a full disk raises errors without a number
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write compressed arrays as a whole."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


@contextmanager
def _temporary(folder: Path, suffix: str = "", is_folder: bool = False) -> Iterator[Path]:
    """A locked temporary file or folder in `folder`; what is left of it is removed at the end."""
    _check_system()
    remove_leftovers(folder)
    with writing_to(folder):
        path, handle = _locked(folder, suffix, is_folder)
    try:
        yield path
    finally:
        _remove(path)
        os.close(handle)


def _locked(folder: Path, suffix: str, is_folder: bool) -> tuple[Path, int]:
    while True:
        path = folder / f"{TEMPORARY}{secrets.token_hex(8)}{suffix if len(suffix) < 20 else ''}"
        if is_folder:
            path.mkdir()
            handle = os.open(path, os.O_RDONLY)
        else:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        # between the two lines another process may have taken it for a leftover
        if _lock(handle) and path.exists():
            return path, handle
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` whose writers have died."""
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if path.name.startswith(TEMPORARY)]:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                if _lock(handle, certain=True):
                    _remove(path)
            finally:
                os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; file systems that cannot tell are trusted."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(handle)


def _check_system() -> None:
    """Raises: InputError: on Windows, before a file is half-written."""
    if WINDOWS:
        raise InputError("Linux, macOS or WSL2", "Windows", "Install WSL2 and work there, see docs/platforms.md.")


# ---- locks ----

def _lock(handle: int, certain: bool = False) -> bool:
    """Lock an open file exclusively.

    Args:
        handle: its descriptor.
        certain: the answer where locks are not supported: False; by default True.

    Returns:
        False if another process or thread holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # a system without this kind of lock
        return not certain
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return not certain
    return True


@contextmanager
def exclusive_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on the work named `what` in `folder` while the block runs.

    Other threads and processes are kept out. The system releases the lock when the process ends, even when it is
    killed, so there are no stale locks. Where locks are not supported, nothing is locked.

    Raises:
        InputError: another thread or process holds the lock; the message says which, and since when.
        StorageError: the folder cannot be written to.
    """
    _check_system()
    path = _lock_file(folder, what)
    while True:
        with writing_to(folder):
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        locked = _lock(handle)
        if not locked or (path.exists() and os.path.samestat(path.stat(), os.fstat(handle))):
            break
        os.close(handle)  # the one before removed the file just now: a third would lock a new one
    try:
        if not locked:
            raise InputError(f"nobody else at work in '{shortened(folder)}'", f"another {what} {_owner(handle)}",
                             "Stop that one first (it keeps what is finished), or choose another folder.")
        owner = {"host": platform.node(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only nameless
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(owner).encode(), 0)
        yield
    finally:
        os.close(handle)


def lock_owner(folder: Path, what: str) -> str:
    """Who holds the exclusive lock on the work named `what` in `folder`, as text; "" if nobody does."""
    try:
        handle = os.open(_lock_file(folder, what), os.O_RDWR)
    except OSError:
        return ""
    try:
        return "" if _lock(handle) else _owner(handle)
    finally:
        os.close(handle)


def _lock_file(folder: Path, what: str) -> Path:
    return folder / f".{what.replace(' ', '-')}.lock"


def _owner(handle: int) -> str:
    """Who holds a lock, from its file."""
    try:
        owner: dict[str, Any] = json.loads(os.pread(handle, 1000, 0))
        here = " (this one)" if (owner["host"], owner["process"]) == (platform.node(), os.getpid()) else ""
        return f"on {owner['host']}, process {owner['process']}{here}, since {owner['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "(here, in another notebook or in a terminal)"
