"""All runs of a sweep in one chart: parallel coordinates, curves, score against time; they work without a kernel."""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from ...analysis.cost import pareto
from ...core.table import text
from ...scheduling.ranking import score_of, short, varied_names
from ...scheduling.sweep import Sweep
from ...training.history import History, thinned
from .. import plots
from ..plots import STYLES
from ..sweep_figures import blank, score_label, score_range
from .base import Plot, in_style, line, plotly_text

MAX_AXES = 10        # of the parallel coordinates
MAX_TICKS = 12       # of one axis
MIN_TICK_GAP = 0.06  # between labels, of the height
LINE_LENGTH = 16     # of an axis title, characters
MAX_CURVES = 300     # runs whose curves are drawn
CURVE_POINTS = 60    # of one curve: keeps the notebook small
LOG_RATIO = 30       # from which on positive values stand on a logarithmic axis
BEST_CURVES = 3      # runs with a style of their own
GREY = "#9a9a9a"
#: fifths of the runs, from the worst to the best: light to dark, readable in greyscale too
FIFTHS = ("#d9c27e", "#b5a55a", "#6f9a6b", "#3a7580", "#1b3a6b")
FIFTH_NAMES = ("lowest fifth", "second fifth", "middle fifth", "fourth fifth", "best fifth")


# ---- parallel coordinates ----

@dataclass
class Axis:
    """One vertical axis.

    Attributes:
        title: what it shows, with its unit.
        places: [R] of the runs on it, 0...1.
        ticks: places and their labels.
        texts: values of the runs, as text.
    """

    title: str
    places: np.ndarray
    ticks: list[tuple[float, str]]
    texts: list[str]


