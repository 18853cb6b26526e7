"""A prepared clip, frame by frame: the picture with what was tracked on it, and the sound under a common cursor."""
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
from ...media.rates import FPS
from ...preparation.overlay import draw_frame
from ...speech.encoders import channel_names
from .. import figures
from .base import INK, Panel, choices, encode, image, in_style, line, slider
from .canvas import Canvas

#: what can be drawn on a frame -> what the toggle says
LAYERS = {"landmarks": "landmarks (white)", "rigid": "rigid head (yellow)", "axes": "pose axes x y z",
          "masks": "masks", "lips": "lip box", "eyes": "eye box"}
SHOWN = ("landmarks", "axes", "lips")
ZOOMS = ("whole", "mouth", "eyes")
SIDE = 640            # px of the drawn picture: thin marks stay visible
STEP, PAUSE = 3, 120  # frames and milliseconds of `Play`: about as fast as life
BINS = 10_000         # of the waveform and the features, at most: what a browser draws at once


def moments(ds: Dataset) -> dict[str, int]:
    """Frames of a clip that are worth a look: name -> number."""
    angles = euler(ds.w2c)
    found = {"eyes most closed": ds.blink.argmax(),
             "strongest turn": np.abs(angles[:, 0] - np.median(angles[:, 0])).argmax(),
             "worst fit of the pose": ds.reprojection.argmax()}
    if not ds.found.all():
        found["first without a face"] = ds.found.argmin()
    found.update({f"cut {k}": cut for k, cut in enumerate(ds.report.get("cuts", [])[:5], 1)})
    return {name: int(i) for name, i in found.items()}


