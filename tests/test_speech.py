"""Text to speech: with the synthesisers that are there, and a way forward where there is none."""
import numpy as np
import pytest

from egstalker_nb.core.errors import InputError, MissingPackageError
from egstalker_nb.media import tts
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.rates import SAMPLE_RATE

installed = pytest.mark.skipif(not tts.voices(), reason="neither espeak-ng nor flite is installed")
SENTENCE = "Hello there. You can type whatever I say."


@installed
@pytest.mark.parametrize("program", ["espeak-ng", "flite"])
def test_a_sentence_is_spoken(program, tmp_path):
    """Audio that can drive a head: 16 kHz, audible, about as long as a person takes; faster when asked for."""
    voice = next((v for v in tts.voices() if v.program == program), None)
    if voice is None:
        pytest.skip(f"{program} is not installed")
    wave = load_audio(tts.synthesize(SENTENCE, tmp_path / "a.wav", voice))
    fast = load_audio(tts.synthesize(SENTENCE, tmp_path / "b.wav", voice, pace=300))
    assert 1.5 < len(wave) / SAMPLE_RATE < 6 and np.abs(wave).max() > 0.05
    assert len(fast) < 0.8 * len(wave)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@installed
def test_text_is_never_an_option(tmp_path):
    """A text that looks like one must be spoken, not obeyed."""
    assert len(load_audio(tts.synthesize("--version -w other.wav", tmp_path / "a.wav"))) > SAMPLE_RATE / 2


@installed
def test_voices_are_found_by_name_and_language():
    first = tts.voices()[0]
    assert first.language.startswith("en")
    assert tts.find_voice() == first == tts.find_voice(first.name) == tts.find_voice(str(first))
    assert tts.find_voice("EN").language.startswith("en")
    with pytest.raises(InputError, match="a voice or language"):
        tts.find_voice("klingon from the moon")


@installed
@pytest.mark.parametrize("text, more, message", [
    ("  ", {}, "no text"), ("a" * 6000, {}, "6000 characters"), ("hello", {"pace": 1000}, "a pace of"),
])
def test_what_cannot_be_spoken(text, more, message, tmp_path):
    with pytest.raises(InputError, match=message):
        tts.synthesize(text, tmp_path / "a.wav", **more)
    assert list(tmp_path.iterdir()) == []


def test_without_a_synthesiser(monkeypatch, tmp_path):
    """The error names what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    tts.voices.cache_clear()
    try:
        assert tts.voices() == ()
        with pytest.raises(MissingPackageError, match="apt-get install espeak-ng"):
            tts.synthesize("hello", tmp_path / "a.wav")
    finally:
        monkeypatch.undo()
        tts.voices.cache_clear()
