"""Solutions of exercises, run as a reader would run them: in a cell of the notebook, with the names that it has."""
from __future__ import annotations

import ast
from typing import Any

from egstalker_nb.notebook.exercises import Exercise


def solved(exercise: Exercise, **names: Any) -> Any:
    """The value of the last expression of its solution; `names`: what the notebook's cells have defined."""
    *before, last = ast.parse(exercise.solution).body
    assert isinstance(last, ast.Expr), "the last line shows the answer"
    exec(compile(ast.Module(before, []), "solution", "exec"), names)
    return eval(compile(ast.Expression(last.value), "solution", "eval"), names)
