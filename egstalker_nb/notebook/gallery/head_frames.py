"""Exported heads (`egs.export_web`) in the gallery: the page in the place of the picture that notebooks have of it."""
from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Optional
from urllib.parse import unquote

from ...web.export_web import read_web_head

#: an output of `widgets.HeadPage`: the whole of it, as it is replaced by a frame without being cleaned
_PICTURE = re.compile(r'<figure class="talking-head">.*?<a href="([^"]+)">.*</figure>', re.DOTALL)
#: Browsers refuse the microphone without `allow-same-origin`. Only the kit's own code is framed, see `read_web_head`.
_FRAME = ('<figure class="talking-head"><iframe src="{link}" title="The talking head" loading="lazy" '
          'allow="microphone *" sandbox="allow-scripts allow-same-origin allow-downloads"></iframe><figcaption>'
          '<a href="{link}">The head as a page of its own</a> ({size:.1f} MB)</figcaption></figure>')
#: of a page with frames, beside what all pages may load
FRAME_POLICY = "; frame-src 'self' file:"


def pictured_head(html: str, folder: Path, project: Path) -> Optional[bytes]:
    """The exported head that an output is a picture of.

    Args:
        html: of the output.
        folder: of the notebook.
        project: other files are not published.

    Returns:
        The page; None if the output shows anything else, or a file that this version of the kit did not write.
    """
    found = _PICTURE.fullmatch(html)
    if not found:
        return None
    file = (folder / unquote(unescape(found[1]))).resolve()
    return read_web_head(file) if file.is_file() and file.is_relative_to(project) else None


def frame(link: str, size: int) -> str:
    """HTML that shows an exported head; link: quoted, size: bytes."""
    return _FRAME.format(link=link, size=size / 1e6)
