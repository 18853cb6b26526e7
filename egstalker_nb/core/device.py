"""Choosing and checking the torch device."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Optional

import torch

from .cuda_extension import ON_THE_CPU, load_extension
from .errors import InputError, MemoryLimitError


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
        on_gpu = isinstance(error, torch.cuda.OutOfMemoryError) or "CUDA" in str(error)
        exhausted = ("out of memory" in str(error) or "allocate memory" in str(error)
                     or isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)))
        if not exhausted or isinstance(error, MemoryLimitError):
            raise
        if on_gpu:
            torch.cuda.empty_cache()
        where = "GPU" if on_gpu else "computer"
        raise MemoryLimitError(f"memory for {what}", f"too little on the {where}", fix) from error


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU with its number of threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
