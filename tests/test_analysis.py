"""Protects: what notebook 04 reports about densification is what happened, and why a run does not grow."""
import numpy as np
import pytest
import torch
from matplotlib import pyplot

import egstalker_nb as egs
from egstalker_nb.analysis import collapse, growth
from egstalker_nb.core.errors import DatasetError, InputError, TrainingError
from egstalker_nb.core.files import exclusive_lock
from egstalker_nb.face.regions import REGIONS
from egstalker_nb.notebook import collapse_figure, growth_figures, plots, snapshot_figures
from egstalker_nb.training import snapshots
from egstalker_nb.training.health import COLLAPSE

LESSON = 60


@pytest.fixture(scope="module")
def still(tiny_dataset, tmp_path_factory):
    """A run that ends before its first densification step."""
    cfg = egs.load_config("quick_test", iterations=20, coarse_iterations=10, batch_size=1, plane_resolution=[8, 16])
    return egs.train(tiny_dataset, cfg, tmp_path_factory.mktemp("analysis") / "still", device="cpu")


@pytest.fixture(scope="module")
def lesson(still):
    return growth.lesson_run(still, LESSON)


def column(table, name):
    return {row[0]: row[table.columns.index(name)] for row in table.rows}


@pytest.mark.parametrize("name, number", [("quick_test", 0), ("extended_test", 59), ("production", 144)])
def test_densification_steps_of_the_presets(name, number):
    """The presets table and the explanation count with these."""
    assert len(growth.densification_steps(egs.load_config(name))) == number


def test_planned_steps_are_those_of_the_trainer(lesson):
    """gsplat's window excludes both ends: an off-by-one here would be in every table."""
    planned = growth.densification_steps(lesson.config)
    assert len(planned) > 3
    assert [r["iteration"] for r in lesson.metrics("densify")] == list(planned)


def test_explains_with_the_runs_own_numbers(still, lesson):
    text = growth.explain_growth(still)
    assert not growth.grew(still) and "cannot grow" in text
    for number in (1000, 7000, 1100, 20, 478):
        assert str(number) in text
    assert growth.grew(lesson) and f"to {len(lesson.added_at())} Gaussians" in growth.explain_growth(lesson)


def test_explains_a_threshold_that_nothing_reaches(tiny_dataset, tmp_path):
    """Steps that clone and split nothing must not read as growth, nor as a closed window."""
    cfg = growth.lesson_config(40, densify_grad_threshold_coarse=1.0, densify_grad_threshold_fine=1.0,
                                 plane_resolution=[8, 16], coarse_iterations=40)
    run = egs.train(tiny_dataset, cfg, tmp_path / "high", until=20, device="cpu")
    assert len(run.metrics("densify")) > 0 and not growth.grew(run)
    assert "threshold" in growth.explain_growth(run)


def test_explains_a_run_that_is_not_there_yet(tiny_dataset, tmp_path):
    cfg = growth.lesson_config(40, plane_resolution=[8, 16])
    run = egs.train(tiny_dataset, cfg, tmp_path / "young", until=5, device="cpu")
    first = growth.densification_steps(cfg)[0]
    assert f"iteration {first}" in growth.explain_growth(run) and "Continue training" in growth.explain_growth(run)


def test_lesson_is_made_once_and_grows(still, lesson):
    """Notebooks 04 and 05 share it: training it again would double their run time."""
    assert lesson.root.parent == still.root and lesson.finished
    before = {p: p.stat().st_mtime_ns for p in lesson.root.rglob("*") if p.is_file()}
    assert growth.lesson_run(still, LESSON).root == lesson.root
    assert {p: p.stat().st_mtime_ns for p in lesson.root.rglob("*") if p.is_file()} == before


def test_lesson_needs_iterations_for_densification():
    with pytest.raises(InputError, match="40"):
        growth.lesson_config(39)
    assert len(growth.densification_steps(growth.lesson_config(40))) > 3


def test_added_and_removed_sum_to_the_checkpoint(still, lesson):
    """Splits counted once instead of twice, or steps left out, would show here."""
    for run, pruned in ((still, 0), (lesson, None)):
        number = column(growth.count_balance(run), "number")
        assert number["sum"] == number["in the checkpoint"] == len(run.load_head(device="cpu"))
        assert pruned is None or number["pruned"] == pruned
    assert number["added by splitting"] == -2 * number["replaced by splitting"] > 0


