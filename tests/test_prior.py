"""Protects: a speaker prior learns what speakers have in common, whatever their scale and delay; its files are safe.

Audio features and mouths are made up: random posteriors, and mouths that follow a known function of them.
"""
import copy
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.core.errors import InputError
from egstalker_nb.media.audio import windows_of
from egstalker_nb.speech import prior as prior_module
from egstalker_nb.speech.encoders import load_encoder
from egstalker_nb.speech.prior import BUILT_IN, COMPONENTS, SHAPE, Prior, built_in_prior, load_prior, save_prior
from egstalker_nb.speech.sync import scale_free
from egstalker_nb.training import fit_prior as fitting
from egstalker_nb.training.fit_prior import SpeakerClip, fit_prior

STATES = 3                                # of the made-up mouths
LATE = 0, 0, 0, 0, 0, 0, 6, -6            # steps of 20 ms by which the audio of each made-up clip is late
EDGE = 20                                 # frames around a clip, from which a shift takes its audio
CFG = dict(iterations=4, coarse_iterations=2, batch_size=2, checkpoint_interval=4, plane_resolution=[8, 16])


def smooth(noise, taps):
    """Moving average of each column of noise [N, K], still of about unit variance."""
    return np.stack([np.convolve(column, np.hanning(taps + 2), "same") for column in noise.T], 1) / np.sqrt(taps / 2)


def posteriors(frames, seed):
    """Made-up features of the phone encoder: square roots of smooth random probabilities, [2 * frames, 29]."""
    scores = np.exp(3 * smooth(np.random.default_rng(seed).normal(size=(2 * frames, 29)), 7))
    return np.sqrt(scores / scores.sum(1, keepdims=True)).astype(np.float32)


def speaker(seed, late=0, frames=150, size=1.0):
    """A clip of a speaker whose mouth follows its audio by a function that all made-up speakers share, plus noise."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(0)
    steps = posteriors(frames + 2 * EDGE, seed)
    drive = np.square(steps) @ shared.normal(size=(29, STATES))
    drive = smooth((drive - drive.mean(0)) / drive.std(0), 3)[2 * np.arange(EDGE, EDGE + frames) + late]
    modes = np.linalg.qr(shared.normal(size=(SHAPE, STATES)))[0].T * np.array([3, 2, 1])[:, None]
    mouth = size * (5 + drive @ modes + 0.1 * rng.normal(size=(frames, SHAPE)))
    features = windows_of(steps, frames + 2 * EDGE)[EDGE:-EDGE]
    return SpeakerClip(np.ascontiguousarray(features), mouth.astype(np.float32), f"speaker {seed}", in_sync=late == 0)


def correlations(prior, clip):
    """Of each component's prediction with the tracked motion."""
    predicted = prior(torch.from_numpy(clip.features)).numpy()
    tracked = scale_free(clip.mouth) @ prior.basis.numpy().T
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, tracked.T)])


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Few steps of training on small batches."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dict(STEPS=4, WARM_UP=2, BATCH=4, CROP=30, FOLDS=2).items():
            patch.setattr(fitting, name, value)
        yield patch


@pytest.fixture(scope="module")
def clips():
    return [speaker(i, late) for i, late in enumerate(LATE, 1)]


@pytest.fixture(scope="module")
def fitted(clips, tmp_path_factory):
    """A prior, the file that it was written to, and the random numbers that the caller draws before and after."""
    path = tmp_path_factory.mktemp("prior") / "new" / "made_up.safetensors"
    before = torch.random.get_rng_state()
    prior = fit_prior(clips, path)
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random state"
    return prior, path


def random_windows(count, seed=5):
    return torch.from_numpy(windows_of(posteriors(count, seed), count))


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


# ---- one window per frame ----

def test_a_frame_depends_on_its_own_window_only(monkeypatch):
    """A stream, which predicts frames as they come, gives what a file gives."""
    prior, windows = built_in_prior(), random_windows(60)
    whole = prior(windows)
    assert whole.shape == (60, COMPONENTS) and whole.std(0).min() > 0.05
    for length in (1, 7, 59):
        torch.testing.assert_close(torch.cat([prior(part) for part in windows.split(length)]), whole, atol=1e-5, rtol=0)
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior(windows[shuffled]), whole[shuffled], atol=1e-5, rtol=0)
    monkeypatch.setattr(prior_module, "CHUNK", 13)
    torch.testing.assert_close(prior(windows), whole, atol=1e-5, rtol=0)
    assert prior(windows[:0]).shape == (0, COMPONENTS)


