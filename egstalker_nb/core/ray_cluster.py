"""A Ray cluster to run tasks on: one that is there, or one that is started on this computer."""
from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, Optional

from .errors import InputError, UnfinishedError, first_line, require_package
from .reading import shown

#: environment variable with the address of the cluster, as Ray's own programs use it
ADDRESS = "RAY_ADDRESS"
#: not the Ray of somebody else on this computer
HERE = "local"
#: seconds for a cluster to answer
ANSWER_SECONDS = 10.0
#: times that Ray is started on this computer before that counts as failed: it gives its own processes 30 s, which are
#: too few on a busy computer
STARTS = 4
#: options of `ray.init` that a cluster refuses which is there already
OF_A_NEW_CLUSTER = "num_cpus", "num_gpus", "resources", "labels", "object_store_memory"


@contextmanager
def connected(address: Optional[str] = None, **init: Any) -> Iterator[ModuleType]:
    """Connect to a Ray cluster while the block runs, or start one on this computer that ends with the block.

    A connection that exists already is used, and stays. Workers' output stays in Ray's log files.

    Args:
        address: of a cluster: `auto` for the one that this computer belongs to, `host:6379`, or `ray://host:10001`;
            default: that of the environment variable RAY_ADDRESS, else Ray is started on this computer alone.
        init: further options of `ray.init`; those that size a new cluster, such as `num_cpus`, are used only for one
            that is started here.

    Yields:
        the module `ray`.

    Raises:
        MissingPackageError: Ray is not installed.
        InputError: no cluster can be reached there.
        UnfinishedError: none can be started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    # what a run without GPUs sees of those of the computer is decided by its worker
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = require_package("ray", "Ray, which runs work on many processes and computers",
                          "pip install 'egstalker-nb[cluster]'")
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get(ADDRESS) or HERE
    options = {"log_to_driver": False, "logging_level": logging.ERROR, **init}
    if address == HERE:
        options.setdefault("include_dashboard", False)
    else:
        options = {name: value for name, value in options.items() if name not in OF_A_NEW_CLUSTER}
    try:
        _connect(ray, address, options)
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: ModuleType, address: str, options: dict[str, Any]) -> None:
    """`ray.init`, with errors for users."""
    try:
        if address == HERE:
            _have_token()
        else:
            _check_answers(address)
        with _same_sigterm():
            for left in reversed(range(STARTS)):
                try:
                    ray.init(address, **options)
                    break
                except Exception as error:  # a plain one, known by its text
                    if not left or "timed out during startup" not in str(error):
                        raise
                    ray.shutdown()
    except Exception as error:  # ConnectionError, RuntimeError, ValueError ...: Ray has no common error
        reason = first_line(error).rstrip(".")
        if address == HERE:
            raise UnfinishedError("Ray to start on this computer", reason,
                                  "Free memory and disk space (in /tmp too), then repeat the same call.") from error
        raise InputError(f"a Ray cluster at {shown(address)}", reason,
                         "Check the address and RAY_ADDRESS, that the cluster runs, and that it has the same versions "
                         "of Ray and Python; without an address one is started on this computer.") from error


def _check_answers(address: str) -> None:
    """Raise an OSError if nothing answers at an address, where Ray itself would try for a quarter of an hour; a
    ValueError if it is none."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("no host:port")
    socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()


def _have_token() -> None:
    """A new Ray keeps its token in the home folder, readable to all; here only its owner can read it. Services and
    containers may have no home that can be written to: there the token lives as long as this process."""
    with suppress(RuntimeError, OSError):  # a user without a home, or with one that cannot be written to
        token = Path.home() / ".ray" / "auth_token"
        token.parent.mkdir(exist_ok=True)
        if not token.exists():
            with open(os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        token.chmod(0o600)
        return
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces with one that kills its workers: they must write checkpoints."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
