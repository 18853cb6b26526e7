"""Protects: scores mean what their names say."""
import json

import numpy as np
import pytest
import torch

import egstalker_nb as egs
import egstalker_nb.evaluation.evaluate as evaluation
from egstalker_nb.core.errors import InputError
from egstalker_nb.core.progress import Progress, progress
from egstalker_nb.metrics.perceptual import Perceptual

CFG = dict(iterations=60, coarse_iterations=20, batch_size=2, plane_resolution=[8, 16])


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("r") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), folder, device="cpu")


def test_scores_are_a_table_and_json(run):
    scores = egs.evaluate(run, "val", device="cpu")
    saved = json.loads((run.root / "scores" / "val_60.json").read_text())
    assert saved["psnr_composite"] == scores["psnr_composite"] and saved["frames"] == 2
    for name in evaluation.SCORES:
        assert name in str(scores) and name in scores._repr_html_()
    assert 10 < scores["psnr_head"] <= scores["psnr_composite"] < 60, "the background is easier than the head"
    assert scores["psnr_frame"] < scores["psnr_composite"], "without the torso the picture is worse"


def test_lpips_is_scored_where_its_weights_are_and_else_said_to_be_missing(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    scores = egs.evaluate(run, "val", device="cpu")
    assert "lpips_composite" not in scores and "alexnet-owt-7be5be79.pth" in str(scores)
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(Perceptual("alexnet").state_dict(), checkpoints / "alexnet-owt-7be5be79.pth")
    early, late = (egs.evaluate(run, "val", iteration=i, device="cpu")["lpips_composite"] for i in (20, 60))
    assert 0 < late < early


def test_a_better_head_scores_higher(run):
    early, late = (egs.evaluate(run, "train", iteration=i, device="cpu") for i in (20, 60))
    assert late["psnr_composite"] > early["psnr_composite"] and late["ssim_head"] > early["ssim_head"]


def test_landmark_scores_find_shift_and_lag(tiny_dataset):
    truth = np.tile(tiny_dataset.landmarks[:1], (40, 1, 1))
    opening = 0.1 + 0.05 * np.sin(np.arange(40) * 0.9)
    height = np.linalg.norm(truth[0, 10, :2] - truth[0, 152, :2])
    truth[:, 14, :2] = truth[:, 13, :2] + np.stack([0 * opening, opening * height], -1)
    late = np.roll(truth, 2, axis=0) + np.float32([3.0, 4.0, 0.0])
    scores = evaluation._landmark_scores(list(late), truth, opening.astype(np.float32))
    assert scores["aperture_lag"] == 2 and scores["aperture_best_r"] > 0.95 and scores["aperture_r"] < 0.5
    assert scores["lmd_face"] == pytest.approx(5.0, abs=0.1) and scores["frames_tracked"] == 40


def test_no_face_in_any_frame_is_said(tiny_dataset):
    scores = evaluation._landmark_scores([None] * 12, tiny_dataset.landmarks, tiny_dataset.aperture)
    assert scores["frames_tracked"] == 0 and "No face" in scores["note"]


def test_without_mediapipe_the_rest_is_scored(run, monkeypatch):
    monkeypatch.setattr(evaluation, "_tracker", lambda: (None, "Landmark and lip-sync scores need mediapipe"))
    scores = egs.evaluate(run, "val", device="cpu")
    assert scores["psnr_composite"] > 10 and "lmd_mouth" not in scores and "need mediapipe" in str(scores)


@pytest.mark.parametrize("wrong", [dict(max_frames=0), dict(batch=0)])
def test_nothing_to_score_is_refused(run, wrong):
    with pytest.raises(InputError, match="at least 1"):
        egs.evaluate(run, "val", device="cpu", **wrong)


def test_progress_line_says_what_users_look_for(capsys):
    with Progress(200, "train x", initial=100) as bar:
        bar.update(50, loss=0.12345, points=478)
    line = bar.line()
    for part in ("train x 150/200 75%", "it/s", "left", "loss 0.1235", "points 478"):
        assert part in line
    assert "train x 150/200" in capsys.readouterr().err
    assert list(progress([1, 2, 3], "items")) == [1, 2, 3]


def test_progress_is_handed_to_the_headless_runner(tmp_path, monkeypatch):
    monkeypatch.setenv("EGS_PROGRESS_FILE", str(tmp_path / "line"))
    with Progress(10, "render") as bar:
        bar.update(10)
    assert (tmp_path / "line").read_text().startswith("render 10/10 100%")
