"""Protects: a sweep on a cluster of three nodes, one of which dies: all runs end, once, as if nothing had happened."""
import threading

import pytest
import torch
from made_up_sweeps import write_notebook

import egstalker_nb as egs
from egstalker_nb.core.reading import digest
from egstalker_nb.scheduling import report
from egstalker_nb.scheduling.sweep import load_sweep

SETTINGS = {"coarse_iterations": 6, "iterations": 24, "batch_size": 2, "pose_steps": 0, "eval_interval": 12,
            "checkpoint_interval": 4, "net_width": 32, "plane_resolution": [8], "num_heads": 4, "num_agents": 2}
LAST = "iteration_24"
RATES, SEEDS = [0.0016, 0.003], [0, 1, 2, 3, 4, 5]
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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as each run of the sweep has
    try:
        return {(rate, seed): digest(egs.train(ds, egs.load_config(
            "quick_test", **SETTINGS, position_lr_init=rate, seed=seed), folder / f"{rate}-{seed}", device="cpu"
        ).root / "checkpoints" / LAST / "head.safetensors") for rate in RATES for seed in SEEDS}
    finally:
        torch.set_num_threads(threads)


def test_twelve_runs_survive_the_death_of_a_node_bit_for_bit(cluster, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "write_report", lambda sweep: None)
    write_notebook(
        tmp_path / "train.ipynb", "import egstalker_nb as egs\nfrom pathlib import Path",
        "egs.train(egs.load_dataset(dataset), egs.load_config(config, **overrides), run)",
        "with open(Path(run).parent / 'ended', 'a') as file:\n    file.write('x')",
        parameters='dataset = ""\nrun = ""\nconfig = ""\noverrides = {}')
    (tmp_path / "twelve.yaml").write_text(
        f"notebooks: [train.ipynb]\ndatasets: ['{tiny_dataset.root}']\n"
        f"base: {{config: quick_test, overrides: {SETTINGS}}}\n"
        f"grid: {{overrides.position_lr_init: {RATES}}}\nseeds: {SEEDS}\nresources: {{gpu: 0}}\n")
    sweep, killed = load_sweep(tmp_path / "twelve.yaml", tmp_path / "out"), []

    def kill_a_node():
        states = [row["state"] for row in sweep.rows()]
        if not killed and states.count("finished") >= 2 and states.count("running") == 3:
            killed.append(threading.Thread(target=cluster.remove_node, args=(cluster.others[0],),
                                           kwargs={"allow_graceful": False}))
            killed[0].start()

    sweep.watchers.append(kill_a_node)
    sweep.run(cluster.address)
    killed[0].join()
    rows = sweep.rows()
    assert [row["state"] for row in rows] == ["finished"] * 12
    assert max(row["attempt"] for row in rows) == 2, "the node that died had no run"
    folders = [sweep.run_folder(run) for run in sweep.runs]
    assert [(folder.root / "ended").read_text() for folder in folders] == ["x"] * 12
    digests = [digest(folder.head / "checkpoints" / LAST / "head.safetensors") for folder in folders]
    found = {(run.varied["overrides.position_lr_init"], run.varied["overrides.seed"]): value
             for run, value in zip(sweep.runs, digests)}
    assert found == trained_one_by_one(tiny_dataset, tmp_path) and len(set(found.values())) == 12
