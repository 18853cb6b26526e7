"""Formulas of the notebooks as MathML: pages of the gallery have no script that could typeset them."""
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from egstalker_nb.notebook.gallery import website
from egstalker_nb.notebook.gallery.mathml import mathml, with_mathml
from egstalker_nb.scheduling import runner

ROOT = Path(__file__).resolve().parents[1]


def shown(formula: str, display: bool = False) -> str:
    """The text of a formula, and that it is well-formed."""
    return "".join(ElementTree.fromstring(mathml(formula, display)).itertext())


def formulas(name: str) -> list[str]:
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    found = re.findall(r"\$\$(.+?)\$\$", "\n".join(c.source for c in cells if c.cell_type == "markdown"), re.DOTALL)
    return [formula.strip() for formula in found]


@pytest.mark.parametrize("name", (*runner.NOTEBOOKS, *runner.SWEEP_NOTEBOOKS))
def test_every_formula_of_the_notebooks_is_understood(name):
    """No backslash is left: a command that the converter does not know stays as it is written."""
    for formula in formulas(name):
        assert "\\" not in shown(formula, display=True), formula


@pytest.mark.parametrize("formula, text", [(r"a_i^2", "ai2"), (r"\frac{a}{2b}", "a2b"), (r"e^{-x} < 1", "e−x<1"),
                                           (r"s \in \mathbb{R}", "s∈ℝ"), (r"\sum_i^N x", "∑iNx")])
def test_formulas(formula, text):
    assert shown(formula) == text and 'display="block"' in mathml(formula, display=True)


def test_code_and_prices_are_no_formulas():
    """Shell variables and amounts of money have dollars too."""
    text = "`$HOME` costs \\$5, and 3 $ or 4 $ more\n\n```\n$x$\n```\n"
    assert with_mathml(text) == text
    assert with_mathml("the $x$ of `$x$`") == f"the {mathml('x')} of `$x$`"


def test_pages_show_formulas_and_no_source_of_them(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# 1 · One\n\nLet $a_1 < b_1$.\n\n$$\n\\frac{a_1}{b_1}\n$$"),
             nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="$x$")], execution_count=1)]
    (tmp_path / "me" / "notebooks").mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "me" / "notebooks" / "01_data_prep.ipynb")
    page = (website.export(tmp_path).index.parent / "me" / "01_data_prep.html").read_text(encoding="utf-8")
    assert page.count("<msub>") == 4 and "<mfrac>" in page and 'display="block"' in page
    assert "$$" not in page and "$x$" in page


@pytest.mark.parametrize("name", (*runner.NOTEBOOKS, *runner.SWEEP_NOTEBOOKS))
def test_every_formula_of_the_notebooks_is_known(name):
    """One that is not would be shown as source."""
    cells = nbformat.read(runner.NOTEBOOK_DIR / f"{name}.ipynb", as_version=4).cells
    made = [math for cell in cells if cell.cell_type == "markdown"
            for math in re.findall(r"<math.*?</math>", with_mathml(cell.source))]
    for math in made:
        ElementTree.fromstring(math)
    assert [math for math in made if "\\" in math] == []