def axis_of(title: str, values: Sequence[Any]) -> Axis:
    """An axis for the values of all runs: numbers to scale, logarithmic where they span more than `LOG_RATIO`, anything
    else as categories. Numbers that some runs lack (None) stand at the bottom."""
    known = [v for v in values if type(v) in (int, float) and math.isfinite(v)]
    if not known or any(v is not None and type(v) not in (int, float) for v in values):
        names = list(dict.fromkeys(text(v) for v in values))
        at = {name: (k + 0.5) / len(names) for k, name in enumerate(names)}
        step = -(-len(names) // MAX_TICKS)
        return Axis(title, np.array([at[text(v)] for v in values]), [(at[name], name) for name in names[::step]],
                    [text(v) for v in values])
    log = min(known) > 0 and max(known) / min(known) >= LOG_RATIO
    scaled = np.log10(known) if log else np.array(known, float)
    low, high = float(scaled.min()), float(scaled.max())
    bottom = 0.12 if len(known) < len(values) else 0.0

    def place(value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            return 0.0
        at = (math.log10(value) if log else value) - low
        return bottom + (1 - bottom) * (at / (high - low) if high > low else 0.5)

    distinct = sorted(set(known))
    if len(distinct) > 6:
        between = np.linspace(low, high, 5)
        distinct = [float(f"{v:.3g}") for v in (10 ** between if log else between)]
    ticks = _apart([(min(max(place(v), 0.0), 1.0), text(v)) for v in distinct]) + ([(0.0, "-")] if bottom else [])
    return Axis(f"{title}, log" if log else title, np.array([place(v) for v in values]), ticks,
                [text(v) for v in values])


def _apart(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Ticks from the lowest, without those whose labels would overlap; the highest stays."""
    kept: list[tuple[float, str]] = []
    for tick in ticks:
        if kept and tick[0] - kept[-1][0] < MIN_TICK_GAP:
            if tick is not ticks[-1] or len(kept) == 1:
                continue
            kept.pop()
        kept.append(tick)
    return kept


def _lines(title: str) -> str:
    """A long name in lines, broken at underscores."""
    lines = [""]
    for part in title.split("_"):
        if lines[-1] and len(lines[-1]) + len(part) > LINE_LENGTH:
            lines.append("")
        lines[-1] += part + "_"
    return "\n".join(lines)[:-1]


def _axes(sweep: Sweep, rows: list[dict[str, Any]]) -> list[Axis]:
    """Varied parameters, then the training time, the number of Gaussians, and the score."""
    metric = sweep.file.best.metric
    costs = [name for name in ("seconds_training", "points") if any(score_of(row, name) is not None for row in rows)]
    names = [*varied_names(sweep)[:MAX_AXES - 3], *[name for name in costs if name != metric], metric]
    return [axis_of(score_label(short(name)), [row.get(name) for row in rows]) for name in names]


def _scored(sweep: Sweep) -> list[dict[str, Any]]:
    """Rows with the score, the worst first: the best are drawn on top."""
    metric = sweep.file.best.metric
    rows = [row for row in sweep.rows() if score_of(row, metric) is not None]
    return sorted(rows, key=lambda row: row[metric] if sweep.file.best.highest else -row[metric])


def parallel_coordinates(sweep: Sweep, folder: Optional[Path] = None) -> Plot:
    """Each run as a line over its varied parameters, its cost and its score; dark lines are the best fifth.

    Args:
        sweep: the sweep.
        folder: where the static form is saved as `figures/sweep_parallel.png`; default: nowhere.
    """
    rows = _scored(sweep)
    if not rows:
        return _nothing("No run has a score yet.", folder, "sweep_parallel")
    axes = _axes(sweep, rows)
    fifths = np.minimum(np.arange(len(rows)) * 5 // len(rows), 4) if len(rows) >= 5 else np.full(len(rows), 4)
    return _kept(_parallel(sweep, rows, axes, fifths), _parallel_still(sweep, rows, axes, fifths), folder,
                 "sweep_parallel")


def _title(sweep: Sweep, rows: list[dict[str, Any]]) -> str:
    return f"{len(rows)} of {len(sweep.runs)} runs have the score; thick: the best by {sweep.file.best}"


def _parallel(sweep: Sweep, rows: list[dict[str, Any]], axes: list[Axis], fifths: np.ndarray) -> go.Figure:
    figure = go.Figure()
    across: list[Optional[float]] = [*range(len(axes)), None]
    for fifth, (colour, name) in enumerate(zip(FIFTHS, FIFTH_NAMES)):
        chosen = np.flatnonzero(fifths == fifth).tolist()
        if chosen:
            figure.add_trace(go.Scatter(
                x=across * len(chosen), y=_broken(axes, chosen), text=_hovers(axes, rows, chosen), mode="lines+markers",
                name=name if len(rows) >= 5 else "runs", line={"color": colour, "width": 1.5}, marker={"size": 5},
                hovertemplate="%{text}<extra></extra>"))
    best = len(rows) - 1
    figure.add_trace(go.Scatter(x=across, y=_broken(axes, [best]), text=_hovers(axes, rows, [best]),
                                mode="lines+markers", name="best run", line={"color": STYLES[1][0], "width": 4},
                                marker={"size": 8}, hovertemplate="%{text}<extra></extra>"))
    for k, axis in enumerate(axes):
        figure.add_vline(x=k, line={"color": "#444444", "width": 1}, layer="below")
        for at, name in axis.ticks:
            figure.add_annotation(x=k, y=at, text=plotly_text(name), showarrow=False, xanchor="left", xshift=5,
                                  bgcolor="rgba(255,255,255,0.75)", font={"size": 11})
    in_style(figure, "", "", _title(sweep, rows), height=430, legend={"orientation": "h", "y": -0.15})
    figure.update_xaxes(tickvals=list(range(len(axes))), side="top", showline=False, showgrid=False,
                        ticktext=[plotly_text(_lines(axis.title)).replace("\n", "<br>") for axis in axes],
                        range=[-0.4, len(axes) - 0.45])
    figure.update_yaxes(visible=False, range=[-0.06, 1.06])
    figure.update_layout(margin={"t": 110, "l": 20}, title={"y": 0.97})
    return figure


def _broken(axes: list[Axis], chosen: list[int]) -> list[Optional[float]]:
    """Places of some runs as one line with gaps: a trace for each of 1,000 runs would be slow."""
    return [value for k in chosen for value in (*[round(float(axis.places[k]), 4) for axis in axes], None)]


def _hovers(axes: list[Axis], rows: list[dict[str, Any]], chosen: list[int]) -> list[str]:
    return [words for k in chosen for words in (
        *[f"{plotly_text(rows[k]['run'])}<br>{plotly_text(axis.title)}: {plotly_text(axis.texts[k])}" for axis in axes],
        "")]


def _parallel_still(sweep: Sweep, rows: list[dict[str, Any]], axes: list[Axis], fifths: np.ndarray) -> Figure:
    figure, (drawing,) = plots.subplots(width=max(7.0, 1.7 * len(axes)), height=4.2)
    for k, fifth in enumerate(fifths):
        best = k == len(rows) - 1
        drawing.plot(range(len(axes)), [axis.places[k] for axis in axes], marker="o", markersize=3,
                     color=STYLES[1][0] if best else FIFTHS[fifth], linewidth=3.5 if best else 1.2)
    for k, axis in enumerate(axes):
        drawing.axvline(k, color="#444444", linewidth=0.8, zorder=0)
        for at, name in axis.ticks:
            drawing.annotate(plots.plain(name[:24]), (k, at), xytext=(5, 0), textcoords="offset points", fontsize=8,
                             va="center", bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})
    drawing.set_xticks(range(len(axes)), [plots.plain(_lines(axis.title)) for axis in axes], fontsize=9)
    drawing.set(ylim=(-0.06, 1.06), yticks=[], xlim=(-0.4, len(axes) - 0.45), xlabel="parameters, cost and score",
                ylabel="from lowest to highest", title=_title(sweep, rows))
    drawing.spines[["left", "right", "top", "bottom"]].set_visible(False)
    return figure


def _kept(figure: go.Figure, still: Figure, folder: Optional[Path], name: str) -> Plot:
    saved = still if folder is None else plots.finish(still, folder, name)
    return Plot(figure, lambda: saved)


def _nothing(words: str, folder: Optional[Path], name: str) -> Plot:
    figure = go.Figure().update_layout(height=90, margin={"t": 10, "b": 10}).update_xaxes(visible=False)
    figure.update_yaxes(visible=False).add_annotation(text=words, showarrow=False)
    return _kept(figure, blank(words), folder, name)


# ---- curves ----

@dataclass
class Curve:
    """PSNR of the validation frames of one run over iterations and over seconds of training."""

    run: str
    iterations: np.ndarray
    seconds: np.ndarray
    psnr: np.ndarray


def curves_of(sweep: Sweep) -> list[Curve]:
    """Of all runs that were evaluated in training, the best by the criterion last; of many, evenly chosen by rank."""
    scored = [row["run"] for row in _scored(sweep)]
    order = [row["run"] for row in sweep.rows() if row["run"] not in set(scored)] + scored
    if len(order) > MAX_CURVES:
        order = [order[k] for k in np.unique(np.linspace(0, len(order) - 1, MAX_CURVES).astype(int))]
    found = []
    for run in order:
        history = History(sweep.open(run, head=False))
        at, psnr = thinned(*history.curve("val_psnr", "eval"), CURVE_POINTS)
        if len(at):
            known, seconds = history.seconds()
            found.append(Curve(run, at, np.interp(at, [0.0, *known], [0.0, *seconds]).round(2), psnr.round(3)))
    return found


def sweep_curves(sweep: Sweep, folder: Optional[Path] = None) -> Plot:
    """PSNR on validation frames of all runs over iterations, or by a button over training time; the best in colour.

    Args:
        sweep: the sweep.
        folder: where the static form is saved as `figures/sweep_curves.png`; default: nowhere.
    """
    curves = curves_of(sweep)
    if not curves:
        return _nothing("No run was evaluated in training.", folder, "sweep_curves")
    others, best = curves[:-BEST_CURVES], curves[-BEST_CURVES:][::-1]
    figure = go.Figure()
    ways: dict[str, list[list[Optional[float]]]] = {"iterations": [], "seconds": []}
    if others:
        figure.add_trace(go.Scatter(
            x=_joined(others, "iterations"), y=_joined(others, "psnr"), mode="lines", name="other runs",
            line={"color": GREY, "width": 1}, text=[plotly_text(c.run) for c in others for _ in range(len(c.psnr) + 1)],
            hovertemplate="%{text}<br>%{y:.2f} dB<extra></extra>"))
    for style, curve in enumerate(best):
        figure.add_trace(line(curve.iterations, curve.psnr, curve.run, style, mode="lines+markers"))
    for way in ways:
        ways[way] = [*([_joined(others, way)] if others else []), *[getattr(c, way).tolist() for c in best]]
    labels = {"iterations": "iteration", "seconds": "training time (s)"}
    in_style(figure, labels["iterations"], "PSNR, validation frames (dB)", f"{len(curves)} of {len(sweep.runs)} runs",
             height=440, legend={"orientation": "h", "y": -0.2})
    figure.update_layout(margin={"t": 70}, updatemenus=[{
        "type": "buttons", "direction": "right", "x": 0.25, "y": 1.2, "xanchor": "left", "yanchor": "top", "buttons": [
            {"label": f"by {way}", "method": "update", "args": [{"x": ways[way]}, {"xaxis.title.text": name}]}
            for way, name in labels.items()]}])
    return _kept(figure, _curves_still(sweep, others, best, labels), folder, "sweep_curves")


def _joined(curves: list[Curve], name: str) -> list[Optional[float]]:
    """Several curves as one with gaps."""
    return [value for curve in curves for value in (*getattr(curve, name).tolist(), None)]


def _curves_still(sweep: Sweep, others: list[Curve], best: list[Curve], labels: dict[str, str]) -> Figure:
    figure, axes = plots.subplots(1, 2, width=12, height=3.8)
    for axis, (way, name) in zip(axes, labels.items()):
        for curve in others:
            axis.plot(getattr(curve, way), curve.psnr, color=GREY, linewidth=0.8)
        for style, curve in reversed(list(enumerate(best))):
            plots.curve(axis, getattr(curve, way), curve.psnr, "", style, marker="o", markersize=3)
        plots.label(axis, name, "PSNR, validation frames (dB)")
    for style, curve in enumerate(best):
        plots.curve(axes[0], [], [], curve.run, style)
    if others:
        axes[0].plot([], [], color=GREY, linewidth=0.8, label=f"{len(others)} other runs")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, handlelength=4)
    return figure


# ---- score against cost ----

def score_against_cost(sweep: Sweep, folder: Optional[Path] = None) -> Plot:
    """The score of each run against its training time, or without training its run time; the Pareto front is marked.

    Args:
        sweep: the sweep.
        folder: where the static form is saved as `figures/sweep_cost.png`; default: nowhere.
    """
    metric, sign = sweep.file.best.metric, 1 if sweep.file.best.highest else -1
    rows = _scored(sweep)
    cost = "seconds_training" if any(score_of(row, "seconds_training") is not None for row in rows) else "seconds"
    rows = [row for row in rows if score_of(row, cost) is not None]
    if not rows:
        return _nothing("No run has both a score and a time.", folder, "sweep_cost")
    x, y = [row[cost] for row in rows], [row[metric] for row in rows]
    front = sorted(k for k, good in enumerate(pareto(x, [sign * value for value in y])) if good)
    front.sort(key=lambda k: x[k])
    figure = go.Figure([
        go.Scatter(x=x, y=y, mode="markers", name="runs", marker={"size": 9, "color": STYLES[0][0]},
                   text=[plotly_text(_described(sweep, row)) for row in rows],
                   hovertemplate="%{text}<br>%{x:.4g} s<br>%{y:.4g}<extra></extra>"),
        go.Scatter(x=[x[k] for k in front], y=[y[k] for k in front], mode="lines+markers", name="Pareto front",
                   line={"color": "#222222", "dash": "dot"}, hoverinfo="skip",
                   marker={"size": 18, "symbol": "circle-open", "line": {"width": 2}})])
    labels = score_label(cost), score_label(metric)
    in_style(figure, *labels, height=400, legend={"orientation": "h", "y": -0.2})
    figure.update_yaxes(range=score_range(metric, y))
    still, (axis,) = plots.subplots(width=8, height=3.8)
    axis.plot(x, y, "o", color=STYLES[0][0], markersize=5)
    axis.plot([x[k] for k in front], [y[k] for k in front], ":o", color="#222222", markersize=12,
              markerfacecolor="none", label="Pareto front")
    plots.label(axis, *labels).set_ylim(score_range(metric, y))
    return _kept(figure, still, folder, "sweep_cost")


def _described(sweep: Sweep, row: dict[str, Any]) -> str:
    return ", ".join([row["run"], *[f"{short(name)} {text(row.get(name))}" for name in varied_names(sweep)]])
