"""Protects: an exported head is shown in notebooks and in the gallery, and no page of a stranger takes its place."""
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest

from egstalker_nb.media import player
from egstalker_nb.notebook import widgets
from egstalker_nb.notebook.gallery import website
from egstalker_nb.notebook.widgets import base
from egstalker_nb.web.export_web import HEAD, MAX_BYTES, PAGE, TITLE, WebHead, read_web_head

#: the page with a packed head in it; what is packed matters in a browser only
PAGE_TEXT = PAGE.read_text(encoding="utf-8").replace(HEAD, f"{HEAD}H4sIAAAA/+8=", 1)
WRITTEN = PAGE_TEXT.replace(TITLE, "<title>A &amp; B</title>", 1)
#: pages that are not `export_web`'s, though most of them look like it
STRANGE = {
    "empty": "", "other": "<!doctype html><script>alert(1)</script>",
    "without a head": PAGE.read_text(encoding="utf-8"),
    "one sign of its code": WRITTEN.replace("function", "function ", 1),
    "other policy": WRITTEN.replace("default-src 'none'", "default-src *", 1),
    "script after it": WRITTEN + "<script>alert(1)</script>", "script before it": "<script>alert(1)</script>" + WRITTEN,
    "script in the title": WRITTEN.replace("A &amp; B", "</title><script>alert(1)</script><title>", 1),
    "script in the head": WRITTEN.replace("H4sIAAAA", "H4sI</script><script>alert(1)</script>", 1),
    "line break in the head": WRITTEN.replace("H4sIAAAA", "H4sI\nAAAA", 1),
    "too large": WRITTEN.replace("H4sIAAAA", "A" * MAX_BYTES, 1),
}
NAMES = ["head.html", "my head (1).html", 'it\'s "5".html', "Übung.html", "a#b?c=1 50%25&lt.html"]


class Seen(HTMLParser):
    """Tags of a text: (name, attributes)."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of results; notebooks are saved in `outputs/me/notebooks`."""
    folder = tmp_path / "project" / "outputs" / "me" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.setenv(player.NOTEBOOK_FOLDER, str(folder))
    return folder.parents[2]


def head_page(path: Path, text: str = WRITTEN) -> widgets.HeadPage:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    return widgets.HeadPage(WebHead(path, path.stat().st_size, 478, 21, 28.0, 28.1, 45.0, picture))


def gallery(project: Path, *outputs: str) -> Path:
    """The page of a notebook with these outputs."""
    shown = [nbformat.v4.new_output("display_data", {"text/html": html}) for html in outputs]
    cells = [nbformat.v4.new_markdown_cell("# 7 · Live"),
             nbformat.v4.new_code_cell("1", execution_count=1, outputs=shown)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "outputs/me/notebooks/07_live_and_export.ipynb")
    return website.export(project / "outputs").index.parent / "me" / "07_live_and_export.html"


def test_only_pages_with_the_kits_own_code_count(tmp_path):
    file = tmp_path / "head.html"
    file.write_text(WRITTEN, encoding="utf-8")
    assert read_web_head(file) == file.read_bytes()
    for name, text in STRANGE.items():
        file.write_text(text, encoding="utf-8")
        assert read_web_head(file) is None, name


@pytest.mark.parametrize("name", NAMES)
def test_the_still_form_is_a_picture_and_the_path(project, name):
    """What GitHub, HTML exports and headless runs show, with a small notebook."""
    panel = head_page(project / "outputs" / "me" / "runs" / "it's 50%" / name, WRITTEN + " " * 1_000_000)
    bundle = panel._repr_mimebundle_()
    shown = Seen(bundle["text/html"])
    assert [tag for tag, _ in shown.tags] == ["figure", "img", "figcaption", "a"], "a name has become markup"
    assert shown.all("img")[0]["src"].startswith("data:image/jpeg;base64,") and len(bundle["text/html"]) < 50_000
    place = project / "outputs" / "me" / "notebooks" / unquote(shown.all("a")[0]["href"])
    assert place.samefile(panel.head.path) and base.WIDGET not in bundle


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_frames_the_file_itself(project, name, monkeypatch):
    monkeypatch.setattr(base, "in_notebook", lambda: True)
    monkeypatch.delenv(base.STATIC, raising=False)
    panel = head_page(project / "runs" / name)
    assert panel._repr_mimebundle_()[base.WIDGET]["model_id"] == panel.widget.model_id
    shown = Seen(panel.widget.outputs[0]["data"]["text/html"])
    (frame,), (link,) = shown.all("iframe"), shown.all("a")
    assert (project / "outputs" / "me" / "notebooks" / unquote(frame["src"])).samefile(panel.head.path)
    assert frame["src"] == link["href"] and "download" in link and frame["sandbox"] == "allow-scripts"


@pytest.mark.parametrize("name", NAMES)
def test_the_gallery_frames_a_copy(project, name):
    panel = head_page(project / "outputs" / "me" / "runs" / name)
    page = gallery(project, panel._repr_html_())
    shown = Seen(page.read_text(encoding="utf-8"))
    (frame,) = shown.all("iframe")
    assert (page.parent / unquote(frame["src"])).read_text(encoding="utf-8") == WRITTEN
    assert "allow-top-navigation" not in frame["sandbox"] and "allow-popups" not in frame["sandbox"]
    assert frame["src"] in [link.get("href") for link in shown.all("a")] and "frame-src" in page.read_text()


@pytest.mark.parametrize("kind", STRANGE)
def test_the_gallery_frames_no_other_page(project, kind):
    """The picture of it stays; nothing of the page gets into the gallery."""
    panel = head_page(project / "outputs" / "me" / "runs" / "head.html", STRANGE[kind])
    page = gallery(project, panel._repr_html_())
    text = page.read_text(encoding="utf-8")
    assert "<iframe" not in text and "frame-src" not in text and len(Seen(text).all("img")) == 1
    assert sorted(p.name for p in (page.parent.parent).rglob("*.html")) == ["07_live_and_export.html", "index.html"]


def test_the_gallery_frames_nothing_from_outside_the_project_or_deleted(project):
    outside = head_page(project.parent / "private.html")
    gone = head_page(project / "outputs" / "gone.html")
    gone.head.path.unlink()
    page = gallery(project, outside._repr_html_(), gone._repr_html_())
    assert "<iframe" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("html", [
    '<iframe src="../head.html"></iframe>', '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    '{still}<script>alert(1)</script>', '<img title=\'{still}\' src="x">',
    '<img title=\'<figure class="talking-head">\'><a href="../head.html">x</a></figure>\' onerror=alert(1) src=x >',
    '<object data="../head.html"></object>',
    '<figure class="talking-head"><script>alert(1)</script><a href="../head.html">x</a><img src=x onerror=alert(1)>'
    '</figure>'])
def test_markup_of_a_stranger_around_a_head_does_not_pass(project, html):
    """Frames are the gallery's own; whatever else an output holds is cleaned, or left out."""
    still = head_page(project / "outputs" / "me" / "head.html")._repr_html_()
    text = gallery(project, html.replace("{still}", still)).read_text(encoding="utf-8")
    shown = Seen(text)
    assert len(shown.all("iframe")) == (1 if html.startswith("<figure") else 0)
    assert not [attrs for _, attrs in shown.tags if "onerror" in attrs or "srcdoc" in attrs]
    assert all("src" in attrs for attrs in shown.all("script")) and not shown.all("object")
    assert not re.search(r"<script>alert", text)
