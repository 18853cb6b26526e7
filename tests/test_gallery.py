"""The gallery: executed notebooks as pages that open from the disk, with their images, plots and videos as files."""
import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from egstalker_nb import cli
from egstalker_nb.core.errors import InputError
from egstalker_nb.notebook.gallery import website

ROOT = Path(__file__).resolve().parents[1]
PNG = base64.b64encode(bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc33"
    "0000000049454e44ae426082")).decode()
CLIP = (ROOT / "data" / "sample" / "clip.mp4").read_bytes()
PLOT = {"data": [{"type": "scatter", "y": [1, 2], "name": "</script>"}], "layout": {"height": 300}}


class Tags(HTMLParser):
    """All start tags of a page: (name, attributes)."""

    def __init__(self, page: Path):
        super().__init__()
        self.found = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def shown(data: dict, kind: str = "display_data") -> nbformat.NotebookNode:
    more = {"execution_count": 1} if kind == "execute_result" else {}
    return nbformat.v4.new_output(kind, data, **more)


def executed(path: Path, title: str, *outputs) -> None:
    """A small notebook as Papermill leaves it."""
    cell = nbformat.v4.new_code_cell("1 < 2", execution_count=1, outputs=list(outputs))
    book = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell(f"# {title}\n\n**Goal.** Show a *thing*. And more.\n\n**Inputs.** None."),
        nbformat.v4.new_markdown_cell("## A part\n\nWhat is `seen` here. Next: [two](02_coarse_training.ipynb)."),
        cell])
    book.metadata["papermill"] = {"duration": 65.2, "start_time": "2026-01-02T03:04:05", "exception": None,
                                  "parameters": {"config": "quick_test", "video": "/home/x/clip.mp4"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)


@pytest.fixture
def outputs(tmp_path):
    """A folder of results with two notebooks that show every kind of output."""
    folder = tmp_path / "outputs"
    video = f'<video controls width="512" src="data:video/mp4;base64,{base64.b64encode(CLIP).decode()}"></video>'
    widget = {website.WIDGET: {"model_id": "x"}, "text/plain": "Player(value=3)"}
    executed(folder / "me" / "notebooks" / "01_data_prep.ipynb", "1 · First",
             nbformat.v4.new_output("stream", name="stdout", text=f"at {tmp_path}/outputs/me\n"),
             shown({"image/png": PNG, "text/plain": "Figure"}, "execute_result"),
             shown({website.PLOTLY: PLOT, "image/png": PNG}), shown(widget),
             shown({"text/html": "<script src='https://cdn.example/require.js'></script>"}))
    executed(folder / "me" / "notebooks" / "02_coarse_training.ipynb", "2 · Second",
             shown({"text/html": video, "text/plain": "Video"}, "execute_result"),
             shown({"text/html": f'<audio controls><source src="data:audio/wav;base64,{PNG}"></audio>'}))
    return folder


def test_every_link_leads_to_a_file_of_the_gallery(outputs):
    """From the disk and offline, whatever is not beside the pages is missing."""
    made = website.export(outputs)
    root = made.index.parent
    assert (made.pages, root) == (2, outputs / "gallery")
    pages = sorted(root.rglob("*.html"))
    assert [str(p.relative_to(root)) for p in pages] == ["index.html", "me/01_data_prep.html",
                                                          "me/02_coarse_training.html"]
    for page in pages:
        links = [value for _, attrs in Tags(page).found for name, value in attrs.items()
                 if name in ("src", "href", "data-script") and not value.startswith(("#", "data:,"))]
        assert links and [link for link in links if not (page.parent / link).is_file()] == []
        assert not re.search(r"https?://|data:(image|video)", page.read_text(encoding="utf-8"))


def test_links_lead_on_whatever_names_are_chosen(outputs):
    """A set of results has the name that the user gave; what is a sign in an address must not end it."""
    (outputs / "me").rename(outputs / "a#b & 50%")
    index = website.export(outputs).index
    for page in sorted(index.parent.rglob("*.html")):
        links = [value for _, attrs in Tags(page).found for name, value in attrs.items()
                 if name in ("src", "href", "data-script") and not value.startswith(("#", "data:,"))]
        assert [link for link in links if "#" in link or not (page.parent / unquote(link)).is_file()] == []


def test_a_backslash_before_an_image_is_no_command(outputs):
    """Prose with a formula becomes the description of an image."""
    path = outputs / "me" / "notebooks" / "02_coarse_training.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells[1].source = "## A part\n\nThe weight $\\lambda$ is seen."
    nbformat.write(book, path)
    (video,) = Tags(website.export(outputs).index.parent / "me" / "02_coarse_training.html").all("video")
    assert "\\lambda" in video["aria-label"]


def test_pages_show_each_output_in_its_best_form(outputs):
    """Results of cells, not only displayed ones; live plots; nothing for a widget without a still form."""
    first = website.export(outputs).index.parent / "me" / "01_data_prep.html"
    text, tags = first.read_text(encoding="utf-8"), Tags(first)
    assert [image["alt"] for image in tags.all("img")] == 2 * ["A part. What is seen here."]
    (plot,) = [attrs for attrs in tags.all("div") if attrs.get("class") == "plot"]
    script = (first.parent / plot["data-script"]).read_text(encoding="utf-8")
    assert script.startswith(f"drawPlot('{plot['id']}',") and "</script>" not in script
    assert json.loads(script.split(",", 1)[1].rstrip(")\n"))["data"] == PLOT["data"]
    assert "Player(value" not in text and "require" not in text
    assert "at outputs/me" in text, "where the project lies on this computer is nobody's business"
    assert '<h2 id="part-1">A part</h2>' in text and 'href="#part-1"' in text
    assert 'href="02_coarse_training.html">two</a>' in text, "a link between notebooks must lead to the page"


def test_videos_become_files_that_can_be_sought_in(outputs):
    """A browser cannot seek in a data URL of many megabytes, and reads all of it before it shows anything."""
    page = website.export(outputs).index.parent / "me" / "02_coarse_training.html"
    (video,) = Tags(page).all("video")
    assert (page.parent / video["src"]).read_bytes() == CLIP
    assert {"controls", "aria-label"} <= set(video) and video["preload"] == "metadata"
    (sound,) = Tags(page).all("source")
    assert sound["src"].endswith(".wav")


def test_index_says_what_there_is(outputs):
    """Title, first sentence and run time of each notebook in order, and the video as the cover of the set."""
    index = website.export(outputs).index
    text = index.read_text(encoding="utf-8")
    assert text.index("1 · First") < text.index("2 · Second")
    assert text.count("Show a thing.") == 2 and "And more" not in text
    assert text.count("ran for 1:05 on 2026-01-02") == 2
    assert "configuration: quick_test" in text and "clip: clip.mp4" in text and "/home/x" not in text
    assert [v["src"] for v in Tags(index).all("video")] == ["me/02_coarse_training/video_01.mp4"]


def test_a_notebook_that_failed_says_so(outputs):
    """A gallery must not pass a broken run off as a finished one."""
    path = outputs / "me" / "notebooks" / "02_coarse_training.ipynb"
    book = nbformat.read(path, as_version=4)
    book.metadata.papermill.exception = True
    book.cells[-1].outputs = [nbformat.v4.new_output("error", ename="InputError", evalue="x",
                                                     traceback=["\x1b[31mInputError\x1b[0m: <x>"])]
    nbformat.write(book, path)
    index = website.export(outputs).index
    assert "stopped with an error" in index.read_text(encoding="utf-8")
    page = (index.parent / "me" / "02_coarse_training.html").read_text(encoding="utf-8")
    assert "InputError" in page and "&lt;x&gt;" in page and "\x1b" not in page


def test_without_executed_notebooks_one_line_says_what_to_do(tmp_path, capsys):
    """`make gallery` in a fresh clone; also with notebooks that were never run."""
    (tmp_path / "outputs").mkdir()
    assert cli.main(["gallery", "--outputs", str(tmp_path / "outputs")]) == 2
    said = capsys.readouterr().err
    assert "make demo" in said and said.count("\n") == 1
    executed(tmp_path / "outputs" / "me" / "notebooks" / "01_data_prep.ipynb", "1 · First")
    with pytest.raises(InputError, match="make demo"):
        website.export(tmp_path / "outputs")
    assert not (tmp_path / "outputs" / "gallery").exists()


def test_old_gallery_stays_until_the_new_one_is_complete(outputs, monkeypatch):
    """A failure in the middle leaves the old pages as they were, and no rubbish."""
    made = website.export(outputs)
    before = {p: p.read_bytes() for p in made.index.parent.rglob("*") if p.is_file()}
    with monkeypatch.context() as broken:
        broken.setattr(website, "_index", lambda sets: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            website.export(outputs)
    assert {p: p.read_bytes() for p in made.index.parent.rglob("*") if p.is_file()} == before
    shutil.rmtree(outputs / "me" / "notebooks")
    executed(outputs / "other" / "notebooks" / "06_custom_audio_rendering.ipynb", "6 · Last", shown({"image/png": PNG}))
    website.export(outputs)
    assert not (made.index.parent / "me").exists(), "a page of a notebook that is gone"
    assert sorted(p.name for p in outputs.iterdir()) == ["gallery", "me", "other"]


def test_the_cover_is_the_talking_video(outputs):
    """Neither the short excerpt before it in notebook 06 nor the cut of notebook 07."""
    def player(content: bytes) -> nbformat.NotebookNode:
        return shown({"text/html": f'<video src="data:video/mp4;base64,{base64.b64encode(content).decode()}"></video>'})

    folder = outputs / "me" / "notebooks"
    executed(folder / "06_custom_audio_rendering.ipynb", "6 · Render",
             player(CLIP[:99]), player(CLIP), player(CLIP[:9]))
    executed(folder / "07_live_and_export.ipynb", "7 · Export", player(CLIP + b"x"))
    index = website.export(outputs).index
    (cover,) = Tags(index).all("video")
    assert cover["src"].startswith("me/06_custom_audio_rendering/")
    assert (index.parent / cover["src"]).read_bytes() == CLIP


def test_only_a_gallery_is_replaced(outputs):
    """`--out` with a folder of the user's own must not cost them anything."""
    precious = outputs.parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="something else"):
        website.export(outputs, precious)
    assert (precious / "thesis.txt").read_text() == "x"


def test_a_gallery_with_foreign_files_is_not_replaced(outputs):
    """Notes that somebody keeps beside the pages must not go with the old gallery; what a file manager left may."""
    root = website.export(outputs).index.parent
    (root / ".DS_Store").touch()
    website.export(outputs)
    (root / "me" / "notes.html").write_text("mine")
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="notes.html"):
        website.export(outputs)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("odd", [[], "x", {"duration": "long", "start_time": 5, "parameters": [1]},
                                 {"duration": -1.0, "parameters": {"video": None, "size": [1]}}])
