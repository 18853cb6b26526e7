"""Connecting to a Ray cluster, or starting Ray on this computer alone."""
from __future__ import annotations

import os
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Iterator, Optional

from .errors import InputError, first_line, require_package

#: environment variable with the address of the cluster, as Ray's own programs use it
ADDRESS = "RAY_ADDRESS"


@contextmanager
def connected(address: Optional[str] = None, **init: Any) -> Iterator[ModuleType]:
    """Ray, connected to a cluster inside the block. A connection that exists already is used, and stays.

    Args:
        address: of a cluster: `auto` for the one that this computer belongs to, `host:6379`, or `ray://host:10001`;
            default: that of the environment variable RAY_ADDRESS, else Ray is started on this computer for the block.
        init: more arguments of `ray.init`, for a Ray that is started here.

    Yields:
        the module `ray`.

    Raises:
        MissingPackageError: Ray is not installed.
        InputError: no cluster can be reached there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    # a run without GPUs must not see those of the computer; how that is done is the worker's business
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = require_package("ray", "Ray, which runs work on many processes and computers",
                          "pip install 'egstalker-nb[cluster]'")
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get(ADDRESS)
    here = {"include_dashboard": False, **init}
    try:
        ray.init(address, log_to_driver=False, logging_level="error", **({} if address else here))
    except Exception as error:  # ConnectionError, RuntimeError, ValueError ...: Ray has no common error
        where = f"a Ray cluster at '{address}'" if address else "Ray to start on this computer"
        raise InputError(where, first_line(error), "Start one with `ray start --head`, or leave the address out."
                         if address else "Free memory and disk space, and try again.") from error
    try:
        yield ray
    finally:
        ray.shutdown()
