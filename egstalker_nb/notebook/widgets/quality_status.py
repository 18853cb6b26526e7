"""The quality report of a prepared clip, one status per check."""
from __future__ import annotations

from html import escape
from typing import Any

from ...preparation.quality import Concern, concerns

#: status -> symbol, word, colour: any of the three is enough to tell them apart
STATUS_LOOKS = {"ok": ("\u25cf", "ok", "#1b7f4b"), "warning": ("\u25b2", "warning", "#a86400"),
                "error": ("\u25a0", "error", "#b00020"), "unknown": ("\u25cb", "not measured", "#666666")}
STATUS_COLUMNS = ("status", "check", "measured", "expected", "what to do")


class QualityStatus:
    """One row per requirement on a clip: its status, the measurement, what to do.

    Args:
        report: of `egs.prepare`, `Dataset.report`.

    Attributes:
        concerns: the rows, see `quality.concerns`.
        statuses: of the rows: `ok`, `warning`, `error`, or `unknown` where the report lacks the measurement.
        verdict: the worst of the statuses.
    """

    def __init__(self, report: dict[str, Any]):
        self.concerns: list[Concern] = concerns(report)
        self.statuses = [c.level for c in self.concerns]
        self.verdict = next(s for s in ("error", "warning", "unknown", "ok") if s in self.statuses)

    def summary(self) -> str:
        """One sentence."""
        errors, warnings, count = self.statuses.count("error"), self.statuses.count("warning"), len(self.statuses)
        return {"error": f"{errors} of {count} checks failed: fix them before training.",
                "warning": f"Usable, with warnings in {warnings} of {count} checks.",
                "ok": "All checks passed.", "unknown": "Some measurements are missing from the report."}[self.verdict]

    def _rows(self) -> list[tuple[str, ...]]:
        missing = "prepare the clip again to measure it"
        return [(" ".join(STATUS_LOOKS[status][:2]), c.name, c.found, c.wanted,
                 " ".join(c.faults) or (missing if status == "unknown" else "nothing"))
                for status, c in zip(self.statuses, self.concerns)]

    def __str__(self) -> str:
        return "\n".join([self.summary(), *("  ".join(row) for row in self._rows())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = "text-align:left;vertical-align:top"
        head = "".join(f"<th style='{left}'>{name}</th>" for name in STATUS_COLUMNS)
        body = ""
        for status, (_, *cells) in zip(self.statuses, self._rows()):
            symbol, word, colour = STATUS_LOOKS[status]
            badge = (f"<span style='background:{colour};color:white;padding:2px 8px;border-radius:8px;"
                     f"white-space:nowrap'>{symbol} {word}</span>")
            body += (f"<tr><td style='{left}'>{badge}</td>"
                     + "".join(f"<td style='{left}'>{escape(cell)}</td>" for cell in cells) + "</tr>")
        return f"<p><b>{escape(self.summary())}</b></p><table><tr>{head}</tr>{body}</table>"
