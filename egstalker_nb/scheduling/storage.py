"""Folders in an object store (s3://, gs://), copied to and from this computer."""
from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Union

from ..core.errors import InputError, first_line, require_package
from ..core.files import make_folder, replacing

BLOCK = 1 << 20  # bytes that are copied at a time
SCHEMES = "s3://", "gs://"
CACHE = "EGS_CACHE"  # environment variable: where copies of remote datasets and working folders of remote runs lie
#: of files that are never copied: locks and unfinished files
HIDDEN = "."


def is_remote(place: Union[str, Path]) -> bool:
    """Whether a place is an address in an object store."""
    return str(place).startswith(SCHEMES)


def cache_folder(address: str) -> Path:
    """Where this computer keeps its copy of a remote folder: one place for each address."""
    base = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "egstalker_nb"
    name = address.rstrip("/").rpartition("/")[2]
    return Path(base) / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def local_folder(place: str) -> Path:
    """Where work on a place is done on this computer: a path itself, of an address its copy."""
    return cache_folder(place.rstrip("/")) if is_remote(place) else Path(place)


class RemoteFolder:
    """A folder in an object store. Credentials and endpoints are those of the usual environment variables
    (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ..., GOOGLE_APPLICATION_CREDENTIALS).

    Args:
        address: such as `s3://bucket/folder`.

    Raises:
        InputError: the store cannot be reached.
        MissingPackageError: without pyarrow.
    """

    def __init__(self, address: str):
        fs = require_package("pyarrow.fs", "pyarrow, which reads and writes object stores",
                             "pip install 'egstalker-nb[cluster]'")
        self.address = address.rstrip("/")
        try:
            if self.address.startswith("s3://"):
                self.root = self.address[len("s3://"):]
                self.store = fs.S3FileSystem(endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3")
                                             or os.environ.get("AWS_ENDPOINT_URL"))
            else:
                self.store, self.root = fs.FileSystem.from_uri(self.address)
        except Exception as error:  # pyarrow has no common error
            raise self._unreachable(error) from error
        self._selector = fs.FileSelector

    def _unreachable(self, error: Exception) -> InputError:
        return InputError(f"an object store at '{self.address}'", first_line(error),
                          "Check the address, the credentials and the network.")

    def _files(self, part: str = "") -> dict[str, Any]:
        """Relative name -> entry of each file below a part of the folder."""
        base = f"{self.root}/{part}".rstrip("/")
        try:
            found = self.store.get_file_info(self._selector(base, recursive=True, allow_not_found=True))
            if part and not found:
                found = [self.store.get_file_info(base)]
        except OSError as error:
            raise self._unreachable(error) from error
        return {entry.path[len(self.root) + 1:]: entry for entry in found if entry.is_file}

    def pull(self, folder: Path, part: str = "") -> list[str]:
        """Copy what is missing or older in `folder`; each file arrives as a whole.

        Args:
            folder: on this computer.
            part: of the remote folder, a folder or a file in it; "": all of it.

        Returns:
            the names of the files that were copied.
        """
        copied = []
        for name, entry in self._files(part).items():
            target = folder / name
            if target.is_file() and target.stat().st_mtime >= entry.mtime_ns / 1e9:
                continue
            make_folder(target.parent)
            with replacing(target) as temporary:
                with self.store.open_input_stream(entry.path) as source, open(temporary, "wb") as file:
                    shutil.copyfileobj(source, file, BLOCK)
            copied.append(name)
        return copied

    def push(self, folder: Path, part: str = "") -> None:
        """Copy files of `folder` that have changed since they were copied last; hidden ones stay here.

        Args:
            folder: on this computer.
            part: of the folder; "": all of it.
        """
        there = self._files(part)
        for path in sorted((folder / part).rglob("*") if (folder / part).is_dir() else [folder / part]):
            name = path.relative_to(folder).as_posix()
            if not path.is_file() or any(piece.startswith(HIDDEN) for piece in Path(name).parts):
                continue
            known, stat = there.get(name), path.stat()
            if known is not None and known.size == stat.st_size and known.mtime_ns / 1e9 >= stat.st_mtime:
                continue
            with open(path, "rb") as source:
                self._write(name, source)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._files(name))

    def write(self, name: str, data: bytes) -> None:
        """Write one file."""
        self._write(name, io.BytesIO(data))

    def _write(self, name: str, source: BinaryIO) -> None:
        try:
            with self.store.open_output_stream(f"{self.root}/{name}") as file:
                shutil.copyfileobj(source, file, BLOCK)
        except OSError as error:
            raise self._unreachable(error) from error

    def remove(self, name: str) -> None:
        """Remove one file, if it is there."""
        try:
            self.store.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unreachable(error) from error
