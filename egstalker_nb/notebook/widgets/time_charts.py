"""Charts over the time of the driving audio, with a cursor at the current frame."""
from __future__ import annotations

from html import escape
from typing import Callable

import ipywidgets
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from ...analysis import audio_curves
from ...analysis.audio_curves import ATTENTION_PARTS, AudioCurves
from ...media.rates import FPS
from ...model.deformation import TOKENS
from .. import audio_figures
from .base import INK, Panel, in_style, line, slider
from .canvas import Canvas

CURSOR = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1}
#: dark dashes on a white line: visible on white and on dark heat maps
CURSOR_LINES = ({"color": "white", "width": 3.5}, {"color": INK, "width": 1.5, "dash": "dash"})


class TimeChart(Panel):
    """Charts over time, with a slider for the frame.

    Args:
        curves: what is drawn.
        watcher: called with the frame that the reader selects with the slider or in a chart.
        picture: returns the JPEG of a frame, shown beside the slider.
    """

    def __init__(self, curves: AudioCurves, watcher: Callable[[int], None], picture: Callable[[int], bytes]):
        self.curves, self.watcher, self.picture, self.frame = curves, watcher, picture, 0

    def set_frame(self, frame: int) -> None:
        """Move the cursor to a frame."""
        self.frame = frame
        if self.built:
            self._move_cursor()

    def set_curves(self, curves: AudioCurves) -> None:
        """Draw the curves of other audio, from its first frame on."""
        self.curves, self.frame = curves, 0
        self.refresh()

    def redraw(self) -> None:
        self.control.value = min(self.frame, self.control.max)
        self.control.max = len(self.curves) - 1
        with self.canvas.changing():
            self.fill()
            self.chart.update_xaxes(range=[0, len(self.curves) / FPS])
        self._move_cursor()

    def _move_cursor(self) -> None:
        self.control.value = self.frame
        with self.canvas.changing():
            for shape in self.chart.layout.shapes:
                shape.update(x0=self.frame / FPS, x1=self.frame / FPS)
        self.readout.value, self.shot.value = self.describe(self.frame), self.picture(self.frame)

    def build(self) -> ipywidgets.Widget:
        self.control = slider("frame", 0, len(self.curves) - 1, self.frame, width="36em")
        self.readout = ipywidgets.HTML()
        self.chart = self.figure()
        self.shot = ipywidgets.Image(format="jpeg", layout=ipywidgets.Layout(width="160px", object_fit="contain"))
        for look in CURSOR_LINES:
            self.chart.add_shape(x0=0, x1=0, line=look, **CURSOR)
        self.control.observe(lambda change: self.watcher(change["new"]), "value")
        self.canvas = Canvas(self.chart, clicked=self._clicked)
        beside = ipywidgets.VBox([self.control, self.readout], layout=ipywidgets.Layout(justify_content="center"))
        return ipywidgets.VBox([ipywidgets.HBox([self.shot, beside]), self.canvas])

    def _clicked(self, time: float) -> None:
        self.watcher(min(max(round(time * FPS), 0), len(self.curves) - 1))

    def figure(self) -> go.Figure:
        """The charts, still empty."""
        raise NotImplementedError

    def fill(self) -> None:
        """Put the curves into the charts."""
        raise NotImplementedError

    def describe(self, frame: int) -> str:
        """The values at a frame, as HTML."""
        raise NotImplementedError


class AudioChart(TimeChart):
    """Waveform, audio features and the predicted mouth opening."""

    def figure(self) -> go.Figure:
        figure = make_subplots(3, 1, shared_xaxes=True, vertical_spacing=0.045, row_heights=[0.2, 0.55, 0.25])
        figure.add_trace(line([], [], "audio", hoverinfo="x"), 1, 1)
        figure.add_trace(go.Heatmap(colorscale="Magma", zmin=0, zmax=1, showscale=False, name="features",
                                    hovertemplate="%{x:.2f} s, %{y}: %{z:.2f}<extra></extra>"), 2, 1)
        figure.add_trace(line([], [], "opening", fill="tozeroy", fillcolor="rgba(27,58,107,0.15)"), 3, 1)
        figure.add_trace(go.Scatter(name="silence", mode="lines", line={"width": 0, "shape": "hvh"}, fill="tozeroy",
                                    fillcolor="rgba(127,127,127,0.35)", hovertemplate="silence<extra></extra>"), 3, 1)
        in_style(figure, "", "", height=620, showlegend=False)
        figure.update_xaxes(title_text="time (s)", row=3, col=1)
        for row, title in enumerate(("amplitude", "channel", "lip gap /<br>face height"), 1):
            figure.update_yaxes(title_text=title, row=row, col=1)
        figure.update_yaxes(tickfont={"size": 8}, dtick=1, row=2, col=1)
        return figure

    def fill(self) -> None:
        wave, strip, opening, silence = self.chart.data
        curves = self.curves
        wave.x, wave.y = curves.outline()
        strip.x, strip.z = curves.strip()
        strip.y = curves.channels
        opening.x, opening.y = curves.time, curves.opening
        silence.x, silence.y = curves.time, (curves.silent > 0.5) * curves.opening.max()

    def describe(self, frame: int) -> str:
        strongest = escape(self.curves.channels[int(self.curves.features[frame, 8].argmax())])
        quiet = ", silence" if self.curves.silent[frame] > 0.5 else ""
        return (f"{frame / FPS:.2f} s, strongest channel: <b>{strongest}</b>{quiet}, "
                f"opening {self.curves.opening[frame]:.3f}")

    def still(self) -> Figure:
        return audio_figures.audio_figure(self.curves, self.frame)


class AttentionChart(TimeChart):
    """Mean attention of mouth, eyes and the rest of the head over the tokens."""

    def figure(self) -> go.Figure:
        figure = make_subplots(3, 1, shared_xaxes=True, vertical_spacing=0.07,
                               subplot_titles=list(audio_curves.PART_LABELS.values()))
        figure.update_annotations(font_size=12)
        for row in (1, 2, 3):
            for style, token in enumerate(TOKENS):
                figure.add_trace(line([], [], token, style, legendgroup=token, showlegend=row == 1), row, 1)
        in_style(figure, "", "attention", height=520, legend={"title": {"text": "token"}})
        figure.update_layout(margin={"t": 30})
        figure.update_xaxes(title_text="time (s)", row=3, col=1)
        figure.update_yaxes(range=[0, 1])
        return figure

    def fill(self) -> None:
        places = [(ATTENTION_PARTS.index(part), k) for part in audio_curves.PART_LABELS for k in range(len(TOKENS))]
        for trace, (part, token) in zip(self.chart.data, places):
            trace.x, trace.y = self.curves.time, self.curves.attention[:, part, token]

    def describe(self, frame: int) -> str:
        words = []
        for part in audio_curves.PART_LABELS:
            row = self.curves.attention[frame, ATTENTION_PARTS.index(part)]
            words.append(f"{part}: {row.max():.0%} on <b>{TOKENS[int(row.argmax())]}</b>")
        return f"{frame / FPS:.2f} s; {'; '.join(words)}"

    def still(self) -> Figure:
        return audio_figures.attention_figure(self.curves, self.frame)
