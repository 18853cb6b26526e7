"""Protects: the mouth modes of a clip, their prediction from audio alone on validation frames, and silence closes it.

The speech is that of tests/test_phones.py. The mouths are made up: those of `phones` move as the built-in speaker prior
predicts, plus noise; those of `logmel`, for which there is no prior, follow a random linear function of the features.
"""
import hashlib
import json
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from made_up_mouths import REST, sentence_twice, spoken_mouth
from safetensors.torch import load_file, save_file

import egstalker_nb as egs
from egstalker_nb.core.errors import DatasetError
from egstalker_nb.face.expression import lip_gap
from egstalker_nb.media.audio import windows_of
from egstalker_nb.media.rates import SAMPLES_PER_FRAME
from egstalker_nb.model.audio_link import CENTRE, LABIALS, MODES, FeatureLink, PriorLink
from egstalker_nb.model.mouth import MAX_COEFFICIENT, SHAPE, Mouth
from egstalker_nb.model.torso import Torso
from egstalker_nb.speech.encoders import load_encoder
from egstalker_nb.speech.phones import CLASSES
from egstalker_nb.speech.prior import built_in_prior
from egstalker_nb.speech.voice_activity import shut_in_silence
from egstalker_nb.training import init_head, trainer
from egstalker_nb.training.fit_mouth import SHUT_SHARE, fit_mouth

CFG = dict(iterations=20, coarse_iterations=10, batch_size=2, checkpoint_interval=10, plane_resolution=[8, 16])
VALIDATION = 1 / 11  # share of the frames


@dataclass
class Clip:
    """What `fit_mouth` asks of a dataset."""

    features: np.ndarray
    mouth: np.ndarray
    aperture: np.ndarray
    wave: np.ndarray
    num_train: int
    encoder: dict = field(default_factory=lambda: load_encoder("phones").spec)

    def __len__(self):
        return len(self.features)

    def audio(self):
        return self.wave


@pytest.fixture(scope="module")
def wave():
    """The sentence twice, at full frames: 8 s."""
    both = sentence_twice()
    return both[:len(both) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]


def moved_by(drive):
    """Shapes [N, SHAPE] that a mouth takes when [N, K] numbers move it, and how far it opens [N]."""
    rng = np.random.default_rng(1)
    shapes = REST + drive @ (0.02 * rng.normal(size=(drive.shape[1], SHAPE)))
    return shapes.astype(np.float32), (drive[:, 0] - drive[:, 0].min()).astype(np.float32)


def linear_in(features, count=3, noise=0.3):
    """A linear function of the audio features, standardised, plus noise that does not depend on them: [N, count]."""
    rng = np.random.default_rng(0)
    drive = features[:, CENTRE - 1:CENTRE + 3].mean(1) @ rng.normal(size=(29, count))
    drive = (drive - drive.mean(0)) / drive.std(0)
    return drive + noise * rng.normal(size=drive.shape)


def made_up(wave, name, **mouth):
    """A clip whose mouth follows its audio."""
    encoder = load_encoder(name)
    features = encoder.features(wave)
    shapes, aperture = spoken_mouth(features, **mouth) if name == "phones" else moved_by(linear_in(features, **mouth))
    return Clip(features, shapes, aperture, wave, round(len(features) * (1 - VALIDATION)), encoder.spec)


@pytest.fixture(params=["phones", "logmel"])
def spoken(request, wave):
    return made_up(wave, request.param)


@pytest.fixture
def phones(wave):
    return made_up(wave, "phones")


@pytest.fixture
def logmel(wave):
    return made_up(wave, "logmel")


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("r") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), folder, until=10, device="cpu")


def finite(mouth):
    """All but the spread of inputs that never change, which is infinite on purpose."""
    return all(value.isfinite().all() for name, value in mouth.state_dict().items() if "input_spread" not in name)


# ---- shapes ----

