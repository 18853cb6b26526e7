"""Protects: a head is drawn in the poses that it was trained on, everywhere, and not in those that were tracked.

The clip here was tracked badly, so that a frame that is drawn in a tracked pose is several dB too bad.
"""
import inspect
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb import notebook
from egstalker_nb.analysis import attribution, frame_cache
from egstalker_nb.evaluation import evaluate, lip_sync
from egstalker_nb.metrics.image_metrics import psnr
from egstalker_nb.model import deformation, head
from egstalker_nb.notebook import figures, growth_figures, plots, widgets
from egstalker_nb.notebook.exercises.notebook_02 import coarse
from egstalker_nb.notebook.exercises.notebook_03 import fine
from egstalker_nb.rendering import inspection
from egstalker_nb.scheduling import runner
from egstalker_nb.training.pose_refinement import moved, refine_poses

COARSE, LAST = 30, 90   # poses are refined at 30, 60 and 90
SETTINGS = dict(iterations=LAST, coarse_iterations=COARSE, pose_steps=4, batch_size=2, plane_resolution=[8, 16])
CLOSE = 0.02            # dB


@pytest.fixture(scope="module")
def dataset(tiny_dataset, tmp_path_factory) -> Path:
    """The tiny clip, tracked 2 degrees and half a hundredth of its distance off in every frame."""
    root = shutil.copytree(tiny_dataset.root, tmp_path_factory.mktemp("badly_tracked") / "dataset")
    with np.load(root / "tracking.npz") as file:
        tracking = {name: file[name] for name in file}
    wrong = 0.03 * torch.randn(len(tiny_dataset), 6, generator=torch.Generator().manual_seed(0))
    tracking["w2c"] = moved(torch.from_numpy(tracking["w2c"]), wrong).numpy()
    np.savez(root / "tracking.npz", **tracking)
    return root


