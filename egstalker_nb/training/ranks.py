"""The processes that train one run together, one for each GPU, and what they tell each other by torch.distributed."""
from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from multiprocessing import connection
from typing import Any, Callable, NoReturn, Optional, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ..core import errors
from ..core.errors import EgsError, InputError, TrainingError, UnfinishedError, first_line
from ..core.processes import begin_worker

HOST = "127.0.0.1"
#: ranks wait for rank 0 while it evaluates or saves; that a process died is found by `Workers`, not by a time limit
TIMEOUT = timedelta(days=7)
POLL_SECONDS = 0.1
#: of NCCL: no NVLink multicast, which a sum of a few MB does not need and which needs rights that containers may lack;
#: and no watchdog that ends the process (it may be a notebook's kernel) when another one has died
NCCL = {"NCCL_NVLS_ENABLE": "0", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}


class Ranks:
    """This process as one of several that train a run together. Every rank must make the same calls.

    Args:
        rank: number of this process, 0 for the one that `train` was called in.
        devices: of all ranks.
        store: over which they find each other.

    Attributes:
        rank: see above.
        size: number of ranks.
        device: of this rank.
    """

    def __init__(self, rank: int, devices: Sequence[torch.device], store: dist.Store):
        self.rank, self.size, self.device = rank, len(devices), devices[rank]
        hook, cuda = sys.excepthook, self.device.type == "cuda"
        for name, value in NCCL.items() if cuda else ():
            os.environ.setdefault(name, value)
        dist.init_process_group("nccl" if cuda else "gloo", store=dist.PrefixStore("group", store), rank=rank,
                                world_size=self.size, timeout=TIMEOUT, device_id=self.device if cuda else None)
        sys.excepthook = hook  # torch.distributed puts its own in, for good

    def part(self, batch: int) -> slice:
        """This rank's part of a batch of so many frames."""
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def sum_(self, values: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place; the same bits on each of them."""
        dist.all_reduce(values)
        return values

    def broadcast(self, value: Any = None) -> Any:
        """What rank 0 gives, on all ranks: numbers, text and tensors (on the CPU then), in dictionaries and tuples."""
        buffer = io.BytesIO()
        if self.rank == 0:
            torch.save(value, buffer)
        length = torch.tensor([buffer.tell()], device=self.device)
        dist.broadcast(length, src=0)
        whole = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        if self.rank == 0:
            whole.copy_(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
        dist.broadcast(whole, src=0)
        data = io.BytesIO(whole.cpu().numpy().tobytes())
        return torch.load(data, map_location="cpu", weights_only=True)

    def check_same(self, tensors: Sequence[Tensor]) -> None:
        """Make sure that float32 tensors have the same bits on all ranks.

        Raises:
            TrainingError: they have not.
        """
        sums = torch.stack([t.detach().view(torch.int32).sum(dtype=torch.int64) for t in tensors])
        extremes = torch.cat([sums, -sums])
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        if (extremes[:len(sums)] != -extremes[len(sums):]).any():
            raise TrainingError("the same Gaussians on all GPUs", "some that differ", "Train again on GPUs of one "
                                "model, or on one: the newest checkpoint is intact.")

    def abort(self) -> None:
        """Make collectives that wait for a dead process return, with whatever they have; only NCCL's would not."""
        if self.device.type == "cuda" and dist.is_initialized():
            dist.distributed_c10d._get_default_group()._get_backend(self.device).abort()

    def close(self) -> None:
        """Leave the group, whatever the other ranks do."""
        if not dist.is_initialized():
            return
        if self.device.type == "cuda":
            dist.distributed_c10d._abort_process_group()  # the regular way waits for the others
        else:
            dist.destroy_process_group()


class Workers:
    """The processes of ranks 1, 2, ..., as rank 0 sees them. Use it in a `with` block: they end with the block.

    They are loky's, which do not execute the user's script again. They write no files and hold nothing that rank 0 has
    not, so that they are simply killed, and they exit when this process does.

    Args:
        work: called in each of them with a `Ranks` and `args`; a function of a module.
        args: for it.
        devices: of all ranks.

    Raises:
        InputError: this process is part of a torch.distributed group already.
    """

    def __init__(self, work: Callable[..., None], args: tuple, devices: Sequence[torch.device]):
        from loky.backend import get_context

        if dist.is_initialized():
            raise InputError("one training on several GPUs at a time in a process", "another one (torch.distributed "
                             "is in use)", "Wait for it, train with gpus=1, or train in another process.")
        self.devices = devices
        self.ranks: Optional[Ranks] = None
        self._store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
        begin = (devices, self._store.port, os.getpid())
        self.processes = [get_context("loky").Process(target=_run, args=(work, args, rank, *begin), daemon=True)
                          for rank in range(1, len(devices))]
        self._lost: Optional[int] = None  # the rank whose process ended too early
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Workers:
        for process in self.processes:
            process.start()
        self._watcher.start()
        return self

    def join(self) -> Ranks:
        """Form the group, when all processes have started.

        Raises:
            EgsError: see `check`.
        """
        while not self._store.check([_ready(rank) for rank in range(1, len(self.devices))]):
            self.check()
            time.sleep(POLL_SECONDS)
        self.ranks = Ranks(0, self.devices, self._store)
        return self.ranks

    def check(self) -> None:
        """Make sure that all processes are at work; what was computed since one ended is worthless.

        Raises:
            UnfinishedError: one ended.
            EgsError: whichever ended one.
        """
        if self._lost is None:
            return
        said = _error(self._lost)
        if self._store.check([said]):
            kind, *said_by_it = json.loads(self._store.get(said))
            if kind:
                raise getattr(errors, kind)(*said_by_it)
            how = f"that of {self.devices[self._lost]} failed ({said_by_it[0]})"
        else:
            code = self.processes[self._lost - 1].exitcode or 0
            how = f"that of {self.devices[self._lost]} ended ({signal.Signals(-code).name if code < 0 else code})"
        raise UnfinishedError(f"{len(self.devices)} processes that train until the end", how,
                              "Train again: the run goes on from its newest checkpoint.")

    def _watch(self) -> None:
        working = dict(enumerate(self.processes, 1))
        while working and not self._closing.is_set():
            ended = connection.wait([p.sentinel for p in working.values()], POLL_SECONDS)
            for rank, process in list(working.items()):
                if process.sentinel in ended:
                    del working[rank]
                    process.join(1)
                    if process.exitcode != 0 and self._lost is None:
                        self._lost = rank
                        if self.ranks is not None:
                            self.ranks.abort()

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Any) -> None:
        if isinstance(error, RuntimeError) and not isinstance(error, EgsError):
            time.sleep(10 * POLL_SECONDS)  # a failed collective: whose process has died is known soon
        self._closing.set()
        self._watcher.join()
        for process in self.processes:
            if process.exitcode is None:  # not waited for, so that its number is no other's
                os.kill(process.pid, signal.SIGKILL)  # loky's processes have no kill()
        if self.ranks is not None:
            self.ranks.close()
        for process in self.processes:
            process.join()
        if isinstance(error, RuntimeError) and not isinstance(error, EgsError):
            self.check()


def _ready(rank: int) -> str:
    return f"ready {rank}"


def _error(rank: int) -> str:
    return f"error {rank}"


def _run(work: Callable[..., None], args: tuple, rank: int, devices: Sequence[torch.device], port: int,
         parent: int) -> NoReturn:
    """A worker process. It leaves through `os._exit`: at a regular end torch.distributed would wait for the others."""
    begin_worker(parent)
    os.environ.pop("EGS_PROGRESS_FILE", None)  # rank 0 tells of its progress there
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd and SLURM send it to all; rank 0 saves, then kills this
    store = dist.TCPStore(HOST, port, is_master=False)
    try:
        if devices[rank].type == "cuda":
            torch.cuda.set_device(devices[rank])
        store.set(_ready(rank), "")
        work(Ranks(rank, devices, store), *args)
    except Exception as error:
        with suppress(Exception):  # rank 0 may be gone, and this an echo of that
            if isinstance(error, EgsError):
                told = [type(error).__name__, error.expected, error.found, error.fix]
            else:
                told = ["", f"{type(error).__name__}: {first_line(error)}"]
                traceback.print_exc()
            store.set(_error(rank), json.dumps(told))
        os._exit(1)
    os._exit(0)
