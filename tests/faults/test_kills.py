"""Protects: whenever preparation, training, rendering or an export is killed, the next run ends bit for bit like an
undisturbed one, loses at most the work since the last checkpoint, and leaves nothing behind.

`EGS_KILLS=50` kills at 50 random moments rather than one of each kind, every third of them twice, and also the
preparation with MediaPipe; `EGS_KILL_SEED=1` at other moments. A test is named after what is killed, the seed and the
number, which together are the moment: `EGS_KILLS=50 EGS_KILL_SEED=1 pytest -k fine-1-20` repeats it. Most moments are
events, see `harness`: just before a file is opened, flushed, renamed or removed, or in the middle of its bytes; some
are times, and some an end of memory, in whichever way the libraries meet it.
"""
import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest

from egstalker_nb.training import checkpoint

from . import harness, works
from .harness import Fault, Outcome, Undisturbed

#: what is killed -> the work that contains it, and the label of its events
KINDS: dict[str, tuple[Callable[..., Any], str]] = {
    "preparation": (works.prepare, "prepare"), "coarse": (works.train, "coarse"), "fine": (works.train, "fine"),
    "densification": (works.train, "densification"), "checkpoint": (works.train, "checkpoint"),
    "snapshot": (works.train, "snapshot"), "rendering": (works.render, "rendering"),
    "muxing": (works.render, "muxing"), "export": (works.export, "export"),
    "mediapipe": (works.prepare_for_real, "prepare_for_real")}
KILLS = int(os.environ.get("EGS_KILLS", len(KINDS) - 1))
#: of the ways to end: `make test` meets the same moments each time
WEIGHTS = [6, 3, 1, 1] if KILLS > len(KINDS) else [2, 1, 0, 0]
SEED = os.environ.get("EGS_KILL_SEED", "0")


def moments():
    kinds = list(KINDS)[:len(KINDS) - (KILLS < len(KINDS))]
    chosen = [(kinds[number % len(kinds)], f"{SEED}-{number}") for number in range(KILLS)]
    return [pytest.param(kind, seed, id=f"{kind}-{seed}") for kind, seed in chosen]


@pytest.mark.parametrize("kind, seed", moments())
def test_a_kill_changes_nothing(undisturbed, tmp_path, kind, seed):
    work, label = KINDS[kind]
    whole, rng, folder = undisturbed(work), random.Random(seed), tmp_path / work.__name__
    for kill in range(2 if rng.random() < 1 / 3 and KILLS > len(KINDS) else 1):
        labels = [n for n, name in enumerate(whole.outcome.labels) if name == label]
        how = rng.choices(["kill", "torn", "time", "memory"], WEIGHTS)[0]
        event = rng.choice(labels) // (kill + 1)
        died = killed(work, whole, rng, folder, tmp_path / "log", how, event)
        print(f"kill {kill}: {how} at event {event} of {len(whole.outcome.labels)} ({label}): status {died.status}")
        expected = [-signal.SIGKILL, -signal.SIGXFSZ] if how == "torn" else [-signal.SIGKILL]
        late = kill or how in ("time", "memory") or event + harness.AFTER_LIMIT >= len(whole.outcome.labels)
        assert died.status in expected or how == "memory" or (late and died.status == 0), died.output[-2000:]
        check_what_is_visible(work, folder, whole)
    last = checkpoint.newest(folder / "run") or 0
    again = harness.succeed(work, folder, *whole.args, log=tmp_path / "log")
    assert not harness.differences(harness.state(folder), whole.state)
    assert not harness.leftovers(folder)
    assert again.first in (-1, last), "work was lost that a checkpoint held"


def killed(work, whole: Undisturbed, rng: random.Random, folder: Path, log: Path, how: str, event: int) -> Outcome:
    """Start the work and kill it."""
    fault, wait = Fault(event, how, int(10 ** rng.uniform(0, 5))), None
    if how == "memory":  # libraries end in many ways; CPython may wait for ever for a thread that could not start
        fault, wait = Fault(event, partial(works.limit_memory, int(10 ** rng.uniform(3, 7)))), 10 + 5 * whole.seconds
    if how == "time":
        fault, wait = Fault(), rng.uniform(0, whole.seconds)
    child = harness.Child(work, folder, *whole.args, fault=fault, log=log)
    if wait:
        child.kill_after(wait)
    return child.finish()


def check_what_is_visible(work, folder: Path, whole: Undisturbed) -> None:
    """What has its final name is complete, whenever the work was killed."""
    run, dataset = folder / "run", folder / "dataset"
    assert not [problem for i in checkpoint.iterations(run) if (problem := checkpoint.damage(run, i))]
    if (dataset / "dataset.json").is_file() or work in (works.render, works.export):
        visible = harness.state(folder)
        assert not visible or not harness.differences(visible, whole.state)


def test_the_moments_are_those_of_the_issue(undisturbed):
    """Each kind has moments: the harness would otherwise pass whatever it kills."""
    for work in {work for kind, (work, _) in KINDS.items() if kind != "mediapipe"}:
        labels = undisturbed(work).outcome.labels
        assert {label for other, label in KINDS.values() if other is work} <= set(labels)


def test_a_difference_is_noticed(undisturbed, tmp_path):
    """One bit of one file, a missing file, and one too many."""
    whole = undisturbed(works.export)
    harness.succeed(works.export, tmp_path / "export", *whole.args, log=tmp_path / "log")
    folder = tmp_path / "export" / "export"
    frame = next(folder.glob("*.png"))
    frame.write_bytes(frame.read_bytes()[:-1] + b"\0")
    shutil.copy(frame, folder / "other.png")
    (folder / "sound.wav").unlink()
    found = harness.differences(harness.state(tmp_path / "export"), whole.state)
    assert found == sorted([f"export/{frame.name}", "export/other.png", "export/sound.wav"])
