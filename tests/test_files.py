"""Protects: a file is there as a whole or not at all, what a dead process left goes away, and no two processes work in
one folder."""
import errno
import json
import multiprocessing
import os
import platform
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from egstalker_nb.core import files
from egstalker_nb.core.errors import InputError, StorageError
from egstalker_nb.core.files import (
    TEMPORARY,
    atomic_folder,
    check_target,
    exclusive_lock,
    foreign_files,
    make_folder,
    remove_folder,
    remove_leftovers,
    replacing,
    shortened,
    write_bytes,
    write_json,
    write_npy,
    write_npz,
    write_text,
    writing_to,
)

WRITERS = {
    "bytes": lambda path: write_bytes(path, b"new" * 100_000), "text": lambda path: write_text(path, "äöü" * 50_000),
    "json": lambda path: write_json(path, list(range(50_000))), "npy": lambda path: write_npy(path, np.zeros(50_000)),
    "npz": lambda path: write_npz(path, a=np.random.default_rng(0).normal(size=50_000))}


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, kind):
    """As the system itself says it, with a limit on the size of a file in place of a full disk."""
    target = tmp_path / "file"
    target.write_text("old")
    code = (f"import resource, signal, sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_files as t;"
            "from pathlib import Path; from egstalker_nb.core.errors import StorageError\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            f"try: t.WRITERS[{kind!r}](Path({str(target)!r}))\n"
            "except StorageError as error: print(error)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "free space on the disk" in said and "none left" in said and "repeat the same call" in said
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number, words", [
    (errno.ENOSPC, "free space"), (errno.EDQUOT, "free space"), (errno.EACCES, "can be written to"),
    (errno.EROFS, "can be written to"), (errno.ENAMETOOLONG, "a shorter name"), (errno.ENOENT, "moved or deleted"),
    (errno.EIO, "repair the disk")])
def test_every_way_that_writing_fails_is_one_line(tmp_path, number, words):
    with pytest.raises(StorageError, match=words) as error, writing_to(tmp_path):
        raise OSError(number, os.strerror(number))
    assert len(str(error.value).splitlines()) == 1 and str(tmp_path) in str(error.value)


def test_errors_that_are_not_of_writing_pass_through(tmp_path):
    with pytest.raises(ZeroDivisionError), writing_to(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "part").write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_folder_becomes_visible_as_a_whole_and_replaces_the_old_one(tmp_path):
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "made") as temporary:
            (temporary / text).write_text(text)
            (temporary / "private").touch(0o600)  # as some libraries write
            assert (tmp_path / "made" / text).exists() is False
        assert sorted(os.listdir(tmp_path / "made")) == sorted([text, "private"])
    assert os.listdir(tmp_path) == ["made"]
    remove_folder(tmp_path / "made")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mask, file, folder", [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_modes_follow_the_umask(tmp_path, mask, file, folder):
    """A head whose file only its owner could read was of no use to others of the group."""
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "x")
        with atomic_folder(tmp_path / "folder") as temporary:
            os.close(os.open(temporary / "private", os.O_CREAT, 0o600))
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder", "folder/private")]
    assert modes == [file, folder, file]


def _write_and_wait(folder, ready):
    with replacing(folder / "file") as temporary, atomic_folder(folder / "made") as made:
        temporary.write_text("half")
        (made / "part").write_text("half")
        ready.set()
        time.sleep(600)


def test_leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=_write_and_wait, args=(tmp_path, ready))
    writer.start()
    assert ready.wait(60)
    try:
        remove_leftovers(tmp_path)
        write_text(tmp_path / "other", "x")  # every writer cleans up after others
        assert len(hidden(tmp_path)) == 2, "its writer lives"
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert len(hidden(tmp_path)) == 2
    write_text(tmp_path / "other", "y")
    assert os.listdir(tmp_path) == ["other"]


def test_files_of_others_are_no_leftovers(tmp_path):
    (tmp_path / ".egs.yaml").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / f"{TEMPORARY}link").symlink_to("target")
    remove_leftovers(tmp_path)
    assert (tmp_path / "target").is_dir() and (tmp_path / ".egs.yaml").exists() and (tmp_path / ".hidden").exists()
    remove_leftovers(tmp_path / "no such folder")


