"""LaTeX formulas of the notebooks as MathML, which browsers show without a script and without a network."""
from __future__ import annotations

import re

from latex2mathml.converter import convert

#: code (left as it is), a formula of its own, a formula in the text
_MATH = re.compile(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|(?<![\\$])\$(?![\s$])([^$]+?)(?<!\s)\$", re.DOTALL)


def with_mathml(markdown: str) -> str:
    """Markdown with its formulas, `$...$` and `$$...$$`, as MathML; code is left as it is."""
    def replaced(match: re.Match[str]) -> str:
        code, block, inline = match.groups()
        return code or (mathml(block, display=True) if block else mathml(inline))

    return _MATH.sub(replaced, markdown)


def mathml(formula: str, display: bool = False) -> str:
    """A LaTeX formula as one line of MathML; display: in a paragraph of its own, limits above and below sums."""
    made = convert(formula.strip(), display="block" if display else "inline").replace("\n", " ")
    # Markdown must not take a pair of these for emphasis
    return made.replace("*", "&#42;").replace("_", "&#95;")
