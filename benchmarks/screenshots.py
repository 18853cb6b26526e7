"""README's screenshots of the live notebooks: `python benchmarks/screenshots.py RUN RUN [RUN ...]`.

The runs are of the sample clip. Opens notebooks 01, 04 and 05 in JupyterLab in a browser (needs Chromium, see
tests/browser), operates a few controls, and saves screenshots of the panels in docs/images/. Notebook 04 shows the
first run, which must have densification steps; 05 compares all runs, the first on the left.
"""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import egstalker_nb as egs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))
from lab import Book, Lab, write_notebook  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH = 1280


def screenshot(lab: Lab, notebook: str, name: str, control: str, moves: list[tuple[str, str, int]],
               choose: dict[str, str], **values: Any) -> None:
    """Run a notebook, operate the panel that contains `control`, and save a screenshot of it."""
    with lab.open(write_notebook(notebook, lab.folder, **values), width=WIDTH) as book:
        book.run_all()
        book.show_all()
        area = book.area(book.control(control))
        for label, key, times in moves:
            book.move(book.control(label, area), key, times)
        for label, option in choose.items():
            book.control(label, area).locator("select").select_option(label=option)
        settle(book)
        area.screenshot(path=IMAGES / f"{name}.jpg", type="jpeg", quality=82)
        print(IMAGES / f"{name}.jpg", "errors:", book.errors() + book.complaints)


def settle(book: Book) -> None:
    """Wait until the page does not change any more."""
    book.wait_idle()
    book.page.evaluate("() => eyes.settled()")
    book.page.wait_for_timeout(1500)  # 3D scenes render asynchronously


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = [str(p.resolve()) for p in parser.parse_args().runs]
    os.environ.pop("MPLBACKEND", None)
    ds = egs.load_run(runs[0]).dataset
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        screenshot(lab, "01_data_prep", "lab_data", "go to", [("frame", "ArrowRight", 34)], {},
                   video=str(ROOT / "data/sample/clip.mp4"), dataset=str(ds.root), size=ds.size)
        screenshot(lab, "05_config_comparison", "lab_compare", "A (left)", [("frame", "ArrowRight", 9)], {},
                   runs=runs, dataset=str(ds.root), search=[])
        screenshot(lab, "04_densification_analysis", "lab_growth", "iteration", [], {"colour": "face region"},
                   run=runs[0])


if __name__ == "__main__":
    main()
