"""A prepared clip, frame by frame: images with tracking overlays, and charts of audio and face under one cursor."""
from __future__ import annotations

from html import escape
from typing import Any, Collection, Optional

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from ...core.errors import InputError
from ...data.dataset import Dataset
from ...face.pose_math import euler
from ...media.audio import steps_of
from ...media.rates import FPS, SAMPLE_RATE
from ...preparation.overlay import draw_frame
from ...speech.encoders import channel_names
from .. import figures
from .base import INK, Panel, choices, encode, image, in_style, line, plotly_text, slider
from .canvas import Canvas

#: overlays of a frame -> labels of their toggles
OVERLAYS = {"landmarks": "landmarks (white)", "rigid": "rigid head (yellow)", "axes": "pose axes x y z",
            "masks": "masks", "lips": "lip box", "eyes": "eye box"}
DEFAULT_OVERLAYS = ("landmarks", "axes", "lips")
ZOOMS = ("whole", "mouth", "eyes")
IMAGE_SIZE = 640                    # px of the image with overlays: thin marks stay visible
PLAY_STEP, PLAY_INTERVAL = 3, 120   # frames and milliseconds of `Play`: about real time
MAX_CHART_COLUMNS = 10_000          # of waveform and features: what a browser can draw at once


def moments(ds: Dataset) -> dict[str, int]:
    """Notable frames of a clip: description -> frame number."""
    angles = euler(ds.w2c)
    found = {"eyes most closed": ds.blink.argmax(),
             "largest yaw": np.abs(angles[:, 0] - np.median(angles[:, 0])).argmax(),
             "largest reprojection error": ds.reprojection.argmax()}
    if not ds.found.all():
        found["first without a face"] = ds.found.argmin()
    found.update({f"cut {k}": cut for k, cut in enumerate(ds.report.get("cuts", [])[:5], 1)})
    return {name: int(i) for name, i in found.items()}


