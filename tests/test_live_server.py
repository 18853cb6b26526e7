"""Protects: the server of a live head: who gets in, what each listener gets, what it says, and that it ends."""
import json
import struct
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import cv2
import numpy as np
import psutil
import pytest
from faults.made import copy_run

import egstalker_nb as egs
from egstalker_nb import notebook as nb
from egstalker_nb.core.errors import InputError, MissingPackageError
from egstalker_nb.media import tts
from egstalker_nb.media.audio import save_wav
from egstalker_nb.media.synthetic import SOURCE_TYPE

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
client = pytest.importorskip("websockets.sync.client", reason="the extra 'live' is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from egstalker_nb.live import access, audience  # noqa: E402

HEADER = struct.Struct("<BBHIq")
PATIENCE = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return egs.load_run(copy_run(tmp_path_factory.mktemp("live")))


@pytest.fixture(scope="module")
def live(run):
    with nb.Live(run, device="cpu") as live:
        yield live


class Seen:
    """A message with a frame."""

    def __init__(self, data):
        version, self.speaking, count, self.number, self.heard = HEADER.unpack_from(data)
        assert version == 1
        self.sound = np.frombuffer(data, "<i2", count, HEADER.size)
        self.jpeg = data[HEADER.size + 2 * count:]


@contextmanager
def connected(live, **more):
    address = live.url.replace("http", "ws", 1) + "socket"
    with client.connect(address, compression=None, open_timeout=PATIENCE, **more) as socket:
        yield socket


def take(socket, frames=1, confirm=True, until=None):
    """The next frames, or those until a condition holds for one, and the last state between them."""
    seen, state, end = [], None, time.monotonic() + PATIENCE
    while len(seen) < frames if until is None else not (seen and until(seen[-1])):
        assert time.monotonic() < end, "waited in vain"
        message = socket.recv(PATIENCE)
        if isinstance(message, str):
            state = json.loads(message)
            continue
        seen.append(Seen(message))
        if confirm:
            socket.send(json.dumps({"confirm": seen[-1].number}))
    return seen, state


def pictures(count):
    """A condition for `take`: so many frames had a picture; a busy machine leaves frames out."""
    seen = []

    def enough(frame):
        seen.extend([frame] * bool(frame.jpeg))
        return len(seen) >= count

    return enough


def request(url, body=None, **headers):
    """Status and JSON of a request."""
    wanted = urllib.request.Request(url, body, headers, method="GET" if body is None else "POST")
    try:
        with urllib.request.urlopen(wanted, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def tone(seconds, level=8000, seed=0):
    """int16 whose samples are not zero."""
    rng = np.random.default_rng(seed)
    return (level * rng.choice([-1, 1], round(seconds * 16_000))).astype("<i2")


# ---- who gets in ----

def test_nothing_exists_without_the_token(live):
    """Every route of the application, and the WebSocket."""
    routes = [route.path.replace("{name}", "live.js") for route in live._server._server.config.app._app.routes]
    assert {"/", "/live.js", "/file", "/text", "/pcm", "/stop", "/socket"} == set(routes)
    base, token = live.url[:-1].rsplit("/", 1)
    for wrong in ("", "/x", f"/{token[:-1]}", f"/{token}x", "/" + token.swapcase(), "/%00", "/%ff", f"/x/{token}"):
        for path in routes:
            for body in (None, b"x"):
                assert request(f"{base}{wrong}{path}", body) == (404, b""), (wrong, path)
        with pytest.raises(InvalidStatus) as refused:
            client.connect(base.replace("http", "ws", 1) + f"{wrong}/socket")
        assert refused.value.response.status_code == 403
    assert request(live.url)[0] == 200 and len(token) >= 32
    with nb.Live(live._run, device="cpu") as other:
        assert other.url[:-1].rsplit("/", 1)[1] != token and other.port != live.port
        assert request(live.url.replace(str(live.port), str(other.port)))[0] == 404, "each has its own"
        with connected(other) as socket, connected(live) as first:
            assert take(socket)[0] and take(first)[0], "both at once"


def test_pages_from_elsewhere_are_refused(live):
    origin = live.url.rsplit("/", 2)[0]
    for other in ("https://example.org", "null", "http://127.0.0.1", "http://127.0.0.1:1", "", f"{origin}.example.org"):
        assert request(live.url + "stop", b"", Origin=other)[0] == 403, other
        with pytest.raises(InvalidStatus):
            with connected(live, origin=other or "x"):
                pass
    assert request(live.url + "stop", b"", Origin=origin)[0] == 200
    with connected(live, origin=origin) as socket:
        assert take(socket)[0]


def test_the_page_loads_nothing_from_elsewhere(live):
    with urllib.request.urlopen(live.url, timeout=PATIENCE) as answer:
        page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "Synthetic" in page and "consent" in page
    for name in ("live.js", "live.css", "speaker.js", "microphone.js"):
        status, text = request(live.url + name)
        assert status == 200 and b"//cdn" not in text and b"https://" not in text
    for name in ("page.j2", "web_app.py", "..%2fweb_app.py", "__init__.py"):
        assert request(live.url + name)[0] == 404


def test_large_requests_are_refused(live, monkeypatch):
    monkeypatch.setattr(access, "MAX_BODY", 1000)
    assert request(live.url + "file", bytes(1001))[0] == 413
    assert request(live.url + "file", iter([bytes(600), bytes(600)]))[0] == 413, "without a stated length"
    assert request(live.url + "file", b"", **{"Content-Length": "-1"})[0] in (400, 413)


def test_the_number_of_listeners_is_limited(live, monkeypatch):
    monkeypatch.setattr(audience, "MAX_LISTENERS", 1)
    with connected(live) as socket:
        take(socket)
        with connected(live) as late, pytest.raises(ConnectionClosed) as closed:
            late.recv(PATIENCE)
        assert closed.value.rcvd.code == 1013 and take(socket, 2)[0]


# ---- what a listener gets ----

def test_frames_are_jpegs_of_the_head_marked_as_synthetic(live):
    with connected(live) as socket:
        seen, state = take(socket, until=pictures(8))
    assert [one.number - seen[0].number for one in seen] == list(range(len(seen)))
    images = [cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR) for one in seen if one.jpeg]
    assert images and all(image.shape == (64, 64, 3) for image in images)
    assert all(SOURCE_TYPE.encode() in one.jpeg for one in seen if one.jpeg)
    assert any((a != b).any() for a, b in zip(images, images[1:])), "it moves at rest"
    assert all(len(one.sound) == 640 and not one.sound.any() and one.heard == -1 for one in seen)
    assert state is None or state["microphone"] == "free"


def test_a_slow_listener_loses_his_own_pictures_only(live, monkeypatch):
    monkeypatch.setattr(audience, "MAX_PICTURES", 4)
    monkeypatch.setattr(audience, "MAX_SOUNDS", 8)
    with connected(live) as quick, connected(live) as slow:
        first, _ = take(slow, 1, confirm=False)
        take(quick, until=pictures(8))
        rest, _ = take(slow, 7, confirm=False)
        seen = first + rest
        assert max(one.number for one in seen) - seen[0].number <= 9 and sum(bool(one.jpeg) for one in seen) <= 5
        with pytest.raises(TimeoutError):  # nothing more, while the other one gets frames
            while isinstance(slow.recv(0.3), str):
                pass
        newest = take(quick, 3)[0][-1].number
        slow.send(json.dumps({"confirm": 2 ** 40}))  # more than there is
        again, _ = take(slow, until=pictures(1))
        assert again[0].number > newest


def test_who_speaks_does_not_hear_himself(live):
    with connected(live) as me, connected(live) as other:
        for socket in (me, other):
            socket.send(json.dumps({"microphone": True}))
            take(socket, 3)
        stop = threading.Event()

        def speak():
            began, wave = time.monotonic(), tone(0.01)
            for k in range(2 ** 20):
                if stop.wait(max(0, began + 0.01 * k - time.monotonic())):
                    return
                me.send(struct.pack("<I", 160 * k) + wave.tobytes())

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            heard, _ = take(other, until=lambda one: np.abs(one.sound).min() > 5000)
            mine, _ = take(me, until=lambda one: one.heard > 6400)
            assert all(one.heard == -1 for one in heard) and not len(mine[-1].sound) and mine[-1].jpeg
            other.send(struct.pack("<I", 0) + tone(0.05, 20_000).tobytes())  # not his
            heard, _ = take(other, 15)
            assert all(np.abs(one.sound.astype(int)).max() < 10_000 for one in heard)
        finally:
            stop.set()
            thread.join()
    until = time.monotonic() + PATIENCE
    while live._track.owner is not None:  # leaving gives the microphone back
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("wrong", ["", "x", "[]", "1", '{"confirm": "x"}', '{"confirm": true}', '{"microphone": 1}',
                                   '{"other": 1}', "[" * 5000, b"", b"1234", b"12345", bytes(7000)])
def test_messages_that_are_none_end_the_connection(live, wrong):
    with connected(live) as socket, connected(live) as other:
        socket.send(wrong)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(PATIENCE)
        assert closed.value.rcvd.code == 1003
        assert take(other, 2)[0]


# ---- what it says ----

def said(socket, seconds, value=5000):
    """The loud samples that come, as long as this, and frames around them."""
    seen, sound, end = [], np.zeros(0, np.int16), time.monotonic() + PATIENCE
    while (np.abs(sound) > value).sum() < round(seconds * 16_000) - 1000:
        assert time.monotonic() < end, "waited in vain"
        seen += take(socket, 1)[0]
        sound = np.concatenate([one.sound for one in seen])
    seen += take(socket, 2)[0]
    return np.concatenate([one.sound for one in seen])


def test_it_says_files_text_and_streams(live, tmp_path, monkeypatch):
    wave = tone(0.4)
    file = save_wav(tmp_path / "a.wav", wave / 32768)
    monkeypatch.setattr(tts, "stream", lambda text, voice=None: iter(np.split(np.float32(wave / 32768), [1000])))
    pieces = [wave.tobytes()[at:at + 777] for at in range(0, 2 * len(wave), 777)]
    ways = {"play": lambda: live.play(file), "feed": lambda: live.feed(pieces, 16_000), "say": lambda: live.say("a"),
            "file": lambda: request(live.url + "file", file.read_bytes()),
            "text": lambda: request(live.url + "text?interrupt=false", "a".encode()),
            "pcm": lambda: request(live.url + "pcm?rate=16000", iter(pieces))}
    with connected(live) as socket:
        for name, way in ways.items():
            answer = way()
            assert answer is None or answer[0] == 200, (name, answer)
            sound = said(socket, 0.4)
            loud = sound[np.abs(sound) > 5000]
            assert np.abs(loud.astype(int) - wave[:len(loud)]).max() <= 1 and len(loud) >= len(wave) - 1000, name
            live.stop()


def test_stop_is_heard_at_once(live):
    with connected(live) as socket:
        for stop in (live.stop, lambda: request(live.url + "stop", b""), lambda: socket.send('{"stop": true}')):
            live.feed([tone(4)], 16_000)
            take(socket, until=lambda one: one.sound.any())
            stop()
            seen, _ = take(socket, until=lambda one: not one.sound.any())
            assert len(seen) < 40 and live._track.queued == 0


@pytest.mark.parametrize("path, body, words", [
    ("file", b"no audio", "8 bytes"), ("file", b"", "0 bytes"), ("text", b"", "text"), ("text", b"  ", "text"),
    ("pcm?rate=7", b"abcd", "sample_rate"), ("pcm?channels=0", b"abcd", "channels")])
def test_what_cannot_be_said_is_explained(live, path, body, words):
    status, text = request(live.url + path, body)
    error = json.loads(text)["error"]
    assert status == 400 and words in error and "\n" not in error
    assert tempfile.gettempdir() not in error, "no path of the server"


def test_wrong_queries_are_refused(live):
    assert request(live.url + "pcm?rate=fast", b"abcd")[0] == 422
    assert request(live.url + "file?interrupt=maybe", b"abcd")[0] == 422


def test_chunks_that_are_not_audio_are_named(live):
    for chunks, rate in (([np.zeros(5, complex)], 16_000), ([b"1234"], 1), (["sound"], 16_000)):
        with pytest.raises(InputError):
            live.feed(chunks, rate)
    assert live._track.queued == 0


# ---- as an object ----

def test_closing_frees_the_port_and_ends_the_threads(run):
    before = {thread.name for thread in threading.enumerate()}
    live = nb.Live(run, device="cpu")
    port, url = live.port, live.url
    with connected(live) as socket:
        take(socket)
        feeder = threading.Thread(target=lambda: live.feed([tone(60)], 16_000))
        feeder.start()
        take(socket, until=lambda one: one.sound.any())
        live.close()
        live.close()
        feeder.join(PATIENCE)
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(PATIENCE)
    left = {thread.name for thread in threading.enumerate() if thread.name.startswith("egs-live")}
    assert left <= before and not feeder.is_alive()
    assert port not in {c.laddr.port for c in psutil.Process().net_connections() if c.status == "LISTEN"}
    with nb.Live(run, port=port, device="cpu") as again:
        assert again.port == port and again.url != url
    assert "closed" in repr(live) and "iframe" not in live._repr_html_()
    with pytest.raises(InputError, match="closed"):
        live.play("a.wav")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_head_that_fails_says_so(run, monkeypatch):
    with nb.Live(run, device="cpu") as live, connected(live) as socket:
        take(socket)
        monkeypatch.setattr(live._head._renderer, "render_frames", lambda script: 1 / 0)
        end, error = time.monotonic() + PATIENCE, None
        while error is None and time.monotonic() < end:
            message = socket.recv(PATIENCE)
            error = json.loads(message)["error"] if isinstance(message, str) else None
        assert "division" in error
        with pytest.raises(InputError, match="division"):
            live.say("hello")


def test_only_this_machine_reaches_it(live):
    listening = {c.laddr.ip for c in psutil.Process().net_connections() if c.laddr and c.laddr.port == live.port
                 and c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_a_taken_port_is_refused(live, run):
    for port in (live.port, 0, 70_000):
        with pytest.raises(InputError, match="port"):
            nb.Live(run, port=port, device="cpu")


def test_notebooks_show_the_page_and_headless_ones_a_still(live, monkeypatch):
    monkeypatch.delenv("EGS_STATIC", raising=False)
    page = live._repr_html_()
    assert "<iframe" in page and "microphone" in page and live.url in page
    monkeypatch.setenv("EGS_STATIC", "1")
    still = live._repr_html_()
    assert "iframe" not in still and "data:image/jpeg" in still and "egs live" in still and live.url not in still


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'egstalker-nb\[live\]'"):
        nb.Live(run, device="cpu")