def test_gaussian_counts_end_where_the_checkpoint_is(lesson):
    iterations, points = growth.gaussian_counts(lesson)
    assert (iterations[0], points[0]) == (0, 478)
    assert (iterations[-1], points[-1]) == (LESSON, len(lesson.added_at()))
    assert iterations == sorted(iterations)


def test_regions_hold_every_gaussian_once(lesson):
    found = growth.count_by_region(lesson)
    assert [row[0] for row in found.rows] == list(REGIONS)
    assert sum(column(found, "at the start").values()) == 478
    assert sum(column(found, "now").values()) == len(lesson.added_at())
    # copies that are pruned in the step that made them are not counted as added
    added = sum(r["cloned"] + 2 * r["split"] for r in lesson.metrics("densify"))
    assert 0 < sum(column(found, "added").values()) <= added


def test_size_is_in_pixels(tiny_dataset):
    """A ball of 0.5 head units, seen from 9 units at a focal length of 128 px, is 7.1 px wide."""
    assert growth.size_px(torch.full((1, 3), 0.5).log(), tiny_dataset) == pytest.approx(0.5 * 128 / 9, rel=0.01)


def test_stages_are_start_coarse_and_end(still, lesson):
    assert [n.split(" (")[0] for n in growth.stages(lesson)] == ["start", "after coarse", "end"]
    start, coarse, end = (len(g["means"]) for g in growth.stages(lesson).values())
    assert start == 478 < coarse and end == len(lesson.added_at())
    assert len(growth.stages(still)) == 3


DRAWN = {"timeline": growth_figures.schedule_figure, "points": growth_figures.points_figure,
         "births": growth_figures.densification_figure, "born": growth_figures.added_on_frame,
         "histograms": growth_figures.histograms,
         "moments": lambda run: snapshot_figures.snapshots_figure(run, snapshot_figures.spread(run.snapshots, 3)),
         "side": lambda run: snapshot_figures.side_figure(run, snapshot_figures.spread(run.snapshots, 3)),
         "threshold": lambda run: snapshot_figures.threshold_figure(run, growth.recorded_steps(run)[1], 0.003, 700)}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figures_are_labelled_and_closed(lesson, tmp_path, draw):
    """`finish` refuses an axis without a name; figures left open fill a kernel's memory."""
    before = pyplot.get_fignums()
    plots.finish(draw(lesson), tmp_path, "figure")
    assert (tmp_path / "figures" / "figure.png").stat().st_size > 5000
    assert pyplot.get_fignums() == before


def test_added_gaussians_are_shown_apart_from_the_initial_ones(lesson, still):
    """Dots: [initial, added]; a run that never grew has initial ones only."""
    for run in (lesson, still):
        added_at = run.added_at().numpy()
        axes = growth_figures.added_on_frame(run, 0).axes
        old, new = (axes[k].collections[0].get_offsets() for k in (1, 2))
        assert (len(old), len(new)) == ((added_at == 0).sum(), (added_at > 0).sum())
        pyplot.close("all")
    face = still.dataset.landmarks[0, :, :2]
    assert np.abs(np.median(np.asarray(old), 0) - np.median(face, 0)).max() < 4, "px of 64: the dots lie on the face"


def test_counts_of_a_run_without_densification_say_what_to_do(still):
    with pytest.raises(DatasetError, match="lesson_run"):
        growth_figures.densification_figure(still)


# ---- the schedule ----

def test_phases_of_production():
    assert growth_figures.phases(egs.load_config("production")) == {
        "coarse": (0, 3000), "densification": (500, 15000), "refinement": (15000, 30000)}


def test_schedule_figure_says_that_quick_test_has_no_step():
    texts = " ".join(t.get_text() for axis in growth_figures.schedule_figure().axes for t in axis.texts)
    for words in ("the first would be at 1100, the run ends at 1000", "59 steps", "144 steps: 600 ... 14900",
                  "first step 1100, too late"):
        assert words in texts
    assert column(growth.preset_schedules(), "steps") == {
        "quick_test": 0, "extended_test": 59, "egstalker_paper": 144, "production": 144}


# ---- thresholds ----

def test_a_step_is_counted_as_the_strategy_does(lesson):
    """At the run's own settings the counts are those that were logged."""
    rows = growth.recount(lesson).rows
    assert len(rows) == len(lesson.metrics("densify")) and all(row[-1] is True for row in rows)


