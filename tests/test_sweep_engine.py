"""Protects: a sweep from its file to its results, with Ray on this computer."""
import os
import threading
import time

import duckdb
import pandas
import pytest
from made_up_sweeps import METRICS, make_sweep, ran, states

from egstalker_nb import cli
from egstalker_nb.scheduling import report, sweep_file
from egstalker_nb.scheduling.sweep import load_sweep


@pytest.fixture(autouse=True)
def no_report(embedded_ray, monkeypatch):
    """The report has tests of its own; here its notebook would take most of the time."""
    monkeypatch.setattr(report, "write_report", lambda sweep: None)


def test_from_the_file_to_the_results(tmp_path, capsys, monkeypatch):
    """One of three runs fails; the second call repeats only that one, and the results hold all of them."""
    monkeypatch.setenv("EGS_TEST", "1")
    cell = "assert number != 2 or (Path(place) / 'plug').exists(), 'the plug is out'"
    make_sweep(tmp_path, cell, numbers=[1, 2, 3])
    command = ["sweep", str(tmp_path / "some.yaml"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    told = capsys.readouterr()
    assert "1 failed, 2 finished" in told.err and "the plug is out" in told.out
    (tmp_path / "plug").touch()
    assert cli.main(command) == 0 and "3 finished" in capsys.readouterr().out
    assert [ran(tmp_path, n) for n in (1, 2, 3)] == [1, 2, 1]
    frame = pandas.read_parquet(tmp_path / "out" / "results.parquet")
    assert list(frame["state"]) == ["finished"] * 3 and list(frame["parameter.number"]) == [1, 2, 3]
    query = f"select run, attempt from '{tmp_path}/out/results.parquet' where attempt > 1"
    assert duckdb.sql(query).fetchall() == [(frame["run"][1], 2)]


def test_a_failed_run_is_started_again_as_often_as_the_file_says(tmp_path):
    sweep = make_sweep(tmp_path, "assert len((Path(place) / 'ran-1').read_text()) > 2", numbers=[1], retries=2).run()
    assert states(sweep) == ["finished"] and ran(tmp_path, 1) == 3


def test_ctrl_c_stops_all_runs_and_the_next_call_continues_them(tmp_path):
    waits = "for _ in range(600):\n    if (Path(place) / 'go').exists():\n        break\n    time.sleep(1)"
    sweep = make_sweep(tmp_path, waits, numbers=[1, 2, 3])

    def interrupt():
        if ran(tmp_path, 1) and ran(tmp_path, 2):
            raise KeyboardInterrupt

    sweep.watchers.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    assert states(sweep) == ["queued"] * 3 and ran(tmp_path, 3) == 0
    (tmp_path / "go").touch()
    assert states(load_sweep(tmp_path / "out").run()) == ["finished"] * 3
    assert [ran(tmp_path, n) for n in (1, 2, 3)] == [2, 2, 1]


def test_a_second_call_while_one_is_at_work_is_told_so(tmp_path, capsys):
    sweep = make_sweep(tmp_path, "while not (Path(place) / 'go').exists():\n    time.sleep(0.1)", numbers=[1])
    thread = threading.Thread(target=sweep.run)
    thread.start()
    while not ran(tmp_path, 1):
        time.sleep(0.1)
    arguments = [str(tmp_path / "some.yaml"), "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *arguments]) == 2 and "another sweep" in capsys.readouterr().err
    assert cli.main(["sweep", *arguments, "--show"]) == 0 and "running" in capsys.readouterr().out  # looking is free
    (tmp_path / "go").touch()
    thread.join(300)
    assert states(sweep) == ["finished"] and ran(tmp_path, 1) == 1


def test_runs_wait_for_their_dataset_and_fail_with_it(tmp_path, monkeypatch, sample_clip):
    """The preparation is a run like any other; here a notebook stands in for it that refuses one of two videos."""
    from made_up_sweeps import write_notebook

    books = tmp_path / "books"
    books.mkdir()
    write_notebook(books / "01_data_prep.ipynb", "import time; from pathlib import Path; time.sleep(1)\n"
                   "assert 'good' in video, 'no face'\nPath(dataset).mkdir()", parameters='video = ""\ndataset = ""')
    monkeypatch.setattr(sweep_file, "NOTEBOOK_DIR", books)
    for name in ("good.mp4", "bad.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    cell = "assert Path(dataset).is_dir() and Path(dataset).name == 'dataset'"
    sweep = make_sweep(tmp_path, numbers=[1])
    write_notebook(tmp_path / "book.ipynb", "from pathlib import Path", cell, parameters='dataset = ""\nnumber = 0')
    (tmp_path / "some.yaml").write_text((tmp_path / "some.yaml").read_text().replace(
        f"base:\n  place: {tmp_path}", "videos: [good.mp4, bad.mp4]"))
    sweep = load_sweep(tmp_path / "some.yaml", tmp_path / "videos").run()
    assert states(sweep) == ["finished", "failed", "finished", "failed"]
    assert "no face" in sweep.rows()[1]["error"] and "not prepared" in sweep.rows()[3]["error"]


def test_halving_ends_hopeless_runs_early_and_keeps_the_best(tmp_path):
    """Three made-up trainings, the best first: the last must end at one of its first rungs, and can be resumed."""
    sweep = make_sweep(tmp_path, METRICS, numbers=[3, 2, 1], halving={"first": 20, "reduction": 2}).run()
    found = {row["run"]: row for row in sweep.rows()}
    kept, *others = [found[run.id] for run in sweep.runs]
    assert kept["state"] == "finished" and kept["best"] and sweep.best()["run"] == kept["run"]
    assert others[-1]["state"] == "pruned" and others[-1]["val_psnr"] < 25
    assert os.listdir(sweep.run_folder(others[-1]["run"]).notebooks) == ["book.ipynb"]
    sweep.resume(others[-1]["run"])
    assert states(sweep)[-1] == "queued"
