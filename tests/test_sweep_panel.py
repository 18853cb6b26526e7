"""Protects: the panel of a sweep: what its table shows of few and of many runs, and what its buttons do."""
import threading
import time

import pytest
from made_up_sweeps import make_sweep

from egstalker_nb.core.errors import InputError
from egstalker_nb.core.files import exclusive_lock, make_folder
from egstalker_nb.core.progress import Progress
from egstalker_nb.notebook import widgets
from egstalker_nb.notebook.widgets import sweep_panel

STATES = ["finished", "running", "failed", "queued", "stopped"]


@pytest.fixture
def sweep(tmp_path):
    """One run in each of these states; the score is the number."""
    made = make_sweep(tmp_path, numbers=[10, 20, 30, 40, 50])
    for run, state in zip(made.runs, STATES):
        facts = {"error": "ValueError: a <b>", "cell": "cell [3] `x < 1`"} if state == "failed" else {}
        if state != "queued":
            made.run_folder(run).set_state(state, node="here", started=time.time(), **facts,
                                           results={"val_psnr": float(run.parameters["number"])})
    return made


@pytest.fixture
def panel(sweep):
    made = widgets.SweepPanel(sweep)
    assert made.widget is not None
    return made


def numbers(panel):
    """The runs that are shown, in their order."""
    return [row["number"] for row in panel.rows()]


def wait_for(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- the table ----

def test_the_table_is_sorted_and_filtered_by_its_controls(panel):
    assert numbers(panel) == [10, 20, 30, 40, 50]
    panel.order.value, panel.high.value = "val_psnr", True
    assert numbers(panel) == [50, 30, 20, 10, 40], "those without a score come last"
    panel.order.value, panel.high.value = "number", False
    panel.words.value = "HERE"
    assert numbers(panel) == [10, 20, 30, 50] and "4 of 5 runs fit" in panel.facts.value
    panel.states.value = "failed"
    assert numbers(panel) == [30] and panel.table.value.count("<tr") == 3  # heading, run, its error
    panel.words.value = "nothing like it"
    assert numbers(panel) == [] and "1 failed" in panel.facts.value


def test_failures_stand_below_their_runs_as_text_and_the_best_is_marked(panel, sweep):
    assert "cell [3] `x &lt; 1`: ValueError: a &lt;b&gt;" in panel.table.value and "<b>" not in panel.table.value
    finished = [row for row in sweep.rows() if row["state"] == "finished"]  # others may still change
    best = max(finished, key=lambda row: row["val_psnr"])["run"]
    bold = panel.table.value.split("font-weight:bold")[1].split("</tr>")[0]
    assert best in bold and ">best<" in bold and best in panel.facts.value


def test_of_many_runs_the_urgent_ones_are_shown_and_the_others_counted(sweep, monkeypatch):
    monkeypatch.setattr(sweep_panel, "MAX_ROWS", 2)
    panel = widgets.SweepPanel(sweep)
    assert panel.widget is not None and "3 more are not" in panel.facts.value
    assert numbers(panel)[:2] == [20, 30] and len(panel.picked.options) == 3
    assert len(panel.still().rows) == 2 and "3 more" in panel.still().caption


def test_the_static_form_is_a_table(panel):
    shown = panel._repr_mimebundle_()
    assert "finished" in shown["text/plain"] and "<table>" in shown["text/html"]


# ---- one run ----

def test_one_run_is_stopped_and_resumed(panel, sweep):
    assert panel.halt.disabled and panel.onward.disabled
    running, stopped = sweep.runs[1], sweep.runs[4]
    panel.picked.value = running.id
    panel.halt.click()
    assert sweep.run_folder(running).stop_requested == "stopped" and "asked to stop" in panel.note.value
    panel.picked.value = stopped.id
    panel.onward.click()
    assert sweep.run_folder(stopped).state["state"] == "queued"
    panel.words.value = running.id
    assert panel.run == "" and panel.halt.disabled, "a run that is not shown any more"
    with pytest.raises(InputError, match="one run"):
        panel.stop_run("no such run")


# ---- the whole sweep ----

@pytest.fixture
def slow(monkeypatch):
    """In place of `Sweep.run`: goes on until it is let go or stopped, then all runs are finished."""
    going = threading.Event()

    def run(self, address=None):
        with Progress(len(self.runs), "sweep", "run") as bar:
            while not going.wait(0.02):
                bar.update(0)
        for planned in self.runs:
            self.run_folder(planned).set_state("finished")
        return self

    monkeypatch.setattr("egstalker_nb.scheduling.sweep.Sweep.run", run)
    monkeypatch.setattr(sweep_panel, "REFRESH_SECONDS", 0.05)
    return going


def test_start_stop_and_start_again(sweep, slow):
    panel = widgets.SweepPanel(sweep)
    assert panel.widget is not None
    panel.job.go.click()
    wait_for(lambda: panel.job.state == "running" and panel._follower is not None)
    follower = panel._follower
    sweep.run_folder(sweep.runs[3]).set_state("running", started=time.time())
    wait_for(lambda: "2 running" in panel.facts.value)  # without a click
    panel.job.halt.click()
    assert panel.job.wait(60) and panel.job.state == "stopped"
    follower.join(300)
    assert not follower.is_alive(), "nothing is refreshed when nothing runs"
    slow.set()
    panel.job.go.click()
    assert panel.job.wait(60) and panel.job.state == "done" and "5 finished" in panel.facts.value


def test_failed_runs_can_be_started_again(sweep, slow):
    panel = widgets.SweepPanel(sweep)
    assert panel.widget is not None
    panel.job.work = lambda: sweep.run_folder(sweep.runs[0]).set_state("failed")
    panel.start()
    assert panel.job.wait(60)
    wait_for(lambda: panel.job.state == "idle")
    assert not panel.job.go.disabled


def test_a_sweep_of_another_process_is_followed(sweep, slow):
    with exclusive_lock(make_folder(sweep.folder), "sweep"):
        panel = widgets.SweepPanel(sweep)
        assert panel.widget is not None and "it is running already" in panel.facts.value
        assert panel.job.go.disabled and panel._follower.is_alive()
        sweep.run_folder(sweep.runs[3]).set_state("running", started=time.time())
        wait_for(lambda: "2 running" in panel.facts.value)
    panel._follower.join(300)
    assert not panel.job.go.disabled and "running already" not in panel.facts.value


def test_the_result_is_waited_for_where_people_are_and_nothing_is_started_elsewhere(sweep, slow, monkeypatch):
    panel = widgets.SweepPanel(sweep)
    assert panel.result() is sweep and panel.job.state == "idle"
    monkeypatch.setattr(sweep_panel, "live", lambda: True)
    slow.set()
    assert panel.result() is sweep and {row["state"] for row in sweep.rows()} == {"finished"}
    sweep.run_folder(sweep.runs[0]).set_state("failed")
    again = widgets.SweepPanel(sweep)
    assert again.result() is sweep and again.job.state == "idle", "a report does not try failed runs again"
