"""Protects: the built-in encoder recognises known speech, in sync, whatever its level and length; and can be trained.

`data/speech.flac` is espeak-ng's voice en-us+Alicia, which is not in the training data, saying the first sentence of
the Universal Declaration of Human Rights; `data/speech_phones.npz` holds the class of every 10 ms as
`tools/phones/synthesize.py` finds it.
"""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from egstalker_nb.core.errors import MissingPackageError
from egstalker_nb.media.audio import SAMPLES_PER_STEP, load_audio
from egstalker_nb.metrics.landmark_metrics import correlation_and_lag
from egstalker_nb.speech import phones

DATA = Path(__file__).parent / "data"
for folder in ("benchmarks", "tools/phones"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
import features as training_features  # noqa: E402
import languages  # noqa: E402
import synthesize  # noqa: E402
import tables  # noqa: E402
import teacher  # noqa: E402
import train  # noqa: E402

SILENT = phones.CLASSES.index("sil")
OPENNESS = np.array([phones.OPENNESS[name] for name in phones.CLASSES])


@pytest.fixture(scope="module")
def speech():
    return load_audio(DATA / "speech.flac")


@pytest.fixture(scope="module")
def spoken():
    """The class at the time of each step."""
    return np.load(DATA / "speech_phones.npz")["labels"][::2]


@pytest.fixture(scope="module")
def heard(speech):
    return phones.steps(speech)


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 16_000])
def test_audio_of_any_length_has_a_step_every_20_ms(samples):
    steps = phones.steps(np.random.default_rng(0).uniform(-0.1, 0.1, samples).astype(np.float32))
    assert steps.shape == (-(-samples // SAMPLES_PER_STEP), 29) and steps.dtype == np.float32
    np.testing.assert_allclose((steps ** 2).sum(1), 1, atol=1e-5)


def test_the_class_spoken_is_recognised(heard, spoken):
    # 29 classes, an unseen voice: chance is 0.04, always naming the commonest class 0.13
    assert (heard.argmax(1) == spoken).mean() > 0.5


def test_the_mouth_of_the_recognised_phones_moves_in_sync_with_those_spoken(heard, spoken):
    tenth = np.ones(5) / 5  # of a second: what lips follow
    curves = (np.convolve(values, tenth, "same") for values in (heard ** 2 @ OPENNESS, OPENNESS[spoken]))
    r, _, lag = correlation_and_lag(*curves)
    assert abs(lag) <= 1 and r > 0.6


def test_loudness_does_not_matter(speech, heard):
    np.testing.assert_allclose(phones.steps(0.1 * speech), heard, atol=1e-3)


def test_silence_is_silence(speech):
    assert (phones.steps(np.zeros(16_000, np.float32)).argmax(1) == SILENT).all()
    pause = np.zeros(32_000, np.float32)
    heard = phones.steps(np.concatenate([speech, pause, speech]))
    first = -(-len(speech) // SAMPLES_PER_STEP)
    # the last sounds still ring when the pause begins
    assert (heard[first + 10:first + len(pause) // SAMPLES_PER_STEP - phones.AHEAD].argmax(1) == SILENT).all()


def test_long_audio_is_processed_in_chunks_without_seams(speech, heard, monkeypatch):
    monkeypatch.setattr(phones, "CHUNK", 37)
    np.testing.assert_allclose(phones.steps(speech), heard, atol=1e-5)


def test_nothing_beyond_back_and_ahead_changes_a_step():
    generator, net, at = torch.Generator().manual_seed(0), phones.network(), 100
    sound = torch.randn(1, 400, phones.BANDS + 1, generator=generator)
    other = sound.clone()
    other[:, 2 * at:2 * at + 2] += 5
    with torch.no_grad():
        changed = ((net(sound) - net(other)).abs().amax(2)[0] > 1e-6).nonzero()[:, 0]
    assert at - phones.AHEAD <= changed.min() < at < changed.max() <= at + phones.BACK
    # and not much less: a stream waits for AHEAD
    assert changed.min() <= at - phones.AHEAD + 1 and changed.max() >= at + phones.BACK - 4


def test_the_weights_are_small():
    assert phones.WEIGHTS.stat().st_size <= 3_000_000


def test_every_class_has_an_openness():
    assert set(phones.OPENNESS) == set(phones.CLASSES) and len(phones.CLASSES) == 29
    assert all(0 <= value <= 1 for value in phones.OPENNESS.values())


@pytest.mark.parametrize("phone, classes", [
    ("aɪ", ("a", "ih")), ("iː", ("i",)), ("tʃ", ("sh",)), ("ts", ("s",)), ("tʲ", ("d",)), ("ʲ", ("j",)), ("(en)", ()),
    ("", ()), ("??", ()), ("ɐ̃ʊ̃", ("ax", "uh"))])
def test_phones_of_espeak_have_classes(phone, classes):
    assert tables.classes_of(phone) == classes


def test_every_class_of_the_tables_exists():
    for table in (tables.IPA, tables.ENGLISH, tables.ROMANCE):
        for names in table.values():
            assert {names} if isinstance(names, str) else set(names) <= set(phones.CLASSES)


def test_training_sees_what_the_encoder_sees(speech):
    whole = speech[:len(speech) // SAMPLES_PER_STEP * SAMPLES_PER_STEP]
    decoded = train.decoded(torch.from_numpy(training_features.coded(whole)))
    log = phones.log_power(whole)
    assert (decoded - log).abs().max() <= training_features.QUANTUM / 2 + 1e-4
    assert (train.inputs_of(decoded) - phones.normalised(log, *phones.level_and_mean(log))).abs().mean() < 0.05


def test_targets_lie_at_the_time_of_each_step():
    labels = torch.zeros(1, 40, dtype=torch.long)
    labels[:, 20:] = 5  # from 0.2 s on: step 10 is where it begins
    share = train.targets(labels)[0, :, 5]
    assert share.shape == (20,) and share[8] < 0.01 and share[12] > 0.95
    assert share[10] == pytest.approx(float(share[8] + share[12]) / 2)


def test_training_writes_weights_that_the_encoder_loads(speech, spoken, tmp_path, monkeypatch):
    labels = np.repeat(spoken, 2)
    codes = training_features.coded(speech)[:len(labels)]
    labels = labels[:len(codes)]
    unknown = np.full(len(codes), training_features.UNKNOWN, np.uint8)
    posteriors = np.random.default_rng(0).dirichlet(np.ones(teacher.TOKENS), len(codes) // 2)
    targets = teacher.targets(posteriors, len(codes) * SAMPLES_PER_STEP // 2)
    training_features.save(tmp_path / "data.npz", [(codes, labels), (codes, labels)], np.array([False, True]),
                           [(codes[::-1], unknown, targets)])
    assert (training_features.load(tmp_path / "data.npz")[0] == np.concatenate([codes, codes, codes[::-1]])).all()
    monkeypatch.setattr(train, "BATCH", 4)
    monkeypatch.setattr(train, "REAL_BATCH", 3)
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "data.npz"), str(tmp_path / "new.safetensors"),
                                      "--steps", "3"])
    train.main()
    net = phones.PhoneNet()
    net.load_state_dict({name: value.float() for name, value in load_file(tmp_path / "new.safetensors").items()})


def test_the_teachers_late_peak_becomes_the_target_of_the_phones_step():
    posteriors = np.full((11, teacher.TOKENS), 1e-4, np.float32)
    posteriors[:, teacher.BLANK] = 0.9
    posteriors[7, [3, teacher.BLANK]] = 0.8, 0.1  # a phone spoken at step 3
    tokens, probabilities = teacher.targets(posteriors, 3200).transpose(1, 0, 2)
    assert tokens.shape == (10, teacher.TOP) and tokens[3, 0] == 3 and probabilities[3, 0] == 204
    assert (np.delete(tokens[:7, 0], 3) == teacher.BLANK).all()
    assert (probabilities[7:] == 0).all()  # the posteriors end before


def test_crops_carry_the_targets_of_their_steps():
    lengths = np.array([401, 700])
    codes = np.concatenate([20 + np.arange(n) % 230 for n in lengths]).astype(np.uint8)  # each names its time
    targets = np.concatenate([20 + np.arange(0, n, 2) % 230 for n in lengths]).astype(np.uint8)
    data = training_features.Data(np.repeat(codes[:, None], phones.BANDS, 1), np.zeros(1101, np.uint8), lengths,
                                  np.zeros(2, bool), np.broadcast_to(targets[:, None, None], (551, 2, 4)).copy())
    real = train.Utterances(data, np.ones(2, bool), torch.device("cpu"), data.targets)
    torch.manual_seed(0)
    log, _, found = real.crops(50)
    steps = (log[:, ::2, 0] - training_features.MIN_LOG_POWER) / training_features.QUANTUM
    inside = log[:, ::2, 0] != train.SILENCE
    assert (found[..., 0, 0] == steps)[inside].all() and (found[~inside] == 0).all() and not inside.all()


def test_distillation_is_least_for_the_teachers_posteriors():
    posteriors = torch.full((1, 2, teacher.TOKENS), 1e-6)
    posteriors[..., teacher.BLANK], posteriors[0, 1, 5] = 0.2, 0.8
    posteriors[0, 0, [teacher.BLANK, 7]] = torch.tensor([0.6, 0.4])
    targets = torch.tensor([[[[teacher.BLANK, 7, 0, 1], [153, 102, 0, 0]],
                             [[5, teacher.BLANK, 0, 1], [204, 51, 0, 0]]]], dtype=torch.uint8)
    best = train.distillation(posteriors.log(), targets)
    entropies = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (0.4, 0.8)]
    # a step counts 1 + 2 times the probability of a phone
    assert float(best) == pytest.approx((1.8 * entropies[0] + 2.6 * entropies[1]) / 2, rel=1e-3)
    assert train.distillation(posteriors.log() * 2, targets) > best < train.distillation(posteriors.log() / 2, targets)


def test_a_missing_teacher_is_named(monkeypatch):
    teacher.recogniser.cache_clear()
    monkeypatch.setitem(sys.modules, "hama.asr", None)
    monkeypatch.setitem(sys.modules, "hama", None)
    with pytest.raises(MissingPackageError, match="pip install hama==1.7.0"):
        teacher.recogniser()


def test_the_synthesisers_times_become_classes():
    labels = synthesize.from_ends([("pau", 0.1), ("ay", 0.3), ("m", 0.4)], tables.ENGLISH, 6400)
    names = [phones.CLASSES[label] for label in labels]
    assert names == ["sil"] * 10 + ["a"] * 10 + ["ih"] * 10 + ["m"] * 10
    with pytest.raises(KeyError):
        synthesize.from_ends([("new", 0.1)], tables.ENGLISH, 1600)


def test_the_openness_of_a_frame_is_that_around_its_time():
    opened = (np.arange(80) >= 40).astype(np.float32)  # every 10 ms: opens at 0.4 s, frame 10
    curve = languages.at_frames(opened, 20)
    assert curve.shape == (20,)
    np.testing.assert_allclose(curve[[8, 10, 12]], [0, 0.5, 1], atol=1e-6)
    assert languages.predicted_openness(np.zeros(16_000, np.float32), 25).shape == (25,)
