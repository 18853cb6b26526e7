"""Protects: one run of a sweep on its worker: finished once, failed with its cell, stopped in order, continued."""
import threading
import time

import nbformat
import pytest
from made_up_sweeps import NOTE, make_sweep, ran, states, write_notebook

from egstalker_nb.core.files import exclusive_lock
from egstalker_nb.scheduling import worker
from egstalker_nb.scheduling.sweep import load_sweep
from egstalker_nb.scheduling.worker import work

SLEEP = "time.sleep(600)"


def start(sweep, number=0):
    """Execute the run with this index here, as a worker does."""
    run = sweep.runs[number]
    sources = {path.stem: path.read_text() for path in sweep.file.notebooks_of(run)}
    return work(sweep._task(run), sources)


def wait_for(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_is_kept_with_its_notebook_and_not_repeated(tmp_path):
    sweep = make_sweep(tmp_path, "print('seen', number)", numbers=[7])
    assert (start(sweep), start(sweep), ran(tmp_path, 7)) == ("finished", "finished", 1)
    folder = sweep.run_folder(sweep.runs[0])
    saved = nbformat.read(folder.notebooks / "book.ipynb", as_version=4)
    assert saved.cells[-1].outputs[0].text == "seen 7\n" and "seen 7" in (folder.root / "log.txt").read_text()
    assert folder.state["attempt"] == 1 and folder.state["node"]


def test_a_failing_cell_is_named_and_the_next_attempt_skips_what_ended_well(tmp_path):
    sweep = make_sweep(tmp_path, "assert (Path(place) / 'plug').exists(), 'the plug is out'", numbers=[1])
    first = write_notebook(tmp_path / "first.ipynb", NOTE.replace("ran-", "first-"))
    text = (tmp_path / "some.yaml").read_text().replace("- book.ipynb", f"- {first.name}\n- book.ipynb")
    (tmp_path / "some.yaml").write_text(text)
    sweep = load_sweep(tmp_path / "some.yaml", tmp_path / "out")
    assert start(sweep) == "failed"
    (row,) = sweep.failures().rows
    assert "assert (Path(place)" in row[1] and "AssertionError: the plug is out" in row[2]
    (tmp_path / "plug").touch()
    assert start(sweep) == "finished"
    assert (ran(tmp_path, 1), len((tmp_path / "first-1").read_text())) == (2, 1)
    assert sweep.run_folder(sweep.runs[0]).state["attempt"] == 2 and not sweep.failures().rows


def test_a_dead_kernel_fails_the_run_and_names_the_cell(tmp_path):
    sweep = make_sweep(tmp_path, "import os\nos._exit(9)", numbers=[1])
    assert start(sweep) == "failed"
    assert "kernel died" in sweep.rows()[0]["error"] and "import os" in sweep.rows()[0]["cell"]


def test_a_run_stops_when_it_is_asked_to_and_stays_stopped_until_it_is_resumed(tmp_path):
    sweep = make_sweep(tmp_path, f"if not (Path(place) / 'go').exists():\n    {SLEEP}", numbers=[3])
    ended = []
    thread = threading.Thread(target=lambda: ended.append(start(sweep)))
    thread.start()
    wait_for(lambda: ran(tmp_path, 3))
    assert states(sweep) == ["running"]
    sweep.stop(sweep.runs[0].id[-6:])  # the end of its name is enough
    thread.join(300)
    assert ended == ["stopped"] and start(sweep) == "stopped" and ran(tmp_path, 3) == 1
    (tmp_path / "go").touch()
    sweep.resume(sweep.runs[0])
    assert states(sweep) == ["queued"] and start(sweep) == "finished" and ran(tmp_path, 3) == 2


def test_a_run_that_was_stopped_before_its_turn_does_not_begin(tmp_path):
    sweep = make_sweep(tmp_path, numbers=[1])
    sweep.stop(sweep.runs[0])
    assert start(sweep) == "stopped" and ran(tmp_path, 1) == 0


def test_a_run_waits_for_the_worker_that_is_dying_and_not_for_ever(tmp_path, monkeypatch):
    """The kernel of a node that was lost may still be writing: two at once would spoil the training."""
    sweep = make_sweep(tmp_path, numbers=[1])
    root = sweep.run_folder(sweep.runs[0]).root
    root.mkdir(parents=True)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    with exclusive_lock(root, "run"):
        threading.Timer(0.5, lambda: (root / "let-go").touch()).start()
        monkeypatch.setattr(worker, "LOCK_SECONDS", 0.3)
        with pytest.raises(worker.InputError, match="another run"):
            start(sweep)
    assert start(sweep) == "finished"


def test_another_version_of_the_kit_on_a_node_is_said(tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path, numbers=[1])
    task = sweep._task(sweep.runs[0])
    monkeypatch.setattr(worker, "__version__", "0.0.9")
    assert work(task, {}) == "failed" and "0.0.9" in sweep.rows()[0]["error"]


def test_a_run_whose_dataset_was_not_prepared_fails_without_beginning(tmp_path):
    sweep = make_sweep(tmp_path, numbers=[1])
    assert work(sweep._task(sweep.runs[0]), {}, "failed") == "failed"
    assert "was not prepared" in sweep.rows()[0]["error"] and ran(tmp_path, 1) == 0


def test_a_kernel_that_does_not_start_is_started_again(tmp_path, monkeypatch):
    """Of a thousand kernels some meet a port that another program took meanwhile; no cell has begun by then."""
    import papermill

    real, failures = papermill.execute_notebook, ["Kernel died before replying to kernel_info"] * 2

    def fails_first(*args, **more):
        if failures:
            raise RuntimeError(failures.pop())
        return real(*args, **more)

    monkeypatch.setattr(papermill, "execute_notebook", fails_first)
    sweep = make_sweep(tmp_path, numbers=[1])
    assert start(sweep) == "finished" and ran(tmp_path, 1) == 1 and not failures
    failures.extend(["Kernel didn't respond in 60 seconds"] * 9)
    other = make_sweep(tmp_path, numbers=[2])
    assert start(other) == "failed" and "kernel did not start" in other.rows()[0]["error"] and len(failures) == 6
