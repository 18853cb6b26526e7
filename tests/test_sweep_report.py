"""Protects: the report of a sweep: what is called the best and how far that holds, figures of few and of many runs, and
that it comes whatever the runs came to."""
import ast
import json
import shutil
import warnings
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_sweeps import write_notebook

import egstalker_nb as egs
from egstalker_nb.core.errors import EgsError
from egstalker_nb.notebook import plots, sweep_figures
from egstalker_nb.notebook.exercises import notebook_09
from egstalker_nb.notebook.widgets import sweep_plots
from egstalker_nb.rendering.inspection import ground_truth
from egstalker_nb.scheduling import ranking, report
from egstalker_nb.scheduling.ranking import SeedGroup, Verdict, spread_over_seeds
from egstalker_nb.scheduling.runner import NOTEBOOK_DIR
from egstalker_nb.scheduling.sweep import Sweep

PARAMETERS = 'run = ""\nrate = 0.0\nname = ""\noverrides = {}'
TRAINING = 'dataset = ""\nrun = ""\nconfig = ""\noverrides = {}'
scores = st.lists(st.lists(st.floats(10, 40), min_size=1, max_size=5), min_size=1, max_size=6)


def opened(folder, parameters=PARAMETERS, **entries):
    """A sweep of a notebook that is never executed; ended as each test says."""
    write_notebook(folder / "book.ipynb", parameters=parameters)
    (folder / "some.yaml").write_text(yaml.safe_dump({"notebooks": ["book.ipynb"], **entries}))
    return egs.load_sweep(folder / "some.yaml", folder / "out")


def end(sweep, run, state="finished", log=(), **results):
    """A run that has ended so, with these scores, and these validation PSNRs every 10 iterations in its log."""
    folder = sweep.run_folder(run)
    facts = {"error": "ValueError: a <b> & c", "cell": "cell [3] `x = 1`"} if state == "failed" else {}
    folder.set_state(state, node="here", started=1.0, seconds=60.0, results=results, **facts)
    if log:
        folder.head.mkdir(parents=True, exist_ok=True)
        rows = [{"kind": "train", "iteration": 10 * i, "it_per_s": 5.0} for i in range(1, len(log) + 1)]
        rows += [{"kind": "eval", "iteration": 10 * i, "val_psnr": psnr} for i, psnr in enumerate(log, 1)]
        (folder.head / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# ---- the best setting ----

def groups_of(values):
    return [SeedGroup("", {"rate": k}, [""] * len(some), some) for k, some in enumerate(values)]


@settings(max_examples=40, deadline=None)
@given(scores, st.floats(-5, 5))
def test_the_spread_over_seeds_is_that_of_the_deviations(values, shift):
    """It depends on no mean, and is the root mean square of all deviations, for n - 1 of each setting."""
    spread = spread_over_seeds(groups_of(values))
    if all(len(some) == 1 for some in values):
        assert spread is None
        return
    deviations = np.concatenate([np.array(some) - np.mean(some) for some in values])
    assert spread == pytest.approx(np.sqrt((deviations**2).sum() / (len(deviations) - len(values))), abs=1e-9)
    moved = [[value + shift * k for value in some] for k, some in enumerate(values)]
    assert spread_over_seeds(groups_of(moved)) == pytest.approx(spread, abs=1e-6)


@pytest.mark.parametrize("values, said", [
    ([[30.0, 30.2], [29.0, 29.2]], "exceeds"), ([[30.0, 31.0], [29.9, 30.9]], "within"),
    ([[30.0], [29.0]], "one seed"), ([[30.0, 30.1]], "No other setting")])
def test_a_lead_is_measured_against_the_spread(values, said):
    best, *others = groups_of(values)
    assert said in Verdict(best, others[0] if others else None, spread_over_seeds([best, *others])).remark


@pytest.mark.parametrize("metric, best", [("val_psnr", 0.3), ("loss", 0.1)])
def test_runs_that_differ_only_in_the_seed_are_one_setting_and_unfinished_ones_do_not_count(tmp_path, metric, best):
    sweep = opened(tmp_path, grid={"rate": [0.1, 0.2, 0.3]}, seeds=[0, 1], best=metric)
    for run in sweep.runs:
        rate, seed = run.varied["rate"], run.varied["overrides.seed"]
        end(sweep, run, "pruned" if rate == 0.2 else "finished", **{metric: 100 * (rate == 0.2) + rate + seed / 10})
    groups = ranking.seed_groups(sweep)
    assert [group.settings["rate"] for group in groups] == pytest.approx([best, 0.4 - best])
    assert groups[0].mean == pytest.approx(best + 0.05) and groups[0].std == pytest.approx(np.std([0, 0.1], ddof=1))
    assert groups[0].name == f"rate {best}" and len(ranking.settings_table(sweep).rows) == 2


def test_each_dataset_has_a_best_setting_of_its_own(tmp_path, tiny_dataset):
    """A clip that is easier must not decide which setting is best."""
    shutil.copytree(tiny_dataset.root, tmp_path / "easy")
    shutil.copytree(tiny_dataset.root, tmp_path / "hard")
    meta = json.loads((tmp_path / "hard" / "dataset.json").read_text())
    (tmp_path / "hard" / "dataset.json").write_text(json.dumps({**meta, "hash": "0" * 16}))
    sweep = opened(tmp_path, TRAINING, datasets=["easy", "hard"], base={"config": "quick_test"},
                   grid={"overrides.batch_size": [1, 2]})
    for run, psnr in zip(sweep.runs, (40.0, 39.0, 20.0, 21.0)):
        end(sweep, run, val_psnr=psnr)
    assert [(v.best.dataset, v.best.settings) for v in ranking.verdicts(sweep)] == [
        ("easy", {"overrides.batch_size": 1}), ("hard", {"overrides.batch_size": 2})]
    assert ranking.runs_to_show(sweep) == [run.id for run in sweep.runs[:2]], "frames of one clip only"
    (sweep.folder / "sweep.yaml").write_text(sweep.file.text)
    assert egs.load_sweep(sweep.folder).runs == sweep.runs, "datasets are named as seen from the file, not its copy"


# ---- figures ----

@pytest.mark.parametrize("values, labels, places", [
    ([1, 2, 3], ["1", "2", "3"], [0, 0.5, 1]),
    ([0.001, 0.1, 10.0], ["0.001", "0.1", "10"], [0, 0.5, 1]),                    # logarithmic
    (["a", "b", "a"], ["a", "b"], [0.25, 0.75, 0.25]),
    ([True, False, True], ["yes", "no"], [0.25, 0.75, 0.25]),
    ([5, None, 7], ["5", "7", "-"], [0.12, 0, 1]),
    ([None, None, None], ["-"], [0.5, 0.5, 0.5]),
    ([4.0, 4.0, 4.0], ["4"], [0.5, 0.5, 0.5])])
def test_axes_of_parallel_coordinates(values, labels, places):
    axis = sweep_plots.axis_of("x", values)
    assert [name for _, name in axis.ticks] == labels
    assert axis.places.tolist() == pytest.approx(places)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-9, 9), st.floats(), st.text(max_size=3)), min_size=1, max_size=30))
