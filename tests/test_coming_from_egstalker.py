"""Protects docs/coming_from_egstalker.md: what it tells people to type exists, with these options and parameters."""
import ast
import inspect
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.upstream.setting_verdicts import ABSENT, KEPT, RENAMED

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "coming_from_egstalker.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", TEXT) + re.findall(r"^(?:docker run .* )?(?=egs )(.*)$", TEXT, re.MULTILINE)
COMMANDS = sorted({code for code in CODE if re.match(r"egs [a-z-]+ ", code)})
CALLS = sorted({code for code in CODE if code.startswith("egs.")})


def test_the_page_names_commands_and_calls():
    assert len(COMMANDS) >= 12 and len(CALLS) >= 9
    assert [name for name in ("train", "render", "replay", "trim", "config", "run", "prepare")
            if not any(line.split()[1] == name for line in COMMANDS)] == []


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_is_one_that_egs_takes(line):
    cli.parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("code", CALLS)
def test_every_call_has_these_arguments(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(getattr(node.func, "value", None), "id", "") == "egs":
            signature = inspect.signature(getattr(egs, node.func.attr))
            signature.bind(*node.args, **{keyword.arg: None for keyword in node.keywords})


def parameters(number: str) -> set[str]:
    """Names in the cell tagged `parameters` of a notebook."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    (cell,) = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
               if "parameters" in cell["metadata"].get("tags", [])]
    return {node.target.id for node in ast.parse("".join(cell["source"])).body if isinstance(node, ast.AnnAssign)}


def test_notebooks_have_the_parameters():
    """Cells such as: 02, then 03: `dataset`, `run`."""
    cells = [row.split(" | ")[1] for row in TEXT.split("## Trimming")[0].splitlines() if row.startswith("| ")]
    named = [(number, name) for cell in cells for numbers, names in re.findall(
        r"(0\d(?:, then 0\d| replays them)*): ((?:`\w+`(?:, )?)+)", cell)
        for number in re.findall(r"0\d", numbers) for name in re.findall(r"\w+", names)]
    assert len(named) >= 15 and {number for number, _ in named} >= {"01", "02", "03", "06"}
    assert [(number, name) for number, name in named if name not in parameters(number)] == []


def test_settings_that_are_said_to_be_kept_or_taken_over_are():
    rows = dict(re.findall(r"^\| (`.*?) \| (.*) \|$", TEXT.split("## Settings")[1].split("## What")[0], re.MULTILINE))
    ours = egs.load_config("production").to_dict()
    for names, here in rows.items():
        for name in re.findall(r"`([a-z_]+)`", names):
            known = [field for field in (*ours, *ABSENT, *RENAMED, "kplanes_config", "multires")
                     if field.startswith(name)]
            assert known, name
            if here.startswith("taken over"):
                assert not set(known) & set(KEPT) and set(known) & set(ours), name
            if here.startswith(("ours are kept", "ours is kept")):
                assert set(known) <= set(KEPT), name


def test_the_recipe_for_trimming_goes_wrong_as_the_page_says(tmp_path):
    """And `trim` refuses those files, and counts frames where they belong together."""
    assert int(7999 * 10 / 290.9) == 274 == 10.96 * 25
    assert int(7999 * 5 / 290.9) == 137 and 5 * 25 == 125 and int(290.9 * 25) == 7272 == int(7999 * 10 / 11 + 0.5)
    import soundfile

    np.save(tmp_path / "a.npy", np.zeros((275, 16, 29), np.float32))
    for seconds, name in ((10, "part.wav"), (11, "whole.wav")):
        soundfile.write(tmp_path / name, np.full(16_000 * seconds, 0.1), 16_000)
    with pytest.raises(egs.EgsError, match="250 frames of features.*275 frames"):
        egs.trim(tmp_path / "part.wav", tmp_path / "a.npy", 0, 5, tmp_path / "short")
    _, features = egs.trim(tmp_path / "whole.wav", tmp_path / "a.npy", 0, 5, tmp_path / "short")
    assert len(np.load(features)) == 125
