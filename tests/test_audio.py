"""Protects the loading of audio, the features that drive the head, and the cut of both together."""

import json
import wave as wavefile

import av
import numpy as np
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.media.audio import FEATURE_CHANNELS, frames_of, load_audio, load_features, save_wav, trim
from egstalker_nb.speech.encoders import load_encoder

LOGMEL = load_encoder("logmel")
ONSET = 0.5  # seconds of silence before the tone


def tone(rate, seconds=1.5, frequency=440.0):
    """Silence, then a tone from ONSET on: float32 [samples]."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * time) * (time >= ONSET)).astype(np.float32)


def speech(seconds=2.0, seed=0):
    """Noise with syllable-like loudness and moving colour: float32 [samples] at 16 kHz."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * 16_000)
    noise = np.convolve(rng.normal(size=samples + 63), np.hanning(64) / 32, mode="valid")
    time = np.arange(samples) / 16_000
    loud = np.clip(np.sin(2 * np.pi * 3.1 * time + seed), 0.001, 1)
    return (0.2 * loud * (noise + 0.1 * rng.normal(size=samples))).astype(np.float32)


def encode(path, wave, rate, codec, layout="stereo", gains=None):
    """Write one wave into each channel, times its gain."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        channels = stream.codec_context.layout.nb_channels
        data = np.outer(gains or np.ones(channels), wave).astype(np.float32)
        for begin in range(0, data.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data[:, begin:begin + 1024]), "fltp", layout)
            frame.sample_rate, frame.pts = rate, begin
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name, codec, rate, layout", [
    ("a.wav", "pcm_s16le", 44_100, "stereo"), ("a.wav", "pcm_f32le", 48_000, "mono"),
    ("a.wav", "pcm_u8", 8000, "mono"), ("a.wav", "pcm_s24le", 96_000, "5.1"), ("a.flac", "flac", 44_100, "stereo"),
    ("a.mp3", "libmp3lame", 44_100, "stereo"), ("a.m4a", "aac", 44_100, "stereo"), ("a.ogg", "libopus", 48_000, "mono"),
    ("a.mka", "flac", 22_050, "mono")])
def test_any_format_becomes_mono_16_khz(tmp_path, name, codec, rate, layout):
    """Length, onset, pitch and level are the source's: no rate, delay, or channel mistake."""
    wave = load_audio(encode(tmp_path / name, tone(rate), rate, codec, layout))
    assert wave.dtype == np.float32 and wave.ndim == 1
    assert len(wave) == pytest.approx(1.5 * 16_000, abs=0.06 * 16_000 if codec == "libmp3lame" else 160)
    loud = np.flatnonzero(np.abs(wave) > 0.25)
    assert loud[0] / 16_000 == pytest.approx(ONSET, abs=0.005)
    steady = wave[12_000:20_000]
    assert np.abs(np.fft.rfft(steady)).argmax() * 2 == pytest.approx(440, abs=2)
    assert np.abs(steady).max() == pytest.approx(0.5, abs=0.03)


def test_equal_channels_do_not_add_up(tmp_path):
    """Beyond the original level; channels that differ: tests/test_downmix.py."""
    both = load_audio(encode(tmp_path / "both.wav", tone(16_000), 16_000, "pcm_s16le"))
    np.testing.assert_allclose(both, tone(16_000), atol=1e-4)


def test_wav_is_kept_exactly(tmp_path):
    """Saving and loading again and again must not degrade the audio; out-of-range samples are clipped."""
    path = save_wav(tmp_path / "a.wav", np.append(speech(), [1.5, -1.5]).astype(np.float32))
    once = load_audio(path)
    np.testing.assert_allclose(once[:-2], speech(), atol=0.6 / 32768)
    assert once[-2:].tolist() == [32767 / 32768, -1.0]
    save_wav(path, once)
    np.testing.assert_array_equal(load_audio(path), once)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_plain_wav_and_decoder_agree(tmp_path):
    """16 kHz mono WAVs take a way without FFmpeg: the same samples must come out."""
    path = save_wav(tmp_path / "a.wav", speech())
    np.testing.assert_array_equal(load_audio(path), load_audio(path.rename(tmp_path / "a.bin")))


