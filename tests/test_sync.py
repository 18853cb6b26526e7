"""Protects: the lip sync scores are right for synthetic mouths and audio, and plausible for a real rendering."""
import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest

import egstalker_nb as egs
from egstalker_nb.core.errors import InputError
from egstalker_nb.evaluation import lip_sync
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.notebook import audio_figures, plots
from egstalker_nb.speech.voice_activity import HANGOVER, passages

CFG = dict(iterations=60, coarse_iterations=20, batch_size=2, plane_resolution=[8, 16])
RATE = 16_000


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("r") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), folder, device="cpu")


def speech(*parts, noise=1e-3, level=0.3):
    """Tones that tremble like syllables and gaps, over noise: seconds, negative for a gap."""
    rng, made = np.random.default_rng(0), []
    for seconds in parts:
        t = np.arange(round(abs(seconds) * RATE)) / RATE
        tone = level * np.sin(2 * np.pi * 180 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 5 * t))
        made.append(tone if seconds > 0 else 0 * t)
    made = np.concatenate(made)
    return (made + noise * rng.normal(size=len(made))).astype(np.float32)


def shown(ds, opening):
    """The dataset's first landmarks [F, 478, 3] with a mouth that opens by `opening` [F]."""
    points = np.tile(ds.landmarks[:1], (len(opening), 1, 1))
    height = np.linalg.norm(points[0, 10, :2] - points[0, 152, :2])
    points[:, 14, :2] = points[:, 13, :2] + np.stack([0 * opening, opening * height], -1)
    return points


# ---- silence ----

@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_pauses_are_silent_but_for_their_edges(gain):
    silent, speaking = passages(gain * speech(1.0, -0.8, 1.0, -0.6), 85)
    expected = np.zeros(85, bool)
    expected[25 + HANGOVER:45 - HANGOVER] = expected[70 + HANGOVER:] = True
    np.testing.assert_array_equal(silent, expected)
    assert speaking[:25].all() and speaking[45:70].all() and speaking.sum() == 50, "edges are neither"


def test_the_closure_of_a_stop_is_speech():
    silent, speaking = passages(speech(1.0, -0.12, 1.0), 53)
    assert not silent.any() and speaking.all()


def test_noise_near_the_speech_is_no_silence():
    silent, _ = passages(speech(1.0, -1.0, 1.0, noise=0.05), 75)
    assert not silent.any()


def test_inaudible_audio_is_silent():
    silent, speaking = passages(np.zeros(RATE, np.float32), 25)
    assert silent.all() and not speaking.any()


def test_opening_in_silence_is_relative_to_speech():
    silent, speaking = np.arange(10) < 4, np.arange(10) >= 6
    opening = np.where(silent, 0.01, np.where(speaking, 0.1, 9.0))
    opening[[0, 9]] = np.nan
    assert lip_sync.opening_in_silence(opening, silent, speaking) == pytest.approx(0.1)
    assert lip_sync.opening_in_silence(opening, np.zeros(10, bool), speaking) is None
    assert lip_sync.opening_in_silence(0 * opening, silent, speaking) is None, "a mouth that never opens"


# ---- the score of made-up mouths ----

@pytest.fixture
def tracked(monkeypatch, tiny_dataset):
    """Hand the score the landmarks that a render would have; the clip's own frames keep theirs."""
    def give(landmarks):
        monkeypatch.setattr(lip_sync, "rendered_frames", lambda renderer, script, name: "render")
        monkeypatch.setattr(lip_sync, "tracked_landmarks", lambda images, count:
                            landmarks[:count] if images == "render" else tiny_dataset.landmarks[:count])
    return give


