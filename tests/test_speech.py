"""Typed text to sound: with the synthesisers that are there, and a way forward where there is none."""
import numpy as np
import pytest

from egstalker_nb import speech
from egstalker_nb.audio import SAMPLE_RATE, load_audio
from egstalker_nb.errors import InputError, MissingPackageError

installed = pytest.mark.skipif(not speech.voices(), reason="neither espeak-ng nor flite is installed")
SENTENCE = "Hello there. You can type whatever I say."


@installed
@pytest.mark.parametrize("program", ["espeak-ng", "flite"])
def test_a_sentence_is_spoken(program, tmp_path):
    """Sound that can drive a head: 16 kHz, audible, about as long as a person takes; faster when asked for."""
    voice = next((v for v in speech.voices() if v.program == program), None)
    if voice is None:
        pytest.skip(f"{program} is not installed")
    wave = load_audio(speech.synthesize(SENTENCE, tmp_path / "a.wav", voice))
    fast = load_audio(speech.synthesize(SENTENCE, tmp_path / "b.wav", voice, pace=300))
    assert 1.5 < len(wave) / SAMPLE_RATE < 6 and np.abs(wave).max() > 0.05
    assert len(fast) < 0.8 * len(wave)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@installed
def test_text_is_never_an_option(tmp_path):
    """A text that looks like one must be spoken, not obeyed."""
    assert len(load_audio(speech.synthesize("--version -w other.wav", tmp_path / "a.wav"))) > SAMPLE_RATE / 2


@installed
def test_voices_are_found_by_name_and_language():
    first = speech.voices()[0]
    assert first.language.startswith("en")
    assert speech.find_voice() == first == speech.find_voice(first.name) == speech.find_voice(str(first))
    assert speech.find_voice("EN").language.startswith("en")
    with pytest.raises(InputError, match="a voice or language"):
        speech.find_voice("klingon from the moon")


@installed
@pytest.mark.parametrize("text, more, message", [
    ("  ", {}, "no text"), ("a" * 6000, {}, "6000 characters"), ("hello", {"pace": 1000}, "a pace of"),
])
def test_what_cannot_be_spoken(text, more, message, tmp_path):
    with pytest.raises(InputError, match=message):
        speech.synthesize(text, tmp_path / "a.wav", **more)
    assert list(tmp_path.iterdir()) == []


def test_without_a_synthesiser(monkeypatch, tmp_path):
    """The error names what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    speech.voices.cache_clear()
    try:
        assert speech.voices() == ()
        with pytest.raises(MissingPackageError, match="apt-get install espeak-ng"):
            speech.synthesize("hello", tmp_path / "a.wav")
    finally:
        monkeypatch.undo()
        speech.voices.cache_clear()