def test_unusable_audio_files_are_named(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("no sound here " * 50)
    with wavefile.open(str(tmp_path / "header.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
    from egstalker_nb.media.video_writer import write_video
    write_video(tmp_path / "silent.mp4", [np.zeros((32, 32, 3), np.uint8)])
    for name, match in [("missing.wav", "no file"), ("empty.wav", "0 bytes"), ("text.mp3", "FFmpeg can read"),
                        ("header.wav", "at least one sample"), ("silent.mp4", "without an audio stream")]:
        with pytest.raises(InputError, match=match):
            load_audio(tmp_path / name)
    for wave in (np.zeros(0, np.float32), np.zeros((2, 100), np.float32), np.zeros(100, np.int16)):
        with pytest.raises(InputError, match="floats"):
            LOGMEL.features(wave)
    with pytest.raises(InputError, match="finite"):
        save_wav(tmp_path / "nan.wav", np.full(100, np.nan, np.float32))
    assert not (tmp_path / "nan.wav").exists()


@pytest.mark.parametrize("samples", [1, 319, 320, 640, 1600, 12_345])
def test_features_of_any_length(samples):
    """Shape, dtype and finite values, down to a single sample."""
    features = LOGMEL.features(speech()[2000:2000 + samples])
    assert features.shape == (max(1, int(samples / 640 + 0.5)), 16, FEATURE_CHANNELS) and features.dtype == np.float32
    assert np.isfinite(features).all()
    assert frames_of(samples) == len(features)
    with pytest.raises(InputError, match="num_frames"):
        LOGMEL.features(speech(), num_frames=0)


def test_silence_is_zero_and_a_click_stays_finite():
    """Digital silence has no logarithm and no variance."""
    silent = np.zeros(16_000, np.float32)
    assert not LOGMEL.features(silent).any()
    silent[8000] = 1.0
    assert np.abs(LOGMEL.features(silent)).max() < 20
    assert np.abs(LOGMEL.features(np.full(16_000, 0.3, np.float32))).max() < 20


def test_windows_overlap_as_documented():
    """Window i holds steps 2i-8 .. 2i+7, zeros outside: neighbours share 14 steps."""
    features = LOGMEL.features(speech())
    assert len(features) == 50
    np.testing.assert_array_equal(features[1:, :14], features[:-1, 2:])
    assert not features[0, :8].any() and features[0, 8].any()
    assert features[-1, 9].any() and not features[-1, 10:].any()
    shorter, longer = LOGMEL.features(speech(), 20), LOGMEL.features(speech(), 60)
    np.testing.assert_array_equal(shorter, features[:20])
    np.testing.assert_array_equal(longer[:50], features)
    assert not longer[-5:].any()


def test_steps_are_centred_in_time():
    """A click at 1 s is strongest in step 50, which is row 8 of window 25: no lag between audio and mouth."""
    wave = 1e-3 * np.random.default_rng(0).normal(size=32_000).astype(np.float32)
    wave[16_000] = 1.0
    features = LOGMEL.features(wave)
    assert features[25].mean(axis=1).argmax() == 8
    both = features[25].mean(axis=1)[[7, 9]]
    assert both[0] == pytest.approx(both[1], abs=0.5)


def test_bands_follow_frequency():
    """Higher tones excite higher bands: the 29 channels are a spectrum, in order."""
    noise = 1e-3 * np.random.default_rng(0).normal(size=24_000).astype(np.float32)
    tones = [tone(16_000, frequency=frequency) + noise for frequency in (150, 600, 2000, 6000)]
    best = [LOGMEL.features(wave)[25].mean(axis=0).argmax() for wave in tones]
    assert best == sorted(set(best)) and best[0] < 6 and best[-1] > 22


def test_normalisation_removes_loudness_and_timbre():
    """Each band has zero mean and unit variance, and a quieter or duller recording looks the same."""
    wave = speech(6.0)
    features = LOGMEL.features(wave)
    steps = features[4:-4, 8]
    np.testing.assert_allclose(steps.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(steps.std(axis=0), 1, atol=0.2)
    np.testing.assert_allclose(LOGMEL.features(wave * 0.1), features, atol=1e-3)
    duller = np.append(wave[0], wave[1:] - 0.5 * wave[:-1]).astype(np.float32)
    assert np.corrcoef(LOGMEL.features(duller).ravel(), features.ravel())[0, 1] > 0.98


def test_features_do_not_depend_on_the_block_size(monkeypatch):
    """Long audio is computed in blocks; the seams must not show. Repeated calls give equal bits."""
    from egstalker_nb.speech import logmel

    wave = speech(5.0)
    whole = LOGMEL.features(wave)
    np.testing.assert_array_equal(LOGMEL.features(wave), whole)
    monkeypatch.setattr(logmel, "_BLOCK", 37)
    np.testing.assert_allclose(LOGMEL.features(wave), whole, atol=1e-4)


def test_encoder_spec_describes_the_features():
    """It is stored as JSON and compared: it must survive that, and name the channels."""
    spec = LOGMEL.spec
    assert json.loads(json.dumps(spec)) == spec
    assert (spec["sample_rate"], spec["hop"], spec["bands"], spec["steps"], spec["fps"]) == (16_000, 320, 29, 16, 25)
    spec = load_encoder("logmel").spec
    spec["bands"] = 0
    assert load_encoder("logmel").spec["bands"] == 29


@pytest.mark.parametrize("make, match", [
    (lambda: np.zeros((52, 16, 29), np.float32), "50 frames.*found 52 frames"),
    (lambda: np.zeros((48, 16, 29), np.float32), "50 frames.*found 48 frames"),
    (lambda: np.zeros((50, 29, 16), np.float32), r"\[num_frames, 16, 29\].*\[50, 29, 16\]"),
    (lambda: np.zeros((0, 16, 29), np.float32), "num_frames"),
    (lambda: np.zeros((50, 16, 29), np.int16), "int16"),
    (lambda: np.where(np.arange(50)[:, None, None] == 7, np.nan, np.zeros((50, 16, 29))), "from entry 7 on"),
    (lambda: np.array([{"a": 1}], dtype=object), "Python objects"),
])
def test_unusable_features_are_named(tmp_path, make, match):
    """The upstream contract [N, 16, 29] with its audio; never unpickles."""
    np.save(tmp_path / "a.npy", make(), allow_pickle=True)
    with pytest.raises(InputError, match=match):
        load_features(tmp_path / "a.npy", speech())


def test_features_within_a_frame_of_the_audio_are_accepted(tmp_path):
    """Upstream's counts are off by one at times; float64 and float16 are converted."""
    for count, dtype in ((49, np.float64), (50, np.float16), (51, np.float32)):
        np.save(tmp_path / "a.npy", np.ones((count, 16, 29), dtype))
        features = load_features(tmp_path / "a.npy", speech())
        assert features.shape == (count, 16, 29) and features.dtype == np.float32
    (tmp_path / "b.npy").write_text("text")
    for name, match in (("b.npy", "no .npy file"), ("c.npy", "no file")):
        with pytest.raises(InputError, match=match):
            load_features(tmp_path / name, speech())


@pytest.fixture
def pair(tmp_path):
    """Audio of 10.02 s (250.5 frames), saved with its features."""
    wave = speech(10.02)
    np.save(tmp_path / "in.npy", LOGMEL.features(wave))
    return save_wav(tmp_path / "in.wav", wave), tmp_path / "in.npy"


@pytest.mark.parametrize("start, duration, first, last", [
    (0, 5, 0, 125), (1.0, 2.0, 25, 75), (3.337, 1.111, 83, 111), (1.19, 0.99, 30, 55),
    (9.96, 0.08, 249, 251), (0, 0.04, 0, 1)])
def test_trim_cuts_audio_and_features_at_the_same_frames(pair, tmp_path, start, duration, first, last):
    """The share-of-length rule of the past cut features and audio apart; here both count in frames."""
    wav, npy = trim(*pair, start, duration, tmp_path / "cut.v1")
    assert (wav.name, npy.name) == ("cut.v1.wav", "cut.v1.npy")
    np.testing.assert_array_equal(np.load(npy), np.load(pair[1])[first:last])
    sound = load_audio(wav)
    assert len(sound) == (last - first) * 640
    source = load_audio(pair[0])[first * 640:last * 640]
    np.testing.assert_array_equal(sound[:len(source)], source)
    assert not sound[len(source):].any()
    load_features(npy, sound)


def test_pieces_join_to_the_whole(pair, tmp_path):
    """Cutting at odd times piece by piece loses and repeats nothing."""
    sounds, windows = [], []
    for index in range(9):
        wav, npy = trim(*pair, index * 1.08, 1.08, tmp_path / f"piece{index}.wav")
        sounds.append(load_audio(wav))
        windows.append(np.load(npy))
    np.testing.assert_array_equal(np.concatenate(sounds), load_audio(pair[0])[:9 * 27 * 640])
    np.testing.assert_array_equal(np.concatenate(windows), np.load(pair[1])[:243])


@pytest.mark.parametrize("seed", range(6))
def test_features_a_frame_short_or_long_do_not_drift(tmp_path, seed):
    """Extractors leave one frame out or add one. Cut anywhere in a clip of any length, the frames are the same as
    without it: a share of the array's length would be off by a frame towards the end."""
    rng = np.random.default_rng(seed)
    total = int(rng.integers(60, 400))
    wave = speech((total + rng.uniform(-0.4, 0.4)) / 25)
    wav = save_wav(tmp_path / "in.wav", wave)
    first = int(rng.integers(0, total - 10))
    last = int(rng.integers(first + 1, total))
    for more in (-1, 0, 1):
        number = np.arange(total + more, dtype=np.float32)
        np.save(tmp_path / "in.npy", np.broadcast_to(number[:, None, None], (total + more, 16, 29)))
        cut, npy = trim(wav, tmp_path / "in.npy", first / 25, (last - first) / 25, tmp_path / "cut")
        np.testing.assert_array_equal(np.load(npy)[:, 0, 0], np.arange(first, last))
        np.testing.assert_array_equal(load_audio(cut), load_audio(wav)[first * 640:last * 640])


@pytest.mark.parametrize("start, duration, match", [
    (-1, 2, "start=-1"), (0, 0, "duration=0"), (0, 0.01, "one frame"),
    (9, 2, r"10\.04 s \(251 frames\).*frames 225 to 275"),
    (11, 1, "within the audio's"), (float("nan"), 1, "start=nan"), (0, float("inf"), "duration=inf")])
def test_trim_refuses_ranges_outside(pair, tmp_path, start, duration, match):
    with pytest.raises(InputError, match=match):
        trim(*pair, start, duration, tmp_path / "cut")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npy", "in.wav"]


def test_trim_refuses_pairs_that_do_not_fit_and_never_overwrites_its_input(pair, tmp_path):
    np.save(tmp_path / "short.npy", np.load(pair[1])[:200])
    with pytest.raises(InputError, match="251 frames.*found 200"):
        trim(pair[0], tmp_path / "short.npy", 0, 1, tmp_path / "cut")
    with pytest.raises(InputError, match="apart from the inputs"):
        trim(*pair, 0, 1, tmp_path / "in.wav")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npy", "in.wav", "short.npy"]
