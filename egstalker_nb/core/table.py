"""A table that a notebook shows as HTML and a terminal as text."""
from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Sequence


def text(value: Any) -> str:
    """How a table shows a value: short numbers, yes and no, `-` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return (", ".join(map(text, value)) or "none") if isinstance(value, (list, tuple)) else str(value)


@dataclass
class Table:
    """Rows under named columns. Shows itself in a notebook; `print` gives the same as text.

    Attributes:
        columns: their names. rows: one value per column, any type (see `text`). caption: a line above.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def __str__(self) -> str:
        lines = [list(map(str, self.columns)), *[list(map(text, row)) for row in self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines)]
        body = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
        return "\n".join([self.caption, *body] if self.caption else body)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag} style='text-align:left'>{escape(c)}</{tag}>" for c in cells) + "</tr>"

        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        body = "".join(row([text(cell) for cell in line], "td") for line in self.rows)
        return f"<table>{caption}{row(list(self.columns), 'th')}{body}</table>"


def attributes(thing: Any, about: dict[str, str], caption: str = "") -> Table:
    """Some attributes (or keys) of one object: `about` maps each name to what it means."""
    get = thing.get if isinstance(thing, dict) else lambda name: getattr(thing, name)
    return Table(("name", "value", "meaning"), [(name, get(name), meaning) for name, meaning in about.items()], caption)
