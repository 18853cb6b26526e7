"""Protects: the fine stage starts as the coarse result, and the attention behaves as its docstring says."""
from dataclasses import replace

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.core.errors import InputError
from egstalker_nb.data.conditions import Conditions
from egstalker_nb.face.regions import part_landmarks, share_of_parts
from egstalker_nb.model.deformation import TaylorKAN
from egstalker_nb.model.gaussians import make_gaussians
from egstalker_nb.model.ply import load_ply, save_ply
from egstalker_nb.training.fit_mouth import fit_mouth
from egstalker_nb.training.init_head import new_head


@pytest.fixture
def head(tiny_dataset):
    torch.manual_seed(0)
    return new_head(tiny_dataset, egs.load_config("quick_test")).eval()


def inputs(ds, ids=(0, 3)):
    ids = torch.tensor(ids)
    return Conditions(fit_mouth(ds).coefficients[ids], torch.from_numpy(ds.eyes)[ids], torch.from_numpy(ds.w2c)[ids])


def wake(head):
    """Give the zero-started heads some weight, as after training."""
    for layer in head.deformation.heads.values():
        torch.nn.init.normal_(layer.weight, std=0.02)


def test_fine_stage_starts_as_the_coarse_result(head, tiny_dataset):
    with torch.no_grad():
        coarse, _, _ = head.render(inputs(tiny_dataset), tiny_dataset.K, 64, deform=False)
        fine, _, _ = head.render(inputs(tiny_dataset), tiny_dataset.K, 64, deform=True)
    assert torch.equal(coarse, fine)
    assert coarse.std() > 0.01, "an empty picture would be equal too"
    assert set(head.offsets(inputs(tiny_dataset))) == {"means", "scales", "quats", "opacities", "sh"}


def test_audio_eye_and_camera_each_reach_the_image(head, tiny_dataset):
    wake(head)
    given = inputs(tiny_dataset)
    base = head.offsets(given)["means"]
    assert base.shape == (2, 478, 3)
    for changed in ({"mouth": given.mouth + 1}, {"eyes": 1 - given.eyes}, {"pose": given.w2c.flip(0)}):
        # a hundredth of the offsets at least: with too small a start, audio is never learned
        assert (head.offsets(replace(given, **changed))["means"] - base).std() > 0.01 * base.std()


def test_each_part_of_the_face_attends_to_its_own_token(head, tiny_dataset):
    """Protects against memorising frames by lips and lids: only audio moves lips, only the eye token lids."""
    wake(head)
    given = inputs(tiny_dataset)
    shares = share_of_parts(head.gaussians["means"], *part_landmarks(torch.from_numpy(tiny_dataset.mean_face)))
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))

    def change(view, **changed):
        chosen = torch.zeros(len(shares), 3)
        chosen[:, ("rest", "mouth", "eyes").index(view)] = 1
        feature = head.deformation.triplane(head.gaussians["means"])
        spatial = feature, head.deformation.attention.spatial_weights(feature, chosen)
        tokens = [head.deformation.tokens(x) for x in (replace(given, **changed), given)]
        a, b = (head.deformation.decode(spatial, t)["means"] for t in tokens)
        return (a - b).abs().max()

    audio, lids, camera = {"mouth": given.mouth + 1}, {"eyes": 1 - given.eyes}, {"pose": given.w2c.flip(0)}
    assert change("mouth", **audio) > 0 and change("mouth", **lids) == change("mouth", **camera) == 0
    assert change("eyes", **lids) > 0 and change("eyes", **audio) == change("eyes", **camera) == 0
    assert min(change("rest", **changed) for changed in (audio, lids, camera)) > 0


def test_offsets_do_not_depend_on_the_order_of_gaussians(head, tiny_dataset):
    wake(head)
    tokens = head.deformation.tokens(inputs(tiny_dataset))
    order = torch.randperm(len(head))
    means = head.gaussians["means"].detach()
    a = head.deformation.decode(head.deformation.spatial(means), tokens)["means"][:, order]
    b = head.deformation.decode(head.deformation.spatial(means[order]), tokens)["means"]
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_attention_rows_sum_to_one(head, tiny_dataset):
    weights = head.attention(inputs(tiny_dataset))
    assert weights.shape == (2, 478, 4) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 478))


def test_every_parameter_of_the_network_learns(head, tiny_dataset):
    wake(head)
    head.train()
    rgb, _, _ = head.render(inputs(tiny_dataset), tiny_dataset.K, 64)
    rgb.square().mean().backward()
    still = [n for n, p in head.deformation.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    allowed = {"null"} if head.cfg.token_dropout == 0 else set()
    assert set(still) <= allowed


def test_taylor_kan_is_a_cubic_of_squashed_inputs():
    layer = TaylorKAN(1, 1)
    with torch.no_grad():
        layer.weights.weight.copy_(torch.tensor([[2.0, -1.0, 0.5]]))
        layer.weights.bias.fill_(0.25)
    x = torch.tensor([[-3.0], [0.0], [0.7]])
    t = torch.tanh(x)
    torch.testing.assert_close(layer(x), 0.25 + 2 * t - t ** 2 + 0.5 * t ** 3)


def test_ply_round_trip_in_the_common_layout(tmp_path):
    torch.manual_seed(1)
    g = make_gaussians(torch.randn(20, 3), torch.rand(20, 3), 1)
    for p in g.values():
        torch.nn.init.normal_(p)
    save_ply(tmp_path / "p.ply", dict(g))
    back = load_ply(tmp_path / "p.ply", sh_degree=1)
    for name, value in g.items():
        assert torch.equal(back[name], value.data), name
    text = (tmp_path / "p.ply").read_bytes().split(b"end_header")[0].decode()
    names = [line.split()[-1] for line in text.splitlines() if line.startswith("property")]
    assert names == (["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
                     + [f"f_rest_{i}" for i in range(45)]
                     + ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"])
    # viewers read f_rest colour by colour: the first 15 are red
    assert torch.equal(load_ply(tmp_path / "p.ply", 3)["shN"][:, 3:], torch.zeros(20, 12, 3))


def test_a_file_that_is_no_gaussian_cloud_is_an_error(tmp_path):
    (tmp_path / "p.ply").write_text("no")
    with pytest.raises(InputError, match="3DGS layout"):
        load_ply(tmp_path / "p.ply")


def test_gaussians_start_on_the_face_with_its_colours(tiny_dataset):
    head = new_head(tiny_dataset, egs.load_config("production"))
    assert torch.equal(head.gaussians["means"].data, torch.from_numpy(tiny_dataset.mean_face))
    with torch.no_grad():
        _, alpha, _ = head.render(inputs(tiny_dataset), tiny_dataset.K, 64, deform=False)
    mask = torch.from_numpy(tiny_dataset.mask(0)[..., 0]) > 128
    assert alpha[0, ..., 0][mask].mean() > 5 * alpha[0, ..., 0][~mask].mean()
