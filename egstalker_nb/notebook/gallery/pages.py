"""Executed notebooks in a folder of results, as pages of a gallery."""
from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

from ...core.errors import InputError
from ...core.progress import clock
from ...scheduling.parameters import read_notebook
from ...scheduling.runner import NOTEBOOKS


@dataclass
class Page:
    """One executed notebook.

    Attributes:
        path: the .ipynb.
        notebook: as read.
        title, summary: from its first cell.
        html: path of its page, relative to the gallery.
        pictures: images written beside it, as links relative to the gallery.
        videos: the same for videos, each with its size in bytes.
    """

    path: Path
    notebook: Any
    title: str
    summary: str
    html: str
    pictures: list[str] = field(default_factory=list)
    videos: dict[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Folder of its images and videos, relative to the gallery."""
        return self.html.removesuffix(".html")

    @property
    def link(self) -> str:
        """Its name in links from other pages of the same folder."""
        return quote(self.path.stem)

    @property
    def headless(self) -> dict[str, Any]:
        """What Papermill recorded; {} where it was run by hand."""
        noted = self.notebook.metadata.get("papermill")
        return noted if isinstance(noted, dict) else {}

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that it was run with."""
        given = self.headless.get("parameters")
        return given if isinstance(given, dict) else {}

    @property
    def seconds(self) -> float:
        """How long it ran; 0 if unknown."""
        took = self.headless.get("duration")
        return float(took) if isinstance(took, (int, float)) and math.isfinite(took) and took > 0 else 0.0

    @property
    def ran(self) -> str:
        """How long it ran and when, as text."""
        noted = self.headless
        if noted.get("exception"):
            return "stopped with an error"
        took = f"ran for {clock(self.seconds)}" if self.seconds else "run time unknown"
        return took + (f" on {noted['start_time'][:10]}" if isinstance(noted.get("start_time"), str) else "")


def found_pages(outputs: Path, out: Path) -> dict[str, list[Page]]:
    """Name of a set of results -> its pages in the order in which notebooks are read."""
    def place(path: Path) -> tuple[int, str]:
        return NOTEBOOKS.index(path.stem) if path.stem in NOTEBOOKS else len(NOTEBOOKS), path.stem

    sets = {}
    for folder in sorted(outputs.glob("*/notebooks")):
        paths = sorted(folder.glob("*.ipynb"), key=place)
        pages = [page for page in (_page(path, folder.parent.name) for path in paths) if page]
        if pages and folder.parent != out:
            sets[folder.parent.name] = pages
    if not sets:
        raise InputError(f"executed notebooks in '{outputs}/<name>/notebooks/'", "none",
                         "Run `make demo` first (or `make run VIDEO=clip.mp4`).")
    return sets


def _page(path: Path, name: str) -> Optional[Page]:
    """None for a notebook that was never run."""
    notebook = read_notebook(path)
    if not any(cell.get("outputs") for cell in notebook.cells):
        return None
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title, _, rest = text.strip().partition("\n")
    first = rest.strip().split("\n\n")[0]
    return Page(path, notebook, plain(title.lstrip("# ")) or path.stem,
                sentence(re.sub(r"^\*\*[^*]+\*\*", "", first)), f"{name}/{path.stem}.html")


def plain(markdown: str) -> str:
    """Markdown as one line of text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(re.sub(r"[*`]+|^#+ |^(?:-|\d+\.) ", "", text, flags=re.MULTILINE).split())


def sentence(markdown: str) -> str:
    """The first sentence."""
    text = plain(markdown)
    return re.split(r"(?<=[.!?:]) (?=[A-Z*])", text, maxsplit=1)[0]
