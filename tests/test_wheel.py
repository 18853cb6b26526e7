"""Protects: a wheel and an sdist that need no source tree, with the notebooks and the sample in them."""
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from egstalker_nb.core import kit_files
from egstalker_nb.core.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def run(folder: Path, *command: str, **environment: str) -> str:
    """What a program prints; PYTHONPATH is only what is given."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder with wheel and sdist, built from a copy of the source tree; the wheel is made from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "outputs", "tests", "benchmarks", "build", "dist",
                                     "*.egg-info", "shared")
    shutil.copytree(ROOT, folder / "source", ignore=ignored, dirs_exist_ok=True)
    run(folder / "source", "-m", "build", "--no-isolation", "--outdir", str(folder), ".")
    return folder


@pytest.fixture(scope="module")
def installed(built) -> Path:
    """A folder with the wheel's files alone, as pip installs them."""
    wheel, = built.glob("*.whl")
    run(built, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--quiet",
        "--disable-pip-version-check", "--target", str(built / "site"), str(wheel))
    return built / "site"


def test_the_wheel_has_every_file_of_the_package_and_the_notebooks(built):
    """A file that the source tree has and the wheel lacks is found by users only."""
    wheel, = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "egstalker_nb").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".nbi", ".nbc")}
    assert package <= names, package - names
    assert {f"egstalker_nb/kit/notebooks/{name}" for name in NOTEBOOKS} <= names
    assert {f"egstalker_nb/kit/data/sample/{name}" for name in kit_files.SAMPLE} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not {name for name in names if name.split("/")[0] in ("tests", "docs", "notebooks", "data")}


def test_the_sdist_is_enough_to_set_up_and_to_build_again(built):
    sdist, = built.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    assert {"LICENSE", "SECURITY.md", "Makefile", "requirements.lock", "requirements.in", "setup.py", "environment.yml",
            "pyproject.toml", *(f"notebooks/{name}" for name in NOTEBOOKS),
            *(f"data/sample/{name}" for name in kit_files.SAMPLE)} <= names


def test_an_installed_wheel_works_in_any_folder(installed, tmp_path):
    """With nothing of the source tree in sight: the commands, the presets, the notebooks."""
    said = run(tmp_path, "-c", """if True:
        import sys, pathlib
        import egstalker_nb as egs
        from egstalker_nb import cli
        from egstalker_nb.core.kit_files import NOTEBOOK_DIR
        assert NOTEBOOK_DIR.is_relative_to(sys.argv[1]), NOTEBOOK_DIR
        print(egs.__version__, egs.load_config("production").iterations)
        print(sorted(p.name for p in NOTEBOOK_DIR.glob("*.ipynb")))
        assert cli.main(["notebooks", "work"]) == 0 and "notebooks" in cli.parser().format_help()
        """, str(installed), PYTHONPATH=str(installed))
    assert said.splitlines()[0].startswith("0.") and said.splitlines()[1] == str(NOTEBOOKS)
    for name in NOTEBOOKS:
        assert (tmp_path / "work" / "notebooks" / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes()
    assert (tmp_path / "work" / "data" / "sample" / "clip.mp4").is_file()


def test_edited_notebooks_are_kept(tmp_path):
    """A second call, of a newer version for instance, brings what is missing and touches nothing else."""
    written, kept = kit_files.copy_kit(tmp_path)
    assert len(written) == len(NOTEBOOKS) + len(kit_files.SAMPLE) and not kept
    first, second = (tmp_path / "notebooks" / name for name in NOTEBOOKS[:2])
    first.write_text("mine")
    second.unlink()
    assert kit_files.copy_kit(tmp_path) == ([second], [first]) and first.read_text() == "mine"


def test_the_kit_is_not_copied_onto_itself(tmp_path):
    with pytest.raises(InputError, match="own"):
        kit_files.copy_kit(kit_files.KIT)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file"):
        kit_files.copy_kit(tmp_path / "file")