def test_modes_give_tracked_shapes_back(phones):
    """Eight numbers move this mouth: eight modes hold all of it, in frames that were left out too."""
    mouth, shapes = fit_mouth(phones), torch.from_numpy(phones.mouth)
    torch.testing.assert_close(mouth.decode(mouth.encode(shapes)), shapes, atol=1e-5, rtol=0)
    torch.testing.assert_close(mouth.decode(torch.zeros(1, MODES))[0], shapes[:phones.num_train].mean(0))


def test_of_a_mouth_with_more_shapes_the_largest_are_kept(phones):
    rng = np.random.default_rng(2)
    phones.mouth, _ = moved_by(rng.normal(size=(len(phones), 20)) * np.geomspace(1, 0.05, 20))
    mouth, known = fit_mouth(phones), torch.from_numpy(phones.mouth[:phones.num_train])
    missing = known - mouth.decode(mouth.encode(known))
    least = np.linalg.svd((known - known.mean(0)).numpy(), compute_uv=False)[MODES:]
    assert float(missing.square().sum()) == pytest.approx((least ** 2).sum(), rel=1e-3)


def test_training_frames_have_the_tracked_codes_with_unit_variance(phones):
    phones.mouth += (0.02 * np.random.default_rng(3).normal(size=phones.mouth.shape)).astype(np.float32)
    mouth, known = fit_mouth(phones), torch.from_numpy(phones.mouth[:phones.num_train])
    codes = mouth.coefficients[:phones.num_train]
    torch.testing.assert_close(codes, mouth.encode(known))
    torch.testing.assert_close(codes.mean(0), torch.zeros(MODES), atol=1e-4, rtol=0)
    torch.testing.assert_close(codes.std(0, correction=0), torch.ones(MODES), atol=1e-4, rtol=0)


# ---- prediction from audio ----

def spread_of_opening(mouth, clip):
    """Of the predicted opening over the training frames, relative to that of the tracked one."""
    ids = slice(clip.num_train)
    said = mouth.predict(torch.from_numpy(clip.features[ids]), torch.zeros(clip.num_train))
    tracked = lip_gap(torch.from_numpy(clip.mouth[ids]))
    return float(lip_gap(mouth.decode(said)).std() / tracked.std())


def test_a_mouth_that_follows_its_audio_is_predicted(spoken):
    mouth = fit_mouth(spoken)
    assert isinstance(mouth.link, PriorLink if spoken.encoder["name"] == "phones" else FeatureLink)
    assert mouth.cross_validated_r[:3].min() > 0.6 and finite(mouth)
    tracked = mouth.encode(torch.from_numpy(spoken.mouth))[spoken.num_train:, :3]
    left_out = mouth.coefficients[spoken.num_train:, :3]
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(tracked.t().numpy(), left_out.t().numpy())]
    assert min(r) > 0.4, "frames that the fit never saw"
    said = mouth.predict(torch.from_numpy(spoken.features), torch.zeros(len(spoken)))
    spread = said[:, :3].std(0)
    assert (spread > 0.4).all() and (spread < 1.3).all(), "a mouth that moves too little, or too much"


@pytest.mark.parametrize("noise", [0, 0.5, 1, 2])
def test_the_predicted_mouth_opens_as_far_as_the_tracked_one(wave, noise):
    """Neither a mumble, which least squares predicts, nor a shout."""
    clip = made_up(wave, "phones", noise=noise)
    assert 0.7 < spread_of_opening(fit_mouth(clip), clip) < 1.3


@pytest.mark.parametrize("style", [0.5, 2.0])
def test_a_person_who_opens_the_mouth_less_or_more_is_predicted_so(phones, style):
    """Style: how far this person's mouth moves, though the prior is the same."""
    usual = fit_mouth(phones)
    shapes = REST + style * (phones.mouth - REST)
    other = Clip(phones.features, shapes.astype(np.float32), phones.aperture, phones.wave, phones.num_train)
    features, speech = torch.from_numpy(phones.features), torch.zeros(len(phones))
    gaps = [lip_gap(mouth.decode(mouth.predict(features, speech))).std() for mouth in (usual, fit_mouth(other))]
    assert float(gaps[1] / gaps[0]) == pytest.approx(style, rel=0.05)


