"""The measuring itself: stretched clips are real clips, a step's parts are found, README's tables are filled."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import ablation  # noqa: E402
import formats  # noqa: E402
import growth  # noqa: E402
import prior_offset  # noqa: E402
import prior_speech  # noqa: E402
import report  # noqa: E402
import report_prior  # noqa: E402
from common import Stretched, fine_trainer  # noqa: E402
from faults.made import copy_run  # noqa: E402
from intervals import motions, over_speakers  # noqa: E402
from stages import stages  # noqa: E402

import egstalker_nb as egs
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.face.expression import LOWER
from egstalker_nb.speech import phones

FACTS = {"date": "2026-01-02", "device": "a card", "cores": 2, "versions": {"torch": "2", "gsplat": "1"}, "git": "abc"}


def test_a_stretched_clip_repeats_and_scales_the_frames(tiny_dataset):
    ds = Stretched(tiny_dataset, 40, 32)
    assert len(ds) == 40 and ds.num_train == 36 and ds.frame(30).shape == (32, 32, 3)
    assert (ds.frame(1) == ds.frame(2 * len(tiny_dataset) - 3)).all(), "back and forth"
    np.testing.assert_allclose(ds.K[:2], tiny_dataset.K[:2] / 2)
    batch = Frames(ds, ds.train_ids, torch.device("cpu")).batch([3, 35])
    assert batch["frame"].shape == (2, 32, 32, 3) and batch["lips"].any()


@pytest.mark.slow
def test_parts_of_a_step_are_found(tiny_dataset, tmp_path):
    trainer = fine_trainer(tiny_dataset, tmp_path / "run", points=200)
    found = stages(trainer)
    assert found["points"] == 200 and found["step_ms"] > 0
    assert list(found["parts_ms"])[:3] == ["frames to floats", "network", "rasteriser"]
    assert all(ms >= 0 for ms in found["parts_ms"].values()) and trainer.iteration > 1


@pytest.mark.slow
def test_a_setting_is_measured(tiny_dataset):
    row = growth.measure(tiny_dataset, points=100, frames=12, size=32, batch=2)
    assert row["step_ms"] > 0 and row["frame_ms"] > 0 and row["place"] == "device"


def test_rows_of_an_ablation_are_written_as_they_come(tiny_dataset, tmp_path, monkeypatch, capsys):
    """By two processes; the differences to production are known, whichever ends first."""
    monkeypatch.setattr(sys, "argv", [
        "ablation.py", str(tiny_dataset.root), "--iterations", "8", "--workers", "2", "--only", "poses as tracked",
        "--work", str(tmp_path / "work"), "--out", str(tmp_path / "a.json"), "--set", "torso_steps=40"])
    ablation.main()
    found = json.loads((tmp_path / "a.json").read_text())
    rows = {row["change"]: row for row in found["clips"][tiny_dataset.root.name]["rows"]}
    assert set(rows) == {"production", "poses as tracked"} and found["facts"]["device"]
    one, other = rows["poses as tracked"], rows["production"]
    assert one["difference"] == pytest.approx(one["psnr_composite"] - other["psnr_composite"])
    assert "2 of 2" in capsys.readouterr().out


def test_formats_are_compared_by_the_same_view_of_the_head(tmp_path):
    pytest.importorskip("gsply", reason="needs the extra `models`")
    ply, spz = formats.measure(egs.load_run(copy_run(tmp_path)), tmp_path, tmp_path / "images")
    assert (ply["format"], ply["psnr"], spz["format"]) == ("ply", 100, "spz") and 30 < spz["psnr_head"] < 100
    assert ply["bytes_per_gaussian"] > 4 * spz["bytes_per_gaussian"] and ply["gaussians"] == spz["gaussians"]
    assert len(list((tmp_path / "images").glob("*.png"))) == 2


def test_tables_are_filled_and_everything_else_stays(tmp_path, monkeypatch):
    scores = {f"{kind}_{what}": 0.5 for kind in ("psnr", "ssim") for what in ("composite", "head")}
    rows = [{"varies": v, "points": 1000, "frames": 100, "size": 64, "batch": 1, "step_ms": 2.0, "frame_ms": 1.0}
            for v in ("points", "frames", "size", "batch")]
    result = {"facts": FACTS, "growth": rows, "stages": {"parts_ms": {"losses": 1.0}, "step_ms": 1.0, "batch": 8,
                                                          "size": 64, "points": 478},
              "presets": [{"dataset": "clip", "preset": "quick_test", "size": 64, "iterations": 1000, "seconds": 61.4,
                           "points": 478, "speed": {"batch_8_fps": 123.0}, "train": scores, "val": scores}]}
    (tmp_path / "cpu.json").write_text(json.dumps(result))
    readme = tmp_path / "README.md"
    empty, kept = "<!-- bench: cpu -->\n<!-- end -->\n", "<!-- bench: reached -->\nkept\n<!-- end -->\n"
    readme.write_text(f"before\n{empty}after\n{kept}{empty.replace('-->', '-->' + chr(10) + 'old', 1)}")
    for name, value in (("RESULTS", tmp_path), ("IMAGES", tmp_path / "images"), ("PAGES", [readme])):
        monkeypatch.setattr(report, name, value)
    report.main()
    text = readme.read_text()
    assert "61 s" in text and "123 frames/s" in text and "a card" in text and "old" not in text
    assert text.startswith("before\n") and "kept" in text and "after\n" in text
    assert (tmp_path / "images" / "growth.png").exists()


def test_the_table_of_voices_tells_foreign_from_own_and_leaves_out_what_was_not_measured(tmp_path, monkeypatch):
    def score(foreign, r, lag, pause):
        return {"head": "a", "sound": "b", "foreign": foreign, "r": r, "best_r": r, "lag": lag, "pause": pause,
                "silence": None, "silence_own": None, "leak": None, "jitter": 1.0}

    scores = [score(True, 0.2, -1, 0.1), score(True, 0.6, 1, 0.3), score(False, 0.9, 0, None)]
    (tmp_path / "sync_prior.json").write_text(json.dumps({"facts": FACTS, "scores": scores}))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    text = report.voices({"sync_prior": report.read("sync_prior")})
    lines = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in text.splitlines() if "|" in line}
    assert lines["r of foreign voices"] == "0.40"
    assert lines["r of its own voice, validation frames"] == "0.90" and lines["lag (frames)"] == "-1 ... 1"
    assert lines["the same, in pauses of the clips"] == "-"
    assert report.read("sync_other") is None


def test_intervals_count_speakers_and_not_clips():
    values = [1.0, 0.0, 0.5, float("nan")]
    found = over_speakers(values, ["a", "a", "b", "c"])
    assert found["mean"] == 0.5 and found["low"] == found["high"] == 0.5, "both speakers have a mean of 0.5"
    assert (found["speakers"], found["clips"]) == (2, 3), "a value that is not known does not count"
    wide = over_speakers([0.0, 1.0, 0.0, 1.0], "abcd")
    assert wide["mean"] == 0.5 and wide["low"] == 0 and wide["high"] == 1
    one = over_speakers([0.2, 0.4], ["a", "a"])
    assert one["mean"] == pytest.approx(0.3) and one["low"] is None


def test_a_mouth_that_shuts_within_a_frame_of_a_phone_counts_and_one_that_shuts_later_does_not():
    labels = np.zeros(80, np.uint8)
    labels[40:48] = phones.CLASSES.index("b")                  # 0.40 ... 0.48 s: frames 10 and 11
    labels[60:64] = phones.CLASSES.index("m")                  # frame 15
    found = prior_speech.segments(labels, ("b", "m"))
    assert found == [(40, 48), (60, 64)]
    for shut_at, share in (([12], 0.5), ([9, 16], 1.0), ([8, 13], 0.0)):
        opening = np.ones(20)
        opening[shut_at] = 0.1
        assert prior_speech.shut_share(opening, found) == share
    opening[10] = 0.1
    assert prior_speech.shut_share(opening, found, throughout=True) == 0.0
    opening[11] = 0.1
    assert prior_speech.shut_share(opening, found, throughout=True) == 0.5
    assert np.isnan(prior_speech.shut_share(opening, []))


def test_moved_audio_is_late_by_what_it_was_moved():
    wave = np.zeros(16_000, np.float32)
    wave[8_000] = 1
    assert prior_offset.moved(wave, 100).argmax() == 9_600 and prior_offset.moved(wave, -200).argmax() == 4_800


def test_a_recording_is_recognised_when_it_is_shifted_and_louder():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 16_000)).astype(np.float32)
    assert prior_speech.same_recording(one, prior_offset.moved(3 * one, 100))
    assert not prior_speech.same_recording(one, other)


def test_opening_width_and_jaw_are_those_of_the_landmarks():
    shapes = np.zeros((1, len(LOWER), 2), np.float32)
    for landmark, axis, value in ((14, 1, 0.3), (13, 1, 0.1), (291, 0, 0.5), (61, 0, -0.5), (152, 1, 0.7)):
        shapes[0, LOWER.index(landmark), axis] = value
    np.testing.assert_allclose(motions(shapes.reshape(1, -1)), [[0.2, 1.0, 0.7]], atol=1e-6)


def test_noise_and_breath_have_their_level():
    for breath in (False, True):
        made = prior_speech.noise(48_000, -45.0, breath)
        assert 20 * np.log10(np.sqrt(np.mean(made ** 2))) == pytest.approx(-45, abs=0.1)


def test_tables_of_the_prior_show_means_intervals_and_targets():
    def rows(figures, groups, **more):
        return [{"figure": figure, "group": group, "mean": 0.614, "low": 0.5, "high": 0.7, "speakers": 29, "clips": 31,
                 **more} for figure in figures for group in groups]

    motions_ = ("opening", "width", "jaw")
    result = {"facts": FACTS, "choices": {"fit": "settings"}, "datasets": ["a", "b"],
              "unseen": rows(motions_, ("fit", "measure", "fit: GRID (en)"), audio="as in the files", moved=2),
              "voices": rows(motions_, ("foreign voices",)),
              "speech": rows(("shut in b, p, m",), ("both",), segments=9),
              "offset": rows(("of the answers, within 40 ms",), ("fit: GRID", "measure: LRS2, LRS3"))}
    found = report_prior.texts(result)
    assert set(found) == {"prior", "prior_sources", "prior_speech", "prior_offset"}, "only what was measured"
    assert "| measure | as in the files | 0.61 [0.50, 0.70] |" in found["prior"] and "settings" in found["prior"]
    assert "| shut in b, p, m | both | 0.61 [0.50, 0.70] | 29 | 9 | 0.85 | 0.95 |" in found["prior_speech"]
    assert "GRID (en)" in found["prior_sources"] and "GRID (en)" not in found["prior"]
    assert "fit: GRID, 29 speakers" in found["prior_offset"]
