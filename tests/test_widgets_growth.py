"""Protects: the panels of notebook 04 show the run's own numbers, in both forms."""
import json

import numpy as np
import pytest
from solutions import solved

import egstalker_nb as egs
from egstalker_nb import notebook
from egstalker_nb.analysis import growth as analysis
from egstalker_nb.core.errors import InputError
from egstalker_nb.face.regions import REGIONS
from egstalker_nb.notebook import widgets
from egstalker_nb.notebook.exercises.notebook_04 import THRESHOLD, growth
from egstalker_nb.notebook.snapshot_figures import COLOURINGS
from egstalker_nb.notebook.widgets import base
from egstalker_nb.notebook.widgets import growth_panel as panels


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    cfg = analysis.lesson_config(40, plane_resolution=[8, 16], coarse_iterations=40)
    return egs.train(tiny_dataset, cfg, tmp_path_factory.mktemp("growth") / "run", device="cpu")


# ---- the cloud ----

def test_the_slider_changes_the_snapshot_and_the_camera_stays(run):
    panel = widgets.GrowthCloud(run)
    assert panel.widget is not None and panel.when.options == tuple(run.snapshots)
    panel.drawn.layout.scene.camera.eye.x = 1.5  # turned by the reader
    first, last = run.snapshots[0], run.snapshots[-1]
    seen, picture = len(panel.drawn.data[0].x), panel.image.value
    assert seen == len(run.snapshot(last)) and f"iteration {last}: {seen} Gaussians" in panel.line.value
    panel.when.value = first
    assert len(panel.drawn.data[0].x) == 478 and panel.iteration == first
    assert "478 initial, 0 added by densification" in panel.line.value and panel.image.value != picture
    assert panel.drawn.layout.scene.camera.eye.x == 1.5


@pytest.mark.parametrize("name", COLOURINGS)
def test_every_colouring_shows_its_values(run, name):
    panel = widgets.GrowthCloud(run)
    panel.widget  # noqa: B018  built on first use
    panel.menu.value = name
    moment = run.snapshot(run.snapshots[-1])
    marker, values = panel.drawn.data[0].marker, COLOURINGS[name].values(run, moment)
    if name == "own colour":
        assert marker.color[0] == "rgb({},{},{})".format(*moment.colour[0]) and not marker.showscale
        return
    np.testing.assert_allclose(np.asarray(marker.color), values, rtol=1e-5)
    assert marker.showscale and marker.colorbar.title.text == COLOURINGS[name].title and marker.cmin < marker.cmax
    if name == "face region":
        assert list(marker.colorbar.ticktext) == list(REGIONS) and len(set(marker.symbol)) > 1


def test_hover_tells_values_of_the_gaussian(run):
    panel, moment = widgets.GrowthCloud(run), run.snapshot(run.snapshots[-1])
    given = panel.points(moment)
    facts = np.asarray(given["customdata"])
    np.testing.assert_array_equal(facts[:, 0], moment.added_at)
    np.testing.assert_allclose(facts[:, 2], moment.opacity, rtol=1e-6)
    assert set(given["text"]) <= set(REGIONS) and len(given["text"]) == len(moment)


def test_the_cloud_stands_upright_and_is_thinned(run, monkeypatch):
    """The head's y points down and plotly's z up: a sign error shows every head upside down or from behind."""
    monkeypatch.setattr(panels, "CLOUD_POINTS", 100)
    panel, moment = widgets.GrowthCloud(run), run.snapshot(run.snapshots[-1])
    given, chosen = panel.points(moment), panels.subsample(moment, 100)
    assert len(chosen) == 100 and "(100 shown)" in panel.counts
    np.testing.assert_allclose(np.stack([given["x"], -np.asarray(given["z"]), given["y"]], 1), moment.means[chosen])
    assert panels.CAMERA["eye"]["y"] < 0, "seen from the camera's side"


def test_what_cannot_be_shown_is_refused(run):
    with pytest.raises(InputError, match="age, opacity"):
        widgets.GrowthCloud(run, colour="beauty")
    with pytest.raises(InputError, match="a snapshot"):
        widgets.GrowthCloud(run, iteration=39_999)


