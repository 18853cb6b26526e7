"""Widgets in a real browser, with a kernel behind them and a reader's hands before them; and the driver itself."""
import json
import shutil

import nbformat
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: no browser tests")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: no browser tests")

import book as book_module  # noqa: E402
import lab as driver  # noqa: E402
from lab import NoBrowser, find_browser, write_notebook  # noqa: E402

PARTS = ["""
import time
import numpy as np, plotly.graph_objects as go
from egstalker_nb.core.progress import Progress
from egstalker_nb.notebook import plots, widgets
from egstalker_nb.notebook.widgets import base
from egstalker_nb.notebook.widgets.canvas import Canvas
""", """
dark, bright = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8)
wipe = widgets.Wipe(dark, bright, ("dark", "bright"))
wipe
""", """
class Both(widgets.Panel):
    def build(self):
        self.level, self.picture = base.slider("level", 0, 200, 100), base.image(dark)
        self.chart = Canvas(base.in_style(go.Figure([base.line([0, 1], [2, 1])]), "time in s", "loss"))
        self.level.observe(self.moved, "value")
        return base.titled("A picture and a chart", self.level, self.picture, self.chart)
    def moved(self, change):
        self.picture.value = base.encode(np.full((64, 64, 3), change.new, np.uint8))
        with self.chart.changing() as figure:
            figure.data[0].y = [change.new, 1]
    def still(self):
        return plots.image_grid([dark], ["dark"])
Both()
""", """
widgets.Plot(base.in_style(go.Figure([base.line([0, 1], [2, 1])]), "time in s", "loss"),
             lambda: plots.image_grid([dark], ["not shown"]))
""", """
done, pause = 0, globals().get("pause", 0.06)  # s of a step: slow enough to be stopped, quick ever after
def work():
    global done, pause
    wait, pause = pause, 0.01
    with Progress(200, "step", initial=done) as bar:
        for done in range(done, 200):
            time.sleep(wait)
            bar.update()
    return "worked"
job = widgets.Job(work, "counting")
job
""", """
job.result()
"""]
HEAD = """
from pathlib import Path
import numpy as np
from egstalker_nb import notebook as nb
from egstalker_nb.web.export_web import WebHead
nb.widgets.HeadPage(WebHead(Path("runs/my head.html"), 1, 1, 1, 1.0, 1.0, 1.0, np.zeros((8, 8, 3), np.uint8)))
"""


def test_missing_browser_is_explained(monkeypatch):
    """A skipped test says what would make it run."""
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    driver.find_browser.cache_clear()
    with pytest.raises(NoBrowser, match="/nowhere/chromium"):
        find_browser()
    monkeypatch.delenv("CHROMIUM")
    monkeypatch.setattr(driver.shutil, "which", lambda name: None)
    with pytest.raises(NoBrowser, match="install chromium"):
        find_browser()
    driver.find_browser.cache_clear()


def write_cells(lab, name, sources):
    """A notebook of these code cells; its name."""
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), lab.folder / name)
    return name


def test_a_lost_status_of_the_kernel_is_recovered(lab, monkeypatch):
    """The server knows an idle kernel, the page never learns of it: a reader reconnects, so the tests do."""
    monkeypatch.setattr(book_module, "DEAF", 1)
    opened = []

    def lose_the_first(socket):
        opened.append(socket)
        server = socket.connect_to_server()
        if len(opened) == 1:
            server.on_message(lambda message: None)

    with pytest.warns(UserWarning, match='reconnected to the kernel.*\n(.*\n)*.*"execution_state": "idle"'):
        with lab.open(write_cells(lab, "deaf.ipynb", ["6 * 7"]), sockets=lose_the_first) as book:
            book.run_all()
            assert book.cells()[0]["outputs"][0]["data"]["text/plain"] == "42"
    assert len(opened) > 1 and lab.kernels() == []


def test_a_wait_in_vain_says_what_the_server_thinks(lab, monkeypatch):
    with lab.open(write_cells(lab, "vain.ipynb", ["6 * 7"])) as book:
        monkeypatch.setattr(book_module, "PATIENCE", 0)
        with pytest.raises(AssertionError, match="for rain in vain") as error:
            book.wait(lambda: False, "rain")
    for part in ('"kernel":"idle"', '"connections": 1', "last_activity", "its log:", "Kernel started"):
        assert part in str(error.value)


