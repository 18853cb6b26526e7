"""Who may use a live server: whoever knows its token, from its own page, with requests of limited size."""
from __future__ import annotations

import secrets
from typing import Any, Awaitable, Callable, MutableMapping
from urllib.parse import urlsplit

MAX_BODY = 32 * 2 ** 20  # bytes of a request
#: of answers: nothing from elsewhere, nothing kept, and no address with the token to anybody
HEADERS = {"Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
           "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class TokenGate:
    """An ASGI application in front of another one, whose paths all lie below `/<token>`.

    Without the token nothing exists (404). A request from a page of another origin is refused (403), so is a body
    above `MAX_BODY` (413), except where `endless` says that its audio is taken as it comes in.

    Args:
        app: the other one.
        token: the secret part of the path.
        endless: paths whose bodies have no end.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str,
                 endless: frozenset[str] = frozenset()):
        self._app, self._token, self._endless = app, token.encode(), endless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        known = secrets.compare_digest(first.encode("utf-8", "surrogateescape"), self._token)
        if not (known and slash):
            return await _refuse(scope, receive, send, 404)
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not _same_origin(headers):
            return await _refuse(scope, receive, send, 403)
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        if scope["type"] == "websocket" or inner["path"] in self._endless:
            return await self._app(inner, receive, send)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return await _refuse(scope, receive, send, 413)
        await self._app(inner, _limited(receive), send)


class TooLarge(Exception):
    """A body without a stated length went beyond `MAX_BODY`."""


def _limited(receive: Receive) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise TooLarge
        return message

    return counted


def _same_origin(headers: dict[bytes, bytes]) -> bool:
    """Browsers say where a page comes from, and programs nothing."""
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    return origin is None or urlsplit(origin.decode("latin-1")).netloc == host.decode("latin-1")


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    else:
        await send({"type": "http.response.start", "status": status,
                    "headers": [(b"content-length", b"0"), (b"connection", b"close")]})
        await send({"type": "http.response.body"})
