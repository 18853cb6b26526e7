"""The page of a live head in a real browser: it moves, speaks with sound in step, follows a microphone, also in
JupyterLab behind jupyter-server-proxy as on a hub."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("playwright", reason="playwright is not installed: no browser tests")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: no browser tests")
pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
pytest.importorskip("jupyter_server_proxy", reason="jupyter-server-proxy is not installed: no page through it")

from lab import Lab  # noqa: E402
from test_live_widgets import write_cells  # noqa: E402

import egstalker_nb as egs  # noqa: E402
from egstalker_nb import notebook as nb  # noqa: E402
from egstalker_nb.live import live_head  # noqa: E402
from egstalker_nb.media.audio import load_audio, save_wav  # noqa: E402
from egstalker_nb.rendering.live_motion import LiveMotion  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.made import copy_run  # noqa: E402

BASE = "/user/ada/"
SPEECH = Path(__file__).parents[1] / "data" / "speech.flac"
PATIENCE = 60_000
CLOSED, OPENS = 0.1, 1.0  # levels, see `motion`
#: mean of the lower half of the face's pixels, sampled in each animation frame
WATCH = """() => {
  const canvas = document.getElementById('picture'), paint = canvas.getContext('2d'), n = canvas.width;
  window.seen = [];
  const look = () => {
    const data = paint.getImageData(0.35 * n, 0.55 * n, 0.3 * n, 0.25 * n).data;
    window.seen.push(Array.from(data).filter((_, i) => i % 4 === 0));
    if (window.seen.length > 400) window.seen.shift();
    requestAnimationFrame(look);
  };
  look();
}"""


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return save_wav(tmp_path_factory.mktemp("speech") / "speech.wav", load_audio(SPEECH)[8000:72_000])


@pytest.fixture(scope="module")
def hub(browser, speech, tmp_path_factory):
    """A JupyterLab whose base URL is that of a user of a hub, and a browser whose microphone hears speech."""
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-audio-capture={speech}"]
    with Lab(tmp_path_factory.mktemp("hub"), BASE, fake) as lab:
        yield lab


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return copy_run(tmp_path_factory.mktemp("live"))


class HeldStill:
    """Nothing but the mouth moves."""

    def __init__(self, renderer):
        self.motion = LiveMotion(renderer, "static", "dataset")

    def script(self, i, features, silent):
        return self.motion.script(0, features, silent)


def wait(page, condition):
    page.wait_for_function(condition, timeout=PATIENCE)


def motion(page):
    """How much the lower face changes within a few seconds: standard deviation of its pixels, in levels."""
    page.evaluate("() => { window.seen.length = 0; window.egsLive.drawn.length = 0; }")
    wait(page, "() => window.egsLive.drawn.length > 30")
    return float(np.array(page.evaluate("() => window.seen")).std(0).mean())


def test_it_speaks_and_follows_a_microphone(hub, run, speech, monkeypatch):
    """The mouth moves with a file and with the microphone, and rests between; the head itself is held still here."""
    monkeypatch.setattr(live_head, "IdleMotion", HeldStill)
    with nb.Live(egs.load_run(run), device="cpu") as live:
        torch.manual_seed(0)
        for weights in live._head._renderer.head.deformation.heads.parameters():
            torch.nn.init.normal_(weights, std=0.02)  # untrained, they are zero: nothing would move
        page = hub.browser.new_page(viewport={"width": 640, "height": 900})
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(live.url)
        wait(page, "() => window.egsLive.drawn.length > 5")
        assert page.get_by_text("Synthetic.").is_visible()
        page.evaluate(WATCH)
        assert motion(page) < CLOSED
        page.get_by_role("button", name="Sound on").click()
        page.get_by_label("Audio file").set_input_files(speech)
        page.get_by_text("speaking").wait_for(timeout=PATIENCE)
        wait(page, "() => window.egsLive.offset.length > 25")
        assert min(page.evaluate("() => window.egsLive.offset")) >= 0, "no picture before its sound"
        assert motion(page) > OPENS
        page.get_by_role("button", name="Interrupt").click()
        page.get_by_text("resting").wait_for(timeout=PATIENCE)
        assert any(motion(page) < CLOSED for _ in range(10)), "it closes, and stays closed"
        page.get_by_role("button", name="Microphone on").click()
        page.get_by_text("follows you").wait_for(timeout=PATIENCE)
        assert motion(page) > OPENS
        assert min(page.evaluate("() => window.egsLive.latency")) > 165, "no picture before its look-ahead"
        page.get_by_role("button", name="Microphone off").click()
        page.get_by_text("resting").wait_for(timeout=PATIENCE)
        assert complaints == []
        page.close()


def test_jupyterlab_shows_it_through_the_proxy(hub, run):
    """One cell, under the base URL of a hub's user: page, requests and WebSocket go through Jupyter."""
    cell = (f"import egstalker_nb as egs\nfrom egstalker_nb import notebook as nb\n"
            f"live = nb.Live(egs.load_run({str(run)!r}), device='cpu')\nlive")
    with hub.open(write_cells(hub, "live.ipynb", [cell])) as book:
        book.run_all()
        assert book.errors() == []
        frame = book.page.frame_locator("iframe[id^=egs-]")
        frame.get_by_text("resting").wait_for(timeout=PATIENCE)
        inner = next(one for one in book.page.frames if "/proxy/" in one.url)
        assert BASE in inner.url
        inner.wait_for_function("() => window.egsLive.drawn.length > 10", timeout=PATIENCE)
        frame.get_by_label("Text to say").fill(" ")
        frame.get_by_role("button", name="Speak").click()
        frame.get_by_text("Type what the head is to say").wait_for(timeout=PATIENCE)
