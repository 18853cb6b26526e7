"""Words of the notebooks, explained for this system; `glossary.md` is the one place where they stand."""
from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path

from ..core.errors import InputError
from ..core.table import Table

SOURCE = Path(__file__).with_name("glossary.md")
COLUMNS = ("word", "meaning", "notebook")
_ENTRY = re.compile(r"^- \*\*(.+?)\*\*(?: \((.+?)\))?: (.+) \[(\d)\]$")


@lru_cache
def entries() -> dict[str, tuple[str, str]]:
    """Word -> its meaning, with unit or range in front where it has one, and the number of the notebook where it first
    matters; in the order of the file."""
    found = {}
    for block in re.split(r"\n(?=- )", SOURCE.read_text(encoding="utf-8"))[1:]:
        match = _ENTRY.match(" ".join(block.split()))
        if not match:
            raise InputError("entries `- **word** (unit): meaning [notebook]` in the glossary", repr(block[:60]),
                             "Correct the file.")
        word, unit, meaning, notebook = match.groups()
        found[word] = f"({unit}) {meaning}" if unit else meaning, notebook
    return found


def words(*asked: str) -> Table:
    """What words mean, in the order they are asked for; all of them without arguments.

    Raises:
        InputError: a word that the glossary does not have, with the nearest ones.
    """
    known, folded = entries(), {word.lower(): word for word in entries()}
    rows = []
    for word in asked or known:
        if word.lower() not in folded:
            near = difflib.get_close_matches(word.lower(), folded, 3, 0.5)
            raise InputError("a word of the glossary", repr(word), "Did you mean "
                             + " or ".join(repr(folded[name]) for name in near) + "?" if near else
                             "`glossary.words()` shows all.")
        word = folded[word.lower()]
        rows.append((word, *known[word]))
    return Table(COLUMNS, rows)


def search(text: str) -> Table:
    """All entries that hold a text, upper and lower case alike: in the word first, then in the meaning.

    Raises:
        InputError: none does.
    """
    part, known = text.strip().lower(), entries()
    hits = [word for word in known if part in word.lower()]
    hits += [word for word in known if part in known[word][0].lower() and word not in hits]
    if not part or not hits:
        raise InputError("a text that the glossary holds", repr(text), "`glossary.words()` shows all.")
    return words(*hits)
