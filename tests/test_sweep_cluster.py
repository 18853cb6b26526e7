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
RATES, SEEDS = [0.0016, 0.003], [0, 1, 2]
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
    """Seed and learning rate -> the final head of a run without any scheduler."""
    return {(rate, seed): digest(egs.train(ds, egs.load_config(
        "quick_test", **SETTINGS, position_lr_init=rate, seed=seed), folder / f"{rate}-{seed}", device="cpu"
    ).root / "checkpoints" / LAST / "head.safetensors") for rate in RATES for seed in SEEDS}


def test_runs_survive_the_death_of_a_node_bit_for_bit(cluster, tiny_dataset, tmp_path, monkeypatch):
    """Runs of the first seed end. Then all three nodes are in the middle of a run, which waits there for the death."""
    monkeypatch.setattr(report, "write_report", lambda sweep: None)
    write_notebook(
        tmp_path / "train.ipynb", "import egstalker_nb as egs\nimport time\nfrom pathlib import Path",
        "given = egs.load_dataset(dataset), egs.load_config(config, **overrides), run\n"
        "egs.train(*given, until='coarse')",
        f"place = Path({str(tmp_path)!r})\nif overrides['seed']:\n"
        "    (place / f\"waits-{overrides['position_lr_init']}-{overrides['seed']}\").touch()\n"
        "    while not (place / 'dead').exists():\n        time.sleep(0.1)",
        "egs.train(*given)",
        "with open(Path(run).parent / 'ended', 'a') as file:\n    file.write('x')",
        parameters='dataset = ""\nrun = ""\nconfig = ""\noverrides = {}')
    (tmp_path / "six.yaml").write_text(
        f"notebooks: [train.ipynb]\ndatasets: ['{tiny_dataset.root}']\n"
        f"base: {{config: quick_test, overrides: {SETTINGS}}}\n"
        f"grid: {{overrides.position_lr_init: {RATES}}}\nseeds: {SEEDS}\nresources: {{gpu: 0}}\n")
    sweep, killers = load_sweep(tmp_path / "six.yaml", tmp_path / "out"), []

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
    assert [row["state"] for row in rows] == ["finished"] * 6
    assert max(row["attempt"] for row in rows) == 2, "the node that died had no run"
    folders = [sweep.run_folder(run) for run in sweep.runs]
    assert [(folder.root / "ended").read_text() for folder in folders] == ["x"] * 6
    digests = [digest(folder.head / "checkpoints" / LAST / "head.safetensors") for folder in folders]
    found = {(run.varied["overrides.position_lr_init"], run.varied["overrides.seed"]): value
             for run, value in zip(sweep.runs, digests)}
    assert found == trained_one_by_one(tiny_dataset, tmp_path) and len(set(found.values())) == 6
