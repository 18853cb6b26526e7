"""One head and what it is made to say: speech in, curves, video, a view from any side, and files out.

The panels of a `Studio` belong together: another sound, pose or frame in one of them changes all.
"""
from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Optional

import ipywidgets

from ...analysis.audio_curves import Timeline, timeline
from ...core.table import Table
from ...media.rates import FPS
from ...rendering.export import Exported, export_frames, export_ply
from ...rendering.motion import MAX_BLINK_RATE, Blink, Poses
from ...rendering.render import Video, render
from ...rendering.renderer import Renderer, Script, audio_script
from ...training.run import Run
from .base import Panel, choices, encode, live, media, slider
from .job import Job
from .orbit import Orbit, Viewer
from .speech_input import SpeechIn
from .timeline import AttentionChart, SoundChart

PATHS = ("cycle", "static", "orbit")
ELSEWHERE = "folder or .npy"
KINDS = {"MP4 video with sound": "mp4", "PNG frames": "png", "JPEG frames": "jpeg", "PLY of every frame": "ply"}
#: what is in the files of each kind, and the function that writes them
ABOUT = (("picture and sound, 25 frames a second", "render(...)"),
         ("pictures without loss, sound.wav, cameras", "export_frames(...)"),
         ("smaller pictures, sound.wav, cameras", 'export_frames(..., format="jpeg")'),
         ("the deformed Gaussians, 3DGS layout, sound.wav, cameras", "export_ply(...)"))


class Studio:
    """What the panels share.

    Args:
        run: see `load_run`. audio, features, poses, blink, duration: what the head says first, see `egs.render`.
        out: the MP4 of that. size: px of the view from any side.

    Attributes:
        renderer: draws the head. audio: the sound file. script: what each frame shows. curves: the script over time.
        frame: the chosen one. poses, blink: as for `egs.render`.
    """

    def __init__(self, run: Run, audio: str | Path, features: Optional[str | Path] = None, poses: Poses = "cycle",
                 blink: Blink = "dataset", duration: Optional[float] = None, out: Optional[str | Path] = None,
                 size: int = 256):
        self.run, self.out, self.frame = run, out, 0
        self.renderer = Renderer.from_run(run)
        self.head = self.renderer.head
        self.viewer = Viewer(self.renderer, size)
        self._first: Optional[tuple] = None
        self._say(audio, features, poses, blink, duration)
        self._first = self._settings

    def say(self, audio: str | Path, features: Optional[str | Path] = None, duration: Optional[float] = None) -> None:
        """Let the head say something else; every panel follows.

        Raises:
            InputError: unusable sound or features. The old sound stays.
        """
        self._say(audio, features, self.poses, self.blink, duration)
        self._follow()

    def move(self, poses: Optional[Poses] = None, blink: Optional[Blink] = None) -> None:
        """Other poses or blinks, see `egs.render`.

        Raises:
            InputError: poses or blinks that cannot be used. The old ones stay.
        """
        poses, blink = self.poses if poses is None else poses, self.blink if blink is None else blink
        self._say(self.audio, self.features, poses, blink, self.duration)
        self._follow()

    def point(self, frame: int) -> None:
        """Choose a frame in all panels."""
        if frame == self.frame:
            return
        self.frame = frame
        for name in ("sound", "attention"):
            if name in self.__dict__:
                getattr(self, name).point(frame)
        if "orbit" in self.__dict__:
            self.orbit.show(frame=frame)

    def shot(self, frame: int) -> bytes:
        """A frame seen from the front, as a JPEG; drawn once for all panels."""
        shots = self._shots  # another thread may put others in its place
        if frame not in shots:
            shots = self._shots = {frame: encode(self.viewer.picture(frame))}
        return shots[frame]

    def _say(self, audio: Any, features: Any, poses: Poses, blink: Blink, duration: Optional[float]) -> None:
        script = audio_script(self.renderer, audio, features, poses, blink, duration=duration)
        curves = timeline(self.renderer, script)
        self.viewer.speak(script)
        self.script: Script = script
        self.curves: Timeline = curves
        self.frame, self._shots = 0, {}
        self._settings = (audio, features, poses, blink, duration)
        self.audio, self.features, self.poses, self.blink, self.duration = self._settings

    def _follow(self) -> None:
        for name in ("sound", "attention"):
            if name in self.__dict__:
                getattr(self, name).speak(self.curves)
        if "orbit" in self.__dict__:
            self.orbit.show(frame=0)
        for name in ("film", "export", "speech"):
            if name in self.__dict__:
                getattr(self, name).follow()

    @property
    def given(self) -> dict[str, Any]:
        """Arguments of `egs.render`, `egs.export_frames` and `egs.export_ply` for what is said now."""
        return {"audio": self.audio, "features": self.features, "poses": self.poses, "blink": self.blink,
                "duration": self.duration}

    def place(self) -> Optional[Path]:
        """Where the video goes: to `out` as long as nothing was changed."""
        return self.out if self._settings == self._first else None

    @cached_property
    def speech(self) -> SpeechIn:
        """Upload, record or type what is said."""
        return SpeechIn(self.say, lambda: (self.audio, self.script.wave), self.run.root / "renders" / "speech")

    @cached_property
    def sound(self) -> SoundChart:
        """Waveform, features and the mouth called for."""
        return SoundChart(self.curves, self.point, self.shot)

    @cached_property
    def film(self) -> "Film":
        """The video, with poses and blinks."""
        return Film(self)

    @cached_property
    def orbit(self) -> Orbit:
        """The head from any side."""
        return Orbit(self.viewer, self.point)

    @cached_property
    def attention(self) -> AttentionChart:
        """What the parts of the face attend to."""
        return AttentionChart(self.curves, self.point, self.shot)

    @cached_property
    def export(self) -> "Export":
        """Files for other programs."""
        return Export(self)


