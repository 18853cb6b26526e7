"""A file from the reader's computer, saved beside the others: of the right kind, whole, and over no other file."""
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

HERE = Path(__file__).parent
MEGA = 1 << 20
#: what some system or shell would stumble over in the name of a file
ODD = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


class UploadView(anywidget.AnyWidget):
    """The button in the browser; it sends a piece whenever it is asked for one."""

    _esm = HERE / "upload.js"
    description = traitlets.Unicode("Upload").tag(sync=True)
    accept = traitlets.Unicode("").tag(sync=True)


class Upload:
    """Receives a file piece by piece, whatever its size: `ipywidgets.FileUpload` loses files above 10 MB.

    Args:
        folder: where files are saved. kinds: the endings that are taken, as in `.mp4`. check: looks at the whole file
            before it is saved, and raises EgsError. done: called with the path that was saved. tell: called with one
            line of text, and whether it is an error. limit: of the size, bytes.
    """

    def __init__(self, folder: str | Path, kinds: Sequence[str], check: Callable[[Path], Any],
                 done: Callable[[Path], None], tell: Callable[[str, bool], None], limit: int = 1024 * MEGA):
        self.folder, self.kinds, self.check, self.done, self.tell = Path(folder), tuple(kinds), check, done, tell
        self.limit, self.name, self.size = limit, "", 0
        self.file: Optional[IO[bytes]] = None
        self.view: Optional[UploadView] = None

    def build(self) -> UploadView:
        """The button."""
        self.view = UploadView(description="Upload a video", accept=",".join(self.kinds))
        self.view.on_msg(lambda _, content, buffers: self.receive(content, buffers))
        return self.view

    def receive(self, message: dict, buffers: Sequence[Any] = ()) -> dict:
        """Act on one message of the button (`begin`, `piece` or `broken`), and return what it is answered.

        What goes wrong is told, and ends the upload without a trace.
        """
        try:
            answer = self._act(message, buffers)
        except EgsError as error:
            self._drop()
            self.tell(str(error), True)
            answer = {"kind": "end"}
        if self.view is not None:
            self.view.send(answer)
        return answer

    def _act(self, message: dict, buffers: Sequence[Any]) -> dict:
        if message["kind"] == "begin":
            self._drop()
            self.name, self.size = clean_name(message["name"], self.kinds), int(message["size"])
            if not 0 < self.size <= self.limit:
                raise InputError(f"a file of at most {self.limit // MEGA} MB", f"'{self.name}' with "
                                 f"{self.size / MEGA:.1f} MB", "Cut it, or copy it into the folder yourself.")
            with writing_to(Path(tempfile.gettempdir())):
                self.file = tempfile.TemporaryFile()  # without a name: it cannot stay behind
        elif message["kind"] == "broken" or self.file is None or message["from"] != self.file.tell():
            raise InputError("a whole file", f"'{self.name}' that was cut off on the way", "Upload it again.")
        else:
            with writing_to(Path(tempfile.gettempdir())):
                self.file.write(buffers[0])
        have = self.file.tell()
        if have < self.size:
            self.tell(f"{self.name}: {have / MEGA:.0f} of {self.size / MEGA:.0f} MB", False)
            return {"kind": "next", "from": have}
        self.tell(f"{self.name}: looking at it ...", False)
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
    """A file name that every system takes, without folders.

    Raises:
        InputError: its ending is none of `kinds`.
    """
    plain = ODD.sub("_", name.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(". ")
    if Path(plain).suffix.lower() not in kinds or not Path(plain).stem:
        raise InputError(f"a file that ends in {', '.join(kinds)}", f"'{name}'", "Choose or convert to one of these.")
    return plain


def save_upload(source: IO[bytes], name: str, folder: str | Path, check: Callable[[Path], Any]) -> Path:
    """Copy an open file to `folder/name`; a name that is taken gets a number, unless that file is the same.

    Returns:
        where it lies.

    Raises:
        EgsError: what `check` says of it, and nothing is left behind. InputError: the folder cannot be written to.
    """
    target = make_folder(folder) / name
    with writing_to(target.parent):
        handle, path = tempfile.mkstemp(prefix=".upload-", suffix=target.suffix, dir=target.parent)
    whole = Path(path)
    try:
        with writing_to(target.parent), open(handle, "wb") as file:
            while piece := source.read(MEGA):
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
            free.open("xb").close()  # the name is ours from here on, whoever else looks for one
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
        while piece := one.read(MEGA):
            if piece != other.read(MEGA):
                return False
    return True
