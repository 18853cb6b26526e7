"""How notebooks are committed and built: small diffs, nothing of a machine in them, and the same shape for a class."""
import ast
import json
import re

import nbformat
import pytest

import egstalker_nb as egs
from egstalker_nb import notebook
from egstalker_nb.scheduling import runner

MAX_LINES = 20     # of a code cell
MAX_IN_A_ROW = 3   # code cells without prose between them
MAX_LINES_BY_HAND = 14
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}
HEADER = (r"\*\*What it shows\.\*\*", r"\*\*Inputs\.\*\*", r"\*\*Outputs\.\*\*", r"\*\*Run time\.\*\*")
ABSOLUTE = re.compile(r"(?<![\w.*~/])/(?:home|root|tmp|work|usr|mnt|opt|var|Users|content|kaggle)/|\b[A-Z]:\\|file://")
each_notebook = pytest.mark.parametrize("name", (*runner.NOTEBOOKS, *runner.SWEEP_NOTEBOOKS))
#: those that people read and work through; a run of a sweep executes 08, and nobody watches
TAUGHT = (*runner.NOTEBOOKS, runner.SWEEP_NOTEBOOKS[-1])
each_taught = pytest.mark.parametrize("name", TAUGHT)


def text_of(name: str) -> str:
    return (runner.NOTEBOOK_DIR / f"{name}.ipynb").read_text(encoding="utf-8")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.reads(text_of(name), as_version=nbformat.NO_CONVERT)


def code_cells(name: str) -> list:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def calls(source: str) -> list[str]:
    """What a cell calls, as written."""
    return [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def section(name: str, heading: str) -> list:
    """The cells from a heading to the next one of its level."""
    cells = read(name).cells
    starts = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and cell.source.startswith("## ")]
    (first,) = [i for i in starts if cells[i].source.splitlines()[0] == f"## {heading}"]
    return cells[first:next((i for i in starts if i > first), len(cells))]


@each_notebook
def test_file_is_as_nbformat_writes_it(name):
    """Another order of keys or another indent turns a changed word into a diff of the whole file."""
    nb = read(name)
    assert (nb.nbformat, nb.nbformat_minor) == (4, 5)
    assert text_of(name) == nbformat.writes(nb) + "\n"


@each_notebook
def test_metadata_say_nothing_of_a_machine(name):
    """Versions, widget state, Papermill's times and the state of an editor differ on every computer."""
    nb = read(name)
    assert nb.metadata == METADATA
    assert [cell.metadata for cell in nb.cells if cell.metadata not in ({}, {"tags": ["parameters"]})] == []


@each_notebook
def test_cells_have_ids_of_their_own(name):
    """Tools that merge and review notebooks tell cells apart by them."""
    ids = [cell["id"] for cell in json.loads(text_of(name))["cells"]]  # nbformat would repair them
    assert len(set(ids)) == len(ids)
    assert [i for i in ids if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", i)] == []


@each_notebook
def test_no_absolute_paths(name):
    """They lead nowhere on another computer."""
    assert [match[0] for cell in read(name).cells for match in ABSOLUTE.finditer(cell.source)] == []


@each_notebook
def test_header_says_what_to_expect(name):
    """A reader decides by the first cell: what it shows, what it takes, what comes out, how long."""
    first = read(name).cells[0]
    assert first.cell_type == "markdown" and re.match(rf"# {int(name[:2])} · \S", first.source)
    places = [match.start() if (match := re.search(part, first.source)) else None for part in HEADER]
    assert None not in places and places == sorted(places), dict(zip(HEADER, places))


@each_notebook
def test_cells_are_short_and_prose_comes_first(name):
    """A notebook is read as much as it is run."""
    cells = read(name).cells
    assert {cell.id: n for cell in cells if cell.cell_type == "code"
            and not 0 < (n := len(cell.source.splitlines())) <= MAX_LINES} == {}, "cell: lines"
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in cells)
    assert set(kinds) == {"c", "m"} and "c" * (MAX_IN_A_ROW + 1) not in kinds