def test_the_page_without_a_kernel_is_small_and_complete(run):
    plot = widgets.cloud_page(run)
    assert len(json.dumps(plot._repr_mimebundle_()[base.PLOTLY])) < 2e6
    figure = plot.figure
    (menu,), (slider,) = figure.layout.updatemenus, figure.layout.sliders
    assert {b.label for b in menu.buttons} == set(COLOURINGS) - {"own colour"}
    assert len(slider.steps) == len(figure.data) and [t.visible for t in figure.data].count(True) == 1
    for button in menu.buttons:
        assert [len(c) for c in button.args[0]["marker.color"]] == [len(t.x) for t in figure.data]
    assert (run.root / "figures" / "cloud.html").is_file()


# ---- counts per densification step ----

def test_counts_switch_between_kinds_and_regions(run):
    figure = widgets.densification_counts(run).figure
    views = {b.label: [t for t, on in zip(figure.data, b.args[0]["visible"]) if on]
             for b in figure.layout.updatemenus[0].buttons}
    assert len(views) == 1 + 3 + len(REGIONS)
    splits = [row["split"] for row in run.metrics("densify")]
    whole = {bar.name: bar.y for bar in views["whole head, by kind"]}
    assert list(whole["added by splitting"]) == [2 * n for n in splits]
    placed = views["added by splitting, by region"]
    assert [bar.name for bar in placed] == list(REGIONS)
    assert np.sum([bar.y for bar in placed], 0).tolist() == [2 * n for n in splits]
    assert len({bar.marker.pattern.shape for bar in placed}) == len(REGIONS), "told apart without colour"


# ---- the threshold ----

def test_the_line_moves_by_slider_click_and_drag(run):
    panel = widgets.Threshold(run)
    assert panel.widget is not None and panel.threshold == 0.001
    panel.mover.value = 0.01
    assert panel.threshold == pytest.approx(0.01) == panel.drawn.layout.shapes[0].x0
    assert f"<td style='text-align:left'>{panel.preview.above}</td>" in panel.words.value
    panel.canvas.clicked = {"x": 0.0004, "count": 1}  # as the browser does it
    assert panel.threshold == 0.0004 and panel.mover.value == pytest.approx(0.0004)
    panel.canvas.changed = {"shapes[0].x0": 0.0007, "shapes[0].x1": 0.0007, "count": 1}
    assert panel.threshold == pytest.approx(0.0007)


def test_other_steps_and_caps_redraw_the_chart(run):
    panel = widgets.Threshold(run)
    panel.widget  # noqa: B018
    panel.set(threshold=0.00001)
    cap = len(run.snapshot(panel.iteration)) + 50
    panel.top.value = cap
    assert panel.preview.held > 0 and max(panel.drawn.data[3].y) <= cap < max(panel.drawn.data[2].y)
    panel.when.value = panel.iterations[0]
    now = run.snapshot(panel.iterations[0])
    assert sum(map(np.sum, (panel.drawn.data[0].y, panel.drawn.data[1].y))) == len(now)
    assert str(len(now)) in panel.table.caption


def test_its_own_settings_reproduce_the_step(run):
    for row in run.metrics("densify"):
        o = widgets.Threshold(run, row["iteration"]).preview
        assert (o.cloned, o.split, o.pruned, o.points) == tuple(row[k] for k in ("cloned", "split", "pruned", "points"))


# ---- static forms ----

@pytest.mark.parametrize("make", [widgets.GrowthCloud, widgets.cloud_page, widgets.densification_counts,
                                  widgets.Threshold])
def test_static_forms(run, make):
    assert len(make(run)._repr_mimebundle_()["image/png"]) > 10_000


@pytest.mark.parametrize("make", [widgets.densification_counts, widgets.Threshold])
def test_a_run_without_densification_says_what_is_missing(run, make, monkeypatch):
    """Both forms do: the panel is there, and says what to do."""
    monkeypatch.setattr(run, "metrics", lambda kind=None: [])
    monkeypatch.setattr(type(run), "snapshots", [])
    panel = make(run)
    text = panel._repr_mimebundle_()["text/plain"]
    assert "what to do" in text and "lesson_run" in text
    assert "expected" in panel.widget.children[0].value


# ---- exercises ----

def test_exercises(run):
    """Right answers as a reader would find them; wrong and open ones."""
    moment, items = analysis.recorded_steps(run)[0], growth(run)
    found = [solved(item, egs=egs, nb=notebook, np=np, shown=run) for item in items.items]
    assert found[0] == 1100 and found[2] in REGIONS
    assert found[1] == (run.snapshot(moment).gradient > THRESHOLD).sum()
    assert items.verify(*found).verdicts == ["right"] * 3
    assert items.verify(1000, found[1] + 1, "ears").verdicts == ["wrong"] * 3
    assert items.verify(None, None, None).verdicts == ["open"] * 3
