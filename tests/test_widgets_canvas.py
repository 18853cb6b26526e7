"""Protects: the chart inside panels sends its whole state to the browser, and takes over what the reader changes."""
import json

import plotly.graph_objects as go
import pytest

from egstalker_nb.notebook.widgets.canvas import Canvas


@pytest.fixture
def drawing():
    figure = go.Figure(go.Scatter(x=[0, 1, 2], y=[5, 4, 3]))
    figure.add_vline(x=1)
    return figure


def test_changes_are_sent_once_and_whole(drawing):
    """A browser that connects late draws the latest state: nothing depends on messages that it has missed."""
    canvas, sent = Canvas(drawing), []
    canvas.observe(sent.append, "figure")
    with canvas.changing() as figure:
        figure.data[0].y = [1, 2, 3]
        figure.layout.shapes[0].x0 = figure.layout.shapes[0].x1 = 2
    assert len(sent) == 1
    state = json.loads(canvas.figure)
    assert state["data"][0]["y"] == [1, 2, 3] and state["layout"]["shapes"][0]["x0"] == 2


def test_a_click_reports_its_position(drawing):
    places = []
    canvas = Canvas(drawing, clicked=places.append)
    canvas.clicked = {"x": 1, "y": 4, "trace": 0, "count": 1}
    canvas.clicked = {"x": 1, "y": 4, "trace": 0, "count": 2}  # the same point again
    assert places == [1, 1]


def test_what_the_reader_does_survives_the_next_change(drawing):
    """Zoom, camera and dragged lines: sending the old ones again would undo them."""
    moved = []
    canvas = Canvas(drawing, dragged=moved.append)
    canvas.changed = {"xaxis.range[0]": 0.5, "xaxis.range[1]": 1.5, "count": 1}
    canvas.changed = {"shapes[0].x0": 1.2, "shapes[0].x1": 1.2, "count": 2}
    canvas.changed = {"scene.camera": {"eye": {"x": 1.0, "y": 2.0, "z": 3.0}}, "count": 3}
    assert moved == [0]
    with canvas.changing() as figure:
        figure.data[0].y = [0, 0, 0]
    layout = json.loads(canvas.figure)["layout"]
    assert layout["xaxis"]["range"] == [0.5, 1.5] and layout["shapes"][0]["x0"] == 1.2
    assert layout["scene"]["camera"]["eye"] == {"x": 1.0, "y": 2.0, "z": 3.0}
    canvas.changed = {"xaxis.autorange": True, "count": 4}
    assert canvas.drawing.layout.xaxis.range is None


def test_library_is_sent_on_request_only(drawing, monkeypatch):
    """4.8 MB that only the first chart of a page needs."""
    canvas, sent = Canvas(drawing), []
    assert len(json.dumps({k: v for k, v in canvas.get_state().items() if isinstance(v, str)})) < 50_000
    monkeypatch.setattr(canvas, "send", lambda content, buffers: sent.append((content, buffers)))
    canvas._handle_custom_msg({"want": "something else"}, [])
    assert sent == []
    canvas._handle_custom_msg({"want": "plotly"}, [])
    (content, (code,)), = sent
    assert content == {"plotly": True} and b"plotly.js" in code[:200] and len(code) > 1_000_000