def test_a_voice_that_is_not_the_heads_moves_its_mouth_too(phones, wave):
    """What the head says with another voice follows the prior, which never saw the head."""
    mouth = fit_mouth(phones)
    other = np.interp(np.arange(0, len(wave), 0.93), np.arange(len(wave)), wave).astype(np.float32)[::-1].copy()
    features = torch.from_numpy(load_encoder("phones").features(other))
    said = lip_gap(mouth.decode(mouth.link(features)))
    expected = lip_gap(built_in_prior().motion(built_in_prior()(features)))
    assert np.corrcoef(said, expected)[0, 1] > 0.8


def away_from_prior(wave, seconds):
    """How far the link of a person whose mouth does the opposite of the prior's second component gives way to it."""
    clip = made_up(np.concatenate([wave] * 5), "phones", noise=0.2)
    basis = built_in_prior().basis[1].numpy()
    clip.mouth -= 2 * ((clip.mouth - REST) @ basis)[:, None] * basis
    clip.num_train = round(25 * seconds)
    mouth = fit_mouth(clip)
    said = mouth.decode(mouth.link(torch.from_numpy(clip.features))).numpy()
    return np.corrcoef((said - REST) @ basis, (clip.mouth - REST) @ basis)[0, 1]


def test_the_longer_a_clip_the_more_it_may_differ_from_the_prior(wave):
    """A few seconds say little about a person, half a minute says more."""
    r = [away_from_prior(wave, seconds) for seconds in (1, 6, 36)]
    assert r[0] < -0.5 and r[0] < r[1] < r[2]


def test_a_mouth_unrelated_to_the_audio_keeps_to_the_prior(phones):
    """How a mouth moves with speech is known from others; noise in the tracking does not change that much."""
    phones.mouth, phones.aperture = spoken_mouth(np.random.default_rng(4).permutation(phones.features), noise=5)
    mouth = fit_mouth(phones)
    assert finite(mouth) and mouth.cross_validated_r.mean() < 0.15
    features = torch.from_numpy(phones.features)
    said, expected = lip_gap(mouth.decode(mouth.link(features))), lip_gap(built_in_prior().motion(
        built_in_prior()(features)))
    assert np.corrcoef(said, expected)[0, 1] > 0.5 and 0.3 < spread_of_opening(mouth, phones) < 1.3


def test_without_a_prior_a_mouth_unrelated_to_the_audio_is_predicted_to_hardly_move(logmel):
    """A head whose mouth moves at random with every audio is worse than one that hardly moves."""
    rng = np.random.default_rng(4)
    walk = rng.normal(size=(len(logmel), 10))
    logmel.mouth, logmel.aperture = moved_by(np.stack([np.convolve(w, np.ones(5) / 5, "same") for w in walk.T], 1))
    mouth = fit_mouth(logmel)
    said = mouth.predict(torch.from_numpy(logmel.features), torch.zeros(len(logmel)))
    # the mean, because one of eight modes may agree by chance
    assert finite(mouth) and mouth.cross_validated_r.mean() < 0.15
    assert said.std(0).mean() < 0.45 and said.std(0).max() < 0.8


# ---- closures ----

