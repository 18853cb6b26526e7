"""Choose the runs to compare, and see the same frame of all of them: wipe, difference, crops of mouth and eyes."""
from __future__ import annotations

import threading
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, Optional, Sequence

import ipywidgets
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ...analysis import frame_cache
from ...analysis.comparison import Comparison, select
from ...analysis.frame_cache import CROPS, GROUND_TRUTH
from ...analysis.run_index import RunInfo, describe_run, find_runs, runs_by_dataset
from ...core.errors import DatasetError, InputError
from ...core.table import Table
from ...data.dataset import Dataset, load_dataset
from ...metrics.image_metrics import psnr
from ...rendering.inspection import crop
from ...training.run import Run, load_run
from .. import comparison_figures, plots
from .base import Panel, choices, encode, image, slider, titled
from .wipe import Wipe

RUN_COLUMNS = ("run", "dataset", "iterations", "PSNR (dB)", "Gaussians", "reason if excluded")


class RunChooser(Panel):
    """All runs found in some folders; those of one dataset can be ticked, the others are grey with the reason.

    Args:
        runs: run folders that are ticked initially; empty: all of the dataset's.
        dataset: the dataset folder they share.
        search: folders to search, at any depth.

    Attributes:
        found: the runs; the given ones first, then those of the dataset.
        ds: the dataset on which runs are compared.
        ticked: folders of the runs to compare, in order.

    Raises:
        DatasetError: no dataset in that folder.
    """

    def __init__(self, runs: Sequence[str | Path], dataset: str | Path, search: Sequence[str | Path] = ()):
        named = list(dict.fromkeys(Path(p).resolve() for p in runs))
        there = {f.path: f for f in find_runs(*search, *[p for p in named if p.is_dir()])}
        self.found = [there.pop(p) if p in there else describe_run(p) for p in named] + list(there.values())
        self.ticked: list[Path] = []
        self._change_dataset(load_dataset(dataset))
        self.found.sort(key=lambda f: (f.path not in named, bool(f.mismatch(self.ds.hash))))  # comparable runs first
        if named:
            self.ticked = [p for p in self.ticked if p in named]

    def __repr__(self) -> str:
        return f"RunChooser({len(self.ticked)} of {len(self.found)} runs, dataset '{self.ds.root.name}')"

    @property
    def left_out(self) -> list[tuple[RunInfo, str]]:
        """Runs that cannot be compared on this dataset, with the reason."""
        return [(f, f.mismatch(self.ds.hash)) for f in self.found if f.mismatch(self.ds.hash)]

    def chosen(self) -> list[Run]:
        """The ticked runs, loaded.

        Raises:
            InputError: none is ticked, or none can be used; with the reason for each.
        """
        if not self.ticked and self.left_out:
            why = "; ".join(f"{f.name}: {reason}" for f, reason in self.left_out)
            raise InputError(f"a trained run on the dataset in '{self.ds.root}'", why,
                             "Tick one, train one with notebooks 2 and 3, or add its folder to `runs`.")
        return select(self.ticked, self.ds)[0]

    def others(self) -> list[Run]:
        """All other readable runs, on any dataset: training time is estimated from them too."""
        return [load_run(f.path) for f in self.found if not f.problem and f.path not in self.ticked]

    def tick(self, path: str | Path, on: bool = True) -> None:
        """Add a run to the comparison, or remove it.

        Args:
            path: of the run folder.
            on: add or remove.

        Raises:
            InputError: not found, or it cannot be compared on this dataset.
        """
        path = Path(path).resolve()
        found = next((f for f in self.found if f.path == path), None)
        reason = "not among the runs found" if found is None else found.mismatch(self.ds.hash)
        if reason:
            raise InputError(f"a run on the dataset '{self.ds.root.name}'", f"'{path.name}': {reason}",
                             "Choose its dataset first, or another run.")
        ticked = {*self.ticked, path} if on else {*self.ticked} - {path}
        self.ticked = [f.path for f in self.found if f.path in ticked]
        self.refresh()

    def choose_dataset(self, hash: str) -> None:
        """Compare on the dataset with this hash; all its runs are ticked.

        Raises:
            InputError: no run was trained on it.
            DatasetError: its folder is missing, or holds another dataset by now.
        """
        place = next((f.dataset for f in self.found if f.hash == hash), None)
        if place is None:
            raise InputError("the hash of a run's dataset", repr(hash), "Choose one of the list.")
        ds = load_dataset(place)
        if ds.hash != hash:
            raise DatasetError(f"dataset {hash}, which these runs were trained on", f"{ds.hash} in '{place}'",
                               "Restore that dataset, or train new runs on this one.")
        self._change_dataset(ds)
        self.refresh()

    def _change_dataset(self, ds: Dataset) -> None:
        self.ds = ds
        self.ticked = [f.path for f in self.found if not f.mismatch(ds.hash)]

    def _cells(self, f: RunInfo) -> list[str]:
        """One row of the table, without the name."""
        quality = "-" if f.psnr is None else f"{f.psnr:.1f} ({f.source})"
        done = f"{f.iterations} of {f.planned}" if f.planned else "-"
        data = f"{Path(f.dataset).name} ({f.hash[:4]}), {f.size} px" if f.dataset else "-"
        return [data, done, quality, "-" if f.points is None else str(f.points), f.mismatch(self.ds.hash)]

    # ---- interactive and static form ----

    def build(self) -> ipywidgets.Widget:
        groups = runs_by_dataset(self.found)
        groups.setdefault(self.ds.hash, [])
        # with the start of the hash: a clip that was prepared differently may have the same folder name
        names = {hash: Path(some[0].dataset).name if some else self.ds.root.name for hash, some in groups.items()}
        options = [(f"{names[hash]} ({hash[:4]}): {len(some)} run(s)", hash) for hash, some in groups.items()]
        self.data = choices("dataset", options, self.ds.hash)
        self.boxes: dict[Path, ipywidgets.Checkbox] = {}
        self.cells: dict[Path, list[ipywidgets.HTML]] = {}
        children = [ipywidgets.HTML(f"<b>{name}</b>") for name in RUN_COLUMNS]
        for f in self.found:
            box = ipywidgets.Checkbox(indent=False, description_allow_html=True,
                                      layout=ipywidgets.Layout(width="auto"))
            box.observe(self.guarded(lambda change, path=f.path: self.tick(path, change["new"])), "value")
            self.boxes[f.path], self.cells[f.path] = box, [ipywidgets.HTML() for _ in RUN_COLUMNS[1:]]
            children += [box, *self.cells[f.path]]
        self.data.observe(self.guarded(self._menu_moved), "value")
        grid = ipywidgets.GridBox(children, layout=ipywidgets.Layout(
            grid_template_columns=f"minmax(12em, max-content) repeat({len(RUN_COLUMNS) - 2}, max-content) 1fr",
            grid_gap="0 1.5em", max_height="24em", overflow="auto"))
        return titled("Runs to compare", self.data, grid, self.note)

    def _menu_moved(self, change: dict[str, Any]) -> None:
        if change["new"] != self.ds.hash:
            try:
                self.choose_dataset(change["new"])
            finally:
                self.data.value = self.ds.hash  # the old one, if that dataset cannot be used

    def redraw(self) -> None:
        for f in self.found:
            grey, box = bool(f.mismatch(self.ds.hash)), self.boxes[f.path]
            box.disabled, box.value = grey, f.path in self.ticked
            name, *texts = (f"<span style='opacity:{0.6 if grey else 1}'>{escape(text)}</span>"
                            for text in (f.name, *self._cells(f)))
            box.description = name
            for cell, text in zip(self.cells[f.path], texts):
                cell.value = text
        self.show_message(f"{len(self.ticked)} run(s) on '{self.ds.root.name}'. Run the cells below to compare them.")

    def still(self) -> Table:
        rows = [("x" if f.path in self.ticked else "", f.name, *self._cells(f)) for f in self.found]
        return Table(("compared", *RUN_COLUMNS), rows, f"Runs found, to be compared on dataset '{self.ds.root.name}'")


