"""Protects: a notebook whose kernel is killed or restarted while it trains goes on when it is run again, and ends bit
for bit like an undisturbed run."""
import re
import time

import nbformat
import pytest
from jupyter_client.manager import KernelManager

import egstalker_nb as egs
from egstalker_nb.scheduling import runner
from egstalker_nb.scheduling.execute import NotebookError

from . import harness, works

NOTEBOOK = "02_coarse_training"
#: the notebook's first training cell takes 20 iterations; its panel the others, of which `FAULT` is one
LAST, FAULT = 28, 25
SETTINGS = {**works.TINY, "coarse_iterations": LAST, "iterations": LAST + 2}
#: what is kept of the notebook: all that training needs
KEPT = "import egstalker_nb as egs", "egs.load_dataset(", "egs.train(", "widgets.TrainingPanel(", "panel.result()"
#: as in the harness, and with a fault
PREPARED = """
from pathlib import Path
import os, signal, time
from egstalker_nb.training import trainer
torch.set_num_threads(1)
fit_torso = trainer.fit_torso
trainer.fit_torso = lambda ds, frames, steps, seed: fit_torso(ds, frames, 3, seed=seed)
real = trainer.Trainer.train_iteration

def train_iteration(self):
    real(self)
    if self.iteration >= {fault} and not Path({marker!r}).exists():
        {what}

trainer.Trainer.train_iteration = train_iteration
"""


@pytest.fixture(scope="module")
def whole(tiny_dataset, tmp_path_factory):
    """A run of the same settings without a notebook."""
    folder = tmp_path_factory.mktemp("whole")
    harness.succeed(works.train, folder, tiny_dataset.root, SETTINGS, log=folder / "log")
    return harness.state(folder / "run")


def training_notebook() -> nbformat.NotebookNode:
    """The notebook with nothing but what training needs."""
    notebook = nbformat.read(runner.NOTEBOOK_DIR / f"{NOTEBOOK}.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code" and (
        "parameters" in cell.metadata.get("tags", []) or any(text in cell.source for text in KEPT))]
    assert len(notebook.cells) == len(KEPT) + 1, "the notebook trains in other cells now"
    return notebook


def check_run(root, whole) -> None:
    """All checkpoints and snapshots are those of the undisturbed run, but that of a stop."""
    found = {name: digest for name, digest in harness.state(root).items()
             if re.match("checkpoints|snapshots", name) and f"iteration_{FAULT}" not in name}
    assert f"checkpoints/iteration_{LAST}/trainer.pt" in found
    assert [name for name in found if whole.get(name) != found[name]] == []
    assert not harness.leftovers(root)


def test_a_kernel_that_is_killed_under_papermill(whole, tiny_dataset, sample_clip, tmp_path, capsys):
    """As by a system that runs out of memory; the same command goes on."""
    what = f"Path({str(tmp_path / 'killed')!r}).touch(); os.kill(os.getpid(), signal.SIGKILL)"
    notebook = training_notebook()
    prepared = PREPARED.format(fault=FAULT, marker=str(tmp_path / "killed"), what=what)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(prepared))
    nbformat.write(notebook, tmp_path / f"{NOTEBOOK}.ipynb")

    def run():
        runner.run_notebooks(sample_clip, "production", name="x", notebooks=(NOTEBOOK,), out=tmp_path / "out",
                             dataset=tiny_dataset.root, notebook_dir=tmp_path, device="cpu", overrides=SETTINGS)

    with pytest.raises(NotebookError, match=r"kernel died in cell.*(TrainingPanel|panel)"):
        run()
    root = tmp_path / "out" / "runs" / "production"
    assert egs.load_run(root).iterations[-1] == FAULT // 4 * 4, "checkpoints are written every 4 iterations"
    run()
    check_run(root, whole)


def test_a_kernel_that_is_restarted(whole, tiny_dataset, tmp_path):
    """From the menu of JupyterLab, while the panel trains in its thread: it stops in order and keeps its work."""
    root, marker = tmp_path / "run", tmp_path / "restarted"
    cells = [cell.source for cell in training_notebook().cells]
    cells.insert(1, PREPARED.format(fault=FAULT, marker=str(marker), what="time.sleep(0.2)"))
    cells.insert(3, f"dataset, run, config, overrides = {str(tiny_dataset.root)!r}, {str(root)!r}, 'production', "
                    f"{SETTINGS!r}")
    manager = KernelManager()
    manager.start_kernel()
    try:
        execute(manager, *cells[:-1], "panel.start()")
        deadline = time.monotonic() + 120
        while not any(row["iteration"] >= FAULT - 1 for row in egs.load_run(root).metrics("checkpoint")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        manager.restart_kernel()
        kept = egs.load_run(root).iterations
        assert kept[-1] >= FAULT - 1 and kept[-1] < LAST
        marker.touch()
        execute(manager, *cells)
    finally:
        manager.shutdown_kernel(now=True)
    check_run(root, whole)


def execute(manager: KernelManager, *cells: str) -> None:
    """Execute cells, which must succeed."""
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(60)
        for cell in cells:
            reply = client.execute_interactive(cell, timeout=120, output_hook=lambda message: None)["content"]
            assert reply["status"] == "ok", "\n".join(reply.get("traceback", []))
    finally:
        client.stop_channels()