def test_threshold_and_cap_select_gaussians():
    """Four Gaussians: one small (cloned), three large (split); two grow under a cap of six; one is pruned."""
    now = snapshots.Snapshot(100, np.zeros((4, 3), np.float32), np.log(np.float32([[0.01] * 3] + [[0.3] * 3] * 3)),
                             np.float32([0.5, 0.5, 0.5, 0.001]), np.zeros((4, 3), np.uint8), np.zeros(4, np.int32),
                             np.float32([0.004, 0.003, 0.002, 0.001]), None, -1)
    cfg = egs.load_config("production")
    tried = (0.0005,), (0.0005, 6), (0.0035,), (0.0005, 3)
    free, capped, high, full = (growth.preview(now, cfg, *a) for a in tried)
    assert (free.above, free.cloned, free.split, free.held, free.pruned, free.points) == (4, 1, 3, 0, 2, 6)
    assert (capped.cloned, capped.split, capped.held, capped.pruned, capped.points) == (1, 1, 2, 1, 5)
    assert (high.above, high.cloned, high.split, high.points) == (1, 1, 0, 4)
    assert (full.cloned, full.split, full.held) == (0, 0, 4)
    assert growth.preview(now, cfg) == growth.preview(now, cfg, 0.0002, 10_000)


def test_table_of_thresholds_has_the_presets_and_the_line(lesson):
    moment = growth.recorded_steps(lesson)[0]
    rows = growth.what_if(lesson, moment, 0.003)
    assert column(rows, "threshold") == {"this run": "0.001", "quick_test": "0.001", "production": "0.0002",
                                         "your line": "0.003"}
    above = column(rows, "above it")
    assert above["production"] >= above["quick_test"] == above["this run"] >= above["your line"]


def test_histogram_holds_every_gaussian_once(lesson):
    """Those outside the range belong to its ends."""
    now = lesson.snapshot(growth.recorded_steps(lesson)[-1])
    both = snapshot_figures.gradient_counts(now, snapshot_figures.gradient_bins(now))
    assert sum(map(np.sum, both)) == len(now)


# ---- regions ----

def test_regions_add_up_to_the_steps(lesson):
    by_region, whole = growth.by_region(lesson), growth_figures.counts(lesson)
    for kind, sign in (("cloned", 1), ("split", 1), ("pruned", -1)):
        np.testing.assert_array_equal(by_region[kind].sum(1), sign * whole[kind])
    assert by_region["split"].sum() > 0


def test_a_run_that_grew_is_shown_itself(still, lesson, monkeypatch):
    """Otherwise a lesson run of the given length in its folder is."""
    made = []
    monkeypatch.setattr(growth, "train", lambda ds, cfg, folder: made.append((folder, cfg.iterations)))
    assert growth.growing_run(lesson, 99) is lesson and not made
    growth.growing_run(still, 99)
    assert made == [(still.root / "lesson_99", 99)]


# ---- opacity collapse ----

@pytest.mark.slow
def test_a_collapse_is_induced_and_stopped(still):
    """It really collapses, the guard really stops it, and the last good checkpoint can be loaded; twice."""
    for _ in range(2):
        collapsed = collapse.induce_collapse(still)
        assert isinstance(collapsed.error, TrainingError) and "collapse" in str(collapsed.error)
        assert collapsed.run.iterations == [collapse.COARSE_ITERATIONS]
        assert f"iteration {collapse.COARSE_ITERATIONS}" in str(collapsed.error)
        assert collapsed.rows[-1]["iteration"] > collapse.COARSE_ITERATIONS
        peak = max(row["coverage"] for row in collapsed.rows)
        assert collapsed.rows[-1]["coverage"] < COLLAPSE["coverage"] * peak <= collapsed.rows[-2]["coverage"]
    truth, kept, gone = (p.astype(int) for p in collapsed.images)
    assert np.abs(gone - truth).mean() > 1.5 * np.abs(kept - truth).mean()
    opacity = collapsed.run.load_head(device="cpu").gaussians["opacities"].sigmoid()
    assert opacity.mean() == pytest.approx(collapsed.opacity[0])
    plots.finish(collapse_figure.collapse_figure(collapsed), still.root, "collapse")


def test_a_second_collapse_run_at_once_is_refused(still):
    """Both would write into one folder."""
    folder = still.root / f"collapse_{collapse.COLLAPSE_LR:g}"
    folder.mkdir(exist_ok=True)
    with exclusive_lock(folder, "training"), pytest.raises(InputError, match="nobody else"):
        collapse.induce_collapse(still)


@pytest.mark.slow
def test_no_collapse_is_an_error(still):
    with pytest.raises(InputError, match="0.0001"):
        collapse.induce_collapse(still, rate=0.0001)
