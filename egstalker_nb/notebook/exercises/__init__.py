"""Exercises of the notebooks: the answers are computed from the data at hand, and a cell checks the reader's own.

One module for each notebook (`exercises.notebook_04`, imported on first use); each has a function that returns its
`Exercises`.
"""
from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from html import escape
from typing import Any, Callable, Optional, Sequence

import numpy as np

from ...core.errors import InputError


def __getattr__(name: str) -> Any:
    if re.fullmatch(r"notebook_\d\d", name):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


MARKS = {"open": "&#9675; not answered yet", "right": "&#10003; right", "wrong": "&#10007; not yet"}


@dataclass
class Exercise:
    """One question with an answer that can be checked.

    Attributes:
        question: what the reader is to find out.
        answer: computes the right answer, a number or a text.
        tolerance: how far a number may be off.
        hint: shown while the answer is open or wrong.
        solution: the code that answers it, shown on demand.
    """

    question: str
    answer: Callable[[], Any]
    tolerance: float = 0.0
    hint: str = ""
    solution: str = ""

    def verdict(self, given: Any) -> str:
        """open, right or wrong.

        Raises:
            InputError: a text where a number is expected, or vice versa.
        """
        if given is None:
            return "open"
        right = self.answer()
        if isinstance(right, str):
            if not isinstance(given, str):
                raise InputError("a text in quotes", repr(given), self.question)
            return "right" if given.strip().lower() == right.strip().lower() else "wrong"
        if isinstance(given, (str, bool)) or np.ndim(given) or not hasattr(given, "__float__"):
            raise InputError("a number", repr(given), self.question)
        return "right" if abs(float(given) - float(right)) <= self.tolerance + 1e-9 else "wrong"


class Exercises:
    """The exercises of one notebook."""

    def __init__(self, items: Sequence[Exercise]):
        self.items = list(items)

    def verify(self, *given: Optional[Any]) -> "Verdicts":
        """Check answers in order; None: not answered yet.

        Raises:
            InputError: more or fewer answers than exercises, or an answer of another kind.
        """
        if len(given) != len(self.items):
            raise InputError(f"{len(self.items)} answers, None for an open one", str(len(given)), "Give all of them.")
        return Verdicts(self.items, [item.verdict(answer) for item, answer in zip(self.items, given)])


@dataclass
class Verdicts:
    """The verdicts on the answers; shows itself in a notebook."""

    items: list[Exercise]
    verdicts: list[str]

    def __str__(self) -> str:
        marks = {"open": "not answered yet", "right": "right", "wrong": "not yet"}
        return "\n".join(f"{n}. {marks[v]}: {item.question}" + (f" Hint: {item.hint}" if v != "right" else "")
                         for n, (item, v) in enumerate(zip(self.items, self.verdicts), 1))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(n: int, item: Exercise, verdict: str) -> str:
            hint = f"<br><i>Hint:</i> {escape(item.hint)}" if verdict != "right" and item.hint else ""
            code = (f"<details><summary>solution</summary><pre>{escape(item.solution)}</pre></details>"
                    if item.solution else "")
            return (f"<tr><td style='text-align:left'>{n}</td><td style='text-align:left'>{MARKS[verdict]}</td>"
                    f"<td style='text-align:left'>{escape(item.question)}{hint}{code}</td></tr>")

        rows = "".join(row(n, *both) for n, both in enumerate(zip(self.items, self.verdicts), 1))
        head = "".join(f"<th style='text-align:left'>{title}</th>" for title in ("exercise", "answer", "question"))
        return f"<table><tr>{head}</tr>{rows}</table>"
