"""What all panels share: the live and the still form, pictures, sliders, messages, the look of charts."""
from __future__ import annotations

import io
import json
import os
from functools import cached_property, wraps
from html import escape
from pathlib import Path
from typing import Any, Callable, Literal, Optional, Sequence

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from ...core.errors import EgsError
from ...core.progress import in_notebook
from ...media import player
from ...media.image_io import encode_jpeg, encode_png
from ..plots import STYLES

#: set to 1, panels show their still form only: for notebooks that are run headless
STATIC = "EGS_STATIC"
WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
INK = "#222222"


def live() -> bool:
    """Whether somebody can operate widgets: in a notebook, unless the variable `EGS_STATIC` is set."""
    return in_notebook() and not os.environ.get(STATIC)


def png(figure: Figure) -> bytes:
    """A matplotlib figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


class Panel:
    """A part of a notebook that can be operated, and a picture of it for Papermill, HTML export and GitHub.

    Both go into one output: a live notebook shows the widget, whatever cannot takes the picture. A subclass gives
    `build` and `still`; callbacks that can fail on a user's input are wrapped in `self.guarded`.
    """

    def build(self) -> ipywidgets.Widget:
        """Make the controls; called once, when they are first needed."""
        raise NotImplementedError

    def still(self) -> Any:
        """What it shows without controls: a matplotlib Figure, or anything with `_repr_html_`."""
        raise NotImplementedError

    @cached_property
    def note(self) -> ipywidgets.HTML:
        """A line for messages; `build` puts it somewhere."""
        return ipywidgets.HTML()

    @cached_property
    def widget(self) -> ipywidgets.Widget:
        """The controls."""
        return self.build()

    def say(self, message: str, error: bool = False) -> None:
        """Show one line of text (never markup) in the panel."""
        mark, colour = ("&#9888; ", "var(--jp-error-color0, #b00020)") if error else ("", "inherit")
        self.note.value = f"<span style='color:{colour}'>{mark}{escape(message)}</span>" if message else ""

    def guarded(self, callback: Callable) -> Callable:
        """A callback whose EgsError is shown in the panel; any other error as well, before it goes on to the log."""
        @wraps(callback)
        def safe(*args: Any) -> None:
            try:
                self.say("")
                callback(*args)
            except EgsError as error:
                self.say(str(error), error=True)
            except Exception as error:
                self.say(f"{type(error).__name__}: {error}", error=True)
                raise

        return safe

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        shown = self.still()
        if isinstance(shown, Figure):
            bundle = {"text/plain": repr(self), "image/png": png(shown)}
        else:
            bundle = {"text/plain": str(shown), "text/html": shown._repr_html_()}
        if live():
            bundle[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return bundle


class Plot:
    """A plotly figure that works without a kernel; run headless, with a picture of it for where scripts do not run.

    Not both in a live notebook: plotly's extension would show the picture until the mouse comes over it.

    Args:
        figure: the plotly figure. still: makes the matplotlib figure.
    """

    def __init__(self, figure: go.Figure, still: Callable[[], Figure]):
        self.figure, self.still = figure, still

    def __repr__(self) -> str:
        return f"Plot({self.figure.layout.title.text or ''})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), PLOTLY: json.loads(self.figure.to_json())}
        return bundle if live() else {**bundle, "image/png": png(self.still())}


# ---- parts ----

def encode(picture: np.ndarray, format: str = "jpeg") -> bytes:
    """A picture [H, W, 3] (uint8, or float 0...1) as the bytes of a JPEG or PNG."""
    if picture.dtype != np.uint8:
        picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    return {"jpeg": encode_jpeg, "png": encode_png}[format](picture)


def media(path: Path, kind: Literal["video", "audio"]) -> ipywidgets.Widget:
    """A player of a file, see `player.html`: in an output, where the notebook finds files beside it."""
    shown = {"output_type": "display_data", "metadata": {},
             "data": {"text/html": player.html(path, kind), "text/plain": str(path)}}
    return ipywidgets.Output(outputs=(shown,))


def image(picture: np.ndarray, width: Optional[int] = 384, format: str = "jpeg") -> ipywidgets.Image:
    """A picture that can be replaced: `widget.value = encode(other)`. width: px on screen; None: as wide as fits."""
    fits = "calc(100% - 4px)"  # all widgets have a margin of 2 px; more than fits would bring a scroll bar
    layout = ipywidgets.Layout(width=f"{width}px" if width else fits, max_width=fits, object_fit="contain")
    return ipywidgets.Image(value=encode(picture, format), format=format, layout=layout)


def slider(name: str, low: float, high: float, value: float, step: float = 1, width: str = "26em",
           **more: Any) -> ipywidgets.Widget:
    """An integer slider where step and ends are whole numbers, else a float slider; updates while it is moved."""
    whole = all(isinstance(v, (int, np.integer)) for v in (low, high, value, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=name, style={"description_width": "7em"},
                layout=ipywidgets.Layout(width=width), continuous_update=True, **more)


def choices(name: str, options: Sequence, value: Any = None, width: str = "26em", **more: Any) -> ipywidgets.Dropdown:
    """A menu with its name before it, as wide as a slider."""
    more = more if value is None else {"value": value, **more}
    return ipywidgets.Dropdown(options=options, description=name, style={"description_width": "7em"},
                               layout=ipywidgets.Layout(width=width), **more)


def titled(title: str, *children: ipywidgets.Widget) -> ipywidgets.VBox:
    """Widgets under a short title."""
    head = ipywidgets.HTML(f"<b>{escape(title)}</b>")
    return ipywidgets.VBox([head, *children])


def in_style(figure: go.Figure, x: str, y: str, title: str = "", height: int = 300, **layout: Any) -> go.Figure:
    """The common look of a chart: dark ink on white in any theme, both axes named. Returns the figure."""
    figure.update_layout(template="plotly_white", paper_bgcolor="white", plot_bgcolor="white", height=height,
                         font={"color": INK, "size": 12}, title={"text": title, "font": {"size": 14}},
                         margin={"l": 60, "r": 20, "t": 40 if title else 20, "b": 45}, **layout)
    figure.update_xaxes(title_text=x, showline=True, linecolor=INK, gridcolor="#e5e5e5", zeroline=False)
    figure.update_yaxes(title_text=y, showline=True, linecolor=INK, gridcolor="#e5e5e5", zeroline=False)
    return figure


def line(x: Sequence, y: Sequence, name: str = "", style: int = 0, **more: Any) -> go.Scatter:
    """One curve in the `style`-th look, told apart by dashes and lightness."""
    look = {"color": STYLES[style % len(STYLES)][0], "dash": DASHES[style % len(DASHES)], "width": 2}
    return go.Scatter(x=x, y=y, name=name, mode=more.pop("mode", "lines"), line=look, **more)
