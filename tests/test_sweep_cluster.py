"""Protects: a sweep on a cluster of three nodes, one of which dies: all runs end, once, as if nothing had happened."""
import threading
import time

import pytest
from made_up_sweeps import write_notebook

import egstalker_nb as egs
from egstalker_nb.core.reading import digest
from egstalker_nb.scheduling import report
from egstalker_nb.scheduling.sweep import load_sweep

SETTINGS = {"coarse_iterations": 6, "iterations": 24, "batch_size": 2, "pose_steps": 0, "eval_interval": 12,
            "checkpoint_interval": 4, "net_width": 32, "plane_resolution": [8], "num_heads": 4, "num_agents": 2}
LAST = "iteration_24"
SEEDS = [0, 1, 2, 3]
MEMORY = 80_000_000  # bytes of a node's object store


@pytest.fixture
def cluster(monkeypatch):
    """A head with one core and two more nodes with one each, all on this computer."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False,
                                                         "object_store_memory": MEMORY})
    made.others = [made.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    made.shutdown()


def trained_one_by_one(ds, folder):
    """Seed -> the final head of a run without any scheduler."""
    return {seed: digest(egs.train(ds, egs.load_config("quick_test", **SETTINGS, seed=seed), folder / str(seed),
                                   device="cpu").root / "checkpoints" / LAST / "head.safetensors") for seed in SEEDS}


def test_runs_survive_the_death_of_a_node_bit_for_bit(cluster, tiny_dataset, tmp_path, monkeypatch):
    """The first run ends. Then all three nodes are in the middle of a run, which waits there for the death."""
    monkeypatch.setattr(report, "write_report", lambda sweep: None)
    write_notebook(
        tmp_path / "train.ipynb", "import egstalker_nb as egs\nimport time\nfrom pathlib import Path",
        "given = egs.load_dataset(dataset), egs.load_config(config, **overrides), run\n"
        "egs.train(*given, until='coarse')",
        f"place = Path({str(tmp_path)!r})\nif overrides['seed']:\n"
        "    (place / f\"waits-{overrides['seed']}\").touch()\n"
        "    while not (place / 'dead').exists():\n        time.sleep(0.1)",
        "egs.train(*given)",
        "with open(Path(run).parent / 'ended', 'a') as file:\n    file.write('x')",
        parameters='dataset = ""\nrun = ""\nconfig = ""\noverrides = {}')
    (tmp_path / "four.yaml").write_text(
        f"notebooks: [train.ipynb]\ndatasets: ['{tiny_dataset.root}']\n"
        f"base: {{config: quick_test, overrides: {SETTINGS}}}\n"
        f"seeds: {SEEDS}\nresources: {{gpu: 0}}\n")
    sweep, killers = load_sweep(tmp_path / "four.yaml", tmp_path / "out"), []

    def kill_a_node():
        cluster.remove_node(cluster.others[0], allow_graceful=False)
        time.sleep(2)  # for kernels to notice that their parent is gone
        (tmp_path / "dead").touch()

    def watch():
        if not killers and len(list(tmp_path.glob("waits-*"))) == 3:
            killers.append(threading.Thread(target=kill_a_node))
            killers[0].start()

    sweep.watchers.append(watch)
    sweep.run(cluster.address)
    killers[0].join()
    rows = sweep.rows()
    assert [row["state"] for row in rows] == ["finished"] * 4
    assert max(row["attempt"] for row in rows) == 2, "the node that died had no run"
    folders = [sweep.run_folder(run) for run in sweep.runs]
    assert [(folder.root / "ended").read_text() for folder in folders] == ["x"] * 4
    found = {run.varied["overrides.seed"]: digest(folder.head / "checkpoints" / LAST / "head.safetensors")
             for run, folder in zip(sweep.runs, folders)}
    assert found == trained_one_by_one(tiny_dataset, tmp_path) and len(set(found.values())) == 4
