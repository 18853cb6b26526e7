"""A microphone in the browser: record, stop, and the sound is in the kernel."""
from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional

import anywidget
import ipywidgets
import numpy as np
import traitlets

from ...core.errors import InputError
from ...core.table import Table
from ...media.audio import load_audio
from ...media.rates import SAMPLE_RATE
from .base import Panel

HERE = Path(__file__).parent
LONGEST = 180          # seconds, at 64 kbit/s well below what one message to a kernel may hold
SHORTEST = 0.2         # seconds
NO_SOUND = 1e-3        # of full scale: a microphone that is muted
#: what browsers record, and the file names that fit
SUFFIXES = {"audio/webm": ".webm", "video/webm": ".webm", "audio/ogg": ".ogg", "audio/mp4": ".m4a", "audio/wav": ".wav"}


class RecorderView(anywidget.AnyWidget):
    """Buttons, level and clock in the browser; a recording comes as a message with the bytes of a file."""

    _esm = HERE / "recorder.js"
    _css = HERE / "recorder.css"
    state = traitlets.Unicode("idle").tag(sync=True)   # idle, asking, recording, sending, done or failed
    message = traitlets.Unicode("").tag(sync=True)
    longest = traitlets.Int(LONGEST).tag(sync=True)


class Recorder(Panel):
    """Record speech in the browser.

    Args:
        watcher: called with the sound, float32 [samples] at 16 kHz, when a recording has come in.

    Attributes:
        wave: the last recording, or None.
    """

    def __init__(self, watcher: Optional[Callable[[np.ndarray], None]] = None):
        self.watcher = watcher
        self.wave: Optional[np.ndarray] = None

    def build(self) -> ipywidgets.Widget:
        self.view = RecorderView()
        self.view.on_msg(self._message)
        return ipywidgets.VBox([self.view, self.note])

    def _message(self, _: Any, content: dict, buffers: list) -> None:
        if content.get("kind") == "recording":
            try:
                self.guarded(self.receive)(b"".join(bytes(part) for part in buffers), str(content.get("type", "")))
            finally:  # or the button would wait for ever
                with self.view.hold_sync():
                    self.view.state, self.view.message = ("failed", "see below") if self.note.value else ("done", "")

    def receive(self, data: bytes, kind: str = "audio/webm") -> None:
        """Take the bytes of a recorded file.

        Args:
            data: the file. kind: its media type, for instance `audio/webm;codecs=opus`.

        Raises:
            InputError: no sound can be read from it, it is too short, or silent.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"recording{SUFFIXES.get(re.split('[; ]', kind)[0], '.webm')}"
            file.write_bytes(data)
            try:
                wave = load_audio(file)
            except InputError as error:
                raise InputError("a recording that can be read", f"{len(data)} bytes of {kind or 'unknown kind'}",
                                 "Record again; if it stays so, use another browser, or upload a file.") from error
        if len(wave) < SHORTEST * SAMPLE_RATE:
            raise InputError(f"at least {SHORTEST} s of sound", f"{len(wave) / SAMPLE_RATE:.2f} s", "Record longer.")
        if np.abs(wave).max() < NO_SOUND:
            raise InputError("a sound", "silence", "Is the microphone muted, or another one chosen in the browser?")
        self.wave = wave
        if self.watcher:
            self.watcher(wave)

    def still(self) -> Table:
        seconds = None if self.wave is None else len(self.wave) / SAMPLE_RATE
        return Table(("recording", "seconds"), [("microphone of the browser", seconds)])
