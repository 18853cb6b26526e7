"""Protects: the panels of notebook 05 offer only what can be compared, and show what was chosen, without a browser."""
import json
import shutil
import threading

import numpy as np
import pytest
from solutions import solved

import egstalker_nb as egs
from egstalker_nb import notebook
from egstalker_nb.analysis import cost, frame_cache
from egstalker_nb.core.errors import InputError
from egstalker_nb.notebook import exercises, widgets
from egstalker_nb.notebook.exercises.notebook_05 import common_level, comparison
from egstalker_nb.notebook.widgets import base, comparison_panel, comparison_plots

SHORT = dict(iterations=12, coarse_iterations=6, batch_size=1, plane_resolution=[8, 16], eval_interval=4)


@pytest.fixture(scope="module")
def runs(tiny_dataset, tmp_path_factory):
    """Two runs on one dataset, and one that says it is of another."""
    folder = tmp_path_factory.mktemp("runs")
    made = [egs.train(tiny_dataset, egs.load_config("quick_test", **{**SHORT, **more}), folder / name, device="cpu")
            for name, more in (("one", {}), ("two", {"batch_size": 2, "lambda_mask": 0.0}))]
    shutil.copytree(made[0].root, folder / "stranger")
    path = folder / "stranger" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset_hash": "0123456789ab"}))
    return made


@pytest.fixture(scope="module")
def result(runs):
    return egs.compare(runs)


@pytest.fixture
def chooser(runs, tiny_dataset):
    return widgets.RunChooser([runs[0].root], tiny_dataset.root, [runs[0].root.parent])


def names(chooser):
    return [p.name for p in chooser.ticked]


# ---- choosing runs ----

def test_named_runs_are_ticked_and_others_found(chooser):
    assert [f.path.name for f in chooser.found] == ["one", "two", "stranger"] and names(chooser) == ["one"]
    chooser.tick(chooser.found[1].path)
    assert [r.root.name for r in chooser.chosen()] == ["one", "two"]
    assert [r.root.name for r in chooser.others()] == ["stranger"]
    chooser.tick(chooser.found[0].path, False)
    assert names(chooser) == ["two"]


def test_without_names_all_of_the_dataset_are_compared(runs, tiny_dataset):
    chooser = widgets.RunChooser([], tiny_dataset.root, [runs[0].root.parent])
    assert names(chooser) == ["one", "two"]


def test_runs_of_another_dataset_are_grey_and_say_why(chooser):
    assert chooser.widget
    stranger = chooser.found[2]
    box = chooser.boxes[stranger.path]
    assert box.disabled and not box.value and "opacity:0.6" in box.description
    assert "other dataset" in chooser.cells[stranger.path][-1].value
    assert not chooser.boxes[chooser.found[1].path].disabled
    with pytest.raises(InputError, match="other dataset"):
        chooser.tick(stranger.path)
    with pytest.raises(InputError, match="not among"):
        chooser.tick("elsewhere")


def test_boxes_and_state_follow_each_other(chooser):
    assert chooser.widget
    two = chooser.found[1].path
    chooser.boxes[two].value = True
    assert names(chooser) == ["one", "two"] and "2 run(s)" in chooser.note.value
    chooser.tick(two, False)
    assert not chooser.boxes[two].value


def test_a_dataset_that_changed_is_refused(chooser, tiny_dataset):
    assert chooser.widget
    chooser.data.value = "0123456789ab"  # its folder holds the tiny dataset, whose hash differs
    assert chooser.ds.hash == chooser.data.value == tiny_dataset.hash and "0123456789ab" in chooser.note.value
    assert names(chooser) == ["one"]
    with pytest.raises(InputError, match="hash"):
        chooser.choose_dataset("nothing like it")


def test_another_dataset_greys_the_runs_of_the_first(runs, tiny_dataset, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_dataset.root, other)
    meta = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**meta, "source": "another clip"}))
    shutil.copytree(runs[1].root, tmp_path / "moved")
    manifest = {**runs[1].manifest, "dataset": "../other", "dataset_hash": egs.load_dataset(other).hash}
    (tmp_path / "moved" / "manifest.json").write_text(json.dumps(manifest))
    chooser = widgets.RunChooser([runs[0].root], tiny_dataset.root, [tmp_path])
    assert chooser.widget and names(chooser) == ["one"]
    chooser.data.value = manifest["dataset_hash"]
    assert names(chooser) == ["moved"] and chooser.boxes[runs[0].root.resolve()].disabled
    assert [r.dataset.root.name for r in chooser.chosen()] == ["other"]


