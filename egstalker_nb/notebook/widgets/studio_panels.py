"""The panels of a `Studio` that write files: the rendered video, and exports for other programs."""
from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional

import ipywidgets

from ...core.table import Table
from ...media.rates import FPS
from ...rendering.export import Exported, export_frames, export_ply
from ...rendering.motion import MAX_BLINK_RATE
from ...rendering.render import Video, render
from .base import HasHtml, Panel, choices, live, media, slider
from .job import Job

if TYPE_CHECKING:
    from .studio import Studio

ExportKind = Literal["mp4", "png", "jpeg", "ply"]
PATHS = ("cycle", "static", "orbit")
FROM_FILE = "folder or .npy"
USUAL_BLINK_RATE = 17  # a minute
#: entries of the menu -> kind of files
EXPORT_KINDS: dict[str, ExportKind] = {"MP4 video with audio": "mp4", "PNG frames": "png", "JPEG frames": "jpeg",
                                       "PLY of every frame": "ply"}
#: contents of each kind, and the function that writes it
EXPORT_DETAILS = (("video and audio, 25 frames per second", "render(...)"),
                  ("lossless frames, sound.wav, cameras", "export_frames(...)"),
                  ("smaller frames, sound.wav, cameras", 'export_frames(..., format="jpeg")'),
                  ("the deformed Gaussians, 3DGS layout, sound.wav, cameras", "export_ply(...)"))


class StudioJob(Panel):
    """A job on what the head shows, with controls that are disabled while it runs.

    Attributes:
        job: the current one; another takes its place whenever its input changes.
        controls: see above.
        place: where the buttons of the current job are.
    """

    job: Job[Any]
    controls: list[ipywidgets.Widget]
    place: ipywidgets.VBox

    def new_job(self, work: Callable[[], Any], name: str) -> Job[Any]:
        """A job that updates the panel, unless another took its place."""
        job: Job[Any] = Job(work, name)
        job.watchers.append(lambda: self._progressed() if job is self.job else None)
        return job

    def _progressed(self) -> None:
        self.refresh()

    def redraw(self) -> None:
        for control in self.controls:
            control.disabled = self.job.busy
        if self.place.children != (self.job.widget,):
            self.place.children = [self.job.widget]


class VideoPanel(StudioJob):
    """The video of the current audio, with controls for poses and blinks."""

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.rendered: Optional[Video] = None
        self.job = self._render_job()

    def result(self) -> Video:
        """The video; waits for it, and starts the rendering if necessary."""
        return self.job.result()

    def _render_job(self) -> Job[Video]:
        return self.new_job(lambda: render(self.studio.run, out=self.studio.video_path(),
                                           **self.studio.render_arguments), "render")

    def _progressed(self) -> None:
        if self.job.state == "done":
            self.rendered = self.job.value
        super()._progressed()

    def reset(self) -> None:
        """Audio or motion changed: the video has to be rendered again."""
        self.job.stop()
        self.job, self.rendered = self._render_job(), None
        self.refresh()

    def build(self) -> ipywidgets.Widget:
        poses, blink = self.studio.poses, self.studio.blink
        named = isinstance(poses, str) and poses in PATHS
        rate = int(blink) if isinstance(blink, (int, float)) else None
        self.poses = choices("poses", [*PATHS, FROM_FILE], poses if named else FROM_FILE)
        self.folder = ipywidgets.Text("" if named else str(poses), continuous_update=False,
                                      placeholder="a dataset's folder, or cameras .npy")
        self.blink = choices("blinks", [("as in the clip", "dataset"), ("random", "random")],
                             "dataset" if rate is None else "random")
        self.rate = slider("per minute", 0, int(MAX_BLINK_RATE), USUAL_BLINK_RATE if rate is None else rate)
        self.rate.continuous_update = False
        self.controls = [self.poses, self.folder, self.blink, self.rate]
        for control in self.controls:
            control.observe(self.guarded(self._chosen), "value")
        self.place, self.screen = ipywidgets.VBox(), ipywidgets.VBox()
        self._show_needed()
        return ipywidgets.VBox([ipywidgets.HBox([self.poses, self.folder]), ipywidgets.HBox([self.blink, self.rate]),
                                self.note, self.place, self.screen])

    def redraw(self) -> None:
        super().redraw()
        if self.job.state == "done" and self.rendered is not None:
            caption = ipywidgets.HTML(f"<code>{escape(str(self.rendered))}</code>")
            self.screen.children = [media(self.rendered.path, "video"), caption]

    def _show_needed(self) -> None:
        """Hide the controls that the menus make irrelevant."""
        self.folder.layout.visibility = "visible" if self.poses.value == FROM_FILE else "hidden"
        self.rate.layout.visibility = "visible" if self.blink.value == "random" else "hidden"

    def _chosen(self, _: dict[str, Any]) -> None:
        self._show_needed()
        poses = self.folder.value.strip() if self.poses.value == FROM_FILE else self.poses.value
        blink = float(self.rate.value) if self.blink.value == "random" else "dataset"
        if poses and (poses, blink) != (self.studio.poses, self.studio.blink):
            self.studio.set_motion(poses, blink)
            self.show_message("Press Start to render the video.")

    def still(self) -> HasHtml:
        """The video itself in a headless run, where nobody can press a button."""
        return self.rendered or (self.job.still() if live() else self.result())


