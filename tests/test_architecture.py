"""Protects: the rooms of the package, the direction of its imports, one meaning a name, and what completion shows."""
import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import egstalker_nb as egs

PACKAGE = Path(egs.__file__).parent
#: the allowed arrows: room -> rooms that it may import, see docs/architecture.md
ROOMS = {
    "core": set(),
    "config": {"core"},
    "media": {"core"},
    "face": {"core"},
    "speech": {"core", "media"},
    "metrics": {"core", "face"},
    "data": {"core", "media", "face"},
    "rasterizer": {"core"},
    "model": {"core", "config", "face", "speech", "data", "rasterizer"},
    "preparation": {"core", "media", "face", "speech", "metrics", "data"},
    "training": {"core", "config", "media", "face", "speech", "metrics", "data", "rasterizer", "model"},
    "rendering": {"core", "media", "face", "speech", "metrics", "data", "rasterizer", "model", "training"},
    "upstream": {"core", "config", "media", "face", "speech", "metrics", "data", "rasterizer", "model", "preparation",
                 "training"},
    "evaluation": {"core", "media", "face", "speech", "metrics", "data", "training", "rendering"},
    "analysis": {"core", "config", "media", "face", "speech", "metrics", "data", "rasterizer", "model", "training",
                 "rendering", "evaluation"},
    "viewer": {"core", "media", "face", "model", "training", "rendering"},
    "web": {"core", "media", "face", "speech", "metrics", "data", "model", "training", "rendering"},
    "live": {"core", "media", "training", "rendering"},
    "cuda_setup": {"core", "rasterizer"},
    "scheduling": {"core", "config", "media", "data", "training", "cuda_setup"},
    "notebook": {"core", "config", "media", "face", "speech", "metrics", "data", "rasterizer", "model", "preparation",
                 "training", "rendering", "evaluation", "analysis", "scheduling", "web", "live", "cuda_setup"},
    "cli": {"core", "speech", "preparation", "upstream", "rendering", "evaluation", "scheduling", "notebook",
            "viewer", "live", "cuda_setup"},
    "__main__": {"cli"},
}
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__").replace("/", "."): path
           for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"}
NAMESPACES = ("egstalker_nb", "egstalker_nb.notebook", "egstalker_nb.notebook.widgets")


def room(module: str) -> str:
    return module.split(".")[0]


def imports(module: str, at_once: bool = False) -> set[str]:
    """Modules of the package that a module imports, anywhere in it, or when it is imported itself."""
    path, found = MODULES[module], set()
    parts = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        assert not (isinstance(node, ast.Import) and any(a.name.startswith("egstalker_nb") for a in node.names)
                    and room(module) != "cli"), module
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*parts[:len(parts) - node.level + 1], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in MODULES else ".".join(base))
    return {name for name in found if name}


def test_every_module_lies_in_a_room():
    assert {room(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module):
    """From the notebooks down to core: whoever changes a room knows who depends on it."""
    wrong = {name for name in imports(module) if room(name) not in ROOMS[room(module)] | {room(module)}}
    assert wrong == set(), f"{room(module)} may import {sorted(ROOMS[room(module)])}"


def test_the_allowed_arrows_form_no_circle():
    below: dict[str, set[str]] = {}
    for name, allowed in ROOMS.items():  # in the order of the table, each room stands on those above it
        assert allowed <= set(below), name
        below[name] = allowed


def test_no_module_imports_itself_through_others():
    """Within a room, too: it would depend on which of them is imported first."""
    graph = {module: {name for name in imports(module, at_once=True) if name in MODULES} for module in MODULES}
    while leaves := [module for module, names in graph.items() if not names]:
        graph = {module: names - {*leaves} for module, names in graph.items() if module not in leaves}
    assert graph == {}


@pytest.mark.parametrize("name", sorted(name for name in ROOMS if (PACKAGE / name).is_dir()))
def test_a_room_says_what_is_in_it_and_what_it_may_import(name):
    """Its docstring is where a newcomer looks first: it must not promise what the test above forbids."""
    said = importlib.import_module(f"egstalker_nb.{name}").__doc__
    assert "May import:" in said
    words = set(re.findall(r"[a-z_]+", said.split("May import:")[1]))
    if "every" not in words and ROOMS[name]:
        assert {"configuration" if r == "config" else r for r in ROOMS[name]} == words & {*ROOMS, "configuration"}


def test_a_name_has_one_meaning():
    """Of modules and classes: an import line, a traceback and a search must not leave two to choose from."""
    modules = Counter(module.split(".")[-1] for module, path in MODULES.items() if path.name != "__init__.py")
    classes = Counter(node.name for path in MODULES.values() for node in ast.walk(ast.parse(path.read_text()))
                      if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
    assert [name for name, count in (modules + classes).items() if count > 1] == []


@pytest.mark.parametrize("package", NAMESPACES)
def test_completion_and_static_checkers_see_the_public_names(package):
    """They read `dir()` and the block under TYPE_CHECKING: both must list what can be imported."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    declared = {alias.asname: (node.level, node.module, alias.name) for node in block.body for alias in node.names}
    assert set(declared) == set(module.__all__) <= set(dir(module))
    for name, (level, place, original) in declared.items():
        parent = importlib.import_module("." * level + (place or ""), package)
        if not hasattr(parent, original):
            importlib.import_module(f"{parent.__name__}.{original}")
        assert getattr(module, name) is getattr(parent, original), name
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(module, "no_such_name")  # noqa: B009


def test_importing_the_package_is_quick_and_needs_nothing_heavy():
    """The command line and the workers of preparation must not wait for torch and mediapipe."""
    code = "import egstalker_nb as egs, sys; egs.presets; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "mediapipe", "numba", "matplotlib", "librosa", "cv2"} & set(loaded)
