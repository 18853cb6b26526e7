"""Protects: snapshots match the run at their iteration, do not change training, and survive stops and resumes."""
import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.analysis import growth
from egstalker_nb.core.errors import DatasetError
from egstalker_nb.training import checkpoint, snapshots

STEPS = 40


def config(**more):
    return growth.lesson_config(STEPS, plane_resolution=[8, 16], checkpoint_interval=16, **more)


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    return egs.train(tiny_dataset, config(), tmp_path_factory.mktemp("snapshots") / "run", device="cpu")


def same(a, b):
    for name in ("means", "scales", "opacity", "colour", "added_at", "gradient", "picture"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("name", ["quick_test", "extended_test", "production"])
def test_moments_of_the_presets(name):
    """The start, the ends of the stages, densification steps; few enough for the disk, many enough for a slider."""
    cfg = egs.load_config(name)
    found, steps = snapshots.moments(cfg), set(growth.densification_steps(cfg))
    assert {0, cfg.coarse_iterations, cfg.iterations} <= set(found) <= set(range(cfg.iterations + 1))
    assert found == sorted(set(found)) and 20 <= len(found) <= 44
    assert len(steps & set(found)) >= min(len(steps), 20)
    if steps:
        assert {min(steps), max(steps)} <= set(found)


def test_moments_of_a_tiny_run():
    assert snapshots.moments(egs.load_config("quick_test", iterations=3, coarse_iterations=1)) == [0, 1, 3]


def test_a_production_run_stays_small(tmp_path):
    """10,000 Gaussians in 40 snapshots: 15 MB without images."""
    n = 10_000
    gaussians = {"means": torch.zeros(n, 3), "scales": torch.zeros(n, 3), "opacities": torch.zeros(n),
                 "sh0": torch.zeros(n, 1, 3)}
    (tmp_path / snapshots.FOLDER).mkdir()
    snapshots.save(tmp_path, 1, gaussians, torch.zeros(n), torch.zeros(n), None, -1)
    size = sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors"))
    assert size * len(snapshots.moments(egs.load_config("production"))) < 15e6


def test_all_snapshots_exist_and_the_last_is_the_checkpoint(run, tiny_dataset):
    assert run.snapshots == snapshots.moments(run.config)
    start, end = run.snapshot(0), run.snapshot(STEPS)
    head = run.load_head(device="cpu").gaussians
    np.testing.assert_allclose(start.means, tiny_dataset.mean_face, atol=2e-3)
    np.testing.assert_array_equal(end.scales, head["scales"].numpy())
    np.testing.assert_array_equal(end.opacity, head["opacities"].sigmoid().numpy())
    np.testing.assert_array_equal(end.added_at, run.added_at().numpy())
    assert end.colour.dtype == np.uint8 and end.colour.shape == (len(end), 3)
    assert end.picture.shape == (64, 64, 3) and end.frame in tiny_dataset.val_ids
    for name in ("means", "scales", "opacity", "gradient"):
        assert getattr(end, name).dtype == np.float32 and np.isfinite(getattr(end, name)).all()


def test_gaussians_are_those_before_the_densification_step(run):
    """A snapshot taken after a step would have other counts, and no gradients."""
    before, steps = len(run.snapshot(0)), run.metrics("densify")
    assert steps
    for row in steps:
        now = run.snapshot(row["iteration"])
        assert len(now) == before and (now.added_at < row["iteration"]).all() and now.gradient.max() > 0
        before = row["points"]


def test_steps_counted_from_snapshots_are_those_of_the_run(run):
    """With half precision, scales near the limit would be on the wrong side of it: cloned instead of split."""
    table = growth.recount(run)
    assert len(table.rows) == len(run.metrics("densify")) and all(row[-1] is True for row in table.rows), str(table)


def test_no_gradients_are_left_over_after_densification(run):
    """Those collected after the last step would look like measured ones for the rest of the run."""
    until = run.config.densify_until_iter
    after = [i for i in run.snapshots if i >= until]
    assert after and all(not run.snapshot(i).gradient.any() for i in after)


@pytest.mark.slow
def test_snapshots_do_not_change_training(run, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "moments", lambda cfg: [])
    other = egs.train(tiny_dataset, config(), tmp_path / "run", device="cpu")
    assert other.snapshots == [0]
    a, b = (checkpoint.load(r.root, STEPS, checkpoint.HEAD) for r in (run, other))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


@pytest.mark.slow
def test_a_killed_run_writes_its_snapshots_again(run, tiny_dataset, tmp_path):
    """Steps after the last checkpoint are repeated: their snapshots are removed, and the new ones are identical."""
    root = tmp_path / "run"
    egs.train(tiny_dataset, config(), root, until=20, device="cpu")
    snapshots.save(root, 31, dict(run.load_head(device="cpu").gaussians), run.added_at(), run.added_at(),
                   run.snapshot(0).picture, 11)
    left = root / snapshots.FOLDER / ".egs-33.safetensors"
    left.write_bytes(b"half")
    again = egs.train(tiny_dataset, config(), root, device="cpu")
    assert again.snapshots == run.snapshots
    assert not (root / snapshots.FOLDER / "iteration_31.jpg").exists() and not left.exists()
    for i in run.snapshots:
        same(run.snapshot(i), again.snapshot(i))


def test_missing_and_damaged_ones_say_what_is_there(run, tmp_path):
    with pytest.raises(DatasetError, match=f"Snapshots in this run: 0, .*{STEPS}"):
        run.snapshot(STEPS + 1)
    (tmp_path / snapshots.FOLDER).mkdir()
    snapshots.save(tmp_path, 1, dict(run.load_head(device="cpu").gaussians), run.added_at(), run.added_at(), None, -1)
    assert snapshots.load(tmp_path, 1).picture is None
    path = tmp_path / snapshots.FOLDER / "iteration_1.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match="readable snapshot"):
        snapshots.load(tmp_path, 1)