def _rest(controls: list[ipywidgets.Widget], job: Job) -> None:
    """Controls of what a job works on rest while it works."""
    for control in controls:
        control.disabled = job.busy


class Film(Panel):
    """The video of what is said, rendered behind buttons, with controls for poses and blinks."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.video: Optional[Video] = None
        self.job = self._new_job()

    def result(self) -> Video:
        """The video; it is rendered if need be, and waited for."""
        return self.job.result()

    def _new_job(self) -> Job[Video]:
        job = Job(lambda: render(self.studio.run, out=self.studio.place(), **self.studio.given), "render")
        job.watchers.append(lambda: self._progressed(job))
        return job

    def _progressed(self, job: Job) -> None:
        if job is not self.job:  # of what was said before
            return
        if job.state == "done":
            self.video = job.value
        if "widget" in self.__dict__:
            _rest(self.controls, job)
            if job.state == "done":
                line = ipywidgets.HTML(f"<code>{escape(str(self.video))}</code>")
                self.screen.children = [media(self.video.path, "video"), line]

    def follow(self) -> None:
        """What is said has changed: the video is to be rendered again."""
        self.job.stop()
        self.job, self.video = self._new_job(), None
        if "widget" in self.__dict__:
            _rest(self.controls, self.job)
            self.place.children = [self.job.widget]

    def build(self) -> ipywidgets.Widget:
        named = isinstance(self.studio.poses, str) and self.studio.poses in PATHS
        drawn = isinstance(self.studio.blink, (int, float))
        self.poses = choices("poses", [*PATHS, ELSEWHERE], self.studio.poses if named else ELSEWHERE)
        self.folder = ipywidgets.Text("" if named else str(self.studio.poses), continuous_update=False,
                                      placeholder="a dataset's folder, or cameras .npy")
        self.blink = choices("blinks", [("the clip's own", "dataset"), ("drawn", "drawn")],
                             "drawn" if drawn else "dataset")
        self.rate = slider("a minute", 0, int(MAX_BLINK_RATE), int(self.studio.blink) if drawn else 17)
        self.rate.continuous_update = False
        self.controls = [self.poses, self.folder, self.blink, self.rate]
        for control in self.controls:
            control.observe(self.guarded(self._chosen), "value")
        self.place, self.screen = ipywidgets.VBox([self.job.widget]), ipywidgets.VBox()
        self._enable()
        box = ipywidgets.VBox([ipywidgets.HBox([self.poses, self.folder]), ipywidgets.HBox([self.blink, self.rate]),
                               self.note, self.place, self.screen])
        return box

    def _enable(self) -> None:
        self.folder.layout.visibility = "visible" if self.poses.value == ELSEWHERE else "hidden"
        self.rate.layout.visibility = "visible" if self.blink.value == "drawn" else "hidden"

    def _chosen(self, _: dict) -> None:
        self._enable()
        poses = self.folder.value.strip() if self.poses.value == ELSEWHERE else self.poses.value
        blink = float(self.rate.value) if self.blink.value == "drawn" else "dataset"
        if poses and (poses, blink) != (self.studio.poses, self.studio.blink):
            self.studio.move(poses, blink)
            self.say("Press Start to render it.")

    def still(self) -> Any:
        """The video itself where nobody can press a button."""
        return self.video or (self.job.still() if live() else self.result())


class Export(Panel):
    """Files for other programs: the video, its frames, or a PLY for each."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.done: list[Exported | Video] = []
        self.kind, self.seconds = "png", min(1.0, len(studio.script) / FPS)
        self.job = self._new_job()

    def write(self, kind: str, seconds: float, out: Optional[str | Path] = None) -> Exported | Video:
        """Export the first seconds; kind: mp4, png, jpeg or ply. See `egs.export_frames` and `egs.export_ply`."""
        given = {**self.studio.given, "duration": seconds}
        run, audio = self.studio.run, given.pop("audio")
        if kind == "mp4":
            name = f"{Path(audio).stem}_{seconds:g}s.mp4"
            made = render(run, audio, out or run.root / "renders" / name, **given)
        else:
            made = (export_ply(run, audio, out, **given) if kind == "ply"
                    else export_frames(run, audio, out, kind, **given))
        self.done.append(made)
        return made

    def _new_job(self) -> Job:
        job = Job(lambda: self.write(self.kind, self.seconds), "export")
        job.watchers.append(lambda: self._progressed(job))
        return job

    def _progressed(self, job: Job) -> None:
        if "widget" in self.__dict__ and job is self.job:
            _rest(self.controls, job)
            if job.state == "done":
                self.say(str(job.value))

    def follow(self, *_: Any) -> None:
        """Something else is to be exported now."""
        self.job.stop()
        self.seconds = min(self.seconds, len(self.studio.script) / FPS)
        self.job = self._new_job()
        if "widget" in self.__dict__:
            _rest(self.controls, self.job)
            self.length.max = len(self.studio.script) / FPS
            self.place.children = [self.job.widget]

    def build(self) -> ipywidgets.Widget:
        self.choice = choices("files", list(KINDS), next(name for name, kind in KINDS.items() if kind == self.kind))
        self.length = slider("seconds", 1 / FPS, len(self.studio.script) / FPS, self.seconds, 1 / FPS)
        self.controls = [self.choice, self.length]
        for control in self.controls:
            control.observe(self._chosen, "value")
        self.place = ipywidgets.VBox([self.job.widget])
        return ipywidgets.VBox([*self.controls, self.place, self.note])

    def _chosen(self, _: dict) -> None:
        kind, seconds = KINDS[self.choice.value], self.length.value
        if (kind, seconds) != (self.kind, self.seconds):
            self.kind, self.seconds = kind, seconds
            self.say("")
            self.follow()

    def still(self) -> Table:
        files = [(name, about, f"egs.{call}", None, None) for name, (about, call) in zip(KINDS, ABOUT)]
        done = [("written", made.path if isinstance(made, Video) else made.folder, None,
                 made.frames if isinstance(made, Video) else len(made.files),
                 (made.path.stat().st_size if isinstance(made, Video) else made.bytes) / 2 ** 20) for made in self.done]
        return Table(("files", "what is in them", "as a function", "frames", "MiB"), files + done)
