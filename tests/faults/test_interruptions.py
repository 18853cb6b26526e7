"""Protects: Ctrl-C, SIGTERM, full and read-only disks, folders that vanish, too little memory and a clock that jumps
end in one line, lose nothing, and the next run ends bit for bit like an undisturbed one."""
import contextlib
import functools
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.progress import Progress

from . import harness, works
from .harness import Fault

WORKS = {"prepare": works.prepare, "train": works.train, "render": works.render, "export": works.export}
#: signals at random moments, each; `EGS_KILLS=50` sends more of them, see `test_kills`
SIGNALS = max(1, int(os.environ.get("EGS_KILLS", 0)) // 10)
each_work = pytest.mark.parametrize("name", WORKS)


@pytest.fixture
def commands(undisturbed):
    """name -> the `egs` command of a piece of work, as a function for a child and its arguments."""

    def get(name: str):
        whole = undisturbed(WORKS[name])
        if name == "prepare":
            video, face = whole.args
            return works.command_with_face, face, "prepare", str(video), "dataset", *works.PREPARE
        source = str(whole.args[0])
        if name == "train":
            return works.command, "train", source, "run", *works.TRAIN
        sound = str(undisturbed(works.train).args[0] / "audio.wav")
        if name == "render":
            return works.command, "render", source, "--audio", sound, "--out", "video.mp4", *works.RENDER
        return works.command, "export", source, sound, "--out", "export", *works.EXPORT

    return get


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def check_line(outcome, status: int, *words: str) -> None:
    """One line with these words, and the exit status."""
    assert outcome.status == status and len(outcome.lines) == 1, outcome.output[-2000:]
    line = outcome.lines[0]
    assert line.startswith("error: " if status == 2 else "interrupted: ") and len(line) < 1200
    assert not [word for word in words if word not in line], line


def check_hidden(folder: Path) -> None:
    """Only what preparation will continue from may be hidden."""
    assert not [name for name in harness.leftovers(folder) if not name.endswith(".work")]


def check_same(folder: Path, whole, more: str = r"$.") -> None:
    """The work is now as if nothing had happened; `more` matches files that may be there, or differ."""
    found = harness.differences(harness.state(folder), whole.state)
    assert not [name for name in found if not re.search(more, name)]
    assert not harness.leftovers(folder)


def moment(whole, label: str, share: float) -> int:
    """The number of an event with this label, at this share of them."""
    events = [n for n, name in enumerate(whole.outcome.labels) if name == label]
    return events[int(share * len(events))]


#: of a run that was stopped: the checkpoint of that moment and its row, and its rows of metrics
EXTRA = r"metrics.jsonl|checkpoints/iteration_(?!(4|8|10|12|16|20|24)/)"


@pytest.mark.parametrize("seed", range(SIGNALS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@each_work
def test_a_signal_ends_the_work_in_order(undisturbed, commands, tmp_path, log, name, number, seed):
    whole, command, rng = undisturbed(WORKS[name]), commands(name), random.Random(f"{name} {number} {seed}")
    event = rng.randrange(len(whole.outcome.labels))
    stopped = harness.run(command[0], tmp_path / "w", *command[1:], fault=Fault(event, number.name), log=log)
    print(f"event {event} of {len(whole.outcome.labels)}: status {stopped.status}, {stopped.lines}")
    check_hidden(tmp_path / "w")
    if stopped.status:  # the last events have nothing after them that could be interrupted
        check_line(stopped, 128 + number)
        if stopped.first >= 0:
            kept = egs.load_run(tmp_path / "w" / "run").iterations[-1]
            check_line(stopped, 128 + number, f"stopped at iteration {kept}", "a checkpoint is written", "train again")
    harness.succeed(command[0], tmp_path / "w", *command[1:], log=log)
    check_same(tmp_path / "w", whole, EXTRA)


@each_work
def test_a_full_disk(undisturbed, commands, tmp_path, log, name):
    """At several places: each time the disk is full, it grows, and the work goes on."""
    whole, command = undisturbed(WORKS[name]), commands(name)
    used = sum(path.stat().st_size for path in whole.folder.rglob("*") if path.is_file())
    sizes = [max(int(share * used), 1) for share in (0.01, 0.3, 0.7)] + [4 * used + (1 << 20)]
    done = harness.run(works.on_small_disk, tmp_path / "w", sizes, tmp_path / "kept", *command, log=log)
    if done.status == works.NOT_PERMITTED:
        pytest.skip(f"no disk can be mounted here: {done.output.strip()}")
    assert done.status == 0, done.output[-2000:]
    statuses = re.findall(r"^status (\d+)", done.output, re.M)
    errors = [line for line in done.lines if line.startswith("error: ")]
    assert statuses == ["2"] * len(errors) + ["0"] * (len(sizes) - len(errors)) and len(errors) >= 2
    assert not [line for line in errors if "free space" not in line or "repeat the same call" not in line]
    assert "Traceback" not in done.output
    check_same(tmp_path / "kept", whole)


@each_work
def test_a_file_that_cannot_grow(undisturbed, commands, tmp_path, log, name):
    """A quota or a limit of the system, which needs no mount."""
    whole, command = undisturbed(WORKS[name]), commands(name)
    event = len(whole.outcome.labels) // 4
    stopped = harness.run(command[0], tmp_path / "w", *command[1:], fault=Fault(event, "full", 200), log=log)
    check_line(stopped, 2, "free space", "repeat the same call")
    check_hidden(tmp_path / "w")
    harness.succeed(command[0], tmp_path / "w", *command[1:], log=log)
    check_same(tmp_path / "w", whole)


@each_work
def test_a_read_only_disk(commands, tmp_path, log, name):
    done = harness.run(works.on_read_only_disk, tmp_path / "w", *commands(name), log=log)
    if done.status == works.NOT_PERMITTED:
        pytest.skip(f"no disk can be mounted here: {done.output.strip()}")
    check_line(done, 2, "can be written to", "Read-only file system")


@pytest.mark.parametrize("label, share", [("coarse", 0.6), ("checkpoint", 0.7), ("snapshot", 0.8)])
def test_a_run_folder_that_is_moved_away(undisturbed, commands, tmp_path, log, label, share):
    """It is not made again, which would be half a run in its place."""
    whole, command, folder = undisturbed(works.train), commands("train"), tmp_path / "w"
    move = functools.partial(os.rename, folder / "run", folder / "moved")
    stopped = harness.run(command[0], folder, *command[1:], log=log, fault=Fault(moment(whole, label, share), move))
    check_line(stopped, 2, "run", "moved or deleted", "put it back")
    assert not (folder / "run").exists()
    (folder / "moved").rename(folder / "run")
    harness.succeed(command[0], folder, *command[1:], log=log)
    check_same(folder, whole)


@pytest.mark.parametrize("name, vanishing", [("train", "run"), ("prepare", "dataset")])
def test_a_folder_that_is_deleted(undisturbed, commands, tmp_path, log, name, vanishing):
    whole, command, folder = undisturbed(WORKS[name]), commands(name), tmp_path / "w"
    fault = Fault(len(whole.outcome.labels) // 2, functools.partial(shutil.rmtree, folder / vanishing))
    stopped = harness.run(command[0], folder, *command[1:], fault=fault, log=log)
    check_line(stopped, 2, vanishing, "moved or deleted")
    assert not (folder / vanishing).exists()


def test_an_image_that_vanishes_from_the_dataset(undisturbed, commands, tmp_path, log):
    """Images of long clips are read in each step."""
    whole, (_, verb, source, *rest), folder = undisturbed(works.train), commands("train"), tmp_path / "w"
    copy = shutil.copytree(source, tmp_path / "dataset")
    event, image = moment(whole, "fine", 0.2), copy / "frames" / "000003.jpg"
    arguments = works.train_from_disk, folder, verb, str(copy), *rest
    stopped = harness.run(*arguments, fault=Fault(event, functools.partial(os.remove, image)), log=log)
    check_line(stopped, 2, "000003.jpg")
    shutil.copy(Path(source) / "frames" / image.name, image)
    harness.succeed(*arguments, log=log)
    check_same(folder, whole, "manifest.json")


@pytest.mark.parametrize("name, what", [("train", "training"), ("prepare", "preparation")])
def test_two_at_work_in_one_folder(undisturbed, commands, tmp_path, log, name, what):
    whole, command, folder = undisturbed(WORKS[name]), commands(name), tmp_path / "w"
    fault = Fault(len(whole.outcome.labels) // 2, "SIGSTOP")
    first = harness.Child(command[0], folder, *command[1:], fault=fault, log=log)
    try:
        deadline = time.monotonic() + 120
        while _state_of(first.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.02)
        second = harness.run(command[0], folder, *command[1:], log=tmp_path / "other")
        check_line(second, 2, f"another {what} on {os.uname().nodename}, process {first.pid}")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.finish().status == 0
    check_same(folder, whole)


def _state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
                                   MemoryError()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name, label", [("train", "densification"), ("render", "rendering")])
def test_too_little_memory(undisturbed, commands, tmp_path, log, name, label, error):
    """Also in the middle of a densification step, which has changed half of the tensors."""
    whole, command = undisturbed(WORKS[name]), commands(name)
    event = moment(whole, label, 0.6)
    stopped = harness.run(command[0], tmp_path / "w", *command[1:], fault=Fault(event, error), log=log)
    check_line(stopped, 2, "memory", "batch")
    check_hidden(tmp_path / "w")
    harness.succeed(command[0], tmp_path / "w", *command[1:], log=log)
    check_same(tmp_path / "w", whole)


def test_a_clock_that_jumps(undisturbed, tmp_path, log):
    whole = undisturbed(works.train)
    done = harness.succeed(works.train_with_jumping_clock, tmp_path / "w", *whole.args, log=log)
    lines = [line for line in done.output.splitlines() if line.startswith("line: ")]
    assert len(lines) > 24 and not [line for line in lines if re.search(r"-\d|\d{2}:\d\d:\d\d", line)]
    check_same(tmp_path / "w", whole)


@pytest.mark.parametrize("way", ["moved together", "copied apart"])
def test_a_run_that_goes_on_elsewhere(undisturbed, commands, tmp_path, log, way):
    """On another disk or computer, with or without its dataset."""
    whole, (work, verb, source, *rest), folder = undisturbed(works.train), commands("train"), tmp_path / "w"
    dataset = shutil.copytree(source, folder / "data")
    killed = harness.run(work, folder, verb, str(dataset), *rest, fault=Fault(moment(whole, "fine", 0.4)), log=log)
    assert killed.status == -signal.SIGKILL
    if way == "moved together":
        folder = folder.rename(tmp_path / "elsewhere")
        assert egs.load_run(folder / "run").dataset.root.resolve() == (folder / "data").resolve()
        dataset = folder / "data"
    else:
        folder = Path(shutil.copytree(folder / "run", tmp_path / "a" / "b" / "run")).parent
        dataset = Path(source)
    harness.succeed(work, folder, verb, str(dataset), *rest, log=log)
    check_same(folder, whole, "manifest.json|^data/")
    assert egs.load_run(folder / "run").dataset.root.resolve() == dataset.resolve()


def test_a_progress_line_that_cannot_be_written(monkeypatch):
    """A log on the disk that is full must not end the work, nor hide the error that says so."""
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        monkeypatch.setenv("EGS_PROGRESS_FILE", "/dev/full")
        with Progress(2, "work") as bar:
            bar.update()
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    assert bar.done == 1
