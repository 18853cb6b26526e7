"""The errors a user can cause: each says what was expected, what was found and what to do."""
from __future__ import annotations

import errno
import importlib
from typing import Any


class EgsError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        expected: what the operation needs.
        found: what it got instead.
        fix: what the user can do about it.
    """

    def __init__(self, expected: str, found: str, fix: str):
        super().__init__(f"expected {expected}; found {found}. {fix}")
        self.expected, self.found, self.fix = expected, found, fix

    def __reduce__(self) -> tuple:
        """Pickling, with which errors of worker processes reach the parent."""
        return type(self), (self.expected, self.found, self.fix)


class InputError(EgsError, ValueError):
    """A file or an argument is not usable (video, audio, features, poses, paths)."""


class ConfigError(EgsError, ValueError):
    """A configuration has unknown keys, values out of range, or contradicts itself."""


class DatasetError(EgsError):
    """A dataset or run folder is incomplete, damaged, or does not match the request."""


class TrainingError(EgsError, RuntimeError):
    """Training stopped by a guard: a non-finite loss or a collapsing head."""


class UnfinishedError(EgsError, RuntimeError):
    """Work was interrupted, not because of its input: the same call resumes from what is finished."""


class StorageError(UnfinishedError, InputError):
    """A file or folder cannot be written: the disk is full, the folder is read-only or was moved away."""


class MemoryLimitError(UnfinishedError):
    """The GPU or the computer has too little memory for this."""


class SweepError(UnfinishedError):
    """Some runs of a sweep failed; the others are finished."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asks the program to end: like Ctrl-C, what is finished is kept."""


class MissingPackageError(EgsError, ImportError):
    """An optional package is not installed."""


def first_line(error: object, limit: int = 200) -> str:
    """What an exception of another package says, for a message of one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= limit else f"{lines[0][:limit]}..."


#: what errors of exhausted memory say if their class does not, in PyTorch, Python's threads and OpenCV
_EXHAUSTED = "out of memory", "allocate memory", "can't start new thread", "Insufficient memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of another package says that the computer or the GPU has too little memory."""
    if isinstance(error, EgsError):
        return False
    return (isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.ENOMEM, errno.EAGAIN)
            or any(text in str(error) for text in _EXHAUSTED))


def require_package(name: str, expected: str, fix: str) -> Any:
    """Import a package that may be missing.

    Args:
        name: of the package.
        expected: what it is called, and what it does here.
        fix: how to install it.

    Raises:
        MissingPackageError: it is not installed, or something that it needs is not.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        found = f"no package '{name}'"
        if not isinstance(error, ModuleNotFoundError):
            found = f"one that cannot be imported ({first_line(error)})"
        elif missing != name.split(".")[0]:
            found = f"no package '{missing}', which it needs"
        raise MissingPackageError(expected, found, fix) from error
