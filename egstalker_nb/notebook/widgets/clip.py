"""Panels for a clip before, during and after its preparation: video picker, list of steps, background plate."""
from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, Optional, Sequence

import cv2
import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from ...core.errors import EgsError
from ...core.table import Table
from ...data.dataset import Dataset
from ...media.rates import FPS
from ...media.video_reader import VideoInfo, read_frames
from ...preparation.pipeline import check_video, prepare
from ...preparation.steps import WORK
from .. import plots
from .base import Panel, choices, encode, image, slider
from .job import Job
from .upload import Upload
from .wipe import Wipe

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
PREVIEW_AT = (0, 0.25, 0.5, 0.75)  # positions of the four preview frames, shares of the clip
PREVIEW_HEIGHT = 200               # px on screen
#: the steps of a preparation in order; the names are those of the report
PREPARATION_STEPS = {
    "scan": "detect faces, cuts and damaged frames", "track": "track 478 landmarks",
    "pose": "estimate the head poses and the mean face",
    "frames": "crop the square around the head; segment head, torso and background",
    "camera": "measure the camera's motion and exposure",
    "plate": "reconstruct the background plate", "sound": "align the audio with the lips, compute its features"}
STEP_STATES = {"done": "\u2713 done", "running": "\u25b6 running", "waiting": "\u00b7 waiting"}


@lru_cache(16)
def preview(video: Path, stamp: float) -> tuple[VideoInfo, tuple[float, ...], tuple[np.ndarray, ...]]:
    """Properties of a video, and the times in seconds and images of four frames. stamp: its time of modification."""
    info = check_video(video)
    ids = sorted({int(part * (info.frames_at() - 1)) for part in PREVIEW_AT})
    return info, tuple(i / FPS for i in ids), tuple(next(iter(read_frames(video, start=i))) for i in ids)


class VideoPicker(Panel):
    """Choose a video from some folders, or upload one; shows its properties and four of its frames.

    Args:
        video: the initial choice.
        folders: where videos are looked for; uploads are saved into the first one.

    Attributes:
        video: path of the choice.
        info: its properties, see `probe`.
        images: four frames, [H, W, 3] uint8.
        times: of these frames, seconds.

    Raises:
        InputError: that video is missing, not a video, or without audio.
    """

    def __init__(self, video: str | Path, folders: Sequence[str | Path] = ("../data", "../data/sample")):
        self.folders, self.first = [Path(folder) for folder in folders], str(video)
        self.video = self.first
        self._filling = False  # the menu is being updated: its events are no choices
        self.upload = Upload(self.folders[0], VIDEO_SUFFIXES, check_video, self._uploaded, self.show_message)
        self.choose(video)

    def __repr__(self) -> str:
        return f"VideoPicker: {self.video}, {self.facts()}"

    def options(self) -> dict[str, str]:
        """The choices, the initial one first: file and folder name (the path, where two share that) -> path."""
        found = [p for folder in self.folders if folder.is_dir() for p in sorted(folder.iterdir())
                 if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file() and not p.name.startswith(".")]
        listed = [self.first, self.video, *map(str, found)]
        paths = {Path(text).resolve(): text for text in reversed(listed)}
        named: dict[str, str] = {}
        for path, text in reversed(paths.items()):
            name = f"{path.name} ({path.parent.name})"
            named[text if name in named else name] = text  # folders in different places may share a name
        return named

    def choose(self, video: str | Path) -> None:
        """Choose another video; an unusable one is rejected, and the choice stays.

        Raises:
            InputError: as above.
        """
        path = Path(video)
        stamp = path.stat().st_mtime if path.is_file() else 0.0
        self.info, self.times, self.images = preview(path, stamp)
        self.video = str(video)
        self.refresh()

    def folder(self, usual: str | Path, size: int) -> str:
        """The dataset folder of the choice: `usual` for the initial video, one named after the video for any other."""
        if self.video == self.first:
            return str(usual)
        return str(Path(usual).parent / f"{Path(self.video).stem}-{size}")

    def facts(self) -> str:
        """One line about the video."""
        turned = f", rotated by {self.info.rotation} degrees" if self.info.rotation else ""
        return (f"{self.info.width} x {self.info.height} px{turned}, {self.info.num_frames} frames at "
                f"{self.info.fps:.4g} per second, {self.info.duration:.1f} s, "
                f"{'with' if self.info.has_audio else 'without'} audio")

    def _uploaded(self, path: Path) -> None:
        self.choose(path)
        self.show_message(f"saved as {path}")

    # ---- interactive and static form ----

    def build(self) -> ipywidgets.Widget:
        self.menu = choices("video", list(self.options().items()), self._chosen())
        self.again = ipywidgets.Button(icon="refresh", description="Refresh", tooltip="search the folders again")
        self.text, self.strip = ipywidgets.HTML(), image(self._strip(), width=None)
        self.menu.observe(self.guarded(self._picked), "value")
        self.again.on_click(self.guarded(lambda _: self.refresh()))
        row = ipywidgets.HBox([self.menu, self.again, self.upload.build()],
                              layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        return ipywidgets.VBox([row, self.note, self.text, self.strip])

    def _chosen(self) -> str:
        return next(text for text in self.options().values() if Path(text).resolve() == Path(self.video).resolve())

    def _picked(self, change: Any) -> None:
        if change["new"] is None or self._filling:
            return
        try:
            self.choose(change["new"])
        except EgsError:
            self.refresh()  # the menu goes back to the current choice
            raise

    def redraw(self) -> None:
        self._filling = True
        try:
            self.menu.options = list(self.options().items())
            self.menu.value = self._chosen()
        finally:
            self._filling = False
        self.text.value = f"<b>{escape(Path(self.video).name)}</b>: {escape(self.facts())}"
        self.strip.value = encode(self._strip())

    def _strip(self) -> np.ndarray:
        """The four preview frames in a row, scaled to the size on screen."""
        small = [(max(1, round(p.shape[1] * PREVIEW_HEIGHT / p.shape[0])), PREVIEW_HEIGHT) for p in self.images]
        return np.hstack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p, size in zip(self.images, small)])

    def still(self) -> Figure:
        figure = plots.image_grid(list(self.images), [f"{t:.1f} s" for t in self.times])
        figure.suptitle(plots.plain(f"{Path(self.video).name}: {self.facts()}"), fontsize=10)
        return figure


