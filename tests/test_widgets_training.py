"""Protects: training from a panel, what it shows, and the computations behind the lessons on losses and attention."""
import json
import shutil
import time

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import egstalker_nb as egs
from egstalker_nb import notebook
from egstalker_nb.analysis import attribution
from egstalker_nb.core.errors import ConfigError, DatasetError, InputError, TrainingError
from egstalker_nb.model.deformation import TOKENS
from egstalker_nb.notebook import plots, widgets
from egstalker_nb.notebook.exercises.notebook_02 import coarse
from egstalker_nb.notebook.exercises.notebook_03 import fine
from egstalker_nb.notebook.widgets import snapshot_viewer, training_panel
from egstalker_nb.notebook.widgets.base import png
from egstalker_nb.notebook.widgets.heat_maps import heat_map
from egstalker_nb.rendering import inspection
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.training.history import History, thinned
from egstalker_nb.training.losses import Losses

SMALL = dict(iterations=60, coarse_iterations=40, batch_size=2, checkpoint_interval=1000, eval_interval=30,
             plane_resolution=[8, 16], pose_steps=0)


def small(**more):
    return egs.load_config("quick_test", **{**SMALL, **more})


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory):
    return egs.train(tiny_dataset, small(), tmp_path_factory.mktemp("panel") / "run", device="cpu")


@pytest.fixture(scope="module")
def coarse_only(trained):
    """The same run, before its fine stage."""
    root = trained.root.with_name("coarse")
    shutil.copytree(trained.root, root)
    shutil.rmtree(root / "checkpoints" / "iteration_60")
    return egs.load_run(root)


def labelled(figure, tmp_path):
    """A figure that can be saved, every plotted axis named."""
    assert isinstance(figure, Figure)
    plots.finish(figure, tmp_path, "figure")


# ---- the log, read while it is written ----

def row(iteration, **more):
    return json.dumps({"kind": "train", "iteration": iteration, "stage": "coarse", "l1": 0.3, "mask": 0.1, "loss": 0.4,
                       "psnr": 20.0, "points": 478, "it_per_s": 10.0, **more}) + "\n"


def test_rows_come_as_they_are_written(tmp_path):
    history, path = History(tmp_path), tmp_path / "metrics.jsonl"
    assert not history.read() and history.facts(100) == {} and history.shares()[0].size == 0
    path.write_text(row(20) + row(40)[:30])
    assert history.read() and history.iteration == 20 and not history.read(), "half a row is left for later"
    with open(path, "a") as file:
        file.write(row(40)[30:] + json.dumps({"kind": "eval", "iteration": 40, "val_psnr": 19.0}) + "\n")
    assert history.read() and [r["iteration"] for r in history.of("train")] == [20, 40]
    facts = history.facts(100)
    assert facts["left"] == pytest.approx(6) and facts["elapsed"] == pytest.approx(4) and facts["val_psnr"] == 19
    at, shares = history.shares()
    assert at.tolist() == [20, 40] and np.allclose(shares["l1"] + shares["mask"], 1)
    other = tmp_path / "new"  # a resumed run rewrites its log
    other.write_text(row(20))
    other.replace(path)
    assert history.read() and len(history.rows) == 1
    assert history.upto(10).rows == []


