"""Sweeps that tests run: notebooks that import nothing heavy, and what a training would leave behind."""
from __future__ import annotations

from pathlib import Path

import nbformat
import yaml

from egstalker_nb.scheduling.sweep import Sweep, load_sweep

PARAMETERS = 'run = ""\nnumber = 0\nplace = ""'
#: notes that it was here, as often as it is
NOTE = ("from pathlib import Path\nimport time\n"
        "with open(Path(place) / f'ran-{number}', 'a') as file:\n    file.write('x')")
#: writes the metrics of a training whose quality is its number, slowly enough to be watched
METRICS = """import json, time
Path(run).mkdir(parents=True, exist_ok=True)
for i in range(1, 41):
    with open(Path(run) / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "eval", "iteration": 10 * i, "val_psnr": 20 + number + i / 10}) + "\\n")
    time.sleep(0.15)"""


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(metadata=kernel, cells=[tagged, *map(nbformat.v4.new_code_cell, cells)])
    nbformat.write(notebook, path)
    return path


def make_sweep(folder: Path, *cells: str, numbers: list[int], **entries: object) -> Sweep:
    """A sweep of a notebook with these cells, one run for each number; opened, not run."""
    write_notebook(folder / "book.ipynb", NOTE, *cells)
    given = {"notebooks": ["book.ipynb"], "base": {"place": str(folder)}, "grid": {"number": numbers}, **entries}
    (folder / "some.yaml").write_text(yaml.safe_dump(given))
    return load_sweep(folder / "some.yaml", folder / "out")


def ran(folder: Path, number: int) -> int:
    """How often the run of a number was executed."""
    file = folder / f"ran-{number}"
    return len(file.read_text()) if file.exists() else 0


def states(sweep: Sweep) -> list[str]:
    return [row["state"] for row in sweep.rows()]
