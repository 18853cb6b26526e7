"""What steps leave, and whether it is whole: a power cut or a broken disk may have damaged it."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from ..core.reading import ArraySpec, Unreadable, read_npy, read_npz
from ..media.image_io import is_whole


@dataclass(frozen=True)
class Result:
    """A file that says that a part of a step is done.

    Attributes:
        path: an `.npz` file.
        arrays: what must be in it.
        files: written before it: images, audio, features.
    """

    path: Path
    arrays: Mapping[str, ArraySpec]
    files: tuple[Path, ...] = ()

    def is_whole(self) -> bool:
        """Whether its arrays can be read, and its files are there and complete."""
        try:
            read_npz(self.path, self.arrays)
            return all(map(_is_complete, self.files))
        except (Unreadable, OSError):
            return False


def _is_complete(path: Path) -> bool:
    """Images are written without waiting for the disk, which would take longer than making them: after a power cut they
    may be short, empty or full of zeros."""
    if path.suffix == ".npy":
        read_npy(path)
        return True
    if path.suffix == ".wav":
        with open(path, "rb") as file:
            return int.from_bytes(file.read(8)[4:], "little") + 8 == os.fstat(file.fileno()).st_size
    return is_whole(path)
