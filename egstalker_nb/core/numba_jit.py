"""Numba kernels: how they are compiled, and how threads share their work.

Threads: plain Python threads that run the kernels with the GIL released, as many as `torch.get_num_threads()`.
Results do not depend on their number. Numba's own thread pool is avoided: it adds to the compile time, one of
its layers aborts when two Python threads use it, and another kills a forked child. After a fork the child makes
its own threads (PyTorch's own, from OpenMP, do not survive a fork: prefer spawned workers for anything larger).

Numba is slow to import and not needed on CUDA: import this module, and those with kernels, where they are used.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import torch

_OPTIONS = dict(nogil=True, error_model="numpy", fastmath={"contract", "arcp", "nsz", "reassoc"})

_pool: ThreadPoolExecutor | None = None
_pool_key = (0, 0)  # process, workers


def jit(function):
    """A kernel that Python calls: the GIL is released, the machine code cached where that is possible."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no writable place for the cache (read-only installation): compile in each process
        return numba.njit(**_OPTIONS)(function)


def helper(function):
    """A function that only kernels of the same module call: compiled into them (without wrappers: faster)."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def run(kernel, items, *args):
    """Call `kernel(first, step, *args)` on every thread; `items` bounds how many threads are worth starting."""
    global _pool, _pool_key
    available = torch.get_num_threads()
    threads = min(available, items)
    if threads <= 1:
        kernel(0, 1, *args)
        return
    if _pool_key != (os.getpid(), available):  # an older pool's threads end once nobody refers to it
        _pool, _pool_key = ThreadPoolExecutor(available - 1, "kernel"), (os.getpid(), available)
    pool = _pool
    others = [pool.submit(kernel, first, threads, *args) for first in range(1, threads)]
    kernel(0, threads, *args)
    for other in others:
        other.result()