def envelope(wave: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The envelope of a waveform: minimum and maximum of every 10 ms (more in long clips), alternating.

    Args:
        wave: [samples], 16 kHz.
        frames: of its video.

    Returns:
        seconds [2B] and amplitudes [2B], float32.
    """
    count = min(4 * frames, MAX_CHART_COLUMNS)
    edges = np.linspace(0, len(wave), count + 1).astype(int)[:-1]
    values = np.stack([np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)], 1)
    return np.repeat((edges / SAMPLE_RATE).astype(np.float32), 2), values.ravel().astype(np.float32)


class Explorer(Panel):
    """Scrub through a prepared clip: frames with overlays, and audio, features, mouth and eyelids under one cursor.

    Slider, play button and clicks into the chart all select the frame.

    Args:
        ds: a dataset.
        frame: the initial frame; default: the middle one.

    Attributes:
        frame: number of the current frame.
        layers: the overlays shown, a subset of `OVERLAYS`.
        zoom: whole, mouth or eyes.
    """

    def __init__(self, ds: Dataset, frame: Optional[int] = None):
        self.ds = ds
        self.frame = len(ds) // 2 if frame is None else int(frame)
        self.layers, self.zoom = set(DEFAULT_OVERLAYS), "whole"
        self._updating = False  # the controls follow the state: their events do not change it
        self.angles = euler(ds.w2c)
        self.strip = steps_of(ds.features).T                                   # [29, 2N]
        self.channels = channel_names(ds.encoder, len(self.strip))

    def __repr__(self) -> str:
        return f"Explorer: {self.facts()}"

    # ---- state ----

    def set_frame(self, frame: int) -> None:
        """Go to a frame; numbers outside the clip are clamped."""
        frame = int(np.clip(frame, 0, len(self.ds) - 1))
        if frame != self.frame:
            self.frame = frame
            self.refresh()

    def set_time(self, seconds: float) -> None:
        """Go to the frame shown at a time of the clip."""
        self.set_frame(int(float(seconds) * FPS + 1e-3))

    def show(self, *layers: str, zoom: Optional[str] = None) -> None:
        """Show exactly these overlays.

        Args:
            layers: keys of `OVERLAYS`.
            zoom: whole, mouth or eyes; default: unchanged.

        Raises:
            InputError: no such overlay or zoom.
        """
        unknown = [name for name in layers if name not in OVERLAYS]
        if zoom is not None and zoom not in ZOOMS:
            unknown.append(zoom)
        if unknown:
            raise InputError(f"overlays of {', '.join(OVERLAYS)}, a zoom of {', '.join(ZOOMS)}", ", ".join(unknown),
                             "Choose from these.")
        self.layers, self.zoom = set(layers), zoom or self.zoom
        self.refresh()

    def window(self, zoom: str) -> tuple[int, int, int]:
        """x0, y0 and edge length (px) of the square of the frame that a zoom shows."""
        if zoom == "whole":
            return 0, 0, self.ds.size
        rects, share = (self.ds.lip_rect, 1.1) if zoom == "mouth" else (self.ds.eye_rect, 0.8)
        x0, y0, x1, y1 = rects[self.frame]
        edge = int(np.clip(share * max(x1 - x0, y1 - y0), 8, self.ds.size))
        corner = np.clip([(x0 + x1 - edge) // 2, (y0 + y1 - edge) // 2], 0, self.ds.size - edge)
        return int(corner[0]), int(corner[1]), edge

    def picture(self, zoom: Optional[str] = None, layers: Optional[Collection[str]] = None) -> np.ndarray:
        """The frame with overlays (default: zoom and overlays of the state), [640, 640, 3] uint8."""
        ds, i, zoom, shown = self.ds, self.frame, zoom or self.zoom, set(self.layers if layers is None else layers)
        rects = {name: rect[i] for name, rect in (("lips", ds.lip_rect), ("eyes", ds.eye_rect)) if name in shown}
        shown |= {"letters"} if "axes" in shown else set()
        return draw_frame(ds.frame(i), ds.mask(i) if "masks" in shown else np.zeros((ds.size, ds.size, 3), np.uint8),
                          ds.landmarks[i], ds.w2c[i], ds.focal, ds.mean_face, rects,
                          f"frame {i}" if zoom == "whole" else "", shown, self.window(zoom), range(len(ds.mean_face)),
                          IMAGE_SIZE)

    def strongest_channel(self) -> str:
        """The strongest feature channel at the frame."""
        return self.channels[int(self.strip[:, 2 * self.frame:2 * self.frame + 2].mean(1).argmax())]

    def facts(self) -> str:
        """The measurements of the frame, with units."""
        ds, i = self.ds, self.frame
        yaw, pitch, roll = self.angles[i]
        part = "training" if i < ds.num_train else "validation"
        face = "" if ds.found[i] else ", no face found: interpolated"
        return (f"frame {i} at {i / FPS:.2f} s ({part}{face}): mouth opening {ds.aperture[i]:.3f} of the face height, "
                f"eyelids {ds.blink[i]:.0%} closed, yaw {yaw:.1f}, pitch {pitch:.1f}, roll {roll:.1f} degrees, "
                f"reprojection error {ds.reprojection[i]:.2f} px, strongest channel: {self.strongest_channel()}")

    # ---- the interactive form ----

    def build(self) -> ipywidgets.Widget:
        last = len(self.ds) - 1
        self.slider = slider("frame", 0, last, self.frame, width="calc(100% - 4px)")
        self.play = ipywidgets.Play(value=self.frame, min=0, max=last, step=PLAY_STEP, interval=PLAY_INTERVAL,
                                    show_repeat=False)
        self.link = ipywidgets.jslink((self.play, "value"), (self.slider, "value"))
        self.slider.observe(self.guarded(lambda change: self.set_frame(change["new"])), "value")
        self.toggles = {name: ipywidgets.ToggleButton(name in self.layers, description=text,
                                                      layout=ipywidgets.Layout(width="auto"))
                        for name, text in OVERLAYS.items()}
        for toggle in self.toggles.values():
            toggle.observe(self.guarded(self._toggled), "value")
        self.zooms = choices("zoom", [("the whole frame", "whole"), ("the mouth", "mouth"), ("the eyes", "eyes")],
                             self.zoom, width="calc(100% - 4px)")
        self.zooms.observe(self.guarded(self._toggled), "value")
        self.jump = choices("go to", [("a notable frame", -1), *moments(self.ds).items()], width="calc(100% - 4px)")
        self.jump.observe(self.guarded(self._jumped), "value")
        self.view, self.text, self.chart = image(self.picture(), width=None), ipywidgets.HTML(), self.make_chart()
        self.canvas = Canvas(self.chart, self.guarded(self.set_time))
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        switches = ipywidgets.HBox(list(self.toggles.values()), layout=wrap)
        left = ipywidgets.VBox([self.view, self.play, self.slider, switches, self.zooms, self.jump],
                               layout=ipywidgets.Layout(flex="1 1 340px", max_width="460px"))
        right = ipywidgets.VBox([self.canvas], layout=ipywidgets.Layout(flex="3 1 420px", min_width="0"))
        return ipywidgets.VBox([ipywidgets.HBox([left, right], layout=wrap), self.text, self.note])

    def _toggled(self, _: Any) -> None:
        if not self._updating:
            self.show(*(name for name, toggle in self.toggles.items() if toggle.value), zoom=self.zooms.value)

    def _jumped(self, change: dict[str, Any]) -> None:
        if change["new"] >= 0:
            self.set_frame(change["new"])

    def redraw(self) -> None:
        self.view.value, self.text.value = encode(self.picture()), escape(self.facts())
        self.slider.value, self._updating = self.frame, True
        try:
            self.zooms.value = self.zoom
            for name, toggle in self.toggles.items():
                toggle.value = name in self.layers
        finally:
            self._updating = False
        time, seen = self.frame / FPS, self.chart.layout.xaxis.range
        with self.canvas.changing():
            for cursor in self.chart.layout.shapes[:2]:
                cursor.x0 = cursor.x1 = time
            if seen and not seen[0] <= time <= seen[1]:  # zoomed in: keep the cursor visible
                middle, half = time, (seen[1] - seen[0]) / 2
                self.chart.layout.xaxis.range = (middle - half, middle + half)

    def make_chart(self) -> go.Figure:
        """Waveform, features, mouth opening and eyelids on one time axis, with a cursor."""
        ds, end = self.ds, len(self.ds) / FPS
        time = np.arange(len(ds), dtype=np.float32) / FPS
        chart = make_subplots(4, 1, shared_xaxes=True, row_heights=[0.14, 0.54, 0.17, 0.15], vertical_spacing=0.025)
        rows = [line(*envelope(ds.audio(), len(ds)), "audio"), self._heatmap(),
                line(time, ds.aperture, "mouth opening"), line(time, ds.blink, "eyelids", style=1)]
        rows[0].line.width = 1
        chart.add_traces(rows, rows=[1, 2, 3, 4], cols=[1] * 4)
        in_style(chart, "", "", height=640, hovermode="x", hoverdistance=-1, showlegend=False, dragmode="pan")
        chart.update_layout(margin={"l": 64, "r": 12, "t": 24, "b": 44}, width=480)
        for row, name in enumerate(("audio", "features: " + plotly_text(str(ds.encoder.get("name", "channel"))),
                                    "mouth: lip gap<br>/ face height", "eyelids: 0 open<br>1 closed"), 1):
            chart.update_yaxes(title={"text": name, "font": {"size": 11}}, fixedrange=True, row=row, col=1)
        chart.update_yaxes(type="category", dtick=1, tickfont={"size": 9}, showgrid=False, row=2, col=1)
        chart.update_xaxes(range=(0, end))
        chart.update_xaxes(title_text="time (s)", row=4, col=1)
        both = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0}
        chart.layout.shapes = [
            {**both, "yref": "y2 domain", "line": {"color": "white", "width": 5}},
            {**both, "line": {"color": INK, "width": 2}},
            {"type": "rect", "xref": "x", "yref": "paper", "x0": ds.num_train / FPS, "x1": end, "y0": 0, "y1": 1,
             "fillcolor": "#888888", "opacity": 0.2, "layer": "below", "line": {"width": 0}}]
        chart.add_annotation(text="validation", x=end, xref="x", xanchor="right", y=1, yref="paper", yanchor="bottom",
                             showarrow=False, font={"size": 10})
        return chart

    def _heatmap(self) -> go.Heatmap:
        every = -(-self.strip.shape[1] // MAX_CHART_COLUMNS)
        shown = self.strip[:, ::every]
        low, high = np.percentile(shown, (1, 99))
        steps = (np.arange(shown.shape[1], dtype=np.float32) * every + 0.5) / (2 * FPS)
        return go.Heatmap(x=steps, y=self.channels, z=shown, zmin=low, zmax=max(high, low + 1e-6), colorscale="Magma",
                          showscale=False, hovertemplate="%{y}: %{z:.2f} at %{x:.2f} s<extra></extra>")

    # ---- the static form ----

    def still(self) -> Figure:
        figure = Figure(figsize=(12, 9), facecolor="white", layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[4, 8])
        places = left.subplot_mosaic([["frame", "frame"], ["other", "other"], ["mouth", "eyes"]],
                                     height_ratios=[2, 2, 1])
        other = [name for name in OVERLAYS if name not in self.layers]
        for (axis, zoom, layers) in ((places["frame"], "whole", self.layers), (places["other"], "whole", other),
                                     (places["mouth"], "mouth", self.layers), (places["eyes"], "eyes", self.layers)):
            axis.imshow(self.picture(zoom, layers))
            names = ", ".join(text for name, text in OVERLAYS.items() if name in layers)
            axis.set_title(names if zoom == "whole" else zoom, fontsize=9)
            axis.axis("off")
        axes = right.subplots(4, 1)
        figures.signals(self.ds, axes)
        axes[1].axvline(self.frame / FPS, color="white", linewidth=4)  # visible on the dark heat map
        for axis in axes:
            axis.axvline(self.frame / FPS, color=INK, linewidth=1.5)
        figure.suptitle(self.facts(), fontsize=9)
        return figure