def test_missing_runs_are_named(tmp_path, tiny_dataset):
    chooser = widgets.RunChooser([tmp_path / "gone"], tiny_dataset.root)
    assert "cannot be read" in str(chooser.still())
    with pytest.raises(InputError, match="gone"):
        chooser.chosen()


def test_still_form_of_the_chooser_has_all_runs(chooser):
    table = chooser.still()
    assert [row[0] for row in table.rows] == ["x", "", ""]
    assert "12 of 12" in table.rows[0] and "478" in table.rows[0] and "other dataset" in table.rows[2][-1]


# ---- the same frame ----

@pytest.fixture
def panel(result):
    return widgets.SideBySide(result)


def test_starts_with_the_widest_mouth_of_the_validation_frames(panel, result):
    ds = result.dataset
    assert panel.frame in ds.val_ids and ds.aperture[panel.frame] == max(ds.aperture[list(ds.val_ids)])


def test_controls_change_what_is_shown(panel, result):
    assert panel.widget
    wipe, heatmap, mouth = panel.wipe.view.left, panel.heatmap.value, panel.crops["mouth", "two"].value
    panel.slider.value = 2
    panel.wait()
    assert panel.frame == 2 and panel.wipe.view.left != wipe and panel.heatmap.value != heatmap
    assert panel.crops["mouth", "two"].value != mouth and "Frame 2 (training)" in panel.line.value
    panel.menus["a"].value = -1
    panel.wait()
    assert panel.wipe.view.names == ["A: ground truth", "B: two"]
    np.testing.assert_array_equal(panel.pair()[0], result.dataset.frame(2))


def test_all_three_can_be_chosen_at_once(panel):
    """The controls move one by one: the first must not bring back the old values of the others."""
    assert panel.widget
    panel.choose(a=1, b=-1, frame=4)
    assert (panel.a, panel.b, panel.frame) == (1, -1, 4) and panel.slider.value == 4
    with pytest.raises(InputError):
        panel.choose(a=7)
    with pytest.raises(InputError):
        panel.choose(frame=99)


def test_only_the_newest_frame_of_a_fast_slider_is_rendered(panel, monkeypatch):
    assert panel.widget
    begun, go, drawn = threading.Event(), threading.Event(), []

    def draw():
        drawn.append(panel.frame)
        begun.set()
        go.wait(5)

    monkeypatch.setattr(panel, "redraw", draw)
    panel.slider.value = 1
    begun.wait(5)
    for i in (2, 3, 5):
        panel.slider.value = i
    go.set()
    panel.wait()
    assert drawn == [1, 5]


def test_an_error_while_drawing_is_shown(panel, monkeypatch):
    assert panel.widget
    monkeypatch.setattr(panel, "redraw", lambda: 1 / 0)
    panel.slider.value = 1
    panel.wait()
    assert "ZeroDivisionError" in panel.note.value
    monkeypatch.undo()
    panel.slider.value = 2
    panel.wait()
    assert panel.note.value == "" and "Frame 2" in panel.line.value


def test_zoom_is_of_the_same_place_in_every_source(panel):
    zoomed = panel.zoomed()
    assert set(zoomed) == {"mouth", "eyes"}
    for row in zoomed.values():
        assert list(row) == ["ground truth", "one", "two"] and len({p.shape for p in row.values()}) == 1


def test_still_form_shows_images_difference_and_crops(panel, tmp_path):
    panel.folder = tmp_path
    titles = [a.get_title() for a in panel.still().axes]
    assert titles[:3] == ["A: one", "A | B", "B: two"] and "mouth: ground truth" in titles and "eyes: two" in titles
    assert (tmp_path / "figures" / "compare_frames.png").is_file()


def test_colour_bar_names_scale_and_unit():
    bar = base.ipywidgets.HTML(comparison_panel.difference_bar(300)).value
    assert "64 and more" in bar and frame_cache.DIFFERENCE_UNIT in bar


# ---- the wipe ----

def test_wipe_mixes_at_the_line():
    left, right = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    wipe = widgets.Wipe(left, right, ("black", "white"), position=0.25)
    assert wipe.mixed()[0, :, 0].tolist() == [0, 0] + [255] * 6
    assert wipe.widget
    wipe.view.position = 0.5
    assert wipe.mixed()[0, :, 0].tolist() == [0] * 4 + [255] * 4 and wipe.view.left != wipe.view.right


