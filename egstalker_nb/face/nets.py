"""MediaPipe's networks, imported on demand, without their log messages."""
from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import Any, Iterator

import numpy as np

from ..core.errors import require_package


def require_mediapipe() -> Any:
    """Import MediaPipe.

    Raises:
        MissingPackageError: it is not installed.
    """
    return require_package("mediapipe", "MediaPipe, which finds the face",
                           "Prepare data on a machine with: pip install mediapipe==0.10.21")


class QuietNet:
    """A MediaPipe network whose C++ code cannot write log messages to stderr, which would show up in notebooks.

    Args:
        solution: a class of `mediapipe.solutions`.
        options: its arguments.
    """

    def __init__(self, solution: type, **options: Any):
        with _silent_stderr():
            self._net = solution(**options)
            # its threads log until the first result; a black image does not affect the tracker's state
            self._net.process(np.zeros((64, 64, 3), np.uint8))

    def process(self, image: np.ndarray) -> Any:
        """The network's result for an image [H, W, 3] uint8 RGB."""
        with _silent_stderr():
            return self._net.process(image)

    def close(self) -> None:
        """Release the network."""
        self._net.close()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to the null device, as the C++ log does not pass through Python's sys.stderr."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
