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
from ...scheduling.runner import NOTEBOOKS, SWEEP_NOTEBOOKS

MAX_RUNS = 50  # of a sweep, whose notebooks become pages
ERROR = "papermill-error-cell-tag"  # of the notes that Papermill adds to a notebook that failed


@dataclass
class Page:
    """One executed notebook.

    Attributes:
        path: the .ipynb.
        notebook: as read.
        title, summary: from its first cell.
        html: path of its page, relative to the gallery.
        run: id of the run of a sweep that executed it, or "".
        pictures: images written beside it, as links relative to the gallery.
        videos: the same for videos, each with its size in bytes.
        heads: the same for exported heads.
    """

    path: Path
    notebook: Any
    title: str
    summary: str
    html: str
    run: str = ""
    pictures: list[str] = field(default_factory=list)
    videos: dict[str, int] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Folder of its images and videos, relative to the gallery."""
        return self.html.removesuffix(".html")

    @property
    def link(self) -> str:
        """Its name in links from other pages of the same folder."""
        return quote(Path(self.html).stem)

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
    order = (*NOTEBOOKS, *SWEEP_NOTEBOOKS)

    def place(path: Path) -> tuple[int, str]:
        return order.index(path.stem) if path.stem in order else len(order), path.stem

    sets = {}
    for folder in sorted(path for path in outputs.glob("*") if path.is_dir() and path != out):
        found = [_page(path, folder.name) for path in sorted((folder / "notebooks").glob("*.ipynb"), key=place)]
        for run in sorted(path.parent for path in (folder / "runs").glob("*/notebooks"))[:MAX_RUNS]:
            found += [_page(path, folder.name, run.name)
                      for path in sorted((run / "notebooks").glob("*.ipynb"), key=place)]
        if any(found):
            sets[folder.name] = [page for page in found if page]
    if not sets:
        raise InputError(f"executed notebooks in '{outputs}/<name>/notebooks/'", "none",
                         "Run `make demo` first (or `make run VIDEO=clip.mp4`).")
    return sets


def _page(path: Path, name: str, run: str = "") -> Optional[Page]:
    """A page of the set with this name; None for a notebook that was never run."""
    notebook = read_notebook(path)
    if not any(cell.get("outputs") for cell in notebook.cells):
        return None
    text = next((cell.source for cell in notebook.cells
                 if cell.cell_type == "markdown" and ERROR not in cell.metadata.get("tags", [])), "")
    title, _, rest = text.strip().partition("\n")
    first = rest.strip().split("\n\n")[0]
    title, stem = plain(title.lstrip("# ")) or path.stem, f"{run}-{path.stem}" if run else path.stem
    return Page(path, notebook, f"{run} · {title}" if run else title,
                sentence(re.sub(r"^\*\*[^*]+\*\*", "", first)), f"{name}/{stem}.html", run)


def plain(markdown: str) -> str:
    """Markdown as one line of text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(re.sub(r"[*`]+|^#+ |^(?:-|\d+\.) ", "", text, flags=re.MULTILINE).split())


def sentence(markdown: str) -> str:
    """The first sentence."""
    text = plain(markdown)
    return re.split(r"(?<=[.!?:]) (?=[A-Z*])", text, maxsplit=1)[0]