def test_a_late_mouth_is_distinguished_from_a_wrong_one(run, tiny_dataset, tracked):
    own = tiny_dataset.aperture
    tracked(shown(tiny_dataset, np.roll(own, 2)))
    late = egs.sync_score(run, tiny_dataset, "cpu", pause=0)
    assert late.lag == 2 and late.best_r == pytest.approx(1, abs=0.02) and late.r < 0.5
    tracked(shown(tiny_dataset, 0.5 * own + 0.1))
    right = egs.sync_score(run, tiny_dataset, "cpu", pause=0)
    assert right.r == pytest.approx(1, abs=1e-3) and right.lag == 0, "neither scale nor offset counts"
    assert right.movement == pytest.approx(0.5, abs=1e-3) and right.pause is None
    np.testing.assert_allclose(right.own, own)
    np.testing.assert_allclose(right.driven, 0.5 * own + 0.1, atol=1e-5)
    tracked(shown(tiny_dataset, 0.1 - own / 2))
    assert egs.sync_score(run, tiny_dataset, "cpu", pause=0).r == pytest.approx(-1, abs=1e-3)


def test_frames_without_a_face_are_counted_and_left_out(run, tiny_dataset, tracked):
    landmarks = shown(tiny_dataset, tiny_dataset.aperture)
    landmarks[4] = np.nan
    tracked(landmarks)
    score = egs.sync_score(run, tiny_dataset, "cpu", pause=0)
    assert (score.frames, score.frames_tracked) == (12, 11) and np.isnan(score.driven[4])
    assert score.r == pytest.approx(1, abs=1e-3) and np.isfinite(score.jitter)
    tracked(np.full((12 + 50, 478, 3), np.nan))
    nobody = egs.sync_score(run, tiny_dataset, "cpu")
    assert nobody.frames_tracked == 0
    assert [getattr(nobody, name) for name in ("r", "lag", "leak", "movement", "pause", "jitter")] == [None] * 6
    assert json.loads(json.dumps(nobody.as_dict(), allow_nan=False))["driven"] == [None] * 12


def test_a_mouth_that_follows_its_own_clip_is_found_out(run, tiny_dataset, tracked):
    other = copy.copy(tiny_dataset)
    other.aperture = np.roll(tiny_dataset.aperture, 3)
    tracked(shown(tiny_dataset, tiny_dataset.aperture))
    score = egs.sync_score(run, other, "cpu", pause=0)
    assert score.leak > 0.9 and score.r < 0.3
    assert egs.sync_score(run, None, "cpu", pause=0).leak is None, "its own sound says the same"


def test_the_appended_pause_is_scored_where_it_lies(run, tiny_dataset, tracked):
    opening = np.full(12 + 50, 0.02)
    opening[:12] = 0.1
    tracked(shown(tiny_dataset, opening))
    score = egs.sync_score(run, tiny_dataset, "cpu")
    assert score.pause == pytest.approx(0.2, abs=0.01)
    assert score.silence is None, "12 frames hold no pause of their own"


def test_jitter_is_the_ratio_of_trembling(tiny_dataset, monkeypatch):
    rng, count = np.random.default_rng(0), 200
    path = np.cumsum(np.full((count, 1, 3), 0.2), 0) + tiny_dataset.landmarks[:1]
    path[count - 20:] -= 90  # the clip begins again: no trembling

    def trembling(size):
        return path + size * rng.normal(size=(count, 478, 3))
    source = np.append(np.arange(count - 20), np.arange(20))
    monkeypatch.setattr(lip_sync, "tracked_landmarks", lambda images, n: trembling(0.5))
    render = trembling(1.0)
    assert lip_sync._jitter(tiny_dataset, source, render) == pytest.approx(2, rel=0.03)
    blurred = trembling(0.5)
    blurred[50] += 90 * rng.normal(size=(478, 3))  # in which the head on the render was not found
    monkeypatch.setattr(lip_sync, "tracked_landmarks", lambda images, n: blurred)
    render[50] = np.nan
    render[:, 13] += 40 * rng.normal(size=(count, 3))  # the mouth may move as it likes
    assert lip_sync._jitter(tiny_dataset, source, render) == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("wrong", [dict(other="data/clip"), dict(pause=-1.0), dict(pause=float("nan"))])
