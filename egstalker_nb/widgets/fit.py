"""Charts as wide as the room that they have."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import plotly.graph_objects as go
import traitlets

NARROWEST = 240  # px


class Room(anywidget.AnyWidget):
    """An empty line that knows its width on the screen, px; 0 where it was not shown yet."""

    _esm = Path(__file__).parent / "fit.js"
    width = traitlets.Int(0).tag(sync=True)


def fitted(chart: go.FigureWidget, **layout: Any) -> ipywidgets.VBox:
    """A box that keeps a chart as wide as itself. layout: of the box, for instance `flex`."""
    room = Room()
    room.observe(lambda change: chart.update_layout(width=max(NARROWEST, change["new"])), "width")
    narrow = {"min_width": "0", "overflow": "hidden"}  # else the box would be as wide as its chart
    return ipywidgets.VBox([room, chart], layout=ipywidgets.Layout(**{**narrow, **layout}))
