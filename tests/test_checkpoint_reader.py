"""Protects: an upstream checkpoint moves as upstream's own network would move it, or says which tensor does not fit."""
import made_up_checkpoint as made
import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb import cli

K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])


def front(frames=1, distance=6.0):
    """Cameras in front of the face as tracked upstream: the camera looks along -z, so trans is negative."""
    return egs.upstream_cameras(torch.zeros(frames, 3), torch.tensor([[0, 0, -distance]]).repeat(frames, 1))


def test_the_canonical_head_of_the_newest_iteration_appears_where_it_is(tmp_path):
    made.write_checkpoint(tmp_path, iteration=9000, means=((5, 5, 5),), colors=((1, 1, 1),))
    made.write_checkpoint(tmp_path, iteration=20000)
    head = egs.read_checkpoint(tmp_path)
    assert head.folder.name == "iteration_20000" and len(head.gaussians["means"]) == 3
    rgb, alpha = head.render(front(), K, 64, 48)
    assert rgb.shape == (1, 48, 64, 3) and alpha.shape == (1, 48, 64, 1)
    # x right and y up: px = 32 + 60 x / (6 - z), py = 24 - 60 y / (6 - z)
    for color, (x, y, z) in enumerate(((0, 0, 0), (1, 0.5, 0), (0, -1, 0.5))):
        pixel = rgb[0, int(24 - 60 * y / (6 - z)), int(32 + 60 * x / (6 - z))]
        assert pixel[color] > 0.8 and pixel.sum() - pixel[color] < 0.1
    same = egs.rasterize(**head.gaussians, viewmats=front(), Ks=K[None], width=64, height=48, sh_degree=3)[0]
    assert torch.equal(same, rgb)


