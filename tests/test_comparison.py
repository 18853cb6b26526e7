"""Protects: only comparable runs are compared, and the tables and curves of notebook 05 match the runs."""
import json
import shutil

import numpy as np
import pytest
from matplotlib import pyplot

import egstalker_nb as egs
from egstalker_nb.analysis import comparison, cost, frame_cache, run_index, setting_effects
from egstalker_nb.config import FIELDS
from egstalker_nb.core.errors import DatasetError, InputError
from egstalker_nb.evaluation.evaluate import saved_scores
from egstalker_nb.notebook import comparison_figures, growth_figures, plots
from egstalker_nb.rendering import inspection

SHORT = dict(iterations=24, coarse_iterations=12, batch_size=1, plane_resolution=[8, 16], eval_interval=12)


def train(ds, folder, **more):
    return egs.train(ds, egs.load_config("quick_test", **{**SHORT, **more}), folder, device="cpu")


@pytest.fixture(scope="module")
def pair(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    return [train(tiny_dataset, folder / "one"), train(tiny_dataset, folder / "two", batch_size=2, lambda_mask=0.0)]


@pytest.fixture
def result(pair):
    yield egs.compare(pair)
    for run in pair:
        shutil.rmtree(run.root / "scores", ignore_errors=True)


@pytest.fixture
def other_data(pair, tmp_path):
    """A copy of a run that was trained on something else."""
    shutil.copytree(pair[0].root, tmp_path / "stranger")
    path = tmp_path / "stranger" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset_hash": "0123456789ab"}))
    return tmp_path / "stranger"


@pytest.fixture
def scored(monkeypatch):
    """Count evaluations instead of rendering: (run name, frames) of each."""
    calls = []

    def evaluate(run, split, max_frames=None):
        calls.append((run.root.name, max_frames))
        frames = max_frames or len(run.dataset.split(split))
        scores = comparison.Scores(run=run.root.name, split=split, iteration=run.pick(), frames=frames, note="",
                                   psnr_composite=20.0 + len(calls), lmd_mouth=3.0 - len(calls), seam=1.0 + len(calls),
                                   aperture_r=float("nan"))
        (run.root / "scores").mkdir(exist_ok=True)
        saved = {**scores, "aperture_r": None}
        part = "" if max_frames is None else f"_first{max_frames}"
        (run.root / "scores" / f"{split}_{run.pick()}{part}.json").write_text(json.dumps(saved))
        return scores

    monkeypatch.setattr(comparison, "evaluate", evaluate)
    return calls


def test_every_setting_has_an_effect():
    """A new setting without a sentence would be missing in the table of differences."""
    assert set(setting_effects.EFFECTS) == set(FIELDS) - {"preset"}
    assert all(text.endswith(".") and len(text.split()) >= 4 for text in setting_effects.EFFECTS.values())


def test_parameters_show_differences_only(result):
    table = result.parameters()
    assert list(table.columns) == ["matters", "setting", "one", "two", "effect"]
    assert [row[:4] for row in table.rows] == [("lesson 4 batch", "batch_size", 1, 2),
                                               ("quality", "lambda_mask", 0.1, 0.0)]
    assert [row[4] for row in table.rows] == [setting_effects.EFFECTS[row[1]] for row in table.rows]


@pytest.mark.parametrize("runs", [[], ["one"], ["one", "one"]])
def test_fewer_than_two_runs(pair, runs):
    with pytest.raises(InputError, match="two or more different runs"):
        egs.compare([pair[0].root for _ in runs])


def test_one_path_is_not_a_list_of_letters(pair):
    with pytest.raises(InputError, match="two or more different runs"):
        egs.compare(str(pair[0].root))


def test_different_datasets_are_refused(pair, other_data):
    with pytest.raises(InputError) as caught:
        egs.compare([pair[0], other_data])
    assert "0123456789ab" in caught.value.found and pair[0].manifest["dataset_hash"] in caught.value.found


def test_runs_of_another_dataset_than_the_given_one(pair, tiny_dataset, other_data):
    """Both agree with each other, but not with the dataset that the notebook names."""
    shutil.copytree(other_data, other_data.with_name("twin"))
    with pytest.raises(InputError, match="one dataset"):
        egs.compare([other_data, other_data.with_name("twin")], tiny_dataset)


def test_run_without_a_checkpoint_is_refused(pair, tmp_path):
    shutil.copytree(pair[0].root, tmp_path / "empty", ignore=shutil.ignore_patterns("iteration_*"))
    with pytest.raises(DatasetError, match="checkpoint"):
        egs.compare([pair[0], tmp_path / "empty"])


def test_select_names_what_it_leaves_out(pair, tiny_dataset, other_data, tmp_path):
    """Notebook 05 takes all folders it finds; a run on another dataset must not stop it, nor be dropped silently."""
    paths = [pair[1].root, other_data, tmp_path / "nowhere", pair[0].root, pair[1].root]
    chosen, left_out = comparison.select(paths, tiny_dataset)
    assert [r.root.name for r in chosen] == ["two", "one"]
    assert set(left_out) == {str(other_data), str(tmp_path / "nowhere")} and "0123456789ab" in left_out[str(other_data)]
    with pytest.raises(InputError, match="nowhere"):
        comparison.select([tmp_path / "nowhere"], tiny_dataset)


def test_equal_folder_names_are_made_unique(pair, tmp_path):
    for parent in ("a", "b"):
        shutil.copytree(pair[0].root, tmp_path / parent / "run")
        manifest = {**pair[0].manifest, "dataset": str(pair[0].dataset.root)}
        (tmp_path / parent / "run" / "manifest.json").write_text(json.dumps(manifest))
    assert egs.compare([tmp_path / "a" / "run", tmp_path / "b" / "run"]).names == ["a/run", "b/run"]


def test_costs_are_those_of_the_newest_checkpoint(result, pair):
    found = {row[0]: row[1:] for row in result.costs().rows}
    assert found["iterations"] == (24, 24) and found["Gaussians"] == (478, 478)
    assert found["frames seen (iterations x batch size)"] == (24, 48)
    folder = pair[0].root / "checkpoints" / "iteration_24"
    whole = sum(p.stat().st_size for p in folder.iterdir()) / 2**20
    assert found["checkpoint (MiB)"][0] == pytest.approx(whole, abs=0.01)
    assert 0 < found["of which needed to render (MiB)"][0] < whole


def test_seconds_add_up(pair, tmp_path):
    """20 steps at 10 it/s and 4 at 2 it/s take 2 + 2 s; counting rows instead of steps would say 0.6 s."""
    shutil.copytree(pair[0].root, tmp_path / "timed")
    rows = [{"kind": "train", "iteration": 20, "it_per_s": 10.0}, {"kind": "eval", "iteration": 22, "val_psnr": 20.0},
            {"kind": "train", "iteration": 24, "it_per_s": 2.0}]
    (tmp_path / "timed" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = egs.load_run(tmp_path / "timed")
    assert cost.seconds_at(run) == pytest.approx({20: 2.0, 24: 4.0})
    assert cost.series(run, "eval", "val_psnr", "time") == ([pytest.approx(3.0)], [20.0])


@pytest.mark.parametrize("by", ["iteration", "time"])
def test_curves_hold_every_run_and_term(result, tmp_path, by):
    figure = comparison_figures.training_curves(result, by)
    axes = {a.get_title(): a for a in figure.axes}
    assert {"loss term: l1", "loss term: lip", "training batches", "validation frames", "Gaussians"} <= set(axes)
    # the second run has no mask term; empty lines only carry the legend
    lines = {title: sum(len(line.get_xdata()) > 0 for line in a.lines) for title, a in axes.items()}
    assert lines["loss term: mask"] == 1 and lines["loss term: l1"] == lines["validation frames"] == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["one", "two"]
    last = max(line.get_xdata()[-1] for line in axes["training batches"].lines if len(line.get_xdata()))
    assert last == (24 if by == "iteration" else pytest.approx(max(max(cost.seconds_at(r).values())
                                                                   for r in result.runs)))
    plots.finish(figure, tmp_path, "curves")


def test_curves_by_something_else(result):
    with pytest.raises(InputError, match="by='time'"):
        comparison_figures.training_curves(result, "epoch")


def test_frames_are_truth_first_then_each_run(result):
    ids = list(result.dataset.val_ids)
    figure = comparison_figures.frame_grid(result, ids)
    shown = [np.asarray(a.images[0].get_array()) for a in figure.axes]
    assert len(shown) == 3 * len(ids)
    np.testing.assert_array_equal(shown[0], result.dataset.frame(ids[0]))
    titles = [a.get_title() for a in figure.axes]
    assert titles[0] == f"ground truth, frame {ids[0]}" and titles[len(ids)].startswith("one: ")
    error = np.mean((shown[len(ids)] / 255.0 - shown[0] / 255.0) ** 2)
    assert titles[len(ids)] == f"one: {-10 * np.log10(error):.1f} dB"
    pyplot.close("all")


def test_default_frames_are_validation_frames(result):
    titles = [a.get_title() for a in comparison_figures.frame_grid(result).axes]
    truth = [int(t.split()[-1]) for t in titles if t.startswith("ground truth")]
    assert truth and set(truth) <= set(result.dataset.val_ids)
    pyplot.close("all")


def test_scores_are_saved_and_read_again(result, scored):
    table = result.scores()
    count = len(result.dataset.val_ids)
    assert scored == [("one", None), ("two", None)], "all validation frames: fewer than the default number"
    rows = {row[0]: row[1:3] for row in table.rows}
    assert rows["psnr_composite"] == ("21.000", "22.000 *") and rows["lmd_mouth"] == ("2.000", "1.000 *")
    assert rows["seam"] == ("2.000 *", "3.000"), "an error: less is better"
    assert rows["aperture_r"] == (None, None) and rows["frames"] == (count, count)
    assert result.scores().rows == table.rows and len(scored) == 2


def test_scores_are_on_as_many_frames_for_all(result, scored):
    """A mean over 4 frames beside one over 6 would be read as a difference between the runs."""
    comparison.evaluate(result.runs[0], "train", max_frames=4)
    comparison.evaluate(result.runs[1], "train", max_frames=6)
    scored.clear()
    table = result.scores("train", max_frames=4)
    assert scored == [("one", 6)]
    assert {row[0]: row[1:3] for row in table.rows}["frames"] == (6, 6)
    result.scores("train", max_frames=None)
    assert scored[1:] == [("one", None), ("two", None)]


def test_shows_itself_with_known_scores_only(result, scored):
    assert "Scores" not in result._repr_html_() and "batch_size" in result._repr_html_()
    result.scores()
    assert "Scores" in result._repr_html_() and "22.000 *" in str(result)


def test_real_scores_of_two_runs(result):
    """Without the mock: the column of each run has its own scores."""
    row = {r[0]: r[1:3] for r in result.scores().rows}["psnr_composite"]
    values = [float(v.rstrip(" *")) for v in row]
    count = len(result.dataset.val_ids)
    saved = [saved_scores(r, "val")[count]["psnr_composite"] for r in result.runs]
    assert values == pytest.approx(saved, abs=1e-3)
    assert values[0] != values[1]


def test_presets_that_do_not_load_are_marked():
    rows = {row[0]: row for row in setting_effects.preset_table().rows}
    assert set(rows) == set(egs.presets()) and rows["args_default"][1] == "does not load"
    assert rows["quick_test"][4] == 0 and rows["production"][1:4] == (30000, 3000, "500 - 15000")


def test_the_four_lessons_come_first():
    """A reader of the long table stops after a few lines: those must be the ones that decide quality."""
    table = setting_effects.differences({name: egs.load_config(name) for name in ("quick_test", "production")})
    kinds = [row[0] for row in table.rows]
    lessons = [k for k in kinds if k.startswith("lesson")]
    assert kinds[:len(lessons)] == lessons and sorted({k.split()[1] for k in lessons}) == ["1", "2", "3", "4"]
    assert kinds[-1] == "bookkeeping" and set(setting_effects.LESSONS) < set(setting_effects.EFFECTS)
    shown = table._repr_html_()
    assert shown.count("<tr>") == 1 + len(table.rows) and setting_effects.EFFECTS["batch_size"] in shown


def test_presets_that_were_not_trained_are_listed_beside_the_runs(result):
    columns = result.parameters(presets=True).columns
    assert columns[2:4] == ("one", "two") and "production (not trained)" in columns
    same = {"mine": egs.load_config("quick_test")}
    shown = setting_effects.with_presets(same)
    assert "quick_test (not trained)" not in shown and len(shown) == 4


def test_settings_that_let_quick_test_grow():
    quick, production = egs.load_config("quick_test"), egs.load_config("production")
    assert setting_effects.makes_grow(quick, production) == ["densify_from_iter"]
    assert set(setting_effects.makes_grow(quick, production, keep=())) == {"iterations", "densify_from_iter"}


def test_schedule_figure_has_every_preset_that_loads():
    axis = growth_figures.schedule_figure().axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "quick_test", "extended_test", "egstalker_paper", "production"]
    assert axis.get_xlabel() and axis.get_ylabel()


# ---- runs found ----

def test_runs_are_found_at_any_depth(pair, other_data, tmp_path):
    deep = tmp_path / "a" / "b"
    shutil.copytree(pair[0].root, deep / "one" / "lesson_9")
    for junk in ("checkpoints", ".ipynb_checkpoints"):
        shutil.copytree(pair[0].root, deep / junk / "copy", ignore=shutil.ignore_patterns("iteration_*"))
    (deep / "broken").mkdir()
    for name in ("config.yaml", "manifest.json"):
        (deep / "broken" / name).write_text("{")
    found = {f.path.name: f for f in run_index.find_runs(tmp_path, tmp_path / "nowhere", tmp_path)}
    assert set(found) == {"lesson_9", "stranger", "broken"}
    one = found["lesson_9"]
    assert (one.iterations, one.planned, one.points, one.preset) == (24, 24, 478, "quick_test") and not one.problem
    assert one.psnr == pytest.approx(pair[0].metrics("eval")[-1]["val_psnr"]) and "during training" in one.source
    assert "cannot be read" in found["broken"].problem and not found["broken"].points
    assert found["stranger"].mismatch(one.hash) and not one.mismatch(one.hash)
    assert set(run_index.runs_by_dataset(found.values())) == {one.hash, "0123456789ab"}


def test_scored_psnr_takes_precedence_over_that_of_training(pair, tmp_path):
    shutil.copytree(pair[0].root, tmp_path / "run")
    (tmp_path / "run" / "scores").mkdir()
    (tmp_path / "run" / "scores" / "val_24_first1.json").write_text(json.dumps({"frames": 1, "psnr_composite": 33.5}))
    found = run_index.describe_run(tmp_path / "run")
    assert (found.psnr, found.source) == (33.5, "1 frames scored")


def test_names_are_as_short_as_possible():
    paths = [comparison.Path(p) for p in ("/x/a/run", "/x/b/run", "/x/b/other")]
    assert run_index.short_names(paths) == ["a/run", "b/run", "b/other"]
    assert run_index.short_names([]) == []


def test_select_finds_a_dataset_that_was_moved(pair, tiny_dataset, tmp_path):
    shutil.copytree(pair[0].root, tmp_path / "deep" / "er" / "run")
    (chosen,), _ = comparison.select([tmp_path / "deep" / "er" / "run"], tiny_dataset)
    assert chosen.dataset.hash == tiny_dataset.hash


# ---- quality against cost ----

def timed(folder, rows, evals=(), source=None, **manifest):
    """A copy of a run with made-up metrics: (iteration, it/s, points, stage) and (iteration, PSNR)."""
    shutil.copytree(source.root, folder)
    lines = [{"kind": "train", "iteration": i, "it_per_s": s, "points": n, "stage": stage, "psnr": 20.0 + i}
             for i, s, n, stage in rows] + [{"kind": "eval", "iteration": i, "val_psnr": p} for i, p in evals]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset": str(source.dataset.root), **manifest}))
    return egs.load_run(folder)


def test_pareto_front():
    costs, quality = [1, 2, 3, 2, 1], [20, 25, 24, 22, 20]
    assert cost.pareto(costs, quality) == [True, True, False, False, True], "equals do not beat each other"


def test_time_to_a_psnr(pair, tmp_path):
    """10 it/s for the first, 1 it/s for the second: it needs fewer iterations, and more time."""
    slow = timed(tmp_path / "slow", [(12, 1.0, 478, "fine")], [(4, 21.0), (8, 24.0)], pair[0])
    fast = timed(tmp_path / "fast", [(24, 10.0, 478, "fine")], [(10, 20.0), (20, 24.5)], pair[0])
    table = cost.time_to([slow, fast], ["slow", "fast"], [24, 26])
    assert table.rows == [("24 dB", "0:08 (iteration 8)", "0:02 (iteration 20) *"), ("26 dB", None, None)]
    assert "validation" in table.caption
    assert cost.levels([[20, 24.5], [21, 24]]) == [21, 22, 23, 24] and cost.levels([[]]) == []


def test_without_evaluations_training_batches_count(pair, tmp_path):
    run = timed(tmp_path / "never", [(4, 1.0, 478, "fine")], (), pair[0])
    assert cost.psnr_source([pair[0], run]) == "train"
    assert "training batches" in cost.time_to([pair[0], run], ["one", "never"]).caption


def test_advice_divides_frames_by_the_measured_speed(pair, tmp_path):
    """A step of two frames at 4 it/s is 8 frames/s; devices have columns of their own, and no run adds none."""
    cpu = timed(tmp_path / "cpu", [(4, 4.0, 478, "fine"), (8, 4.0, 478, "fine")], (), pair[1], device="CPU")
    gpu = timed(tmp_path / "gpu", [(4, 400.0, 478, "fine")], (), pair[0], device="A card")
    table = cost.advice([cpu, gpu])
    assert list(table.columns[3:]) == ["time on CPU, 64 px", "time on A card, 64 px"]
    rows = {row[1]: row for row in table.rows}
    assert set(rows) == {"quick_test", "production", "extended_test", "egstalker_paper"}
    assert rows["quick_test"][2:] == (8000, "16:40", "0:20") and rows["production"][2:] == (30000, "1:02:30", "1:15")
    assert len(cost.advice([]).columns) == 3


def test_advice_of_a_comparison_uses_other_runs_too(result, pair, tmp_path):
    gpu = timed(tmp_path / "gpu", [(4, 400.0, 478, "fine")], (), pair[0], device="A card")
    assert "time on A card, 64 px" not in result.advice().columns
    assert "time on A card, 64 px" in result.advice([gpu]).columns


# ---- the same frame ----

def test_renderings_are_cached_up_to_a_limit(result, monkeypatch):
    renders, ds = frame_cache.FrameCache(result.runs, max_bytes=3 * 64 * 64 * 3), result.dataset
    first = renders.picture(0, 3)
    assert renders.picture(0, 3) is first and renders.rendered == 1
    np.testing.assert_array_equal(renders.picture(-1, 3), ds.frame(3))
    np.testing.assert_array_equal(first, frame_cache.FrameCache(result.runs).picture(0, 3))
    assert (renders.picture(1, 3) != first).any()
    for i in (4, 5):
        renders.picture(0, i)
    assert renders.picture(0, 3) is not first, "the least recently used one is dropped first"


def test_renders_use_each_runs_own_poses(result):
    """Poses are refined in training: the first run's would shift the second one's head."""
    renders = frame_cache.FrameCache(result.runs)
    before = renders.picture(1, 2)
    other = egs.load_run(result.runs[1].root)
    load = other.load_head

    def moved(*given):
        head = load(*given)
        head.w2c[:, 0, 3] += 1.0
        return head

    other.load_head = moved
    assert np.abs(frame_cache.FrameCache([result.runs[0], other]).picture(1, 2).astype(int) - before).max() > 30


def test_difference_has_one_scale():
    a, b = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 132, np.uint8)
    assert frame_cache.difference(a, b) == pytest.approx(np.full((4, 4), 32))
    ramp = frame_cache.heatmap(np.linspace(0, frame_cache.MAX_DIFFERENCE, 32)[None]).astype(float)
    assert (np.diff(ramp[0] @ [0.299, 0.587, 0.114]) > 0).all(), "readable in greyscale: lighter is always more"
    np.testing.assert_array_equal(frame_cache.heatmap(np.float32([[200]])), frame_cache.heatmap(np.float32([[64]])))


def test_crops_are_of_one_size_and_follow_the_face():
    windows = frame_cache.crops(np.int32([[10, 10, 20, 16], [12, 10, 22, 16], [30, 30, 44, 36]]), 1.5)
    assert windows[:, 2].tolist() == [10, 10, 10] and windows[:, 0].tolist() == [15, 17, 37]
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[10:16, 10:20] = 255
    shown = inspection.crop(picture, np.float64([15, 13, 10]), 10 / 6, width=100)
    assert shown.shape == (60, 100, 3) and shown[5:55, 5:95].min() > 200