@pytest.mark.parametrize("labial", ["b", "m"])
def test_b_p_and_m_shut_the_lips(phones, labial):
    """Whatever else is heard around them."""
    mouth = fit_mouth(phones)
    windows = torch.from_numpy(phones.features[50:60]).clone()
    windows[:, CENTRE:CENTRE + 2] = 0
    windows[:, CENTRE:CENTRE + 2, CLASSES.index(labial)] = 1
    shut = mouth.predict(windows, torch.zeros(10))
    torch.testing.assert_close(shut, mouth.shut.expand(10, -1), atol=1e-5, rtol=0)
    tenth = np.sort(lip_gap(torch.from_numpy(phones.mouth[:phones.num_train])).numpy())
    tenth = tenth[:round(SHUT_SHARE * phones.num_train)]
    gap = lip_gap(mouth.decode(shut))
    assert gap.max() <= tenth.max() + 1e-4, "as shut as in the frames that open least"


def test_lips_shut_as_far_as_b_p_and_m_are_likely(phones):
    """A vowel leaves them open, a "b" of 40 % shuts them, half of that half; b and m share what is neither alone."""
    mouth, vowel = fit_mouth(phones), CLASSES.index("a")
    windows = torch.zeros(5, 16, len(CLASSES))
    windows[..., vowel] = 1
    open_ = mouth.predict(windows, torch.zeros(5))
    assert not mouth.link.closed(windows).any()
    for share in (0.1, 0.2, 0.4, 0.8):
        windows[1, CENTRE:CENTRE + 2, LABIALS[0]] = share ** 0.5
        windows[2, CENTRE:CENTRE + 2, LABIALS] = (share / 2) ** 0.5
        windows[1:3, CENTRE:CENTRE + 2, vowel] = (1 - share) ** 0.5
        torch.testing.assert_close(mouth.link.closed(windows[1:3]), torch.full((2,), min(1.0, share / 0.4)))
    torch.testing.assert_close(mouth.predict(windows, torch.zeros(5))[1:3], mouth.shut.expand(2, -1))
    torch.testing.assert_close(mouth.predict(windows, torch.zeros(5))[3:], open_[3:])


@pytest.mark.parametrize("kind", ["sil", "h"])
def test_noise_and_breath_leave_the_mouth_shut(phones, kind):
    """Only for as long as a window: in a word, silence is the closure of a stop."""
    mouth, windows = fit_mouth(phones), torch.zeros(3, 16, len(CLASSES))
    windows[..., CLASSES.index(kind)] = 1
    windows[1, CENTRE:CENTRE + 4, CLASSES.index(kind)] = 0
    windows[1, CENTRE:CENTRE + 4, CLASSES.index("a")] = 1
    windows[2, :CENTRE] = 0                             # the audio begins here
    assert mouth.link.closed(windows).tolist() == [1, 0, 1]


def test_a_closure_in_a_sentence_lasts_a_few_frames(phones):
    """A "b" of 80 ms between vowels shuts the lips then, and not half a second before or after."""
    mouth, steps = fit_mouth(phones), np.zeros((100, len(CLASSES)), np.float32)
    steps[:, CLASSES.index("a")] = 1
    steps[50:54] = np.eye(len(CLASSES))[CLASSES.index("b")]
    closed = mouth.link.closed(torch.from_numpy(windows_of(steps, 50)))
    assert closed[25:27].min() == 1 and closed[24] > 0 and not closed[:23].any() and not closed[29:].any()


def test_an_encoder_whose_channels_are_no_phones_has_no_closures(logmel):
    mouth = fit_mouth(logmel)
    loud = torch.full((4, 16, 29), 5.0)
    assert not mouth.link.closed(loud).any()
    spoken = mouth.link(loud).clamp(-MAX_COEFFICIENT, MAX_COEFFICIENT)
    torch.testing.assert_close(mouth.predict(loud, torch.zeros(4)), spoken)


# ---- clips that say little ----

