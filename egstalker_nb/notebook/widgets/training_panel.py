"""Training controlled by buttons, with charts that follow it."""
from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from html import escape
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
from ...training.history import History
from ...training.losses import Losses
from ...training.run import Run
from ...training.train import stop_iteration, train
from .. import plots
from .base import INK, Panel, in_style, line
from .canvas import Canvas
from .job import Job
from .snapshot_viewer import ImageTriple, SnapshotFrame, draw_triple, snapshot_frame

MIN_UPDATE_SECONDS = 0.5    # between two updates of the charts
CHART_WIDTH = 840           # px: the output width of JupyterLab on a screen of 1280
DENSIFY_FILL = "rgba(224,165,38,0.12)"  # of the iterations with densification


# ---- the charts, in both forms ----

@dataclass
class MetricChart:
    """One chart of the panel.

    Attributes:
        title: of the chart.
        unit: of its values.
        lines: name -> iterations [n] and values [n].
        log: whether the value axis is logarithmic.
    """

    title: str
    unit: str
    lines: dict[str, tuple[np.ndarray, np.ndarray]]
    log: bool = False


def charts(history: History, cfg: Config, memory: bool) -> list[MetricChart]:
    """The six charts of a run; the last one is GPU memory, or training time without a GPU."""
    seconds, terms = history.seconds(), ("loss", *Losses(cfg, "fine").weights)
    last = MetricChart("GPU memory", "MiB", {"allocated": history.curve("gpu_mib")}) if memory else \
        MetricChart("time spent on training", "minutes", {"elapsed": (seconds[0], seconds[1] / 60)})
    return [
        MetricChart("loss terms (weighted)", "loss", {name: history.curve(name) for name in terms}, log=True),
        MetricChart("image quality", "PSNR (dB)", {"training batches": history.curve("psnr"),
                                                   "validation frames": history.curve("val_psnr", "eval")}),
        MetricChart("number of Gaussians", "Gaussians", {"points": history.curve("points")}),
        MetricChart("speed", "iterations/s", {"speed": history.curve("it_per_s")}),
        MetricChart("coverage and opacity", "0 ... 1", {"covered share of head mask": history.curve("coverage"),
                                                        "mean opacity": history.curve("opacity")}),
        last,
    ]


# ---- training ----

