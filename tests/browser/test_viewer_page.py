"""The 3D viewer in a real browser: in a page of its own, and in JupyterLab behind jupyter-server-proxy as on a hub."""
import io
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: no browser tests")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: no browser tests")
pytest.importorskip("viser", reason="viser is not installed: no viewer")
pytest.importorskip("jupyter_server_proxy", reason="jupyter-server-proxy is not installed: no viewer through it")

from lab import SOFTWARE, Lab  # noqa: E402
from PIL import Image  # noqa: E402
from test_live_widgets import write_cells  # noqa: E402

import egstalker_nb as egs  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.made import copy_run  # noqa: E402

BASE = "/user/ada/"
SOUND = "document.getElementById('egs-sound')"


@pytest.fixture(scope="module")
def hub(browser, tmp_path_factory):
    """A JupyterLab whose base URL is that of a user of a hub."""
    with Lab(tmp_path_factory.mktemp("hub"), BASE, SOFTWARE) as lab:
        yield lab


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose head opens its mouth and moves: 12 frames, 478 Gaussians."""
    return copy_run(tmp_path_factory.mktemp("viewer"))


def look(frame):
    """Pixels of the 3D view, [H, W, 3] float32."""
    png = frame.locator("canvas").first.screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)


def coverage(picture):
    """Share of the pixels that differ from those of the corner."""
    return float((np.abs(picture - picture[-3, 3]).max(-1) > 20).mean())


def wait(page, condition):
    for _ in range(600):
        value = condition()
        if isinstance(value, np.ndarray) or value:
            return value
        page.wait_for_timeout(100)
    raise AssertionError("waited in vain")


def test_a_head_plays_with_its_sound(hub, run):
    """The page shows the head, its pixels change while it plays, the sound plays along, and both stop."""
    with egs.view(egs.load_run(run)) as viewer:
        page = hub.browser.new_page(viewport={"width": 640, "height": 400})
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(viewer.url)
        page.get_by_role("button", name="Reset camera").wait_for()
        before = wait(page, lambda: coverage(now := look(page)) > 0.03 and now)
        page.evaluate(f"() => {{ {SOUND}.addEventListener('play', () => window.played = true) }}")
        page.get_by_role("button", name="Play", exact=True).click()
        wait(page, lambda: page.evaluate("() => window.played"))
        wait(page, lambda: not viewer.panel.clock.playing)
        after = wait(page, lambda: np.abs((now := look(page)) - before).max() > 30 and now)
        assert coverage(after) > 0.03 and viewer.panel.clock.frame == 11
        wait(page, lambda: page.evaluate(f"() => {SOUND}.paused"))
        assert complaints == []
        page.close()


def test_jupyterlab_shows_it_through_the_proxy(hub, run):
    """One cell, under the base URL of a hub's user: page and websocket of the viewer go through Jupyter."""
    cell = f"import egstalker_nb as egs\nviewer = egs.view(egs.load_run({str(run)!r}))\nviewer"
    with hub.open(write_cells(hub, "viewer.ipynb", [cell])) as book:
        sockets = []
        book.page.on("websocket", lambda socket: sockets.append(socket.url))
        book.run_all()
        assert book.errors() == []
        frame = book.page.frame_locator("iframe[id^=egs-]")
        frame.get_by_role("button", name="Reset camera").wait_for(timeout=60_000)
        wait(book.page, lambda: coverage(look(frame)) > 0.03)
        address = book.page.locator("iframe[id^=egs-]").get_attribute("src")
        assert address.startswith(f"{BASE}proxy/")
        assert any(address.rstrip("/") in url for url in sockets)
