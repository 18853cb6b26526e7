"""The notebooks: how they are committed, and that all of them run headless on the sample."""
import ast

import nbformat
import numpy as np
import papermill
import pytest

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.media.video_reader import probe
from egstalker_nb.scheduling import runner

PARAMETERS = {
    "00_gaussians_in_2d": {"video", "results", "edge", "count", "steps", "seed"},
    "01_data_prep": {"video", "dataset", "size", "encoder", "features"},
    "02_coarse_training": {"dataset", "run", "config", "overrides"},
    "03_fine_training": {"dataset", "run", "config", "overrides"},
    "04_densification_analysis": {"run", "lesson_iterations"},
    "05_config_comparison": {"runs", "dataset", "search", "lesson_iterations", "ablation_iterations"},
    "06_custom_audio_rendering": {"run", "audio", "audio_features", "out", "poses", "blink", "duration"},
    "07_live_and_export": {"run", "audio", "audio_features", "poses", "blink", "duration", "sentence"},
    "08_train_and_score": {"dataset", "run", "config", "overrides"},
    "09_sweep": {"sweep", "out"},
}
each_notebook = pytest.mark.parametrize("name", (*runner.NOTEBOOKS, *runner.SWEEP_NOTEBOOKS))


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(runner.NOTEBOOK_DIR / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def parameter_cells(nb: nbformat.NotebookNode) -> list:
    return [c for c in nb.cells if "parameters" in c.metadata.get("tags", [])]


def assigned(cell: nbformat.NotebookNode) -> set:
    """Names that a cell assigns."""
    return {n.id for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def test_those_in_the_list_are_there_and_no_other():
    """A notebook outside the lists would never be run by anyone."""
    listed = [*runner.NOTEBOOKS, *runner.SWEEP_NOTEBOOKS]
    assert sorted(p.stem for p in runner.NOTEBOOK_DIR.glob("*.ipynb")) == listed == list(PARAMETERS)


@each_notebook
def test_notebook_is_valid_and_clean(name):
    """Outputs and counts make every diff unreadable and carry stale results."""
    nb = read(name)
    nbformat.validate(nb)
    code = [c for c in nb.cells if c.cell_type == "code"]
    assert [i for i, c in enumerate(code) if c.outputs] == []
    assert [i for i, c in enumerate(code) if c.execution_count is not None] == []
    assert nb.metadata.kernelspec.name == "python3"


@each_notebook
def test_parameters_are_literals_in_one_cell(name):
    """Papermill replaces this cell's values: a derived one would keep the old value."""
    (cell,) = parameter_cells(read(name))
    for node in ast.parse(cell.source).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module == "typing"  # for the annotations
            continue
        assert isinstance(node, (ast.Assign, ast.AnnAssign)), ast.unparse(node)
        ast.literal_eval(node.value)
    assert PARAMETERS[name] <= assigned(cell)


@each_notebook
def test_papermill_sees_every_parameter(name):
    """Papermill's inspection drops lines it cannot read (`=` in a comment, `int | None`), and they become unknown."""
    (cell,) = parameter_cells(read(name))
    assert set(papermill.inspect_notebook(str(runner.NOTEBOOK_DIR / f"{name}.ipynb"))) == assigned(cell)


@pytest.mark.parametrize("encoder, folder", [("logmel", False), ("model", True), (None, False)])
def test_encoder_reaches_the_notebooks(tmp_path, monkeypatch, encoder, folder):
    """A name stays a name; a model's folder is meant as seen from where the command was given."""
    monkeypatch.chdir(tmp_path)
    given = {}
    monkeypatch.setattr(runner, "run_notebooks", lambda *args, **more: given.update(more))
    if folder:
        (tmp_path / encoder).mkdir()
    assert cli.main(["run", "clip.mp4", *(["--encoder", encoder] if encoder else [])]) == 0
    assert given.get("encoder") == (str(tmp_path / encoder) if folder else encoder)
    assert "encoder" in assigned(*parameter_cells(read("01_data_prep")))


def test_all_run_headless_on_the_sample(headless):
    """From the clip to the talking video through the notebooks themselves, as `make demo` does."""
    info = probe(headless.video)
    assert (info.width, info.height, info.fps, info.has_audio) == (headless.size, headless.size, 25, True)
    assert abs(info.duration - headless.seconds) <= 0.04
    assert sorted(p.stem for p in (headless.out / "notebooks").glob("*.ipynb")) == list(runner.NOTEBOOKS)


def test_the_notebooks_ran_with_refined_poses(headless):
    """As with `production`: what they show of a head must not depend on the poses that were tracked."""
    run = egs.load_run(headless.out / "runs" / "quick_test")
    away = np.abs(run.load_head(device="cpu").w2c.numpy() - run.dataset.w2c).max((1, 2))
    assert (away > 1e-3).mean() > 0.5 and run.dataset.hash == egs.load_dataset(headless.dataset).hash


@pytest.mark.parametrize("name", runner.NOTEBOOKS)
def test_executed_notebook_is_complete(headless, name):
    """Every cell ran, without an error and without a warning that a reader would stumble over."""
    nb = nbformat.read(headless.out / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [c for c in nb.cells if c.cell_type == "code" and c.source.strip()]
    assert [c.source for c in code if c.execution_count is None] == []
    outputs = [o for c in code for o in c.outputs]
    assert any("image/png" in o.get("data", {}) for o in outputs), "a notebook without pictures"
    errors = [o.get("text", o.get("evalue")) for o in outputs if o.output_type == "error"
              or o.output_type == "stream" and o.name == "stderr" and "Warning" in o.text]
    assert errors == []