class TrainingPanel(Panel):
    """Train a run, or resume it, with buttons and live charts. `result` waits for it in a later cell.

    Args:
        ds: prepared dataset.
        cfg: see `load_config`.
        run: the run folder.
        until: see `egs.train`.
        device: default: CUDA where there is one, else the CPU.

    Attributes:
        job: the training, see `Job`.
        history: the logged metrics.
        snapshot: the validation frame of the newest snapshot, or None.

    Raises:
        InputError: no such `until`.
    """

    def __init__(self, ds: Dataset, cfg: Config, run: str | Path, until: Optional[Literal["coarse"] | int] = None,
                 device: Optional[str] = None):
        self.ds, self.cfg, self.root = ds, cfg, Path(run)
        self.last = stop_iteration(cfg, until)
        self.job: Job[Run] = Job(partial(train, ds, cfg, run, until, device), f"train {self.root.name}")
        self._history = History(self.root)
        self.snapshot: Optional[SnapshotFrame] = None
        self._lock, self._updated = threading.Lock(), -MIN_UPDATE_SECONDS
        self.job.watchers.append(self.refresh)
        if (checkpoint.iterations(self.root) or [0])[-1] >= self.last:
            self.job.start()  # finished: this only opens the run and checks that dataset and config are the same
            self.job.wait()

    def __repr__(self) -> str:
        return f"{self.job!r}\n{self.line()}"

    @property
    def history(self) -> History:
        """The metrics logged up to `until`."""
        return self._history.upto(self.last)

    def start(self) -> None:
        """Start or resume, as the button does."""
        self.job.start()

    def stop(self) -> None:
        """Finish the step, write a checkpoint and stop, as the button does."""
        self.job.stop()

    def result(self) -> Run:
        """Wait for the training, starting it if necessary, and return the run. Interrupting the kernel stops it.

        Raises:
            KeyboardInterrupt: it was stopped.
            TrainingError: and other errors of `egs.train`.
        """
        try:
            return self.job.result()
        finally:
            self.update()

    def update(self) -> bool:
        """Read what was logged since the last call; True if there is anything new."""
        new, there = self._history.read(), [i for i in snapshots.iterations(self.root) if i <= self.last]
        if there and (self.snapshot is None or self.snapshot.iteration != there[-1]):
            self.snapshot = snapshot_frame(self.root, self.ds, there[-1])
            new = True
        return new

    def line(self) -> str:
        """The newest metrics in one line."""
        f = self.history.facts(self.last)
        if not f:
            return f"not started, {self.last} iterations to do"
        parts = [f"{f['stage']} stage", f"iteration {f['iteration']} of {self.last}", f"{clock(f['elapsed'])} elapsed",
                 f"{clock(f['left'])} left", f"{f['it_per_s']:.1f} it/s", f"{f['points']} Gaussians",
                 f"PSNR {f['psnr']:.1f} dB in training"]
        parts += [f"{f['val_psnr']:.1f} dB in validation"] if "val_psnr" in f else []
        return ", ".join(parts + ([f"GPU {f['gpu_mib']:.0f} MiB"] if "gpu_mib" in f else []))

    def _memory(self) -> bool:
        rows = self._history.of("train")
        return "gpu_mib" in rows[-1] if rows else default_device().type == "cuda"

    # ---- interactive and static form ----

    def build(self) -> ipywidgets.Widget:
        self.facts, self.triple, self.chart = ipywidgets.HTML(), ImageTriple(), self._chart()
        self.canvas = Canvas(self.chart)
        self.canvas.layout.max_width = f"{CHART_WIDTH}px"
        return ipywidgets.VBox([self.job.widget, self.facts, self.canvas, self.triple.box])

    def redraw(self) -> None:
        """Update charts and images; in any thread, and not more often than every `MIN_UPDATE_SECONDS`."""
        # the line of the training steps repeats what is in `facts`
        steps = self.job.line.startswith("train ") and bool(self._history.rows)
        self.job.text.layout.display = "none" if steps else ""
        over = not self.job.busy  # no update follows this one: it must not be skipped
        if self._lock.acquire(blocking=over):
            try:
                if over or time.monotonic() - self._updated >= MIN_UPDATE_SECONDS:
                    first = self._updated < 0
                    self._updated = time.monotonic()
                    if self.update() or over or first:
                        self._show()
            finally:
                self._lock.release()

    def _show(self) -> None:
        self.facts.value = f"<b>{self.job.state}:</b> {escape(self.line())}"
        values = {(c.title, name): curve for c in charts(self.history, self.cfg, self._memory())
                  for name, curve in c.lines.items()}
        with self.canvas.changing():
            for trace in self.chart.data:
                known = values.get((trace.meta, trace.name))
                if known is not None:
                    trace.x, trace.y = known
                    trace.mode = "lines+markers" if "validation" in trace.name or len(known[0]) == 1 else "lines"
        if self.snapshot is not None:
            self.triple.show(self.snapshot)

    def _chart(self) -> go.Figure:
        kinds = charts(self.history, self.cfg, self._memory())
        figure = make_subplots(2, 3, subplot_titles=[c.title for c in kinds], vertical_spacing=0.2,
                               horizontal_spacing=0.08)
        in_style(figure, "iteration", "", height=520, width=CHART_WIDTH)
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
            figure.add_vrect(x0=first, x1=end, fillcolor=DENSIFY_FILL, line_width=0, row="all", col="all")
        if c.coarse_iterations < self.last:
            figure.add_vline(x=c.coarse_iterations, line={"color": INK, "width": 1, "dash": "dash"}, row="all",
                             col="all")

    def still(self) -> Figure | Table:
        self.update()
        if not self.history.rows:
            return Table(("run", "state", ""), [(self.root.name, self.job.state, self.line())])
        rows = 2 + (self.snapshot is not None)
        figure, axes = plots.subplots(rows, 3, width=12, height=2.9)
        for axis, c in zip(axes, charts(self.history, self.cfg, self._memory())):
            self._draw(axis, c)
        if self.snapshot is not None:
            drawn = draw_triple(axes[6:], self.snapshot)
            figure.colorbar(drawn, ax=axes[8], label="absolute error (0 ... 1)", shrink=0.8)
            for axis in axes[6:]:
                axis.axis("off")
        figure.suptitle(f"{self.job.state}: {self.line()}", fontsize=10)
        return figure

    def _draw(self, axis: Axes, chart: MetricChart) -> None:
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