def test_axes_take_any_values(values):
    axis = sweep_plots.axis_of("x", values)
    places = [*axis.places, *[at for at, _ in axis.ticks]]
    assert len(axis.places) == len(values) and all(0 <= at <= 1 for at in places)
    assert len(axis.ticks) <= sweep_plots.MAX_TICKS + 1


def test_many_runs_stay_few_traces_and_the_best_is_on_top(tmp_path):
    sweep = opened(tmp_path, grid={"rate": [k / 100 for k in range(40)]})
    for k, run in enumerate(sweep.runs):
        end(sweep, run, log=[20.0, 21 + k / 100], val_psnr=21 + (k * 7 % 40) / 100, seconds_training=float(k + 1))
    best = max(sweep.rows(), key=lambda row: row["val_psnr"])["run"]
    lines = sweep_plots.parallel_coordinates(sweep, tmp_path).figure.data
    assert [trace.name for trace in lines] == [*sweep_plots.FIFTH_NAMES, "best run"]
    assert sum(y is None for trace in lines[:5] for y in trace.y) == 40 and best in lines[-1].text[0]
    curves = sweep_plots.sweep_curves(sweep, tmp_path).figure
    assert [trace.name for trace in curves.data][:2] == ["other runs", best]
    by_time = curves.layout.updatemenus[0].buttons[1].args[0]["x"]
    assert by_time[1] == [2.0, 4.0] and len(by_time) == len(curves.data)
    points, front = sweep_plots.score_against_cost(sweep, tmp_path).figure.data
    assert len(points.x) == 40 and list(front.x) == sorted(front.x) and max(front.y) == max(points.y)
    assert {"sweep_parallel.png", "sweep_curves.png", "sweep_cost.png"} <= {p.name for p in tmp_path.rglob("*.png")}


def test_names_are_text_and_no_markup(tmp_path):
    sweep = opened(tmp_path, grid={"name": ["<img src=x>", "$a_{", "%{y}"]})
    for run in sweep.runs:
        end(sweep, run, val_psnr=20.0, seconds_training=3.0)
    for plot in (sweep_plots.parallel_coordinates(sweep, tmp_path), sweep_plots.score_against_cost(sweep, tmp_path)):
        text = json.dumps(json.loads(plot.figure.to_json())["data"] + plot.figure.to_plotly_json()["layout"].get(
            "annotations", []), default=str)
        assert "<img" not in text and '"%{y}"' not in text
    plots.finish(sweep_figures.seed_spread(sweep), tmp_path, "seeds")


