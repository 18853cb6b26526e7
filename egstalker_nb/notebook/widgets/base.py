"""What all panels share: interactive and static form, images, sliders, messages, the common look of charts."""
from __future__ import annotations

import io
import json
import os
from functools import cached_property, wraps
from html import escape
from pathlib import Path
from typing import Any, Callable, Literal, Optional, Protocol, Sequence

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from ...core.errors import EgsError
from ...core.progress import STATIC, in_notebook
from ...media import player
from ...media.image_io import encode_jpeg, encode_png
from ..plots import STYLES

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
INK = "#222222"
#: folder of the scripts and style sheets of our own widgets
ASSETS = Path(__file__).parent


class HasHtml(Protocol):
    """Anything that Jupyter shows as HTML."""

    def _repr_html_(self) -> str:
        ...


def _let_the_browser_choose(widget: ipywidgets.Widget) -> None:
    """Messages of a widget go to the thread of the kernel that the browser names, which is free while a cell runs.

    ipykernel 7.4 sends them to the thread that wrote to the widget last instead: that of the running cell, where a Stop
    button waits for the work that it should stop. Others have no such method.
    """
    def opened(change: Any) -> None:
        if hasattr(change.new, "_reply_subshell_for"):
            change.new._reply_subshell_for = None

    widget.observe(opened, "comm")


ipywidgets.Widget.on_widget_constructed(_let_the_browser_choose)


def live() -> bool:
    """Whether widgets can be operated: in a notebook, unless the environment variable `EGS_STATIC` is set."""
    return in_notebook() and not os.environ.get(STATIC)


