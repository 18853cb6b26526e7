"""Parts of the tables that `report.py` fills in."""
from __future__ import annotations

from typing import Any, Callable, Optional


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *[[str(x) for x in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def where(facts: dict) -> str:
    """The device and the versions of a measurement, as one line."""
    versions = facts["versions"]
    return (f"{facts['device']}, {facts['cores']} cores, torch {versions['torch']}, gsplat {versions['gsplat']}, "
            f"{facts['date']}, revision {facts['git']}")


def with_interval(row: Optional[dict]) -> str:
    """A figure of `intervals.row`: mean [low, high]; "-" if there is none."""
    if row is None or row["mean"] is None:
        return "-"
    interval = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['mean']:.2f}{interval}"


def made(makers: dict[str, Callable[[dict], str]], read: Callable[[str], Optional[dict]]) -> dict[str, str]:
    """Table by name, of those whose results are there."""
    return {name: make(found) for name, make in makers.items() if (found := read(name))}