# ---- charts ----

def bundle(plot):
    return plot._repr_mimebundle_()


def test_curves_switch_between_iterations_and_time(result):
    shown = bundle(widgets.run_curves(result))
    figure = shown[base.PLOTLY]
    assert shown["image/png"] and len(json.dumps(figure)) < 2_000_000
    buttons, menu = figure["layout"]["updatemenus"]
    assert [b["label"] for b in buttons["buttons"]] == ["by iteration", "by time"]
    x, labels = buttons["buttons"][1]["args"]
    assert len(x["x"]) == len(figure["data"]) == 8
    seconds = max(comparison_plots.seconds_at(result.runs[0]).values())
    assert x["x"][2][-1] == pytest.approx(seconds, abs=0.02) and set(labels.values()) == {"training time (s)"}
    names = [b["label"] for b in menu["buttons"]]
    assert {"loss (sum)", "loss term: l1", "loss term: mask"} <= set(names)
    mask = menu["buttons"][names.index("loss term: mask")]["args"]
    assert set(mask[0]["y"][1]) == {None} and mask[1] == [6, 7], "the second run has no mask term"


def test_charts_are_saved_where_they_are_made(result, tmp_path):
    """A live notebook never needs the image, and its run folder must hold it all the same."""
    widgets.run_curves(result, tmp_path)
    widgets.cost_plot(result, tmp_path)
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["compare_cost.png", "compare_curves.png"]


def test_each_run_has_a_dash_and_a_name(result):
    traces = bundle(widgets.run_curves(result))[base.PLOTLY]["data"]
    looks = {(t["name"], t["line"]["dash"], t["line"]["color"]) for t in traces}
    assert len(looks) == 2 and len({dash for _, dash, _ in looks}) == 2


def test_cost_marks_the_front(result, monkeypatch):
    made = [cost.RunSummary("cheap", 20.0, 5.0, 478, 8.0, 24), cost.RunSummary("good", 25.0, 9.0, 900, 9.0, 24),
            cost.RunSummary("waste", 19.0, 20.0, 478, 8.0, 24)]
    monkeypatch.setattr(result, "summaries", lambda: made)
    figure = bundle(widgets.cost_plot(result))[base.PLOTLY]
    assert figure["data"][0]["name"] == "Pareto front" and figure["data"][0]["y"] == [20.0, 25.0]
    assert [t["name"] for t in figure["data"][1:]] == ["cheap", "good", "waste"]
    assert len({t["marker"]["symbol"] for t in figure["data"][1:]}) == 3, "told apart without colour"
    labels = [b["label"] for b in figure["layout"]["updatemenus"][0]["buttons"]]
    assert labels == list(comparison_plots.COSTS.values())


def test_cost_of_a_run_without_metrics(result, monkeypatch):
    made = [cost.RunSummary("known", 20.0, 5.0, 478, 8.0, 24), cost.RunSummary("unknown", 25.0, None, 900, 9.0, 24)]
    monkeypatch.setattr(result, "summaries", lambda: made)
    assert [o.name for o in comparison_plots.front(made, "seconds")] == ["known"]
    assert bundle(widgets.cost_plot(result))["image/png"]


# ---- exercises ----

def test_exercises_right_wrong_and_open(result):
    made = comparison(result.runs, result.names)
    right = [item.answer() for item in made.items]
    assert right[0] == pytest.approx(160_000 / 30_000) and right[1] in result.names and right[2] == "densify_from_iter"
    assert made.verify(5.33, right[1], "densify_from_iter").verdicts == ["right"] * 3
    other = next(n for n in result.names if n != right[1])
    assert made.verify(0.67, other, "iterations").verdicts == ["wrong"] * 3
    assert made.verify(None, None, None).verdicts == ["open"] * 3
    with pytest.raises(InputError):
        made.verify("five", right[1], "densify_from_iter")


def test_solutions_work(result):
    made = comparison(result.runs, result.names)
    for item in made.items:
        answer = solved(item, egs=egs, nb=notebook, np=np, result=result)
        assert exercises.Exercise("", item.answer, item.tolerance).verdict(answer) == "right"
    assert f"{common_level(result.runs):g} dB" in made.items[1].question