def test_parts_of_panels_work_live(lab):
    """What every panel is made of: the widget takes precedence over its image, and buttons work while a cell waits."""
    with lab.open(write_cells(lab, "parts.ipynb", PARTS)) as book:
        book.start_all()
        stop, resume = book.button("Stop"), book.button("Resume")
        book.wait(lambda: stop.count() and stop.is_enabled(), "the work to start")
        stop.click()
        book.wait(resume.is_visible, "the work to stop")
        book.wait_idle()
        assert any("KeyboardInterrupt" in error for error in book.errors())
        resume.click()
        book.wait(book.button("Done").is_visible, "the work to end")
        book.run_all()
        assert book.errors() == [] and book.complaints == [] and book.faults() == []

        level = book.control("level")
        before = book.look(book.area(level))
        assert len(before) == 2, "a picture and a chart"
        book.move(level)
        book.wait(lambda: all(a != b for a, b in zip(before, book.look(book.area(level)))), "picture and chart")

        wipe = book.page.get_by_role("slider", name="wipe between dark and bright")
        drag(book, wipe, 0.25)
        book.wait(lambda: wipe.get_attribute("aria-valuenow") == "25", "the line to follow the mouse")
        for key, place in (("ArrowRight", "30"), ("ArrowLeft", "25"), ("Home", "0"), ("End", "100")):
            wipe.press(key)
            book.wait(lambda: wipe.get_attribute("aria-valuenow") == place, f"the line to follow {key}")  # noqa: B023
        charts = book.page.locator(".js-plotly-plot")
        book.wait(lambda: charts.count() == 2, "a Plot to show its chart, not its picture")


def test_an_exported_head_speaks_in_a_notebook(lab):
    """JupyterLab serves its file as a sandbox: drawing, workers and sound files must work in one, and a download is the
    way out of it."""
    (lab.folder / "runs").mkdir()
    exported = shutil.copy(driver.ROOT / "docs" / "sample_head.html", lab.folder / "runs" / "my head.html")
    with lab.open(write_cells(lab, "head.ipynb", [HEAD])) as book:
        book.run_all()
        frame = book.page.frame_locator("iframe[title='my head.html']")
        frame.locator("canvas").wait_for()
        frame.locator("#file").set_input_files(driver.ROOT / "data" / "sample" / "speech.wav")
        frame.get_by_text("Speaking speech.wav").wait_for()
        link = book.page.locator("a[download]")
        assert book.page.request.get(link.get_attribute("href")).body() == exported.read_bytes()
        assert book.errors() == [] and book.complaints == [] and book.faults() == []


def drag(book, wipe, share):
    """Drag a wipe's line from its middle."""
    wipe.scroll_into_view_if_needed()
    box = wipe.bounding_box()
    middle = box["y"] + box["height"] / 2
    book.page.mouse.move(box["x"] + box["width"] / 2, middle)
    book.page.mouse.down()
    book.page.mouse.move(box["x"] + share * box["width"], middle, steps=4)
    book.page.mouse.up()


def test_training_is_stopped_and_resumed_by_clicks(lab, sample_dataset, tmp_path):
    """Notebook 02 on a fresh folder: the buttons answer while its cell waits for the training to end."""
    run = tmp_path / "run"
    values = {"dataset": str(sample_dataset.root), "run": str(run), "config": "quick_test",
              "overrides": {"coarse_iterations": 200, "iterations": 220}}
    with lab.open(write_notebook("02_coarse_training", lab.folder, **values)) as book:
        book.start_all()
        stop, resume = book.button("Stop"), book.button("Resume")
        book.wait(lambda: stop.count() and stop.is_enabled() and metrics(run), "the training to start")
        stop.click()
        book.wait(resume.is_visible, "the training to stop")
        book.wait_idle()
        assert any("KeyboardInterrupt" in error for error in book.errors()), "the waiting cell goes on"
        before, done = book.look(book.area(resume)), book.button("Done")
        resume.click()
        book.wait(done.is_visible, "the training to end")
        book.wait(lambda: book.look(book.area(done)) != before, "the chart to change")
        assert [row["iteration"] for row in metrics(run)][-1] == 200
        assert book.complaints == []


def metrics(run):
    """The rows of a run's metrics so far."""
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
