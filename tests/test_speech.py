"""Text to speech: with the synthesisers that are there, and a way forward where there is none."""
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from typed_speech import SENTENCES, phones_found  # noqa: E402

from egstalker_nb.core.errors import InputError, MissingPackageError
from egstalker_nb.media import tts, tts_neural
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.rates import SAMPLE_RATE

PROGRAMS = "hibari", "espeak-ng", "flite"
installed = pytest.mark.skipif(not tts.voices(), reason="no synthesiser is installed")
with_extra = pytest.mark.skipif(not tts_neural.HIBARI.voices(), reason="the extra tts (hibari) is not installed")
SENTENCE = "Hello there. You can type whatever I say."
#: sentences, and the classes of the built-in encoder that an American says, by hand
SPOKEN = {
    "My baby bought a big boat.": "sil m a i sil b e i b i sil b aw d sil ax sil b ih g sil b o u d sil",
    "Mummy made some apple jam.": "sil m a m i sil m e i d sil s a m sil ae b l sil sh ae m sil",
    "The farmer saw a film about a family.":
        "sil th ax sil f a r m er sil s aw sil ax sil f ih l m sil ax b a u d sil ax sil f ae m ax l i sil",
    "Few people leave the shop now.": "sil f j u sil b i b ax l sil l i f sil th ax sil sh a b sil n a u sil",
}


def first_voice(program):
    """The first voice of a synthesiser; skips the test if it is not installed."""
    voice = next((v for v in tts.voices() if v.program == program), None)
    if voice is None:
        pytest.skip(f"{program} is not installed")
    return voice


