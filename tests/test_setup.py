"""The lists of versions agree, every file of them has a hash, and the Makefile chooses a Python that works."""
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from egstalker_nb import cli

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("lock_hashes", ROOT / "tools" / "lock_hashes.py")
lock_hashes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lock_hashes)
PYTHONS = ("3.10", "3.11", "3.12")
# a GPU host brings its own torch and NumPy; `make test` always runs in an environment with this stamp
needs_make_setup = pytest.mark.skipif(not list(Path(sys.prefix).glob(".installed-*")),
                                      reason="this environment was not made by `make setup`")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct() -> list[Requirement]:
    """What the project itself asks for, with all extras."""
    table = project()
    lists = [table["dependencies"], *table["optional-dependencies"].values()]
    return [Requirement(line) for lines in lists for line in lines]


def here(requirement: Requirement, python: str | None = None) -> bool:
    """Whether a requirement counts on this computer, with this Python or the one named."""
    named = {"python_version": python, "python_full_version": f"{python}.0"} if python else {}
    return requirement.marker is None or requirement.marker.evaluate({"extra": "", **named})


def lock(python: str | None = None) -> dict[str, Requirement]:
    """Every package that `make setup` installs: those of the lock, and torch, whose version is in requirements.in."""
    torch = re.findall(r"^torch==[\d.]+", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    found = [Requirement(line) for line in [*torch, *lock_hashes.pins((ROOT / "requirements.lock").read_text())]]
    found = [requirement for requirement in found if here(requirement, python)]
    names = [canonicalize_name(r.name) for r in found]
    assert len(names) == len(set(names)), "a package stands in the lock twice"
    return dict(zip(names, found))


def version(requirement: Requirement) -> str:
    (spec,) = requirement.specifier
    assert spec.operator == "==" and "*" not in spec.version, f"{requirement} is not pinned"
    return spec.version


def test_every_locked_version_is_exact_and_holds_the_promised_ones():
    """An open range would install something else tomorrow."""
    versions = {name: version(requirement) for name, requirement in lock().items()}
    promised = {"torch": "2.13.0", "mediapipe": "0.10.21", "gsplat": "1.5.3"}
    assert {name: versions[name] for name in promised} == promised
    assert versions["numpy"].startswith("1.")


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_satisfies_pyproject(python):
    """A direct dependency missing from the lock would be missing after `make setup`, which installs without deps."""
    locked = lock(python)
    for requirement in direct():
        if here(requirement, python):
            pin = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version(pin)), f"{requirement} but locked {pin}"
            assert "python" in str(pin.marker or "python"), f"{pin} is not installed everywhere"


def test_every_locked_package_has_hashes():
    """One without makes pip refuse the whole lock; torch with hashes would shut out one of its builds."""
    text = (ROOT / "requirements.lock").read_text()
    assert "torch" not in {Requirement(line).name for line in lock_hashes.pins(text)}
    lock_hashes.check(lock_hashes.pins(text), "".join(line for line in text.splitlines(True) if line[0] != "#"))
    assert set(re.findall(r"^ +(.*?)(?: \\)?$", text, re.MULTILINE)) == set(re.findall(r"--hash=sha256:\w{64}\b", text))


def test_hashes_are_those_of_the_index_that_pip_uses(tmp_path, monkeypatch):
    """Behind a mirror too; a version that the index changes, or a file without a hash, never gets into the lock."""
    uv, source, target = tmp_path / "uv", tmp_path / "new", tmp_path / "lock"
    write_script(uv, ["#!/bin/sh", f'echo "$*" > "{tmp_path}/calls"', f'cat "$3" > "{tmp_path}/given"',
                      f'cat "{tmp_path}/answer"'])
    source.write_text("a==1 ; python_full_version >= '3.13'\nb==2\nc==3 ; sys_platform == 'win32'\ntorch==2.0\n")
    answer = f"b==2 \\\n    --hash=sha256:{64 * 'b'}\nc==3 ; sys_platform == 'win32' \\\n    --hash=sha256:{64 * 'c'}\n"
    monkeypatch.setenv("UV", str(uv))
    monkeypatch.setenv("PIP_INDEX_URL", "file:///mirror/simple")
    monkeypatch.setattr(sys, "argv", ["lock_hashes.py", str(source), str(target)])
    (tmp_path / "answer").write_text(answer)
    lock_hashes.main()
    assert (tmp_path / "given").read_text() == "b==2\nc==3 ; sys_platform == 'win32'\n"
    assert "--no-deps --generate-hashes" in (tmp_path / "calls").read_text()
    assert "--default-index file:///mirror/simple" in (tmp_path / "calls").read_text()
    assert target.read_text() == lock_hashes.HEADER + answer
    for wrong in (answer.replace("b==2", "b==3"), answer.replace("    --hash=sha256:ccc", "ccc")):
        (tmp_path / "answer").write_text(wrong)
        with pytest.raises(ValueError, match="index"):
            lock_hashes.main()
    assert target.read_text() == lock_hashes.HEADER + answer


