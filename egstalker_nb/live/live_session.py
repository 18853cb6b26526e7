"""`Live`: a head that speaks as one speaks to it, on a page of its own and below a notebook cell."""
from __future__ import annotations

import base64
import os
import secrets
import socket
import threading
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any, Iterable, Optional

import numpy as np
import torch

from ..core.errors import InputError, first_line, require_package
from ..core.local_server import LOOPBACK, address, embedded, listen
from ..core.progress import STATIC
from ..media import tts
from ..media.audio import load_audio
from ..media.live_audio import check_rate, mono_16khz
from ..media.rates import SAMPLE_RATE
from ..training.run import Run
from .audience import Audience
from .live_head import LiveHead
from .pcm import arrays_of
from .performer import Performer
from .soundtrack import SoundTrack

MAX_CONNECTIONS = 64
MAX_MESSAGE = 64 * 1024      # bytes of a WebSocket message to the server
SEND_BUFFER = 128 * 1024     # bytes that the system keeps for a slow listener
START_SECONDS = 60


class Live:
    """A trained head on a time line of 25 frames a second, driven by a microphone, files, text or any stream of speech.

    A server in this process shows it on a page, with sound in step: see `docs/live.md`. Between sentences it rests,
    breathes, blinks and looks around. Where the machine is too slow, frames are left out, and the rest stays on time.
    In JupyterLab the object shows its page below the cell; where a notebook is executed headless, a still picture.

    Attributes:
        url: the page's address on this machine, with the token that every request needs.
        port: where the server listens.

    Args:
        run: see `load_run`; of the encoder `phones`, the default.
        port: None: a free one.
        host: network interface. The default is reached from this machine alone; on another, the token goes over the
            network in the clear unless a proxy adds TLS.
        iteration: checkpoint, default the newest.
        device: default CUDA, else the CPU.

    Raises:
        InputError: the run has another encoder; the device cannot render; the port cannot be used.
        DatasetError: no such checkpoint.
        MissingPackageError: FastAPI, uvicorn or websockets is not installed.
    """

    def __init__(self, run: Run, port: Optional[int] = None, host: str = LOOPBACK, iteration: Optional[int] = None,
                 device: Optional[str | torch.device] = None):
        for name in ("fastapi", "uvicorn", "websockets"):
            require_package(name, f"{name}, which serves the live page",
                            "Install it with: pip install 'egstalker-nb[live]'")
        bound = listen(host, port)
        try:
            self._run, self._head = run, LiveHead(run, iteration, device)
            self._still = self._head.still()
            self._track, self._closed = SoundTrack(), False
            self._audience = Audience(self._track, self._about)
            self._performer = Performer(self._head, self._track, self._audience.publish, lambda: bool(self._audience))
            self._token = secrets.token_urlsafe(24)
            self.port: int = bound.getsockname()[1]
            self._base = address(host, self.port)
            self.url = f"{self._base}{self._token}/"
            self._server = _Server(self, bound)
        except BaseException:
            bound.close()
            raise
        self._performer.start()

    def _about(self) -> dict[str, Any]:
        """What the page shows of the state."""
        error = self._performer.error
        return {"queued_s": round(self._track.queued, 1), "drawn": self._performer.drawn,
                "left_out": self._performer.left_out, "error": first_line(error) if error else None}

    # ---- what it says ----

    def say(self, text: str, voice: Optional[str] = None, interrupt: bool = True) -> None:
        """Say a text, from its first sentence on while the others are synthesised; returns when all are.

        Args:
            text: see `nb.tts.synthesize`.
            voice: likewise.
            interrupt: what it says now; otherwise the text follows afterwards.

        Raises:
            MissingPackageError: no synthesiser is installed.
            InputError: as for `synthesize` and `feed`.
        """
        track, sentences = self._running(), tts.stream(text, voice)
        first = next(sentences)  # an error leaves what it says now alone
        _speak(track, chain([first], sentences), interrupt, wait=False)

    def play(self, audio: str | Path, interrupt: bool = True) -> None:
        """Say the audio of a file.

        Args:
            audio: any audio file or video with audio, at most ten minutes.
            interrupt: see `say`.

        Raises:
            InputError: unusable audio, too long, or too many utterances wait.
        """
        self._running().say(load_audio(audio), interrupt)

    def feed(self, chunks: Iterable[Any], sample_rate: float = SAMPLE_RATE, interrupt: bool = True) -> None:
        """Say audio while it comes in; returns when all of it has, up to five seconds before it is said.

        Args:
            chunks: arrays as for `egs.stream`; or bytes of little-endian int16 mono, cut anywhere, as text-to-speech
                services send them.
            sample_rate: of the chunks in Hz, 8,000 to 384,000.
            interrupt: see `say`.

        Raises:
            InputError: an impossible rate, a chunk that is not audio, or too many utterances wait.
        """
        check_rate(sample_rate)
        _speak(self._running(), mono_16khz(arrays_of(chunks), sample_rate), interrupt, wait=True)

    def stop(self) -> None:
        """End what it says, and drop what waits."""
        self._track.stop()

    def _running(self) -> SoundTrack:
        if self._closed:
            raise InputError("a live head", "one that was closed", "Make another one: Live(run).")
        if self._performer.error is not None:
            raise InputError("a live head", f"one that ended: {first_line(self._performer.error)}",
                             "Make another one: Live(run).") from self._performer.error
        return self._track

    # ---- as an object ----

    def close(self) -> None:
        """End the server and the head; the port is free again."""
        if not self._closed:
            self._closed = True
            self._track.stop()
            self._performer.close()
            self._server.close()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self._run.root.name}: {'closed' if self._closed else self.url}"

    def _repr_html_(self) -> str:
        if self._closed:
            return f"<code>{escape(repr(self))}</code>"
        if os.environ.get(STATIC):
            picture = base64.b64encode(self._still).decode()
            return (f'<figure style="margin: 0"><img src="data:image/jpeg;base64,{picture}" alt="the head at rest">'
                    "<figcaption>At rest. Live, on a computer with this run: "
                    f"<code>egs live {escape(str(self._run.root))}</code></figcaption></figure>")
        return embedded(self._run.root.name, self._base, f"{self._token}/", "autoplay; microphone", 720)


