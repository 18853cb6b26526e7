"""Protects: only comparable runs are compared, and the tables and curves of notebook 05 say what the runs did."""
import json
import shutil

import numpy as np
import pytest
from matplotlib import pyplot

import egstalker_nb as egs
from egstalker_nb import comparison, plots
from egstalker_nb.config import FIELDS
from egstalker_nb.errors import DatasetError, InputError
from egstalker_nb.evaluation import saved_scores

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
                                   psnr_composite=20.0 + len(calls), lmd_mouth=3.0 - len(calls),
                                   aperture_r=float("nan"))
        (run.root / "scores").mkdir(exist_ok=True)
        saved = {**scores, "aperture_r": None}
        part = "" if max_frames is None else f"_first{max_frames}"
        (run.root / "scores" / f"{split}_{run.pick()}{part}.json").write_text(json.dumps(saved))
        return scores

    monkeypatch.setattr(comparison, "evaluate", evaluate)
    return calls


def test_every_setting_says_what_it_does():
    """A new setting without a sentence would break the table of a user who changed it."""
    assert set(comparison.EFFECTS) == set(FIELDS) - {"preset"}
    assert all(text.endswith(".") and len(text.split()) >= 4 for text in comparison.EFFECTS.values())


def test_parameters_show_differences_only(result):
    table = result.parameters()
    assert list(table.columns) == ["setting", "one", "two", "what it does"]
    assert [row[:3] for row in table.rows] == [("batch_size", 1, 2), ("lambda_mask", 0.1, 0.0)]
    assert [row[3] for row in table.rows] == [comparison.EFFECTS[row[0]] for row in table.rows]


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
    """Notebook 05 gets whatever lies in the folder of runs; one stranger must not stop it, nor vanish silently."""
    paths = [pair[1].root, other_data, tmp_path / "nowhere", pair[0].root, pair[1].root]
    chosen, left_out = comparison.select(paths, tiny_dataset)
    assert [r.root.name for r in chosen] == ["two", "one"]
    assert set(left_out) == {str(other_data), str(tmp_path / "nowhere")} and "0123456789ab" in left_out[str(other_data)]
    with pytest.raises(InputError, match="nowhere"):
        comparison.select([tmp_path / "nowhere"], tiny_dataset)


def test_equal_folder_names_are_told_apart(pair, tmp_path):
    for parent in ("a", "b"):
        shutil.copytree(pair[0].root, tmp_path / parent / "run")
        manifest = {**pair[0].manifest, "dataset": str(pair[0].dataset.root)}
        (tmp_path / parent / "run" / "manifest.json").write_text(json.dumps(manifest))
    assert egs.compare([tmp_path / "a" / "run", tmp_path / "b" / "run"]).names == ["a/run", "b/run"]


def test_costs_are_those_of_the_newest_checkpoint(result, pair):
    cost = {row[0]: row[1:] for row in result.costs().rows}
    assert cost["iterations done"] == (24, 24) and cost["Gaussians"] == (478, 478)
    assert cost["frames seen (iterations x batch)"] == (24, 48)
    folder = pair[0].root / "checkpoints" / "iteration_24"
    whole = sum(p.stat().st_size for p in folder.iterdir()) / 2**20
    assert cost["checkpoint (MiB)"][0] == pytest.approx(whole, abs=0.01)
    assert 0 < cost["of which needed to render (MiB)"][0] < whole


def test_seconds_add_up(pair, tmp_path):
    """20 steps at 10 it/s and 4 at 2 it/s take 2 + 2 s; counting rows instead of steps would say 0.6 s."""
    shutil.copytree(pair[0].root, tmp_path / "timed")
    rows = [{"kind": "train", "iteration": 20, "it_per_s": 10.0}, {"kind": "eval", "iteration": 22, "val_psnr": 20.0},
            {"kind": "train", "iteration": 24, "it_per_s": 2.0}]
    (tmp_path / "timed" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = egs.load_run(tmp_path / "timed")
    assert comparison.seconds_at(run) == pytest.approx({20: 2.0, 24: 4.0})
    assert comparison._series(run, "eval", "val_psnr", "time") == ([pytest.approx(3.0)], [20.0])


@pytest.mark.parametrize("by", ["iteration", "time"])
def test_curves_hold_every_run_and_term(result, tmp_path, by):
    figure = result.curves(by)
    axes = {a.get_title(): a for a in figure.axes}
    assert {"loss term: l1", "loss term: lip", "training batches", "validation frames", "Gaussians"} <= set(axes)
    # the second run has no mask term; empty lines only carry the legend
    lines = {title: sum(len(line.get_xdata()) > 0 for line in a.lines) for title, a in axes.items()}
    assert lines["loss term: mask"] == 1 and lines["loss term: l1"] == lines["validation frames"] == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["one", "two"]
    last = max(line.get_xdata()[-1] for line in axes["training batches"].lines if len(line.get_xdata()))
    assert last == (24 if by == "iteration" else pytest.approx(max(max(comparison.seconds_at(r).values())
                                                                   for r in result.runs)))
    plots.finish(figure, tmp_path, "curves")


def test_curves_by_something_else(result):
    with pytest.raises(InputError, match="by='time'"):
        result.curves("epoch")


def test_frames_are_truth_first_then_each_run(result):
    ids = list(result.dataset.val_ids)
    figure = result.frames(ids)
    shown = [np.asarray(a.images[0].get_array()) for a in figure.axes]
    assert len(shown) == 3 * len(ids)
    np.testing.assert_array_equal(shown[0], result.dataset.frame(ids[0]))
    titles = [a.get_title() for a in figure.axes]
    assert titles[0] == f"ground truth, frame {ids[0]}" and titles[len(ids)].startswith("one: ")
    error = np.mean((shown[len(ids)] / 255.0 - shown[0] / 255.0) ** 2)
    assert titles[len(ids)] == f"one: {-10 * np.log10(error):.1f} dB"
    pyplot.close("all")


def test_default_frames_are_validation_frames(result):
    titles = [a.get_title() for a in result.frames().axes]
    truth = [int(t.split()[-1]) for t in titles if t.startswith("ground truth")]
    assert truth and set(truth) <= set(result.dataset.val_ids)
    pyplot.close("all")


def test_scores_are_saved_and_read_again(result, scored):
    table = result.scores()
    count = len(result.dataset.val_ids)
    assert scored == [("one", None), ("two", None)], "all validation frames: fewer than the default number"
    rows = {row[0]: row[1:3] for row in table.rows}
    assert rows["psnr_composite"] == ("21.000", "22.000 *") and rows["lmd_mouth"] == ("2.000", "1.000 *")
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
    """The one test without the stand-in: the column of each run holds its own scores."""
    row = {r[0]: r[1:3] for r in result.scores().rows}["psnr_composite"]
    values = [float(v.rstrip(" *")) for v in row]
    count = len(result.dataset.val_ids)
    saved = [saved_scores(r, "val")[count]["psnr_composite"] for r in result.runs]
    assert values == pytest.approx(saved, abs=1e-3)
    assert values[0] != values[1]


def test_presets_that_do_not_load_say_so():
    rows = {row[0]: row for row in comparison.preset_table().rows}
    assert set(rows) == set(egs.presets()) and rows["args_default"][1] == "does not load"
    assert rows["quick_test"][4] == 0 and rows["production"][1:4] == (30000, 3000, "500 - 15000")