def test_wrong_arguments_are_refused(run, wrong):
    with pytest.raises(InputError, match="load_dataset|a pause of"):
        egs.sync_score(run, **wrong)


# ---- many, and shown ----

def made_up(head, sound, **values):
    given = dict(foreign=head != sound, iteration=10, frames=30, frames_tracked=30, r=0.5, best_r=0.6, lag=1, leak=0.0,
                 movement=1.0, silence=None, silence_own=None, silence_seconds=0.0, pause=0.2, jitter=1.1,
                 driven=np.linspace(0, 0.1, 30), own=np.full(30, np.nan), silent=np.arange(30) < 9,
                 wave=np.zeros(30 * 640, np.float32))
    return lip_sync.SyncScore(head, sound, **{**given, **values})


def test_every_ordered_pair_has_a_row_and_each_voice_its_mean(monkeypatch):
    runs = [SimpleNamespace(name=n, dataset=SimpleNamespace(name=n, features=np.full(3, i)))
            for i, n in enumerate("abc")]
    r = iter([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    monkeypatch.setattr(lip_sync, "sync_score", lambda run, other, device: made_up(
        run.name, other.name if other else run.name, r=next(r), lag=-1 if other else 0))
    table = lip_sync.sync_table(runs)
    pairs = [(row[0], row[1], row[2]) for row in table.rows]
    foreign = [(a, b, "foreign") for a in "abc" for b in "abc" if a != b]
    assert pairs == foreign + [("mean", "6", "foreign")] + [(a, a, "own") for a in "abc"] + [("mean", "3", "own")]
    at = {name: i for i, name in enumerate(table.columns)}
    assert table.rows[6][at["r"]] == "0.35" and table.rows[6][at["lag"]] == "1.00" and table.rows[10][at["r"]] == "0.80"
    assert table.rows[6][at["silence"]] is None and len(table.scores) == 9
    assert "foreign" in str(table) and "0.35" in table._repr_html_()


def test_a_score_shows_itself(tmp_path):
    score = made_up("head", "voice", silent=np.arange(30) < 9)
    for text in (str(score), repr(score), score._repr_html_()):
        assert all(name in text for name in lip_sync.SCORE_MEANINGS) and "driven by voice" in text
    assert score.as_dict()["silent"] == list(range(9)) and "wave" not in score.as_dict()
    figure = plots.finish(audio_figures.lip_sync_figure(score), tmp_path, "curves")
    assert len(figure.axes) == 2 and "r = 0.50" in figure.axes[1].get_title()
    assert len(figure.axes[0].patches) == 1, "the silent passage is shaded"
    assert (tmp_path / "figures" / "curves.png").is_file()


def test_a_real_render_is_scored(sample_dataset, tmp_path):
    run = egs.train(sample_dataset, egs.load_config("quick_test", **CFG), tmp_path / "run", device="cpu")
    voice = copy.copy(sample_dataset)
    voice.root = tmp_path / "voice"
    voice.root.mkdir()
    save_wav(voice.root / "audio.wav", load_audio(sample_dataset.root / "audio.wav")[:60 * 640])
    score = egs.sync_score(run, voice, "cpu")
    assert (score.frames, score.frames_tracked, score.sound) == (60, 60, "voice")
    assert np.isfinite(score.driven).all() and 0 < score.driven.mean() < 0.3
    assert -1 <= score.r <= score.best_r <= 1 and 0 < score.jitter < 3
    assert 0 < score.silence_own < 0.2 and score.silence_seconds > 0.3, "the sample begins with a closed mouth"
    assert all(np.isfinite([score.movement, score.silence, score.pause]))
    own = egs.sync_score(run, device="cpu", pause=0)
    assert own.frames == len(sample_dataset.val_ids) and not own.foreign and np.isfinite(own.r)
    np.testing.assert_allclose(own.own, sample_dataset.aperture[sample_dataset.num_train:])
