"""Protects: audio that is late or early against the lips is corrected; an uncertain offset changes nothing.

`data/speech.flac` is the speech of tests/test_phones.py; the mouths that follow it are made up.
"""
import numpy as np
import pytest
from made_up_mouths import sentence_twice, spoken_mouth
from test_audio import encode

import egstalker_nb as egs
from egstalker_nb.core.reading import read_npz
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.rates import SAMPLES_PER_FRAME
from egstalker_nb.media.video_reader import read_frames
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.preparation import build, offset
from egstalker_nb.preparation.offset import audio_offset, shift_earlier
from egstalker_nb.preparation.steps import Step
from egstalker_nb.speech.encoders import DEFAULT_ENCODER, load_encoder

pytestmark = pytest.mark.slow

DELAYS = range(-200, 201, 20)  # ms


@pytest.fixture(scope="module")
def wave():
    """The sentence twice, with pauses: 9 s, not a whole number of frames."""
    return sentence_twice((5000, 8000, 8000))


@pytest.fixture(scope="module")
def features(wave):
    return load_encoder("phones").features(wave, len(wave) // SAMPLES_PER_FRAME)


@pytest.fixture(scope="module")
def lips(features):
    """Shapes [N, 214] of a mouth that says it; as much of its motion again has nothing to do with the audio."""
    return spoken_mouth(features, noise=1)[0]


def resampled(wave, rate):
    return np.interp(np.arange(0, len(wave), 16_000 / rate), np.arange(len(wave)), wave).astype(np.float32)


# ---- found ----

@pytest.mark.parametrize("noise", [0, 1, 2])
def test_a_known_delay_is_found(wave, features, noise):
    """Of a mouth of which much, half or a fifth of the motion goes with the audio; within one frame, or not at all."""
    found = []
    for i, late in enumerate(DELAYS):
        lips, _ = spoken_mouth(features, noise, seed=i)
        found.append(1000 * audio_offset(shift_earlier(wave, -late / 1000), lips)[0])
    error = np.abs(np.array(found) - DELAYS)
    assert error.max() <= 40
    assert (error <= 20).mean() >= 0.95 and np.count_nonzero(found) >= 0.8 * len(DELAYS)


@pytest.mark.parametrize("late", [0.04, 0.16, 0.3, -0.12, -0.3])
def test_correcting_leaves_nothing_to_correct(wave, lips, late):
    shifted = shift_earlier(wave, -late)
    found, r = audio_offset(shifted, lips)
    assert found == pytest.approx(late, abs=0.02) and r > 0.5
    assert audio_offset(shift_earlier(shifted, found), lips)[0] == 0


@pytest.mark.parametrize("scale", [1e-3, 500.0])
def test_the_size_of_a_face_does_not_matter(wave, lips, scale):
    late = shift_earlier(wave, -0.12)
    moved = (scale * (lips + np.random.default_rng(0).normal(size=lips.shape[1]))).astype(np.float32)
    np.testing.assert_allclose(audio_offset(late, moved), audio_offset(late, lips), atol=1e-4)


def test_audio_in_sync_is_not_shifted(wave, lips):
    for late in (0, 0.01, -0.02, 0.02):
        assert audio_offset(shift_earlier(wave, -late), lips)[0] == 0, "less than 40 ms is within the error"


@pytest.mark.parametrize("frames, allowed", [(12, 2), (30, 2), (75, 0), (150, 0), (220, 0)])
def test_a_mouth_that_says_something_else_is_left_alone(wave, features, frames, allowed):
    """Over a second or two something agrees by chance, but hardly in both halves at once."""
    rng, wrong = np.random.default_rng(1), 0
    for seed in range(10):
        lips, _ = spoken_mouth(features[rng.permutation(len(features))[:frames]], noise=3, seed=seed)
        wrong += audio_offset(wave[:frames * SAMPLES_PER_FRAME], lips)[0] != 0
    assert wrong <= allowed


def test_an_offset_beyond_those_searched_is_left_alone(wave, lips):
    assert audio_offset(shift_earlier(wave, -0.5), lips)[0] == 0


@pytest.mark.parametrize("early, late", [(0, 0.16), (0.16, 0), (0.24, 0.08), (-0.08, 0.12), (-0.16, 0.04)])
def test_halves_that_disagree_move_nothing(wave, lips, early, late):
    """A splice, or a whole that agrees best by chance: no single shift is right."""
    middle = len(lips) // 2 * SAMPLES_PER_FRAME
    spliced = np.concatenate([shift_earlier(wave, -early)[:middle], shift_earlier(wave, -late)[middle:]])
    assert audio_offset(spliced, lips)[0] == 0


def test_a_clip_of_which_only_one_half_speaks_is_left_alone(wave, lips):
    half = len(wave) // 2
    assert audio_offset(np.concatenate([shift_earlier(wave, -0.12)[:half], 0 * wave[half:]]), lips)[0] == 0


@pytest.mark.parametrize("late", [0, 0.12])
@pytest.mark.parametrize("name, codec, rate", [("a.m4a", "aac", 44_100), ("a.ogg", "libopus", 48_000)])
def test_another_encoding_of_the_audio_gives_the_same_offset(wave, lips, late, name, codec, rate, tmp_path):
    given = shift_earlier(wave, -late)
    encoded = load_audio(encode(tmp_path / name, resampled(given, rate), rate, codec, "mono"))
    assert audio_offset(encoded, lips)[0] == pytest.approx(audio_offset(given, lips)[0], abs=0.005)


@pytest.mark.parametrize("frames", [1, 5, 12, 30, 220])
def test_little_to_go_by_moves_nothing(wave, lips, frames):
    shapes, sound = lips[:frames], wave[:frames * SAMPLES_PER_FRAME]
    late, r = audio_offset(sound, 0 * shapes)
    assert late == 0 and np.isfinite(r), "a mouth that does not move"
    late, r = audio_offset(0 * sound, shapes)
    assert late == 0 and np.isfinite(r), "a silent clip"
    assert np.isfinite(audio_offset(sound, shapes)).all()


# ---- moved ----

def test_audio_is_shifted_both_ways_and_keeps_its_length():
    sound = np.arange(1, 1001, dtype=np.float32)
    np.testing.assert_array_equal(shift_earlier(sound, 0), sound)
    early, late = shift_earlier(sound, 100 / 16_000), shift_earlier(sound, -100 / 16_000)
    np.testing.assert_array_equal(early, np.r_[sound[100:], np.zeros(100)])
    np.testing.assert_array_equal(late, np.r_[np.zeros(100), sound[:-100]])
    for seconds in (1, -1, 1000 / 16_000, -1000 / 16_000):
        gone = shift_earlier(sound, seconds)
        assert gone.shape == sound.shape and not gone.any() and gone.dtype == np.float32


# ---- in a dataset ----

def write_sound(folder, wave, features, lips):
    clip = build.Clip(folder / "clip.mp4", None, wave, [], features)
    build._audio_step(Step(folder, "key"), folder, clip, range(len(lips)), lips)


@pytest.mark.parametrize("late", [0.12, -0.08])
def test_a_dataset_has_audio_and_features_in_sync(wave, lips, late, tmp_path):
    encoder = load_encoder(DEFAULT_ENCODER)
    write_sound(tmp_path, shift_earlier(wave, -late), encoder, lips)
    moved = float(read_npz(tmp_path / "sound.npz")["late"])
    assert moved == pytest.approx(late, abs=0.02)
    sound, features = load_audio(tmp_path / "audio.wav"), np.load(tmp_path / "features.npy")
    assert len(sound) == len(lips) * SAMPLES_PER_FRAME and len(features) == len(lips)
    np.testing.assert_allclose(features, encoder.features(sound), atol=0.02)
    inside, rest = slice(8000, -8000), round((moved - late) * 16_000)
    np.testing.assert_allclose(sound[inside], np.roll(wave[:len(sound)], -rest)[inside], atol=1e-4)


def test_features_from_a_file_stay_aligned_with_their_audio(wave, lips, tmp_path):
    """They were computed elsewhere: shifting the audio alone would break the match."""
    late = shift_earlier(wave, -0.12)
    given = np.random.default_rng(0).normal(size=(len(lips), 16, 29)).astype(np.float32)
    write_sound(tmp_path, late, given, lips)
    assert read_npz(tmp_path / "sound.npz")["late"] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), given)
    np.testing.assert_allclose(load_audio(tmp_path / "audio.wav"), late[:len(given) * SAMPLES_PER_FRAME], atol=1e-4)


