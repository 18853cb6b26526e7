"""Protects: work behind buttons stops, goes on, fails in the open, and is never disturbed by what watches it."""
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from egstalker_nb.core import progress
from egstalker_nb.core.errors import InputError
from egstalker_nb.core.files import exclusive_lock
from egstalker_nb.core.progress import Progress, ProgressListener, listening
from egstalker_nb.notebook.widgets import Job, Panel
from egstalker_nb.notebook.widgets import job as job_module
from egstalker_nb.training.train import stop_signal

ROOT = Path(__file__).resolve().parents[1]


class Steps:
    """Work of ten steps that waits for a signal before each, and goes on where it was stopped."""

    def __init__(self):
        self.done, self.turn, self.threads = 0, threading.Semaphore(0), []

    def __call__(self) -> int:
        self.threads.append(threading.current_thread())
        with Progress(10, "steps", initial=self.done) as bar:
            while self.done < 10:
                assert self.turn.acquire(timeout=20)
                bar.update()
                self.done += 1
        return self.done

    def allow(self, count: int = 10) -> None:
        self.turn.release(count)


def test_it_runs_beside_the_kernel_and_tells_when_it_is_done():
    work, seen = Steps(), []
    job = Job(work, "ten <steps>")
    job.watchers.append(lambda: seen.append(job.state))
    assert job.widget is not None
    job.start()
    job.start()  # pressed twice: it runs once
    assert job.busy and job.go.disabled and not job.halt.disabled
    work.allow()
    assert job.result() == 10 and job.state == "done" and job.share == 1
    assert work.threads == [work.threads[0]] != [threading.current_thread()]
    assert seen[0] == "running" and seen[-1] == "done"
    assert "&lt;steps&gt;" in job.text.value and job.go.disabled and job.halt.disabled


def test_stop_and_resume():
    work = Steps()
    job = Job(work)
    assert job.widget is not None
    job.start()
    work.allow(3)
    job.stop()
    assert job.state == "stopping" and job.halt.disabled
    work.allow(1)
    assert job.wait(20) and job.state == "stopped" and job.go.description == "Resume"
    work.allow()
    assert job.result() == 10


def test_a_stopped_job_says_so_where_it_is_waited_for():
    work = Steps()
    job = Job(work, "some work")
    job.start()
    threading.Timer(0.3, lambda: (job.stop(), work.allow(1))).start()
    with pytest.raises(KeyboardInterrupt, match="some work was stopped"):
        job.result()


def test_a_failure_is_shown_and_raised_once_then_tried_again():
    tries = []

    def work():
        tries.append(1)
        if len(tries) == 1:
            raise InputError("a <b>", "none", "Bring one.")
        return "good"

    job = Job(work)
    assert job.widget is not None
    job.start()
    job.wait(20)
    assert job.state == "failed" and "&lt;b&gt;" in job.note.value and not job.go.disabled
    with pytest.raises(InputError, match="Bring one"):
        job.result()
    assert len(tries) == 1, "a failure that was not seen yet is not tried again behind the reader's back"
    assert job.result() == "good" and job.note.value == ""


def test_an_error_that_is_unexpected_is_shown_and_logged():
    """In a callback it would be in the log alone, and the reader would press a dead button."""
    panel = Panel()
    with pytest.raises(ZeroDivisionError):
        panel.guarded(lambda: 1 / 0)()
    assert "ZeroDivisionError: division by zero" in panel.note.value


def test_watchers_can_fail_and_press_buttons(monkeypatch):
    """A chart that cannot be drawn must not end hours of training; a watcher that stops the work must not hang it."""
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)
    work = Steps()
    job = Job(work)
    job.watchers += [lambda: 1 / 0, lambda: job.stop() if work.done >= 2 else None]
    job.start()
    work.allow()
    assert job.wait(20) and job.state == "stopped" and 2 <= work.done < 10


def test_without_anybody_to_press_buttons_it_runs_in_the_cell(monkeypatch):
    """A headless notebook then has the usual progress line, and signals reach the work."""
    work = Steps()
    work.allow()
    assert Job(work).result() == 10 and work.threads == [threading.current_thread()]
    other = Steps()
    other.allow()
    monkeypatch.setattr(job_module, "live", lambda: True)
    assert Job(other).result() == 10 and other.threads != [threading.current_thread()]


def test_training_gives_the_stop_button_back():
    """What follows training in the same job, for instance scoring, stops at its next update again."""
    found = []

    def work():
        listener = ProgressListener(lambda line, share: None)
        with listening(listener):
            with stop_signal() as stopping:
                found.append((listener.graceful, stopping is listener.stopping))
            found.append(listener.graceful)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(True, True), False]


def test_one_at_a_time(tmp_path):
    with exclusive_lock(tmp_path, "training"):
        with pytest.raises(InputError, match="Stop that one first"), exclusive_lock(tmp_path, "training"):
            pass
    with exclusive_lock(tmp_path, "training"):
        pass


SCRIPT = """
import sys, time, egstalker_nb as egs
from egstalker_nb.notebook import widgets
cfg = egs.load_config("production", iterations=5000, coarse_iterations=4000, plane_resolution=[8, 16])
panel = widgets.TrainingPanel(egs.load_dataset(sys.argv[1]), cfg, sys.argv[2], device="cpu")
panel.start()
while panel.job.busy and not panel.job.line.startswith("train"):
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_the_end_of_the_kernel_stops_training_and_keeps_it(tiny_dataset, tmp_path):
    """A thread that Python ends in the middle of a step would lose everything since the last checkpoint."""
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tiny_dataset.root), str(run)], capture_output=True,
                          text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-800:]
    (kept,) = (run / "checkpoints").iterdir()
    assert (kept / "state.json").is_file() and not kept.name.startswith(".")
