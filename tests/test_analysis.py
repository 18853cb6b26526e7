"""Protects: what notebook 04 says about growth is what happened, and it says why a run does not grow."""
import json
import shutil

import numpy as np
import pytest
import torch
from matplotlib import pyplot

import egstalker_nb as egs
from egstalker_nb.analysis import collapse, growth
from egstalker_nb.core.errors import DatasetError, InputError, TrainingError
from egstalker_nb.core.files import exclusive_lock
from egstalker_nb.face.regions import REGIONS
from egstalker_nb.notebook import collapse_figure, growth_figures, growth_moments, plots
from egstalker_nb.training import snapshots
from egstalker_nb.training.trainer import COLLAPSE

LESSON = 60


@pytest.fixture(scope="module")
def still(tiny_dataset, tmp_path_factory):
    """A run that ends before its first growth round."""
    cfg = egs.load_config("quick_test", iterations=20, coarse_iterations=10, batch_size=1, plane_resolution=[8, 16])
    return egs.train(tiny_dataset, cfg, tmp_path_factory.mktemp("analysis") / "still", device="cpu")


@pytest.fixture(scope="module")
def lesson(still):
    return growth.lesson_run(still, LESSON)


def column(table, name):
    return {row[0]: row[table.columns.index(name)] for row in table.rows}


@pytest.mark.parametrize("name, number", [("quick_test", 0), ("extended_test", 59), ("production", 144)])
def test_rounds_of_the_presets(name, number):
    """The presets table and the explanation count with these."""
    assert len(growth.densification_steps(egs.load_config(name))) == number


def test_rounds_are_those_of_the_trainer(lesson):
    """gsplat's window is open at both ends; an off-by-one here would be told to every reader."""
    planned = growth.densification_steps(lesson.config)
    assert len(planned) > 3
    assert [r["iteration"] for r in lesson.metrics("densify")] == list(planned)


def test_explains_with_the_runs_own_numbers(still, lesson):
    text = growth.explain(still)
    assert not growth.grew(still) and "cannot grow" in text
    for number in (1000, 7000, 1100, 20, 478):
        assert str(number) in text
    assert growth.grew(lesson) and f"to {len(lesson.added_at())} Gaussians" in growth.explain(lesson)


def test_explains_a_threshold_that_nothing_reaches(tiny_dataset, tmp_path):
    """Rounds without births must not read as growth, nor as a closed window."""
    cfg = growth.lesson_config(40, densify_grad_threshold_coarse=1.0, densify_grad_threshold_fine=1.0,
                                 plane_resolution=[8, 16], coarse_iterations=40)
    run = egs.train(tiny_dataset, cfg, tmp_path / "deaf", until=20, device="cpu")
    assert len(run.metrics("densify")) > 0 and not growth.grew(run)
    assert "threshold" in growth.explain(run)


def test_explains_a_run_that_is_not_there_yet(tiny_dataset, tmp_path):
    cfg = growth.lesson_config(40, plane_resolution=[8, 16])
    run = egs.train(tiny_dataset, cfg, tmp_path / "young", until=5, device="cpu")
    first = growth.densification_steps(cfg)[0]
    assert f"iteration {first}" in growth.explain(run) and "Train on" in growth.explain(run)


def test_lesson_is_made_once_and_grows(still, lesson):
    """Notebooks 04 and 05 share it: training it again would double their run time."""
    assert lesson.root.parent == still.root and lesson.finished
    before = {p: p.stat().st_mtime_ns for p in lesson.root.rglob("*") if p.is_file()}
    assert growth.lesson_run(still, LESSON).root == lesson.root
    assert {p: p.stat().st_mtime_ns for p in lesson.root.rglob("*") if p.is_file()} == before


def test_lesson_needs_room_for_rounds():
    with pytest.raises(InputError, match="40"):
        growth.lesson_config(39)
    assert len(growth.densification_steps(growth.lesson_config(40))) > 3


def test_books_balance(still, lesson):
    """Births of splits counted once instead of twice, or rounds left out, would show here."""
    for run, pruned in ((still, 0), (lesson, None)):
        number = column(growth.ledger(run), "number")
        assert number["sum"] == number["in the checkpoint"] == len(run.load_head(device="cpu"))
        assert pruned is None or number["pruned"] == pruned
    assert number["born by splitting"] == -2 * number["gone by splitting"] > 0


def test_history_ends_where_the_checkpoint_is(lesson):
    iterations, points = growth.history(lesson)
    assert (iterations[0], points[0]) == (0, 478)
    assert (iterations[-1], points[-1]) == (LESSON, len(lesson.added_at()))
    assert iterations == sorted(iterations)


