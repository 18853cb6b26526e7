"""Protects: a head that is exported as a page moves as its network does, and the file is complete, small and safe."""
import base64
import gzip
import json
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load

import egstalker_nb as egs
from egstalker_nb.data.conditions import Conditions
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.training.init_head import new_head
from egstalker_nb.web import distil as distil_module
from egstalker_nb.web import export_web as export_module
from egstalker_nb.web.distil import canonical_values, distil, split_values
from egstalker_nb.web.export_web import HEAD, PAGE
from egstalker_nb.web.page_data import gaussian_tensors, pack


@pytest.fixture(scope="module")
def quick_fit():
    """Fewer steps than an export makes: what is tested here does not need them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BASIS_FRAMES": 150, "FIT_FRAMES": 1500, "STEPS": 1000}.items():
            patch.setattr(distil_module, name, value)
        yield


@pytest.fixture(scope="module")
def renderer(tiny_dataset):
    """The untrained head with random layers of the network, so that everything moves."""
    torch.manual_seed(0)
    head = new_head(tiny_dataset, egs.load_config("quick_test"))
    generator = torch.Generator().manual_seed(0)
    for name, layer in head.deformation.heads.items():
        size = {"means": 0.002, "scales": 0.02, "quats": 0.02, "opacities": 0.05, "sh": 0.01}[name]
        layer.weight.data += size * torch.randn(layer.weight.shape, generator=generator)
    return Renderer(head, tiny_dataset)


@pytest.fixture(scope="module")
def distilled(renderer, quick_fit):
    return distil(renderer)


def given(renderer, mouths, eyes, poses) -> Conditions:
    own = renderer.conditions(range(len(renderer.ds)))
    return Conditions(own.mouth[mouths], own.eyes[eyes], own.w2c[poses])


def test_bases_follow_the_network_where_mouth_eyes_and_pose_never_met(renderer, distilled):
    """Of the motion around its mean, less than half of the variance is left, with few steps and random layers; a fit
    that learned nothing leaves all of it."""
    rng = np.random.default_rng(1)
    conditions = given(renderer, *(rng.integers(len(renderer.ds), size=(3, 40))))
    with torch.no_grad():
        wanted = renderer.head.offsets(conditions)
        found = distilled.offsets(renderer.head, conditions)
    left = {name: float((found[name] - value.reshape(found[name].shape)).square().mean() / value.var(0).mean())
            for name, value in wanted.items()}
    print(left)
    assert max(left.values()) < 0.75 and np.mean(list(left.values())) < 0.5, left


def test_distilling_is_repeatable_and_leaves_random_numbers_alone(renderer, distilled):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = distil(renderer)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.bases, distilled.bases) and torch.equal(again.base, distilled.base)


def test_bases_fit_the_file_however_many_gaussians(renderer, quick_fit, monkeypatch):
    numbers = canonical_values(renderer.head).numel()
    monkeypatch.setattr(distil_module, "MAX_BASIS_BYTES", 3 * numbers + 5)
    monkeypatch.setattr(distil_module, "STEPS", 10)
    assert distil(renderer).bases.shape[0] == 3


def test_values_are_in_the_order_that_the_page_reads(renderer, distilled):
    """Means, logarithms of scales, quaternions, logit of the opacity, harmonics; bases of a value side by side."""
    g, values = renderer.head.gaussians, split_values(canonical_values(renderer.head))
    for name in ("means", "scales", "quats"):
        assert torch.equal(values[name], g[name])
    assert torch.equal(values["opacities"][:, 0], g["opacities"])
    assert torch.equal(values["sh"][:, 3:6], g["shN"][:, 0])
    tensors, conditions = gaussian_tensors(distilled), given(renderer, [0, 3], [1, 4], [2, 5])
    base = np.concatenate([tensors["gaussians.means"], tensors["gaussians.values"]], 1)
    x = distil_module.condition_values(conditions).numpy()
    for i in range(3):
        x = x @ tensors[f"motion.{i}.weight"].T + tensors[f"motion.{i}.bias"]
        x = np.tanh(x) if i < 2 else x
    moved = base + np.einsum("bk,kd,ndk->bnd", x, tensors["gaussians.steps"], tensors["gaussians.bases"])
    np.testing.assert_allclose(moved, distilled.values(conditions), atol=5e-3)  # half precision of `values`


def test_a_packed_head_is_read_as_it_was_written():
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([-3, 5], np.int8)}
    text = pack(tensors, {"title": "</script> ü"})
    data = gzip.decompress(base64.b64decode(text))
    assert all(np.array_equal(value, tensors[name]) for name, value in load(data).items())
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["facts"]) == {"title": "</script> ü"} and "<" not in text


def test_the_page_holds_the_head_once_and_its_title_is_text(renderer, quick_fit, tmp_path, monkeypatch):
    """Also where the folder exists not yet; no script can come in through a title."""
    monkeypatch.setattr(export_module.Renderer, "from_run", lambda run, iteration, device: renderer)
    monkeypatch.setattr(renderer, "deform", True)
    monkeypatch.setattr(distil_module, "STEPS", 10)
    done = egs.export_web(None, tmp_path / "new" / "head.html", title="<script>alert(1)</script>")
    text = done.path.read_text(encoding="utf-8")
    assert text.count(HEAD) == 1 and "<script>alert" not in text and "&lt;script&gt;" in text
    assert done.bytes == len(text.encode()) < 15e6 and done.gaussians == len(renderer.head)
    assert "default-src 'none'" in text and "trainedAlgorithmicMedia" in text
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)


def test_the_shipped_page_has_the_places_that_an_export_fills():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(HEAD) == 1 and text.count("<title>Talking head</title>") == 1
