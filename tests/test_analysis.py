"""Protects: what notebook 04 says about growth is what happened, and it says why a run does not grow."""
import numpy as np
import pytest
import torch
from matplotlib import pyplot

import egstalker_nb as egs
from egstalker_nb import analysis, plots
from egstalker_nb.errors import DatasetError, InputError
from egstalker_nb.regions import REGIONS

LESSON = 60


@pytest.fixture(scope="module")
def still(tiny_dataset, tmp_path_factory):
    """A run that ends before its first growth round."""
    cfg = egs.load_config("quick_test", iterations=20, coarse_iterations=10, batch_size=1, plane_resolution=[8, 16])
    return egs.train(tiny_dataset, cfg, tmp_path_factory.mktemp("analysis") / "still", device="cpu")


@pytest.fixture(scope="module")
def lesson(still):
    return analysis.lesson_run(still, LESSON)


def column(table, name):
    return {row[0]: row[table.columns.index(name)] for row in table.rows}


@pytest.mark.parametrize("name, number", [("quick_test", 0), ("extended_test", 59), ("production", 144)])
def test_rounds_of_the_presets(name, number):
    """The presets table and the explanation count with these."""
    assert len(analysis.rounds(egs.load_config(name))) == number


def test_rounds_are_those_of_the_trainer(lesson):
    """gsplat's window is open at both ends; an off-by-one here would be told to every reader."""
    planned = analysis.rounds(lesson.config)
    assert len(planned) > 3
    assert [r["iteration"] for r in lesson.metrics("densify")] == list(planned)


def test_explains_with_the_runs_own_numbers(still, lesson):
    text = analysis.explain(still)
    assert not analysis.grew(still) and "cannot grow" in text
    for number in (1000, 7000, 1100, 20, 478):
        assert str(number) in text
    assert analysis.grew(lesson) and f"to {len(lesson.born())} Gaussians" in analysis.explain(lesson)


def test_explains_a_threshold_that_nothing_reaches(tiny_dataset, tmp_path):
    """Rounds without births must not read as growth, nor as a closed window."""
    cfg = analysis.lesson_config(40, densify_grad_threshold_coarse=1.0, densify_grad_threshold_fine=1.0,
                                 plane_resolution=[8, 16], coarse_iterations=40)
    run = egs.train(tiny_dataset, cfg, tmp_path / "deaf", until=20, device="cpu")
    assert len(run.metrics("densify")) > 0 and not analysis.grew(run)
    assert "threshold" in analysis.explain(run)


def test_explains_a_run_that_is_not_there_yet(tiny_dataset, tmp_path):
    cfg = analysis.lesson_config(40, plane_resolution=[8, 16])
    run = egs.train(tiny_dataset, cfg, tmp_path / "young", until=5, device="cpu")
    first = analysis.rounds(cfg)[0]
    assert f"iteration {first}" in analysis.explain(run) and "Train on" in analysis.explain(run)


def test_lesson_is_made_once_and_grows(still, lesson):
    """Notebooks 04 and 05 share it: training it again would double their run time."""
    assert lesson.root.parent == still.root and lesson.finished
    before = {p: p.stat().st_mtime_ns for p in lesson.root.rglob("*") if p.is_file()}
    assert analysis.lesson_run(still, LESSON).root == lesson.root
    assert {p: p.stat().st_mtime_ns for p in lesson.root.rglob("*") if p.is_file()} == before


def test_lesson_needs_room_for_rounds():
    with pytest.raises(InputError, match="40"):
        analysis.lesson_config(39)
    assert len(analysis.rounds(analysis.lesson_config(40))) > 3


def test_books_balance(still, lesson):
    """Births of splits counted once instead of twice, or rounds left out, would show here."""
    for run, pruned in ((still, 0), (lesson, None)):
        number = column(analysis.ledger(run), "number")
        assert number["sum"] == number["in the checkpoint"] == len(run.load_head(device="cpu"))
        assert pruned is None or number["pruned"] == pruned
    assert number["born by splitting"] == -2 * number["gone by splitting"] > 0


