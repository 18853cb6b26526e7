"""One head driven by any audio: input, charts, video, a view from any side, and export.

The panels of a `Studio` share their state: other audio, another pose or frame in one of them changes all.
"""
from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Sequence, cast

import numpy as np
import torch

from ...analysis.audio_curves import AudioCurves, compute_audio_curves
from ...rendering.motion import Blink, Poses
from ...rendering.render import Video
from ...rendering.renderer import Renderer
from ...rendering.script import Script, audio_script
from ...training.run import Run
from .base import encode
from .orbit import Orbit, Viewer
from .speech_input import SpeechInput
from .studio_panels import ExportPanel, VideoPanel
from .time_charts import AttentionChart, AudioChart


class Studio:
    """The state that the panels share, and the panels.

    Args:
        run: see `load_run`.
        audio, features, poses, blink, duration: the initial audio and motion, see `egs.render`.
        out: the MP4 of these.
        size: px of the view from any side.

    Attributes:
        renderer: of the head.
        head: the trained head.
        audio: the driving audio file.
        script: what each frame shows.
        curves: the script over time.
        frame: the current frame.
        poses, blink: as for `egs.render`.
    """

    script: Script
    curves: AudioCurves
    audio: str | Path
    features: Optional[str | Path]
    poses: Poses
    blink: Blink
    duration: Optional[float]

    def __init__(self, run: Run, audio: str | Path, features: Optional[str | Path] = None, poses: Poses = "cycle",
                 blink: Blink = "dataset", duration: Optional[float] = None, out: Optional[str | Path] = None,
                 size: int = 256):
        self.run, self.out, self.frame = run, out, 0
        self.renderer = Renderer.from_run(run)
        self.head = self.renderer.head
        self.viewer = Viewer(self.renderer, size)
        self._jpegs: dict[int, bytes] = {}  # by frame
        self._change(audio, features, poses, blink, duration)
        self._first = self._settings

    def set_audio(self, audio: str | Path, features: Optional[str | Path] = None,
                  duration: Optional[float] = None) -> None:
        """Drive the head with other audio; all panels follow.

        Raises:
            InputError: unusable audio or features; nothing changes.
        """
        self._change(audio, features, self.poses, self.blink, duration)
        self._update_panels()

    def set_motion(self, poses: Optional[Poses] = None, blink: Optional[Blink] = None) -> None:
        """Change poses or blinks, see `egs.render`; all panels follow.

        Raises:
            InputError: unusable poses or blinks; nothing changes.
        """
        poses, blink = self.poses if poses is None else poses, self.blink if blink is None else blink
        self._change(self.audio, self.features, poses, blink, self.duration)
        self._update_panels()

    def set_frame(self, frame: int) -> None:
        """Select a frame in all panels."""
        if frame == self.frame:
            return
        self.frame = frame
        for chart in self._made("audio_chart", "attention_chart"):
            chart.set_frame(frame)
        for orbit in self._made("orbit"):
            orbit.show(frame=frame)

    def frame_jpeg(self, frame: int) -> bytes:
        """A frame seen from the front, as a JPEG; rendered once for all panels."""
        cache = self._jpegs  # another thread may replace it
        if frame not in cache:
            cache = self._jpegs = {frame: encode(self.viewer.picture(frame))}
        return cache[frame]

    def _change(self, audio: str | Path, features: Optional[str | Path], poses: Poses, blink: Blink,
                duration: Optional[float]) -> None:
        script = audio_script(self.renderer, audio, features, poses, blink, duration=duration)
        curves = compute_audio_curves(self.renderer, script)
        self.viewer.set_script(script)
        self.script, self.curves = script, curves
        self.frame, self._jpegs = 0, {}
        self.audio, self.features, self.poses, self.blink, self.duration = audio, features, poses, blink, duration
        self._settings: tuple[Any, ...] = (audio, features, poses, blink, duration)

    def _made(self, *names: str) -> list[Any]:
        """Those of the panels that were used so far."""
        return [getattr(self, name) for name in names if name in vars(self)]

    def _update_panels(self) -> None:
        for chart in self._made("audio_chart", "attention_chart"):
            chart.set_curves(self.curves)
        for orbit in self._made("orbit"):
            orbit.show(frame=0)
        for panel in self._made("video_panel", "export"):
            panel.reset()
        for speech in self._made("speech"):
            speech.refresh()

    # ---- results ----

    @property
    def render_arguments(self) -> dict[str, Any]:
        """Arguments of `egs.render`, `egs.export_frames` and `egs.export_ply` for the current audio and motion."""
        return {"audio": self.audio, "features": self.features, "poses": self.poses, "blink": self.blink,
                "duration": self.duration}

    @property
    def predicted_opening(self) -> np.ndarray:
        """Mouth opening that is predicted from the audio, [F] lip gap over face height."""
        return self.curves.opening

    @property
    def w2c(self) -> np.ndarray:
        """The poses of the clip's frames that the head was trained with, [N, 4, 4] float32, see `Head.w2c`."""
        return self.renderer.w2c

    def video(self) -> Video:
        """The video of the current audio and motion; waits for it, and starts the rendering if necessary."""
        return self.video_panel.result()

    @torch.no_grad()
    def background(self, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """What lies behind the Gaussians in some frames: torso layer over the background plate.

        Args:
            frames: [B] of the video.

        Returns:
            [B, S, S, 3] uint8.
        """
        layers = self.head.torso(self.renderer.torso_codes(self.script)[list(frames)])
        return (layers.clamp(0, 1) * 255).round().byte().cpu().numpy()

    def video_path(self) -> Optional[Path]:
        """Where the video is written: to `out` as long as nothing was changed; None: to a name in the run folder."""
        return Path(self.out) if self.out is not None and self._settings == self._first else None

    # ---- panels ----

    @cached_property
    def speech(self) -> SpeechInput:
        """Upload, record or synthesise the driving audio."""
        return SpeechInput(self.set_audio, lambda: (self.audio, cast(np.ndarray, self.script.wave)),
                           self.run.root / "renders" / "speech")

    @cached_property
    def audio_chart(self) -> AudioChart:
        """Waveform, features and predicted mouth opening."""
        return AudioChart(self.curves, self.set_frame, self.frame_jpeg)

    @cached_property
    def video_panel(self) -> VideoPanel:
        """The video, with controls for poses and blinks."""
        return VideoPanel(self)

    @cached_property
    def orbit(self) -> Orbit:
        """The head from any side."""
        return Orbit(self.viewer, self.set_frame)

    @cached_property
    def attention_chart(self) -> AttentionChart:
        """Mean attention of the parts of the face."""
        return AttentionChart(self.curves, self.set_frame, self.frame_jpeg)

    @cached_property
    def export(self) -> ExportPanel:
        """Files for other programs."""
        return ExportPanel(self)
