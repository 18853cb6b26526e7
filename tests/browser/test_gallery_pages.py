"""The gallery's pages in a real browser: from the disk, without a network."""
import base64
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest

from egstalker_nb.media import player
from egstalker_nb.notebook.gallery import website
from egstalker_nb.notebook.widgets import HeadPage
from egstalker_nb.web.export_web import WebHead

sync_playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").sync_playwright

from lab import BROWSER_ARGS, PATIENCE, NoBrowser, find_browser  # noqa: E402

ROOT = Path(__file__).parents[2]
#: with a microphone that nobody has to allow
ARGS = [*BROWSER_ARGS, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PLAY = """async () => {
  const video = document.querySelector("video");
  video.muted = true;
  await video.play();
  await new Promise((ready) => { video.ontimeupdate = () => video.currentTime > 0.2 && ready(); });
  const played = video.currentTime;
  video.pause();
  await new Promise((ready) => { video.onseeked = ready; video.currentTime = video.duration / 2; });
  return [played, video.currentTime / video.duration, video.videoWidth];
}"""


def html_of(head, folder):
    """The still form, in a notebook that is saved in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(player.NOTEBOOK_FOLDER, str(folder))
        return head._repr_html_()


@pytest.fixture(scope="module")
def site(sample_clip, tmp_path_factory):
    """A gallery of one notebook with a video, a plot and an exported head; its index."""
    outputs = tmp_path_factory.mktemp("gallery")
    exported = shutil.copy(ROOT / "docs" / "sample_head.html", outputs / "head.html")
    head = HeadPage(WebHead(exported, 1, 1, 1, 1.0, 1.0, 1.0, np.zeros((8, 8, 3), np.uint8)))
    video = base64.b64encode(sample_clip.read_bytes()).decode()
    plot = {"data": [{"type": "scatter", "y": [1, 3, 2]}], "layout": {"height": 300}}
    shown = [nbformat.v4.new_output("display_data", data) for data in (
        {"text/html": f'<video controls src="data:video/mp4;base64,{video}"></video>'}, {website.PLOTLY: plot},
        {"text/html": html_of(head, outputs / "me" / "notebooks")})]
    cells = [nbformat.v4.new_markdown_cell("# 1 · First\n\n**Goal.** Show it."),
             nbformat.v4.new_code_cell("1", execution_count=1, outputs=shown)]
    (outputs / "me" / "notebooks").mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), outputs / "me" / "notebooks" / "01_data_prep.ipynb")
    return website.export(outputs).index


def test_videos_play_plots_are_drawn_and_the_head_listens_offline(site):
    """What `make gallery` is for: a folder that opens anywhere."""
    try:
        browser_path = find_browser()
    except NoBrowser as reason:
        pytest.skip(str(reason))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=ARGS, timeout=PATIENCE * 1000)
        page = browser.new_context(offline=True, color_scheme="dark").new_page()
        page.set_default_timeout(PATIENCE * 1000)
        faults, fetched = [], []
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(site.resolve().as_uri())
        page.get_by_role("link", name="1 · First").click()
        played, sought, width = page.evaluate(PLAY)
        assert played > 0.2 and abs(sought - 0.5) < 0.05 and width > 0
        page.locator(".plot .main-svg").first.wait_for()
        page.get_by_role("button", name="Show all code").click()
        assert page.locator("details.code[open]").count() == 1
        frame = page.frame_locator(".talking-head iframe")
        page.locator(".talking-head").scroll_into_view_if_needed()
        frame.locator("canvas").wait_for()
        frame.get_by_role("button", name="Speak").click()
        frame.get_by_text("Listening").wait_for()
        browser.close()
    assert faults == []
    assert [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))] == []