@pytest.mark.parametrize("count", [1, 299, 300, 301, 5000, 12345])
def test_curves_are_thinned(count):
    x = np.arange(1.0, count + 1)
    few, means = thinned(x, x)
    assert len(few) <= 300 and few[-1] == count
    group = -(-count // 300)
    assert means[0] == pytest.approx((1 + min(group, count)) / 2)


# ---- the panel ----

def wait_until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_start_watch_stop_and_resume(tiny_dataset, tmp_path, trained):
    cfg = small(iterations=4000, coarse_iterations=3000)
    panel = widgets.TrainingPanel(tiny_dataset, cfg, tmp_path / "run", until="coarse", device="cpu")
    assert panel.last == 3000 and "not started" in str(panel.still())
    assert panel.widget is not None
    panel.job.go.click()
    wait_until(lambda: len(panel.chart.data[0].x) >= 2)
    wait_until(lambda: panel.snapshot is not None and panel.snapshot.iteration >= 10)
    second = widgets.TrainingPanel(tiny_dataset, cfg, tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="nobody else at work"):
        second.result()
    panel.job.halt.click()
    assert panel.job.wait(60) and panel.job.state == "stopped"
    at = egs.load_run(tmp_path / "run").iterations[-1]
    assert f"iteration {at} of 3000" in panel.facts.value, "the last rows are not left out"
    assert panel.triple.caption.value.startswith("<b>iteration")
    panel.job.go.click()
    wait_until(lambda: panel.history.iteration > at)
    panel.stop()
    assert panel.job.wait(60) and panel.job.state == "stopped", panel.job.error
    assert egs.load_run(tmp_path / "run").iterations[-1] > at


def test_result_is_the_run_and_a_finished_one_is_there_at_once(tiny_dataset, tmp_path, trained, monkeypatch):
    panel = widgets.TrainingPanel(tiny_dataset, small(), trained.root, until="coarse", device="cpu")
    assert panel.job.state == "done" and panel.result().root == trained.root
    assert panel.history.iteration == 40, "later iterations belong to another panel"
    assert "lip" not in panel.history.terms
    whole = widgets.TrainingPanel(tiny_dataset, small(), trained.root, device="cpu")
    assert whole.widget is not None
    curves = {(t.meta, t.name): t for t in whole.chart.data}
    assert list(curves["loss terms (weighted)", "lip"].x) == [60]
    assert list(curves["image quality", "validation frames"].x) == [30, 60]
    assert whole.snapshot.iteration == 60 and whole.chart.layout.yaxis.type == "log"
    labelled(whole.still(), tmp_path)


def test_another_run_in_the_folder_is_refused(tiny_dataset, trained):
    panel = widgets.TrainingPanel(tiny_dataset, small(seed=1), trained.root, device="cpu")
    with pytest.raises(ConfigError, match="seed"):
        panel.result()
    with pytest.raises(InputError, match="until"):
        widgets.TrainingPanel(tiny_dataset, small(), trained.root, until="fine")


def test_a_failure_is_one_line_and_an_exception(tiny_dataset, tmp_path, monkeypatch):
    def fails(*args):
        raise TrainingError("a head that stays", "a collapse by iteration 20", "Lower the learning rates.")

    monkeypatch.setattr(training_panel, "train", fails)
    panel = widgets.TrainingPanel(tiny_dataset, small(), tmp_path / "run")
    assert panel.widget is not None
    panel.start()
    panel.job.wait(20)
    assert "a collapse by iteration 20" in panel.job.note.value
    with pytest.raises(TrainingError, match="collapse"):
        panel.result()


def test_scrubbing_through_snapshots(trained, tmp_path):
    panel = widgets.SnapshotViewer(trained)
    assert panel.iterations == trained.snapshots
    labelled(panel.still(), tmp_path)
    assert panel.widget is not None
    before = panel.triple.images["rendering"].value
    panel.slide.value = 0
    assert panel.snapshot.iteration == 0 and panel.triple.images["rendering"].value != before
    assert "iteration 0" in panel.triple.caption.value
    first, last = (snapshot_viewer.snapshot_frame(trained.root, trained.dataset, i) for i in (0, 60))
    assert last.psnr > first.psnr + 3 and last.truth.shape == last.image.shape
    assert widgets.SnapshotViewer(trained, 40).iterations[-1] == 40


def test_a_run_without_images_says_so(trained, monkeypatch):
    monkeypatch.setattr(egs.Run, "snapshots", [])
    panel = widgets.SnapshotViewer(trained)
    assert "have no images" in str(panel.still()) and isinstance(panel.widget, ipywidgets.HTML)


# ---- loss terms ----

@pytest.mark.parametrize("deform", [False, True])
def test_maps_are_the_loss_term_by_term(trained, deform):
    renderer = Renderer.from_run(trained, 60 if deform else 40, "cpu")
    losses = Losses(trained.config, "fine" if deform else "coarse", trained.dataset.head_box)
    rgb, alpha, b = attribution._seen(renderer, [3])
    _, shown = losses(rgb, alpha, b["frame"], b["head"], b["lips"])
    maps = attribution.term_maps(renderer, 3)
    assert list(maps) == list(losses.weights)
    for value, image in zip(shown, maps.values()):
        assert image.shape == (64, 64) and image.mean() == pytest.approx(float(value), rel=1e-3, abs=1e-7)


def test_gradients_of_the_terms_sum_to_that_of_the_loss(trained):
    renderer = Renderer.from_run(trained, 60, "cpu")
    head, found = renderer.head, attribution.term_gradients(renderer, [1, 5])
    whole = found.pop("loss")
    for name, gradient in whole.items():
        total = sum(by[name] for by in found.values())
        assert gradient.shape == head.gaussians[name].shape
        assert torch.allclose(total, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())), name
    assert float(found["mask"]["sh0"].abs().max()) == 0, "a mask has no colour"
    assert not any(p.requires_grad or p.grad is not None for p in head.parameters())
    assert attribution.gradient_norms(found)["l1"]["means"] > 0


def test_a_step_against_the_gradient_lowers_its_term(trained):
    """The gradient is that of the term in this frame, not of something else."""
    renderer = Renderer.from_run(trained, 60, "cpu")
    before = {k: m.mean() for k, m in attribution.term_maps(renderer, 2).items()}
    gradient = attribution.term_gradients(renderer, [2])["mask"]["opacities"]
    renderer.head.gaussians["opacities"].data -= 0.3 * gradient / gradient.norm()
    assert attribution.term_maps(renderer, 2)["mask"].mean() < before["mask"]