class Preparation(Job[Dataset]):
    """`egs.prepare` as a `Job`, with the list of its steps; `.result()` returns the dataset.

    Args:
        video, folder, settings: as for `egs.prepare`.
    """

    def __init__(self, video: str | Path, folder: str | Path, **settings: Any):
        super().__init__(lambda: prepare(video, folder, **settings), f"prepare {Path(folder).name}")
        self.root = Path(folder)

    def steps(self) -> list[tuple[str, str, str, Optional[float]]]:
        """Name, description, state (done, running or waiting) and seconds of each step."""
        took, finished = self._seconds(), (self.root / "dataset.json").is_file()  # an earlier version had fewer steps
        todo = [name for name in PREPARATION_STEPS if name not in took]
        return [(name, what, "done" if finished or name in took
                 else "running" if self.busy and name == todo[0] else "waiting", took.get(name))
                for name, what in PREPARATION_STEPS.items()]

    def _seconds(self) -> dict[str, float]:
        """How long each finished step took."""
        if (self.root / "dataset.json").is_file():
            return json.loads((self.root / "report.json").read_text(encoding="utf-8"))["seconds_per_step"]
        took = {}
        for name in PREPARATION_STEPS:
            with suppress(FileNotFoundError):  # not done yet, or just being removed
                record = (self.root / WORK / name / "done.json").read_text(encoding="utf-8")
                took[name] = json.loads(record)["seconds"]
        return took

    def build(self) -> ipywidgets.Widget:
        self.list = ipywidgets.HTML()
        return ipywidgets.VBox([super().build(), self.list])

    def redraw(self) -> None:
        super().redraw()
        # this class gives the table the look of an output
        self.list.value = f"<div class='jp-RenderedHTMLCommon'>{self.still()._repr_html_()}</div>"

    def still(self) -> Table:
        return Table(("step", "description", "state", "time (s)"),
                     [(name, what, STEP_STATES[state], seconds) for name, what, state, seconds in self.steps()],
                     f"dataset folder: {self.root}")


class PlateWipe(Panel):
    """Wipe between any frame and the background plate, which is inpainted behind the person.

    Args:
        ds: a dataset.
        frame: the initial frame; default: the middle one.
    """

    def __init__(self, ds: Dataset, frame: Optional[int] = None):
        self.ds, self.frame = ds, len(ds) // 2 if frame is None else frame
        self.wipe = Wipe(ds.frame(self.frame), ds.plate, self._names(), width=max(384, min(ds.size, 512)))

    def _names(self) -> tuple[str, str]:
        return f"frame {self.frame}", "background plate"

    def set_frame(self, frame: int) -> None:
        """Compare another frame with the plate."""
        self.frame = int(frame)
        self.wipe.show(self.ds.frame(self.frame), self.ds.plate, self._names())

    def build(self) -> ipywidgets.Widget:
        chosen = slider("frame", 0, len(self.ds) - 1, self.frame)
        chosen.observe(self.guarded(lambda change: self.set_frame(change["new"])), "value")
        return ipywidgets.VBox([chosen, self.wipe.widget, self.note])

    def still(self) -> Figure:
        return self.wipe.still()
