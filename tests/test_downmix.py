"""Protects: a voice reaches the head whatever the channels and tracks it is in, and plain stereo stays its mean."""
import warnings
import wave as wavefile
from pathlib import Path

import av
import numpy as np
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.media.audio import load_audio, save_wav

RNG = np.random.default_rng(0)
TIME = np.arange(64_000) / 16_000
NOISE = (0.1 * RNG.normal(size=(8, 64_000))).astype(np.float32)
HUM = (0.2 * np.sin(2 * np.pi * 50 * TIME) + 0.1 * np.sin(2 * np.pi * 150 * TIME)).astype(np.float32)
SILENCE = np.zeros(64_000, np.float32)


@pytest.fixture(scope="module")
def voice():
    """4 s of speech that stay well below full scale."""
    return 0.5 * load_audio(Path(__file__).parent / "data" / "speech.flac")[:64_000]


def delayed(wave, samples):
    return np.concatenate([np.zeros(samples, np.float32), wave[:len(wave) - samples]])


def written(path, channels, layout=None, codec="pcm_s16le"):
    """These channels at 16 kHz: a 16-bit WAV without a layout, or any codec with one of FFmpeg's."""
    data = np.clip(np.rint(np.stack(channels, 1) * 32768), -32768, 32767).astype("<i2")
    if layout is None:
        with wavefile.open(str(path), "wb") as file:
            file.setparams((data.shape[1], 2, 16_000, 0, "NONE", ""))
            file.writeframes(data.tobytes())
        return path
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=16_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(data.reshape(1, -1), "s16", layout)
        frame.sample_rate, frame.pts = 16_000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def loaded(path, **kwargs):
    """The audio, and the warnings as text."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sound = load_audio(path, **kwargs)
    assert all(w.category is UserWarning for w in seen)
    return sound, [str(w.message) for w in seen]


# ---- plain stereo

def plain(voice):
    """Channels that must be averaged as they are: what a microphone, a studio or a film makes of one or two voices."""
    early = np.where(TIME < 2.4, voice, 0)
    return {"the same": [voice, voice], "panned": [voice, 0.25 * voice], "noisy": [voice + NOISE[0], voice + NOISE[1]],
            "a voice each": [early, voice - early], "slightly inverted": [voice, -0.2 * voice],
            "music": [np.sin(2700 * TIME) * 0.2, np.sin(2700 * TIME + 1) * 0.2], "silent": [SILENCE, SILENCE],
            **{f"{n} samples apart": [voice, 0.8 * delayed(voice, n)] for n in (1, 2, 4, 8, 16, 32, 64, 160, 480)}}


@pytest.mark.parametrize("kind", plain(np.zeros(64_000)))
def test_plain_stereo_is_the_mean_of_its_channels(voice, kind, tmp_path):
    channels = plain(voice)[kind]
    sound, notes = loaded(written(tmp_path / "a.wav", channels))
    np.testing.assert_allclose(sound, np.mean(channels, 0), atol=1e-4)
    assert not notes


# ---- channels that would spoil the mean

def spoiled(voice):
    """Channels, of which the first carries the voice, and a word of the note."""
    inverted = {"opposite phase": -voice, "partly opposite": -0.6 * voice, "opposite with DC": 0.1 - voice,
                "opposite and late": -delayed(voice, 2), "opposite with noise": 0.2 * NOISE[1] - voice}
    useless = {"dead": SILENCE, "hiss": 0.01 * NOISE[0], "noise": NOISE[0], "loud noise": 3 * NOISE[0], "hum": HUM,
               "loud hum": 3 * HUM, "weak": 0.05 * voice}
    return {**{name: ([voice, other], "cancel") for name, other in inverted.items()},
            **{name: ([voice, other], "without speech") for name, other in useless.items()}}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("kind", spoiled(np.zeros(64_000)))
def test_the_better_channel_is_taken_and_a_note_says_so(voice, kind, swapped, tmp_path):
    channels, word = spoiled(voice)[kind]
    path = written(tmp_path / "a.wav", channels[::-1] if swapped else channels)
    sound, notes = loaded(path)
    assert min(np.abs(sound - channel).max() for channel in channels[:1 if word != "cancel" else 2]) < 1e-4
    assert len(notes) == 1 and word in notes[0] and str(path) in notes[0]


def test_audio_shorter_than_a_block_has_a_mean_too(tmp_path):
    for samples in (1, 2, 319, 320, 321):
        channels = [np.full(samples, 0.5, np.float32), np.full(samples, 0.25, np.float32)]
        np.testing.assert_allclose(loaded(written(tmp_path / "a.wav", channels))[0], np.full(samples, 0.375), atol=1e-4)


def test_the_choice_is_made_on_the_whole_audio(voice, tmp_path):
    """Not on its first seconds, and not for each part separately: a channel that speaks late is kept."""
    late = np.where(TIME > 3, voice, 0)
    sound, notes = loaded(written(tmp_path / "a.wav", [voice, late]))
    np.testing.assert_allclose(sound, (voice + late) / 2, atol=1e-4)
    assert not notes


# ---- more than two channels

def surround(voice, layout):
    channels = [0.3 * noise * np.abs(np.sin(2 * TIME + i)) for i, noise in enumerate(NOISE)]
    channels[2] = voice
    return channels[:{"3.0": 3, "5.1": 6, "7.1": 8}[layout]]


@pytest.mark.parametrize("layout", ["3.0", "5.1", "7.1"])
def test_the_centre_of_a_film_is_taken(voice, layout, tmp_path):
    sound, notes = loaded(written(tmp_path / "a.wav", surround(voice, layout), layout))
    np.testing.assert_allclose(sound, voice, atol=1e-4)
    assert len(notes) == 1 and "centre" in notes[0] and layout in notes[0]


def test_planar_codecs_of_eight_channels_can_be_read(voice, tmp_path):
    sound, notes = loaded(written(tmp_path / "a.m4a", surround(voice, "7.1"), "7.1", "aac"))
    assert len(sound) == pytest.approx(len(voice), abs=3000) and len(notes) == 1
    start = int(np.correlate(sound, voice[8000:24_000], "valid").argmax()) - 8000
    shown = sound[8000 + start:24_000 + start]
    assert abs(start) < 100 and np.corrcoef(shown, voice[8000:24_000])[0, 1] > 0.97


def test_a_film_with_a_dead_centre_has_the_mean_of_the_others(voice, tmp_path):
    channels = [voice, voice, SILENCE, SILENCE, SILENCE, SILENCE]
    sound, notes = loaded(written(tmp_path / "a.wav", channels, "5.1"))
    np.testing.assert_allclose(sound, voice, atol=1e-4)
    assert len(notes) == 1 and "3, 4, 5, 6 of 6" in notes[0]


@pytest.mark.parametrize("count", [3, 7, 8, 9, 12, 16, 24, 64])
def test_any_number_of_channels_can_be_read(voice, count, tmp_path):
    """PyAV crashes the interpreter on planar frames of 8 channels or more."""
    sound, notes = loaded(written(tmp_path / "a.wav", [voice] * count))
    np.testing.assert_allclose(sound, voice, atol=1e-4)
    assert not notes


def test_more_channels_than_ffmpeg_converts_are_refused(tmp_path):
    with pytest.raises(InputError, match="at most 64 channels.* with 65"):
        load_audio(written(tmp_path / "a.wav", [np.zeros(100, np.float32)] * 65))


# ---- tracks

def tracks(path, *flags, languages=("eng", "deu", "fra")):
    """A Matroska file with constant tracks 0.1, 0.2, ...; flags: which are default."""
    with av.open(str(path), "w") as out:
        codecs = ["flac", "pcm_s16le", "pcm_s16le"][:len(flags)]
        streams = [out.add_stream(codec, rate=16_000, layout="mono") for codec in codecs]
        for stream, flag, language in zip(streams, flags, languages):
            stream.disposition = av.stream.Disposition.default if flag else av.stream.Disposition(0)
            stream.metadata["language"] = language
        for i, stream in enumerate(streams):
            data = np.full((1, 16_000), round(3276.8 * (i + 1)), np.int16)
            frame = av.AudioFrame.from_ndarray(data, "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def level(sound):
    return round(float(sound[8000]), 2)


@pytest.mark.parametrize("flags, taken", [
    ((0, 0, 0), 1), ((1, 0, 0), 1), ((0, 1, 0), 2), ((0, 0, 1), 3), ((0, 1, 1), 2), ((1, 1, 1), 1)])
def test_the_default_track_is_taken_and_a_note_says_how_to_choose(flags, taken, tmp_path):
    sound, notes = loaded(tracks(tmp_path / "a.mka", *flags))
    assert level(sound) == pytest.approx(0.1 * taken)
    assert len(notes) == 1 and f"track {taken} is used" in notes[0] and "track=" in notes[0]
    for part in ("3 audio tracks", "1: eng, flac, 1 channel", "2: deu, pcm_s16le", "3: fra"):
        assert part in notes[0]


def test_a_track_is_chosen_by_its_number(tmp_path):
    path = tracks(tmp_path / "a.mka", 0, 1, 0)
    for number in (1, 2, 3):
        sound, notes = loaded(path, track=number)
        assert level(sound) == pytest.approx(0.1 * number) and not notes, "who chose needs no note"


@pytest.mark.parametrize("track", [0, -1, 4, 1.0, True, "eng"])
def test_a_track_that_is_not_there_is_refused_with_a_list(track, tmp_path):
    path = tracks(tmp_path / "a.mka", 0, 1, 0)
    with pytest.raises(InputError, match="counted from 1.*1: eng, flac, 1 channel; 2: deu.*3: fra"):
        load_audio(path, track=track)


def test_one_track_needs_no_choice(voice, tmp_path):
    path = save_wav(tmp_path / "a.wav", voice)
    assert not loaded(path)[1]
    np.testing.assert_array_equal(loaded(path, track=1)[0], loaded(path)[0])
    with pytest.raises(InputError, match="track=2; tracks of .*1: no language, pcm_s16le, 1 channel"):
        load_audio(path, track=2)


def test_a_track_in_an_unknown_codec_is_passed_over(tmp_path):
    path = tracks(tmp_path / "a.mka", 1, 0, 0)
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_XLAC"))
    sound, notes = loaded(path)
    assert level(sound) == pytest.approx(0.2) and "1: eng, unknown codec" in notes[0]
    with pytest.raises(InputError, match="track=1.*unknown codec"):
        load_audio(path, track=1)


def test_a_file_with_unknown_codecs_only_is_refused(tmp_path):
    path = tracks(tmp_path / "a.mka", 1)
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_XLAC"))
    with pytest.raises(InputError, match="codec that FFmpeg knows.*1: eng, unknown codec.*AAC or WAV"):
        load_audio(path)
