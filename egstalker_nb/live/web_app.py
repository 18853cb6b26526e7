"""The web application of a live head: its page, what it says, and the connections of its listeners."""
from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any, Callable, MutableMapping, Optional, Protocol

import numpy as np
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader

from ..core.errors import EgsError, InputError
from ..media.audio import load_audio
from ..media.rates import SAMPLE_RATE
from ..media.synthetic import COMMENT
from .access import HEADERS, MAX_BODY, TokenGate, TooLarge
from .audience import Audience, Listener
from .pcm import PcmStream
from .soundtrack import SoundTrack

HERE = Path(__file__).parent
ASSETS = {"live.js": "text/javascript", "microphone.js": "text/javascript", "speaker.js": "text/javascript",
          "live.css": "text/css"}
MAX_TEXT_BYTES = 40_000
MAX_CHUNK = 6400    # bytes of a microphone's message: 0.2 s
TRY_AGAIN = 1013    # WebSocket close codes
NOT_UNDERSTOOD = 1003
STATE_SECONDS = 1.0
POLL = 0.02         # s between looks for room


class Speaks(Protocol):
    """What a text is said with; see `Live.say`."""

    def __call__(self, text: str, voice: Optional[str] = None, interrupt: bool = True) -> None: ...


def web_app(title: str, size: int, token: str, track: SoundTrack, audience: Audience, say: Speaks) -> TokenGate:
    """The ASGI application.

    Args:
        title: of the page.
        size: px of the picture.
        token: below whose path everything lies.
        track: what is said goes there.
        audience: who gets the frames.
        say: says a text.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = Environment(loader=FileSystemLoader(HERE), autoescape=True).get_template("page.j2").render(
        title=title, size=size, comment=COMMENT)
    _add_pages(app, page)
    _add_speech(app, track, say)

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        if audience.full:
            await connection.close(TRY_AGAIN)
            return
        await _serve(connection, audience, track)

    return TokenGate(app, token, frozenset({"/pcm"}))


def _add_pages(app: FastAPI, page: str) -> None:
    @app.get("/")
    def index() -> Response:
        return HTMLResponse(page, headers=HEADERS)

    @app.get("/{name}")
    def asset(name: str) -> Response:
        if name not in ASSETS:
            return JSONResponse({"error": "no such page"}, 404)
        return Response((HERE / name).read_bytes(), media_type=ASSETS[name], headers=HEADERS)


def _add_speech(app: FastAPI, track: SoundTrack, say: Speaks) -> None:
    @app.exception_handler(EgsError)
    def wrong(request: Request, error: EgsError) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(TooLarge)
    def too_large(request: Request, error: TooLarge) -> Response:
        return JSONResponse({"error": f"expected at most {MAX_BODY} bytes"}, 413)

    @app.post("/file")
    async def file(request: Request, interrupt: bool = True) -> dict[str, Any]:
        wave = await run_in_threadpool(_decoded, await request.body())
        track.say(wave, interrupt)
        return {"queued_s": round(track.queued, 2)}

    @app.post("/text")
    async def text(request: Request, voice: Optional[str] = None, interrupt: bool = True) -> dict[str, Any]:
        words = (await request.body())[:MAX_TEXT_BYTES].decode("utf-8", "replace")
        await run_in_threadpool(say, words, voice, interrupt)
        return {"queued_s": round(track.queued, 2)}

    @app.post("/pcm")
    async def pcm(request: Request, rate: float = 24_000, channels: int = 1, interrupt: bool = True) -> dict[str, Any]:
        return {"said_s": await _say_stream(request, track, PcmStream(rate, channels), interrupt)}

    @app.post("/stop")
    def stop() -> dict[str, Any]:
        track.stop()
        return {}


def _decoded(data: bytes) -> np.ndarray:
    """The audio of a media file, see `load_audio`; errors do not say where the server keeps it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech"
        path.write_bytes(data)
        try:
            return load_audio(path)
        except InputError as error:
            raise InputError("an audio file, or a video with audio", f"{len(data)} bytes that cannot be decoded",
                             "Check that the file is complete, or convert it to WAV.") from error


async def _say_stream(request: Request, track: SoundTrack, stream: PcmStream, interrupt: bool) -> float:
    """Say audio while it comes in, no faster than it is said; returns its length in seconds."""
    utterance, samples = track.begin(interrupt), 0
    try:
        async for data in request.stream():
            wave = stream.add(data)
            samples += len(wave)
            utterance.add(wave)
            while utterance.full:
                await asyncio.sleep(POLL)
            if utterance.stopped:
                break
        utterance.add(stream.end())
    finally:
        utterance.end()
    return round(samples / SAMPLE_RATE, 2)


async def _serve(connection: WebSocket, audience: Audience, track: SoundTrack) -> None:
    """One listener, until he leaves."""
    listener = audience.join()
    tasks = [asyncio.create_task(work) for work in (_send_all(connection, listener),
                                                    _tell_regularly(audience, listener))]
    try:
        while True:
            message = await connection.receive()
            if message["type"] == "websocket.disconnect":
                break
            if not _understood(message, listener, audience, track):
                await connection.close(NOT_UNDERSTOOD)
                break
    except (WebSocketDisconnect, RuntimeError):  # Starlette raises the latter for a connection that is closed already
        pass
    finally:
        audience.leave(listener)
        for task in tasks:
            task.cancel()


async def _tell_regularly(audience: Audience, listener: Listener) -> None:
    """The state, also if no more frames come."""
    while True:
        await asyncio.sleep(STATE_SECONDS)
        audience.tell(listener)


async def _send_all(connection: WebSocket, listener: Listener) -> None:
    try:
        async for message in listener.messages():
            if isinstance(message, str):
                await connection.send_text(message)
            else:
                await connection.send_bytes(message)
    except (WebSocketDisconnect, RuntimeError, OSError):
        pass  # he left; the receiving side sees it, too


def _understood(message: MutableMapping[str, Any], listener: Listener, audience: Audience, track: SoundTrack) -> bool:
    """Do what a message of the page asks for; False if it is none."""
    data, text = message.get("bytes"), message.get("text")
    if data is not None:
        if not 4 < len(data) <= MAX_CHUNK + 4 or len(data) % 2:
            return False
        first, samples = int.from_bytes(data[:4], "little"), np.frombuffer(data, "<i2", offset=4)
        track.hear(listener, first, samples.astype(np.float32) / 32768)
        return True
    try:
        wishes = json.loads(text or "")
    except (ValueError, RecursionError):
        return False
    actions: dict[str, tuple[type, Callable[[Any], None]]] = {
        "confirm": (int, lambda number: audience.confirm(listener, number)),
        "microphone": (bool, lambda on: audience.microphone(listener, on)),
        "stop": (bool, lambda yes: track.stop())}
    if not isinstance(wishes, dict) or any(name not in actions or type(value) is not actions[name][0]
                                           for name, value in wishes.items()):
        return False
    for name, value in wishes.items():
        actions[name][1](value)
    return True
