"""The glossary: one file that tables in the notebooks are made from."""
import ast
import re

import nbformat
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.notebook import glossary
from egstalker_nb.scheduling import runner

TAUGHT = (*runner.NOTEBOOKS, runner.SWEEP_NOTEBOOKS[-1])  # people read them; 08 is executed by runs of a sweep


def asked_for() -> dict[str, list[str]]:
    """Notebook -> the words that its cells ask the glossary for."""
    found = {}
    for name in TAUGHT:
        cells = nbformat.read(runner.NOTEBOOK_DIR / f"{name}.ipynb", as_version=4).cells
        calls = [node for cell in cells if cell.cell_type == "code" for node in ast.walk(ast.parse(cell.source))
                 if isinstance(node, ast.Call) and ast.unparse(node.func) == "nb.glossary.words"]
        found[name] = [ast.literal_eval(word) for call in calls for word in call.args]
    return found


def test_entries_are_sorted_and_stand_once():
    """A reader looks words up by the alphabet; a second entry would hide the first."""
    lines = [line for line in glossary.SOURCE.read_text(encoding="utf-8").splitlines() if line.startswith("- ")]
    written = [re.match(r"- \*\*(.+?)\*\*", line)[1] for line in lines]
    assert written == list(glossary.entries()), "an entry that was not read"
    assert written == sorted(set(written), key=str.lower)
    assert len(written) >= 45


def test_entries_are_short_sentences():
    """One to three sentences, of a notebook that exists."""
    for word, (meaning, notebook) in glossary.entries().items():
        assert meaning.endswith("."), word
        assert 1 <= len(re.findall(r"[.!?](?= [A-Z`*]|$)", meaning)) <= 3, word
        assert int(notebook) in range(len(runner.NOTEBOOKS) + len(runner.SWEEP_NOTEBOOKS)), word


def test_words_in_the_order_asked_for():
    """Case does not matter; units stand in front; nothing asked means everything."""
    table = glossary.words("psnr", "alpha")
    assert [row[0] for row in table.rows] == ["PSNR", "alpha"]
    assert table.rows[0][1].startswith("(dB") and table.columns == glossary.TERM_COLUMNS
    assert len(glossary.words().rows) == len(glossary.entries())


@pytest.mark.parametrize("wrong, near", [("opaciti", "'opacity'"), ("rasterizer", "'rasteriser'"),
                                         ("qqqq", "shows all")])
def test_an_unknown_word_names_the_nearest(wrong, near):
    """A typing error in a notebook must not be a riddle."""
    with pytest.raises(InputError, match=near):
        glossary.words("alpha", wrong)


def test_search_finds_in_words_and_meanings():
    """Words first."""
    found = [row[0] for row in glossary.search("Mouth").rows]
    assert found[:3] == ["mouth coefficients", "mouth mode", "mouth space"] and "aperture" in found
    with pytest.raises(InputError, match="zeppelin"):
        glossary.search("zeppelin")


@pytest.mark.parametrize("name", TAUGHT)
def test_notebooks_ask_for_words_that_exist(name):
    """Each has a few words explained, and none that fails when the cell is run."""
    words = asked_for()[name]
    assert 6 <= len(words) <= 8 and len(set(words)) == len(words)
    glossary.words(*words)