def test_frames_of_the_best_and_the_worst_beside_the_video(tmp_path, tiny_dataset, monkeypatch):
    """Runs whose head is lost are left out; with none left, the figure says why."""
    sweep = opened(tmp_path, TRAINING, datasets=[str(tiny_dataset.root)], seeds=[0, 1, 2, 3, 4, 5],
                   base={"config": "quick_test"})
    for k, run in enumerate(sweep.runs):
        end(sweep, run, val_psnr=20.0 + k)
    lost = {sweep.runs[4].id}

    def load(head, dataset):
        assert dataset == tiny_dataset.root, "the sweep may have been moved"
        if head.parent.name in lost:
            raise EgsError("a run folder", "nothing", "Train again.")
        return SimpleNamespace(dataset=tiny_dataset, pick=lambda: 10)

    monkeypatch.setattr(sweep_figures, "load_run", load)
    monkeypatch.setattr(sweep_figures.Renderer, "from_run", lambda run, device: run)
    monkeypatch.setattr(sweep_figures, "render_frames", lambda run, ids: ground_truth(tiny_dataset, ids) // 2)
    titles = [axis.get_title() for axis in sweep_figures.frames(sweep).axes]
    columns = len([title for title in titles if title.startswith("video")])
    assert [title.split()[0] for title in titles[::columns]] == ["video,", "1.", "3.", "worst"]
    assert "val_psnr 25" in titles[columns] and "dB" in titles[-1]
    lost |= {run.id for run in sweep.runs}
    assert "cannot be shown" in sweep_figures.frames(sweep).axes[0].texts[0].get_text()


# ---- the report ----

def read(sweep, folder):
    """Execute the cells of the report notebook here, as they would be headless; what the last lines show."""
    namespace, shown = {}, []
    for cell in nbformat.read(NOTEBOOK_DIR / "09_sweep.ipynb", as_version=4).cells:
        if cell.cell_type != "code":
            continue
        *before, last = ast.parse(cell.source).body
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(before, []), cell.id, "exec"), namespace)
            value = eval(compile(ast.Expression(last.value), cell.id, "eval"), namespace)
            bundle = getattr(value, "_repr_mimebundle_", None)
            shown.append(str(bundle() if bundle else value))
        else:
            exec(compile(cell.source, cell.id, "exec"), namespace)
        if "parameters" in cell.metadata.get("tags", []):
            namespace["sweep"] = str(folder)
    return "\n".join(shown)


@pytest.fixture
def no_start(monkeypatch):
    """A report must not run anything."""
    monkeypatch.setenv("EGS_STATIC", "1")
    monkeypatch.setattr(Sweep, "run", lambda *_: pytest.fail("the report has started the sweep"))


CASES = {
    "all kinds of ends": (dict(grid={"rate": [0.1, 0.2, 0.3]}, seeds=[0, 1]),
                          ["finished", "finished", "failed", "pruned", "stopped", "queued"]),
    "one run": ({}, ["finished"]),
    "nothing was run": (dict(grid={"rate": [0.1, 0.2]}), []),
    "all failed": (dict(grid={"rate": [0.1, 0.2]}), ["failed", "failed"]),
    "another score": (dict(grid={"rate": [0.1, 0.2]}, best="error_of_mine"), ["finished", "finished"]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_report_comes_whatever_the_runs_came_to(tmp_path, no_start, name):
    entries, states = CASES[name]
    sweep = opened(tmp_path, **entries)
    for k, (run, state) in enumerate(zip(sweep.runs, states)):
        scored = state in ("finished", "pruned") and "best" not in entries
        end(sweep, run, state, log=[20.0, 21.0] if scored else (), **({"val_psnr": 21.0 + k} if scored else {}))
    (sweep.folder / "runs").mkdir(parents=True, exist_ok=True)
    (sweep.folder / "sweep.yaml").write_text(sweep.file.text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        said = read(sweep, sweep.folder)
    assert ("cell [3] `x = 1`" in said) == ("failed" in states)
    assert ("No run has the score" in said) == ("val_psnr" not in str(sweep.rows()))
    assert "passed" in said and "not answered yet" in said


def test_exercises_accept_what_their_solutions_give(tmp_path):
    from solutions import solved

    sweep = opened(tmp_path, grid={"rate": [0.1, 0.2]}, seeds=[0, 1, 2])
    for k, run in enumerate(sweep.runs):
        end(sweep, run, val_psnr=20.0 + k * k / 10)
    asked, values = notebook_09.sweeps(sweep), np.array(ranking.seed_groups(sweep)[0].values)
    given = [solved(item, loaded=sweep, scores=values, n=len(values)) for item in asked.items]
    assert given[:2] == [10, 6.0] and asked.verify(*given).verdicts == ["right"] * 3
    assert asked.verify(6, 1.0, 5.0).verdicts == ["wrong"] * 3


def test_a_report_that_fails_is_said_and_does_not_fail_the_sweep(tmp_path, monkeypatch):
    sweep, given = opened(tmp_path), []

    def fails(*args):
        given.extend(args)
        raise EgsError("a report", "a full disk", "Make room.")

    monkeypatch.setattr(report, "execute", fails)
    with pytest.warns(UserWarning, match="a full disk"):
        assert report.write_report(sweep) is None
    assert given[:3] == [NOTEBOOK_DIR / "09_sweep.ipynb", sweep.folder / "notebooks" / "09_sweep.ipynb",
                         {"sweep": str(sweep.folder)}]
