"""Protects: what a terminal shows of a sweep: live where it can be rewritten, a line for each change elsewhere."""
import sys

import pytest
import rich
from made_up_sweeps import make_sweep
from rich.console import Console

from egstalker_nb.core.errors import InputError
from egstalker_nb.scheduling import live_table
from egstalker_nb.scheduling.live_table import show_live


@pytest.fixture
def sweep(tmp_path):
    """Five runs: finished with 21, 25 and 23 dB, one failed, one queued."""
    made = make_sweep(tmp_path, numbers=[1, 2, 3, 4, 5])
    for run, psnr in zip(made.runs, (21.0, 25.0, 23.0)):
        made.run_folder(run).set_state("finished", node="here", results={"val_psnr": psnr})
    made.run_folder(made.runs[3]).set_state("failed", error="[red]out of plugs[/red]", cell="cell [3]")
    return made


def drawn(sweep, *choice, **more) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    console.print(live_table._rich(sweep, *choice, **more))
    return console.export_text()


def test_rows_are_sorted_filtered_and_marked(sweep):
    lines = drawn(sweep, "-val_psnr", "finished").splitlines()
    shown = [float(word) for line in lines for word in line.split() if word in ("21", "25", "23")]
    assert shown == [25, 23, 21] and "failed" not in "\n".join(lines[3:])
    assert [line for line in lines if "yes" in line] == [line for line in lines if " 25 " in line]
    with pytest.raises(InputError, match="a column to sort by"):
        sweep.table("psnrr")


def test_of_more_rows_than_fit_the_urgent_ones_come_first(sweep):
    text = drawn(sweep, "", "", height=2)
    best = sweep.runs[1].id
    assert "failed" in text and "3 more" in text and best not in text
    assert best in drawn(sweep, "", "")


def test_a_log_gets_a_line_for_each_change(sweep, capsys):
    with show_live(sweep):
        (watch,) = sweep.watchers
        watch()
        assert capsys.readouterr().out == ""
        sweep.run_folder(sweep.runs[4]).set_state("finished", results={"val_psnr": 22.5})
        watch()
        assert capsys.readouterr().out == f"{sweep.runs[4].id}: finished, 22.50 dB\n"


@pytest.mark.parametrize("notebook", [False, True])
def test_a_terminal_gets_the_table(sweep, capsys, monkeypatch, notebook):
    """Also where something else in this process made rich believe that it draws in a notebook."""
    monkeypatch.setattr(rich.get_console(), "is_jupyter", notebook)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(live_table, "REFRESH_SECONDS", 0)
    with show_live(sweep, "-val_psnr"):
        sweep.watchers[0]()
    assert "val" in capsys.readouterr().out


def test_what_is_said_at_the_end_names_the_failures_and_the_best(sweep):
    said = sweep.closing()
    assert "[red]out of plugs[/red]" in said and "best by highest val_psnr" in said and "(25.00)" in said
