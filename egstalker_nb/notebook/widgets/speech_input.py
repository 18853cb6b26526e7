"""Speech from a file, from the microphone of the browser, or from typed text."""
from __future__ import annotations

import io
import tempfile
from html import escape
from pathlib import Path
from typing import Callable, Optional

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

#: endings that are taken; what is inside is looked at as well
SOUNDS = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".oga", ".wma", ".mp4", ".mov", ".mkv", ".webm",
          ".avi", ".m4v")


class SpeechIn(Panel):
    """Where the sound comes from.

    Args:
        say: called with the file of a new sound; may raise EgsError. now: the file and the sound that are used now.
        folder: where new sounds are kept.
    """

    def __init__(self, say: Callable[[Path], None], now: Callable[[], tuple], folder: Path):
        self.use, self.now, self.folder = say, now, folder

    def upload(self, name: str, data: bytes) -> None:
        """Take a sound or video file.

        Raises:
            InputError: there is no sound in it that can be read.
        """
        name = clean_name(name, SOUNDS)
        self.use(save_upload(io.BytesIO(data), name, self.folder, load_audio))

    def recorded(self, wave: np.ndarray) -> None:
        """Take what the microphone heard, float32 [samples]."""
        self.use(save_wav(make_folder(self.folder) / "recording.wav", wave))

    def type(self, text: str, voice: Optional[str | tts.Voice] = None, pace: float = tts.USUAL) -> None:
        """Speak a text, see `speech.synthesize`."""
        self.use(tts.synthesize(text, make_folder(self.folder) / "typed.wav", voice, pace))

    def about(self) -> str:
        """What is said now, in a line."""
        file, wave = self.now()
        return f"{Path(file).name}: {len(wave) / SAMPLE_RATE:.2f} s, {round(len(wave) / SAMPLE_RATE * FPS)} frames"

    def follow(self) -> None:
        """Show the sound that is said now."""
        if "widget" in self.__dict__:
            self._bring_up_to_date()

    def build(self) -> ipywidgets.Widget:
        self.line = ipywidgets.HTML()
        self.player, self.place = None, ipywidgets.VBox()
        self.recorder = Recorder(self.recorded)
        self.tabs = ipywidgets.Tab([self._file_page(), self.recorder.widget, self._text_page()],
                                   titles=("File", "Record", "Type"))
        self._bring_up_to_date()
        return ipywidgets.VBox([self.tabs, self.note, self.line, self.place])

    def _bring_up_to_date(self) -> None:
        file, wave = self.now()
        note, old = silent_note(loudness(wave, frames_of(len(wave))).max(), "it"), self.player
        self.line.value = f"The head says <b>{escape(self.about())}</b>. {escape(note)}"
        small = 2 * len(wave) <= player.MAX_EMBEDDED  # as 16-bit WAV
        self.player = (ipywidgets.Audio(value=_wav(wave), format="wav", autoplay=False, loop=False) if small
                       else media(Path(file), "audio"))
        self.place.children = [self.player]
        if old is not None:
            old.close()

    def _file_page(self) -> ipywidgets.Widget:
        self.files = Upload(self.folder, SOUNDS, load_audio, self.use, self.say)
        button = self.files.build()
        button.description = "Sound or video"
        self.path = ipywidgets.Text(placeholder="or a path on the computer that runs this notebook",
                                    continuous_update=False, layout=ipywidgets.Layout(width="32em"))
        self.path.observe(self.guarded(self._path_given), "value")
        return ipywidgets.HBox([button, self.path], layout=ipywidgets.Layout(flex_flow="row wrap"))

    def _path_given(self, change: dict) -> None:
        if change["new"].strip():
            self.use(Path(change["new"].strip()).expanduser())

    def _text_page(self) -> ipywidgets.Widget:
        have = tts.voices()
        self.text = ipywidgets.Textarea("Hello. You can type whatever I say.", layout=ipywidgets.Layout(width="40em"))
        self.voice = choices("voice", [(str(v), v) for v in have] or [("none is installed", None)], width="40em")
        self.pace = slider("words a min", tts.SLOWEST, tts.FASTEST, tts.USUAL)
        self.speak = ipywidgets.Button(description="Speak", icon="comment", button_style="primary")
        self.speak.on_click(self.guarded(lambda _: self.type(self.text.value, self.voice.value, self.pace.value)))
        return ipywidgets.VBox([self.text, self.voice, self.pace, self.speak])

    def still(self) -> Table:
        have = tts.voices()
        programs, languages = sorted({v.program for v in have}), {v.language.split("-")[0] for v in have}
        typed = (f"{len(have)} voices, {len(languages)} languages of {' and '.join(programs)}" if have
                 else "install espeak-ng or flite")
        return Table(("speech", "here"), [("said now", self.about()), ("file", "any sound, or a video with sound"),
                                          ("record", "the browser's microphone"), ("type", typed)])


def _wav(wave: np.ndarray) -> bytes:
    """A sound as the bytes of a WAV file."""
    with tempfile.TemporaryDirectory() as folder:
        return save_wav(Path(folder) / "sound.wav", wave).read_bytes()