def spoken(text, voice, pace=tts.DEFAULT_PACE):
    return np.concatenate(list(tts.stream(text, voice, pace)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_sentence_is_spoken(program, tmp_path):
    """Audio that can drive a head: 16 kHz, audible, about as long as a person takes; faster when asked for."""
    voice = first_voice(program)
    wave = load_audio(tts.synthesize(SENTENCE, tmp_path / "a.wav", voice))
    fast = load_audio(tts.synthesize(SENTENCE, tmp_path / "b.wav", voice, pace=300))
    assert 1.5 < len(wave) / SAMPLE_RATE < 6 and 0.05 < np.abs(wave).max() <= 1
    assert len(fast) < 0.8 * len(wave)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_encoder_hears_what_was_typed(program):
    """A wrong phoneme or a garbled voice would move the mouth wrongly: of four sentences the encoder recognises the one
    that was typed, in most of its phones."""
    voice = first_voice(program)
    for text in SPOKEN:
        wave = spoken(text, voice)
        found = {other: np.mean(phones_found(wave, SPOKEN[other].split())["all"]) for other in SPOKEN}
        assert found[text] > 0.65 and found[text] == max(found.values()), (text, found)
        assert sorted(found.values())[-2] < found[text] - 0.08, (text, found)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_pace_is_words_a_minute(program):
    """Which users compare with their own speech: a text of 67 words takes about 67 / pace minutes."""
    voice, text = first_voice(program), " ".join(SENTENCES[:4])
    for pace in (tts.MIN_PACE if program == "hibari" else 100, tts.DEFAULT_PACE, 200, tts.MAX_PACE):
        minutes = len(spoken(text, voice, pace)) / SAMPLE_RATE / 60
        assert len(text.split()) / minutes == pytest.approx(pace, rel=0.15)


@pytest.mark.parametrize("program", PROGRAMS)
def test_sentences_are_spoken_one_by_one(program, monkeypatch, tmp_path):
    """The first sound must not wait for the last sentence, and a file holds the same samples."""
    voice, said = first_voice(program), []
    real = tts.SYNTHESIZERS[program]
    monkeypatch.setitem(tts.SYNTHESIZERS, program, real._replace(
        speak=lambda voice, sentence, pace: said.append(sentence) or real.speak(voice, sentence, pace)))
    chunks = tts.stream("One. Two!\n\n---\n\nThree?", voice)
    assert said == []
    first = next(chunks)
    assert said == ["One."] and first.dtype == np.float32 and first.ndim == 1
    rest = list(chunks)
    assert len(rest) == 2
    monkeypatch.undo()
    file = tts.synthesize("One. Two!\n\n---\n\nThree?", tmp_path / "a.wav", voice)
    assert np.allclose(load_audio(file), np.concatenate([first, *rest]), atol=1e-4)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pause_follows_each_sentence_and_no_silence_comes_first(program):
    """Latency: what a synthesiser puts before its first sound would be added to the time until a live head answers."""
    wave = next(tts.stream(SENTENCE, first_voice(program)))
    loud = np.flatnonzero(abs(wave) > 0.02 * abs(wave).max()) / SAMPLE_RATE
    assert loud[0] < 0.15 and 0.25 < len(wave) / SAMPLE_RATE - loud[-1] < 0.7


@installed
def test_text_is_never_an_option(tmp_path):
    """A text that looks like one must be spoken, not obeyed."""
    for program in PROGRAMS:
        voice = next((v for v in tts.voices() if v.program == program), None)
        assert voice is None or len(spoken("--version -w other.wav", voice)) > SAMPLE_RATE / 2


@installed
def test_voices_are_found_by_name_and_language():
    first = tts.voices()[0]
    assert first.language.startswith("en")
    assert tts.find_voice() == first == tts.find_voice(first.name) == tts.find_voice(str(first))
    assert tts.find_voice("EN").language.startswith("en")
    assert tts.find_voice(first.program).program == first.program
    with pytest.raises(InputError, match="a voice or language"):
        tts.find_voice("klingon from the moon")


@installed
@pytest.mark.parametrize("text, more, message", [
    ("  ", {}, "no text"), ("a" * 6000, {}, "6000 characters"), ("hello", {"pace": 1000}, "a pace of"),
    ("hello", {"pace": float("nan")}, "a pace of"), (None, {}, "no text"),
])
def test_what_cannot_be_spoken(text, more, message, tmp_path):
    with pytest.raises(InputError, match=message):
        tts.synthesize(text, tmp_path / "a.wav", **more)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=message):  # before the first chunk is asked for
        tts.stream(text, **more)


@with_extra
@pytest.mark.parametrize("text", ["你好", "Hello, мир", "שלום", "ありがとう", "α and ω"])
def test_letters_that_the_english_voice_cannot_read_are_refused_before_anything_is_said(text):
    with pytest.raises(InputError, match="Latin letters.*espeak-ng"):
        tts.stream(text, first_voice("hibari"))


@with_extra
@pytest.mark.parametrize("text", ["😀😀", "—", "...", "\x07\x1b\ud800", "*", "\u200b\u200b"])
def test_a_text_without_words_is_refused_or_read(text):
    try:
        assert len(spoken(text, first_voice("hibari"))) > SAMPLE_RATE / 5
    except InputError as error:
        assert "gave silence" in str(error)


@with_extra
@pytest.mark.parametrize("text, words", [
    ("HELLO NASA!", 2), ("I can't, won't and shouldn't.", 5), ("Dr. Smith paid $3.50 at 9:30 on 3/4/2024.", 15),
    ("naïve café Zürich Nguyễn", 4), ("𝐇𝐞𝐥𝐥𝐨 ﬁne", 2), ("٣ ③ ¹", 3), ("hello 😀 there", 2), ("1" * 60, 60),
    ("[see](/docs/page)", 3), ("Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", 4), ("5 µm and 3 m²", 6),
])
def test_numbers_abbreviations_and_rare_letters_are_read(text, words):
    """Each word takes time: what is silently left out would be missing from the sound."""
    assert len(spoken(text, first_voice("hibari"))) / SAMPLE_RATE > 0.2 + 0.12 * words


class Mute:
    """hibari without its network: each phoneme is 10 ms of noise."""

    sample_rate = 24_000

    def __init__(self, engine):
        self.g2p = engine.g2p

    def from_phonemes(self, phonemes, speed, seed):
        assert 0 < len(phonemes) <= tts_neural.MAX_PHONEMES and speed > 0
        return np.full(240 * len(phonemes), 0.5, np.float32)


@pytest.fixture
def mute(monkeypatch):
    engine = Mute(tts_neural.load_hibari("heart"))
    monkeypatch.setattr(tts_neural, "load_hibari", lambda voice: engine)
    return engine


AWKWARD = ("Dr. Smith $3.50 $. .5 9:30am 99:99 12/3/2024 00/00/00 0/0 10,000 1,,2 e.g. XIV -5 1e9 3% 1st £3m 5km °C "
           "a@b.co http://a.b/c [x](/y/) 1-2 ½ ¹ ² µm can't 'tis NASA").split()


@with_extra
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200) | st.lists(st.sampled_from(AWKWARD), min_size=1, max_size=30).map(" ".join),
       st.integers(tts.MIN_PACE, tts.MAX_PACE))
