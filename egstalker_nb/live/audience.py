"""Who watches a live head: each listener gets the frames at his own pace, and a slow one loses pictures of his own."""
from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from typing import Any, Callable, Optional, Union

from ..media.rates import FPS
from .performer import LiveFrame
from .soundtrack import SoundTrack

MAX_LISTENERS = 16
#: Frames that a listener was sent and has not confirmed: beyond the first, he gets sound only; beyond the second,
#: nothing. Confirmations bound what lies in buffers of the network, and of proxies, which take whatever is sent.
MAX_PICTURES, MAX_SOUNDS = FPS, 3 * FPS
#: version, 1 if the mouth moves, number of samples, number of the frame, number of the listener's microphone sample
HEADER = struct.Struct("<BBHIq")
VERSION = 1


def packed(frame: LiveFrame, listener: object, picture: bool) -> bytes:
    """A frame as the message to one listener: header, int16 samples, JPEG.

    Args:
        frame: of the time line.
        listener: to whom; does not hear his own microphone.
        picture: False: without the JPEG.
    """
    own = frame.owner is listener
    sound = b"" if own else frame.sound.tobytes()
    header = HEADER.pack(VERSION, frame.speaking, len(sound) // 2, frame.number & 0xffffffff,
                         frame.heard if own else -1)
    return header + sound + (frame.picture if picture else b"")


class Listener:
    """One connection, in the event loop of the server.

    Attributes:
        confirmed: number of the last frame that the page has taken from the connection.
    """

    def __init__(self, newest: int):
        self.confirmed = newest
        self._messages: deque[Union[bytes, str]] = deque(maxlen=MAX_SOUNDS)
        self._ready = asyncio.Event()

    def offer(self, frame: LiveFrame) -> None:
        """Send a frame, as much of it as he keeps up with."""
        behind = frame.number - self.confirmed
        if behind <= MAX_SOUNDS and (frame.picture or frame.owner is not self):
            self.send(packed(frame, self, behind <= MAX_PICTURES))

    def send(self, message: Union[bytes, str]) -> None:
        """Queue a message; of a full queue, the oldest is dropped."""
        self._messages.append(message)
        self._ready.set()

    async def messages(self) -> Any:
        """The messages to send, as they come."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._messages:
                yield self._messages.popleft()


class Audience:
    """All listeners of one head.

    Args:
        track: whose microphone they may take.
        about: what the page shows of the head's state.
    """

    def __init__(self, track: SoundTrack, about: Callable[[], dict[str, Any]]):
        self._track, self._about = track, about
        self._listeners: set[Listener] = set()
        self._newest = 0
        self.loop: Optional[asyncio.AbstractEventLoop] = None

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def full(self) -> bool:
        return len(self) >= MAX_LISTENERS

    def publish(self, frame: LiveFrame) -> None:
        """Send a frame to everybody; from any thread."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._deliver, frame)

    def _deliver(self, frame: LiveFrame) -> None:
        self._newest = frame.number
        for listener in self._listeners:
            listener.offer(frame)

    def tell(self, listener: Listener) -> None:
        """Tell a listener the state of the head."""
        owner = self._track.owner
        microphone = "free" if owner is None else "yours" if owner is listener else "taken"
        listener.send(json.dumps({**self._about(), "microphone": microphone, "listeners": len(self)}))

    def _tell_all(self) -> None:
        for listener in self._listeners:
            self.tell(listener)

    def join(self) -> Listener:
        listener = Listener(self._newest)
        self._listeners.add(listener)
        self._tell_all()
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        self._track.close_microphone(listener)
        self._tell_all()

    def confirm(self, listener: Listener, number: int) -> None:
        """A listener has taken the frames up to this one."""
        listener.confirmed = max(listener.confirmed, min(number, self._newest))

    def microphone(self, listener: Listener, on: bool) -> None:
        """A listener switches his microphone on, if nobody else's is, or off."""
        if on:
            self._track.open_microphone(listener)
        else:
            self._track.close_microphone(listener)
        self._tell_all()