@each_notebook
def test_headings_are_in_order(name):
    """One title, sections below it: what the contents of a page are made from."""
    levels = [len(match[1]) for cell in read(name).cells if cell.cell_type == "markdown"
              for match in re.finditer(r"^(#+) ", cell.source, re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:]))


@each_notebook
def test_it_draws_a_figure_itself(name):
    """The method as a figure, made by the notebook and not pasted in."""
    drawn = [call for cell in code_cells(name) for call in calls(cell.source)]
    assert any(call == "nb.plots.finish" or call.startswith("nb.diagrams.") for call in drawn)
    assert not any(cell.get("attachments") or "![" in cell.source for cell in read(name).cells)


@each_notebook
def test_it_ends_with_a_check(name):
    """Results against ranges that are stated in words before it."""
    check = section(name, "Check")
    assert check[0].source.splitlines()[2:], "what must hold, in words"
    called = [call for cell in check if cell.cell_type == "code" for call in calls(cell.source)]
    assert called.count("nb.tables.check") == 1


@each_taught
def test_it_ends_with_exercises(name):
    """After the check, three questions and one cell that verifies the answers."""
    questions, *rest = section(name, "Exercises")
    assert re.findall(r"^(\d)\. \S", questions.source, re.MULTILINE) == ["1", "2", "3"]
    (cell,) = [cell for cell in rest if cell.cell_type == "code"]
    assigned, verified = ast.parse(cell.source).body
    assert [target.id for target in assigned.targets] == ["answer_1", "answer_2", "answer_3"]
    assert assigned.value.value is None, "answers are the reader's"
    asked = verified.value
    assert asked.func.attr == "verify" and isinstance(asked.func.value, ast.Call)
    assert [ast.unparse(arg) for arg in asked.args] == ["answer_1", "answer_2", "answer_3"]
    assert ast.unparse(asked.func.value.func).startswith(f"nb.exercises.notebook_{name[:2]}.")
    later = [i for i, cell in enumerate(read(name).cells) if cell.source.startswith(("## Check", "## Exercises"))]
    assert len(later) == 2 and later[0] < later[1] and later[0] >= 0.75 * len(read(name).cells)


@each_notebook
def test_imports_of_the_package_are_two(name):
    """A reader learns two names, `egs` and `nb`, and not where things lie inside."""
    imports = [node for cell in code_cells(name) for node in ast.walk(ast.parse(cell.source))
               if isinstance(node, (ast.Import, ast.ImportFrom))]
    own = [ast.unparse(node) for node in imports if "egstalker_nb" in ast.unparse(node)]
    assert own == ["import egstalker_nb as egs", "from egstalker_nb import notebook as nb"]


@each_notebook
def test_every_name_of_the_package_exists(name):
    """A name that was renamed fails here, not after half an hour of running notebooks."""
    spaces = {"egs": egs, "nb": notebook}
    used = {ast.unparse(node) for cell in code_cells(name) for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in spaces}
    assert [full for full in sorted(used) if not hasattr(spaces[full.split(".")[0]], full.split(".")[1])] == []


@each_notebook
def test_the_plain_call_comes_before_the_panels(name):
    """A panel is a convenience: what it does is seen first as a call of the public interface."""
    called = [calls(cell.source) for cell in code_cells(name)]
    panels = [i for i, some in enumerate(called) if any(call.startswith("nb.widgets.") for call in some)]
    plain = [i for i, some in enumerate(called) if any(call.startswith("egs.") for call in some) and i not in panels]
    assert not panels or plain and plain[0] < panels[0]


@pytest.mark.parametrize("name", TAUGHT[1:])  # all of 00 is by hand
def test_the_heart_of_the_method_is_computed_by_hand(name):
    """Five short cells with an equation, and what they give is compared with the package."""
    cells = section(name, "By hand")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert len(code) == 5 and max(len(source.splitlines()) for source in code) <= MAX_LINES_BY_HAND
    prose = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert re.search(r"\$\$.+?\$\$", prose, re.DOTALL)


@each_taught
def test_words_are_explained(name):
    """A few words of the glossary, shown by one cell under a heading of their own."""
    cells = [cell for cell in section(name, "Words") if cell.cell_type == "code"]
    assert [calls(cell.source) for cell in cells] == [["nb.glossary.words"]]
