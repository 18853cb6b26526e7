"""Choosing and checking the torch device."""
from __future__ import annotations

import contextlib
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

import torch

from .cuda_extension import ON_THE_CPU, load_extension
from .errors import InputError, MemoryLimitError, is_out_of_memory

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def default_device() -> torch.device:
    """CUDA if torch can use a GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rendering_device(device: Optional[str | torch.device] = None) -> torch.device:
    """The device to train or render on. On CUDA, gsplat's extension is loaded, so that a missing one fails early.

    Args:
        device: `cpu`, `cuda`, `cuda:1` ...; None: `default_device()`.

    Raises:
        InputError: no such device, or gsplat cannot render on it. There is no silent fallback to the CPU.
    """
    try:
        device = default_device() if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError("device as cpu or cuda", repr(device),
                         "Leave it out to use the GPU where there is one.") from error
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type != "cuda" or (device.index or 0) >= count:
        found = f"{count} GPU(s)" if count else f"none that torch {torch.__version__} can use"
        raise InputError(f"the device '{device}'", found, f"Choose another, {ON_THE_CPU}.")
    load_extension()
    return device


@contextmanager
def memory_limits(what: str, fix: str) -> Iterator[None]:
    """Turn the errors of exhausted memory, of the GPU or the computer, into a MemoryLimitError.

    Args:
        what: which needs the memory, for the message.
        fix: what the user can do.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_torch = isinstance(error, torch.cuda.OutOfMemoryError)
        if not of_torch and not is_out_of_memory(error):
            raise
        on_gpu = of_torch or "CUDA" in str(error)
        if on_gpu:
            torch.cuda.empty_cache()
        where = "GPU" if on_gpu else "computer"
        raise MemoryLimitError(f"memory for {what}", f"too little on the {where}", fix) from error


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU with its number of threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"


def available_memory() -> int:
    """Bytes of memory that this process can still take: the least that the computer, its control groups (containers,
    batch systems) and its resource limits leave; 2 ** 62 where the system does not tell."""
    return max(0, min([2 ** 62, *_of_computer(), *_of_control_groups(), *_of_limits()]))


def _of_computer() -> Iterator[int]:
    with contextlib.suppress(OSError, KeyError):
        yield _fields(PROC / "meminfo")["MemAvailable"]
        return
    with contextlib.suppress(ImportError):  # a system without /proc
        import psutil

        yield psutil.virtual_memory().available


def _of_control_groups() -> Iterator[int]:
    """What the control groups of this process leave, of version 1 and 2; each group stands within its parents."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = CGROUP / controllers
        names = (("memory.max", "memory.current", "inactive_file") if not controllers else
                 ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
        group = root / path.strip("/").replace("..", "")
        for folder in [group, *group.parents]:
            if root in (folder, *folder.parents):
                yield from _of_group(folder, *names)


def _of_group(folder: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
        left = int((folder / limit).read_text()) - int((folder / used).read_text())
        reclaimable = re.search(rf"^{cache} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        yield left + (int(reclaimable[1]) if reclaimable else 0)


def _of_limits() -> Iterator[int]:
    """What the limits of address space and data segment leave (`ulimit -v`, `ulimit -d`)."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        status = _fields(PROC / "self" / "status")
        for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
            soft = resource.getrlimit(limit)[0]
            if soft != resource.RLIM_INFINITY:
                yield soft - status.get(used, 0)


def _fields(path: Path) -> dict[str, int]:
    """Name -> bytes of the lines `Name:  123 kB` of a file in /proc."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    return {name: int(value) * 1024 for name, value in found}