def executed(name, **parameters):
    """The names that a notebook has at its end, and the figures it has finished, by name."""
    names, finished = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "finish", lambda figure, folder, title: finished.update({title: figure}))
        for cell in nbformat.read(runner.NOTEBOOK_DIR / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names.update(parameters)
    return names, finished


@pytest.fixture(scope="module")
def notebooks(dataset):
    """Notebooks 02 and 03, which train the run, as they are at their ends; without mediapipe, for speed."""
    given = {"dataset": str(dataset), "run": str(dataset.parent / "run"), "overrides": SETTINGS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "_tracker", lambda: (None, "no landmarks here"))
        return executed("02_coarse_training", **given), executed("03_fine_training", **given)


@pytest.fixture(scope="module")
def run(dataset, notebooks):
    return egs.load_run(dataset.parent / "run")


def scored(run, iteration, ids):
    """PSNR of the composite of single frames, in dB, as `egs.evaluate` says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "_tracker", lambda: (None, "no landmarks here"))
        sums = [n * egs.evaluate(run, "all", iteration, max_frames=n, device="cpu")["psnr_composite"]
                for n in range(1, len(run.dataset) + 1)]
    return np.diff([0.0, *sums])[ids].tolist()


def drawn(figure):
    """The PSNRs in the titles of a figure, in dB."""
    titles = (axis.get_title() for axis in figure.axes)
    return [float(title.split()[-2]) for title in titles if title.endswith(" dB")]


# ---- the numbers ----

def test_tracked_poses_would_cost_several_decibels(run):
    """Else this file could not tell one from the other."""
    renderer, truth = egs.Renderer.from_run(run, device="cpu"), inspection.ground_truth(run.dataset, range(10))
    own = psnr(inspection.render_frames(renderer, range(10)), truth).mean()
    renderer.head.w2c.copy_(torch.from_numpy(run.dataset.w2c))
    assert own > psnr(inspection.render_frames(renderer, range(10)), truth).mean() + 2


def test_poses_fit_the_finished_head(run):
    """Before, they fit one that had seen a part of its steps: of a long clip, hardly each frame once."""
    ds, cfg, final = run.dataset, egs.load_config("quick_test", **SETTINGS), run.load_head(device="cpu")
    poses = final.w2c.clone()
    before = egs.train(ds, cfg, run.root.parent / "before", until=LAST - 1, device="cpu").load_head(device="cpu").w2c
    final.w2c.copy_(before)
    expected = refine_poses(final, ds, torch.device("cpu"), cfg.pose_steps, True)
    torch.testing.assert_close(poses, torch.from_numpy(expected), atol=1e-4, rtol=0)
    assert (poses - before).abs().max() > 1e-3


def test_notebook_02_shows_the_coarse_head_as_it_is_scored(run, notebooks):
    (names, finished), _ = notebooks
    wanted = scored(run, COARSE, names["ids"])
    found = [float(psnr(*pair)) for pair in zip(names["shown"], names["truth"])]
    assert found == pytest.approx(wanted, abs=CLOSE)
    assert drawn(finished["coarse_renders"]) == pytest.approx(wanted, abs=CLOSE + 0.05)


def test_notebook_03_shows_both_heads_as_they_are_scored(run, notebooks):
    _, (names, finished) = notebooks
    for kind, iteration in (("coarse", COARSE), ("fine", LAST)):
        found = [float(psnr(*pair)) for pair in zip(names["kinds"][kind], names["kinds"]["video"])]
        assert found == pytest.approx(scored(run, iteration, names["both"]), abs=CLOSE), kind
    assert drawn(finished["fine_renders"]) == pytest.approx(scored(run, LAST, names["pair"]), abs=CLOSE + 0.05)
    assert names["scores"]["train"]["psnr_composite"] == pytest.approx(np.mean(scored(run, LAST, [0, 1])), abs=CLOSE)


def test_the_solutions_of_notebooks_02_and_03_are_right_there(run, notebooks):
    """What is printed for the reader, with the names of the notebook itself."""
    for make, (names, _) in zip((coarse, fine), notebooks):
        for item in make(run).items:
            *before, last = item.solution.split("\n")
            names.setdefault("nb", notebook)
            exec("\n".join(before), names)
            assert item.verdict(eval(last, names)) == "right", item.question


# ---- every way to draw a frame ----

def sound(run):
    return run.dataset.root / "audio.wav"


def studio(run, poses):
    return widgets.Studio(run, sound(run), poses=poses, duration=0.2)


def streamed(run, iteration):
    return list(egs.stream(run, [run.dataset.audio()[:4000]], poses="static", iteration=iteration, device="cpu"))


#: draws frames of the clip with the head of a checkpoint
OF_A_CHECKPOINT = {
    "a replay": lambda run, at, out: egs.replay(run, "train", out / "a.mp4", iteration=at, device="cpu"),
    "evaluate": lambda run, at, out: egs.evaluate(run, "train", at, max_frames=3, device="cpu"),
    "stream": lambda run, at, out: streamed(run, at),
    "figures.rendered": lambda run, at, out: inspection.render_frames(egs.Renderer.from_run(run, at), [4, 1]),
    "figures.gaussians_on_frame": lambda run, at, out: figures.gaussians_on_frame(egs.Renderer.from_run(run, at), 2),
    "figures.movement": lambda run, at, out: figures.movement(egs.Renderer.from_run(run, at), [1, 2], 3),
    "attribution.term_maps": lambda run, at, out: attribution.term_maps(egs.Renderer.from_run(run, at), 3),
    "attribution.pulls": lambda run, at, out: attribution.term_gradients(egs.Renderer.from_run(run, at), [3]),
    "attribution.attention_by_part":
        lambda run, at, out: attribution.attention_by_part(egs.Renderer.from_run(run, at), [3]),
    "widgets.LossTerms": lambda run, at, out: widgets.LossTerms(run, at).still(),
    "growth_figures.born_on_frame": lambda run, at, out: growth_figures.added_on_frame(run, iteration=at),
    **{f"render, {poses}": lambda run, at, out, poses=poses: egs.render(
        run, sound(run), out / "a.mp4", poses=poses, iteration=at, duration=0.2, device="cpu")
       for poses in ("static", "cycle")},
    **{f"export_frames, {poses}": lambda run, at, out, poses=poses: egs.export_frames(
        run, sound(run), out / "frames", poses=poses, iteration=at, duration=0.2, device="cpu")
       for poses in ("static", "cycle")},
}
#: the same with the newest one
OF_THE_NEWEST = {
    "widgets.AttentionView": lambda run, at, out: widgets.AttentionView(run).still(),
    "export_ply": lambda run, at, out: egs.export_ply(run, sound(run), out / "ply", poses="static", duration=0.2),
    "sync_score": lambda run, at, out: egs.sync_score(run, device="cpu", pause=0),
    "sidebyside.Renders": lambda run, at, out: frame_cache.FrameCache([run]).picture(0, 3),
    "widgets.Studio": lambda run, at, out: (s := studio(run, "static"), s.viewer.picture(1), s.curves),
    "exercises": lambda run, at, out: [item.answer() for make in (coarse, fine) for item in make(run).items],
}
#: the camera turns around a frame's pose
AROUND = {
    "figures.views": lambda run, at, out: figures.views(egs.Renderer.from_run(run, at)),
    "render, orbit": lambda run, at, out: egs.render(run, sound(run), out / "a.mp4", poses="orbit", iteration=at,
                                                     duration=0.2, device="cpu"),
    "widgets.Orbit": lambda run, at, out: studio(run, "orbit").orbit.still(),
}


@pytest.fixture
def cameras(monkeypatch):
    """World-to-camera matrices that are rendered from now on, and those that the network is conditioned on."""
    drawn, told, tokens = [], [], deformation.Deformation.tokens

    def rasterize(*given, real=head.rasterize, **more):
        viewmats = inspect.signature(real).bind(*given, **more).arguments["viewmats"]
        drawn.extend(viewmats.detach().reshape(-1, 4, 4).numpy())
        return real(*given, **more)

    for module in (head, inspection):
        monkeypatch.setattr(module, "rasterize", rasterize)
    monkeypatch.setattr(deformation.Deformation, "tokens", lambda self, given: (
        told.extend(given.network_pose.detach().numpy()) or tokens(self, given)))
    return drawn, told


def away(cameras, poses):
    """How far each of some cameras is from the nearest of some poses."""
    return np.abs(np.stack(cameras)[:, None] - poses).reshape(len(cameras), len(poses), -1).max(-1).min(1)


@pytest.mark.parametrize("name, at", [
    *[(name, at) for name in OF_A_CHECKPOINT for at in (COARSE, LAST)], *[(name, LAST) for name in OF_THE_NEWEST]])
def test_frames_are_rendered_in_the_poses_of_their_head(run, cameras, monkeypatch, tmp_path, name, at):
    """Those of the checkpoint that is drawn: an older one has older poses."""
    monkeypatch.setattr(evaluate, "_tracker", lambda: (None, "no landmarks here"))
    monkeypatch.setattr(lip_sync, "tracked_landmarks", lambda images, count: (
        list(images), np.full((count, 478, 3), np.nan, np.float32))[1])
    poses = {i: run.load_head(i, "cpu").w2c.numpy() for i in (COARSE, LAST)}
    if name == "exercises":  # they compare two checkpoints
        poses[at] = np.concatenate([*poses.values()])
    {**OF_A_CHECKPOINT, **OF_THE_NEWEST}[name](run, at, tmp_path)
    used = [camera for some in cameras for camera in some]
    assert used and away(used, poses[at]).max() < 1e-4
    assert away(used, run.dataset.w2c).min() > 1e-3
    assert name == "exercises" or away(used, poses[LAST if at == COARSE else COARSE]).max() > 1e-3


@pytest.mark.parametrize("name, at", [(name, at) for name in AROUND for at in (COARSE, LAST)
                                      if (name, at) != ("widgets.Orbit", COARSE)])
def test_the_camera_turns_around_a_pose_of_the_head(run, cameras, tmp_path, name, at):
    """The distance and the shift stay those of the frame; the network is conditioned on the frame's pose."""
    poses = run.load_head(at, "cpu").w2c.numpy()
    AROUND[name](run, at, tmp_path)
    drawn, told = cameras
    assert drawn and away([camera[:3, 3] for camera in drawn], poses[:, :3, 3]).max() < 1e-4
    assert away([camera[:3, 3] for camera in drawn], run.dataset.w2c[:, :3, 3]).min() > 1e-3
    assert not told or away(told, poses).max() < 1e-4
