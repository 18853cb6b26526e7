"""What the scheduler costs: overhead of a run, and a long queue of trivial runs.

    python benchmarks/sweeps.py                  # overhead: a few minutes
    python benchmarks/sweeps.py --queue 1000     # and a queue of so many runs
    python benchmarks/sweeps.py --gpus data/clip --out benchmarks/results/sweep_gpus.json    # trainings, one a card

Without --gpus the runs are notebooks without training, so that nothing but scheduling, kernel and saving is measured.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import nbformat
import psutil
import yaml
from common import facts

from egstalker_nb.core.files import write_json
from egstalker_nb.core.ray_cluster import connected
from egstalker_nb.scheduling import report
from egstalker_nb.scheduling.execute import execute, kernel_environment
from egstalker_nb.scheduling.sweep import Sweep, load_sweep

SLEEP, RUNS = 10.0, 4  # seconds and number of the runs that the overhead is measured with
MINUTE = 60.0
GPU_RUNS, GPU_SETTINGS = 4, {"iterations": 1500, "coarse_iterations": 500, "pose_steps": 0}


def write_notebook(path: Path, parameters: str, cell: str) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(cell)]
    nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=cells), path)


def make_sweep(folder: Path, seconds: float, count: int, cores: float) -> Sweep:
    """A sweep of `count` notebooks that sleep; `cores` of them are reserved for each."""
    write_notebook(folder / "sleep.ipynb", "number = 0", f"import time\ntime.sleep({seconds})")
    (folder / "sleep.yaml").write_text(yaml.safe_dump({
        "notebooks": ["sleep.ipynb"], "grid": {"number": list(range(count))}, "resources": {"cpu": cores, "gpu": 0}}))
    return load_sweep(folder / "sleep.yaml", folder / "out")


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """MiB of this process, and of it with all its children (Ray, workers, kernels; proportional set size), at most."""
    peak, over = {"driver_mib": 0.0, "all_mib": 0.0}, threading.Event()

    def watch() -> None:
        this = psutil.Process()
        while not over.wait(2.0):
            peak["driver_mib"] = max(peak["driver_mib"], this.memory_info().rss / 2**20)
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            peak["all_mib"] = max(peak["all_mib"], total / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def overhead(folder: Path) -> dict[str, float]:
    """Seconds that a run takes longer in a sweep than executed by Papermill itself; one at a time in both."""
    began = time.perf_counter()
    with kernel_environment(folder / "line", folder), open(folder / "log", "w") as log:
        for number in range(RUNS):
            sweep = make_sweep(folder, SLEEP, RUNS, 2)
            execute(folder / "sleep.ipynb", folder / f"{number}.ipynb", {"number": number}, log)
    alone = time.perf_counter() - began
    began = time.perf_counter()
    with connected(num_cpus=2):
        started = time.perf_counter()
        sweep.run()
        ended = time.perf_counter()
    each = (ended - started - alone) / RUNS
    return {"runs": RUNS, "seconds_of_a_run": SLEEP, "papermill_alone": round(alone / RUNS, 2),
            "in_the_sweep": round((ended - started) / RUNS, 2), "overhead_each": round(each, 2),
            "share_of_a_minute": round(each / MINUTE, 4), "start_of_ray": round(started - began, 1)}


def queue(folder: Path, count: int) -> dict[str, float]:
    """Time and memory of a queue of trivial runs, two at a time, results and their table included."""
    began = time.perf_counter()
    sweep = make_sweep(folder, 0.0, count, 1)
    planned = time.perf_counter()
    with peak_memory() as peak:
        sweep.run()
    ended = time.perf_counter()
    rows = sweep.rows()
    for row in rows:
        if row["state"] != "finished" or row["attempt"] != 1:
            print({name: row.get(name) for name in ("run", "state", "attempt", "error", "cell")}, flush=True)
    looked = time.perf_counter()
    sweep.table("-seconds")
    return {"runs": count, "finished": sum(row["state"] == "finished" for row in rows),
            "executed_once": sum(row["attempt"] == 1 for row in rows),
            "plan_s": round(planned - began, 1), "seconds": round(ended - planned, 1),
            "seconds_each": round((ended - planned) / count, 3), "table_s": round(time.perf_counter() - looked, 2),
            **{name: round(value) for name, value in peak.items()}}


TRAIN = ("import egstalker_nb as egs\n"
         "egs.train(egs.load_dataset(dataset), egs.load_config(config, **overrides), run)")


def side_by_side(folder: Path, dataset: Path, cards: int) -> list[dict]:
    """Short production trainings as a sweep, with all GPUs of this computer and with one of them."""
    write_notebook(folder / "train.ipynb", 'dataset = ""\nrun = ""\nconfig = ""\noverrides = {}', TRAIN)
    rows = []
    for count in (1, cards, 1):  # the first one warms up
        name = f"on_{count}_{len(rows)}"
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({
            "notebooks": ["train.ipynb"], "datasets": [str(dataset.resolve())], "seeds": list(range(GPU_RUNS)),
            "base": {"config": "production", "overrides": GPU_SETTINGS}, "resources": {"cpu": 4, "gpu": 1}}))
        sweep = load_sweep(folder / f"{name}.yaml", folder / name)
        with connected(num_cpus=4 * cards, num_gpus=count):
            began = time.perf_counter()
            sweep.run()
            seconds = time.perf_counter() - began
        rows.append({"cards": count, "runs": GPU_RUNS, "seconds": round(seconds, 1),
                     "seconds_each": [round(row["seconds"], 1) for row in sweep.rows()],
                     "states": [row["state"] for row in sweep.rows()]})
        print(json.dumps(rows[-1]), flush=True)
    return rows[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queue", type=int, default=0, help="runs in the queue")
    parser.add_argument("--gpus", type=Path, metavar="DATASET", help="train on all GPUs, one run on each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sweeps.json"))
    args = parser.parse_args()
    report.write_report = lambda sweep: None  # a notebook of its own, once a sweep
    result = {"facts": facts()}
    if args.gpus:
        import torch

        with tempfile.TemporaryDirectory() as folder:
            rows = side_by_side(Path(folder), args.gpus, torch.cuda.device_count())
        write_json(args.out, {**result, "dataset": args.gpus.name, "settings": GPU_SETTINGS, "rows": rows})
        return
    with tempfile.TemporaryDirectory() as folder:
        result["overhead"] = overhead(Path(folder))
    print(json.dumps(result["overhead"]), flush=True)
    if args.queue:
        with tempfile.TemporaryDirectory() as folder:
            result["queue"] = queue(Path(folder), args.queue)
        print(json.dumps(result["queue"]))
    write_json(args.out, result)


if __name__ == "__main__":
    main()