def test_odd_notes_of_papermill_are_left_out(outputs, odd):
    """Other programs write into the metadata of notebooks too."""
    path = outputs / "me" / "notebooks" / "01_data_prep.ipynb"
    book = json.loads(path.read_text())
    book["metadata"]["papermill"] = odd
    path.write_text(json.dumps(book))
    assert "run time unknown" in website.export(outputs).index.read_text(encoding="utf-8")


def test_notebooks_of_earlier_formats_are_shown(outputs):
    """Format 3 had worksheets."""
    cell = {"cell_type": "code", "input": "1", "language": "python", "metadata": {}, "prompt_number": 1,
            "collapsed": False, "outputs": [{"output_type": "pyout", "text": "seen", "prompt_number": 1,
                                             "metadata": {}}]}
    path = outputs / "me" / "notebooks" / "old.ipynb"
    path.write_text(json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""},
                                "worksheets": [{"cells": [cell], "metadata": {}}]}))
    assert "seen" in (website.export(outputs).index.parent / "me" / "old.html").read_text(encoding="utf-8")


def test_a_damaged_notebook_is_named(outputs):
    """Cut off by a full disk, for instance."""
    (outputs / "me" / "notebooks" / "01_data_prep.ipynb").write_text("{")
    with pytest.raises(InputError, match="01_data_prep"):
        website.export(outputs)


