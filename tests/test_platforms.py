"""Protects: what can be checked of containers, Colab and other systems without having them."""
import ast
import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import egstalker_nb
from egstalker_nb import cli
from egstalker_nb.core import files
from egstalker_nb.core.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
#: what Windows lacks; macOS lacks the last
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
POSIX_NAMES = {"SIGKILL", "SIGHUP", "pthread_sigmask", "fork", "getuid", "killpg", "setsid", "sysconf", "O_NOFOLLOW",
               "O_NONBLOCK", "pread", "pwrite", "sched_getaffinity"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """(keyword, rest) of a Dockerfile, lines joined, comments left out."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def parses(command: str) -> None:
    """A command of `egs` that the real parser accepts; variables stand for one word."""
    words = [word for word in shlex.split(command) if not word.startswith(";")]
    try:
        cli.parser().parse_args(words[1:])
    except SystemExit:
        pytest.fail(f"the parser refuses: {command}")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_linted(path):
    """No engine is here to build them: the linter knows the common mistakes, shell ones too."""
    hadolint = Path(sys.executable).with_name("hadolint")
    assert hadolint.is_file()
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_what_is_there_and_install_like_make(path):
    given = instructions(path)
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for word, rest in given if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]]
    assert set(copied) == set(allowed) and all((ROOT / source).exists() for source in copied)
    made = re.findall(r"^\t\$\(PIP\) install (.*)$|^\t\$\(PIP\) (--require.*|\"\$\$.*|--no-deps.*)$",
                      (ROOT / "Makefile").read_text(), re.MULTILINE)
    wanted = [(one or other).replace("$$", "$").replace(" -e .", " .") for one, other in made]
    installs = [re.sub(r"\$\{[^}]*\} ", "", part.strip().removeprefix("pip install ")) for word, rest in given
                if word == "RUN" for part in rest.split("&&") if part.strip().startswith("pip install")]
    assert len(wanted) == 3 and installs == wanted


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_containers_run_as_a_user_with_a_healthcheck(path):
    """A notebook server as root would write root's files into the user's folder."""
    given = instructions(path)
    last = max(i for i, (word, _) in enumerate(given) if word == "FROM")
    stage = [*given[last:]]
    words = [word for word, _ in stage]
    user, = [rest for word, rest in stage if word == "USER"]
    assert int(user) > 0 and "HEALTHCHECK" in words and words.index("USER") < words.index("CMD")
    check = next(rest for word, rest in stage if word == "HEALTHCHECK")
    compile(ast.literal_eval(check[check.index("["):])[2], "healthcheck", "exec")
    command = ast.literal_eval(next(rest for word, rest in stage if word == "CMD"))[-1]
    assert "token=''" not in command and "--no-browser" in command
    for text in (command, *(rest for word, rest in given if word == "RUN")):
        for found in re.findall(r"\begs [a-z-]+[^&|]*", text):
            if "useradd" not in text:
                parses(found.replace("$CAPABILITIES", "8.0 8.6"))


def cells() -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(ROOT / "examples" / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_colab_notebook_has_code_that_parses(monkeypatch):
    """Shell cells for the shell, commands for the parser of `egs`, the others for Python."""
    assert [cell.metadata.get("tags") for cell in cells()].count(["parameters"]) == 1
    commands = []
    for cell in cells():
        assert not cell.outputs and cell.execution_count is None
        kind, _, script = cell.source.partition("\n")
        if kind != "%%bash":
            ast.parse(cell.source)
            continue
        done = subprocess.run([shutil.which("bash"), "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        joined = script.replace("\\\n", " ").replace('"$CONFIG"', "quick_test").replace('"$SIZE"', "256")
        commands += re.findall(r"env/bin/egs [a-z][^&|\n]*", joined)
    assert len(commands) >= 4
    for command in commands:
        parses(command)


def test_the_colab_notebook_installs_the_lock():
    """Colab's own NumPy is too new: everything goes into the environment, by the steps of the Makefile."""
    script = "\n".join(cell.source for cell in cells())
    assert len(re.findall(r"uv pip install [^\n]*--python env/bin/python", script)) == 3
    assert "--require-hashes --no-deps -r egstalker/requirements.lock" in script and "requirements.in" in script
    for name in re.findall(r"egstalker/([\w./]+\.(?:mp4|wav|lock|in))", script):
        assert (ROOT / name).is_file(), name


def module_level(tree: ast.AST) -> list[ast.AST]:
    """What runs when a module is imported: no bodies of functions."""
    found, todo = [], [tree]
    while todo:
        node = todo.pop()
        found.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo += list(ast.iter_child_nodes(node))
    return found


def test_no_module_needs_posix_to_be_imported():
    """The package can be imported on Windows too, where its commands then say what to do."""
    problems = []
    for path in Path(egstalker_nb.__file__).parent.rglob("*.py"):
        for node in module_level(ast.parse(path.read_text())):
            names = ([a.name for a in node.names] if isinstance(node, ast.Import) else
                     [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else [])
            problems += [f"{path.name}: {name}" for name in names if name.split(".")[0] in POSIX_MODULES]
            if isinstance(node, ast.Attribute) and node.attr in POSIX_NAMES and isinstance(node.value, ast.Name) and (
                    node.value.id in ("os", "signal")):
                problems.append(f"{path.name}: {node.value.id}.{node.attr}")
    assert not problems


def test_windows_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WINDOWS", True)
    with pytest.raises(InputError, match="WSL2"):
        files.write_text(tmp_path / "a.txt", "a")
    with pytest.raises(InputError, match="WSL2"), files.exclusive_lock(tmp_path, "training"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_platform_notes_say_what_was_tried():
    """Each row of the table says so, in the same words."""
    rows = [line for line in (ROOT / "docs" / "platforms.md").read_text().splitlines() if line.startswith("| ")][1:]
    tried = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in rows if not set(row) <= set("|- ")}
    assert len(tried) >= 7 and all(fnmatch.filter([state], "tried*") or state.startswith("not tried")
                                   for state in tried.values()), tried
