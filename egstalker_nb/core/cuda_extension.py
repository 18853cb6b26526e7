"""gsplat's CUDA extension, built once by `cuda_setup`: finding it and loading it without a compiler."""
from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Iterable

from .errors import InputError

FOLDER = Path(sys.prefix) / "share" / "egstalker-nb"
AGAIN = "then run `make setup` or `egs setup-gpu` again"
ON_THE_CPU = 'or work on the CPU: device="cpu", `egs ... --device cpu`, `make ... DEVICE=cpu`'
GSPLAT_MODULE = "gsplat.csrc"  # gsplat compiles its extension only if this module is missing
Capability = tuple[int, int]


def extension_file() -> Path:
    """Path of the extension for this Python, torch and gsplat; the file need not exist."""
    torch, gsplat = (importlib.metadata.version(name) for name in ("torch", "gsplat"))
    return FOLDER / f"gsplat-{gsplat}-torch-{torch}-{sys.implementation.cache_tag}.so"


def built_for() -> set[Capability]:
    """Compute capabilities that the extension was built for; empty if there is no extension."""
    file = extension_file()
    if not file.is_file():
        return set()
    try:
        return {(major, minor) for major, minor in json.loads(file.with_suffix(".json").read_text())}
    except (OSError, ValueError, TypeError):
        return set()


def load_extension() -> None:
    """Make the extension importable by gsplat; call it before any of gsplat's CUDA functions. Needs no compiler.

    Raises:
        InputError: there is none for this torch and GPU, or it cannot be loaded.
    """
    if GSPLAT_MODULE in sys.modules or shipped_with_gsplat():
        return
    import torch

    capability, built = torch.cuda.get_device_capability(), built_for()
    if capability not in built:
        raise InputError(
            f"gsplat's CUDA extension for torch {torch.__version__} and {torch.cuda.get_device_name()} "
            f"(capability {listed([capability])})",
            f"one for capability {listed(built)}" if built else f"none in '{FOLDER}'",
            f"Run `make setup` or `egs setup-gpu` once, {ON_THE_CPU}.")
    load_file(extension_file())


def load_file(file: Path) -> None:
    """Import a compiled extension under the module name that gsplat looks for.

    Raises:
        InputError: it was built for another torch.
    """
    import torch  # noqa: F401  (its shared libraries must be loaded first)

    spec = importlib.util.spec_from_file_location("gsplat_cuda", file)
    assert spec is not None and spec.loader is not None  # always given for a .so file
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise InputError("gsplat's CUDA extension as it was built", str(error),
                         f"Delete '{file}', {AGAIN}, {ON_THE_CPU}.") from error
    sys.modules[GSPLAT_MODULE] = module


def shipped_with_gsplat() -> bool:
    """Whether the installed gsplat wheel includes the extension."""
    spec = importlib.util.find_spec("gsplat")
    return spec is not None and spec.origin is not None and any(Path(spec.origin).parent.glob("csrc*.so"))


def listed(capabilities: Iterable[Capability]) -> str:
    """`{(9, 0), (8, 6)}` -> `"8.6, 9.0"`."""
    return ", ".join(f"{major}.{minor}" for major, minor in sorted(capabilities))
