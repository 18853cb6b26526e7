"""Protects: live frames come as soon as their audio is in, however it is cut, and match those of the whole audio."""
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

import egstalker_nb as egs
from egstalker_nb.core.errors import InputError
from egstalker_nb.core.progress import Progress
from egstalker_nb.media.audio import frames_of, load_audio
from egstalker_nb.media.live_audio import mono_16khz
from egstalker_nb.rendering import motion, streaming
from egstalker_nb.rendering.live_motion import LiveMotion
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.rendering.streaming import LOOK_AHEAD, MIN_LOOK_AHEAD, LiveFeatures
from egstalker_nb.speech.encoders import load_encoder
from egstalker_nb.speech.phones import CLASSES, OPENNESS
from egstalker_nb.speech.voice_activity import shut_in_silence

CFG = dict(iterations=30, coarse_iterations=10, batch_size=2, plane_resolution=[8, 16])
OPEN = np.array([OPENNESS[name] for name in CLASSES])


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), folder, device="cpu")


@pytest.fixture(scope="module")
def speech():
    """Whole frames of some 6 s of synthesised speech, with pauses."""
    wave = load_audio(Path(__file__).parent / "data" / "speech.flac")[:96_000]
    return wave[:len(wave) // 640 * 640]


def chopped(wave, *lengths):
    """The wave in chunks of these lengths, over and over."""
    at, turn = 0, 0
    while at < len(wave):
        yield wave[at:at + lengths[turn % len(lengths)]]
        at, turn = at + lengths[turn % len(lengths)], turn + 1


def pushed(wave, reference, *lengths):
    """Live features of chunks [F, 16, 29], and silence [F]."""
    live_features = LiveFeatures(reference)
    found = [x for chunk in chopped(wave, *lengths) for x in live_features.push(chunk)] + list(live_features.finish())
    return np.stack([window for window, _ in found]), np.array([silent for _, silent in found])


@pytest.mark.parametrize("samples", [1, 319, 640, 3199, 3200, 3201, 3839, 3840, 20_900, 21_000])
def test_there_are_as_many_frames_as_the_audio_is_long(tiny_dataset, speech, samples):
    wave, reference = speech[:samples], tiny_dataset.audio()
    for lengths in ((samples,), (640,), (1, 0, 777, 160)):
        windows, silent = pushed(wave, reference, *lengths)
        assert len(windows) == len(silent) == frames_of(samples)
        assert np.isfinite(windows).all() and (silent >= 0).all() and (silent <= 1).all()


def test_no_audio_gives_no_frames(run):
    assert list(egs.stream(run, [], device="cpu")) == []
    assert list(egs.stream(run, [np.zeros(0, np.float32)], device="cpu")) == []


def test_chunks_do_not_change_features_and_frames(run, tiny_dataset, speech):
    wave, reference = speech[8000:20_345], tiny_dataset.audio()
    whole = pushed(wave, reference, len(wave))
    for lengths in ((1,), (640,), (16_000,), (77, 4001, 3)):
        for a, b in zip(whole, pushed(wave, reference, *lengths)):
            np.testing.assert_array_equal(a, b)
    one, other = (list(egs.stream(run, chunks, blink=20, device="cpu")) for chunks in ([wave], chopped(wave, 160, 999)))
    assert one[0].shape == (64, 64, 3) and one[0].dtype == np.uint8 and len(one) == frames_of(len(wave))
    np.testing.assert_array_equal(one, other)


def test_frames_come_as_soon_as_their_look_ahead(run, speech):
    given = []

    def microphone():
        for chunk in chopped(speech, 160):
            given.append(len(chunk))
            yield chunk

    frames = egs.stream(run, microphone(), device="cpu")
    assert not given, "loading takes no audio"
    for i in range(20):
        next(frames)
        assert sum(given) == i * 640 + LOOK_AHEAD * 16_000
    assert LOOK_AHEAD <= 0.2


def test_after_adaptation_features_are_those_of_the_whole_audio(tiny_dataset, speech):
    """The audio of the tiny clip, from which the statistics start, is a tone of 150 Hz."""
    wave = np.tile(speech, 2)
    windows, silent = pushed(wave, tiny_dataset.audio(), 640)
    offline = load_encoder("phones").features(wave)
    opened = [(x[:, 8] ** 2 @ OPEN)[25:] for x in (windows, offline)]
    assert np.corrcoef(opened)[0, 1] > 0.95
    assert np.abs(windows - offline)[100:].mean() < 0.02
    assert np.abs(silent - shut_in_silence(wave, len(wave) // 640))[25:].mean() < 0.02
    np.testing.assert_array_equal(windows[-3:] == 0, offline[-3:] == 0, "padding at the end of the audio")


@pytest.mark.slow
def test_a_noisy_pause_is_silence_and_does_not_change_the_statistics(tiny_dataset, speech):
    noise = (0.0015 * np.random.default_rng(0).standard_normal(12 * 16_000)).astype(np.float32)
    loud = 0.15 * speech / speech.std()
    wave = np.concatenate([noise[:16_000], loud, noise, loud])
    windows, silent = pushed(wave, loud, 640)
    first, second, length = 25, 25 + frames_of(len(speech)) + 300, frames_of(len(speech))
    assert silent[:20].min() > 0.99, "a stream that begins with background noise"
    assert silent[second - 290:second - 10].min() > 0.99
    offline = shut_in_silence(wave, len(silent))
    assert np.abs(silent - offline)[second - 20:second + 10].max() < 0.2, "the mouth opens before the first word"
    opened = [(windows[begin + 5:begin + length - 10, 8] ** 2 @ OPEN) for begin in (first, second)]
    assert np.corrcoef(opened)[0, 1] > 0.95, "the same speech before and after the pause"


def test_a_voice_much_quieter_than_the_clip_soon_moves_the_mouth(tiny_dataset, speech):
    """20 dB quieter, as from a distant microphone."""
    wave = np.tile(speech, 2)
    quiet, silent = pushed(0.1 * wave, speech, 640)
    offline = load_encoder("phones").features(0.1 * wave)
    opened = [(x[:, 8] ** 2 @ OPEN)[50:] for x in (quiet, offline)]
    assert np.corrcoef(opened)[0, 1] > 0.95


@pytest.mark.slow
def test_memory_does_not_grow(tiny_dataset, stand_in, monkeypatch):
    """Three minutes, with the slow parts replaced: the buffers, of ten seconds, have the same size throughout."""
    from egstalker_nb.speech import phones

    class Silence:
        def __call__(self, x):
            return torch.zeros(1, x.shape[1] // 2, 29)

    monkeypatch.setattr(streaming, "network", Silence)
    monkeypatch.setattr(streaming, "log_power", lambda wave: torch.zeros(2 * -(-len(wave) // 320), phones.BANDS))
    statistics = streaming.SpeakerStatistics
    monkeypatch.setattr(statistics, "_measure", lambda self: None)
    monkeypatch.setattr(statistics, "level_and_mean", (torch.zeros(()), torch.zeros(40)), raising=False)
    monkeypatch.setattr(statistics, "loudness", -20.0, raising=False)
    live_features, live_motion = LiveFeatures(tiny_dataset.audio()), LiveMotion(stand_in, "cycle", 17)
    second_of_audio, sizes, frames = np.full(16_000, 0.1, np.float32), [], 0
    for second in range(180):
        for given in live_features.push(second_of_audio):
            live_motion.script(frames, *given)
            frames += 1
        if second % 20 == 19:
            sizes.append(len(pickle.dumps((live_features, live_motion))))
    assert frames == 180 * 25 - 5 + 1
    assert max(sizes) < 1.01 * min(sizes) < 2e6


def test_frames_are_those_of_render_for_the_same_features(run, speech, tmp_path, monkeypatch):
    from egstalker_nb.media.audio import save_wav

    wave = speech[:20_480]
    save_wav(tmp_path / "s.wav", wave)
    renderer = Renderer.from_run(run, device="cpu")
    script = audio_script(renderer, tmp_path / "s.wav")
    monkeypatch.setattr(LiveFeatures, "push", lambda self, samples: iter([(script.features[0], script.silent[0])]))
    monkeypatch.setattr(LiveFeatures, "finish", lambda self: zip(script.features[1:], script.silent[1:]))
    live = np.stack(list(egs.stream(run, [wave], device="cpu"))).astype(int)
    whole = np.stack(list(renderer.frames(script, 8, Progress(32, "x")))).astype(int)
    assert live.shape == whole.shape and np.abs(live - whole).max() <= 1


@pytest.mark.parametrize("poses", ["cycle", "static", "orbit", "dataset", "array"])
def test_endless_motion_is_that_of_a_known_length(stand_in, poses):
    ds, count = stand_in.ds, 230
    given = {"dataset": ds.root, "array": stand_in.w2c[np.arange(count) % 12]}.get(poses, poses)
    live_motion = LiveMotion(stand_in, given, "dataset")
    scripts = [live_motion.script(i, np.zeros((16, 29), np.float32), 0.5) for i in range(count)]
    source, w2c, pose = motion.head_motion(stand_in, given, count)
    for name, wanted in (("w2c", w2c), ("pose", pose), ("eyes", motion.eye_motion(ds, "dataset", count))):
        np.testing.assert_allclose(np.concatenate([getattr(s, name) for s in scripts]), wanted, atol=1e-5)
    assert (source is None) == (scripts[0].source is None)
    assert source is None or (np.concatenate([s.source for s in scripts]) == source).all()


def test_arrays_hold_their_last_row(stand_in):
    ds, nothing = stand_in.ds, np.zeros((16, 29), np.float32)
    live_motion = LiveMotion(stand_in, stand_in.w2c[:3], np.array([0.1, 0.2, 0.7]))
    scripts = [live_motion.script(i, nothing, 0.0) for i in range(40)]
    known = motion.eye_motion(ds, np.array([0.1, 0.2, 0.7] + 37 * [0.7]), 40)
    np.testing.assert_allclose(np.concatenate([s.eyes for s in scripts]), known, atol=1e-6)
    assert all((s.w2c[0] == stand_in.w2c[min(i, 2)]).all() for i, s in enumerate(scripts))


def test_random_blinks_keep_their_rate_and_never_repeat(stand_in):
    ds, live_motion = stand_in.ds, LiveMotion(stand_in, "static", 17)
    nothing = np.zeros((16, 29), np.float32)
    eyelids = np.array([live_motion.script(i, nothing, 0.0).eyes[0, 0] for i in range(10 * 60 * 25)])
    top = ds.eyes[:ds.num_train, 0].max()
    closed = eyelids > top - 0.05
    onsets = np.flatnonzero(closed[1:] & ~closed[:-1])
    assert 130 < len(onsets) < 210
    gaps = np.diff(onsets)
    middle = len(gaps) // 2
    assert not any((gaps[:20] == gaps[k:k + 20]).all() for k in range(1, middle))
    still = LiveMotion(stand_in, "static", 0)
    assert max(still.script(i, nothing, 0.0).eyes[0, 0] for i in range(50)) < top


# ---- rates, channels and integers

def resampled(rate, wave):
    """A 16 kHz wave at another rate."""
    return soxr.resample(wave, 16_000, rate).astype(np.float32)


def live(wave, reference, *lengths, rate=16_000):
    """Live features [F, 16, 29] and silence [F] of chunks at this rate."""
    found = list(streaming._frame_features(LiveFeatures(reference), mono_16khz(chopped(wave, *lengths), rate)))
    return np.stack([window for window, _ in found]), np.array([silent for _, silent in found])


@pytest.mark.parametrize("rate, agree", [(48_000, 0.995), (44_100, 0.995), (96_000, 0.995), (8000, 0.9)])
def test_any_rate_gives_the_features_of_16_khz(tiny_dataset, speech, rate, agree):
    """48 kHz taken for 16 kHz would give three times the frames. 8 kHz lacks everything above 4 kHz."""
    wave, reference = speech[:48_000], tiny_dataset.audio()
    windows, silent = live(resampled(rate, wave), reference, rate // 100, rate=rate)
    known, known_silent = live(wave, reference, 160)
    assert len(windows) == len(silent) == frames_of(len(wave)) == 75
    opened = [(x[:, 8] ** 2 @ OPEN)[5:] for x in (windows, known)]
    assert np.corrcoef(opened)[0, 1] > agree
    assert np.abs(silent - known_silent).mean() < 0.02


@pytest.mark.parametrize("look_ahead", [MIN_LOOK_AHEAD, 0.165, LOOK_AHEAD])
def test_left_out_frames_do_not_change_the_others(tiny_dataset, speech, look_ahead):
    """A machine that is too slow for every frame shows the same ones, in the same place, for less work."""
    wave, reference = speech[:24_000], tiny_dataset.audio()
    live_features = LiveFeatures(reference, look_ahead)
    whole = list(live_features.push(wave))
    assert len(whole) == (len(wave) - round(look_ahead * 16_000)) // 640 + 1 and live_features.due == 0
    some, taken, rng = LiveFeatures(reference, look_ahead), 0, np.random.default_rng(0)
    for chunk in chopped(wave, 1000, 37):
        some.append(chunk)
        while some.due:
            number = some.frame
            if rng.random() < 0.6:
                some.skip()
                assert some.frame == number + 1
                continue
            taken += 1
            features, silent = some.next()
            np.testing.assert_array_equal(features, whole[number][0])
            assert silent == whole[number][1]
    assert some.frame == len(whole) and 5 < taken < len(whole)


@pytest.mark.parametrize("rate", [48_000, 44_100, 8000, 47_999])
def test_chunks_do_not_change_the_features_at_any_rate(tiny_dataset, speech, rate):
    wave, reference = resampled(rate, speech[8000:24_345]), tiny_dataset.audio()
    whole = live(wave, reference, len(wave), rate=rate)
    assert len(whole[0]) == frames_of(16_345)
    for lengths in ((rate // 50,), (1, 0, 777, 160), (16_000,), (77, 4001, 3)):
        for a, b in zip(whole, live(wave, reference, *lengths, rate=rate)):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seconds", [0.05, 1, 1.03, 2.51])
@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100, 48_000, 96_000, 384_000])
def test_one_second_is_25_frames_at_any_rate(rate, seconds, tiny_dataset, monkeypatch):
    monkeypatch.setattr(LiveFeatures, "_next", lambda self, until, ended: setattr(self, "frame", self.frame + 1))
    chunks = chopped(np.zeros(round(rate * seconds), np.int16), 1000)
    frames = list(streaming._frame_features(LiveFeatures(tiny_dataset.audio()), mono_16khz(chunks, rate)))
    assert len(frames) == frames_of(round(16_000 * seconds))


def test_resampling_delays_frames_little(speech):
    """At most 120 ms later, 40 ms at the sample rates of microphones."""
    for rate, most in ((8000, 0.12), (44_100, 0.041), (48_000, 0.04), (96_000, 0.08)):
        given = came = late = 0
        for samples in mono_16khz(chopped(resampled(rate, speech), rate // 100), rate):
            given, came = given + rate // 100, came + len(samples)
            late = max(late, given / rate - 0.01 - came / 16_000)
            if given > rate:
                break
        assert late <= most


def test_integers_and_channels_are_converted(speech):
    wave = np.rint(32768 * speech[:3000]).astype(np.int16)
    floats = wave.astype(np.float32) / 32768
    other = np.roll(floats, 40)
    for chunk, expected in [(wave, floats), (wave.astype(np.int32) << 16, floats), (wave.astype(">i2"), floats),
                            (floats.astype(np.float64), floats), (floats[:, None], floats),
                            (np.stack([wave, wave], 1), floats), (np.stack([floats, other], 1), (floats + other) / 2),
                            (np.zeros((0, 2), np.int16), floats[:0])]:
        wave_16khz, = mono_16khz([chunk], 16_000)
        assert wave_16khz.dtype == np.float32
        np.testing.assert_allclose(wave_16khz, expected, atol=1e-7)


def test_a_microphone_of_48_khz_stereo_drives_the_head(run, speech):
    given = np.rint(32767 * np.repeat(resampled(48_000, speech[8000:24_000])[:, None], 2, 1)).astype(np.int16)
    frames = np.stack(list(egs.stream(run, chopped(given, 480), device="cpu", sample_rate=48_000))).astype(int)
    known = np.stack(list(egs.stream(run, chopped(speech[8000:24_000], 160), device="cpu"))).astype(int)
    assert frames.shape == known.shape == (25, 64, 64, 3)
    assert np.abs(frames - known).mean() < 0.5


@pytest.mark.parametrize("rate", [0, -16_000, 100, 1e9, np.nan, np.inf, None, "48000", True])
def test_impossible_rates_are_refused_at_once(run, speech, rate):
    with pytest.raises(InputError, match="sample_rate.*8000 to 384000"):
        egs.stream(run, [speech], sample_rate=rate, device="cpu")


# ---- inaudible audio

def warned(run, chunks, **kwargs):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        count = sum(1 for _ in egs.stream(run, chunks, device="cpu", **kwargs))
    return count, [str(w.message) for w in seen if "heard" in str(w.message)]


def test_a_silent_stream_is_pointed_out_once(run, speech, monkeypatch):
    hush = (1e-4 * np.random.default_rng(0).normal(size=16_000)).astype(np.float32)
    monkeypatch.setattr(streaming, "NOTE_FRAMES", 10)
    for chunks in ([hush], [np.zeros(6400, np.int16)], chopped(hush, 100)):
        count, notes = warned(run, chunks)
        assert len(notes) == 1 and "mouth stays shut" in notes[0] and count >= 10
    assert not warned(run, [speech[8000:16_000]])[1]
    assert not warned(run, [np.zeros(4000, np.float32), speech[8000:12_000]])[1], "silence before speech"
    assert not warned(run, [])[1]
    _, notes = warned(run, [hush, speech[8000:16_000]])
    assert len(notes) == 1 and "first" in notes[0], "early enough to switch the microphone on"


def test_a_silent_file_is_pointed_out(run, speech, tmp_path):
    from egstalker_nb.media.audio import save_wav

    renderer = Renderer.from_run(run, device="cpu")
    silent = save_wav(tmp_path / "silent.wav", np.zeros(16_000, np.float32))
    with pytest.warns(UserWarning, match="Nothing can be heard in '.*silent.wav'.*mouth stays shut"):
        audio_script(renderer, silent)
    late = save_wav(tmp_path / "late.wav", np.concatenate([np.zeros(16_000, np.float32), speech[8000:24_000]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio_script(renderer, late)
        audio_script(renderer, late, duration=0.6)  # all of it before the speech


@pytest.mark.parametrize("wrong, words", [
    (np.zeros(50, np.uint8), "chunk 1 .*uint8.*16-bit"), (np.zeros(50, np.int64), "chunk 1 .*int64"),
    (np.zeros(50, bool), "chunk 1 .*bool"), (np.zeros(50, complex), "chunk 1 .*complex"),
    (np.zeros((2, 50), np.float32), r"chunk 1 .*float32 \[2, 50\].*chunk.T"),
    (np.zeros((50, 0), np.float32), "chunk 1"), (np.zeros((5, 2, 1), np.float32), "chunk 1"),
    (np.float32(0.5), "chunk 1 .*whole recording as"),
    (np.array([0.0, np.nan], np.float32), "chunk 1 .*finite.*NaN"), ("sound", "chunk 1 "),
    ([[0.1], [0.1, 0.2]], "chunk 1 ")])
def test_a_chunk_that_is_not_audio_is_named(run, speech, wrong, words):
    frames = egs.stream(run, [speech[:6400], wrong], device="cpu")
    for _ in range(6):
        next(frames)  # of the chunk before it
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
