"""Upload of a file from the reader's computer: checked, complete, and without overwriting another file."""
from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import IO, Any, Callable, Optional, Sequence

import anywidget
import traitlets

from ...core.errors import EgsError, InputError
from ...core.files import make_folder, writing_to
from .base import ASSETS

MIB = 1 << 20
#: characters that some system or shell does not accept in a file name
UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


class UploadView(anywidget.AnyWidget):
    """The button in the browser; it sends the next chunk whenever the kernel requests one."""

    _esm = ASSETS / "upload.js"
    description = traitlets.Unicode("Upload").tag(sync=True)
    accept = traitlets.Unicode("").tag(sync=True)


class Upload:
    """Receives a file of any size in chunks: `ipywidgets.FileUpload` loses files above 10 MB.

    Args:
        folder: where files are saved.
        kinds: accepted suffixes, such as `.mp4`.
        check: called with the path of the complete file before it is saved; may raise EgsError.
        done: called with the path of the saved file.
        report: called with one line of text, and whether it is an error.
        limit: maximal size, bytes.
    """

    def __init__(self, folder: str | Path, kinds: Sequence[str], check: Callable[[Path], Any],
                 done: Callable[[Path], None], report: Callable[[str, bool], None], limit: int = 1024 * MIB):
        self.folder, self.kinds, self.check, self.done, self.report = Path(folder), tuple(kinds), check, done, report
        self.limit, self.name, self.size = limit, "", 0
        self.file: Optional[IO[bytes]] = None
        self.view: Optional[UploadView] = None

    def build(self) -> UploadView:
        """The button."""
        self.view = UploadView(description="Upload a video", accept=",".join(self.kinds))
        self.view.on_msg(lambda _, content, buffers: self.receive(content, buffers))
        return self.view

    def receive(self, message: dict, buffers: Sequence[Any] = ()) -> dict:
        """Handle one message of the button (`begin`, `piece` or `broken`), and return the answer that it is sent.

        An error is reported through `report`; it ends the upload and leaves no file.
        """
        try:
            answer = self._act(message, buffers)
        except EgsError as error:
            self._drop()
            self.report(str(error), True)
            answer = {"kind": "end"}
        if self.view is not None:
            self.view.send(answer)
        return answer

    def _act(self, message: dict, buffers: Sequence[Any]) -> dict:
        if message["kind"] == "begin":
            self._drop()
            self.name, self.size = clean_name(message["name"], self.kinds), int(message["size"])
            if not 0 < self.size <= self.limit:
                raise InputError(f"a file of at most {self.limit // MIB} MB", f"'{self.name}' with "
                                 f"{self.size / MIB:.1f} MB", "Cut it, or copy it into the folder yourself.")
            with writing_to(Path(tempfile.gettempdir())):
                self.file = tempfile.TemporaryFile()  # without a name: it cannot be left over
        elif message["kind"] == "broken" or self.file is None or message["from"] != self.file.tell():
            raise InputError("a complete file", f"'{self.name}', cut off during the upload", "Upload it again.")
        else:
            with writing_to(Path(tempfile.gettempdir())):
                self.file.write(buffers[0])
        have = self.file.tell()
        if have < self.size:
            self.report(f"{self.name}: {have / MIB:.0f} of {self.size / MIB:.0f} MB", False)
            return {"kind": "next", "from": have}
        self.report(f"{self.name}: checking the file ...", False)
        self.file.seek(0)
        saved = save_upload(self.file, self.name, self.folder, self.check)
        self._drop()
        self.done(saved)
        return {"kind": "end"}

    def _drop(self) -> None:
        if self.file is not None:
            self.file.close()
        self.file = None


def clean_name(name: str, kinds: Sequence[str]) -> str:
    """A file name without folders that every system accepts.

    Raises:
        InputError: its suffix is none of `kinds`.
    """
    plain = UNSAFE.sub("_", name.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(". ")
    if Path(plain).suffix.lower() not in kinds or not Path(plain).stem:
        raise InputError(f"a file that ends in {', '.join(kinds)}", f"'{name}'", "Choose or convert to one of these.")
    return plain


def save_upload(source: IO[bytes], name: str, folder: str | Path, check: Callable[[Path], Any]) -> Path:
    """Copy an open file to `folder/name`; an existing name gets a number appended, unless that file has the same bytes.

    Args:
        source: the open file.
        name: see `clean_name`.
        folder: where it is saved.
        check: called with the path of the copy; may raise EgsError.

    Returns:
        path of the saved file.

    Raises:
        EgsError: of `check`; nothing is left behind.
        InputError: the folder is not writable.
    """
    target = make_folder(folder) / name
    with writing_to(target.parent):
        handle, path = tempfile.mkstemp(prefix=".upload-", suffix=target.suffix, dir=target.parent)
    whole = Path(path)
    try:
        with writing_to(target.parent), open(handle, "wb") as file:
            while piece := source.read(MIB):
                file.write(piece)
        try:
            check(whole)
        except EgsError as error:
            raise InputError(error.expected, error.found.replace(str(whole), f"'{name}'"), error.fix) from error
        with writing_to(target.parent):
            whole.chmod(0o644)
            return _keep(whole, target)
    finally:
        whole.unlink(missing_ok=True)


def _keep(whole: Path, target: Path) -> Path:
    number, free = 1, target
    while True:
        try:
            free.open("xb").close()  # reserves the name against other processes
            os.replace(whole, free)
            return free
        except FileExistsError:
            if free.is_file() and _same(whole, free):
                return free
        number += 1
        free = target.with_name(f"{target.stem}-{number}{target.suffix}")


def _same(a: Path, b: Path) -> bool:
    if a.stat().st_size != b.stat().st_size:
        return False
    with open(a, "rb") as one, open(b, "rb") as other:
        while piece := one.read(MIB):
            if piece != other.read(MIB):
                return False
    return True