def test_any_text_is_spoken_or_refused_in_one_line(mute, text, pace):
    try:
        wave = spoken(text, tts.Voice("hibari", "heart", "en-us", "heart"), pace)
    except InputError as error:
        message = str(error)
        assert "\n" not in message and "failed" not in message
        assert text.strip() == "" or "Latin" in message or "silence" in message
    else:
        assert wave.dtype == np.float32 and np.isfinite(wave).all() and abs(wave).max() > 0.1


@with_extra
@pytest.mark.parametrize("text", ["hello " * 800, "a" * 5000, "1" * 5000, "a,b." * 1250, "999 " * 1250, "-1.5e3" * 800])
def test_the_longest_texts_are_spoken(mute, text):
    """5000 characters in one word, one sentence or one number."""
    wave = spoken(text[:tts.MAX_TEXT], tts.Voice("hibari", "heart", "en-us", "heart"))
    assert len(wave) > 40 * SAMPLE_RATE  # at 10 ms a phoneme


@with_extra
def test_the_same_text_gives_the_same_samples_and_nothing_is_downloaded(monkeypatch):
    """Only voices inside the wheel are offered, as hibari fetches the others from the network."""
    import hibari.voices

    monkeypatch.setattr(hibari.voices, "download", None)
    for voice in tts_neural.HIBARI.voices():
        tts_neural.load_hibari.cache_clear()
        assert np.array_equal(spoken("Sassy fish.", voice), spoken("Sassy fish.", voice))


@with_extra
def test_a_failure_of_the_synthesiser_is_one_line(mute):
    mute.g2p = {}.__getitem__
    with pytest.raises(InputError, match="'Hello.', for which it failed"):
        spoken("Hello.", tts.Voice("hibari", "heart", "en-us", "heart"))


def test_without_a_synthesiser(monkeypatch, tmp_path):
    """The error names what to install, what pip brings first; once it is there it is found without a restart."""
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setattr(tts_neural.metadata, "version", missing)
        tts.voices.cache_clear()
        assert tts.voices() == ()
        with pytest.raises(MissingPackageError, match=r"pip install 'egstalker-nb\[tts\]'.*apt-get install espeak-ng"):
            tts.synthesize("hello", tmp_path / "a.wav")
        assert list(tmp_path.iterdir()) == []
    try:
        assert len(tts.voices()) == sum(len(synthesizer.voices()) for synthesizer in tts.SYNTHESIZERS.values())
    finally:
        tts.voices.cache_clear()


def panel_for(folder, use=lambda file: None):
    from egstalker_nb.notebook.widgets.speech_input import SpeechInput

    panel = SpeechInput(use, lambda: ("a.wav", np.zeros(6400, np.float32)), folder)
    assert panel.widget is not None
    return panel


@with_extra
def test_the_panel_speaks_with_the_voice_of_the_extra_unless_another_is_chosen(tmp_path):
    used = []
    panel = panel_for(tmp_path, used.append)
    assert panel.voice.value == first_voice("hibari") and "hibari" in str(panel.still())
    panel.text.value = "Hello."
    panel.speak.click()
    assert np.abs(load_audio(used[0])).max() > 0.05


def test_the_panel_without_a_synthesiser_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(tts, "voices", lambda: ())
    panel = panel_for(tmp_path)
    assert tts.INSTALL in panel.voice.options[0][0] and tts.INSTALL in str(panel.still())
