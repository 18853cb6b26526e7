"""The notebooks in a real browser, on what the headless run made: JupyterLab, its kernels and the widgets."""
import shutil

import pytest

from egstalker_nb.scheduling.runner import NOTEBOOKS

pytest.importorskip("playwright", reason="playwright is not installed: no browser tests")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: no browser tests")

from lab import keep, write_notebook  # noqa: E402

# one slider of each notebook whose panels have one, by the name before it: images or charts in its output must change
SLIDERS = {
    "01_data_prep": "frame",
    "02_coarse_training": "snapshot",
    "03_fine_training": "snapshot",
    "04_densification_analysis": "iteration",
    "05_config_comparison": "frame",
    "06_custom_audio_rendering": "yaw",
}


@pytest.fixture(scope="module")
def workspace(lab, headless):
    """A copy of what the headless run made, for the notebooks to work on; in the folder that JupyterLab serves, as
    after `make lab`."""
    folder = lab.folder / "work"
    shutil.copytree(headless.out / "runs", folder / "out" / "runs")  # as far apart as there: runs find their dataset
    shutil.copytree(headless.dataset, folder / "dataset")
    return folder


@pytest.fixture
def values(workspace, headless, sample_clip, tmp_path):
    """The notebooks' parameters: everything is there already."""
    run = workspace / "out" / "runs" / "quick_test"
    paths = {"video": headless.clip, "dataset": workspace / "dataset", "run": run,
             "audio": sample_clip.with_name("speech.wav"), "out": tmp_path / "talk.mp4", "results": tmp_path / "2d"}
    return {key: str(path) for key, path in paths.items()} | headless.short | {
        "runs": [str(run)], "config": str(run / "config.yaml"), "size": headless.size, "duration": headless.seconds}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_in_a_browser(lab, values, name, request):
    """All cells run, the panels are there and readable in both themes, and one answers to its control."""
    folder = request.config.getoption("--screenshots")
    with lab.open(write_notebook(name, lab.folder, **values)) as book:
        book.run_all()
        faults = book.errors() + book.faults()
        book.theme("dark")
        faults += book.pale()
        book.theme("light")
        if folder:
            keep(book, folder, name)
        assert faults + book.complaints == []
        if name not in SLIDERS:
            return

        slider = book.control(SLIDERS[name])
        area = book.area(slider)
        before = book.look(area)
        book.move(slider, "ArrowLeft" if SLIDERS[name] in ("snapshot", "iteration") else "ArrowRight")  # from its end
        book.wait(lambda: book.look(area) != before, "the picture to change")
        assert book.errors() + book.complaints == []