def _hold(folder, ready, done):
    with exclusive_lock(folder, "training"):
        ready.set()
        done.wait(60)


def test_the_second_process_is_told_who_holds_the_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path, ready, done))
    first.start()
    assert ready.wait(60)
    try:
        with pytest.raises(InputError, match=f"another training on {platform.node()}, process {first.pid}, since 20"):
            with exclusive_lock(tmp_path, "training"):
                pass
        with exclusive_lock(tmp_path, "preparation"):
            pass
    finally:
        done.set()
        first.join()
    with exclusive_lock(tmp_path, "training"):
        with pytest.raises(InputError, match=r"process \d+ \(this one\)"), exclusive_lock(tmp_path, "training"):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"host": "a"}), "\0" * 50, "9" * 5000])
def test_a_lock_whose_owner_cannot_be_read_still_holds(tmp_path, content):
    with exclusive_lock(tmp_path, "work"):
        (tmp_path / ".work.lock").write_text(content)
        with pytest.raises(InputError, match="in another notebook or in a terminal"), exclusive_lock(tmp_path, "work"):
            pass


def test_where_locks_are_not_supported_nothing_is_locked_and_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    (tmp_path / f"{TEMPORARY}1234").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive_lock(tmp_path, "work"), exclusive_lock(tmp_path, "work"):
        write_text(tmp_path / "file", "x")
    assert hidden(tmp_path) == [f"{TEMPORARY}1234"]


@pytest.mark.parametrize("name, words", [("x" * 300, "a shorter name"), ("a\0b", "null byte")])
@pytest.mark.parametrize("write", [lambda path: write_text(path, "x"), make_folder], ids=["file", "folder"])
def test_names_that_no_file_can_have(tmp_path, name, words, write):
    with pytest.raises(StorageError, match=words) as error:
        write(tmp_path / name)
    assert len(str(error.value)) < 500 and len(str(error.value).splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_a_folder_that_was_moved_away_is_not_made_again(tmp_path):
    folder = make_folder(tmp_path / "run" / "deep")
    os.rename(tmp_path / "run", tmp_path / "moved")
    for write in (lambda: write_text(folder / "file", "x"), lambda: atomic_folder(folder / "made").__enter__()):
        with pytest.raises(StorageError, match="moved or deleted"):
            write()
    assert os.listdir(tmp_path) == ["moved"]


def test_a_folder_moved_away_while_writing_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "run")
    with pytest.raises(StorageError, match="moved or deleted"), replacing(folder / "file") as temporary:
        temporary.write_text("x")
        os.rename(folder, tmp_path / "moved")
    assert not folder.exists()


def test_outputs_are_no_inputs_and_no_folders(tmp_path):
    source = tmp_path / "in.wav"
    source.touch()
    (tmp_path / "link.wav").symlink_to(source)
    os.link(source, tmp_path / "hard.wav")
    (tmp_path / "folder.wav").mkdir()
    for name in ("in.wav", "link.wav", "hard.wav", "folder.wav", "other.mp3"):
        with pytest.raises(InputError):
            check_target(tmp_path / name, ".wav", source, None)
    assert check_target(tmp_path / "new" / "OUT.WAV", ".wav", source).parent.is_dir()
    with pytest.raises(InputError, match="a file at"):
        foreign_files(source)
    assert foreign_files(tmp_path / "new") == foreign_files(tmp_path / "none") == []


def test_messages_show_paths_in_one_line(tmp_path):
    with pytest.raises(StorageError, match="a shorter name"):
        check_target(tmp_path / f"{'x' * 300}.mp4", ".mp4")
    assert shortened("a\nb\rc") == "a\\nb\\rc" and len(shortened("x" * 5000)) < 200
    assert shortened(os.fsdecode(b"caf\xe9")) == "caf\\udce9"
    assert len(files.short_name("ä" * 300).encode()) <= 100