class ExportPanel(StudioJob):
    """Files for other programs: the video, its frames, or a PLY per frame.

    Attributes:
        kind, seconds: what is exported.
        done: the finished exports.
    """

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.done: list[Exported | Video] = []
        self.kind: ExportKind = "png"
        self.seconds = min(1.0, len(studio.script) / FPS)
        self.job = self._export_job()

    def write(self, kind: ExportKind, seconds: float, out: Optional[str | Path] = None) -> Exported | Video:
        """Export the first seconds, see `egs.render`, `egs.export_frames` and `egs.export_ply`.

        Args:
            kind: mp4, png, jpeg or ply.
            seconds: from the start.
            out: file or folder; default: a name in the run folder.
        """
        arguments = {**self.studio.render_arguments, "duration": seconds}
        run, audio = self.studio.run, arguments.pop("audio")
        made: Exported | Video
        if kind == "mp4":
            name = f"{Path(audio).stem}_{seconds:g}s.mp4"
            made = render(run, audio, out or run.root / "renders" / name, **arguments)
        elif kind == "ply":
            made = export_ply(run, audio, out, **arguments)
        else:
            made = export_frames(run, audio, out, kind, **arguments)
        self.done.append(made)
        return made

    def _export_job(self) -> Job[Exported | Video]:
        return self.new_job(lambda: self.write(self.kind, self.seconds), "export")

    def _progressed(self) -> None:
        super()._progressed()
        if self.job.state == "done":
            self.show_message(str(self.job.value))

    def reset(self) -> None:
        """The input changed: a new export can be started."""
        self.job.stop()
        self.seconds = min(self.seconds, len(self.studio.script) / FPS)
        self.job = self._export_job()
        self.refresh()

    def build(self) -> ipywidgets.Widget:
        chosen = next(name for name, kind in EXPORT_KINDS.items() if kind == self.kind)
        self.choice = choices("files", list(EXPORT_KINDS), chosen)
        self.length = slider("seconds", 1 / FPS, len(self.studio.script) / FPS, self.seconds, 1 / FPS)
        self.controls = [self.choice, self.length]
        for control in self.controls:
            control.observe(self._chosen, "value")
        self.place = ipywidgets.VBox()
        return ipywidgets.VBox([*self.controls, self.place, self.note])

    def redraw(self) -> None:
        super().redraw()
        self.length.max = len(self.studio.script) / FPS

    def _chosen(self, _: dict[str, Any]) -> None:
        kind, seconds = EXPORT_KINDS[self.choice.value], self.length.value
        if (kind, seconds) != (self.kind, self.seconds):
            self.kind, self.seconds = kind, seconds
            self.show_message("")
            self.reset()

    def still(self) -> Table:
        rows: list[tuple[Any, ...]] = [(name, contents, f"egs.{call}", None, None)
                                       for name, (contents, call) in zip(EXPORT_KINDS, EXPORT_DETAILS)]
        for made in self.done:
            if isinstance(made, Video):
                rows.append(("written", made.path, None, made.frames, made.path.stat().st_size / 2 ** 20))
            else:
                rows.append(("written", made.folder, None, len(made.files), made.bytes / 2 ** 20))
        return Table(("files", "contents", "function", "frames", "MiB"), rows)
