"""The committed sample: a clip that others can rely on as a known truth, and the script that makes it."""

import importlib
from pathlib import Path

import numpy as np
import pytest

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
NUM_FRAMES = 300


@pytest.fixture(scope="module")
def truth():
    with np.load(SAMPLE / "truth.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def frames(sample_clip):
    pytest.importorskip("av")
    from egstalker_nb.media.video_reader import read_frames

    return list(read_frames(sample_clip))


@pytest.fixture(scope="module")
def landmarks(frames):
    """Face mesh of every frame, float64 [N, 478, 2] px; not a number where no face was found."""
    mesh = pytest.importorskip("mediapipe").solutions.face_mesh
    rows = []
    with mesh.FaceMesh(refine_landmarks=True) as tracker:
        for frame in frames:
            found = tracker.process(frame).multi_face_landmarks
            rows.append([[p.x, p.y] for p in found[0].landmark] if found else np.full((478, 2), np.nan))
    return np.array(rows) * frames[0].shape[0]


@pytest.fixture
def script(monkeypatch):
    """Imports a module of the script's folder by its name."""
    monkeypatch.syspath_prepend(str(SAMPLE))
    return importlib.import_module


def distance(points, a, b):
    return np.linalg.norm(points[:, a] - points[:, b], axis=-1)


def phone_of_frames(truth):
    """Name of the phoneme that sounds at each frame."""
    last = len(truth["phones"]) - 1
    at = np.arange(NUM_FRAMES) / 25.0
    return truth["phones"][np.minimum(np.searchsorted(truth["phone_ends"], at, side="right"), last)]


def test_clip_is_what_the_kit_expects(sample_clip, frames):
    """Size, rate, length and audio, and small enough to be committed."""
    from egstalker_nb.media.audio import load_audio
    from egstalker_nb.media.video_reader import probe

    info = probe(sample_clip)
    assert (info.width, info.height, info.num_frames) == (256, 256, NUM_FRAMES)
    assert info.fps == pytest.approx(25) and info.duration == pytest.approx(12, abs=0.01)
    assert info.has_audio and len(frames) == NUM_FRAMES
    assert sample_clip.stat().st_size < 2_000_000
    sound = load_audio(sample_clip)
    assert abs(len(sound) - 12 * 16_000) < 640 and np.sqrt(np.mean(sound**2)) > 0.03


def test_other_speech_is_short_and_audible():
    """speech.wav drives the demo: another sentence of a few seconds, small."""
    pytest.importorskip("av")
    from egstalker_nb.media.audio import load_audio

    sound = load_audio(SAMPLE / "speech.wav")
    assert 3 * 16_000 < len(sound) < 6 * 16_000 and np.sqrt(np.mean(sound**2)) > 0.03
    assert (SAMPLE / "speech.wav").stat().st_size < 250_000


def test_truth_has_one_value_a_frame_in_range(truth, script):
    """Everything that tracking is compared with: lengths, ranges, and poses that are rotations of the stated angles."""
    for name, shape in (("aperture", ()), ("blink", ()), ("euler", (3,)), ("w2c", (4, 4))):
        assert truth[name].shape == (NUM_FRAMES, *shape) and np.isfinite(truth[name]).all(), name
    assert truth["aperture"].min() >= 0 and 0.06 < truth["aperture"].max() < 0.15
    assert truth["blink"].min() == 0 and truth["blink"].max() == 1
    assert np.sum(np.diff((truth["blink"] > 0.5).astype(int)) == 1) == 4
    turned = np.abs(truth["euler"]).max(0)
    assert (turned <= 10).all() and turned[0] > 6 and turned[1] > 3
    assert np.abs(truth["w2c"][:, :3, :3] - script("motion").rotation(truth["euler"])).max() < 1e-5


def test_face_mesh_sees_the_true_mouth(landmarks, truth):
    """Mouth tracking is tested on this clip: the opening measured in the image must be the true one."""
    assert np.isfinite(landmarks).all(), "a frame without a face"
    measured = distance(landmarks, 13, 14) / distance(landmarks, 10, 152)
    assert np.corrcoef(measured, truth["aperture"])[0, 1] > 0.9
    slope, offset = np.polyfit(truth["aperture"], measured, 1)
    assert 0.8 < slope < 1.3 and abs(offset) < 0.01


def test_face_mesh_sees_the_true_blinks(landmarks, truth):
    """Blinks are visible: the lids come together when, and only when, the truth says so."""
    left = distance(landmarks, 159, 145) / distance(landmarks, 33, 133)
    right = distance(landmarks, 386, 374) / distance(landmarks, 362, 263)
    gap = (left + right) / 2
    assert np.corrcoef(gap, truth["blink"])[0, 1] < -0.9
    assert gap[truth["blink"] > 0.95].max() < 0.5 * gap[truth["blink"] < 0.01].min()


def test_face_mesh_sees_the_true_pose(landmarks, truth):
    """The stored camera projects the stored head points to where the face is in every frame."""
    forehead_and_nose = [1, 4, 5, 6, 8, 9, 10, 67, 109, 151, 168, 195, 197, 297, 338]
    points = truth["points"][forehead_and_nose] @ np.swapaxes(truth["w2c"][:, :3, :3], 1, 2)
    points = points + truth["w2c"][:, None, :3, 3]
    projected = points[..., :2] / points[..., 2:] * truth["focal"] + 128
    error = landmarks[:, forehead_and_nose] - projected
    assert np.linalg.norm(error.mean(0), axis=-1).mean() < 2.5  # the tracker's own idea of each point
    assert np.sqrt(((error - error.mean(0)) ** 2).sum(-1).mean()) < 1.2


def test_mouth_and_audio_move_together(truth, sample_clip):
    """Lip sync has lag 0: the mouth follows the loudness, at most two frames ahead of it, and closes in silences."""
    pytest.importorskip("av")
    from egstalker_nb.media.audio import load_audio

    sound = np.pad(load_audio(sample_clip), (320, 640))
    loud = np.array([np.sqrt(np.mean(sound[640 * k : 640 * k + 640] ** 2)) for k in range(NUM_FRAMES)])
    inner = slice(10, NUM_FRAMES - 10)
    score = {
        lag: np.corrcoef(np.roll(truth["aperture"], -lag)[inner], loud[inner])[0, 1]  # lag > 0: the mouth is late
        for lag in range(-8, 9)
    }
    best = max(score, key=score.get)
    assert -2 <= best <= 1 and score[best] > 0.4
    silent = phone_of_frames(truth) == "pau"
    deep = np.convolve(silent, np.ones(5), mode="same") == 5
    assert deep.sum() > 15 and truth["aperture"][deep].max() < 0.02 and truth["aperture"][deep].mean() < 0.004


def test_lips_meet_for_m_b_p(truth):
    """The lips touch at each m, b and p of the clip: what makes lip reading, and lip sync scores, possible."""
    starts = np.concatenate([[0], truth["phone_ends"][:-1]])
    for name, start, end in zip(truth["phones"], starts, truth["phone_ends"]):
        if name in "mbp":
            around = truth["aperture"][int(start * 25) : int(np.ceil(end * 25)) + 1]
            assert around.min() < 0.02, f"{name} at {start:.2f} s"


def test_mouth_track_is_repeatable_and_shaped_by_phonemes(script):
    """The script's pure functions: same input, same track; a vowel opens, m closes, u rounds, i spreads."""
    motion = script("motion")
    phones = [("pau", 0.4), ("m", 0.5), ("aa", 0.8), ("m", 0.9), ("uw", 1.2), ("m", 1.3), ("iy", 1.6), ("pau", 2.0)]
    track, again = motion.mouth_track(phones, 50), motion.mouth_track(phones, 50)
    assert all(np.array_equal(vars(track)[name], vars(again)[name]) for name in vars(track))
    frame = {"m": 11, "aa": 16, "uw": 26, "iy": 36, "pau": 48}
    assert track.opening[frame["aa"]] > 0.7 and track.opening[[frame["m"], frame["pau"]]].max() < 0.06
    assert track.spread[frame["uw"]] < -0.7 and track.spread[frame["iy"]] > 0.6
    assert track.jaw[frame["aa"]] > track.jaw[frame["iy"]] + 0.4
    sound = np.random.default_rng(0).normal(0, 0.1, 32_000)
    for one, other in zip(motion.head_track(sound, 50), motion.head_track(sound, 50)):
        assert np.array_equal(one, other)
    with pytest.raises(KeyError):
        motion.mouth_track([("xx", 0.5)], 10)


@pytest.mark.slow
def test_script_still_makes_this_clip(script, truth, frames, sample_clip):
    """The committed files come from the committed script: truth and frames made again from phonemes and audio."""
    pytest.importorskip("skimage")
    pytest.importorskip("mediapipe")
    from egstalker_nb.media.audio import load_audio

    make = script("make_sample")
    phones = list(zip(truth["phones"].tolist(), truth["phone_ends"].tolist()))
    animation, euler = make.animate(load_audio(sample_clip), phones, NUM_FRAMES)
    portrait = script("portrait").load_portrait()
    remade = make.truth(portrait, animation, euler, phones)
    assert remade.keys() == truth.keys()
    for name, tolerance in (("aperture", 5e-3), ("blink", 1e-5), ("euler", 0.3), ("points", 2.0), ("focal", 1e-3)):
        assert np.abs(remade[name] - truth[name]).max() < tolerance, name
    renderer = script("render").Renderer(portrait, 256)
    for k in (24, 126, 183):
        error = renderer.frame(**animation[k]).astype(float) - frames[k]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 30, f"frame {k}"
