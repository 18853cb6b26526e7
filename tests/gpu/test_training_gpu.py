"""On CUDA: captured graphs compute what plain calls compute, and a run trains, resumes and renders."""
import gc
from types import SimpleNamespace

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.cuda_graph import Captured
from egstalker_nb.data.conditions import Conditions
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.metrics.image_metrics import blur
from egstalker_nb.model.torso import Torso
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.training import trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SMALL = dict(iterations=90, coarse_iterations=30, checkpoint_interval=25, eval_interval=50, densify_from_iter=10,
             densify_until_iter=60, densification_interval=10, max_points=600, densify_grad_threshold_coarse=1e-5,
             densify_grad_threshold_fine=1e-5, plane_resolution=[8, 16])


def test_recording_outlives_the_garbage_of_an_earlier_one():
    """Runs refer to themselves in circles, so that the collector frees an earlier run's graph at any moment."""
    x = torch.zeros(4, device="cuda")
    earlier = Captured(lambda: x + 1, x.device)
    new = Captured(lambda: x + len([[] for _ in range(5000)]), x.device)  # more objects than the collector waits for
    for recorded in False, True:
        earlier()
        assert earlier.recorded == recorded
    new()
    circle = [earlier.graph]
    circle.append(circle)
    earlier.forget()
    del circle
    assert float(new().sum()) == 20000 and new.recorded and gc.isenabled()


def test_blur_is_that_of_the_cpu():
    x = torch.rand(2, 40, 50, 6)
    torch.testing.assert_close(blur(x.cuda()).cpu(), blur(x), atol=1e-6, rtol=1e-4)


def steps(ds, root, iterations, recorded, monkeypatch, until, **settings):
    """Parameters and loss rows after some steps of training, plain or through recorded graphs."""
    with monkeypatch.context() as patch:
        if not recorded:
            patch.setattr(Captured, "__call__", Captured.run_eagerly)
        # learned with gradients that CUDA sums in any order: not the same twice
        patch.setattr(trainer, "fit_torso",
                      lambda ds, frames, steps, seed: Torso.blank(ds.size, len(ds)).to(frames.device))
        cfg = egs.load_config("production", **{**SMALL, "iterations": iterations, "mouth_noise": 0.0, **settings})
        run = egs.train(ds, cfg, root, until=until)
    return run.load_head(), run.metrics("train")


@pytest.mark.parametrize("until", [8, 25])
def test_recorded_steps_are_the_plain_steps(tiny_dataset, tmp_path, monkeypatch, until):
    """Until 8 steps nothing grows; until 25 growth replaces every parameter between recordings."""
    plain, rows = steps(tiny_dataset, tmp_path / "plain", 90, False, monkeypatch, until)
    recorded, recorded_rows = steps(tiny_dataset, tmp_path / "recorded", 90, True, monkeypatch, until)
    assert rows[-1]["loss"] == pytest.approx(recorded_rows[-1]["loss"], rel=0.02)
    assert len(plain) == pytest.approx(len(recorded), abs=6)
    if until == 8:
        for name, values in plain.gaussians.items():
            torch.testing.assert_close(recorded.gaussians[name], values, atol=2e-3, rtol=2e-3)


def test_recorded_adversarial_steps_are_the_plain_steps(tiny_dataset, tmp_path, monkeypatch):
    """A discriminator learns and pulls within the captured step, beside the loss."""
    settings = {"coarse_iterations": 2, "densify_from_iter": 60, "pose_steps": 0, "adversarial_share": 0.5}
    heads = [steps(tiny_dataset, tmp_path / str(recorded), 12, recorded, monkeypatch, 12, **settings)[0]
             for recorded in (False, True)]
    without = steps(tiny_dataset, tmp_path / "without", 12, True, monkeypatch, 12,
                    **{**settings, "adversarial_share": 0.0})[0]
    apart, pulled = (torch.stack([(head.gaussians[name] - heads[0].gaussians[name]).abs().mean()
                                  for name in ("means", "sh0")]) for head in (heads[1], without))
    assert (apart < 0.2 * pulled).all()


def test_captured_renderings_are_the_plain_renderings(tiny_dataset, tmp_path):
    """Protects videos: same images from a captured graph, also for other inputs and beyond its capacity."""
    cfg = egs.load_config("production", **SMALL)
    run = egs.train(tiny_dataset, cfg, tmp_path / "run")
    renderer, plain = Renderer.from_run(run), Renderer.from_run(run)
    frames = Frames(tiny_dataset, range(12), renderer.device).for_head(renderer.head)
    for ids in ([0, 1], [2, 3], [4, 5], [6, 7]):
        given = frames.batch(ids)
        inputs = frames.conditions(given["ids"]), given["background"]
        wanted = plain.batch(*inputs)
        plain._render.reset()
        if ids[0] == 6:
            renderer._capacity.value = 64
            renderer._render.reset()
            renderer._render.ready = True  # captures with far too small a capacity
        found = renderer.batch(*inputs)
        for a, b in zip(found, wanted):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert renderer._capacity.value > 64


def test_frames_are_the_same_from_everywhere(tiny_dataset):
    """Protects clips that are too large for the card, before and after there is a head with a torso."""
    torso = Torso.blank(tiny_dataset.size, len(tiny_dataset))
    torso.picture.random_(0, 256)
    torso.fields.normal_(0, 0.1)
    torso.codes.normal_()
    torso, w2c = torso.cuda(), torch.rand(len(tiny_dataset), 4, 4).cuda()
    head = SimpleNamespace(w2c=w2c, background=lambda ids: torso(torso.codes[ids]),
                           conditions=lambda ids, eyes: Conditions(eyes, eyes, w2c[ids]))
    places = [Frames(tiny_dataset, range(6), torch.device("cuda"), place) for place in ("device", "host", "disk")]
    for with_head in (False, True):
        for frames in places if with_head else ():
            frames.for_head(head)
        for ids in ([0, 3], [5, 1]):
            first, *others = [frames.batch(ids) for frames in places]
            assert ("background" in first) == with_head
            for other in others:
                assert other.keys() == first.keys()
                for name in other:  # rendered one by one or together, a value may be rounded to the next byte
                    step = 1.1 / 255 if name == "background" else 0
                    torch.testing.assert_close(other[name], first[name], atol=step, rtol=0)


def test_a_run_trains_resumes_and_renders(tiny_dataset, tmp_path):
    cfg = egs.load_config("production", **SMALL)
    egs.train(tiny_dataset, cfg, tmp_path / "run", until=55)
    run = egs.train(tiny_dataset, cfg, tmp_path / "run")
    rows = run.metrics("train")
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3 and rows[-1]["points"] > 478
    on_gpu = egs.evaluate(run, "val")
    on_cpu = egs.evaluate(run, "val", device="cpu")
    assert on_gpu["psnr_composite"] == pytest.approx(on_cpu["psnr_composite"], abs=0.05)
