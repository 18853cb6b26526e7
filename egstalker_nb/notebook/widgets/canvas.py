"""A plotly figure inside a panel, synchronised with the kernel in both directions."""
from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Callable, Iterator, Optional

import anywidget
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs

from .base import ASSETS


@lru_cache(1)
def _plotly() -> bytes:
    return get_plotlyjs().encode()


class Canvas(anywidget.AnyWidget):
    """Shows a plotly figure in the full available width; all charts of a page share one copy of plotly.js.

    Unlike plotly's own FigureWidget it synchronises its whole state instead of sending messages, so that nothing is
    lost when browser or kernel are slow: a FigureWidget stays empty if its 5 MB take more than two seconds to load.

    Change the figure inside `with canvas.changing():`. What the reader does in the browser (zoom, camera, dragged
    shapes) is written back into `drawing`.

    Args:
        drawing: the figure; the canvas owns it from now on.
        clicked: called with the x of a clicked point.
        dragged: called with the index of a shape that was dragged.
        config: plotly's own settings, for instance `{"edits": {"shapePosition": True}}`.
    """

    _esm = ASSETS / "canvas.js"
    _css = ASSETS / "canvas.css"
    figure = traitlets.Unicode("{}").tag(sync=True)
    config = traitlets.Dict().tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)
    changed = traitlets.Dict().tag(sync=True)

    def __init__(self, drawing: go.Figure, clicked: Optional[Callable[[Any], None]] = None,
                 dragged: Optional[Callable[[int], None]] = None, config: Optional[dict[str, Any]] = None):
        drawing.update_layout(uirevision="kept")  # the reader's view is kept when the data change
        super().__init__(figure=drawing.to_json(), config=config or {})
        self.drawing = drawing
        self._lock = threading.RLock()  # cells, jobs and messages of the browser come from different threads
        if clicked is not None:
            self.observe(lambda change: "x" in change["new"] and clicked(change["new"]["x"]), "clicked")
        self._dragged = dragged
        self.observe(self._follow, "changed")
        self.on_msg(self._answer)

    @contextmanager
    def changing(self) -> Iterator[go.Figure]:
        """Change `drawing` inside the block; it is sent once, at the end."""
        with self._lock:
            yield self.drawing
            self.figure = self.drawing.to_json()

    def _answer(self, _: Any, content: dict[str, Any], buffers: list[bytes]) -> None:
        if content.get("want") == "plotly":
            self.send({"plotly": True}, buffers=[_plotly()])

    def _follow(self, change: dict[str, Any]) -> None:
        """Take over what the reader changed, in plotly's notation: `xaxis.range[0]`, `scene.camera`, `shapes[0].x0`."""
        dragged: set[int] = set()
        with self._lock:
            for key, value in change["new"].items():
                axis = re.fullmatch(r"([xy]axis\d*)\.(?:range(?:\[([01])\])?|autorange)", key)
                if axis:
                    self._zoomed(self.drawing.layout[axis[1]], axis[2], value)
                elif "[" in key:
                    self._shape(key, value, dragged)
                elif key != "count":
                    self.drawing.update_layout({_attribute(key): value})
        for number in sorted(dragged):
            if self._dragged is not None:
                self._dragged(number)

    def _zoomed(self, axis: Any, end: Optional[str], value: Any) -> None:
        if end is None:
            axis.range = value if isinstance(value, (list, tuple)) else None
        else:
            limits = list(axis.range or (value, value))
            limits[int(end)] = value
            axis.range = limits

    def _shape(self, key: str, value: Any, dragged: set[int]) -> None:
        shape = re.fullmatch(r"shapes\[(\d+)\]\.(\w+)", key)
        if shape:
            self.drawing.layout.shapes[int(shape[1])][shape[2]] = value
            dragged.add(int(shape[1]))


def _attribute(key: str) -> str:
    """plotly.js's `scene.camera` as an argument of `update_layout`."""
    return key.replace(".", "_")