def test_cameras_are_those_of_the_upstream_program():
    """Its own formula: R = -(flip @ Rx @ Ry @ Rz)^T and T = -trans with x kept, then world-to-camera is [R^T | T]."""
    rng = np.random.default_rng(0)
    euler, trans = rng.normal(size=(2, 5, 3))
    ours = egs.upstream_cameras(torch.tensor(euler), torch.tensor(trans)).numpy()
    for (x, y, z), t, w2c in zip(euler, trans, ours):
        c, s = np.cos, np.sin
        # the program joins each of these triples as a column
        rx = np.array([[1, 0, 0], [0, c(x), s(x)], [0, -s(x), c(x)]]).T
        ry = np.array([[c(y), 0, -s(y)], [0, 1, 0], [s(y), 0, c(y)]]).T
        rz = np.array([[c(z), -s(z), 0], [s(z), c(z), 0], [0, 0, 1]]).T
        R = -(np.diag([-1, 1, 1]) @ rx @ ry @ rz).T
        np.testing.assert_allclose(w2c[:3, :3], R.T, atol=1e-6)
        np.testing.assert_allclose(w2c[:3, 3], [t[0], -t[1], -t[2]], atol=1e-6)
        assert np.linalg.det(w2c[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("agents, width, layers", [(False, 64, 1), (False, 32, 2), (True, 64, 1), (True, 96, 2)])
def test_it_moves_as_the_same_network_of_library_layers(tmp_path, monkeypatch, agents, width, layers):
    monkeypatch.setattr(made, "WIDTH", width)
    monkeypatch.setattr(made, "LAYERS", layers)
    means = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    whole = made.write_checkpoint(tmp_path, agents, means=means.tolist(), colors=[(0.5, 0.5, 0.5)] * 7)
    head = egs.read_checkpoint(tmp_path)
    assert head.problems() == []
    features, blink = torch.randn(6, 16, 29), torch.tensor([0, 0.5, 1, 2, 3, 0])
    w2c = egs.upstream_cameras(torch.randn(6, 3), torch.randn(6, 3))
    for frame, scene in zip((0, 2, 5), head._moved(w2c, features, blink, (0, 2, 5))):
        offsets, kept = made.moved(whole, means, features, blink, w2c, frame)
        for name, offset in zip(("means", "scales", "quats", "opacities", "colors"), offsets):
            raw = head.raw[name].reshape(len(means), -1)
            want = (raw if name == "quats" else raw * kept) + offset
            torch.testing.assert_close(scene[name].reshape(want.shape), want, atol=2e-4, rtol=1e-3)


def test_audio_changes_the_picture_and_switches_are_kept(tmp_path):
    made.write_checkpoint(tmp_path, switches="no_do=True, no_dshs=True, no_dx=True")
    head = egs.read_checkpoint(tmp_path)
    scenes = list(head._moved(front(2), torch.randn(2, 16, 29), torch.zeros(2), (0, 1)))
    assert all(torch.equal(scenes[0][name], head.raw[name]) for name in ("means", "opacities", "colors"))
    assert not torch.equal(scenes[0]["scales"], scenes[1]["scales"])
    still = head.render(front(2), K, 64, 48)[0]
    assert not torch.allclose(head.render(front(2), K, 64, 48, torch.randn(2, 16, 29), frames=[1])[0], still[:1])


def change(folder, edit):
    path = next(folder.rglob("deformation.pth"))
    tensors = torch.load(path, weights_only=True)
    edit(tensors)
    torch.save(tensors, path)


@pytest.mark.parametrize("edit, words", [
    (lambda t: t.pop("deformation_net.cam_mlp.net.0.weight"), "cam_mlp.net.0.weight: missing"),
    (lambda t: t.update({"deformation_net.pos_deform.1.weight": torch.zeros(24, 5)}), "expected [24, 64]"),
    (lambda t: t.update({"deformation_net.pos_deform.kan.coeffs": torch.zeros(3, 4)}), "kan.coeffs: unknown"),
    (lambda t: t["deformation_net.cam_mlp.net.0.weight"].fill_(torch.nan), "expected finite floats"),
    (lambda t: t.update({"deformation_net.tri_plane.grid.grids.0.3": torch.ones(1, 32, 5, 5)}), "grids.0.3: unknown"),
    (lambda t: t.clear(), "no deformation.pth"),
    (lambda t: t.pop("deformation_net.null_vector"), "null_vector: missing"),
])
def test_what_does_not_fit_is_named_and_the_canonical_head_still_renders(tmp_path, edit, words):
    made.write_checkpoint(tmp_path)
    change(tmp_path, edit)
    head = egs.read_checkpoint(tmp_path)
    assert any(words in problem for problem in head.problems()), head.problems()
    assert "without motion only" in str(head.table())
    assert head.render(front(), K, 64, 48)[1].max() > 0.8
    with pytest.raises(egs.EgsError, match="a deformation that fits"):
        head.render(front(), K, 64, 48, torch.zeros(1, 16, 29))


@pytest.mark.parametrize("arguments, words", [
    ("A = dict(n_head=3)", "does not divide"), ("A = dict(n_head=True)", "does not divide"),
    ("A = dict(d_model=64)", "n_head is not known"), ("A = dict(n_head=2, apply_rotation=True)", "apply_rotation")])
def test_settings_that_the_weights_do_not_tell(tmp_path, arguments, words):
    made.write_checkpoint(tmp_path)
    (tmp_path / "args.py").write_text(arguments)
    assert words in egs.read_checkpoint(tmp_path, tmp_path / "args.py").problems()[0]


def test_arguments_of_a_rendering_must_agree(tmp_path):
    made.write_checkpoint(tmp_path)
    head = egs.read_checkpoint(next(tmp_path.rglob("iteration_30000")))  # cfg_args is found from there too
    with pytest.raises(egs.EgsError, match="one row a camera"):
        head.render(front(2), K, 64, 48, torch.zeros(1, 16, 29))
    with pytest.raises(egs.EgsError, match="frames from 0"):
        head.render(front(2), K, 64, 48, frames=[2])
    with pytest.raises(egs.EgsError, match="euler"):
        egs.upstream_cameras(torch.zeros(2, 3), torch.zeros(3, 3))


def test_the_command_prints_each_tensor(tmp_path, capsys):
    made.write_checkpoint(tmp_path)
    assert cli.main(["checkpoint", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3 Gaussians; the head moves with audio" in out
    assert "deformation_net.tri_plane.grid.grids.1.2" in out and "deformation.triplane" in out
