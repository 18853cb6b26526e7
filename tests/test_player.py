"""Protects: videos play in notebooks and in the gallery, and notebooks do not grow by a large video."""
import base64
import os
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest

from egstalker_nb.media import player
from egstalker_nb.media.audio import save_wav
from egstalker_nb.notebook.gallery import website
from egstalker_nb.notebook.widgets.base import media
from egstalker_nb.rendering.render import Video
from egstalker_nb.scheduling.execute import kernel_environment

NAMES = ["talk.mp4", "my talk (1).mp4", 'it\'s "5".mp4', "Übung.mp4", "顔の動画.mp4", "a#b.mp4", "100%.mp4",
         "50%25.mp4", "a&b<c>.mp4", "a?b=c;d.mp4", "http:talk.mp4"]


@pytest.fixture
def small(monkeypatch):
    """Files above 1,000 bytes count as large."""
    monkeypatch.setattr(player, "MAX_EMBEDDED", 1000)


class Seen(HTMLParser):
    """Tags of a text, and its words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data

    def one(self, tag):
        found, = [attrs for name, attrs in self.tags if name == tag]
        return found


def video(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return Video(path, 25, 100.0, 50.0)


def test_a_small_video_is_stored_in_the_notebook(small, tmp_path):
    made = video(tmp_path / "talk.mp4", 1000)
    shown = Seen(made._repr_html_())
    kind, data = shown.one("video")["src"].split(";base64,")
    assert kind == "data:video/mp4" and base64.b64decode(data) == made.path.read_bytes()
    assert str(made) in shown.words and not [tag for tag, _ in shown.tags if tag == "a"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", [".", "out #1/50% ü", "../beside 'it' \"q\""])
def test_a_large_video_is_played_from_its_file(small, folder, name, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    made = video(Path(folder) / name, 1001)
    text = made._repr_html_()
    shown = Seen(text)
    address = shown.one("video")["src"]
    assert len(text) < 2000 and address == shown.one("a")["href"]
    assert not re.match(r"[a-z]+:|/", address) and not re.search(r"[#?\s\"'<>]", address)
    assert Path(unquote(address)).samefile(made.path), "as a browser reads it, from the notebook's folder"
    assert name in shown.words and "played from its file" in shown.words and str(made) in shown.words
    assert [tag for tag, _ in shown.tags] == ["video", "br", "a", "br", "code"], "a name has become markup"


def test_a_file_on_another_drive_has_an_absolute_address(small, tmp_path, monkeypatch):
    def apart(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(player.os.path, "relpath", apart)
    made = video(tmp_path / "a b.mp4", 1001)
    assert Seen(made._repr_html_()).one("video")["src"] == made.path.as_uri()


def test_the_usual_limit_lets_no_notebook_grow_by_more_than_11_mb(tmp_path):
    assert len(video(tmp_path / "a.mp4", player.MAX_EMBEDDED)._repr_html_()) < 11e6
    assert len(video(tmp_path / "b.mp4", player.MAX_EMBEDDED + 1)._repr_html_()) < 2000


def test_headless_runs_refer_to_files_from_where_the_notebook_is_saved(small, tmp_path):
    """Its kernel works in another folder."""
    saved = tmp_path / "outputs" / "me" / "notebooks"
    made = video(tmp_path / "outputs" / "me" / "talk.mp4", 1001)
    with kernel_environment(tmp_path / "progress", saved, None):
        assert Seen(made._repr_html_()).one("video")["src"] == "../talk.mp4"
    assert player.NOTEBOOK_FOLDER not in os.environ


def test_widgets_show_the_same(small, tmp_path):
    large, little = video(tmp_path / "a.mp4", 1001), video(tmp_path / "b.mp4", 9)
    shown, = media(large.path, "video").outputs
    assert shown["data"]["text/html"] == player.html(large.path)
    assert "base64" in media(little.path, "video").outputs[0]["data"]["text/html"]
    assert Seen(media(large.path, "audio").outputs[0]["data"]["text/html"]).one("audio")["src"]


def test_long_audio_is_played_from_its_file(small, tmp_path):
    from egstalker_nb.notebook.widgets.speech_input import SpeechInput

    long, short = (save_wav(tmp_path / f"{n}.wav", np.zeros(n, np.float32)) for n in (600, 400))
    now = [(long, np.zeros(600, np.float32))]
    panel = SpeechInput(lambda file: None, lambda: now[0], tmp_path)
    assert panel.widget is not None and "600.wav" in panel.place.children[0].outputs[0]["data"]["text/html"]
    now[0] = (short, np.zeros(400, np.float32))
    panel.refresh()
    assert bytes(panel.place.children[0].value) == short.read_bytes()


def test_the_panel_says_that_nothing_can_be_heard(tmp_path):
    from egstalker_nb.notebook.widgets.speech_input import SpeechInput

    now = [(tmp_path / "a.wav", np.zeros(6400, np.float32))]
    panel = SpeechInput(lambda file: None, lambda: now[0], tmp_path)
    assert panel.widget is not None and "mouth stays shut" in panel.line.value
    now[0] = (tmp_path / "b.wav", np.sin(np.arange(6400, dtype=np.float32)))
    panel.refresh()
    assert "b.wav" in panel.line.value and "shut" not in panel.line.value


# ---- gallery

def executed(folder, html):
    shown = nbformat.v4.new_output("execute_result", {"text/html": html, "text/plain": "Video"}, execution_count=1)
    cells = [nbformat.v4.new_markdown_cell("# 6 · Speech\n\n**Goal.** A video."),
             nbformat.v4.new_code_cell("video", execution_count=1, outputs=[shown])]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "06_custom_audio_rendering.ipynb")


@pytest.mark.parametrize("name", NAMES)
def test_the_gallery_holds_copies_of_large_videos(small, name, tmp_path, monkeypatch):
    folder = tmp_path / "outputs" / "me" / "notebooks"
    made = video(folder.parent / name, 1001)
    monkeypatch.setenv(player.NOTEBOOK_FOLDER, str(folder))
    executed(folder, made._repr_html_())
    index = website.export(tmp_path / "outputs").index
    page = index.parent / "me" / "06_custom_audio_rendering.html"
    tags = Seen(page.read_text(encoding="utf-8")).tags
    (player_,) = [attrs for tag, attrs in tags if tag == "video"]
    copy = page.parent / unquote(player_["src"])
    assert copy.read_bytes() == made.path.read_bytes() and copy.is_relative_to(index.parent)
    assert [attrs["href"] for tag, attrs in tags if attrs.get("target") == "_blank"] == [player_["src"]]
    assert len(list(index.parent.rglob("*.mp4"))) == 1, "one copy for player and link"
    assert f'src="me/06_custom_audio_rendering/{copy.name}"' in unescape(index.read_text(encoding="utf-8")), "its cover"


def test_a_video_that_was_deleted_since_leaves_no_dead_link(small, tmp_path, monkeypatch):
    folder = tmp_path / "outputs" / "me" / "notebooks"
    made = video(folder.parent / "talk.mp4", 1001)
    monkeypatch.setenv(player.NOTEBOOK_FOLDER, str(folder))
    executed(folder, made._repr_html_())
    made.path.unlink()
    index = website.export(tmp_path / "outputs").index
    text = (index.parent / "me" / "06_custom_audio_rendering.html").read_text(encoding="utf-8")
    assert "../talk.mp4" not in text and "talk.mp4" in text