class SideBySide(Panel):
    """One frame of two runs (or the ground truth) under a wipe, their difference, and crops of mouth and eyes.

    Args:
        result: the runs, see `egs.compare`.
        frame: the initial frame; default: the validation frame with the widest mouth opening.
        folder: where the static form is saved as `figures/compare_frames.png`; default: nowhere.
        width: of the images, px on screen.

    Attributes:
        a, b: indices of the runs to the left and right of the line; -1: ground truth.
        frame: number of the frame.
    """

    def __init__(self, result: Comparison, frame: Optional[int] = None, folder: Optional[Path] = None,
                 width: int = 380):
        self.result, self.folder, self.width = result, folder, width
        ds = result.dataset
        ids = ds.val_ids if len(ds.val_ids) else ds.train_ids
        self.frame = int(ids[int(np.argmax(ds.aperture[list(ids)]))]) if frame is None else frame
        self.a, self.b = 0, 1
        self.names = {**dict(enumerate(result.names)), -1: GROUND_TRUTH}
        self.windows = {part: frame_cache.crops(getattr(ds, rects), aspect) for part, (rects, aspect) in CROPS.items()}
        self._lock, self._stale = threading.Lock(), False
        self._thread: Optional[threading.Thread] = None

    def __repr__(self) -> str:
        return f"SideBySide({self.names[self.a]} | {self.names[self.b]}, frame {self.frame})"

    def choose(self, a: Optional[int] = None, b: Optional[int] = None, frame: Optional[int] = None) -> None:
        """Show other sources or another frame.

        Args:
            a, b: indices of runs; -1: ground truth.
            frame: number of the frame.

        Raises:
            InputError: no such run or frame.
        """
        a, b, frame = (new if new is not None else old for new, old in ((a, self.a), (b, self.b), (frame, self.frame)))
        if not {a, b} <= set(self.names) or not 0 <= frame < len(self.result.dataset):
            raise InputError(f"runs among {sorted(self.names)} and a frame of 0 ... {len(self.result.dataset) - 1}",
                             f"a={a}, b={b}, frame={frame}", "Choose others.")
        self.a, self.b, self.frame = a, b, frame
        self.refresh()

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """The two images, [S, S, 3] uint8."""
        return self.result.renders.picture(self.a, self.frame), self.result.renders.picture(self.b, self.frame)

    def zoomed(self) -> dict[str, dict[str, np.ndarray]]:
        """Part of the face -> source -> crop; the same window for all sources."""
        return {part: {name: crop(self.result.renders.picture(k, self.frame), self.windows[part][self.frame], aspect)
                       for k, name in self._sources()}
                for part, (_, aspect) in CROPS.items()}

    def _sources(self) -> list[tuple[int, str]]:
        """Ground truth, then the runs."""
        return [(-1, GROUND_TRUTH), *enumerate(self.result.names)]

    def facts(self) -> str:
        """One line of measurements of this frame."""
        truth = self.result.renders.picture(-1, self.frame)
        split = "validation" if self.frame in self.result.dataset.val_ids else "training"
        parts = [f"{self.names[k]} {psnr(self.result.renders.picture(k, self.frame), truth):.1f} dB"
                 for k in dict.fromkeys((self.a, self.b)) if k >= 0]
        a, b = self.pair()
        return (f"Frame {self.frame} ({split}). Against ground truth: {', '.join(parts) or '-'}. "
                f"Mean difference between A and B: {frame_cache.difference(a, b).mean():.1f} of 255.")

    # ---- interactive and static form ----

    def build(self) -> ipywidgets.Widget:
        ds, options = self.result.dataset, [(name, k) for k, name in self._sources()]
        self.menus = {"a": choices("A (left)", options, self.a), "b": choices("B (right)", options, self.b)}
        self.slider = slider("frame", 0, len(ds) - 1, self.frame)
        self.wipe = Wipe(*self.pair(), self._labels(), width=self.width)
        self.heatmap = image(frame_cache.heatmap(frame_cache.difference(*self.pair())), self.width, "png")
        self.line = ipywidgets.HTML()
        self.crops = {(part, name): image(picture, 170, "jpeg") for part, row in self.zoomed().items()
                      for name, picture in row.items()}
        columns = [titled(name, *[self.crops[part, name] for part in CROPS]) for _, name in self._sources()]
        wrap = ipywidgets.Layout(flex_flow="row wrap", grid_gap="0.6em")
        for widget in (*self.menus.values(), self.slider):
            widget.observe(self._changed, "value")
        box = ipywidgets.VBox([
            ipywidgets.HBox([*self.menus.values(), self.slider], layout=wrap), self.line,
            ipywidgets.HBox([titled("A | B: drag the line, or use the arrow keys", self.wipe.widget),
                             titled("difference of A and B", self.heatmap,
                                    ipywidgets.HTML(difference_bar(self.width)))],
                            layout=wrap),
            ipywidgets.HBox(columns, layout=wrap), self.note])
        return box

    def _labels(self) -> tuple[str, str]:
        return f"A: {self.names[self.a]}", f"B: {self.names[self.b]}"

    def _changed(self, *_: Any) -> None:
        """Apply the controls and render in a thread: while a slider moves fast, only the newest frame is rendered."""
        self.a, self.b, self.frame = (w.value for w in (*self.menus.values(), self.slider))
        with self._lock:
            self._stale = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._draw_newest, name="side by side", daemon=True)
                self._thread.start()

    def _draw_newest(self) -> None:
        while True:
            with self._lock:
                if not self._stale:
                    self._thread = None
                    return
                self._stale = False
            with suppress(Exception):  # the panel shows it, and nothing catches exceptions of a thread
                self.guarded(self.redraw)()

    def wait(self) -> None:
        """Wait until the current choice is rendered."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def refresh(self) -> None:
        """Set the controls, which triggers rendering; wait until that is done."""
        if self.built:
            wanted = self.a, self.b, self.frame  # the first event overwrites the state with the other controls' values
            for widget, value in zip((*self.menus.values(), self.slider), wanted):
                widget.value = value
            self.wait()

    def redraw(self) -> None:
        a, b = self.pair()
        self.wipe.show(a, b, self._labels())
        self.heatmap.value = encode(frame_cache.heatmap(frame_cache.difference(a, b)), "png")
        for part, row in self.zoomed().items():
            for name, picture in row.items():
                self.crops[part, name].value = encode(picture)
        self.line.value = escape(self.facts())

    def still(self) -> Figure:
        figure = comparison_figures.wipe_figure(*self.pair(), (self.names[self.a], self.names[self.b]),
                                                self.zoomed())
        figure.suptitle(plots.plain(self.facts()), fontsize=11)
        return figure if self.folder is None else plots.finish(figure, self.folder, "compare_frames")


def difference_bar(width: int) -> str:
    """The colour scale of the differences as HTML, with its unit."""
    colours = matplotlib.colormaps[frame_cache.COLOUR_MAP]
    stops = ", ".join(matplotlib.colors.to_hex(colours(x)) for x in np.linspace(0, 1, 9))
    marks = [f"{v:.0f}" for v in np.linspace(0, frame_cache.MAX_DIFFERENCE, 5)]
    marks[-1] += " and more"
    ticks = "".join(f"<span>{mark}</span>" for mark in marks)
    return (f"<div style='width:{width}px;line-height:1.3'><div style='height:12px;border:1px solid #888;"
            f"background:linear-gradient(to right, {stops})'></div><div style='display:flex;"
            f"justify-content:space-between'>{ticks}</div>{frame_cache.DIFFERENCE_UNIT}</div>")
