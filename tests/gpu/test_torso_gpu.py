"""On CUDA: the torso layer, a camera that moves, and the page of a head."""
import numpy as np
import pytest
import torch
from moving_camera import outside

import egstalker_nb as egs
from egstalker_nb.core.cuda_graph import Captured
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.training.fit_torso import fit_torso

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
QUICK = dict(iterations=60, coarse_iterations=20, batch_size=2, pose_steps=2, torso_steps=200, plane_resolution=[8, 16])


@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_a_layer_learned_in_graphs_is_the_plain_one(tiny_dataset, moving_dataset, monkeypatch, place):
    """Sums in any order make two of them differ by rounding; a step that is left out or repeated, by more."""
    for ds in tiny_dataset, moving_dataset:
        layers = {}
        for name in ("captured", "plain", "plain again"):
            with monkeypatch.context() as patch:
                if name != "captured":
                    patch.setattr(Captured, "__call__", Captured.run_eagerly)
                frames = Frames(ds, ds.train_ids, torch.device("cuda"), place)
                torso = fit_torso(ds, frames, steps=150)
            with torch.no_grad():
                layers[name] = torso(torso.codes), np.mean([outside(torso, ds, i) for i in range(len(ds))])
        captured, plain, again = (layers[name][0] for name in layers)
        apart, same = ((x - plain).abs().mean().item() for x in (captured, again))
        assert apart < max(3 * same, 2e-3) and same < 0.01
        assert layers["captured"][1] == pytest.approx(layers["plain"][1], rel=0.1)


def test_a_head_of_a_moving_camera_on_both_devices(moving_dataset, tmp_path):
    run = egs.train(moving_dataset, egs.load_config("quick_test", **QUICK), tmp_path / "run", device="cuda")
    ids = range(len(moving_dataset))
    images = []
    for device in "cuda", "cpu":
        renderer = Renderer.from_run(egs.load_run(run.root), device=device)
        codes = renderer.head.torso.codes
        np.testing.assert_array_equal(renderer.head.torso.views.cpu().numpy(), moving_dataset.views)
        rgb, _ = renderer.batch(renderer.conditions(ids), renderer.head.torso(codes))
        images.append(renderer.exposed(rgb, ids).cpu().numpy())
    np.testing.assert_allclose(images[0], images[1], atol=0.03)
    behind = [np.abs(images[0][i] - moving_dataset.frame(i) / 255)[moving_dataset.mask(i)[..., 2] == 255].mean()
              for i in ids]
    assert max(behind) < 0.02


def test_the_page_of_a_head_is_written(tiny_dataset, tmp_path):
    """Its small network is fitted on the CPU to offsets that come from the GPU."""
    pytest.importorskip("librosa", reason="the page's audio encoder is made with librosa")
    run = egs.train(tiny_dataset, egs.load_config("quick_test", **QUICK), tmp_path / "run", device="cuda")
    assert Renderer.from_run(run).device.type == "cuda"
    page = egs.export_web(run, tmp_path / "head.html")
    assert page.path.stat().st_size > 100_000 and page.page_psnr == pytest.approx(page.network_psnr, abs=1)
