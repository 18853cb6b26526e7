"""Glossary of the notebooks: the terms in `glossary.md`, looked up by name or by text."""
from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path

from ..core.errors import InputError
from ..core.table import Table

SOURCE = Path(__file__).with_name("glossary.md")
TERM_COLUMNS = ("word", "meaning", "notebook")
_ENTRY = re.compile(r"^- \*\*(.+?)\*\*(?: \((.+?)\))?: (.+) \[(\d)\]$")


@lru_cache
def entries() -> dict[str, tuple[str, str]]:
    """All terms in the order of the file.

    Returns:
        term -> its meaning, preceded by unit or range if it has one, and the number of the notebook that introduces it.

    Raises:
        InputError: an entry that cannot be parsed.
    """
    found = {}
    for block in re.split(r"\n(?=- )", SOURCE.read_text(encoding="utf-8"))[1:]:
        match = _ENTRY.match(" ".join(block.split()))
        if not match:
            raise InputError("entries `- **word** (unit): meaning [notebook]` in the glossary", repr(block[:60]),
                             "Correct the file.")
        word, unit, meaning, notebook = match.groups()
        found[word] = f"({unit}) {meaning}" if unit else meaning, notebook
    return found


def words(*terms: str) -> Table:
    """The meanings of some terms, in the given order; of all terms without arguments.

    Raises:
        InputError: a term that is not in the glossary; the message has the nearest ones.
    """
    known, folded = entries(), {word.lower(): word for word in entries()}
    rows = []
    for word in terms or known:
        if word.lower() not in folded:
            near = difflib.get_close_matches(word.lower(), folded, 3, 0.5)
            raise InputError("a word of the glossary", repr(word), "Did you mean "
                             + " or ".join(repr(folded[name]) for name in near) + "?" if near else
                             "`nb.glossary.words()` shows all.")
        word = folded[word.lower()]
        rows.append((word, *known[word]))
    return Table(TERM_COLUMNS, rows)


def search(text: str) -> Table:
    """All entries that contain a text, ignoring case: in the term first, then in the meaning.

    Raises:
        InputError: there is none.
    """
    part, known = text.strip().lower(), entries()
    hits = [word for word in known if part in word.lower()]
    hits += [word for word in known if part in known[word][0].lower() and word not in hits]
    if not part or not hits:
        raise InputError("a text that occurs in the glossary", repr(text), "`nb.glossary.words()` shows all.")
    return words(*hits)