def test_panel_of_the_loss_terms(trained, coarse_only, tmp_path):
    panel = widgets.LossTerms(trained)
    labelled(panel.still(), tmp_path)
    assert panel.widget is not None
    before, rows = panel.images["l1"].value, panel.table().rows
    assert [r[0] for r in rows] == ["l1", "dssim", "mask", "lip", "loss"]
    panel.slide.value = 0
    assert panel.frame == 0 and panel.images["l1"].value != before
    assert list(widgets.LossTerms(coarse_only).maps) == ["l1", "dssim", "mask"]


def test_shares_of_the_loss(trained, tmp_path):
    plot = widgets.loss_shares(trained)
    labelled(plot.still(), tmp_path)
    stacked = np.sum([trace.y for trace in plot.figure.data], 0)
    assert np.allclose(stacked, 100) and len({t.fillpattern.shape for t in plot.figure.data}) == 4
    labelled(widgets.loss_shares(trained, last=20).still(), tmp_path)
    with pytest.raises(DatasetError, match="Train it first"):
        widgets.loss_shares(egs.Run(tmp_path, trained.config, {}))


# ---- attention ----

def test_attention_is_painted_as_one_by_one(trained):
    renderer = Renderer.from_run(trained, 60, "cpu")
    maps = attribution.attention_maps(renderer, 4)
    weights = renderer.head.attention(renderer.conditions([4]))[0]
    for k in range(4):
        alone = inspection.render_values(renderer, 4, weights[:, k:k + 1])[..., 0]
        assert np.allclose(maps[..., k], alone, atol=1e-5, equal_nan=True)
    inside = np.isfinite(maps[..., 0])
    assert inside.any() and not inside.all() and np.allclose(maps[inside].sum(-1), 1, atol=1e-3)


def test_parts_attend_to_the_tokens_that_concern_them(trained):
    renderer = Renderer.from_run(trained, 60, "cpu")
    seen = attribution.attention_by_part(renderer, range(len(renderer.ds)))
    assert seen.shape == (12, 3, 4) and np.allclose(seen.sum(-1), 1, atol=1e-4)
    by = {part: dict(zip(TOKENS, seen[:, k].mean(0))) for k, part in enumerate(attribution.ATTENTION_PARTS)}
    assert by["mouth"]["audio"] > by["eyes"]["audio"] and by["eyes"]["eye"] > by["mouth"]["eye"]
    assert attribution.most_attended_token(renderer, 2, "mouth") in TOKENS


def test_panel_of_the_attention(trained, coarse_only, tmp_path):
    panel = widgets.AttentionView(trained, frame=1)
    labelled(panel.still(), tmp_path)
    assert panel.widget is not None
    before = panel.images["audio"].value
    panel.menu.value = "own"
    assert panel.scale == "own" and panel.images["audio"].value != before
    panel.slide.value = 11
    assert panel.frame == 11 and "validation" in panel.texts["frame"].value
    assert {s.x0 for s in panel.chart.layout.shapes} == {11 / 25}
    assert panel.maps("one")["null"][1:] == (0.0, 1.0)
    with pytest.raises(DatasetError, match="fine stage"):
        widgets.AttentionView(coarse_only)


def test_heat_is_dark_below_and_bright_above():
    values = np.array([[0.0, 0.5], [1.0, np.nan]], np.float32)
    picture = heat_map(values, 0, 1, np.full((2, 2, 3), 200, np.uint8)).mean(-1)
    assert picture[0, 0] < picture[0, 1] < picture[1, 0] and picture[1, 1] == pytest.approx(200 * 255 / 400, abs=1)
    assert png(plots.image_grid([heat_map(values, 0, 1)], ["x"]))[:4] == b"\x89PNG"


# ---- exercises ----

@pytest.mark.parametrize("make", [coarse, fine])
def test_exercises_know_right_from_wrong(trained, make):
    exercises = make(trained)
    answers = [item.answer() for item in exercises.items]
    wrong = ["nothing" if isinstance(a, str) else a + 1000 for a in answers]
    assert exercises.verify(*answers).verdicts == ["right"] * 3
    assert exercises.verify(*wrong).verdicts == ["wrong"] * 3
    assert exercises.verify(None, None, None).verdicts == ["open"] * 3


@pytest.mark.parametrize("make", [coarse, fine])
def test_solutions_work(trained, make):
    """The solution's code gives the answer, with the names that its notebook has defined by then."""
    start, end = Renderer.from_run(trained, 40), Renderer.from_run(trained)
    names = {"trained": trained, "ds": trained.dataset, "nb": notebook,
             **({"renderer": start} if make is coarse else {"start": start, "end": end})}
    for item in make(trained).items:
        *before, last = item.solution.split("\n")
        exec("\n".join(before), names)
        assert item.verdict(eval(last, names)) == "right", item.question
