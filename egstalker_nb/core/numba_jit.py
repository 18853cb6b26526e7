"""Numba kernels: how they are compiled, and how their work is divided among threads.

Kernels release the GIL and run in plain Python threads, as many as `torch.get_num_threads()`. Results do not depend on
their number. Numba's own thread pool is avoided: it adds to the compile time, one of its layers aborts when two Python
threads use it, and another kills a forked child. After a fork, the child makes its own threads (PyTorch's OpenMP
threads do not survive a fork: prefer spawned workers for anything larger).

Numba is slow to import and not needed on CUDA: import this module, and those with kernels, inside the functions that
use them.
"""
from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, TypeVar

import torch

from .numba_cache import ensure_cache

ensure_cache()
import numba  # noqa: E402 - after its cache

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = dict(nogil=True, error_model="numpy", fastmath={"contract", "arcp", "nsz", "reassoc"})

_pool: Optional[ThreadPoolExecutor] = None
_pool_key = (0, 0)  # process, workers


def jit(function: Kernel) -> Kernel:
    """Compile a kernel that is called from Python; the machine code is cached on disk if possible."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no writable folder for the cache (read-only installation): compile in each process
        return numba.njit(**_OPTIONS)(function)


def helper(function: Kernel) -> Kernel:
    """Compile a function that is called from kernels only; leaving out its wrappers compiles faster."""
    options: dict[str, Any] = dict(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
    return numba.njit(**options)(function)


def run(kernel: Callable[..., None], items: int, *args: Any) -> None:
    """Run a kernel on several threads: thread t of n calls `kernel(t, n, *args)`.

    Args:
        kernel: processes items t, t + n, t + 2n, ...
        items: upper bound of the number of threads.
        args: further arguments of the kernel.
    """
    global _pool, _pool_key
    available = torch.get_num_threads()
    threads = min(available, items)
    if threads <= 1:
        kernel(0, 1, *args)
        return
    pool = _pool  # a local name: another thread may replace the pool meanwhile
    if pool is None or _pool_key != (os.getpid(), available):  # threads of an unreferenced pool end by themselves
        pool = ThreadPoolExecutor(available - 1, "kernel")
        _pool, _pool_key = pool, (os.getpid(), available)
    others = [pool.submit(kernel, first, threads, *args) for first in range(1, threads)]
    kernel(0, threads, *args)
    for other in others:
        other.result()
