"""LaTeX formulas of the notebooks as MathML, which browsers show without a script and without a network.

The part of LaTeX that the notebooks use; what is not known is shown as it is written.
"""
from __future__ import annotations

import re
from html import escape

#: identifiers, most of them Greek letters
NAMES = {name: chr(code) for name, code in (
    ("alpha", 0x3B1), ("beta", 0x3B2), ("gamma", 0x3B3), ("delta", 0x3B4), ("epsilon", 0x3B5), ("theta", 0x3B8),
    ("lambda", 0x3BB), ("mu", 0x3BC), ("pi", 0x3C0), ("rho", 0x3C1), ("sigma", 0x3C3), ("tau", 0x3C4),
    ("omega", 0x3C9), ("Delta", 0x394), ("Lambda", 0x39B), ("Sigma", 0x3A3), ("Omega", 0x3A9), ("partial", 0x2202),
    ("infty", 0x221E), ("top", 0x22A4), ("ell", 0x2113))}
FUNCTIONS = ("exp", "log", "max", "min", "sin", "cos", "arg", "det")
OPERATORS = {"cdot": "·", "times": "×", "dots": "…", "ldots": "…", "cdots": "⋯", "leftarrow": "←", "to": "→", "in": "∈",
             "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "propto": "∝",
             "odot": "⊙", "pm": "±", "lVert": "‖", "rVert": "‖", "lvert": "|", "rvert": "|", "Vert": "‖", "mid": "∣",
             "nabla": "∇", "{": "{", "}": "}", "|": "‖", "%": "%"}