def png(figure: Figure) -> bytes:
    """A matplotlib figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


class Panel:
    """An interactive part of a notebook, with a static form of it for Papermill, HTML export and GitHub.

    Both go into one output: a live notebook shows the widget, everything else the static form. A subclass implements
    `build`, `redraw` and `still`. It keeps its state in attributes of its own; methods that change the state call
    `refresh`, so that they work before the controls exist as well. Callbacks that can fail on a user's input are
    wrapped in `self.guarded`.

    Attributes:
        built: whether the controls exist.
    """

    built = False

    def build(self) -> ipywidgets.Widget:
        """Create the controls; called once, when they are first needed. `redraw` is called right after it."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Update controls, images and charts from the state; only ever called when they exist."""

    def still(self) -> Figure | HasHtml:
        """What is shown without controls: a matplotlib figure, or anything with `_repr_html_`."""
        raise NotImplementedError

    @cached_property
    def note(self) -> ipywidgets.HTML:
        """One line for messages; `build` places it."""
        return ipywidgets.HTML()

    @cached_property
    def widget(self) -> ipywidgets.Widget:
        """The controls."""
        made = self.build()
        self.built = True
        self.redraw()
        return made

    def refresh(self) -> None:
        """Update what is on the screen, if the controls exist."""
        if self.built:
            self.redraw()

    def show_message(self, message: str, error: bool = False) -> None:
        """Show one line of text (never markup) in the panel."""
        mark, colour = ("&#9888; ", "var(--jp-error-color0, #b00020)") if error else ("", "inherit")
        self.note.value = f"<span style='color:{colour}'>{mark}{escape(message)}</span>" if message else ""

    def guarded(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """A callback whose errors are shown in the panel; any other than an EgsError is raised again for the log."""
        @wraps(callback)
        def safe(*args: Any) -> None:
            try:
                self.show_message("")
                callback(*args)
            except EgsError as error:
                self.show_message(str(error), error=True)
            except Exception as error:
                self.show_message(f"{type(error).__name__}: {error}", error=True)
                raise

        return safe

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        shown = self.still()
        bundle: dict[str, Any]
        if isinstance(shown, Figure):
            bundle = {"text/plain": repr(self), "image/png": png(shown)}
        else:
            bundle = {"text/plain": str(shown), "text/html": shown._repr_html_()}
        if live():
            bundle[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return bundle


class Plot:
    """A plotly figure that works without a kernel; in headless runs with a static image for where scripts do not run.

    Not both in a live notebook: plotly's extension would show the image until the mouse is over it.

    Args:
        figure: the plotly figure.
        still: makes the matplotlib figure.
    """

    def __init__(self, figure: go.Figure, still: Callable[[], Figure]):
        self.figure, self.still = figure, still

    def __repr__(self) -> str:
        return f"Plot({self.figure.layout.title.text or ''})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), PLOTLY: json.loads(self.figure.to_json())}
        return bundle if live() else {**bundle, "image/png": png(self.still())}


# ---- parts ----

def encode(image: np.ndarray, format: str = "jpeg") -> bytes:
    """An image [H, W, 3] (uint8, or float 0...1) as the bytes of a JPEG or PNG."""
    if image.dtype != np.uint8:
        image = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return {"jpeg": encode_jpeg, "png": encode_png}[format](image)


def media(path: Path, kind: Literal["video", "audio"]) -> ipywidgets.Widget:
    """A player of a file, see `player.html`: inside an output, where the notebook finds files next to itself."""
    shown = {"output_type": "display_data", "metadata": {},
             "data": {"text/html": player.html(path, kind), "text/plain": str(path)}}
    return ipywidgets.Output(outputs=(shown,))


def image(pixels: np.ndarray, width: Optional[int] = 384, format: str = "jpeg") -> ipywidgets.Image:
    """An image widget whose content can be replaced: `widget.value = encode(other)`.

    Args:
        pixels: [H, W, 3], see `encode`.
        width: px on screen; None: the available width.
        format: jpeg or png.
    """
    fits = "calc(100% - 4px)"  # all widgets have a margin of 2 px; anything wider would need a scroll bar
    layout = ipywidgets.Layout(width=f"{width}px" if width else fits, max_width=fits, object_fit="contain")
    return ipywidgets.Image(value=encode(pixels, format), format=format, layout=layout)


def blank_image(width: Optional[int] = 384) -> ipywidgets.Image:
    """A white image widget that `redraw` fills."""
    return image(np.full((8, 8, 3), 255, np.uint8), width)


def slider(name: str, low: float, high: float, value: float, step: float = 1, width: str = "26em",
           **more: Any) -> ipywidgets.Widget:
    """An integer slider where step and limits are whole numbers, else a float slider; updates while it is moved."""
    whole = all(isinstance(v, (int, np.integer)) for v in (low, high, value, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=name, style={"description_width": "7em"},
                layout=ipywidgets.Layout(width=width), continuous_update=True, **more)


def choices(name: str, options: Sequence[Any], value: Any = None, width: str = "26em",
            **more: Any) -> ipywidgets.Dropdown:
    """A dropdown menu with its name in front, as wide as a slider."""
    more = more if value is None else {"value": value, **more}
    return ipywidgets.Dropdown(options=options, description=name, style={"description_width": "7em"},
                               layout=ipywidgets.Layout(width=width), **more)


def titled(title: str, *children: ipywidgets.Widget) -> ipywidgets.VBox:
    """Widgets under a short title."""
    heading = ipywidgets.HTML(f"<b>{escape(title)}</b>")
    return ipywidgets.VBox([heading, *children])


def in_style(figure: go.Figure, x: str, y: str, title: str = "", height: int = 300, **layout: Any) -> go.Figure:
    """The common look of a chart: dark on white in any theme, both axes labelled. Returns the figure."""
    figure.update_layout(template="plotly_white", paper_bgcolor="white", plot_bgcolor="white", height=height,
                         font={"color": INK, "size": 12}, title={"text": title, "font": {"size": 14}},
                         margin={"l": 60, "r": 20, "t": 40 if title else 20, "b": 45}, **layout)
    figure.update_xaxes(title_text=x, showline=True, linecolor=INK, gridcolor="#e5e5e5", zeroline=False)
    figure.update_yaxes(title_text=y, showline=True, linecolor=INK, gridcolor="#e5e5e5", zeroline=False)
    return figure


def plotly_text(name: str) -> str:
    """A name for a plotly figure, which would take tags in it for markup, and `%{...}` in a hover text for a value."""
    return escape(name, quote=False).replace("%{", "%&#123;")


def line(x: Sequence[Any] | np.ndarray, y: Sequence[Any] | np.ndarray, name: str = "", style: int = 0,
         **more: Any) -> go.Scatter:
    """One curve in the `style`-th look, distinguished by dash pattern and lightness; its name is text, never markup."""
    look = {"color": STYLES[style % len(STYLES)][0], "dash": DASHES[style % len(DASHES)], "width": 2}
    return go.Scatter(x=x, y=y, name=plotly_text(name), mode=more.pop("mode", "lines"), line=look, **more)
