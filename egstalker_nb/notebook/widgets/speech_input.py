"""Speech from a file, from the browser's microphone, or synthesised from text."""
from __future__ import annotations

import io
import tempfile
from html import escape
from pathlib import Path
from typing import Any, Callable, Optional

import ipywidgets
import numpy as np

from ...core.files import make_folder
from ...core.table import Table
from ...media import player, tts
from ...media.audio import frames_of, load_audio, save_wav
from ...media.rates import FPS, SAMPLE_RATE
from ...speech.voice_activity import loudness, silent_note
from .base import Panel, choices, media, slider
from .recorder import Recorder
from .upload import Upload, clean_name, save_upload

#: accepted suffixes; the content is checked as well
AUDIO_SUFFIXES = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".oga", ".wma", ".mp4", ".mov", ".mkv",
                  ".webm", ".avi", ".m4v")


class SpeechInput(Panel):
    """Choose the driving audio.

    Args:
        use: called with the file of new audio; may raise EgsError.
        now: returns the file and the waveform in use.
        folder: where new audio files are kept.
    """

    def __init__(self, use: Callable[[Path], None], now: Callable[[], tuple[str | Path, np.ndarray]], folder: Path):
        self.use, self.now, self.folder = use, now, folder

    def upload(self, name: str, data: bytes) -> None:
        """Use an audio or video file.

        Args:
            name: of the file.
            data: its bytes.

        Raises:
            InputError: no audio can be decoded from it.
        """
        name = clean_name(name, AUDIO_SUFFIXES)
        self.use(save_upload(io.BytesIO(data), name, self.folder, load_audio))

    def recorded(self, wave: np.ndarray) -> None:
        """Use a recording, float32 [samples] at 16 kHz."""
        self.use(save_wav(make_folder(self.folder) / "recording.wav", wave))

    def type(self, text: str, voice: Optional[str | tts.Voice] = None, pace: float = tts.DEFAULT_PACE) -> None:
        """Synthesise a text and use it, see `tts.synthesize`."""
        self.use(tts.synthesize(text, make_folder(self.folder) / "typed.wav", voice, pace))

    def about(self) -> str:
        """One line about the audio in use."""
        file, wave = self.now()
        return f"{Path(file).name}: {len(wave) / SAMPLE_RATE:.2f} s, {round(len(wave) / SAMPLE_RATE * FPS)} frames"

    def build(self) -> ipywidgets.Widget:
        self.line = ipywidgets.HTML()
        self.player: Optional[ipywidgets.Widget] = None
        self.place = ipywidgets.VBox()
        self.recorder = Recorder(self.recorded)
        self.tabs = ipywidgets.Tab([self._file_page(), self.recorder.widget, self._text_page()],
                                   titles=("File", "Record", "Type"))
        return ipywidgets.VBox([self.tabs, self.note, self.line, self.place])

    def redraw(self) -> None:
        file, wave = self.now()
        note, old = silent_note(loudness(wave, frames_of(len(wave))).max(), "it"), self.player
        self.line.value = f"Driving audio: <b>{escape(self.about())}</b>. {escape(note)}"
        small = 2 * len(wave) <= player.MAX_EMBEDDED  # as 16-bit WAV
        self.player = (ipywidgets.Audio(value=_wav(wave), format="wav", autoplay=False, loop=False) if small
                       else media(Path(file), "audio"))
        self.place.children = [self.player]
        if old is not None:
            old.close()

    def _file_page(self) -> ipywidgets.Widget:
        self.files = Upload(self.folder, AUDIO_SUFFIXES, load_audio, self.use, self.show_message)
        button = self.files.build()
        button.description = "Upload audio or video"
        self.path = ipywidgets.Text(placeholder="or a path on the machine that runs this notebook",
                                    continuous_update=False, layout=ipywidgets.Layout(width="32em"))
        self.path.observe(self.guarded(self._path_given), "value")
        return ipywidgets.HBox([button, self.path], layout=ipywidgets.Layout(flex_flow="row wrap"))

    def _path_given(self, change: dict[str, Any]) -> None:
        if change["new"].strip():
            self.use(Path(change["new"].strip()).expanduser())

    def _text_page(self) -> ipywidgets.Widget:
        have = tts.voices()
        self.text = ipywidgets.Textarea("Hello. You can type whatever I say.", layout=ipywidgets.Layout(width="40em"))
        none: list[tuple[str, Optional[tts.Voice]]] = [(f"none is installed: {tts.INSTALL}", None)]
        voices = [(str(voice), voice) for voice in have] or none
        self.voice = choices("voice", voices, width="40em")
        self.pace = slider("words/min", tts.MIN_PACE, tts.MAX_PACE, tts.DEFAULT_PACE)
        self.speak = ipywidgets.Button(description="Speak", icon="comment", button_style="primary")
        self.speak.on_click(self.guarded(lambda _: self.type(self.text.value, self.voice.value, self.pace.value)))
        return ipywidgets.VBox([self.text, self.voice, self.pace, self.speak])

    def still(self) -> Table:
        have = tts.voices()
        programs, languages = sorted({v.program for v in have}), {v.language.split("-")[0] for v in have}
        typed = (f"{len(have)} voices, {len(languages)} languages of {' and '.join(programs)}" if have
                 else f"{tts.INSTALL}, or install espeak-ng or flite")
        return Table(("speech", "source"), [
            ("driving audio", self.about()), ("file", "any audio file, or a video with audio"),
            ("record", "the browser's microphone"), ("type", typed)])


def _wav(wave: np.ndarray) -> bytes:
    """A waveform as the bytes of a WAV file."""
    with tempfile.TemporaryDirectory() as folder:
        return save_wav(Path(folder) / "sound.wav", wave).read_bytes()
