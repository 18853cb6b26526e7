"""A microphone in the browser, whose recordings are sent to the kernel."""
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
from .base import ASSETS, Panel

MAX_SECONDS = 180      # at 64 kbit/s well below the size limit of a message to the kernel
MIN_SECONDS = 0.2
SILENT_PEAK = 1e-3     # of full scale: a muted microphone
#: media types that browsers record -> file name suffixes
RECORDING_SUFFIXES = {"audio/webm": ".webm", "video/webm": ".webm", "audio/ogg": ".ogg", "audio/mp4": ".m4a",
                      "audio/wav": ".wav"}


class RecorderView(anywidget.AnyWidget):
    """Button, level meter and clock in the browser; a recording arrives as a message with the bytes of a file."""

    _esm = ASSETS / "recorder.js"
    _css = ASSETS / "recorder.css"
    state = traitlets.Unicode("idle").tag(sync=True)   # idle, asking, recording, sending, done or failed
    message = traitlets.Unicode("").tag(sync=True)
    longest = traitlets.Int(MAX_SECONDS).tag(sync=True)


class Recorder(Panel):
    """Record speech in the browser.

    Args:
        watcher: called with each recording, float32 [samples] at 16 kHz.

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
            finally:  # otherwise the button would stay disabled
                with self.view.hold_sync():
                    self.view.state, self.view.message = ("failed", "see below") if self.note.value else ("done", "")

    def receive(self, data: bytes, kind: str = "audio/webm") -> None:
        """Decode a recorded file.

        Args:
            data: the bytes of the file.
            kind: its media type, for instance `audio/webm;codecs=opus`.

        Raises:
            InputError: no audio can be decoded from it, it is too short, or silent.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"recording{RECORDING_SUFFIXES.get(re.split('[; ]', kind)[0], '.webm')}"
            file.write_bytes(data)
            try:
                wave = load_audio(file)
            except InputError as error:
                raise InputError("a recording that can be decoded", f"{len(data)} bytes of {kind or 'unknown type'}",
                                 "Record again; if it fails again, use another browser, or upload a file.") from error
        if len(wave) < MIN_SECONDS * SAMPLE_RATE:
            raise InputError(f"at least {MIN_SECONDS} s of audio", f"{len(wave) / SAMPLE_RATE:.2f} s", "Record longer.")
        if np.abs(wave).max() < SILENT_PEAK:
            raise InputError("audible speech", "silence",
                             "Check that the microphone is not muted, and that the browser uses the right one.")
        self.wave = wave
        if self.watcher:
            self.watcher(wave)

    def still(self) -> Table:
        seconds = None if self.wave is None else len(self.wave) / SAMPLE_RATE
        return Table(("recording", "seconds"), [("browser microphone", seconds)])