def test_conda_environment_is_installed_like_that_of_make():
    """Conda users get the same files: the commands in the note are those of the Makefile."""
    text = (ROOT / "environment.yml").read_text()
    assert yaml.safe_load(text)["dependencies"] == ["python=3.11", "pip"]
    commands = re.findall(r"^#   pip install (.*)$", text, re.MULTILINE)
    made = re.findall(r"^\t\$\(PIP\) (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    torch = lock()["torch"]
    assert commands == [command if "grep" not in command else str(torch) for command in made]


@needs_make_setup
def test_installed_packages_ask_for_nothing_that_the_lock_lacks():
    """The lock is installed without dependency resolution: what a package needs must stand in it, at a fitting version.

    mediapipe's own list is known to be too long.
    """
    locked, problems = lock(), []
    for name in locked:
        if name in ("mediapipe", "torch"):
            continue
        for line in importlib.metadata.requires(name) or []:
            need = Requirement(line)
            if not here(need):
                continue
            have = locked.get(canonicalize_name(need.name))
            if have is None or not need.specifier.contains(version(have), prereleases=True):
                problems.append(f"{name} needs {need}, the lock has {have}")
    assert not problems, "\n".join(problems)


@needs_make_setup
def test_environment_is_the_locked_one():
    """Tests say something about the locked versions only if these are the ones that run."""
    different = []
    for name, pin in lock().items():
        installed = importlib.metadata.version(name).split("+")[0]  # torch's build name does not count
        if installed != version(pin):
            different.append(f"{name} {installed}, locked {version(pin)}")
    assert not different, "\n".join(different)


def test_no_file_names_a_package_index():
    """Where packages come from is the user's setting; a host in the lock would break everyone behind a mirror."""
    for name in ("requirements.lock", "requirements.in", "environment.yml", "Makefile", "pyproject.toml",
                 "tools/lock_hashes.py"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text), name


@pytest.fixture
def sandbox(tmp_path):
    """A folder with the set-up files, and a PATH with only what a bare machine has, its Pythons to be filled in."""
    for name in ("Makefile", "requirements.lock", "requirements.in", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("make", "sh", "cat", "cksum", "cut", "grep", "tail", "touch", "rm", "mkdir", "chmod"):
        (tools / tool).symlink_to(shutil.which(tool))
    return tmp_path


def fake_python(folder: Path, name: str, works: bool) -> None:
    """An interpreter that logs its calls, and whose venv module makes a stand-in for pip; it cannot use the GPU."""
    lines = ["#!/bin/sh", f'echo "{name} $*" >> "{folder}/calls"']
    if works:
        lines += ['[ "$2" != egstalker_nb.cuda_setup ] || { echo "GPU: no g++" >&2; exit 0; }']
        lines += [f'[ "$2" = venv ] || [ "$1" = -c ] || [ "$1" = --version ] || {{ [ ! -e "{folder}/fail" ]; exit; }}',
                  '[ "$2" = venv ] || exit 0',
                  f'rm -rf .venv; mkdir -p .venv/bin; cat "{folder}/bin/{name}" > .venv/bin/python',
                  "chmod +x .venv/bin/python"]
    else:
        lines += ["exit 127"]
    write_script(folder / "bin" / name, lines)


def write_script(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


def newer_python(folder: Path, brings: str) -> None:
    """A Python 3.13, which is refused, whose pip can install a stand-in for uv: `brings` is what that one does."""
    write_script(folder / "uv", ["#!/bin/sh", f'echo "uv $*" >> "{folder}/calls"', brings])
    write_script(folder / "bin" / "python3", [
        "#!/bin/sh", f'echo "python3 $*" >> "{folder}/calls"', '[ "$1" != -c ] || exit 1',
        'case "$*" in "-m pip install"*" --target .uv uv") mkdir -p .uv/bin && cat uv > .uv/bin/uv && '
        "chmod +x .uv/bin/uv;; *) exit 1;; esac"])


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    (folder / "calls").write_text("")
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True,
                          env={"PATH": str(folder / "bin"), "HOME": str(folder), **environment})


def installs(folder: Path) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if "pip install" in line]


def test_setup_skips_a_python_that_does_not_run_and_installs_once(sandbox):
    """A version manager's stub may be on PATH and fail; a second `make setup` has nothing to do."""
    fake_python(sandbox, "python3.11", works=False)
    fake_python(sandbox, "python3.12", works=True)
    first = make(sandbox, "setup")
    assert first.returncode == 0, first.stderr
    calls = (sandbox / "calls").read_text().splitlines()
    assert "python3.12 -m venv --clear .venv" in calls
    assert len(installs(sandbox)) == 3
    assert make(sandbox, "setup").returncode == 0
    assert (sandbox / "calls").read_text() == "python3.12 -m egstalker_nb.cuda_setup\n"  # g++ may be there now


@pytest.mark.parametrize("where", ["installed", "by pip"])
def test_uv_brings_a_python_where_none_fits(sandbox, where):
    """Debian 13 has Python 3.13 only: no wheel of mediapipe, so that setting up would end in a riddle of pip."""
    fake_python(sandbox, "managed", works=True)
    newer_python(sandbox, "mkdir -p .uv/python/bin && cat bin/managed > .uv/python/bin/python && "
                          "chmod +x .uv/python/bin/python")
    if where == "installed":
        (sandbox / "uv").rename(sandbox / "bin" / "uv")
    result = make(sandbox, "setup")
    assert result.returncode == 0, result.stderr
    calls = (sandbox / "calls").read_text()
    assert any(line.startswith("uv venv") and "--python 3.12" in line for line in calls.splitlines())
    assert ("-m pip install" in calls.split("uv venv")[0]) == (where == "by pip")
    assert "managed -m venv --clear .venv" in calls and "managed -m pip install" in calls


def test_uv_that_cannot_bring_one_says_why(sandbox):
    """Behind a firewall the error of today, with uv's reason; nothing half-made stays."""
    newer_python(sandbox, 'echo "error: Failed to download cpython-3.12: connection refused" >&2; exit 2')
    result = make(sandbox, "setup")
    assert result.returncode != 0
    line = next(line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "expected Python 3.10, 3.11 or 3.12" in line and "connection refused" in line and "PYTHON=" in line
    assert not (sandbox / ".venv").exists() and not (sandbox / ".uv").exists()


def test_gpu_that_cannot_be_used_does_not_stop_the_rest(sandbox):
    """Protects the CPU on a machine with a card but without g++: one line, and the set-up is finished."""
    fake_python(sandbox, "python3.11", works=True)
    result = make(sandbox, "setup")
    assert result.returncode == 0 and result.stderr.splitlines() == ["GPU: no g++"]


@pytest.mark.parametrize("target", ["demo", "run"])
def test_device_reaches_the_command(sandbox, target):
    """`DEVICE=cpu` is what the error about the card offers."""
    fake_python(sandbox, "python3.11", works=True)
    make(sandbox, "setup")
    write_script(sandbox / ".venv" / "bin" / "egs", ["#!/bin/sh", f'echo "egs $*" >> "{sandbox}/calls"'])
    for given, expected in (["DEVICE=cpu"], True), ([], False):
        assert make(sandbox, target, "VIDEO=clip.mp4", *given).returncode == 0
        assert ("--device=cpu" in (sandbox / "calls").read_text()) == expected


@pytest.mark.parametrize("change", ["half-finished", "requirements.lock", "requirements.in", "pyproject.toml"])
def test_setup_is_redone_when_it_must_be(sandbox, change):
    """An environment that is not complete, or not of this lock, must never be taken for ready."""
    fake_python(sandbox, "python3.11", works=True)
    if change == "half-finished":
        (sandbox / "fail").touch()
        assert make(sandbox, "setup").returncode != 0
        (sandbox / "fail").unlink()
    else:
        assert make(sandbox, "setup").returncode == 0
        file = sandbox / change
        file.write_text(file.read_text() + "# changed\n")
    assert make(sandbox, "setup").returncode == 0
    assert len(installs(sandbox)) == 3


def test_setup_says_what_is_missing(sandbox):
    """Without a usable Python the message names the versions and the way out, and nothing is created."""
    fake_python(sandbox, "python3", works=False)
    result = make(sandbox, "setup")
    assert result.returncode != 0
    assert "expected Python 3.10, 3.11 or 3.12" in result.stderr and "PYTHON=" in result.stderr
    assert not (sandbox / ".venv").exists()


def test_chosen_python_is_the_only_one_tried(sandbox):
    """PYTHON=... must not silently fall back to another interpreter."""
    fake_python(sandbox, "python3.11", works=True)
    result = make(sandbox, "setup", "PYTHON=python3.9")
    assert result.returncode != 0 and "python3.9" in result.stderr
    assert not (sandbox / ".venv").exists()


@pytest.mark.parametrize("target, needed", [("run", "VIDEO=clip.mp4"), ("sweep", "FILE=sweep.yaml")])
def test_what_is_needed_is_explained(sandbox, target, needed):
    """`make run` alone says what it needs instead of a traceback."""
    fake_python(sandbox, "python3.11", works=True)
    result = make(sandbox, target, FILE="of another program")
    assert result.returncode != 0 and needed in result.stderr


#: names that a shell, make or an option parser would take for something else
HOSTILE = ("a b.mp4", "a'b\"c.mp4", "$(touch hacked).mp4", "$(shell touch hacked)", "`touch hacked`", "a;touch hacked",
           "a\nb.mp4", "-x.mp4", "--help", "né 中.mp4", "a$$b${HOME}$@.mp4", "#a&b|c>d", "$(error stop)", "a\\")


@pytest.fixture
def installed(sandbox):
    """A sandbox after `make setup`, where `egs` and python write their arguments, each with a NUL, to `arguments`."""
    fake_python(sandbox, "python3.11", works=True)
    assert make(sandbox, "setup").returncode == 0
    record = ["#!/bin/sh", '[ "$2" != egstalker_nb.cuda_setup ] || exit 0', f'cd "{sandbox}"',
              'printf "%s\\0" "$@" > arguments']
    write_script(sandbox / ".venv" / "bin" / "egs", record)
    return sandbox


def arguments(folder: Path) -> list[str]:
    return (folder / "arguments").read_bytes().decode().split("\0")[:-1]


@pytest.mark.parametrize("where", ["command line", "environment"])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_arrive_whole_and_nothing_in_them_is_executed(installed, name, where):
    """A file from a stranger may have any name; `make` must hand it on as it is."""
    names = ("VIDEO", "AUDIO", "CONFIG", "NAME", "DEVICE") if where == "command line" else ("VIDEO", "AUDIO", "CONFIG")
    given = dict.fromkeys(names, name)
    on_line = [f"{key}={value}" for key, value in given.items()] if where == "command line" else []
    result = make(installed, "run", *on_line, **({} if on_line else given))
    assert result.returncode == 0, result.stderr
    assert not (installed / "hacked").exists()
    parsed = cli.parser().parse_args(arguments(installed))
    assert (str(parsed.video), str(parsed.audio), parsed.config) == (name, name, name)
    assert (parsed.name, parsed.device) == ((name, name) if on_line else (None, None))


def test_names_of_a_sweep_arrive_whole(installed):
    """The same for `make sweep`, whose file, folder and cluster are named by people too."""
    for name in HOSTILE:
        result = make(installed, "sweep", f"FILE={name}", f"OUT={name}", f"ADDRESS={name}")
        assert result.returncode == 0, result.stderr
        parsed = cli.parser().parse_args(arguments(installed))
        assert (str(parsed.file), parsed.out, parsed.address) == (name, name, name)
    assert not (installed / "hacked").exists()
    assert make(installed, "sweep", "FILE=a.yaml", OUT="of another program").returncode == 0
    assert arguments(installed) == ["sweep", "--", "a.yaml"]


@pytest.mark.parametrize("target, variable", [("lab", "LAB_ARGS"), ("test", "PYTEST_ARGS")])
def test_more_arguments_are_split_and_not_executed(installed, target, variable):
    """Quotes hold words together, as in a shell; a `$(...)` in them stays text."""
    write_script(installed / ".venv" / "bin" / "python", [
        "#!/bin/sh", '[ "$2" != egstalker_nb.cuda_setup ] || exit 0', f'exec "{sys.executable}" "$@"'])
    (installed / "pytest.py").write_text("import sys; print(sys.argv[1:])")
    (installed / "jupyterlab.py").write_text("import sys; print(sys.argv[1:])")
    result = make(installed, target, f"{variable}=-k 'a or b' $(touch hacked) $(shell touch hacked) `touch hacked`")
    assert result.returncode == 0, result.stderr
    assert not (installed / "hacked").exists()
    assert "'-k', 'a or b', '$(touch', 'hacked)', '$(shell', 'touch', 'hacked)', '`touch', 'hacked`']" in result.stdout


def test_lab_keeps_its_token_and_is_seen_by_this_computer_only(tmp_path, monkeypatch):
    """What `make lab` starts, as JupyterLab itself reads it: anybody who reaches its port without a token could run
    code here."""
    from jupyter_server.serverapp import ServerApp

    command = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-m jupyterlab" in line)
    arguments = command.split("-m jupyterlab", 1)[1].split()
    assert arguments == ["--ServerApp.root_dir=.", "notebooks"], "an option here may open the server to others"
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    app = ServerApp()
    app.load_config_file()
    assert app.ip == "localhost" and not app.allow_remote_access and not app.allow_root
    assert len(app.identity_provider_class(parent=app).token) >= 40


def test_ci_runs_the_tests():
    """CI must not drift from what a user runs."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint test" in script.read_text().splitlines()
