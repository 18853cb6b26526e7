"""The folder that `prepare` writes to: whether it may, its lock, and what becomes of it after an error."""
from __future__ import annotations

import contextlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from ..core.errors import EgsError, InputError
from ..core.files import exclusive_lock, foreign_files, make_folder, shortened, write_json, writing_to
from ..core.reading import Unreadable, read_json, shown
from ..speech.encoders import describe
from .steps import WORK

#: what the steps write beside `.work`, by the step that writes it
WRITTEN = {"frames": ("frames", "masks"), "plate": ("background.png",),
           "sound": ("audio.wav", "features.npy", "tracking.npz", "report", "report.json")}
ALL_WRITTEN = {"dataset.json", *(name for names in WRITTEN.values() for name in names)}
#: values of settings that earlier versions did not have
EARLIER_SETTINGS = {"face": "largest", "track": None}


def is_finished(root: Path, settings: dict[str, Any], inputs: Sequence[Path]) -> bool:
    """Whether the folder is a finished dataset with these settings. Otherwise it may be written to: it is not there,
    empty (hidden files aside), or an unfinished dataset of the same video.

    Args:
        root: the folder.
        settings: see `prepare`.
        inputs: files that must not be in it.

    Raises:
        InputError: it holds something else or one of the inputs, or is a file.
    """
    with writing_to(root):
        if root.is_symlink() and not root.exists():
            raise InputError("a folder to write to", f"'{shortened(root)}', a link that leads nowhere",
                             "Choose another path.")
        others = foreign_files(root)
        finished = (root / "dataset.json").exists()
        if not finished:
            _refuse_inputs(root, inputs)
        record = _finished_settings(root) if finished else _unfinished_settings(root, others)
        if record is None and others:
            names = ", ".join(map(shortened, others[:3])) + (" ..." if len(others) > 3 else "")
            raise InputError("an empty folder or an unfinished dataset",
                             f"'{shortened(root)}' with something else in it ({names})", "Choose another folder.")
        if not finished:
            _refuse_links(root)
    if record and record.get("video") != settings["video"]:
        raise InputError("an empty folder or one with this video's dataset",
                         f"'{shortened(root)}' with the {'' if finished else 'unfinished '}dataset of another video",
                         "Choose another folder, or delete this one.")
    # scenes: an earlier version kept all of them, and finished datasets are not prepared again
    before = EARLIER_SETTINGS | {"scenes": settings["scenes"]} | (record or {})
    other = [f"{k} {_setting_text(k, before[k])} there, {_setting_text(k, v)} now" for k, v in settings.items()
             if k != "version" and k in before and before[k] != v]
    if finished and other:
        raise InputError(f"the settings of the finished dataset in '{shortened(root)}'", "; ".join(other),
                         "Use the settings that it was made with, or prepare into another folder: runs that were "
                         "trained on this one need it unchanged.")
    return finished


def _setting_text(setting: str, value: object) -> str:
    return shortened(describe(value)) if setting == "encoder" and isinstance(value, dict) else shown(value)


def _finished_settings(root: Path) -> dict[str, Any]:
    try:
        record = read_json(root / "dataset.json")
        # the encoder, also a setting, is a key of its own: users of the dataset need it
        return {**dict(record.get("settings") or {}), "encoder": record.get("encoder")}
    except (Unreadable, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, Unreadable) else f"'{shortened(root / 'dataset.json')}', no dataset"
        raise InputError("an empty folder or one with this video's dataset", reason,
                         "Choose another folder, or delete this one.") from error


def _unfinished_settings(root: Path, others: list[str]) -> Optional[dict[str, Any]]:
    """The settings in `.work`; None if there are none. Empty if they are damaged: nothing is lost then, as each step
    knows its own."""
    work, record = root / WORK, root / WORK / "settings.json"
    if work.is_symlink() or (work.exists() and not work.is_dir()):
        raise InputError(f"a folder '{WORK}', or none", f"a link or a file, '{shortened(work)}'",
                         "Choose another folder.")
    if not record.exists():
        return None
    try:
        return read_json(record, version=int, video=str)
    except Unreadable as error:
        # a file that is JSON belongs to another program; one that is not was damaged
        if isinstance(error.__cause__, ValueError) and ALL_WRITTEN.issuperset(others):
            return {}
        raise InputError("an empty folder or an unfinished dataset",
                         f"'{shortened(root)}' with something else in it ({error})",
                         "Choose another folder.") from error


def _refuse_inputs(root: Path, inputs: Sequence[Path]) -> None:
    """Refuse inputs inside the folder, under their names or through links: they would count as a part of it."""
    for path in inputs:
        pairs = ((os.path.realpath(path), os.path.realpath(root)), (os.path.abspath(path), os.path.abspath(root)))
        if any(Path(inside).is_relative_to(outside) for inside, outside in pairs):
            raise InputError(f"inputs outside the dataset folder '{shortened(root)}'",
                             f"'{shortened(path)}' inside it",
                             "Move the file out of the folder, or choose another folder.")


def _refuse_links(root: Path) -> None:
    """Refuse to write through links, which may lead to files that are not a part of the dataset."""
    folders = [root, *(root / name for name in ("frames", "masks", "report"))]
    for folder in filter(Path.is_dir, folders):
        for entry in os.scandir(folder):
            if entry.is_symlink() and (folder != root or entry.name in ALL_WRITTEN):
                raise InputError(f"no links among the files of the unfinished dataset '{shortened(root)}'",
                                 f"the link '{shortened(entry.path)}'",
                                 "Put in place of it what it leads to, or remove it.")


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Make the folder, and keep other preparations out of it while the block runs. Folders that were made for nothing
    are removed at the end.

    Raises:
        InputError: another preparation is at work in it.
        StorageError: it cannot be written to.
    """
    with writing_to(root):
        made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        make_folder(root)
        with exclusive_lock(root, "preparation"):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    if made and [path.name for path in root.iterdir()] == [".preparation.lock"]:
                        (root / ".preparation.lock").unlink()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def open_folder(root: Path, settings: dict[str, Any]) -> None:
    """Mark the folder as an unfinished dataset with these settings."""
    with writing_to(root):
        (root / WORK).mkdir(exist_ok=True)
        write_json(root / WORK / "settings.json", settings)


def remove_partial_results(root: Path) -> None:
    """Remove what was written for an unusable clip: other clips would be refused because of it."""
    for step, written in WRITTEN.items():
        if (root / WORK / step).is_dir():
            for name in written:
                shutil.rmtree(root / name, ignore_errors=True)
                if (root / name).is_file():
                    (root / name).unlink()
    shutil.rmtree(root / WORK, ignore_errors=True)


def remove_leftover_work(root: Path) -> None:
    """Remove what a kill in the last moment has left of `.work` in a finished dataset."""
    if (root / WORK).is_dir() and not (root / WORK).is_symlink():
        with contextlib.suppress(EgsError), exclusive_lock(root, "preparation"):
            shutil.rmtree(root / WORK, ignore_errors=True)