def _speak(track: SoundTrack, waves: Iterable[np.ndarray], interrupt: bool, wait: bool) -> None:
    """Say audio as it comes; `wait`: no further ahead than an utterance has room for."""
    utterance = track.begin(interrupt)
    try:
        for wave in waves:
            utterance.add(wave)
            while wait and not utterance.wait_for_room(1.0):
                pass
            if utterance.stopped:
                return
    finally:
        utterance.end()


class _Server:
    """uvicorn in a thread of its own."""

    def __init__(self, live: Live, bound: socket.socket):
        import uvicorn

        from .web_app import web_app

        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        app = web_app(live._run.root.name, live._head.size, live._token, live._track, live._audience, live.say)
        self._server = uvicorn.Server(uvicorn.Config(
            app, lifespan="off", log_config=None, log_level="critical", access_log=False,
            ws_max_size=MAX_MESSAGE, ws_max_queue=8, ws_per_message_deflate=False,
            limit_concurrency=MAX_CONNECTIONS, server_header=False, timeout_graceful_shutdown=2))
        self._bound, self._audience, self._started = bound, live._audience, threading.Event()
        self._thread = threading.Thread(target=self._run, name="egs-live-server", daemon=True)
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise InputError("a server that starts", f"none after {START_SECONDS} s", "Try again.")

    def _run(self) -> None:
        import asyncio

        async def serve() -> None:
            self._audience.loop = asyncio.get_running_loop()
            self._bound.listen()  # connections wait from now on
            self._started.set()
            await self._server.serve(sockets=[self._bound])

        asyncio.run(serve())

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._bound.close()