def test_windows_of_shifted_audio_give_shifted_motion():
    steps, prior = posteriors(50, 3), built_in_prior()
    whole, later = (prior(torch.from_numpy(windows_of(part, len(part) // 2))) for part in (steps, steps[20:]))
    torch.testing.assert_close(later[4:-4], whole[14:-4], atol=1e-5, rtol=0)


# ---- fitting ----

def test_the_link_that_speakers_share_is_learned(fitted):
    prior, _ = fitted
    assert correlations(prior, speaker(99))[:STATES].min() > 0.6, "a speaker who took no part"
    assert min(prior.facts["cross_validated_r"][:STATES]) > 0.5 > max(prior.facts["cross_validated_r"][STATES:])
    assert prior.facts["speakers"] == prior.facts["clips"] == len(LATE)
    assert prior.facts["seconds"] == pytest.approx(len(LATE) * 6)
    torch.testing.assert_close(prior.basis @ prior.basis.t(), torch.eye(COMPONENTS), atol=1e-4, rtol=0)
    assert (prior.gain[:STATES] > 3 * prior.gain[STATES:].mean()).all(), "what audio does not determine is left out"


def test_known_delays_are_found(fitted):
    """Audio that is late or early by 120 ms; clips that are known to be in sync stay as they are."""
    found = fitted[0].facts["late_ms"]
    assert found[:6] == [0] * 6 and abs(found[6] - 120) <= 20 and abs(found[7] + 120) <= 20


def test_a_clip_that_is_in_sync_is_not_shifted(clips, fitted):
    """Even one that looks late: the user knows better."""
    trusted = [SpeakerClip(clip.features, clip.mouth, clip.speaker, in_sync=True) for clip in clips]
    assert fit_prior(trusted).facts["late_ms"] == [0] * len(LATE)
    loose = [SpeakerClip(clip.features, clip.mouth, clip.speaker) for clip in clips]
    assert fit_prior(loose).facts["late_ms"][6:] == fitted[0].facts["late_ms"][6:], "nothing else differs"


def test_units_and_rest_shapes_of_speakers_do_not_matter(clips, fitted):
    """Head units or pixels, a large face or a small one: motion counts, at the same size for each clip."""
    rng = np.random.default_rng(6)
    other = [SpeakerClip(clip.features, (2.0 ** rng.integers(-8, 9) * (clip.mouth + rng.normal(size=SHAPE)))
                         .astype(np.float32), clip.speaker, clip.in_sync) for clip in clips]
    again, prior = fit_prior(other), fitted[0]
    assert again.facts["late_ms"] == prior.facts["late_ms"]
    windows = random_windows(80)
    a, b = (found.motion(found(windows)) for found in (again, prior))
    torch.testing.assert_close(a, b, atol=0.02 * float(b.std()), rtol=0)


def test_the_same_seed_gives_the_same_bits(clips, fitted):
    torch.manual_seed(123)
    again = fit_prior(clips)
    assert same(again, fitted[0]), "it depends on the caller's random state"
    assert not same(fit_prior(clips, seed=1), again)


def test_clips_of_one_speaker_are_left_out_together(clips):
    """Counted apart, a speaker's other clip would vouch for the prior."""
    names = ["a", "a", "b", "b", "c", "c", "c", "c"]
    prior = fit_prior([SpeakerClip(clip.features, clip.mouth, name, True) for clip, name in zip(clips, names)])
    assert prior.facts["speakers"] == 3 and prior.facts["clips"] == 8
    with pytest.raises(InputError, match="3 speakers.*2"):
        fit_prior([SpeakerClip(clip.features, clip.mouth, name, True) for clip, name in zip(clips, "aaaabbbb")])


def nothing(clip):
    clip.mouth[:] = clip.mouth[0]


def spoilt(clip, **values):
    return SpeakerClip(**{**vars(clip), **values})


@pytest.mark.parametrize("change, match", [
    (lambda c: [], "3 speakers"),
    (lambda c: c[:2], "3 speakers.*found 2"),
    (lambda c: [c[0]] * 5, "3 speakers.*found 1"),
    (lambda c: [spoilt(x, features=x.features[:12], mouth=x.mouth[:12]) for x in c], "20 frames or longer"),
    (lambda c: [spoilt(x, mouth=0 * x.mouth) for x in c], "moving mouths"),
    (lambda c: [*c[:2], spoilt(c[2], features=c[2].features[:-1])], r"same frames.*\[149, 16, 29\].*speaker 3"),
    (lambda c: [*c[:2], spoilt(c[2], features=c[2].features[:, :15])], r"\[N, 16, 29\]"),
    (lambda c: [*c[:2], spoilt(c[2], mouth=c[2].mouth[:, :40])], r"\[150, 40\].*speaker 3"),
    (lambda c: [spoilt(x, mouth=x.mouth[:, :40]) for x in c], r"\[150, 40\]"),
    (lambda c: [*c[:2], spoilt(c[2], mouth=c[2].mouth * np.nan)], "finite"),
    (lambda c: [*c[:2], spoilt(c[2], features=c[2].features * np.inf)], "finite"),
])
def test_clips_that_make_no_prior_are_one_clear_error(clips, tmp_path, change, match):
    with pytest.raises(InputError, match=f"(?s){match}"):
        fit_prior(change(clips[:3]), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_written_is_an_error_before_fitting(clips, tmp_path, monkeypatch):
    def never(*args):
        raise AssertionError("half a minute is lost")

    monkeypatch.setattr(fitting, "_fit_space", never)
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("prior.npz", "folder.safetensors"):
        with pytest.raises(InputError, match="name of a .safetensors file"):
            fit_prior(clips, tmp_path / name)


def test_features_of_two_encoders_are_refused(tiny_dataset, clips):
    """What a channel means depends on the encoder."""
    other = copy.copy(tiny_dataset)
    other.encoder = load_encoder("logmel").spec
    with pytest.raises(InputError, match="(?s)one encoder.*'phones'.*'logmel'"):
        fit_prior([tiny_dataset, other, tiny_dataset])


# ---- files ----

def test_a_file_gives_the_prior_back(fitted):
    prior, path = fitted
    before = torch.random.get_rng_state()
    again = load_prior(path)
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random state"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert again.facts == prior.facts and again.encoder == prior.encoder == load_encoder("phones").spec
    for name, value in prior.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float()), name
    windows = random_windows(50)
    torch.testing.assert_close(again(windows), prior(windows), atol=0.02, rtol=0)
    assert not any(value.requires_grad for value in again.parameters()) and not again.training
    twice = save_prior(again, path.with_name("twice.safetensors"))
    assert same(load_prior(twice), again), "saved twice, it differs"
    twice.unlink()


def test_the_built_in_prior_is_small_and_for_the_default_encoder():
    assert BUILT_IN.stat().st_size <= 1_000_000
    prior = load_prior()
    assert prior.encoder == load_encoder("phones").spec and same(prior, built_in_prior())
    assert prior.facts["speakers"] >= 20 and prior.gain.min() >= 0


def damaged(path, tmp_path, how):
    """A file that is no prior."""
    data, bad = path.read_bytes(), tmp_path / "bad.safetensors"
    tensors, facts = load_file(path), {"encoder": json.dumps({"name": "phones"}), "facts": "{}"}
    if how in ("nan", "infinite"):
        tensors["basis"][3, 7] = float(how.replace("infinite", "inf"))
    if how == "another shape":
        tensors["linear"] = tensors["linear"][:-1].clone()
    if how == "a tensor missing":
        del tensors["gain"]
    if how == "a tensor too many":
        tensors["other"] = torch.zeros(2)
    if how == "no metadata":
        facts = None
    if how == "metadata that is no JSON":
        facts = {**facts, "encoder": "{"}
    if how == "metadata that is no spec":
        facts = {**facts, "encoder": "[1, 2]"}
    save_file(tensors, bad, facts)
    contents = {"truncated": data[:len(data) // 2], "cut by a byte": data[:-1], "empty": b"", "text": b"prior " * 50,
                "header destroyed": b"\xff" * 8 + data[8:], "pickle": None}
    if how == "pickle":
        torch.save(Trap(), bad)
    elif how in contents:
        bad.write_bytes(contents[how])
    return bad


class Trap:
    """Whoever unpickles it fails."""

    def __reduce__(self):
        return pytest.exit, ("code of the file was executed",)


@pytest.mark.parametrize("how", ["truncated", "cut by a byte", "empty", "text", "header destroyed", "pickle", "nan",
                                 "infinite", "another shape", "a tensor missing", "a tensor too many", "no metadata",
                                 "metadata that is no JSON", "metadata that is no spec"])
def test_a_file_that_is_no_prior_is_one_clear_error(fitted, tmp_path, how):
    bad = damaged(fitted[1], tmp_path, how)
    with pytest.raises(InputError, match=f"(?s)speaker prior.*{bad.name}"):
        load_prior(bad)


def test_a_path_without_file_is_one_clear_error(tmp_path, monkeypatch):
    for path in (tmp_path / "absent.safetensors", tmp_path, "relative.safetensors", "~/no/such.safetensors"):
        with pytest.raises(InputError, match="no file"):
            load_prior(path)
    phone_weights = BUILT_IN.with_name("phones.safetensors")
    with pytest.raises(InputError, match="speaker prior"):
        load_prior(phone_weights)


def test_a_file_is_replaced_at_once_or_not_at_all(fitted, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prior_module.Path, "write_bytes", full)
    with pytest.raises((OSError, InputError)):
        save_prior(fitted[0], path)
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == [path.name]


# ---- in training ----

def test_a_run_uses_the_given_prior_and_keeps_it(fitted, tiny_dataset, tmp_path):
    """A run that is moved to another machine still renders."""
    path = shutil.copy(fitted[1], tmp_path / "mine.safetensors")
    config = egs.load_config("quick_test", prior=str(path), **CFG)
    run = egs.train(tiny_dataset, config, tmp_path / "run", until=2, device="cpu")
    path.unlink()
    mouth = run.load_head(device="cpu").mouth
    assert same(mouth.link.prior, load_prior(fitted[1])) and not same(mouth.link.prior, built_in_prior())
    frames = list(egs.stream(run, [np.zeros(3200, np.float32)], device="cpu"))
    assert len(frames) == 5 and frames[0].shape == (64, 64, 3)
    again = egs.train(tiny_dataset, config, tmp_path / "run", device="cpu")
    assert same(again.load_head(device="cpu").mouth.link.prior, mouth.link.prior), "going on needs no file either"


def test_without_a_choice_the_built_in_prior_is_used(tiny_dataset, tmp_path):
    run = egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), tmp_path / "run", until=2, device="cpu")
    assert same(run.load_head(device="cpu").mouth.link.prior, built_in_prior())


def test_a_prior_of_another_encoder_is_refused_in_training(tiny_dataset, tmp_path):
    path = save_prior(Prior(load_encoder("logmel").spec), tmp_path / "logmel.safetensors")
    config = egs.load_config("quick_test", prior=str(path), **CFG)
    with pytest.raises(InputError, match="(?s)dataset's encoder, 'phones'.*'logmel'.*logmel.safetensors"):
        egs.train(tiny_dataset, config, tmp_path / "run", device="cpu")


# ---- on the command line ----

def test_a_prior_is_fitted_on_the_command_line(tiny_dataset, tmp_path, monkeypatch, capsys):
    """Each dataset is a speaker, and the features' encoder is that of the datasets."""
    monkeypatch.setattr(fitting, "MIN_FRAMES", 10)
    folders = [str(shutil.copytree(tiny_dataset.root, tmp_path / name)) for name in "ABC"]
    out = tmp_path / "x.safetensors"
    assert cli.main(["prior", *folders, "--out", str(out)]) == 0
    assert "3 speakers" in capsys.readouterr().out
    prior = load_prior(out)
    assert prior.facts["clips"] == 3 and prior.encoder == tiny_dataset.encoder
    assert cli.main(["prior", *folders[:1] * 3, "--out", str(tmp_path / "y.safetensors")]) == 2
    assert "3 speakers" in capsys.readouterr().err and not (tmp_path / "y.safetensors").exists()
