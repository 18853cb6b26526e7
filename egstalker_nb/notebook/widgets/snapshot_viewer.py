"""A validation frame at every snapshot of a run, beside the ground truth and the error."""
from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Optional, Sequence

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from ...core.table import Table
from ...data.dataset import Dataset
from ...metrics.image_metrics import psnr
from ...training import snapshots
from ...training.run import Run
from .. import plots
from .base import Panel, blank_image, encode, slider, titled
from .heat_maps import colour_bar, heat_map

MAX_ERROR = 0.25    # absolute error (0...1) at the bright end of the colour map: one scale for all iterations
TRIPLE_WIDTH = 240  # px on screen of each of the three images
NO_IMAGES = "The snapshots of this run have no images: its dataset has no validation frames."


@dataclass
class SnapshotFrame:
    """A validation frame as rendered at some iteration.

    Attributes:
        iteration: of the snapshot.
        points: number of Gaussians.
        frame: number of the frame.
        image, truth: rendering and ground truth, [S, S, 3] uint8.
    """

    iteration: int
    points: int
    frame: int
    image: np.ndarray
    truth: np.ndarray

    @property
    def psnr(self) -> float:
        """dB, of the stored (JPEG) rendering."""
        return float(psnr(self.image, self.truth))

    @property
    def error(self) -> np.ndarray:
        """Absolute error, mean over the colour channels: [S, S] float32 0...1."""
        return np.abs(self.image.astype(np.float32) - self.truth).mean(-1) / 255

    def __str__(self) -> str:
        return (f"iteration {self.iteration}: {self.psnr:.1f} dB, {self.points} Gaussians "
                f"(validation frame {self.frame})")


def snapshot_frame(root: Path, ds: Dataset, iteration: int) -> Optional[SnapshotFrame]:
    """The snapshot of an iteration with its ground truth; None if the clip has no validation frames.

    Raises:
        DatasetError: no such snapshot.
    """
    s = snapshots.load(root, iteration)
    return None if s.picture is None else SnapshotFrame(iteration, len(s), s.frame, s.picture, ds.frame(s.frame))


class ImageTriple:
    """Rendering, ground truth and error of a snapshot side by side, as widgets in `box`."""

    def __init__(self) -> None:
        self.images = {name: blank_image(TRIPLE_WIDTH) for name in ("rendering", "ground truth", "error")}
        self.caption = ipywidgets.HTML()
        row = ipywidgets.HBox([titled(name, image) for name, image in self.images.items()],
                              layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="8px"))
        key = ipywidgets.HTML(colour_bar(0, MAX_ERROR, "absolute error", "inferno", 120))
        self.box = ipywidgets.VBox([row, self.caption, key])

    def show(self, s: SnapshotFrame) -> None:
        """Replace the images."""
        error = heat_map(s.error, 0, MAX_ERROR, map="inferno")
        for name, pixels in (("rendering", s.image), ("ground truth", s.truth), ("error", error)):
            self.images[name].value = encode(pixels)
        self.caption.value = f"<b>{escape(str(s))}</b>"


def draw_triple(axes: Sequence[Any] | np.ndarray, s: SnapshotFrame) -> Any:
    """The same on three matplotlib axes; returns the drawn error, for a colour bar."""
    names = (f"iteration {s.iteration}: {s.psnr:.1f} dB, {s.points} Gaussians", f"ground truth, frame {s.frame}")
    for axis, pixels, title in zip(axes, (s.image, s.truth), names):
        axis.imshow(pixels)
        axis.set_title(title, fontsize=9)
    axes[2].set_title("error", fontsize=9)
    return axes[2].imshow(s.error, vmin=0, vmax=MAX_ERROR, cmap="inferno")


class SnapshotViewer(Panel):
    """Scrub through the snapshots of a run: one validation frame beside the ground truth and the error.

    Args:
        run: a run.
        last: show snapshots up to this iteration; default: all.

    Attributes:
        iterations: of the snapshots; empty if they have no images.
        at: index of the current one.
        snapshot: the current one; None if there is none.
    """

    def __init__(self, run: Run, last: Optional[int] = None):
        self.run, self.ds = run, run.dataset
        some = [i for i in run.snapshots if last is None or i <= last]
        self.iterations = some if some and snapshot_frame(run.root, self.ds, some[0]) is not None else []
        self.at = max(len(self.iterations) - 1, 0)

    def __repr__(self) -> str:
        return str(self.snapshot or NO_IMAGES)

    @property
    def snapshot(self) -> Optional[SnapshotFrame]:
        """The current snapshot, or None."""
        return snapshot_frame(self.run.root, self.ds, self.iterations[self.at]) if self.iterations else None

    def build(self) -> ipywidgets.Widget:
        if not self.iterations:
            self.show_message(NO_IMAGES)
            return self.note
        last = len(self.iterations) - 1
        self.slide = slider("snapshot", 0, last, self.at)
        self.play = ipywidgets.Play(min=0, max=last, value=self.at, interval=400, show_repeat=False)
        ipywidgets.jslink((self.play, "value"), (self.slide, "value"))
        self.triple = ImageTriple()
        self.slide.observe(self.guarded(lambda change: self.show(change["new"])), "value")
        return ipywidgets.VBox([ipywidgets.HBox([self.play, self.slide]), self.triple.box, self.note])

    def redraw(self) -> None:
        if (shown := self.snapshot) is not None:
            self.triple.show(shown)

    def show(self, at: int) -> None:
        """Show another snapshot.

        Args:
            at: its index in `iterations`.
        """
        self.at = int(at)
        self.refresh()

    def _loaded(self, iterations: Sequence[int]) -> list[SnapshotFrame]:
        some = (snapshot_frame(self.run.root, self.ds, i) for i in iterations)
        return [s for s in some if s is not None]

    def still(self) -> Figure | Table:
        if not self.iterations:
            return Table(("snapshots",), [(NO_IMAGES,)])
        some = [self.iterations[k] for k in np.unique(np.linspace(0, len(self.iterations) - 1, 6).astype(int))]
        shown, columns = self._loaded(some), len(some) + 1
        figure, axes = plots.subplots(3, columns, width=13, height=2.2)
        axes[0].imshow(shown[0].truth)
        axes[0].set_title(f"ground truth, frame {shown[0].frame}", fontsize=9)
        for axis, below, s in zip(axes[1:columns], axes[columns + 1:2 * columns], shown):
            axis.imshow(s.image)
            axis.set_title(f"{s.iteration}: {s.psnr:.1f} dB", fontsize=9)
            drawn = below.imshow(s.error, vmin=0, vmax=MAX_ERROR, cmap="inferno")
        grid = axes[0].get_gridspec()
        figure.colorbar(drawn, ax=list(axes[:2 * columns]), label="absolute error (0 ... 1)", fraction=0.02)
        for axis in axes[2 * columns:]:
            axis.remove()
        for axis in axes[:2 * columns]:
            axis.axis("off")
        every = self._loaded(self.iterations)
        axis = figure.add_subplot(grid[2, :])
        plots.curve(axis, [s.iteration for s in every], [s.psnr for s in every], marker="o", markersize=3)
        plots.label(axis, "iteration (square-root scale)", "PSNR (dB)", "this frame, at every snapshot")
        axis.set_xlim(0, self.iterations[-1] + 1)
        axis.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        return figure
