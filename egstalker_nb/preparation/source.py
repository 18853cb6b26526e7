"""The video that is prepared: a file that must not change meanwhile, and the frames of the part that is used."""
from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np

from ..core.errors import InputError, UnfinishedError
from ..core.files import shortened
from ..media.video_reader import read_frames


class UnusableClipError(InputError):
    """No dataset can be made from this clip, whatever is tried: what was written for it is of no use."""


@dataclass(frozen=True)
class InputFile:
    """A file that is read in several passes, and must stay as it is until the last one.

    Attributes:
        path: the file.
        stamp: its size in bytes and its time of modification in ns; only ever compared with itself.
    """

    path: Path
    stamp: tuple[int, int]

    @classmethod
    def now(cls, path: Path) -> InputFile:
        """The file as it is now."""
        return cls(path, _stamp(path))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Refuse what the block made of the file, or why it failed, if the file has changed or vanished.

        Raises:
            UnfinishedError: it has.
        """
        try:
            yield
        except Exception:
            self._check()
            raise
        self._check()

    def _check(self) -> None:
        try:
            found = "one that was changed since" if _stamp(self.path) != self.stamp else ""
        except OSError:
            found = "none: it was moved or deleted"
        if found:
            raise UnfinishedError(f"'{shortened(self.path)}' as it was when preparation started", found,
                                  "Restore the file, leave it as it is meanwhile, and repeat the same call: what was "
                                  "finished before is kept.")


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Source:
    """Frames of a video on its 25 fps timeline.

    Attributes:
        video: the file.
        first: number on the timeline of frame 0 here.
        num_frames: N.
        alpha: the video has an alpha channel.
    """

    video: InputFile
    first: int
    num_frames: int
    alpha: bool = False

    def frames(self, start: int, stop: int, alpha: bool = False) -> Iterator[np.ndarray]:
        """Frames start ... stop - 1, [H, W, 3] uint8 RGB; with `alpha` [H, W, 4].

        Without the reader's warnings about damage, which the first pass has already reported.

        Raises:
            UnfinishedError: the file has fewer frames than in the first pass.
        """
        images = read_frames(self.video.path, start=self.first + start, stop=self.first + stop, alpha=alpha)
        for i in range(start, stop):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                image = next(images, None)
            if image is None:
                raise UnfinishedError(f"frame {self.first + i} of '{shortened(self.video.path)}', which the first pass "
                                      "could read", "none", "Repeat the same call: what is finished is kept.")
            yield image
