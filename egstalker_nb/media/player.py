"""How a notebook plays a video or a sound: small files are stored in it, large ones are played from where they lie."""
from __future__ import annotations

import base64
import os
from html import escape
from pathlib import Path
from typing import Literal
from urllib.parse import quote

#: bytes of a file that is stored in the notebook at most: with more, notebooks grow until browsers cannot open them
MAX_EMBEDDED = 8_000_000
#: where the notebook is saved, if that is not the folder that its kernel works in (set for headless runs)
FOLDER = "EGS_NOTEBOOK_FOLDER"


def embeds(path: Path) -> bool:
    """Whether a file is small enough to be stored in a notebook."""
    return path.stat().st_size <= MAX_EMBEDDED


def html(path: Path, kind: Literal["video", "audio"] = "video") -> str:
    """A player, as HTML.

    A file above `MAX_EMBEDDED` is referred to, relative to the notebook's folder where possible, with a link and a line
    that says why.

    Args:
        path: an MP4, WAV or another file that browsers play. kind: what is shown of it.
    """
    if embeds(path):
        suffix = path.suffix[1:].lower()
        data = base64.b64encode(path.read_bytes()).decode()
        return f'<{kind} controls width="512" src="data:{kind}/{suffix};base64,{data}"></{kind}>'
    address = escape(_address(path))
    return (f'<{kind} controls preload="metadata" width="512" src="{address}"></{kind}><br>'
            f'<a href="{address}" target="_blank">{escape(path.name)}</a> ({path.stat().st_size / 1e6:.1f} MB) is '
            f"played from its file: the notebook holds a copy of files up to {MAX_EMBEDDED / 1e6:g} MB only.")


def _address(path: Path) -> str:
    """The file as seen from the notebook's folder, as a URL."""
    path = path.resolve()
    try:
        return quote(Path(os.path.relpath(path, os.environ.get(FOLDER) or Path.cwd())).as_posix())
    except ValueError:  # on another drive
        return path.as_uri()
