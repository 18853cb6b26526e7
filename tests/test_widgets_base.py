"""Protects: how a panel knows that its controls exist, and which panels are offered by name."""
import ipywidgets
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.core.table import Table
from egstalker_nb.notebook import widgets
from egstalker_nb.notebook.widgets import base


class Counter(widgets.Panel):
    """Shows a number."""

    def __init__(self):
        self.number, self.drawn = 0, []

    def build(self):
        self.label = ipywidgets.Label()
        self.set(self.number)  # a method that refreshes may be called while the controls are being made
        return self.label

    def set(self, number):
        self.number = number
        self.refresh()

    def redraw(self):
        self.label.value = str(self.number)
        self.drawn.append(self.number)

    def still(self):
        return Table(("number",), [(self.number,)])


def test_a_panel_is_drawn_once_it_is_built_and_not_before():
    panel = Counter()
    panel.set(3)
    assert not panel.built and panel.drawn == [], "a headless notebook makes no controls"
    assert panel.widget.value == "3" and panel.built and panel.drawn == [3]
    panel.set(5)
    assert panel.widget is panel.label and panel.label.value == "5" and panel.drawn == [3, 5]


@pytest.mark.parametrize("live", [False, True])
def test_only_a_live_notebook_gets_the_controls(live, monkeypatch):
    panel = Counter()
    monkeypatch.setattr(base, "live", lambda: live)
    bundle = panel._repr_mimebundle_()
    assert "<td" in bundle["text/html"] and (base.WIDGET in bundle) == panel.built == live


def test_errors_of_callbacks_are_shown_as_text():
    def fail(*_):
        raise InputError("a <b>", "none", "Bring one.")

    panel = Counter()
    panel.guarded(fail)()
    assert "a &lt;b&gt;" in panel.note.value
    panel.guarded(panel.set)(1)
    assert panel.note.value == "" and panel.number == 1


@pytest.mark.parametrize("name", sorted(widgets.__all__))
def test_every_public_name_exists(name):
    """They are imported on first use: a wrong module would be seen by a reader only."""
    assert callable(getattr(widgets, name)) and name in dir(widgets)
