"""The three lists of versions agree, and the Makefile chooses a Python that works."""
import importlib.metadata
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

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
LOCKED_EXTRAS = ("notebooks", "gpu", "test", "sample", "asr")
# a GPU host brings its own torch and NumPy; `make test` always runs in an environment with this stamp
needs_make_setup = pytest.mark.skipif(not list(Path(sys.prefix).glob(".installed-*")),
                                      reason="this environment was not made by `make setup`")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct() -> list[Requirement]:
    """What the project itself asks for, with the extras that the lock holds."""
    table = project()
    lists = [table["dependencies"], *(table["optional-dependencies"][extra] for extra in LOCKED_EXTRAS)]
    return [Requirement(line) for lines in lists for line in lines]


def lock() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
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


def test_lock_satisfies_pyproject():
    """A direct dependency missing from the lock would be missing after `make setup`, which installs without deps."""
    locked = lock()
    for requirement in direct():
        pin = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version(pin)), f"{requirement} but locked {pin}"
        assert pin.marker is None, f"{pin} is not installed everywhere"


def test_conda_environment_has_the_locked_versions():
    """Conda users get the same direct versions, mediapipe by the extra line in the comment."""
    text = (ROOT / "environment.yml").read_text()
    *conda, pip = yaml.safe_load(text)["dependencies"]
    assert conda == ["python=3.11", "pip"]
    listed = [Requirement(line) for line in pip["pip"] if not line.startswith("--")]
    assert [line for line in pip["pip"] if line.startswith("--")] == ["--constraint requirements.lock"]
    extra_line = re.search(r"^#\s+pip install --no-deps (\S+) -e \.$", text, re.MULTILINE)
    given = {canonicalize_name(r.name): version(r) for r in [*listed, Requirement(extra_line[1])]}
    locked = {name: version(requirement) for name, requirement in lock().items()}
    assert {name: locked.get(name) for name in given} == given
    assert {canonicalize_name(r.name) for r in direct()} <= set(given)


@needs_make_setup
def test_installed_packages_ask_for_nothing_that_the_lock_lacks():
    """The lock is installed without dependency resolution: what a package needs must stand in it, at a fitting version.

    mediapipe's own list is known to be too long.
    """
    locked, problems = lock(), []
    for name, pin in locked.items():
        if name in ("mediapipe", "torch") or (pin.marker and not pin.marker.evaluate()):
            continue
        for line in importlib.metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker and not need.marker.evaluate({"extra": ""}):
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
        if pin.marker is None or pin.marker.evaluate():
            installed = importlib.metadata.version(name).split("+")[0]  # torch's build name does not count
            if installed != version(pin):
                different.append(f"{name} {installed}, locked {version(pin)}")
    assert not different, "\n".join(different)


def test_no_file_names_a_package_index():
    """Where packages come from is the user's setting; a host in the lock would break everyone behind a mirror."""
    for name in ("requirements.lock", "requirements.in", "environment.yml", "Makefile", "pyproject.toml"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text), name


@pytest.fixture
def sandbox(tmp_path):
    """A folder with the set-up files, and a PATH with only what a bare machine has, its Pythons to be filled in."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
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


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    (folder / "calls").write_text("")
    return subprocess.run(["make", *arguments], cwd=folder, env={"PATH": str(folder / "bin"), "HOME": str(folder)},
                          capture_output=True, text=True)


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
        assert ("--device cpu" in (sandbox / "calls").read_text()) == expected


@pytest.mark.parametrize("change", ["half-finished", "new lock", "new pyproject"])
def test_setup_is_redone_when_it_must_be(sandbox, change):
    """An environment that is not complete, or not of this lock, must never be taken for ready."""
    fake_python(sandbox, "python3.11", works=True)
    if change == "half-finished":
        (sandbox / "fail").touch()
        assert make(sandbox, "setup").returncode != 0
        (sandbox / "fail").unlink()
    else:
        assert make(sandbox, "setup").returncode == 0
        file = sandbox / ("requirements.lock" if change == "new lock" else "pyproject.toml")
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


def test_run_without_video_is_explained(sandbox):
    """`make run` alone says what it needs instead of a traceback."""
    fake_python(sandbox, "python3.11", works=True)
    result = make(sandbox, "run")
    assert result.returncode != 0 and "VIDEO=clip.mp4" in result.stderr


def test_ci_runs_the_tests():
    """CI must not drift from what a user runs."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint test" in script.read_text().splitlines()
