"""The quality report as traffic lights."""
from __future__ import annotations

from html import escape
from typing import Any

from ...preparation.quality import Concern, concerns

#: level -> sign, word, colour: any of the three tells them apart
LIGHTS = {"good": ("\u25cf", "good", "#1b7f4b"), "look": ("\u25b2", "look", "#a86400"),
          "act": ("\u25a0", "act", "#b00020"), "unknown": ("\u25cb", "not measured", "#666666")}
COLUMNS = ("", "concern", "found", "wanted", "what to do")
NOTHING = "nothing"


class Lights:
    """One row for each thing that a clip must have: how it stands, what was measured, what to do.

    Attributes:
        concerns: the rows (see `quality.concerns`). verdict: the worst of their levels.
    """

    def __init__(self, report: dict[str, Any]):
        self.concerns: list[Concern] = concerns(report)
        levels = {c.level for c in self.concerns}
        self.verdict = next(level for level in ("act", "look", "unknown", "good") if level in levels)

    def summary(self) -> str:
        """One sentence."""
        count = {level: sum(c.level == level for c in self.concerns) for level in LIGHTS}
        return {"act": f"Before training, act on {count['act']} of {len(self.concerns)} concerns.",
                "look": f"Usable; look at {count['look']} of {len(self.concerns)} concerns.",
                "good": "The clip looks usable.", "unknown": "Some of the report is missing."}[self.verdict]

    def _rows(self) -> list[tuple[str, ...]]:
        unknown = "prepare the clip again to measure it"
        return [(" ".join(LIGHTS[c.level][:2]), c.name, c.found, c.wanted,
                 " ".join(c.faults) or (unknown if c.level == "unknown" else NOTHING)) for c in self.concerns]

    def __str__(self) -> str:
        return "\n".join([self.summary(), *("  ".join(row) for row in self._rows())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = "text-align:left;vertical-align:top"
        head = "".join(f"<th style='{left}'>{name}</th>" for name in COLUMNS)
        body = ""
        for concern, (_, *cells) in zip(self.concerns, self._rows()):
            sign, word, colour = LIGHTS[concern.level]
            badge = (f"<span style='background:{colour};color:white;padding:2px 8px;border-radius:8px;"
                     f"white-space:nowrap'>{sign} {word}</span>")
            body += (f"<tr><td style='{left}'>{badge}</td>"
                     + "".join(f"<td style='{left}'>{escape(cell)}</td>" for cell in cells) + "</tr>")
        return f"<p><b>{escape(self.summary())}</b></p><table><tr>{head}</tr>{body}</table>"
