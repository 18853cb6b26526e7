"""Gaussians in PLY files, exchanged with gsply, a package that shares no code with ours."""
from __future__ import annotations

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.model.ply import load_ply, save_ply

gsply = pytest.importorskip("gsply", reason="needs the extra `models`")


def some(n: int, degree: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(n + degree)
    shapes = {"means": (n, 3), "scales": (n, 3), "quats": (n, 4), "opacities": (n,), "sh0": (n, 1, 3),
              "shN": (n, (degree + 1) ** 2 - 1, 3)}
    return {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}


@pytest.mark.parametrize("degree", range(4))
def test_gsply_reads_what_we_write(tmp_path, degree):
    g = some(7, degree)
    save_ply(tmp_path / "a.ply", g)
    read = gsply.plyread(tmp_path / "a.ply")
    for name in ("means", "scales", "quats", "opacities"):
        assert torch.equal(torch.tensor(getattr(read, name)), g[name]), name
    assert torch.equal(torch.tensor(read.sh0), g["sh0"][:, 0])
    k = g["shN"].shape[1]
    assert torch.equal(torch.tensor(read.shN)[:, :k], g["shN"]) and not read.shN[:, k:].any()


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("n", [1, 300])
def test_we_read_what_gsply_writes(tmp_path, n, degree):
    g = some(n, degree)
    arrays = {name: value.numpy() for name, value in g.items()}
    gsply.plywrite(tmp_path / "a.ply", arrays["means"], arrays["scales"], arrays["quats"], arrays["opacities"],
                   arrays["sh0"][:, 0], arrays["shN"] if degree else None)
    read = load_ply(tmp_path / "a.ply")
    k = g["shN"].shape[1]
    assert all(torch.equal(read[name], g[name]) for name in g if name != "shN")
    assert torch.equal(read["shN"][:, :k], g["shN"]) and read["shN"].shape == (n, 15, 3)
    assert not read["shN"][:, k:].any()


def test_harmonics_with_a_gap(tmp_path):
    save_ply(tmp_path / "a.ply", some(3, 3))
    data = (tmp_path / "a.ply").read_bytes().replace(b"f_rest_44", b"f_rest_99")
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(egs.EgsError, match="f_rest"):
        load_ply(tmp_path / "a.ply")
