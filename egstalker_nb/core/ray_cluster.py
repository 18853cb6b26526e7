"""Connecting to a Ray cluster, or starting Ray on this computer alone."""
from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, Optional

from .errors import InputError, first_line, require_package

#: environment variable with the address of the cluster, as Ray's own programs use it
ADDRESS = "RAY_ADDRESS"
#: seconds for a cluster to answer
ANSWER_SECONDS = 10.0
#: times that Ray is started on this computer before that counts as failed
STARTS = 4


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
        if address:
            _check_answers(address)
        else:
            _have_token()
        with _same_sigterm():
            _connect(ray, address, here)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError ...: Ray has no common error
        where = f"a Ray cluster at '{address}'" if address else "Ray to start on this computer"
        fix = ("Start one with `ray start --head`, or leave the address out." if address else
               "Free memory and disk space, and try again.")
        raise InputError(where, first_line(error).rstrip("."), fix) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: Optional[str], here: dict[str, Any]) -> None:
    for left in reversed(range(STARTS)):
        try:  # "local": not the Ray of somebody else on this computer
            ray.init(address or "local", log_to_driver=False, logging_level="error", **({} if address else here))
            return
        except Exception as error:  # a plain one: Ray gives its own processes 30 s, too few on a busy computer
            if address or not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise an OSError if nothing answers at an address: Ray itself would try for a quarter of an hour."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()


def _have_token() -> None:
    """A new Ray keeps its token in the home folder. Services and containers may have none that can be written to; there
    the token lives as long as this process."""
    with suppress(RuntimeError):  # a user without a home
        home = Path.home()
        if (home / ".ray" / "auth_token").is_file() or os.access(home, os.W_OK):
            return
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces with one that kills its workers: they must write checkpoints."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
