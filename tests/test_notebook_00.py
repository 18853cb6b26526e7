"""Notebook 00, run here with few and small Gaussians, and its exercises."""
from pathlib import Path

import nbformat
import pytest

from egstalker_nb.notebook.exercises.notebook_00 import gaussians_2d
from egstalker_nb.scheduling import runner


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the notebook has defined at its end."""
    names, results = {}, tmp_path_factory.mktemp("gaussians_in_2d")
    for cell in nbformat.read(runner.NOTEBOOK_DIR / "00_gaussians_in_2d.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names.update(video=str(runner.NOTEBOOK_DIR.parent / "data" / "sample" / "clip.mp4"),
                         results=str(results), edge=32, count=40, steps=40)
    return names


def test_densification_adds_half_of_the_gaussians_twice(names):
    """The numbers that its figure and its check show."""
    assert [len(stage["means"]) for stage in names["stages"].values()] == [40, 40, 60, 90]
    assert {len(values) for values in names["gaussians"].values()} == {90}


def test_a_split_gaussian_becomes_two_smaller_ones(names):
    """Of the chosen half, the large one is split and the small one is copied as it is."""
    torch = names["torch"]
    gaussians = {name: values[:4].clone() for name, values in names["gaussians"].items()}
    gaussians["scales"] = torch.tensor([[3.0, 3.0], [0.0, 0.0], [2.0, 2.0], [1.0, 1.0]])
    grown = names["densify"](gaussians, torch.tensor([9.0, 8.0, 1.0, 1.0]))
    torch.testing.assert_close(grown["scales"][[1, 5]], torch.zeros(2, 2))
    torch.testing.assert_close(grown["scales"][[0, 4]].exp() * 1.6, torch.full((2, 2), 3.0).exp())
    assert torch.equal(grown["means"][1], grown["means"][5]) and not torch.equal(grown["means"][0], grown["means"][4])
    assert torch.equal(grown["colors"][:4], gaussians["colors"]) and len(grown["means"]) == 6


def test_figures_are_saved(names):
    assert {path.stem for path in Path(names["results"], "figures").iterdir()} == {"fit", "stages", "psnr"}


def test_solutions_of_the_exercises(names):
    """The code that is offered gives the answer, with the names of the notebook."""
    exercises, given = gaussians_2d(names["gaussians"], names["psnr"]), []
    for item in exercises.items:
        *before, last = item.solution.split("\n")
        exec("\n".join(before), names)
        given.append(eval(last, names))
    assert exercises.verify(*given).verdicts == ["right"] * 3
    assert given[1] == pytest.approx(0.5 * 0.2 * 0.4) and given[2] > 0
    assert exercises.verify(3.3, 0.4, given[2] + 1).verdicts == ["wrong"] * 3
    assert exercises.verify(None, None, None).verdicts == ["open"] * 3