def envelope(wave: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each hundredth of a second (or longer in long clips) of a 16 kHz wave, one after the
    other: seconds [2B] and amplitudes [2B]."""
    count = min(4 * frames, BINS)
    edges = np.linspace(0, len(wave), count + 1).astype(int)[:-1]
    values = np.stack([np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)], 1)
    return np.repeat((edges / 16_000).astype(np.float32), 2), values.ravel().astype(np.float32)


class Explorer(Panel):
    """Scrub through a prepared clip: the frame with overlays, and sound, features, mouth and lids under one cursor.

    The slider, the button that plays, and a click into the chart all move the same frame.

    Attributes:
        frame: its number. layers: what is drawn, some of `LAYERS`. zoom: whole, mouth or eyes.
    """

    def __init__(self, ds: Dataset, frame: Optional[int] = None):
        self.ds = ds
        self.frame = len(ds) // 2 if frame is None else int(frame)
        self.layers, self.zoom = set(SHOWN), "whole"
        self.angles = euler(ds.w2c)
        self.strip = steps_of(ds.features).T                                   # [29, 2N]
        self.channels = channel_names(ds.encoder, len(self.strip))

    def __repr__(self) -> str:
        return f"Explorer: {self.facts()}"

    # ---- state ----

    def go(self, frame: int) -> None:
        """Move to a frame; numbers beyond the ends are the ends."""
        frame = int(np.clip(frame, 0, len(self.ds) - 1))
        if frame != self.frame:
            self.frame = frame
            self.refresh()

    def at(self, seconds: float) -> None:
        """Move to the frame that is shown at a time of the clip."""
        self.go(int(float(seconds) * FPS + 1e-3))

    def show(self, *layers: str, zoom: Optional[str] = None) -> None:
        """Draw these layers and no others, of the whole picture, the mouth or the eyes.

        Raises:
            InputError: there is no such layer or zoom.
        """
        unknown = [name for name in layers if name not in LAYERS] + ([] if zoom in (None, *ZOOMS) else [zoom])
        if unknown:
            raise InputError(f"layers of {', '.join(LAYERS)}, a zoom of {', '.join(ZOOMS)}", ", ".join(unknown),
                             "Choose from these.")
        self.layers, self.zoom = set(layers), zoom or self.zoom
        self.refresh()

    def window(self, zoom: str) -> tuple[int, int, int]:
        """x0, y0, edge (px) of the square that a zoom shows in this frame."""
        if zoom == "whole":
            return 0, 0, self.ds.size
        rects, share = (self.ds.lip_rect, 1.1) if zoom == "mouth" else (self.ds.eye_rect, 0.8)
        x0, y0, x1, y1 = rects[self.frame]
        edge = int(np.clip(share * max(x1 - x0, y1 - y0), 8, self.ds.size))
        corner = np.clip([(x0 + x1 - edge) // 2, (y0 + y1 - edge) // 2], 0, self.ds.size - edge)
        return int(corner[0]), int(corner[1]), edge

    def picture(self, zoom: Optional[str] = None, layers: Optional[Collection[str]] = None) -> np.ndarray:
        """The frame with its overlays (others, if they are given), [640, 640, 3] uint8."""
        ds, i, zoom, layers = self.ds, self.frame, zoom or self.zoom, set(self.layers if layers is None else layers)
        rects = {name: rect[i] for name, rect in (("lips", ds.lip_rect), ("eyes", ds.eye_rect)) if name in layers}
        layers |= {"letters"} if "axes" in layers else set()
        return draw_frame(ds.frame(i), ds.mask(i) if "masks" in layers else np.zeros((ds.size, ds.size, 3), np.uint8),
                          ds.landmarks[i], ds.w2c[i], ds.focal, ds.mean_face, rects,
                          f"frame {i}" if zoom == "whole" else "", layers, self.window(zoom), range(len(ds.mean_face)),
                          SIDE)

    def heard(self) -> str:
        """The strongest channel of the features in the middle of the frame."""
        return self.channels[int(self.strip[:, 2 * self.frame:2 * self.frame + 2].mean(1).argmax())]

    def facts(self) -> str:
        """What was measured in this frame, with units."""
        ds, i = self.ds, self.frame
        turn, nod, tilt = self.angles[i]
        part = "training" if i < ds.num_train else "validation"
        face = "" if ds.found[i] else ", no face found: interpolated"
        return (f"frame {i} at {i / FPS:.2f} s ({part}{face}): mouth {ds.aperture[i]:.3f} of the face's height, lids "
                f"{ds.blink[i]:.0%} closed, turn {turn:.1f}, nod {nod:.1f}, tilt {tilt:.1f} degrees, pose "
                f"{ds.reprojection[i]:.2f} px off, strongest channel: {self.heard()}")

    # ---- the live form ----

    def build(self) -> ipywidgets.Widget:
        last = len(self.ds) - 1
        self.slider = slider("frame", 0, last, self.frame, width="calc(100% - 4px)")
        self.play = ipywidgets.Play(value=self.frame, min=0, max=last, step=STEP, interval=PAUSE, show_repeat=False)
        self.link = ipywidgets.jslink((self.play, "value"), (self.slider, "value"))
        self.slider.observe(self.guarded(lambda change: self.go(change["new"])), "value")
        self.toggles = {name: ipywidgets.ToggleButton(name in self.layers, description=text,
                                                      layout=ipywidgets.Layout(width="auto"))
                        for name, text in LAYERS.items()}
        for toggle in self.toggles.values():
            toggle.observe(self.guarded(self._toggled), "value")
        self.zooms = choices("show", [("the whole picture", "whole"), ("the mouth", "mouth"), ("the eyes", "eyes")],
                             self.zoom, width="calc(100% - 4px)")
        self.zooms.observe(self.guarded(self._toggled), "value")
        self.jump = choices("go to", [("a moment", -1), *moments(self.ds).items()], width="calc(100% - 4px)")
        self.jump.observe(self.guarded(lambda change: change["new"] >= 0 and self.go(change["new"])), "value")
        self.view, self.text, self.chart = image(self.picture(), width=None), ipywidgets.HTML(), self.make_chart()
        self.canvas = Canvas(self.chart, self.guarded(self.at))
        self._built = True
        self.refresh()
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        switches = ipywidgets.HBox(list(self.toggles.values()), layout=wrap)
        left = ipywidgets.VBox([self.view, self.play, self.slider, switches, self.zooms, self.jump],
                               layout=ipywidgets.Layout(flex="1 1 340px", max_width="460px"))
        right = ipywidgets.VBox([self.canvas], layout=ipywidgets.Layout(flex="3 1 420px", min_width="0"))
        return ipywidgets.VBox([ipywidgets.HBox([left, right], layout=wrap), self.text, self.note])

    def _toggled(self, _: Any) -> None:
        if not self._settling:
            self.show(*(name for name, toggle in self.toggles.items() if toggle.value), zoom=self.zooms.value)

    _built, _settling = False, False  # settling: controls follow the state, and do not set it

    def refresh(self) -> None:
        """Bring picture, slider, cursor and text up to date with the state."""
        if not self._built:
            return
        self.view.value, self.text.value = encode(self.picture()), escape(self.facts())
        self.slider.value, self._settling = self.frame, True
        try:
            self.zooms.value = self.zoom
            for name, toggle in self.toggles.items():
                toggle.value = name in self.layers
        finally:
            self._settling = False
        time, seen = self.frame / FPS, self.chart.layout.xaxis.range
        with self.canvas.changing():
            for cursor in self.chart.layout.shapes[:2]:
                cursor.x0 = cursor.x1 = time
            if seen and not seen[0] <= time <= seen[1]:  # zoomed in: the view follows the cursor
                middle, half = time, (seen[1] - seen[0]) / 2
                self.chart.layout.xaxis.range = (middle - half, middle + half)

    def make_chart(self) -> go.Figure:
        """Sound, features, mouth and lids on one time axis, with a cursor; a click moves the frame."""
        ds, end = self.ds, len(self.ds) / FPS
        time = np.arange(len(ds), dtype=np.float32) / FPS
        chart = make_subplots(4, 1, shared_xaxes=True, row_heights=[0.14, 0.54, 0.17, 0.15], vertical_spacing=0.025)
        rows = [line(*envelope(ds.audio(), len(ds)), "sound"), self._heatmap(),
                line(time, ds.aperture, "mouth"), line(time, ds.blink, "lids", style=1)]
        rows[0].line.width = 1
        chart.add_traces(rows, rows=[1, 2, 3, 4], cols=[1] * 4)
        in_style(chart, "", "", height=640, hovermode="x", hoverdistance=-1, showlegend=False, dragmode="pan")
        chart.update_layout(margin={"l": 64, "r": 12, "t": 24, "b": 44}, width=480)
        for row, name in enumerate(("sound", "features: " + ds.encoder.get("name", "channel"),
                                    "mouth: lip gap<br>/ face height", "lids: 0 open<br>1 closed"), 1):
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
        every = -(-self.strip.shape[1] // BINS)
        shown = self.strip[:, ::every]
        low, high = np.percentile(shown, (1, 99))
        steps = (np.arange(shown.shape[1], dtype=np.float32) * every + 0.5) / (2 * FPS)
        return go.Heatmap(x=steps, y=self.channels, z=shown, zmin=low, zmax=max(high, low + 1e-6), colorscale="Magma",
                          showscale=False, hovertemplate="%{y}: %{z:.2f} at %{x:.2f} s<extra></extra>")

    # ---- the still form ----

    def still(self) -> Figure:
        figure = Figure(figsize=(12, 9), facecolor="white", layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[4, 8])
        places = left.subplot_mosaic([["frame", "frame"], ["other", "other"], ["mouth", "eyes"]],
                                     height_ratios=[2, 2, 1])
        other = [name for name in LAYERS if name not in self.layers]
        for (axis, zoom, layers) in ((places["frame"], "whole", self.layers), (places["other"], "whole", other),
                                     (places["mouth"], "mouth", self.layers), (places["eyes"], "eyes", self.layers)):
            axis.imshow(self.picture(zoom, layers))
            names = ", ".join(text for name, text in LAYERS.items() if name in layers)
            axis.set_title(names if zoom == "whole" else zoom, fontsize=9)
            axis.axis("off")
        axes = right.subplots(4, 1)
        figures.signals(self.ds, axes)
        axes[1].axvline(self.frame / FPS, color="white", linewidth=4)  # seen on the dark picture
        for axis in axes:
            axis.axvline(self.frame / FPS, color=INK, linewidth=1.5)
        figure.suptitle(self.facts(), fontsize=9)
        return figure
