"""Training behind buttons, watched while it runs."""
from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Optional

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from ...config import Config
from ...core.device import default_device
from ...core.progress import clock
from ...core.table import Table
from ...data.dataset import Dataset
from ...training import checkpoint, snapshots
from ...training.losses import Losses
from ...training.metrics_log import History
from ...training.run import Run
from ...training.train import stop_iteration, train
from .. import plots
from .base import INK, Panel, in_style, line
from .canvas import Canvas
from .job import Job
from .sharpening import Trio, draw_trio, moment

PAUSE = 0.5         # seconds between updates of the charts, at least
WIDTH = 840         # px of the charts: what JupyterLab leaves of a screen of 1280
WINDOW = "rgba(224,165,38,0.12)"


# ---- what is shown, in both forms ----

@dataclass
class Chart:
    """One chart of the panel: its lines by name, [n] iterations and values each."""

    title: str
    unit: str
    lines: dict[str, tuple[np.ndarray, np.ndarray]]
    log: bool = False


def charts(history: History, cfg: Config, memory: bool) -> list[Chart]:
    """The six charts of a run; the last one is GPU memory, or without a GPU the time."""
    seconds, terms = history.seconds(), Losses(cfg, "fine").weights
    last = Chart("GPU memory", "MiB", {"allocated": history.curve("gpu_mib")}) if memory else \
        Chart("time spent on training", "minutes", {"elapsed": (seconds[0], seconds[1] / 60)})
    return [
        Chart("loss terms (weighted)", "loss", {name: history.curve(name) for name in ("loss", *terms)}, log=True),
        Chart("picture quality", "PSNR (dB)", {"training batches": history.curve("psnr"),
                                               "validation frames": history.curve("val_psnr", "eval")}),
        Chart("number of Gaussians", "Gaussians", {"points": history.curve("points")}),
        Chart("speed", "iterations/s", {"speed": history.curve("it_per_s")}),
        Chart("does the head stay?", "0 ... 1", {"covered share of head mask": history.curve("coverage"),
                                                 "mean opacity": history.curve("opacity")}),
        last,
    ]


# ---- training ----

