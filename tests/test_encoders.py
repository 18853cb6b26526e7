"""Protects the encoder interface, and speech recognisers as encoders: a tiny random one, saved to disk."""
import copy
import functools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from egstalker_nb.core.errors import InputError, MissingPackageError
from egstalker_nb.media.audio import frames_of, load_audio, save_wav
from egstalker_nb.model.audio_link import FeatureLink
from egstalker_nb.model.mouth import Mouth
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.speech import ctc
from egstalker_nb.speech.ctc import CLASSES, find_model, map_classes
from egstalker_nb.speech.encoders import BUILT_IN, load_encoder

transformers = pytest.importorskip("transformers", reason="the extra 'asr' is not installed")
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "|"]
UPPER = [*SPECIAL, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "'"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Any connection fails the test; the hub's cache is an empty folder."""
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def save_model(folder, vocabulary=UPPER, kind="Wav2Vec2", normalise=False, sampling_rate=16_000, change=None,
               **settings):
    """Write a tiny recogniser with known random weights; `change(model)` alters them."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{
        "vocab_size": len(vocabulary), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer", "pad_token_id": vocabulary.index("<pad>"),
        **settings})
    model = getattr(transformers, f"{kind}ForCTC")(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # as decided as a trained model
        if change:
            change(model)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise, sampling_rate=sampling_rate).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


def noise(seconds, level=0.1):
    return (level * np.random.default_rng(0).normal(size=round(seconds * 16_000))).astype(np.float32)


# ---- the interface

@pytest.mark.parametrize("samples", [1, 319, 320, 640, 1600, 12_345])
@pytest.mark.parametrize("name", [*BUILT_IN, "ctc"])
def test_every_encoder_gives_steps_and_windows_of_any_length(name, samples, folder):
    encoder = load_encoder(folder if name == "ctc" else name)
    wave = noise(1)[:samples]
    steps, windows = encoder.steps(wave), encoder.features(wave)
    assert steps.shape == (-(-samples // 320), 29) and steps.dtype == np.float32 and np.isfinite(steps).all()
    assert windows.shape == (frames_of(samples), 16, 29) and windows.dtype == np.float32
    for i in range(0, len(windows), 7):
        for j in range(16):
            k = 2 * i - 8 + j
            np.testing.assert_array_equal(windows[i, j], steps[k] if 0 <= k < len(steps) else 0)
    with pytest.raises(InputError, match="num_frames"):
        encoder.features(wave, 0)
    with pytest.raises(InputError, match="floats"):
        encoder.steps(np.zeros(100, np.int16))


@pytest.mark.parametrize("name", [*BUILT_IN, "ctc"])
def test_a_spec_brings_the_same_encoder_back(name, folder):
    """What a dataset stores as JSON is enough to drive its heads."""
    encoder = load_encoder(folder if name == "ctc" else name)
    again = load_encoder(json.loads(json.dumps(encoder.spec)))
    assert again.spec == encoder.spec
    np.testing.assert_array_equal(again.features(noise(0.5)), encoder.features(noise(0.5)))


def test_another_version_of_a_built_in_encoder_is_refused():
    spec = {**load_encoder("logmel").spec, "hop": 160}
    with pytest.raises(InputError, match="'logmel' version 1.*hop 160 there, 320 here"):
        load_encoder(spec)


@pytest.mark.parametrize("spec", [{"name": "external"}, {"name": "unheard of"}, {"name": "ctc"}, {}])
def test_features_of_unknown_origin_are_asked_for(spec):
    with pytest.raises(InputError, match=r"features=....npy"):
        load_encoder(spec)


def test_a_head_is_driven_by_its_own_encoder(folder, tiny_dataset, tmp_path):
    """No option says which: the clip that it was trained on does."""
    save_wav(tmp_path / "speech.wav", noise(0.6))
    for name in (folder, "logmel"):
        encoder = load_encoder(name)
        ds = copy.copy(tiny_dataset)
        ds.encoder = json.loads(json.dumps(encoder.spec))
        head = SimpleNamespace(mouth=Mouth(len(ds), FeatureLink()))
        script = audio_script(SimpleNamespace(ds=ds, w2c=ds.w2c, head=head), tmp_path / "speech.wav")
        np.testing.assert_array_equal(script.features, encoder.features(load_audio(tmp_path / "speech.wav")))


# ---- finding a model

@pytest.mark.parametrize("name", ["lgomel", "nobody/no-model", "/no/such/folder", "a/b/c", "", "bad id/x?", "/"])
def test_an_unknown_encoder_is_explained_without_network(name, monkeypatch):
    for offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        with pytest.raises(InputError, match=f"{', '.join(BUILT_IN)}.*hf download" if name != "/" else "complete CTC"):
            load_encoder(name)


def test_a_hub_id_is_taken_from_the_local_cache(folder, tmp_path):
    """The cache's layout is the hub's own: refs name a revision, snapshots hold it."""
    cached = tmp_path / "hub" / "models--someone--speech"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / ("0" * 40)).symlink_to(folder)
    encoder = load_encoder("someone/speech")
    assert encoder.spec["model"] == "someone/speech"
    assert load_encoder(encoder.spec).spec["weights"] == load_encoder(folder).spec["weights"]


def test_a_model_that_moved_is_found_in_the_current_directory(folder, monkeypatch):
    spec = {**load_encoder(folder).spec, "model": f"/elsewhere/{folder.name}"}
    assert find_model(spec["model"]) is None
    monkeypatch.chdir(folder.parent)
    assert load_encoder(spec).steps(noise(0.1)).shape == (5, 29)


def test_without_transformers_the_command_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in (folder, "someone/speech"):
        with pytest.raises(MissingPackageError, match=r"pip install 'egstalker-nb\[asr\]'"):
            load_encoder(name)
    with pytest.raises(InputError, match="lgomel"):
        load_encoder("lgomel")


# ---- recognition

def _favour(model, number):
    model.lm_head.bias[number] += 1000


def test_letters_come_out_in_their_own_columns(tmp_path):
    """A model that writes only one token must raise that token's class, in DeepSpeech's order."""
    for token, column in (("|", 0), ("A", 1), ("Q", 17), ("Z", 26), ("'", 27), ("<pad>", 28)):
        only = functools.partial(_favour, number=UPPER.index(token))
        steps = load_encoder(save_model(tmp_path / f"only{column}", change=only)).steps(noise(0.3))
        assert (steps.argmax(axis=1) == column).all()
        np.testing.assert_allclose(steps[:, column], (0 - ctc._CENTRE) / ctc._SCALE, atol=1e-5)


def test_the_order_and_case_of_the_vocabulary_do_not_matter(folder, tmp_path):
    """The same network with shuffled, lower-case tokens gives the same features; its spec tells them apart."""
    order = np.random.default_rng(1).permutation(len(UPPER))

    def shuffle(model):
        model.lm_head.weight.copy_(model.lm_head.weight[order])
        model.lm_head.bias.copy_(model.lm_head.bias[order])

    vocabulary = [UPPER[i].lower() for i in order]
    other = load_encoder(save_model(tmp_path / "other", vocabulary, change=shuffle))
    np.testing.assert_allclose(other.steps(noise(1)), load_encoder(folder).steps(noise(1)), atol=1e-4)
    assert other.spec["tokens"] != load_encoder(folder).spec["tokens"]


def test_both_cases_of_a_letter_are_added_up_and_others_dropped():
    tokens = map_classes({"a": 1, "A": 2, "é": 3, "<s>": 4, "_": 5, **{c: i for i, c in enumerate("bcdefghijk", 6)},
                          **{c: i for i, c in enumerate("lmnopqrstuvwxyz", 16)}}, "_", 0, 31, "here")
    assert tokens[0] == [5] and tokens[1] == [1, 2] and tokens[27] == [] and tokens[28] == [0]
    assert not any({3, 4} & set(ids) for ids in tokens) and len(tokens) == len(CLASSES) == 29


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", "WavLM", "Data2VecAudio"])
def test_steps_are_centred_in_time(kind, tmp_path):
    """A click within 6 ms of 1 s changes step 50 most, so the mouth neither leads nor lags."""
    encoder = load_encoder(save_model(tmp_path / kind, kind=kind))
    quiet = noise(2, 1e-3)
    for offset in (-100, 0, 100):
        wave = quiet.copy()
        wave[16_000 + offset] = 1.0
        change = np.abs(encoder.steps(wave) - encoder.steps(quiet)).sum(axis=1)
        assert change.argmax() == 50, (offset, change.argmax())


@pytest.mark.parametrize("normalise, norm, share", [
    (False, "layer", 0.01), (True, "layer", 0.01), (True, "group", 0.08)])
def test_chunks_do_not_show(normalise, norm, share, tmp_path, monkeypatch):
    """Long audio is processed in chunks: the level is that of the whole audio, and the seams agree with one pass.

    Models of the `group` kind normalise over what they hear at once, so that pieces differ a little.
    """
    encoder = load_encoder(save_model(tmp_path / "m", normalise=normalise, feat_extract_norm=norm))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(8 * 16_000) / 16_000)
    wave = (noise(8) * syllables * np.linspace(1, 1 if norm == "group" else 0.2, 8 * 16_000)).astype(np.float32)
    whole = encoder.steps(wave)
    longest = 0
    real = ctc.CtcModel._classes

    def watched(self, samples, count):
        nonlocal longest
        longest = max(longest, count)
        return real(self, samples, count)

    monkeypatch.setattr(ctc.CtcModel, "_classes", watched)
    monkeypatch.setattr(ctc, "_CHUNK", 110)
    monkeypatch.setattr(ctc, "_CONTEXT", 30)
    pieces = encoder.steps(wave)
    assert longest <= 110 + 2 * 30 < len(whole) == 400
    assert np.abs(pieces - whole).mean(axis=1).max() < share * whole.std()


def test_loudness_does_not_matter_to_a_model_that_normalises(tmp_path):
    encoder = load_encoder(save_model(tmp_path / "m", normalise=True))
    np.testing.assert_allclose(encoder.steps(noise(1) * 0.1), encoder.steps(noise(1)), atol=1e-2)
    assert np.isfinite(encoder.steps(np.zeros(16_000, np.float32))).all()


# ---- models that cannot be used

def test_other_weights_under_the_same_name_are_refused(tmp_path):
    """A head must not be driven by a model that was trained on or replaced since."""
    spec = load_encoder(save_model(tmp_path / "m")).spec
    save_model(tmp_path / "m", change=lambda model: model.lm_head.bias[3].add_(1))
    with pytest.raises(InputError, match=f"weights {spec['weights']}.*weights '{spec['weights']}' there"):
        load_encoder(spec)


@pytest.mark.parametrize("settings, match", [
    ({"vocabulary": [*SPECIAL, *"abdefhijklmnopstuvwz", "ɡ", "ŋ"]}, "26 letters.*without c, g, q"),
    ({"sampling_rate": 8000}, "8000 Hz"),
    ({"conv_stride": (5, 2, 2, 2, 2, 2, 1)}, "step of 160 samples"),
])
def test_models_that_do_not_fit_are_named(settings, match, tmp_path):
    with pytest.raises(InputError, match=match):
        load_encoder(save_model(tmp_path / "m", **settings))


def test_a_model_that_was_only_pre_trained_is_refused(folder, tmp_path):
    """transformers would make up the missing last layer at random and go on."""
    from safetensors.torch import load_file, save_file

    other = save_model(tmp_path / "m")
    weights = load_file(other / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "lm_head" not in k}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="fine-tuned.*lm_head"):
        load_encoder(other).steps(noise(0.1))


@pytest.mark.parametrize("broken, match", [
    ("config.json", "complete CTC"), ("model.safetensors", "weights"), ("preprocessor_config.json", "complete CTC"),
    ("vocab.json", "complete CTC|26 letters")])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_an_incomplete_folder_is_named(broken, match, how, tmp_path):
    other = save_model(tmp_path / "m")
    if how == "missing":
        (other / broken).unlink()
    else:
        (other / broken).write_bytes((other / broken).read_bytes()[:40])
    with pytest.raises(InputError, match=match):
        load_encoder(other).steps(noise(0.1))
