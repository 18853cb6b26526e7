"""Headless runs and the command line, with tiny notebooks in place of the real ones."""
import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from egstalker_nb import cli
from egstalker_nb.cli.options import parse_settings
from egstalker_nb.core.errors import ConfigError, InputError
from egstalker_nb.scheduling import execute, runner

PARAMETERS = {
    "first": 'video = ""\ndataset = ""\nsize = 512',
    "second": 'run = ""\nconfig = ""\noverrides = {}\nruns = []\nout = ""',
}

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample" / "clip.mp4"


def write_notebook(folder: Path, name: str, parameters: str, *cells: str) -> None:
    nb = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3",
                                                           "language": "python"}})
    nb.cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
                *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(nb, folder / f"{name}.ipynb")


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A working folder with a clip and two notebooks that append what they were given to log.jsonl."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE, tmp_path / "clip one.mp4")
    (tmp_path / "nb").mkdir()
    log = str(tmp_path / "log.jsonl")
    for name, code in PARAMETERS.items():
        names = [line.split(" = ")[0] for line in code.splitlines()]
        record = "{" + ", ".join(f'"{n}": {n}' for n in names) + "}"
        write_notebook(tmp_path / "nb", name, code, (
            f"import json, sys\nprint('hello from {name}')\n"
            f"with open({log!r}, 'a') as f:\n    print(json.dumps([{name!r}, {record}, sys.executable]), file=f)"))
    return tmp_path


def run(folder: Path, **changes):
    arguments = {"notebooks": ("first", "second"), "notebook_dir": folder / "nb", **changes}
    return runner.run_notebooks(folder / "clip one.mp4", "quick_test", **arguments)


def logged(folder: Path) -> list:
    file = folder / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
def test_notebooks_run_in_order_with_their_parameters_in_this_python(made_up, monkeypatch, capsys):
    """Each notebook gets the parameters it declares and no others, in a kernel of the Python that called."""
    decoy = made_up / "jupyter" / "kernels" / "python3"
    decoy.mkdir(parents=True)
    (decoy / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "decoy", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(made_up / "jupyter"))
    result = run(made_up, size=256, overrides={"iterations": 200})
    (first, given_first, python), (second, given_second, _) = logged(made_up)
    out = made_up / "outputs" / "clip_one"
    assert (first, second) == ("first", "second")
    assert Path(python) == Path(sys.executable)
    assert given_first == {"video": str(made_up / "clip one.mp4"), "dataset": str(made_up / "data" / "clip_one"),
                           "size": 256}
    assert given_second == {"run": str(out / "runs" / "quick_test"), "config": "quick_test",
                            "overrides": {"iterations": 200}, "runs": [str(out / "runs" / "quick_test")],
                            "out": str(out / "quick_test_audio.mp4")}
    assert result == out / "quick_test_audio.mp4"
    assert sorted(p.name for p in (out / "notebooks").iterdir()) == ["first.ipynb", "second.ipynb"]
    assert os.environ["JUPYTER_PATH"] == str(made_up / "jupyter")
    printed = capsys.readouterr().out
    shown = ["[1/2] first", "hello from first", "[2/2] second", "hello from second", "total time", "peak memory"]
    assert [text for text in shown if text not in printed] == []
    assert [printed.index(text) for text in shown] == sorted(printed.index(text) for text in shown)


def test_earlier_runs_are_compared_too(made_up):
    """Training the same clip with a second configuration must show up in the comparison notebook."""
    earlier = made_up / "outputs" / "me" / "runs" / "production"
    earlier.mkdir(parents=True)
    (earlier / "config.yaml").touch()
    (earlier.parent / "unfinished").mkdir()
    run(made_up, name="me", notebooks=("second",))
    assert logged(made_up)[0][1]["runs"] == [str(earlier.with_name("quick_test")), str(earlier)]


def test_a_notebook_may_take_nothing_of_the_run(made_up):
    """The first one fits an image, and knows neither clip nor dataset nor run."""
    write_notebook(made_up / "nb", "first", "edge = 64  # px", "assert edge == 64")
    run(made_up, notebooks=("first", "second"))
    saved = nbformat.read(made_up / "outputs" / "clip_one" / "notebooks" / "first.ipynb", as_version=4)
    assert saved.metadata.papermill.parameters == {} and [name for name, *_ in logged(made_up)] == ["second"]


def test_failing_cell_is_named_and_the_notebook_saved(made_up, capsys):
    """A user must learn which notebook, which cell and why, and find the traceback; later notebooks must not run."""
    write_notebook(made_up / "nb", "first", PARAMETERS["first"], "print('before')",
                   "# a comment\nvalue = 1\nraise ValueError('the plug is out')")
    with pytest.raises(execute.NotebookError) as caught:
        run(made_up)
    saved = made_up / "outputs" / "clip_one" / "notebooks" / "first.ipynb"
    message = str(caught.value)
    assert "notebook first" in message and "cell [4] `value = 1`" in message
    assert "ValueError: the plug is out" in message and str(saved) in message
    cells = [c for c in nbformat.read(saved, as_version=4).cells if c.cell_type == "code"]
    assert cells[-1].outputs[-1].ename == "ValueError" and cells[-2].outputs[0].text == "before\n"
    assert logged(made_up) == []


