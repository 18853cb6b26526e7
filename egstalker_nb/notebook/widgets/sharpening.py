"""A validation frame as it sharpens along a run."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from ...core.table import Table
from ...data.dataset import Dataset
from ...metrics.image_metrics import psnr
from ...training import snapshots
from ...training.run import Run
from .. import plots
from .base import Panel, encode, image, slider, titled
from .heads import heat, legend

ERROR_HIGH = 0.25   # absolute error (0 ... 1) that is drawn brightest: one scale for all iterations
NO_PICTURES = "This run left no pictures: it has no validation frames, or an older version trained it."
EDGE = 240          # px of a picture on the screen


@dataclass
class Moment:
    """A validation frame as it was rendered at some iteration.

    Attributes:
        iteration, points: number of Gaussians. frame: its number. picture, truth: [S, S, 3] uint8.
    """

    iteration: int
    points: int
    frame: int
    picture: np.ndarray
    truth: np.ndarray

    @property
    def psnr(self) -> float:
        """dB, of the stored (JPEG) picture."""
        return float(psnr(self.picture, self.truth))

    @property
    def error(self) -> np.ndarray:
        """Absolute error, mean over the colours: [S, S] float32 0...1."""
        return np.abs(self.picture.astype(np.float32) - self.truth).mean(-1) / 255

    def __str__(self) -> str:
        return (f"iteration {self.iteration}: {self.psnr:.1f} dB, {self.points} Gaussians "
                f"(validation frame {self.frame})")


def moment(root: Path, ds: Dataset, iteration: int) -> Optional[Moment]:
    """The snapshot of an iteration beside its frame; None if the clip has no validation frames.

    Raises:
        DatasetError: no such snapshot.
    """
    s = snapshots.load(root, iteration)
    return None if s.picture is None else Moment(iteration, len(s), s.frame, s.picture, ds.frame(s.frame))


class Trio:
    """Render, video and error of a moment side by side."""

    def __init__(self) -> None:
        blank = np.full((8, 8, 3), 255, np.uint8)
        self.pictures = {name: image(blank, EDGE) for name in ("render", "video", "error")}
        self.caption = ipywidgets.HTML()
        row = ipywidgets.HBox([titled(name, picture) for name, picture in self.pictures.items()],
                              layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="8px"))
        key = ipywidgets.HTML(legend(0, ERROR_HIGH, "absolute error", "inferno", 120))
        self.box = ipywidgets.VBox([row, self.caption, key])

    def show(self, m: Moment) -> None:
        for name, picture in (("render", m.picture), ("video", m.truth),
                              ("error", heat(m.error, 0, ERROR_HIGH, map="inferno"))):
            self.pictures[name].value = encode(picture)
        self.caption.value = f"<b>{m}</b>"


def draw_trio(axes: np.ndarray, m: Moment) -> Any:
    """The same on three axes; returns the drawn error, for a colour bar."""
    for axis, picture, title in zip(axes, (m.picture, m.truth), (f"iteration {m.iteration}: {m.psnr:.1f} dB, "
                                                                f"{m.points} Gaussians", f"video, frame {m.frame}")):
        axis.imshow(picture)
        axis.set_title(title, fontsize=9)
    axes[2].set_title("error", fontsize=9)
    return axes[2].imshow(m.error, vmin=0, vmax=ERROR_HIGH, cmap="inferno")


class Sharpening(Panel):
    """Scrub through a run's snapshots: one validation frame as it sharpens, beside the video and the error.

    Args:
        run: a run. last: up to this iteration; default: all.

    Attributes:
        iterations: of the snapshots; none if the run left no pictures. at: the place among them that is shown.
        moment: what is shown.
    """

    def __init__(self, run: Run, last: Optional[int] = None):
        self.run, self.ds = run, run.dataset
        some = [i for i in run.snapshots if last is None or i <= last]
        self.iterations = some if some and moment(run.root, self.ds, some[0]) is not None else []
        self.at = max(len(self.iterations) - 1, 0)

    def __repr__(self) -> str:
        return str(self.moment or NO_PICTURES)

    @property
    def moment(self) -> Optional[Moment]:
        return moment(self.run.root, self.ds, self.iterations[self.at]) if self.iterations else None

    def build(self) -> ipywidgets.Widget:
        if not self.iterations:
            self.say(NO_PICTURES)
            return self.note
        last = len(self.iterations) - 1
        self.slide = slider("snapshot", 0, last, self.at)
        self.play = ipywidgets.Play(min=0, max=last, value=self.at, interval=400, show_repeat=False)
        ipywidgets.jslink((self.play, "value"), (self.slide, "value"))
        self.trio = Trio()
        self.slide.observe(self.guarded(lambda change: self.show(change["new"])), "value")
        self.show(self.at)
        return ipywidgets.VBox([ipywidgets.HBox([self.play, self.slide]), self.trio.box, self.note])

    def show(self, at: int) -> None:
        """Show another snapshot: its place in `iterations`."""
        self.at = int(at)
        if hasattr(self, "trio"):
            self.trio.show(self.moment)

    def still(self) -> Figure | Table:
        if not self.iterations:
            return Table(("snapshots",), [(NO_PICTURES,)])
        some = [self.iterations[k] for k in np.unique(np.linspace(0, len(self.iterations) - 1, 6).astype(int))]
        shown, columns = [moment(self.run.root, self.ds, i) for i in some], len(some) + 1
        figure, axes = plots.subplots(3, columns, width=13, height=2.2)
        axes[0].imshow(shown[0].truth)
        axes[0].set_title(f"video, frame {shown[0].frame}", fontsize=9)
        for axis, below, m in zip(axes[1:columns], axes[columns + 1:2 * columns], shown):
            axis.imshow(m.picture)
            axis.set_title(f"{m.iteration}: {m.psnr:.1f} dB", fontsize=9)
            drawn = below.imshow(m.error, vmin=0, vmax=ERROR_HIGH, cmap="inferno")
        grid = axes[0].get_gridspec()
        figure.colorbar(drawn, ax=list(axes[:2 * columns]), label="absolute error (0 ... 1)", fraction=0.02)
        for axis in axes[2 * columns:]:
            axis.remove()
        for axis in axes[:2 * columns]:
            axis.axis("off")
        every = [moment(self.run.root, self.ds, i) for i in self.iterations]
        axis = figure.add_subplot(grid[2, :])
        plots.curve(axis, [m.iteration for m in every], [m.psnr for m in every], marker="o", markersize=3)
        plots.label(axis, "iteration (square-root scale)", "PSNR (dB)", "this frame, at every snapshot")
        axis.set_xlim(0, self.iterations[-1] + 1)
        axis.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        return figure