@pytest.mark.parametrize("shown", ["nothing moves", "silence throughout"])
def test_clips_that_say_nothing_are_finite(phones, shown):
    if shown == "nothing moves":
        phones.mouth[:], phones.aperture[:] = REST, 0.1
    else:
        phones.wave = np.zeros_like(phones.wave)
        phones.features = load_encoder("phones").features(phones.wave)
    mouth = fit_mouth(phones)
    assert finite(mouth) and mouth.coefficients.abs().max() < 10
    features = load_encoder("phones").features(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
    assert mouth.predict(torch.from_numpy(features), torch.zeros(25)).isfinite().all()


@pytest.mark.parametrize("count", [2, 5, 8, 13])
def test_few_training_frames_are_enough(phones, count):
    phones.num_train = count
    mouth, known = fit_mouth(phones), torch.from_numpy(phones.mouth[:count])
    assert finite(mouth) and mouth.coefficients.shape == (len(phones), MODES)
    torch.testing.assert_close(mouth.decode(mouth.coefficients[:count]), known, atol=1e-4, rtol=0)
    moved = mouth.decode(mouth.coefficients[count:]) - mouth.mean
    assert moved.abs().max() < 3 * (torch.from_numpy(phones.mouth) - mouth.mean).abs().max()


# ---- validation ----

def changed(ds, folder, **arrays):
    """A copy of a dataset whose validation frames have other landmarks or features."""
    shutil.copytree(ds.root, folder)
    with np.load(folder / "tracking.npz") as file:
        tracking = {name: file[name].copy() for name in file.files}
    features = ds.features.copy()
    for name, change in arrays.items():
        values = features if name == "features" else tracking[name]
        values[ds.num_train:] = change(values[ds.num_train:])
    np.savez(folder / "tracking.npz", **tracking)
    np.save(folder / "features.npy", features)
    return egs.load_dataset(folder)


def test_validation_frames_use_their_audio_and_not_their_mouths(tiny_dataset, tmp_path):
    """Scores of validation frames would mean nothing if the head were given their own mouths."""
    own = fit_mouth(tiny_dataset)
    seen = changed(tiny_dataset, tmp_path / "seen", landmarks=lambda x: 1.3 * x + 5, aperture=lambda x: 0 * x,
                   blink=lambda x: 1 - x)
    assert not np.array_equal(seen.mouth[-1], tiny_dataset.mouth[-1])
    for name, value in fit_mouth(seen).state_dict().items():
        assert torch.equal(value, own.state_dict()[name]), f"{name} depends on the mouths of validation frames"
    heard = fit_mouth(changed(tiny_dataset, tmp_path / "heard", features=lambda x: 0.1 * x))
    last = tiny_dataset.num_train
    assert torch.equal(heard.coefficients[:last], own.coefficients[:last])
    assert (heard.coefficients[last:] - own.coefficients[last:]).abs().amax(1).min() > 0.01


def test_coefficients_of_validation_frames_are_predicted(phones):
    mouth, count = fit_mouth(phones), phones.num_train
    silent = torch.from_numpy(shut_in_silence(phones.wave, len(phones)))
    heard = mouth.predict(torch.from_numpy(phones.features), silent)
    torch.testing.assert_close(mouth.coefficients[count:], heard[count:])
    assert (mouth.coefficients[:count] - heard[:count]).abs().max() > 0.1
    phones.wave = phones.wave.copy()
    phones.wave[count * SAMPLES_PER_FRAME:] = 0
    assert torch.equal(fit_mouth(phones).coefficients[-1], mouth.shut), "the sound itself says where it is silent"


# ---- silence ----

def test_silence_shuts_the_mouth(phones):
    """Whatever an encoder makes of noise in it; the shut mouth is that of the frames that open it least."""
    mouth, features = fit_mouth(phones), torch.from_numpy(phones.features)
    assert torch.equal(mouth.predict(features, torch.ones(len(phones))), mouth.shut.expand(len(phones), -1))
    half, spoken = mouth.predict(features, torch.full((len(phones),), 0.5)), mouth.link(features)
    vowels = mouth.link.closed(features) < 0.5
    torch.testing.assert_close(half[vowels], ((spoken + mouth.shut) / 2)[vowels])
    order = phones.aperture[:phones.num_train].argsort()
    tenth = torch.from_numpy(phones.mouth[order[:round(0.1 * phones.num_train)]]).mean(0)
    torch.testing.assert_close(mouth.decode(mouth.shut[None])[0], tenth, atol=1e-5, rtol=0)


def test_the_mouth_closes_and_opens_softly_around_silence():
    time = np.arange(40 * SAMPLES_PER_FRAME) / 16_000
    sound = (0.2 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    gap, stop = np.ones((2, len(sound)), np.float32)
    gap[12 * SAMPLES_PER_FRAME:30 * SAMPLES_PER_FRAME] = 0
    stop[12 * SAMPLES_PER_FRAME:15 * SAMPLES_PER_FRAME] = 0
    shut = shut_in_silence(sound * gap, 40)
    assert shut.shape == (40,) and shut.dtype == np.float32
    assert shut[:12].max() < 0.02 and shut[30:].max() < 0.02, "words keep their mouth"
    assert shut[20:22].min() > 0.98
    assert (np.diff(shut[10:21]) >= 0).all() and (np.diff(shut[21:32]) <= 0).all()
    assert np.abs(np.diff(shut)).max() < 0.35
    assert not shut_in_silence(sound * stop, 40).any(), "the closure of a stop is not silence"
    assert (shut_in_silence(np.zeros_like(sound), 40) == 1).all()


# ---- checkpoints ----

def test_a_checkpoint_holds_the_mouth(run, tiny_dataset):
    kept, own = run.load_head(device="cpu").mouth.state_dict(), fit_mouth(tiny_dataset).state_dict()
    assert kept.keys() == own.keys()
    for name in own:
        assert torch.equal(kept[name], own[name]), name
    assert own["coefficients"].abs().max() > 0.5


def test_going_on_keeps_mouth_and_torso(run, tiny_dataset, monkeypatch):
    """Fitted again they might differ, on a GPU or after an update, and the network would not know them."""
    def never(*args, **kwargs):
        raise AssertionError("it was learned again")

    kept = run.load_head(device="cpu")
    monkeypatch.setattr(trainer, "fit_torso", never)
    monkeypatch.setattr(init_head, "fit_mouth", never)
    again = trainer.Trainer(tiny_dataset, run.config, run, torch.device("cpu")).resume(run.iterations[-1])
    for part in ("mouth", "torso"):
        before, now = getattr(kept, part).state_dict(), getattr(again.head, part).state_dict()
        name = {"mouth": "coefficients", "torso": "codes"}[part]
        frames = len(tiny_dataset)
        blank = (Mouth(frames, FeatureLink()) if part == "mouth" else Torso.blank(64, frames)).state_dict()
        assert before.keys() == now.keys() and not torch.equal(before[name], blank[name])
        for name in before:
            assert torch.equal(before[name], now[name]), f"{part}.{name}"


def test_a_head_of_another_version_is_refused_with_advice(tiny_dataset, tmp_path):
    cfg = egs.load_config("quick_test", iterations=2, coarse_iterations=1, batch_size=2, plane_resolution=[8, 16])
    run = egs.train(tiny_dataset, cfg, tmp_path / "run", device="cpu")
    file = next(run.root.glob("checkpoints/*/head.safetensors"))
    tensors = load_file(file)
    for spoiled in ({k: v for k, v in tensors.items() if k != "mouth.coefficients"},
                    {**tensors, "mouth.link.weights": tensors["mouth.link.weights"][:-1].contiguous()}):
        save_file(spoiled, file)
        state = json.loads(file.with_name("state.json").read_text())
        state["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()  # not damaged, only different
        file.with_name("state.json").write_text(json.dumps(state))
        with pytest.raises(DatasetError, match="(?s)checkpoint of this version.*Train again"):
            run.load_head(int(file.parent.name.split("_")[1]), device="cpu")
