"""HTML players for notebooks: small files are embedded in the notebook, large ones are linked."""
from __future__ import annotations

import base64
import os
from html import escape
from pathlib import Path
from typing import Literal
from urllib.parse import quote

#: largest file that is embedded, in bytes; larger ones would make notebooks too big for browsers
MAX_EMBEDDED = 8_000_000
#: environment variable with the folder of the notebook, if it is not the kernel's working directory (headless runs)
NOTEBOOK_FOLDER = "EGS_NOTEBOOK_FOLDER"


def embeds(path: Path) -> bool:
    """Whether a file is small enough to be embedded in a notebook."""
    return path.stat().st_size <= MAX_EMBEDDED


def html(path: Path, kind: Literal["video", "audio"] = "video") -> str:
    """A player as HTML.

    A file above `MAX_EMBEDDED` is linked, relative to the notebook's folder if possible, with a line that says why.

    Args:
        path: an MP4, WAV or other file that browsers can play.
        kind: the HTML element.
    """
    if embeds(path):
        suffix = quote(path.suffix[1:].lower())
        data = base64.b64encode(path.read_bytes()).decode()
        return f'<{kind} controls width="512" src="data:{kind}/{suffix};base64,{data}"></{kind}>'
    link = escape(address(path))
    return (f'<{kind} controls preload="metadata" width="512" src="{link}"></{kind}><br>'
            f'<a href="{link}" target="_blank">{escape(path.name)}</a> ({path.stat().st_size / 1e6:.1f} MB) is '
            f"played from its file: the notebook holds a copy of files up to {MAX_EMBEDDED / 1e6:g} MB only.")


def address(path: Path) -> str:
    """URL of a file, relative to the notebook's folder if possible; not escaped for HTML."""
    path = path.resolve()
    try:
        return quote(Path(os.path.relpath(path, os.environ.get(NOTEBOOK_FOLDER) or Path.cwd())).as_posix())
    except ValueError:  # on another drive
        return path.as_uri()
