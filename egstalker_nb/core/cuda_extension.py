"""gsplat's CUDA extension as `cuda_setup` left it in the environment: found, and loaded without a compiler."""
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
READY = "gsplat.csrc"  # the module that gsplat looks for before it compiles
Capability = tuple[int, int]


def extension_file() -> Path:
    """Where the extension for this Python, torch and gsplat lies in the environment; there or not."""
    torch, gsplat = (importlib.metadata.version(name) for name in ("torch", "gsplat"))
    return FOLDER / f"gsplat-{gsplat}-torch-{torch}-{sys.implementation.cache_tag}.so"


def built_for() -> set[Capability]:
    """Compute capabilities of the cards that the extension was built for; none where it is not there."""
    file = extension_file()
    if not file.is_file():
        return set()
    try:
        return {(major, minor) for major, minor in json.loads(file.with_suffix(".json").read_text())}
    except (OSError, ValueError, TypeError):
        return set()


def load_extension() -> None:
    """Let gsplat find its extension: to be called before any of its CUDA functions. Needs no compiler.

    Raises:
        InputError: there is none for this torch and card, or it cannot be loaded.
    """
    if READY in sys.modules or shipped_with_gsplat():
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
    """Import a compiled extension under the name by which gsplat looks for one.

    Raises:
        InputError: it does not fit this torch.
    """
    import torch  # noqa: F401  (its libraries must be in memory)

    spec = importlib.util.spec_from_file_location("gsplat_cuda", file)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise InputError("gsplat's CUDA extension as it was built", str(error),
                         f"Delete '{file}', {AGAIN}, {ON_THE_CPU}.") from error
    sys.modules[READY] = module


def shipped_with_gsplat() -> bool:
    """Whether the installed gsplat is one of the wheels that carry the extension."""
    spec = importlib.util.find_spec("gsplat")
    return spec is not None and any(Path(spec.origin).parent.glob("csrc*.so"))


def listed(capabilities: Iterable[Capability]) -> str:
    """`{(9, 0), (8, 6)}` -> `"8.6, 9.0"`."""
    return ", ".join(f"{major}.{minor}" for major, minor in sorted(capabilities))
