"""Successive halving through Ray Tune: hopeless runs end early, with a checkpoint, and can be continued."""
from __future__ import annotations

import os
import threading
import time
from functools import partial
from typing import Any, Optional

from ..core.ray_cluster import connected
from ..training.history import History
from .engine import NODE_FAILURES, STOP_SECONDS, Host, check_resources, options, placed_task
from .run_folder import RunFolder
from .storage import local_folder
from .sweep_file import Halving, Resources
from .worker import Task, work

POLL_SECONDS = 0.5
#: rungs have no end: where a training is complete its notebook still goes on
NEVER = 10 ** 9
RECORDS = ".tune"  # the folder in `storage`
#: of a trial that has come to its end without a single evaluation (a failure at the start)
WORST = {"max": -1e9, "min": 1e9}


def run_halving(tasks: dict[str, Task], sources: dict[str, str], resources: Resources, retries: int, halving: Halving,
                highest: bool, host: Host, storage: str, address: Optional[str] = None) -> None:
    """Run tasks with Tune's asynchronous successive halving (ASHA, Li et al. 2020).

    At the iterations first, first * reduction, first * reduction² ... a run goes on only if it is among the best
    1 / reduction of those that have come so far. A run that must not go on writes a checkpoint and ends as `pruned`.

    Args:
        tasks, sources, resources, retries, host, address: see `run_tasks`.
        halving: rungs and metric.
        highest: whether the highest value of the metric is best.
        storage: path or address of a folder for Tune's own records, which all nodes see.

    Raises:
        see `run_tasks`.
    """
    os.environ.update({"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"})  # the sweep has its own
    with connected(address, num_cpus=os.cpu_count()) as ray:
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        available = ray.cluster_resources()
        check_resources(resources, available, address)
        mode, wanted = "max" if highest else "min", options(resources, available)
        scheduler = ASHAScheduler(
            time_attr="iteration", metric=halving.metric, mode=mode, grace_period=halving.first,
            reduction_factor=halving.reduction, max_t=NEVER)
        given = {name: placed_task(task, resources, available) for name, task in tasks.items()}
        trainable = tune.with_resources(
            tune.with_parameters(_trainable(tune), tasks=given, sources=sources, retries=retries,
                                 metric=halving.metric, mode=mode),
            tune.PlacementGroupFactory([{"CPU": wanted["num_cpus"], "GPU": wanted["num_gpus"],
                                         **({"memory": wanted["memory"]} if "memory" in wanted else {})}]))
        tuner = tune.Tuner(
            trainable, param_space={"run": tune.grid_search(list(tasks))},
            tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=False),
            run_config=tune.RunConfig(storage_path=storage, name=RECORDS, verbose=0,
                                      failure_config=tune.FailureConfig(max_failures=NODE_FAILURES)))
        _fit(tuner, list(tasks), host)


def _fit(tuner: Any, names: list[str], host: Host) -> None:
    """Run Tune in a thread of its own, so that the sweep can be watched and interrupted."""
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:  # raised again below
            failure.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            host.watch()
    except KeyboardInterrupt:
        for name in names:
            host.interrupt(name)
        thread.join()
        raise
    finally:  # Tune does not wait for the trials that it has ended
        end = time.monotonic() + STOP_SECONDS
        while host.running() and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
    if failure:
        raise failure[0]


def _trainable(tune: Any) -> type:
    """The class that Tune runs for each trial: a run of the sweep, seen evaluation by evaluation."""

    class SweepTrial(tune.Trainable):
        """Executes a run in a thread. A `step` ends with the next evaluation of its training, or with the run."""

        def setup(self, config: dict[str, Any], tasks: dict[str, Task], sources: dict[str, str], retries: int,
                  metric: str, mode: str) -> None:
            task = tasks[config["run"]]
            self.begin, self.retries = partial(work, task, sources), retries
            self.folder, self.metric = RunFolder(local_folder(task.place)), metric
            self.history = History(self.folder.head)
            self.last = {"iteration": 0, metric: WORST[mode]}
            self.start()

        def start(self) -> None:
            self.thread = threading.Thread(target=self.begin, daemon=True)
            self.thread.start()

        def step(self) -> dict[str, Any]:
            while True:
                ended = not self.thread.is_alive()  # asked first: the last rows are written before the end
                self.history.read()
                rows = [row for row in self.history.of("eval") if row.get(self.metric) is not None
                        and row["iteration"] > self.last["iteration"]]
                if rows:
                    self.last = {"iteration": rows[0]["iteration"], self.metric: rows[0][self.metric]}
                    return {**self.last, "done": False}
                if ended and self.retries and self.folder.state["state"] == "failed":
                    self.retries -= 1
                    self.start()
                elif ended:
                    return {**self.last, "done": True}
                time.sleep(POLL_SECONDS)

        def cleanup(self) -> None:
            """Tune ends a trial: of a run that is still training, the checkpoint is written first."""
            if self.thread.is_alive():
                if not self.folder.stop_requested:
                    self.folder.request_stop("pruned")
                self.thread.join()

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """The training has checkpoints of its own."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """The training goes on from its own."""

    return SweepTrial
