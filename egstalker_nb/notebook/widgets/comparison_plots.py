"""Curves of several runs over iterations or time, and quality against cost; both work without a kernel."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from ...analysis import cost
from ...analysis.comparison import Comparison
from ...analysis.cost import seconds_at, series
from ...training.history import NOT_A_TERM
from .. import plots
from ..plots import STYLES
from .base import Plot, in_style, line, plotly_text

MAX_ROWS = 500  # of a curve: keeps the notebook small
X_LABELS: dict[cost.By, str] = {"iteration": "iteration", "time": "training time (s)"}
#: (kind of metrics row, its key, label of the y axis, title)
METRIC_CHARTS = (("eval", "val_psnr", "PSNR (dB)", "validation frames"),
                 ("train", "psnr", "PSNR (dB)", "training batches"),
                 ("train", "points", "Gaussians", "number of Gaussians"), ("train", "loss", "loss", "loss"))
COSTS = {"seconds": "training time (s)", "points": "Gaussians", "mib": "size of the head (MiB)"}
RUN_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
RUN_MARKERS = ("o", "s", "D", "^", "P", "*")


def run_curves(result: Comparison, folder: Optional[Path] = None) -> Plot:
    """PSNR, Gaussians and loss of all runs; buttons switch to training time, a menu chooses the loss term.

    Args:
        result: the runs, see `egs.compare`.
        folder: where the static form is saved as `figures/compare_curves.png`; default: nowhere.
    """
    return _kept(_curves(result), lambda: _curves_still(result), folder, "compare_curves")


def _rows(run: Any, kind: str) -> list[dict[str, Any]]:
    """Rows of the metrics, evenly subsampled."""
    rows = run.metrics(kind)
    keep = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(int)) if rows else []
    return [rows[k] for k in keep]


def _curves(result: Comparison) -> go.Figure:
    figure = make_subplots(2, 2, subplot_titles=[p[3] for p in METRIC_CHARTS], vertical_spacing=0.17)
    x: dict[cost.By, list[list[float]]] = {"iteration": [], "time": []}
    terms = ["loss", *dict.fromkeys(k for r in result.runs for row in r.metrics("train") for k in row
                                    if k not in NOT_A_TERM)]
    losses: dict[str, list[list]] = {term: [] for term in terms}
    places = []
    for n, (kind, key, _, _) in enumerate(METRIC_CHARTS):
        for style, (run, name) in enumerate(zip(result.runs, result.names)):
            rows, at = _rows(run, kind), seconds_at(run)
            iterations = [r["iteration"] for r in rows]
            x["iteration"].append(iterations)
            x["time"].append(np.round(np.interp(iterations, [0, *at], [0.0, *at.values()]), 2).tolist())
            if key == "loss":
                places.append(len(x["time"]) - 1)
                for term in terms:
                    losses[term].append([_short(r.get(term)) for r in rows])
            trace = line(iterations, [_short(r.get(key)) for r in rows], name, style, legendgroup=plotly_text(name),
                         showlegend=n == 0, mode="lines+markers" if kind == "eval" else "lines")
            figure.add_trace(trace, n // 2 + 1, n % 2 + 1)
    in_style(figure, X_LABELS["iteration"], "", height=620, legend={"orientation": "h", "y": 1.16, "x": 0.55})
    figure.update_layout(margin={"t": 120})
    for n, (_, _, name, _) in enumerate(METRIC_CHARTS):
        figure.update_yaxes(title_text=name, row=n // 2 + 1, col=n % 2 + 1)
    figure.update_yaxes(type="log", row=2, col=2)
    axes = [f"xaxis{n or ''}.title.text" for n in (0, 2, 3, 4)]
    ways = [{"label": f"by {way}", "method": "update", "args": [{"x": x[way]}, dict.fromkeys(axes, X_LABELS[way])]}
            for way in x]
    kinds = [{"label": "loss (sum)" if term == "loss" else f"loss term: {plotly_text(term)}", "method": "restyle",
              "args": [{"y": losses[term]}, places]} for term in terms]
    figure.update_layout(updatemenus=[
        {"type": "buttons", "direction": "right", "buttons": ways, "x": 0, "y": 1.2, "xanchor": "left",
         "yanchor": "top", "active": 0},
        {"buttons": kinds, "x": 0.28, "y": 1.2, "xanchor": "left", "yanchor": "top"}])
    return figure


def _short(value: Optional[float]) -> Optional[float]:
    """Enough digits for a chart; a disabled term (0) is a gap."""
    return float(f"{value:.4g}") if value else None


def _curves_still(result: Comparison) -> Figure:
    """The same four charts, over iterations above and over time below."""
    figure, axes = plots.subplots(2, len(METRIC_CHARTS), width=14, height=3.1)
    for row, by in enumerate(X_LABELS):
        for axis, (kind, key, y_name, title) in zip(axes[row * len(METRIC_CHARTS):], METRIC_CHARTS):
            for style, run in enumerate(result.runs):
                dots = {"marker": RUN_MARKERS[style % len(RUN_MARKERS)], "markersize": 4} if kind == "eval" else {}
                plots.curve(axis, *series(run, kind, key, by), "", style, **dots)
            plots.label(axis, X_LABELS[by], y_name, title)
            if key == "loss":
                axis.set_yscale("log")
    for style, name in enumerate(result.names):
        plots.curve(axes[0], [], [], name, style)
    figure.legend(loc="outside upper center", ncols=min(4, len(result.names)), frameon=False, handlelength=4)
    return figure


# ---- quality against cost ----

def cost_plot(result: Comparison, folder: Optional[Path] = None) -> Plot:
    """PSNR on validation frames against training time, Gaussians or file size; the Pareto front is marked.

    Args:
        result: the runs, see `egs.compare`.
        folder: where the static form is saved as `figures/compare_cost.png`; default: nowhere.
    """
    summaries = result.summaries()
    return _kept(_cost_chart(summaries), lambda: _cost_still(summaries), folder, "compare_cost")


def _kept(figure: go.Figure, still: Callable[[], Figure], folder: Optional[Path], name: str) -> Plot:
    """A plot whose static form is saved at once if there is a folder: a live notebook never needs it."""
    if folder is None:
        return Plot(figure, still)
    saved = plots.finish(still(), folder, name)
    return Plot(figure, lambda: saved)


def front(summaries: list[cost.RunSummary], name: str) -> list[cost.RunSummary]:
    """The Pareto front of quality and a cost, the cheapest first.

    Args:
        summaries: of the runs.
        name: of the cost, a key of `COSTS`; runs without it are ignored.
    """
    known = [o for o in summaries if getattr(o, name) is not None]
    best = cost.pareto([getattr(o, name) for o in known], [o.psnr for o in known])
    return sorted((o for o, good in zip(known, best) if good), key=lambda o: getattr(o, name))


def _psnr_range(summaries: list[cost.RunSummary]) -> tuple[float, float]:
    """The PSNR axis, in dB: not so narrow that noise looks like a difference."""
    low, high = min(o.psnr for o in summaries), max(o.psnr for o in summaries)
    pad = 0.3 * max(high - low, 1.5)
    return low - pad, high + pad


def _cost_chart(summaries: list[cost.RunSummary]) -> go.Figure:
    figure, edges = go.Figure(), {key: front(summaries, key) for key in COSTS}
    first = next(iter(COSTS))
    figure.add_trace(go.Scatter(x=[getattr(o, first) for o in edges[first]], y=[o.psnr for o in edges[first]],
                                name="Pareto front", mode="lines+markers", line={"color": "#222222", "dash": "dot"},
                                marker={"size": 22, "symbol": "circle-open", "line": {"width": 2}}))
    for style, o in enumerate(summaries):
        name = plotly_text(o.name)
        figure.add_trace(go.Scatter(
            x=[getattr(o, first)], y=[o.psnr], name=name, mode="markers+text", text=[f"{name}<br> "],
            textposition="top center", marker={"size": 11, "color": STYLES[style % len(STYLES)][0],
                                               "symbol": RUN_SYMBOLS[style % len(RUN_SYMBOLS)]},
            hovertemplate=f"{name}<br>%{{y:.2f}} dB<br>%{{x:.4g}}<extra></extra>"))
    buttons = []
    for key, name in COSTS.items():
        x = [[getattr(o, key) for o in edges[key]], *[[getattr(o, key)] for o in summaries]]
        y = [[o.psnr for o in edges[key]], *[[o.psnr] for o in summaries]]
        buttons.append({"label": name, "method": "update", "args": [{"x": x, "y": y}, {"xaxis.title.text": name}]})
    in_style(figure, COSTS[first], "PSNR, validation frames (dB)", height=420)
    figure.update_yaxes(range=_psnr_range(summaries))
    figure.update_xaxes(rangemode="tozero")
    figure.update_layout(margin={"t": 70}, updatemenus=[{
        "type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "y": 1.2, "xanchor": "left",
        "yanchor": "top"}])
    return figure


def _cost_still(summaries: list[cost.RunSummary]) -> Figure:
    figure, axes = plots.subplots(1, len(COSTS), width=13, height=3.8)
    for axis, (key, name) in zip(axes, COSTS.items()):
        edge = front(summaries, key)
        axis.plot([getattr(o, key) for o in edge], [o.psnr for o in edge], ":o", color="#222222", markersize=15,
                  markerfacecolor="none", label="Pareto front")
        for style, o in enumerate(summaries):
            if getattr(o, key) is None:
                continue
            axis.plot(getattr(o, key), o.psnr, RUN_MARKERS[style % len(RUN_MARKERS)],
                      color=STYLES[style % len(STYLES)][0], markersize=7)
            axis.annotate(plots.plain(o.name), (getattr(o, key), o.psnr), xytext=(0, 11), ha="center",
                          textcoords="offset points")
        known = [getattr(o, key) for o in summaries if getattr(o, key) is not None]
        axis.set(xlim=(0, 1.3 * max(known, default=1)), ylim=_psnr_range(summaries))
        plots.label(axis, name, "PSNR, validation frames (dB)")
        axis.legend(frameon=False, loc="lower right")
    return figure
