"""The clip before and while it is prepared: choosing a video, watching the work, the plate behind the person."""
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

KINDS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
SHOTS = (0, 0.25, 0.5, 0.75)  # of the clip, where the four pictures are taken
SHOT_HEIGHT = 200             # px on the screen
#: what preparation does in turn; the names are those of the report
STEPS = {"scan": "faces are found, cuts and damage noticed", "track": "478 landmarks are tracked",
         "pose": "pose of the head, its mean shape",
         "frames": "the square around the head is cut out; head, torso and background are told apart",
         "plate": "the background behind the person", "sound": "sound moved in time with the lips, its features"}
SIGNS = {"done": "\u2713 done", "running": "\u25b6 running", "waiting": "\u00b7 waiting"}


@lru_cache(16)
def shots(video: Path, stamp: float) -> tuple[VideoInfo, tuple[float, ...], tuple[np.ndarray, ...]]:
    """What a video holds: its properties, and four frames with their times in seconds. stamp: when it was changed."""
    info = check_video(video)
    ids = sorted({int(part * (info.frames_at() - 1)) for part in SHOTS})
    return info, tuple(i / FPS for i in ids), tuple(next(iter(read_frames(video, start=i))) for i in ids)


class VideoPicker(Panel):
    """Choose a video that lies in some folders, or upload one; shows what it holds and four of its frames.

    Attributes:
        video: path of the choice. info: what `probe` finds in it. images: its four frames, [H, W, 3] uint8;
        times: theirs, seconds.

    Args:
        video: chosen at first. folders: where videos are looked for; uploads are saved into the first one.

    Raises:
        InputError: that video is missing, not a video, or without sound.
    """

    def __init__(self, video: str | Path, folders: Sequence[str | Path] = ("../data", "../data/sample")):
        self.folders, self.first = [Path(folder) for folder in folders], str(video)
        self.upload = Upload(self.folders[0], KINDS, check_video, self._uploaded, self.say)
        self.choose(video)

    def __repr__(self) -> str:
        return f"VideoPicker: {self.video}, {self.facts()}"

    def options(self) -> dict[str, str]:
        """What can be chosen: name and folder (where that is taken, the path) -> path; the first choice comes first."""
        found = [p for folder in self.folders if folder.is_dir() for p in sorted(folder.iterdir())
                 if p.suffix.lower() in KINDS and p.is_file() and not p.name.startswith(".")]
        paths = {Path(p).resolve(): str(p) for p in reversed([self.first, self.video, *found])}
        named: dict[str, str] = {}
        for path, text in reversed(paths.items()):
            name = f"{path.name} ({path.parent.name})"
            named[text if name in named else name] = text  # folders of one name may lie in different places
        return named

    def choose(self, video: str | Path) -> None:
        """Look at another video and take it; a bad one is refused, and the choice stays.

        Raises:
            InputError: as above.
        """
        path = Path(video)
        stamp = path.stat().st_mtime if path.is_file() else 0.0
        self.info, self.times, self.images = shots(path, stamp)
        self.video = str(video)
        self.refresh()

    def folder(self, usual: str | Path, size: int) -> str:
        """Where to prepare the choice: `usual` for the video chosen at first, one named after it for any other."""
        if self.video == self.first:
            return str(usual)
        return str(Path(usual).parent / f"{Path(self.video).stem}-{size}")

    def facts(self) -> str:
        """One line about the video."""
        turned = f", turned by {self.info.rotation} degrees" if self.info.rotation else ""
        return (f"{self.info.width} x {self.info.height} px{turned}, {self.info.num_frames} frames at "
                f"{self.info.fps:.4g} per second, {self.info.duration:.1f} s, "
                f"{'with' if self.info.has_audio else 'without'} sound")

    def _uploaded(self, path: Path) -> None:
        self.choose(path)
        self.say(f"saved as {path}")

    # ---- the two forms ----

    def build(self) -> ipywidgets.Widget:
        self.menu = choices("video", list(self.options().items()), self._chosen())
        self.again = ipywidgets.Button(icon="refresh", tooltip="look again for videos", description="Look again")
        self.text, self.strip = ipywidgets.HTML(), image(self._strip(), width=None)
        self.menu.observe(self.guarded(self._picked), "value")
        self.again.on_click(self.guarded(lambda _: self.refresh()))
        row = ipywidgets.HBox([self.menu, self.again, self.upload.build()],
                              layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        self._built = True
        self.refresh()
        return ipywidgets.VBox([row, self.note, self.text, self.strip])

    def _chosen(self) -> str:
        return next(text for text in self.options().values() if Path(text).resolve() == Path(self.video).resolve())

    def _picked(self, change: Any) -> None:
        if change["new"] is None or self._filling:
            return
        try:
            self.choose(change["new"])
        except EgsError:
            self.refresh()  # the menu goes back to what is still chosen
            raise

    _built, _filling = False, False

    def refresh(self) -> None:
        """Bring the controls up to date with the folders and the choice."""
        if not self._built:
            return
        self._filling = True
        try:
            self.menu.options = list(self.options().items())
            self.menu.value = self._chosen()
        finally:
            self._filling = False
        self.text.value = f"<b>{escape(Path(self.video).name)}</b>: {escape(self.facts())}"
        self.strip.value = encode(self._strip())

    def _strip(self) -> np.ndarray:
        """The four frames in a row, as small as they are shown."""
        small = [(max(1, round(p.shape[1] * SHOT_HEIGHT / p.shape[0])), SHOT_HEIGHT) for p in self.images]
        return np.hstack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p, size in zip(self.images, small)])

    def still(self) -> Figure:
        figure = plots.pictures(list(self.images), [f"{t:.1f} s" for t in self.times])
        figure.suptitle(f"{Path(self.video).name}: {self.facts()}", fontsize=10)
        return figure