def test_make_gallery_sets_up_first():
    """Like the other targets: on a fresh clone it must not fail for a missing environment."""
    planned = subprocess.run(["make", "-n", "gallery"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"egs gallery$", planned, re.MULTILINE)
    assert re.search(r"^gallery: \$\(STAMP\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_a_notebook_that_failed_keeps_its_title(outputs):
    """Papermill puts a note before everything else."""
    path = outputs / "me" / "notebooks" / "01_data_prep.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells.insert(0, nbformat.v4.new_markdown_cell('<span style="color:red">An Exception was encountered</span>',
                                                       metadata={"tags": ["papermill-error-cell-tag"]}))
    nbformat.write(book, path)
    index = website.export(outputs).index.read_text()
    assert ">1 · First</a>" in index and "An Exception" not in index


def test_a_sweep_has_its_report_and_the_notebooks_of_its_runs(outputs):
    """Each run executed the same notebook; pages must not replace each other, and the report comes first."""
    for run in ("clip-quick_test-seed0-1a", "clip-quick_test-seed1-2b"):
        executed(outputs / "grid" / "runs" / run / "notebooks" / "08_train_and_score.ipynb", "8 · Train",
                 shown({"image/png": PNG, "text/plain": f"of {run}"}))
    executed(outputs / "grid" / "notebooks" / "09_sweep.ipynb", "9 · Sweeps", shown({"image/png": PNG}))
    gallery = website.export(outputs)
    folder = gallery.index.parent / "grid"
    pages = [page.name for page in sorted(folder.glob("*.html"))]
    assert pages == ["09_sweep.html", "clip-quick_test-seed0-1a-08_train_and_score.html",
                     "clip-quick_test-seed1-2b-08_train_and_score.html"] and gallery.pages == 5
    card = gallery.index.read_text().split("<h2>grid</h2>")[1].split("</section>")[0]
    assert re.findall(r'href="grid/([^"]+)"', card) == pages and "clip-quick_test-seed1-2b · 8 · Train" in card
    follows = Tags(folder / pages[0]).all("a")[1]["href"]
    assert follows == pages[1] and Tags(folder / pages[1]).all("img")[0]["src"].startswith(pages[1][:-5])
