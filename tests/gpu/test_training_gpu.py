"""On CUDA: captured graphs compute what plain calls compute, and a run trains, resumes and renders."""
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.graphs import Graphed
from egstalker_nb.losses import Losses
from egstalker_nb.metrics import blur
from egstalker_nb.model import audio_windows
from egstalker_nb.training import new_head

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SMALL = dict(iterations=90, coarse_iterations=30, checkpoint_interval=25, eval_interval=50, densify_from_iter=10,
             densify_until_iter=60, densification_interval=10, max_points=600, densify_grad_threshold_coarse=1e-5,
             densify_grad_threshold_fine=1e-5, plane_resolution=[8, 16])


def test_blur_is_that_of_the_cpu():
    x = torch.rand(2, 40, 50, 6)
    torch.testing.assert_close(blur(x.cuda()).cpu(), blur(x), atol=1e-6, rtol=1e-4)


def test_graphed_losses_have_the_same_values_and_gradients():
    losses = Losses(egs.load_config("production"), "fine").cuda()
    graphed = Graphed(losses)
    for seed in (0, 1):  # the second call replays the graph on other data
        torch.manual_seed(seed)
        rgb = torch.rand(1, 64, 64, 3, device="cuda", requires_grad=True)
        alpha = torch.rand(1, 64, 64, 1, device="cuda", requires_grad=True)
        given = [torch.rand(1, 64, 64, c, device="cuda") for c in (3, 1, 1)]
        results = []
        for call in (losses, graphed):
            loss, shown = call(rgb, alpha, *given)
            results.append([loss.detach().clone(), shown.clone(), *torch.autograd.grad(loss, (rgb, alpha))])
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-4)


def test_graphed_network_has_the_same_gradients_after_growth(tiny_dataset):
    head = new_head(tiny_dataset, egs.load_config("production", audio_noise=0.0, plane_resolution=[8, 16])).cuda()
    for layer in head.deformation.heads.values():
        torch.nn.init.normal_(layer.weight, std=0.02)
    graphed, params = Graphed(head.deformation), list(head.deformation.parameters())
    ids = torch.tensor([3])
    given = (audio_windows(torch.from_numpy(tiny_dataset.features), ids).cuda(),
             torch.from_numpy(tiny_dataset.blink)[ids].cuda(), torch.from_numpy(tiny_dataset.w2c)[ids].cuda())
    for points in (100, 150):  # another number of Gaussians: captured again
        means = torch.randn(points, 3, device="cuda")
        results = []
        for call in (graphed, head.deformation):
            out = call(means, *given)
            for p in params:
                p.grad = None
            sum(o.square().sum() for o in out).backward()
            results.append([*[o.detach().clone() for o in out],
                            *[torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params]])
            del out  # a living autograd graph spoils the next capture
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_run_trains_resumes_and_renders(tiny_dataset, tmp_path):
    cfg = egs.load_config("production", **SMALL)
    egs.train(tiny_dataset, cfg, tmp_path / "run", until=55)
    run = egs.train(tiny_dataset, cfg, tmp_path / "run")
    rows = run.metrics("train")
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3 and rows[-1]["points"] > 478
    on_gpu = egs.evaluate(run, "val")
    on_cpu = egs.evaluate(run, "val", device="cpu")
    assert on_gpu["psnr_composite"] == pytest.approx(on_cpu["psnr_composite"], abs=0.05)