def test_dead_kernel_is_named_and_the_notebook_saved(made_up):
    """A kernel that the system kills (out of memory) leaves no traceback; the message must still name the cell."""
    write_notebook(made_up / "nb", "first", PARAMETERS["first"], "print('before')", "import os\nos._exit(9)")
    with pytest.raises(execute.NotebookError, match=r"notebook first .*kernel died in cell \[4\] `import os`"):
        run(made_up)
    assert (made_up / "outputs" / "clip_one" / "notebooks" / "first.ipynb").is_file()


@pytest.mark.parametrize("changes, error, hint", [
    ({"sizes": 256}, InputError, r"size.*found sizes"),
    ({"notebooks": ("first", "third")}, InputError, "third.ipynb"),
    ({"audio": "absent.wav"}, InputError, "absent.wav"),
    ({"audio": __file__}, InputError, "FFmpeg can read"),
    ({"name": "../elsewhere"}, InputError, "Leave out slashes"),
    ({"overrides": {"iteration": 5}}, ConfigError, "iteration"),
    ({"size": "large"}, InputError, "size of type int, as notebook typed declares it; found 'large', which is str"),
    ({"size": True}, InputError, "found True"),
    ({"track": "1"}, InputError, r"track of type Optional\[int\]"),
    ({"overrides": []}, InputError, "overrides of type dict"),
])
def test_mistakes_are_found_before_anything_starts(made_up, changes, error, hint):
    """Half an hour of preparation must not precede the news of a misspelt parameter."""
    write_notebook(made_up / "nb", "typed", "size: int = 512  # px\ntrack: Optional[int] = None  # number\n"
                   "overrides: dict = {}  # settings")
    changes = {"notebooks": ("first", "second", "typed"), **changes}
    with pytest.raises(error, match=hint):
        run(made_up, **changes)
    assert logged(made_up) == [] and not (made_up / "outputs").exists()


@pytest.mark.parametrize("content", ["{", "[1]", '{"nbformat": 4}', ""])
def test_a_damaged_notebook_is_found_before_anything_starts(made_up, content):
    """A notebook that a user edited by hand, or that a sync program cut off."""
    (made_up / "nb" / "second.ipynb").write_text(content)
    with pytest.raises(InputError, match="second.ipynb"):
        run(made_up)
    assert logged(made_up) == [] and not (made_up / "outputs").exists()


def test_braces_in_a_path_are_no_parameters(made_up):
    """Papermill would put values into `{size}`, and refuse `{`."""
    folder = made_up / "a{size}{"
    folder.mkdir()
    shutil.copytree(made_up / "nb", folder / "nb")
    run(made_up, notebooks=("first",), notebook_dir=folder / "nb", out=folder / "out", size=64)
    assert (folder / "out" / "notebooks" / "first.ipynb").is_file() and logged(made_up)[0][1]["size"] == 64


def test_missing_video_is_found_before_anything_starts(made_up):
    """The most common mistake of all."""
    (made_up / "clip one.mp4").unlink()
    with pytest.raises(InputError, match="a video at .*clip one.mp4.*no such file"):
        run(made_up)
    assert not (made_up / "outputs").exists()


def test_progress_line_of_the_kernel_is_shown(made_up, monkeypatch, capsys):
    """The kernels' bars are display updates that Papermill does not print: they come through a file."""
    monkeypatch.setattr(runner, "LOG_SECONDS", 0.0)
    write_notebook(made_up / "nb", "first", PARAMETERS["first"], "import time",
                   "from egstalker_nb.core.progress import progress\n"
                   "for _ in progress(range(3), 'counting sheep'):\n    time.sleep(0.6)")
    run(made_up, notebooks=("first",))
    assert "      counting sheep" in capsys.readouterr().out


@pytest.mark.slow
def test_peak_memory_counts_the_kernels(made_up, capsys):
    """Notebooks work in other processes: measuring only this one would report a fraction."""
    def peak() -> float:
        run(made_up, notebooks=("first",))
        line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("peak memory"))
        return float(line.split()[2])

    before = peak()
    write_notebook(made_up / "nb", "first", PARAMETERS["first"],
                   "import time\nblock = b'x' * (300 << 20)\ntime.sleep(1.5)")
    assert 250 < peak() - before < 450


def test_command_line_prints_one_line_for_a_users_mistake(tmp_path, capsys):
    """No traceback for what a user can mend, and a status that scripts can test."""
    assert cli.main(["run", str(tmp_path / "absent.mp4"), "--config", "quick_test"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: expected a video at") and printed.err.count("\n") == 1


def test_command_line_lets_other_errors_through(monkeypatch, tmp_path):
    """A defect of the program must stay visible as one."""
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(runner, "run_notebooks", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", str(tmp_path / "clip.mp4")])


def test_command_line_settings():
    """Numbers, lists and words arrive as such; nothing is evaluated."""
    given = ["iterations=200", "lr=1.0e-3", "flag=true", "name=quick", "grid=[64, 128]", "code=__import__('os')"]
    assert parse_settings(given) == {"iterations": 200, "lr": 1.0e-3, "flag": True, "name": "quick",
                                         "grid": [64, 128], "code": "__import__('os')"}
    for wrong in ("iterations", "=3", "a=[1"):
        with pytest.raises(ConfigError):
            parse_settings([wrong])


@pytest.mark.parametrize("command", ["prepare", "train", "render", "evaluate", "trim", "run"])
def test_command_line_help(command, capsys):
    """Every subcommand explains itself."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: egs {command}" in capsys.readouterr().out
