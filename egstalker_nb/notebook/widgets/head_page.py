"""An exported head (`egs.export_web`) in a frame of the notebook; a picture of it where frames are not shown."""
from __future__ import annotations

import base64
from html import escape

import ipywidgets

from ...media import player
from ...web.export_web import WebHead
from .base import Panel, encode

#: JupyterLab serves HTML files as a sandbox without an origin, to which browsers refuse the microphone and downloads
LIMITS = ("JupyterLab gives this frame neither the microphone nor downloads. For both, download the file and open it "
          "from disk. It cannot be shown if it lies outside the folder that JupyterLab serves.")


class HeadPage(Panel):
    """The page of an exported head, shown from its file: the notebook holds only a picture and the path.

    Args:
        head: what `egs.export_web` returned.
    """

    def __init__(self, head: WebHead):
        self.head = head

    def build(self) -> ipywidgets.Widget:
        """An output, because JupyterLab resolves addresses relative to the notebook in outputs only."""
        link, name = escape(player.address(self.head.path)), escape(self.head.path.name)
        html = (f'<a href="{link}" download>{name}</a> ({self.head.bytes / 1e6:.1f} MB). {LIMITS}<br>'
                f'<iframe src="{link}" title="{name}" sandbox="allow-scripts" width="640" height="720" '
                f'style="border:0;max-width:100%"></iframe>')
        shown = {"output_type": "display_data", "metadata": {}, "data": {"text/html": html, "text/plain": str(self)}}
        return ipywidgets.Output(outputs=(shown,))

    def still(self) -> "HeadPage":
        return self

    def __repr__(self) -> str:
        return f"HeadPage({self.head})"

    def _repr_html_(self) -> str:
        """A picture of the head and a link to the file; `make gallery` shows the page instead."""
        picture = base64.b64encode(encode(self.head.picture)).decode()
        path, link = escape(str(self.head.path)), escape(player.address(self.head.path))
        return (f'<figure class="talking-head"><img width="384" alt="The talking head" '
                f'src="data:image/jpeg;base64,{picture}"><figcaption>A picture of <a href="{link}">{path}</a>: open '
                f"this file in a browser, and the head speaks.</figcaption></figure>")