def test_census_counts_everyone_once(lesson):
    census = growth.census(lesson)
    assert [row[0] for row in census.rows] == list(REGIONS)
    assert sum(column(census, "at the start").values()) == 478
    assert sum(column(census, "alive").values()) == len(lesson.added_at())
    # clones and children that are pruned in the round of their birth are not counted as born
    births = sum(r["cloned"] + 2 * r["split"] for r in lesson.metrics("densify"))
    assert 0 < sum(column(census, "born").values()) <= births


def test_size_is_in_pixels(tiny_dataset):
    """A ball of 0.5 head units, seen from 9 units at a focal length of 128 px, is 7.1 px wide."""
    assert growth.size_px(torch.full((1, 3), 0.5).log(), tiny_dataset) == pytest.approx(0.5 * 128 / 9, rel=0.01)


def test_stages_are_start_coarse_and_end(still, lesson):
    assert [n.split(" (")[0] for n in growth.stages(lesson)] == ["start", "after coarse", "end"]
    start, coarse, end = (len(g["means"]) for g in growth.stages(lesson).values())
    assert start == 478 < coarse and end == len(lesson.added_at())
    assert len(growth.stages(still)) == 3


DRAWN = {"timeline": growth_figures.timeline, "points": growth_figures.points_figure,
         "births": growth_figures.births_figure, "born": growth_figures.born_on_frame,
         "histograms": growth_figures.histograms,
         "moments": lambda run: growth_moments.moments_figure(run, growth_moments.spread(run.snapshots, 3)),
         "side": lambda run: growth_moments.side_figure(run, growth_moments.spread(run.snapshots, 3)),
         "threshold": lambda run: growth_moments.threshold_figure(run, growth.counted_rounds(run)[1], 0.003, 700)}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figures_are_labelled_and_closed(lesson, tmp_path, draw):
    """`finish` refuses an axis without a name; figures left open fill a kernel's memory."""
    before = pyplot.get_fignums()
    plots.finish(draw(lesson), tmp_path, "figure")
    assert (tmp_path / "figures" / "figure.png").stat().st_size > 5000
    assert pyplot.get_fignums() == before


def test_born_on_frame_shows_all_and_only_the_living(lesson, still):
    """Dots: [old, new]; a run that never grew has only old ones."""
    for run in (lesson, still):
        added_at = run.added_at().numpy()
        axes = growth_figures.born_on_frame(run, 0).axes
        old, new = (axes[k].collections[0].get_offsets() for k in (1, 2))
        assert (len(old), len(new)) == ((added_at == 0).sum(), (added_at > 0).sum())
        pyplot.close("all")
    face = still.dataset.landmarks[0, :, :2]
    assert np.abs(np.median(np.asarray(old), 0) - np.median(face, 0)).max() < 4, "px of 64: the dots lie on the face"


def test_births_of_a_run_without_rounds_say_what_to_do(still):
    with pytest.raises(DatasetError, match="lesson_run"):
        growth_figures.births_figure(still)


# ---- the schedule ----

def test_phases_of_production_are_those_of_the_issue():
    assert growth_figures.phases(egs.load_config("production")) == {
        "coarse": (0, 3000), "densification": (500, 15000), "refinement": (15000, 30000)}


def test_timeline_says_that_quick_test_has_no_round():
    texts = " ".join(t.get_text() for axis in growth_figures.timeline().axes for t in axis.texts)
    for words in ("the first would be at 1100, the run ends at 1000", "59 rounds", "144 rounds: 600 ... 14900",
                  "first round 1100, too late"):
        assert words in texts
    assert column(growth.presets(), "rounds") == {"quick_test": 0, "extended_test": 59, "production": 144}


# ---- thresholds ----

def test_a_round_counts_as_the_strategy_does(lesson):
    """At the run's own settings, and nothing else, the count is what the run noted."""
    rows = growth.recount(lesson).rows
    assert len(rows) == len(lesson.metrics("densify")) and all(row[-1] is True for row in rows)


def test_threshold_and_cap_decide_who_grows():
    """Four Gaussians: one tiny (cloned), three large (split); the strongest two under a cap of six; the faint goes."""
    now = snapshots.Snapshot(100, np.zeros((4, 3), np.float32), np.log(np.float32([[0.01] * 3] + [[0.3] * 3] * 3)),
                             np.float32([0.5, 0.5, 0.5, 0.001]), np.zeros((4, 3), np.uint8), np.zeros(4, np.int32),
                             np.float32([0.004, 0.003, 0.002, 0.001]), None, -1)
    cfg = egs.load_config("production")
    tried = (0.0005,), (0.0005, 6), (0.0035,), (0.0005, 3)
    free, capped, high, full = (growth.outcome(now, cfg, *a) for a in tried)
    assert (free.above, free.cloned, free.split, free.held, free.pruned, free.points) == (4, 1, 3, 0, 2, 6)
    assert (capped.cloned, capped.split, capped.held, capped.pruned, capped.points) == (1, 1, 2, 1, 5)
    assert (high.above, high.cloned, high.split, high.points) == (1, 1, 0, 4)
    assert (full.cloned, full.split, full.held) == (0, 0, 4)
    assert growth.outcome(now, cfg) == growth.outcome(now, cfg, 0.0002, 10_000)


