"""Formulas of the notebooks as MathML: pages of the gallery have no script that could typeset them."""
import re
from xml.etree import ElementTree

import nbformat
import pytest

from egstalker_nb.notebook import runner
from egstalker_nb.notebook.gallery import website
from egstalker_nb.notebook.gallery.mathml import mathml, with_mathml


def shape(formula: str, display: bool = False) -> str:
    """Tags and text without attributes and rows."""
    root = ElementTree.fromstring(mathml(formula, display).replace("&#42;", "*"))

    def text(node: ElementTree.Element) -> str:
        inner = (node.text or "") + "".join(map(text, node))
        return inner if node.tag in ("mrow", "math") else f"{node.tag}({inner})"

    return text(root)


@pytest.mark.parametrize("formula, expected", [
    (r"a_i^2", "msubsup(mi(a)mi(i)mn(2))"),
    (r"\mu'", "msup(mi(μ)mo(′))"),
    (r"\frac{a}{2b}", "mfrac(mi(a)mn(2)mi(b))"),
    (r"\tfrac12 x^10", "mfrac(mn(1)mn(2))msup(mi(x)mn(1))mn(0)"),
    (r"e^{-x} < 1", "msup(mi(e)mo(−)mi(x))mo(<)mn(1)"),
    (r"\left(x\right)", "mo(()mi(x)mo())"),
    (r"s \in \mathbb{R}", "mi(s)mo(∈)mi(ℝ)"),
    (r"\text{clone if } g", "mtext(clone\u00a0if\u00a0)mi(g)"),
    (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}",
     "mo(()mtable(mtr(mtd(mi(a))mtd(mi(b)))mtr(mtd(mi(c))mtd(mi(d))))mo())"),
    (r"\unheard{x}", r"mtext(\unheard)mi(x)"),
])
def test_formulas(formula, expected):
    assert shape(formula) == expected


def test_limits_stand_below_and_above_a_sum_of_its_own():
    assert shape(r"\sum_i^N x") == "msubsup(mo(∑)mi(i)mi(N))mi(x)"
    assert shape(r"\sum_i^N x", display=True) == "munderover(mo(∑)mi(i)mi(N))mi(x)"


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
    assert mathml("a_1 < b_1") in page and mathml(r"\frac{a_1}{b_1}", display=True) in page
    assert "$$" not in page and "$x$" in page


@pytest.mark.parametrize("name", runner.NOTEBOOKS)
def test_every_formula_of_the_notebooks_is_known(name):
    """One that is not would be shown as source."""
    cells = nbformat.read(runner.NOTEBOOK_DIR / f"{name}.ipynb", as_version=4).cells
    made = [math for cell in cells if cell.cell_type == "markdown"
            for math in re.findall(r"<math.*?</math>", with_mathml(cell.source))]
    for math in made:
        ElementTree.fromstring(math)
    assert [math for math in made if "\\" in math] == []