LARGE = {"sum": "∑", "prod": "∏", "int": "∫"}
SPACES = {",": 0.17, ":": 0.22, ";": 0.28, " ": 0.33, "quad": 1.0, "qquad": 2.0}  # em
ACCENTS = {"hat": "^", "bar": "¯", "tilde": "~", "vec": "→", "dot": "˙"}
FENCES = {"cases": ("{", ""), "pmatrix": ("(", ")"), "bmatrix": ("[", "]"), "aligned": ("", "")}
DOUBLE = {"R": "ℝ", "N": "ℕ", "Z": "ℤ", "E": "𝔼"}
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
#: code (left as it is), a formula of its own, a formula in the text
_MATH = re.compile(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|(?<![\\$])\$(?![\s$])([^$]+?)(?<!\s)\$", re.DOTALL)


def with_mathml(markdown: str) -> str:
    """Markdown with its formulas, `$...$` and `$$...$$`, as MathML; code is left as it is."""
    def replaced(match: re.Match) -> str:
        code, block, inline = match.groups()
        return code or (mathml(block, display=True) if block else mathml(inline))

    return _MATH.sub(replaced, markdown)


def mathml(formula: str, display: bool = False) -> str:
    """A LaTeX formula as one line of MathML; display: in a paragraph of its own, limits above and below sums."""
    body = _Parser(formula, display).rows(None)
    # Markdown must not take a pair of these for emphasis
    body = body.replace("*", "&#42;").replace("_", "&#95;")
    return f'<math display="{"block" if display else "inline"}"><mrow>{body}</mrow></math>'


class _Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, formula: str, display: bool):
        self.tokens, self.at, self.display = _TOKEN.findall(formula.strip()), 0, display

    def peek(self) -> str:
        """The next token but spaces; empty at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def rows(self, *stop: str | None) -> str:
        """Everything up to one of the tokens `stop`, which is not taken."""
        parts = []
        while self.peek() and self.peek() not in stop:
            parts.append(self.scripted())
        return "".join(parts)

    def group(self) -> str:
        """An argument: one token (of a number, its first digit), or a group in braces."""
        token = self.peek()
        if token.isdigit():
            self.tokens[self.at:self.at + 1] = token
        if token != "{":
            return self.atom()
        self.take()
        body = self.rows("}")
        self.take()
        return f"<mrow>{body}</mrow>"

    def raw(self) -> str:
        """The text of a group in braces, as it is written."""
        self.take()
        begin = self.at
        while self.at < len(self.tokens) and self.tokens[self.at] != "}":
            self.at += 1
        self.at += 1
        return "".join(self.tokens[begin:self.at - 1])

    def scripted(self) -> str:
        """An atom with its subscript, superscript and primes."""
        large = self.peek().lstrip("\\") in LARGE and self.display
        base, low, high = self.atom(), "", ""
        while self.peek() in ("^", "_", "'"):
            mark = self.take()
            if mark == "_":
                low = self.group()
            else:
                high += self.group() if mark == "^" else "<mo>′</mo>"
        high = f"<mrow>{high}</mrow>" if high else ""
        names = ("munder", "mover", "munderover") if large else ("msub", "msup", "msubsup")
        kind = names[2 if low and high else 1 if high else 0]
        return f"<{kind}>{base}{low}{high}</{kind}>" if low or high else base

    def atom(self) -> str:
        token = self.take()
        if token == "{":
            self.at -= 1
            return self.group()
        if token.startswith("\\") and len(token) > 1:
            return self.command(token[1:])
        if token[:1].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in ("&", "~"):
            return ""
        kind = ' stretchy="false"' if token in "()[]|" else ""  # only those of \left and \right grow
        return f"<mo{kind}>{escape({'-': '−'}.get(token, token))}</mo>"

    def command(self, name: str) -> str:
        if name in ("frac", "tfrac"):
            return f"<mfrac>{self.group()}{self.group()}</mfrac>"
        if name == "sqrt":
            return f"<msqrt>{self.group()}</msqrt>"
        if name in ACCENTS:
            return f'<mover accent="true">{self.group()}<mo>{ACCENTS[name]}</mo></mover>'
        if name in ("text", "mathrm", "operatorname", "mathbb"):
            return self.words(name)
        if name == "left":
            opening = self.take()
            body = self.rows("\\right")
            self.take()
            return self.fenced(opening, body, self.take())
        if name == "begin":
            return self.table(self.raw())
        if name in SPACES:
            return f'<mspace width="{SPACES[name]}em"></mspace>'
        if name in NAMES:
            return f"<mi>{NAMES[name]}</mi>"
        if name in FUNCTIONS:
            return f'<mo lspace="0.17em" rspace="0.1em">{name}</mo>'
        if name in LARGE:
            return f"<mo>{LARGE[name]}</mo>"
        return f"<mo>{OPERATORS[name]}</mo>" if name in OPERATORS else f"<mtext>{escape(chr(92) + name)}</mtext>"

    def words(self, name: str) -> str:
        """Upright words."""
        text = escape(self.raw())
        if name == "text":
            edges = text.replace(" ", "\u00a0") if text.strip() != text else text
            return f"<mtext>{edges}</mtext>"
        return f'<mi mathvariant="normal">{DOUBLE.get(text, text) if name == "mathbb" else text}</mi>'

    def fenced(self, opening: str, body: str, closing: str) -> str:
        marks = ["" if mark == "." else escape(OPERATORS.get(mark.lstrip("\\"), mark)) for mark in (opening, closing)]
        before, after = (f'<mo fence="true" stretchy="true">{mark}</mo>' if mark else "" for mark in marks)
        return f"<mrow>{before}{body}{after}</mrow>"

    def table(self, kind: str) -> str:
        """An environment with rows `\\\\` and columns `&`."""
        rows: list[list[str]] = [[]]
        while True:
            rows[-1].append(self.rows("&", "\\\\", "\\end"))
            mark = self.take()
            if mark == "\\\\":
                rows.append([])
            elif mark != "&":
                break
        self.raw()
        side = ' columnalign="left" style="text-align:left"' if kind == "cases" else ""
        cells = "".join("<mtr>" + "".join(f"<mtd{side}>{cell}</mtd>" for cell in row) + "</mtr>"
                        for row in rows if any(row))
        opening, closing = FENCES.get(kind, ("", ""))
        return self.fenced(opening or ".", f"<mtable>{cells}</mtable>", closing or ".")