def test_table_of_thresholds_has_the_presets_and_the_line(lesson):
    moment = growth.counted_rounds(lesson)[0]
    rows = growth.what_if(lesson, moment, 0.003)
    assert column(rows, "threshold") == {"this run": "0.001", "quick_test": "0.001", "production": "0.0002",
                                         "your line": "0.003"}
    above = column(rows, "above it")
    assert above["production"] >= above["quick_test"] == above["this run"] >= above["your line"]


def test_histogram_holds_every_gaussian_once(lesson):
    """Those outside the range belong to its ends."""
    now = lesson.snapshot(growth.counted_rounds(lesson)[-1])
    both = growth_moments.gradient_counts(now, growth_moments.gradient_bins(now))
    assert sum(map(np.sum, both)) == len(now)


# ---- regions, and runs of older versions ----

def test_regions_add_up_to_the_rounds(lesson):
    placed, whole = growth.by_region(lesson), growth_figures.counts(lesson)
    for kind, sign in (("cloned", 1), ("split", 1), ("pruned", -1)):
        np.testing.assert_array_equal(placed[kind].sum(1), sign * whole[kind])
    assert placed["split"].sum() > 0


@pytest.fixture
def old(lesson, tmp_path):
    """The lesson as a version without snapshots left it."""
    root = tmp_path / "parent" / f"lesson_{LESSON}"
    shutil.copytree(lesson.root, root, ignore=shutil.ignore_patterns("snapshots"))
    rows = [{k: v for k, v in row.items() if k != "by_region"} for row in lesson.metrics()]
    (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return egs.load_run(root, lesson.dataset.root)


def test_runs_of_older_versions_say_what_they_lack(old, lesson):
    with pytest.raises(DatasetError, match="an older version"):
        growth.with_snapshots(old)
    assert "older version" in growth.recount(old).caption and growth.counted_rounds(old) == []
    births = [sum(row["births"].values()) for row in old.metrics("densify")]
    assert list(growth.by_region(old)) == ["born"] and growth.by_region(old)["born"].sum(1).tolist() == births
    assert len(growth_figures.births_figure(old).axes) == 2


def test_to_show_prefers_the_run_itself_but_needs_its_snapshots(still, lesson, old, monkeypatch):
    assert growth.to_show(lesson) is lesson
    made = []
    monkeypatch.setattr(growth, "train", lambda ds, cfg, folder: made.append(folder))
    growth.to_show(still, 99)
    growth.to_show(old, 99)
    keep = shutil.ignore_patterns("lesson_*", "collapse_*")
    parent = egs.load_run(shutil.copytree(still.root, old.root.parent, dirs_exist_ok=True, ignore=keep),
                          still.dataset.root)
    growth.to_show(parent, LESSON)
    assert [p.name for p in made] == ["lesson_99", "lesson_99", f"lesson_{LESSON}_again"]


# ---- the lost head ----

@pytest.mark.slow
def test_a_head_is_lost_and_caught(still):
    """It really collapses, the guard really stops it, and what was there before can be loaded; twice."""
    for _ in range(2):
        lost = collapse.provoke(still)
        assert isinstance(lost.error, TrainingError) and "collapse" in str(lost.error)
        assert lost.run.iterations == [collapse.COARSE] and f"iteration {collapse.COARSE}" in str(lost.error)
        assert lost.rows[-1]["iteration"] > collapse.COARSE
        peak = max(row["coverage"] for row in lost.rows)
        assert lost.rows[-1]["coverage"] < COLLAPSE["coverage"] * peak <= lost.rows[-2]["coverage"]
    truth, kept, gone = (p.astype(int) for p in lost.pictures)
    assert np.abs(gone - truth).mean() > 1.5 * np.abs(kept - truth).mean()
    assert lost.run.load_head(device="cpu").gaussians["opacities"].sigmoid().mean() == pytest.approx(lost.opacity[0])
    plots.finish(collapse_figure.collapse_figure(lost), still.root, "collapse")


def test_two_cannot_lose_the_same_head_at_once(still):
    """Both would write into one folder."""
    folder = still.root / f"collapse_{collapse.TOO_FAST:g}"
    folder.mkdir(exist_ok=True)
    with exclusive_lock(folder, "training"), pytest.raises(InputError, match="nobody else"):
        collapse.provoke(still)


@pytest.mark.slow
def test_a_head_that_stays_is_told(still):
    with pytest.raises(InputError, match="0.0001"):
        collapse.provoke(still, rate=0.0001)