def test_history_ends_where_the_checkpoint_is(lesson):
    iterations, points = analysis.history(lesson)
    assert (iterations[0], points[0]) == (0, 478)
    assert (iterations[-1], points[-1]) == (LESSON, len(lesson.born()))
    assert iterations == sorted(iterations)


def test_census_counts_everyone_once(lesson):
    census = analysis.census(lesson)
    assert [row[0] for row in census.rows] == list(REGIONS)
    assert sum(column(census, "at the start").values()) == 478
    assert sum(column(census, "alive").values()) == len(lesson.born())
    # clones and children that are pruned in the round of their birth are not counted as born
    births = sum(r["cloned"] + 2 * r["split"] for r in lesson.metrics("densify"))
    assert 0 < sum(column(census, "born").values()) <= births


def test_size_is_in_pixels(tiny_dataset):
    """A ball of 0.5 head units, seen from 9 units at a focal length of 128 px, is 7.1 px wide."""
    gaussians = {"scales": torch.full((1, 3), 0.5).log()}
    assert analysis.size_px(gaussians, tiny_dataset) == pytest.approx(0.5 * 128 / 9, rel=0.01)


def test_snapshots_are_start_coarse_and_end(still, lesson):
    assert [n.split(" (")[0] for n in analysis.snapshots(lesson)] == ["start", "after coarse", "end"]
    start, coarse, end = (len(g["means"]) for g in analysis.snapshots(lesson).values())
    assert start == 478 < coarse and end == len(lesson.born())
    assert len(analysis.snapshots(still)) == 3


@pytest.mark.parametrize("draw", [analysis.points_figure, analysis.births_figure, analysis.born_on_frame,
                                  analysis.histograms])
def test_figures_are_labelled_and_closed(lesson, tmp_path, draw):
    """`finish` refuses an axis without a name; figures left open fill a kernel's memory."""
    before = pyplot.get_fignums()
    plots.finish(draw(lesson), tmp_path, "figure")
    assert (tmp_path / "figures" / "figure.png").stat().st_size > 5000
    assert pyplot.get_fignums() == before


def test_born_on_frame_shows_all_and_only_the_living(lesson, still):
    """Dots: [old, new]; a run that never grew has only old ones."""
    for run in (lesson, still):
        born = run.born().numpy()
        axes = analysis.born_on_frame(run, 0).axes
        old, new = (axes[k].collections[0].get_offsets() for k in (1, 2))
        assert (len(old), len(new)) == ((born == 0).sum(), (born > 0).sum())
        pyplot.close("all")
    face = still.dataset.landmarks[0, :, :2]
    assert np.abs(np.median(np.asarray(old), 0) - np.median(face, 0)).max() < 4, "px of 64: the dots lie on the face"


def test_births_of_a_run_without_rounds_say_what_to_do(still):
    with pytest.raises(DatasetError, match="lesson_run"):
        analysis.births_figure(still)


def test_cloud_stands_upright_and_can_be_recoloured(lesson, monkeypatch):
    """The head's y points down and plotly's z up: a sign error shows every head upside down or from behind."""
    monkeypatch.setattr(analysis, "CLOUD_POINTS", 100)
    figure = analysis.cloud(lesson)
    points = figure.data[0]
    means = lesson.load_head(device="cpu").gaussians["means"].numpy()
    chosen = np.unique(np.linspace(0, len(means) - 1, 100).astype(int))
    np.testing.assert_allclose(np.stack([points.x, -points.z, points.y], 1), means[chosen], atol=1e-6)
    assert figure.layout.scene.camera.eye.y < 0, "seen from the camera's side"
    menu = {b.label: b.args[0]["marker.color"][0] for b in figure.layout.updatemenus[0].buttons}
    np.testing.assert_array_equal(menu["birth (iteration)"], lesson.born().numpy()[chosen])
    assert all(len(colours) == len(chosen) for colours in menu.values()) and len(menu) == 3
    assert (lesson.root / "figures" / "cloud.html").is_file()
