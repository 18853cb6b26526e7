"""Schedules the runs of a sweep with Ray: as many at a time as there is room for, none twice, none lost."""
from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from typing import Any, Optional, Protocol

from ..core.errors import InputError, first_line
from ..core.ray_cluster import connected
from .sweep_file import Resources
from .worker import Task, work

POLL_SECONDS = 0.5
NODE_FAILURES = 5        # times that a run is moved to another node, whose own was lost
STOP_SECONDS = 120.0     # for runs to write their checkpoints when the sweep is interrupted
GIGABYTE = 10 ** 9


def share_of_gpu(resources: Resources, available: dict[str, float]) -> float:
    """GPUs that a run reserves: as the sweep says, else one where the cluster has any."""
    return resources.gpu if resources.gpu is not None else float(available.get("GPU", 0) >= 1)


def check_resources(resources: Resources, available: dict[str, float], address: Optional[str]) -> None:
    """Raise an InputError if no run could ever start on this computer; a cluster may still grow."""
    gpu, memory = share_of_gpu(resources, available), (resources.memory or 0) * GIGABYTE
    short = [f"{name} {needed:g} of {available.get(name, 0):g}" for name, needed in
             (("CPU", resources.cpu), ("GPU", gpu), ("memory", memory)) if needed > available.get(name, 0)]
    if short and not address:
        raise InputError("resources of a run that this computer has", ", ".join(short),
                         "Lower `resources` in the sweep file, or give the address of a larger cluster.")


def options(resources: Resources, available: dict[str, float]) -> dict[str, Any]:
    """What Ray is told of a run's resources."""
    memory = {"memory": int(resources.memory * GIGABYTE)} if resources.memory else {}
    return {"num_cpus": resources.cpu, "num_gpus": share_of_gpu(resources, available), **memory}


class Host(Protocol):
    """What the engine asks of the sweep whose runs it schedules."""

    def watch(self) -> None:
        """Called twice a second; may raise KeyboardInterrupt."""

    def running(self) -> bool:
        """Whether a run is at work now."""

    def interrupt(self, run: str) -> None:
        """Ask a run to stop, so that a later call continues it."""

    def lost(self, run: str, error: str) -> None:
        """A run ended with its worker, not by itself."""


def run_tasks(tasks: dict[str, Task], after: dict[str, str], sources: dict[str, str], resources: Resources,
              retries: int, host: Host, address: Optional[str] = None) -> None:
    """Run tasks to their ends. A run whose node is lost goes on elsewhere, from its newest checkpoint.

    Args:
        tasks: by id of the run.
        after: id -> id of the task that must be finished before, if that is among them.
        sources: name -> text of the notebooks.
        resources: of each run.
        retries: how often a run that failed is started again.
        host: is told what happens.
        address: of a cluster, see `connected`.

    Raises:
        InputError: no cluster at the address, or resources that this computer does not have.
        MissingPackageError: Ray is not installed.
        KeyboardInterrupt: from `host.watch` or Ctrl-C; all runs have stopped in order.
    """
    with connected(address, num_cpus=os.cpu_count()) as ray:
        available = ray.cluster_resources()
        check_resources(resources, available, address)
        remote = ray.remote(max_retries=NODE_FAILURES, **options(resources, available))(work)
        texts = ray.put(sources)
        placed = {name: placed_task(task, resources, available) for name, task in tasks.items()}
        begun: dict[str, Any] = {}
        for name in sorted(tasks, key=lambda name: after.get(name, "") in tasks):  # those that others wait for first
            begun[name] = remote.options(name=name).remote(
                placed[name], texts, begun.get(after.get(name, ""), "finished"))
        waiting = {ref: name for name, ref in begun.items()}
        tried: Counter[str] = Counter()
        try:
            while waiting:
                ready, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
                for ref in ready:
                    name = waiting.pop(ref)
                    tried[name] += 1
                    if _ended(ray, ref, name, host) == "failed" and tried[name] <= retries:
                        waiting[remote.options(name=name).remote(placed[name], texts)] = name
                host.watch()
        except KeyboardInterrupt:
            _stop_all(ray, waiting, host)
            raise


def placed_task(task: Task, resources: Resources, available: dict[str, float]) -> Task:
    """The task with what its resources mean for its kernels."""
    device = None if share_of_gpu(resources, available) else "cpu"
    return replace(task, threads=max(1, int(resources.cpu)), device=device)


def _ended(ray: Any, ref: Any, name: str, host: Host) -> str:
    """The state that a task has returned, or "failed" if its workers died again and again."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        host.lost(name, first_line(error))
        return "failed"


def _stop_all(ray: Any, waiting: dict[Any, str], host: Host) -> None:
    """Stop the runs in order; those that have not begun end as soon as it is their turn."""
    for name in waiting.values():
        host.interrupt(name)
    end, left = time.monotonic() + STOP_SECONDS, list(waiting)
    while left and time.monotonic() < end:
        _, left = ray.wait(left, num_returns=len(left), timeout=1.0)
