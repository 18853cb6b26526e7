"""MediaPipe's networks, loaded where they are needed and kept quiet."""
from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import Any, Iterator

import numpy as np

from ..core.errors import MissingPackageError


def require_mediapipe():
    """Import MediaPipe, or raise MissingPackageError with the command that installs it."""
    try:
        import mediapipe
    except ImportError as error:
        raise MissingPackageError("MediaPipe, which finds the face", "no package 'mediapipe'",
                                  "Prepare data on a machine with: pip install mediapipe==0.10.21") from error
    return mediapipe


class QuietNet:
    """A MediaPipe network whose C++ part does not write its notes to stderr, where they would land in notebooks.

    Args:
        solution: a class of `mediapipe.solutions`. options: its arguments.
    """

    def __init__(self, solution: type, **options: Any):
        with _silent_stderr():
            self._net = solution(**options)
            # its threads write until the first answer is there; an empty picture leaves no trace in the tracker
            self._net.process(np.zeros((64, 64, 3), np.uint8))

    def process(self, image: np.ndarray) -> Any:
        """The network's answer to a picture [H, W, 3] uint8 RGB."""
        with _silent_stderr():
            return self._net.process(image)

    def close(self) -> None:
        self._net.close()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Point file descriptor 2 elsewhere: the notes do not pass through Python's sys.stderr."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
