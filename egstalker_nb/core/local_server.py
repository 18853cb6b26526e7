"""Servers of this package: where they listen, and how JupyterLab shows their pages below a cell."""
from __future__ import annotations

import importlib.util
import socket
import uuid
from html import escape
from typing import Optional

from .errors import InputError

LOOPBACK = "127.0.0.1"
#: In Jupyter with jupyter-server-proxy the browser reaches the server through Jupyter, wherever that runs; elsewhere
#: (VS Code, for instance) at its own address. Which it is, is known in the browser: Jupyter's pages say their base URL.
_EMBED = """<iframe id="{id}" title="{title}" allow="{allow}" style="width: 100%; height: {height}px; border: 0">
</iframe><script>
(() => {{
  const config = document.getElementById('jupyter-config-data');
  const base = config ? JSON.parse(config.textContent).baseUrl : document.body.dataset.baseUrl;
  document.getElementById('{id}').src = base && {proxied}
    ? `${{base.replace(/\\/*$/, '/')}}proxy/{port}/{path}` : '{url}';
}})();
</script>"""


def listen(host: str, port: Optional[int]) -> socket.socket:
    """A TCP socket that is bound and does not yet accept connections.

    Args:
        host: address of the network interface.
        port: None: a free one.

    Raises:
        InputError: the port cannot be used.
    """
    if port is not None and not 1 <= port <= 65535:
        raise InputError("a port 1 ... 65535", str(port), "Leave it out for a free one.")
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port or 0))
    except (OSError, OverflowError, UnicodeError) as error:
        bound.close()
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not an address"
        raise InputError("a free port of this machine", f"{host}:{port or 'any'} ({why})",
                         "Choose another port, or none for a free one.") from error
    return bound


def address(host: str, port: int) -> str:
    """The URL of a server on this machine, as its own browser reaches it."""
    return f"http://{host if socket.gethostbyname(host).strip('0.') else LOOPBACK}:{port}/"


def embedded(title: str, url: str, path: str = "", allow: str = "autoplay", height: int = 640) -> str:
    """HTML that shows the page of a server in JupyterLab, through jupyter-server-proxy where that is installed.

    Args:
        title: of the frame, for screen readers.
        url: see `address`.
        path: of the page, below the URL.
        allow: what the page may use, as in the attribute of an iframe.
        height: px.
    """
    proxied = str(importlib.util.find_spec("jupyter_server_proxy") is not None).lower()
    port = url.rstrip("/").rpartition(":")[2]
    return _EMBED.format(id=f"egs-{uuid.uuid4().hex}", title=escape(title), allow=allow, height=height,
                         proxied=proxied, port=port, path=path, url=url + path)