class Preparation(Job[Dataset]):
    """`prepare` behind buttons, with the list of its steps; `.result()` gives the dataset.

    Args:
        video, folder, settings: as for `egs.prepare`.
    """

    def __init__(self, video: str | Path, folder: str | Path, **settings: Any):
        super().__init__(lambda: prepare(video, folder, **settings), f"prepare {Path(folder).name}")
        self.root = Path(folder)

    def steps(self) -> list[tuple[str, str, str, Optional[float]]]:
        """Each step with what it does, done, running or waiting, and the seconds that it took."""
        took = self._seconds()
        todo = [name for name in STEPS if name not in took]
        return [(name, what, "done" if name in took else "running" if self.busy and name == todo[0] else "waiting",
                 took.get(name)) for name, what in STEPS.items()]

    def _seconds(self) -> dict[str, float]:
        """Of the steps that are done."""
        if (self.root / "dataset.json").is_file():
            return json.loads((self.root / "report.json").read_text(encoding="utf-8"))["seconds_per_step"]
        took = {}
        for name in STEPS:
            with suppress(FileNotFoundError):  # not done yet, or just being tidied away
                record = (self.root / WORK / name / "done.json").read_text(encoding="utf-8")
                took[name] = json.loads(record)["seconds"]
        return took

    def build(self) -> ipywidgets.Widget:
        self.list = ipywidgets.HTML()
        return ipywidgets.VBox([super().build(), self.list])

    def refresh(self) -> None:
        super().refresh()
        if hasattr(self, "list"):
            # the class gives the table the look of an output
            self.list.value = f"<div class='jp-RenderedHTMLCommon'>{self.still()._repr_html_()}</div>"

    def still(self) -> Table:
        return Table(("step", "what happens", "", "time (s)"),
                     [(name, what, SIGNS[state], seconds) for name, what, state, seconds in self.steps()],
                     f"into {self.root}")


class PlateWipe(Panel):
    """Wipe between any frame and the clean plate: what was made up behind the person."""

    def __init__(self, ds: Dataset, frame: Optional[int] = None):
        self.ds, self.frame = ds, len(ds) // 2 if frame is None else frame
        self.wipe = Wipe(ds.frame(self.frame), ds.plate, self._names(), width=max(384, min(ds.size, 512)))

    def _names(self) -> tuple[str, str]:
        return f"frame {self.frame}", "clean plate"

    def go(self, frame: int) -> None:
        """Put another frame before the plate."""
        self.frame = int(frame)
        self.wipe.show(self.ds.frame(self.frame), self.ds.plate, self._names())

    def build(self) -> ipywidgets.Widget:
        chosen = slider("frame", 0, len(self.ds) - 1, self.frame)
        chosen.observe(self.guarded(lambda change: self.go(change["new"])), "value")
        return ipywidgets.VBox([chosen, self.wipe.widget, self.note])

    def still(self) -> Figure:
        return self.wipe.still()