class TrainingPanel(Panel):
    """Train a run, or continue it, with buttons, and watch how it goes. `result` waits for it in a later cell.

    Args:
        ds: prepared dataset. cfg: see `load_config`. run: the run folder. until: see `egs.train`.
        device: default CUDA, else the CPU.

    Attributes:
        job: the work, see `Job`. history: what was logged. moment: the newest snapshot's picture, or None.

    Raises:
        InputError: no such `until`.
    """

    def __init__(self, ds: Dataset, cfg: Config, run: str | Path, until: Optional[Literal["coarse"] | int] = None,
                 device: Optional[str] = None):
        self.ds, self.cfg, self.root = ds, cfg, Path(run)
        self.last = stop_iteration(cfg, until)
        self.job: Job[Run] = Job(partial(train, ds, cfg, run, until, device), f"train {self.root.name}")
        self._history, self.moment = History(self.root), None
        self._lock, self._at = threading.Lock(), -PAUSE
        self.job.watchers.append(self.refresh)
        if (checkpoint.iterations(self.root) or [0])[-1] >= self.last:
            self.job.start()  # only opens it, and finds out whether it is the same run
            self.job.wait()

    def __repr__(self) -> str:
        return f"{self.job!r}\n{self.line()}"

    @property
    def history(self) -> History:
        return self._history.upto(self.last)

    def start(self) -> None:
        """Begin, or go on, as the button does."""
        self.job.start()

    def stop(self) -> None:
        """Finish the step, write a checkpoint and stop, as the button does."""
        self.job.stop()

    def result(self) -> Run:
        """The trained run; waits for it, and starts it if nobody did. Interrupting the kernel stops it.

        Raises:
            KeyboardInterrupt: it was stopped. TrainingError and others: see `egs.train`.
        """
        try:
            return self.job.result()
        finally:
            self.update()

    def update(self) -> bool:
        """Take in what was written since; True if there is anything new."""
        new, there = self._history.read(), [i for i in snapshots.iterations(self.root) if i <= self.last]
        if there and (self.moment is None or self.moment.iteration != there[-1]):
            self.moment = moment(self.root, self.ds, there[-1])
            new = True
        return new

    def line(self) -> str:
        """The newest numbers in one line."""
        f = self.history.facts(self.last)
        if not f:
            return f"nothing trained yet, {self.last} iterations to do"
        parts = [f"{f['stage']} stage", f"iteration {f['iteration']} of {self.last}", f"{clock(f['elapsed'])} elapsed",
                 f"{clock(f['left'])} left", f"{f['it_per_s']:.1f} it/s", f"{f['points']} Gaussians",
                 f"PSNR {f['psnr']:.1f} dB in training"]
        parts += [f"{f['val_psnr']:.1f} dB in validation"] if "val_psnr" in f else []
        return ", ".join(parts + ([f"GPU {f['gpu_mib']:.0f} MiB"] if "gpu_mib" in f else []))

    def _memory(self) -> bool:
        rows = self._history.of("train")
        return "gpu_mib" in rows[-1] if rows else default_device().type == "cuda"

    # ---- the two forms ----

    def build(self) -> ipywidgets.Widget:
        self.facts, self.trio, self.chart = ipywidgets.HTML(), Trio(), self._chart()
        self.canvas = Canvas(self.chart)
        self.canvas.layout.max_width = f"{WIDTH}px"
        self._built = True
        controls = self.job.widget
        with self._lock:
            self.update()
            self._show()
        return ipywidgets.VBox([controls, self.facts, self.canvas, self.trio.box])

    def refresh(self) -> None:
        """Bring charts and pictures up to date; in any thread, and not too often."""
        if not getattr(self, "_built", False):
            return
        # what the line says of steps is in `facts` already
        steps = self.job.line.startswith("train ") and bool(self._history.rows)
        self.job.text.layout.display = "none" if steps else ""
        over = not self.job.busy  # then nothing comes after this, and it must not be left out
        if self._lock.acquire(blocking=over):
            try:
                if over or time.monotonic() - self._at >= PAUSE:
                    self._at = time.monotonic()
                    if self.update() or over:
                        self._show()
            finally:
                self._lock.release()

    def _show(self) -> None:
        self.facts.value = f"<b>{self.job.state}:</b> {self.line()}"
        values = {(c.title, name): curve for c in charts(self.history, self.cfg, self._memory())
                  for name, curve in c.lines.items()}
        with self.canvas.changing():
            for trace in self.chart.data:
                known = values.get((trace.meta, trace.name))
                if known is not None:
                    trace.x, trace.y = known
                    trace.mode = "lines+markers" if "validation" in trace.name or len(known[0]) == 1 else "lines"
        if self.moment is not None:
            self.trio.show(self.moment)

    def _chart(self) -> go.Figure:
        kinds = charts(self.history, self.cfg, self._memory())
        figure = make_subplots(2, 3, subplot_titles=[c.title for c in kinds], vertical_spacing=0.2,
                               horizontal_spacing=0.08)
        in_style(figure, "iteration", "", height=520, width=WIDTH)
        for k, c in enumerate(kinds):
            row, column = k // 3 + 1, k % 3 + 1
            figure.update_yaxes(title_text=c.unit, type="log" if c.log else "linear", row=row, col=column)
            if not c.log and c.unit != "PSNR (dB)":
                figure.update_yaxes(rangemode="tozero", row=row, col=column)
            key = f"legend{k + 1}" if k else "legend"
            for style, name in enumerate(c.lines):
                more = {"mode": "lines+markers"} if name == "validation frames" else {}
                trace = line([], [], name, style, meta=c.title, showlegend=len(c.lines) > 1, legend=key, **more)
                figure.add_trace(trace, row, column)
            x, y = (figure.get_subplot(row, column)[i].domain for i in (0, 1))
            corner = {"y": y[1], "yanchor": "top"} if c.log else {"y": y[0], "yanchor": "bottom"}
            figure.update_layout({key: {"x": x[1], "xanchor": "right", **corner, "bgcolor": "rgba(255,255,255,0.7)",
                                        "font": {"size": 10}}})
        self._mark(figure)
        figure.update_xaxes(range=[0, self.last])
        figure.update_layout(margin={"t": 40})
        return figure

    def _mark(self, figure: go.Figure) -> None:
        c = self.cfg
        first, end = min(c.densify_from_iter, self.last), min(c.densify_until_iter, self.last)
        if first < end:
            figure.add_vrect(x0=first, x1=end, fillcolor=WINDOW, line_width=0, row="all", col="all")
        if c.coarse_iterations < self.last:
            figure.add_vline(x=c.coarse_iterations, line={"color": INK, "width": 1, "dash": "dash"}, row="all",
                             col="all")

    def still(self) -> Figure | Table:
        self.update()
        if not self.history.rows:
            return Table(("run", "state", ""), [(self.root.name, self.job.state, self.line())])
        rows = 2 + (self.moment is not None)
        figure, axes = plots.subplots(rows, 3, width=12, height=2.9)
        for axis, c in zip(axes, charts(self.history, self.cfg, self._memory())):
            self._draw(axis, c)
        if self.moment is not None:
            drawn = draw_trio(axes[6:], self.moment)
            figure.colorbar(drawn, ax=axes[8], label="absolute error (0 ... 1)", shrink=0.8)
            for axis in axes[6:]:
                axis.axis("off")
        figure.suptitle(f"{self.job.state}: {self.line()}", fontsize=10)
        return figure

    def _draw(self, axis: Axes, chart: Chart) -> None:
        c = self.cfg
        for style, (name, (x, y)) in enumerate(chart.lines.items()):
            if len(x):
                dots = {"marker": "o", "markersize": 3} if name == "validation frames" or len(x) == 1 else {}
                plots.curve(axis, x, y, name if len(chart.lines) > 1 else "", style, **dots)
        if chart.log:
            axis.set_yscale("log")
        elif chart.unit != "PSNR (dB)":
            axis.set_ylim(bottom=0)
        axis.set_xlim(0, self.last)
        axis.axvspan(min(c.densify_from_iter, self.last), min(c.densify_until_iter, self.last), color="#e0a526",
                     alpha=0.12, lw=0)
        if c.coarse_iterations < self.last:
            axis.axvline(c.coarse_iterations, color=INK, linestyle="--", linewidth=1)
        plots.label(axis, "iteration", chart.unit, chart.title)
        if axis.get_legend() is not None:
            axis.legend(frameon=False, fontsize=8)
