"""Protects: frames come as soon as their sound is there, whatever the chunks, and show what the whole sound would."""
import pickle

import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb import control, streaming
from egstalker_nb.audio import frames_of, load_audio
from egstalker_nb.encoders import load_encoder
from egstalker_nb.errors import InputError
from egstalker_nb.mouth import shut_in_silence
from egstalker_nb.phones import CLASSES, OPENNESS
from egstalker_nb.progress import Progress
from egstalker_nb.rendering import Renderer, audio_script
from egstalker_nb.streaming import LOOK_AHEAD, Listener, Motion

CFG = dict(iterations=30, coarse_iterations=10, batch_size=2, plane_resolution=[8, 16])
OPEN = np.array([OPENNESS[name] for name in CLASSES])


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), folder, device="cpu")


@pytest.fixture(scope="module")
def speech():
    """Whole frames of some 6 s of synthesised speech, with pauses."""
    from conftest import ROOT

    wave = load_audio(ROOT / "tests" / "data" / "speech.flac")[:96_000]
    return wave[:len(wave) // 640 * 640]


def chopped(wave, *lengths):
    """The wave in chunks of these lengths, over and over."""
    at, turn = 0, 0
    while at < len(wave):
        yield wave[at:at + lengths[turn % len(lengths)]]
        at, turn = at + lengths[turn % len(lengths)], turn + 1


def heard(wave, familiar, *lengths):
    """What a listener makes of chunks: [F, 16, 29] and silence [F]."""
    listener = Listener(familiar)
    found = [x for chunk in chopped(wave, *lengths) for x in listener.hear(chunk)] + list(listener.finish())
    return np.stack([window for window, _ in found]), np.array([silent for _, silent in found])


@pytest.mark.parametrize("samples", [1, 319, 640, 3199, 3200, 3201, 3839, 3840, 20_900, 21_000])
def test_there_are_as_many_frames_as_the_sound_lasts(tiny_dataset, speech, samples):
    wave, sound = speech[:samples], tiny_dataset.audio()
    for lengths in ((samples,), (640,), (1, 0, 777, 160)):
        windows, silent = heard(wave, sound, *lengths)
        assert len(windows) == len(silent) == frames_of(samples)
        assert np.isfinite(windows).all() and (silent >= 0).all() and (silent <= 1).all()


def test_no_sound_has_no_frames(run):
    assert list(egs.stream(run, [], device="cpu")) == []
    assert list(egs.stream(run, [np.zeros(0, np.float32)], device="cpu")) == []


def test_chunks_do_not_change_what_is_heard_and_seen(run, tiny_dataset, speech):
    wave, sound = speech[8000:20_345], tiny_dataset.audio()
    whole = heard(wave, sound, len(wave))
    for lengths in ((1,), (640,), (16_000,), (77, 4001, 3)):
        for a, b in zip(whole, heard(wave, sound, *lengths)):
            np.testing.assert_array_equal(a, b)
    one, other = (list(egs.stream(run, chunks, blink=20, device="cpu")) for chunks in ([wave], chopped(wave, 160, 999)))
    assert one[0].shape == (64, 64, 3) and one[0].dtype == np.uint8 and len(one) == frames_of(len(wave))
    np.testing.assert_array_equal(one, other)


def test_frames_come_as_soon_as_their_sound_and_the_look_ahead(run, speech):
    given = []

    def microphone():
        for chunk in chopped(speech, 160):
            given.append(len(chunk))
            yield chunk

    frames = egs.stream(run, microphone(), device="cpu")
    assert not given, "loading waits for nothing"
    for i in range(20):
        next(frames)
        assert sum(given) == i * 640 + LOOK_AHEAD * 16_000
    assert LOOK_AHEAD <= 0.2


def test_once_a_voice_is_known_it_is_heard_as_in_the_whole_sound(tiny_dataset, speech):
    """The voice of the clip at hand is a hum of 150 Hz."""
    wave = np.tile(speech, 2)
    windows, silent = heard(wave, tiny_dataset.audio(), 640)
    offline = load_encoder("phones").features(wave)
    opened = [(x[:, 8] ** 2 @ OPEN)[25:] for x in (windows, offline)]
    assert np.corrcoef(opened)[0, 1] > 0.95
    assert np.abs(windows - offline)[100:].mean() < 0.02
    assert np.abs(silent - shut_in_silence(wave, len(wave) // 640))[25:].mean() < 0.02
    np.testing.assert_array_equal(windows[-3:] == 0, offline[-3:] == 0, "the end of the sound is heard as such")


def test_a_pause_with_noise_is_silence_and_does_not_change_the_voice(tiny_dataset, speech):
    noise = (0.0015 * np.random.default_rng(0).standard_normal(20 * 16_000)).astype(np.float32)
    loud = 0.15 * speech / speech.std()
    wave = np.concatenate([noise[:16_000], loud, noise, loud])
    windows, silent = heard(wave, loud, 640)
    first, second, length = 25, 25 + frames_of(len(speech)) + 500, frames_of(len(speech))
    assert silent[:20].min() > 0.99, "a stream that begins with a quiet room"
    assert silent[second - 490:second - 10].min() > 0.99
    offline = shut_in_silence(wave, len(silent))
    assert np.abs(silent - offline)[second - 20:second + 10].max() < 0.2, "the mouth opens before the first word"
    opened = [(windows[begin + 5:begin + length - 10, 8] ** 2 @ OPEN) for begin in (first, second)]
    assert np.corrcoef(opened)[0, 1] > 0.95, "what was said before the pause, said again"


def test_a_voice_much_quieter_than_the_clip_soon_moves_the_mouth(tiny_dataset, speech):
    """20 dB below it, as from a distant microphone."""
    wave = np.tile(speech, 2)
    quiet, silent = heard(0.1 * wave, speech, 640)
    offline = load_encoder("phones").features(0.1 * wave)
    opened = [(x[:, 8] ** 2 @ OPEN)[50:] for x in (quiet, offline)]
    assert np.corrcoef(opened)[0, 1] > 0.95


def test_memory_does_not_grow(tiny_dataset, monkeypatch):
    """Ten minutes, with the slow parts replaced: what is kept has the same size throughout."""
    from egstalker_nb import phones

    class Deaf:
        def __call__(self, x):
            return torch.zeros(1, x.shape[1] // 2, 29)

    monkeypatch.setattr(streaming, "network", Deaf)
    monkeypatch.setattr(streaming, "log_power", lambda wave: torch.zeros(2 * -(-len(wave) // 320), phones.BANDS))
    monkeypatch.setattr(streaming.Voice, "_measure", lambda self: None)
    monkeypatch.setattr(streaming.Voice, "level_and_mean", (torch.zeros(()), torch.zeros(40)), raising=False)
    monkeypatch.setattr(streaming.Voice, "loudness", -20.0, raising=False)
    listener, motion = Listener(tiny_dataset.audio()), Motion(tiny_dataset, "cycle", 17)
    sound, sizes, frames = np.full(16_000, 0.1, np.float32), [], 0
    for second in range(600):
        for given in listener.hear(sound):
            motion.script(frames, *given)
            frames += 1
        if second % 60 == 59:
            sizes.append(len(pickle.dumps((listener, motion))))
    assert frames == 600 * 25 - 5 + 1
    assert max(sizes) < 1.01 * min(sizes) < 2e6


def test_pictures_are_those_of_render_where_the_same_is_heard(run, speech, tmp_path, monkeypatch):
    from egstalker_nb.audio import save_wav

    wave = speech[:20_480]
    save_wav(tmp_path / "s.wav", wave)
    script = audio_script(run, tmp_path / "s.wav")
    monkeypatch.setattr(Listener, "hear", lambda self, samples: iter([(script.features[0], script.silent[0])]))
    monkeypatch.setattr(Listener, "finish", lambda self: zip(script.features[1:], script.silent[1:]))
    live = np.stack(list(egs.stream(run, [wave], device="cpu"))).astype(int)
    renderer = Renderer(run.load_head(device="cpu"), run.dataset)
    whole = np.stack(list(renderer.pictures(script, 8, Progress(32, "x")))).astype(int)
    assert live.shape == whole.shape and np.abs(live - whole).max() <= 1


@pytest.mark.parametrize("poses", ["cycle", "static", "orbit", "dataset", "array"])
def test_motion_without_an_end_is_that_of_a_known_length(tiny_dataset, poses):
    ds, count = tiny_dataset, 230
    given = {"dataset": ds.root, "array": ds.w2c[np.arange(count) % 12]}.get(poses, poses)
    motion = Motion(ds, given, "dataset")
    scripts = [motion.script(i, np.zeros((16, 29), np.float32), 0.5) for i in range(count)]
    source, w2c, pose = control.head_motion(ds, given, count)
    for name, wanted in (("w2c", w2c), ("pose", pose), ("eyes", control.eye_motion(ds, "dataset", count))):
        np.testing.assert_allclose(np.concatenate([getattr(s, name) for s in scripts]), wanted, atol=1e-5)
    assert (source is None) == (scripts[0].source is None)
    assert source is None or (np.concatenate([s.source for s in scripts]) == source).all()


def test_arrays_hold_their_last_row(tiny_dataset):
    ds, nothing = tiny_dataset, np.zeros((16, 29), np.float32)
    motion = Motion(ds, ds.w2c[:3], np.array([0.1, 0.2, 0.7]))
    scripts = [motion.script(i, nothing, 0.0) for i in range(40)]
    known = control.eye_motion(ds, np.array([0.1, 0.2, 0.7] + 37 * [0.7]), 40)
    np.testing.assert_allclose(np.concatenate([s.eyes for s in scripts]), known, atol=1e-6)
    assert all((s.w2c[0] == ds.w2c[min(i, 2)]).all() for i, s in enumerate(scripts))


def test_drawn_blinks_keep_their_rate_and_never_repeat(tiny_dataset):
    motion = Motion(tiny_dataset, "static", 17)
    nothing = np.zeros((16, 29), np.float32)
    lids = np.array([motion.script(i, nothing, 0.0).eyes[0, 0] for i in range(10 * 60 * 25)])
    top = tiny_dataset.eyes[:tiny_dataset.num_train, 0].max()
    shut = lids > top - 0.05
    onsets = np.flatnonzero(shut[1:] & ~shut[:-1])
    assert 130 < len(onsets) < 210
    gaps = np.diff(onsets)
    middle = len(gaps) // 2
    assert not any((gaps[:20] == gaps[k:k + 20]).all() for k in range(1, middle))
    still = Motion(tiny_dataset, "static", 0)
    assert max(still.script(i, nothing, 0.0).eyes[0, 0] for i in range(50)) < top


@pytest.mark.parametrize("wrong, words", [
    ((np.zeros(50) * 32768).astype(np.int16), "chunk 1 .*int16.*32768"),
    (np.zeros((2, 50), np.float32), r"chunk 1 .*float32 \[2, 50\]"), (np.float32(0.5), "chunk 1 .*whole sound as"),
    (np.array([0.0, np.nan], np.float32), "chunk 1 .*finite.*NaN"), ("sound", "chunk 1 "),
    ([[0.1], [0.1, 0.2]], "chunk 1 ")])
def test_a_chunk_that_is_no_sound_is_named(run, speech, wrong, words):
    frames = egs.stream(run, [speech[:6400], wrong], device="cpu")
    for _ in range(6):
        next(frames)  # the chunk before it is shown
    with pytest.raises(InputError, match=words):
        next(frames)


@pytest.mark.parametrize("wrong, words", [
    (dict(chunks=3), "iterable"), (dict(poses="spin"), "cycle"), (dict(poses=np.zeros((0, 4, 4))), "F >= 1"),
    (dict(blink=99), "60"), (dict(blink=np.zeros(0)), "F >= 1"), (dict(blink="no.npy"), "npy")])
def test_wrong_choices_are_refused_at_once(run, speech, wrong, words):
    with pytest.raises(InputError, match=words):
        egs.stream(run, **{"chunks": [speech], "device": "cpu", **wrong})


def test_another_encoder_cannot_stream(run, speech):
    for spec in ({"name": "external"}, load_encoder("logmel").spec):
        other = egs.Run(run.root, run.config, {**run.manifest, "encoder": spec})
        with pytest.raises(InputError, match=f"'{spec['name']}'.*phones"):
            egs.stream(other, [speech], device="cpu")
