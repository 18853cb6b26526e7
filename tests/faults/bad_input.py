"""What a row of the table of bad input is, and how it is checked. The rows are in the modules `*_cases.py` beside this
one; `test_bad_input.py` runs them all."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from egstalker_nb import cli

#: longest message, in characters: longer ones print a part of the file
MAX_MESSAGE = 1200


@dataclass(frozen=True)
class Case:
    """One kind of input that goes wrong.

    Attributes:
        name: of the test.
        command: makes the input in an empty folder, which is also the working directory, and returns the arguments of
            the `egs` command that gets it.
        words: of the error message, each of which must occur in it.
        lines: of the message: 1, more only where all problems are listed at once.
    """

    name: str
    command: Callable[[Path], list[Any]]
    words: tuple[str, ...]
    lines: int = 1


def contents(folder: Path) -> dict[str, Optional[str]]:
    """Path -> digest of every file below a folder (None: of a link or a special file)."""
    found: dict[str, Optional[str]] = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        if plain or not path.is_dir():
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if plain else None
            found[str(path.relative_to(folder))] = digest
    return found


def check(case: Case, folder: Path, capsys: Any) -> None:
    """One line of error with exit status 2, every file as it was, and nothing hidden left behind."""
    arguments = [str(argument) for argument in case.command(folder)]
    before = contents(folder)
    capsys.readouterr()
    status = cli.main(arguments)
    message = capsys.readouterr().err.strip().splitlines()
    errors = [i for i, line in enumerate(message) if line.startswith("error: ")]
    assert errors, f"no error, but exit status {status} and {message}"
    text = message[errors[0]:]  # warnings may come before
    assert status == 2 and len(text) <= case.lines and len("\n".join(text)) <= MAX_MESSAGE, text
    assert "expected" in text[0] and "found" in text[0], text
    missing = [word for word in case.words if word.casefold() not in " ".join(text).casefold()]
    assert not missing, f"{missing} not in {text}"
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before, "an input was changed"
    left = [name for name in set(after) - set(before) if any(part.startswith(".") for part in Path(name).parts)
            and not name.endswith(".lock")]
    assert not left, f"left behind: {left}"
