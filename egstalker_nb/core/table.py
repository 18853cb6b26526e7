"""A table, shown as HTML in a notebook and as text in a terminal."""
from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Sequence


def text(value: Any) -> str:
    """A value as a table shows it: four significant digits, yes and no, `-` for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return (", ".join(map(text, value)) or "none") if isinstance(value, (list, tuple)) else str(value)


@dataclass
class Table:
    """Rows under named columns, rendered by a notebook as HTML and by `print` as text.

    Attributes:
        columns: their names.
        rows: one value per column, any type (see `text`).
        caption: a line above the table; "" for none.
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
    """Table of some attributes (or keys) of an object.

    Args:
        thing: the object or dict.
        about: name -> its meaning.
        caption: a line above the table.
    """
    get = thing.get if isinstance(thing, dict) else lambda name: getattr(thing, name)
    return Table(("name", "value", "meaning"), [(name, get(name), meaning) for name, meaning in about.items()], caption)