def test_the_report_says_that_the_audio_was_shifted(sample_clip, tmp_path, monkeypatch):
    """On a real clip, the offset being given: its features, audio and report agree."""
    sound = load_audio(sample_clip)
    frames = [image for image, _ in zip(read_frames(sample_clip), range(30))]
    clip = write_video(tmp_path / "clip.mp4", frames, sound[16_000:16_000 + 30 * SAMPLES_PER_FRAME])
    seen = []
    monkeypatch.setattr(offset, "audio_offset", lambda *given: seen.append(given) or (0.08, 0.5))
    ds = egs.prepare(clip, tmp_path / "ds", size=64)
    assert ds.report["sound"]["moved_s"] == pytest.approx(0.08)
    assert any("80 ms late" in text and "moved" in text for text in ds.report["warnings"])
    (heard, mouth), before = seen[0], load_audio(clip)
    assert len(heard) == 30 * SAMPLES_PER_FRAME
    np.testing.assert_array_equal(mouth, ds.mouth)
    np.testing.assert_allclose(ds.audio(), shift_earlier(before, 0.08)[:30 * SAMPLES_PER_FRAME], atol=1e-4)
    np.testing.assert_allclose(ds.features, load_encoder(DEFAULT_ENCODER).features(ds.audio()), atol=0.02)
