"""Protects: a head in SPZ stands upright in other programs, looks as before, and comes back; no file is trusted."""
from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest
import torch
from faults.fuzzing import damaged as damaged_bytes
from faults.made import copy_run
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_rasterizer import harmonics

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.core.errors import InputError, MissingPackageError
from egstalker_nb.model.gaussian_files import file_writer, save_spz

gsply = pytest.importorskip("gsply", reason="needs the extra `models`")
TURN = torch.diag(torch.tensor([1.0, -1, -1, 1]))  # from RUB to RDF axes
HEADER = 16


def cloud(n: int, degree: int, spread: float = 0.3) -> dict[str, torch.Tensor]:
    """Elongated Gaussians of any direction, most of them below and to the right, whose colours depend on the view."""
    draw = torch.Generator().manual_seed(10 * n + degree)
    shapes = {"means": (n, 3), "scales": (n, 3), "quats": (n, 4), "opacities": (n,), "sh0": (n, 1, 3),
              "shN": (n, (degree + 1) ** 2 - 1, 3)}
    g = {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    return {**g, "means": spread * g["means"].abs() * torch.tensor([1, 1, -1.0]), "scales": g["scales"] - 3,
            "shN": (spread * g["shN"]).clamp(-0.99, 0.99)}


def picture(g: dict[str, torch.Tensor], world: torch.Tensor) -> torch.Tensor:
    """[64, 64, 3]; `world`: the turn from the cloud's axes to RDF."""
    w2c = torch.eye(4)
    w2c[2, 3] = 2
    k = torch.tensor([[80.0, 0, 32], [0, 80, 32], [0, 0, 1]])
    degree = {0: 0, 3: 1, 8: 2, 15: 3}[g["shN"].shape[1]]
    rgb, _, _ = egs.rasterize(g["means"], g["quats"], g["scales"].exp(), g["opacities"].sigmoid(),
                              torch.cat([g["sh0"], g["shN"]], 1), (w2c @ world)[None], k[None], 64, 64,
                              sh_degree=degree)
    return rgb[0]


@pytest.mark.parametrize("degree", range(4))
def test_gsply_sees_the_same_head_in_the_axes_of_spz(tmp_path, degree):
    """The camera is turned, not the Gaussians: positions, rotations and harmonics must all agree with it."""
    g = cloud(300, degree)
    save_spz(tmp_path / "a.spz", g)
    read = gsply.read_spz(tmp_path / "a.spz")
    raw = {name: torch.tensor(getattr(read, name)) for name in ("means", "scales", "quats", "opacities")}
    raw["sh0"] = torch.tensor(read.sh0)[:, None]
    raw["shN"] = torch.tensor(read.shN) if degree else raw["sh0"][:, :0]
    want, upside_down = picture(g, torch.eye(4)), picture(raw, torch.eye(4))
    assert (picture(raw, TURN) - want).abs().mean() < 0.01 < 0.05 < (upside_down - want).abs().mean()
    assert (picture(egs.read_gaussians(tmp_path / "a.spz"), torch.eye(4)) - want).abs().mean() < 0.01


def test_each_harmonic_is_turned(tmp_path):
    """One Gaussian per coefficient: its colour from any side is that from the turned side."""
    g = {**cloud(15, 3), "shN": 0.75 * torch.eye(15)[:, :, None].repeat(1, 1, 3)}
    save_spz(tmp_path / "a.spz", g)
    stored = torch.cat([torch.zeros(15, 1, 3), torch.tensor(gsply.read_spz(tmp_path / "a.spz").shN)], 1)
    given = torch.cat([torch.zeros(15, 1, 3), g["shN"]], 1)
    sides = torch.nn.functional.normalize(torch.randn(40, 1, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    for side in sides:
        want = harmonics(3, side.expand(15, 3), given)
        assert torch.allclose(harmonics(3, (side @ TURN[:3, :3]).expand(15, 3), stored), want, atol=1e-5)


def test_bytes_of_one_gaussian(tmp_path):
    """By the format's definition: version 3; a point to the right, below and in front of the origin."""
    g = cloud(1, 0)
    g["means"] = torch.tensor([[0.5, 0.25, -0.125]])
    save_spz(tmp_path / "a.spz", g)
    data = gzip.decompress((tmp_path / "a.spz").read_bytes())
    assert struct.unpack_from("<4sIIBB", data) == (b"NGSP", 3, 1, 0, 12) and len(data) == HEADER + 20
    at = [int.from_bytes(data[i:i + 3], "little", signed=True) / 4096 for i in (HEADER, HEADER + 3, HEADER + 6)]
    assert at == [0.5, -0.25, 0.125]


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("n", [0, 1, 7, 400])
def test_round_trip(tmp_path, n, degree):
    """Within the steps of the format; PLY is exact."""
    g = cloud(n, degree)
    for name in ("a.PLY", "a.spz"):
        file_writer(name)(tmp_path / name, g)
    k = g["shN"].shape[1]
    ply, spz = egs.read_gaussians(tmp_path / "a.PLY"), egs.read_gaussians(tmp_path / "a.spz")
    assert ply["shN"].shape == spz["shN"].shape == (n, 15, 3) and not spz["shN"][:, k:].any()
    assert all(torch.equal(ply[name][:, :k] if name == "shN" else ply[name], g[name]) for name in g)
    unit = torch.nn.functional.normalize(g["quats"], dim=-1)
    same = (spz["quats"] * unit).sum(-1).abs()  # q and -q are one rotation
    assert same.numel() == 0 or same.min() > 1 - 1e-5
    limits = {"means": 2 ** -13, "scales": 1 / 32, "sh0": 0.0131, "shN": 1 / 256}
    given = {**g, "sh0": g["sh0"].clamp(-3.33, 3.33)}
    for name, limit in limits.items():
        back = spz[name][:, :k] if name == "shN" else spz[name]
        assert torch.allclose(back, given[name], rtol=0, atol=limit + 1e-4), name
    assert torch.allclose(spz["opacities"].sigmoid(), g["opacities"].sigmoid(), rtol=0, atol=0.5 / 255 + 1e-5)


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_extreme_values_are_clipped(tmp_path, size):
    g = {name: torch.full_like(value, size) for name, value in cloud(3, 2).items()}
    save_spz(tmp_path / "a.spz", {**g, "quats": torch.eye(4)[:3]})
    back = egs.read_gaussians(tmp_path / "a.spz")
    assert all(value.isfinite().all() for value in back.values())
    assert (back["means"].sign() == np.sign(size)).all() and (back["means"].abs() - 2048).abs().max() < 1e-3
    assert (back["shN"][:, :8].sign() == np.sign(size)).all() and back["scales"][0, 0] == (5.9375 if size > 0 else -10)


@pytest.mark.parametrize("name", ["a.ply", "a.spz"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite(tmp_path, name, value):
    g = cloud(3, 0)
    g["scales"][1, 2] = value
    with pytest.raises(InputError, match="NaN or infinite scales"):
        file_writer(name)(tmp_path / name, g)
    assert not list(tmp_path.iterdir())


def damaged(data: bytes) -> dict[str, tuple[bytes, str]]:
    """Name -> file, and what its error says."""
    raw = gzip.decompress(data)

    def header(**fields: int) -> bytes:
        values = {"magic": 0x5053474E, "version": 3, "n": 20, "degree": 1, "bits": 12, **fields}
        return gzip.compress(struct.pack("<IIIBBBB", *values.values(), 0, 0) + raw[HEADER:])

    return {"empty": (b"", "too short"), "text": (b"text" * 20, "gzip"), "cut": (data[:-40], "end-of-stream"),
            "crc": (data[:-8] + bytes(8), "CRC"), "magic": (header(magic=1), "header"),
            "version 1, with half floats": (header(version=1), "header"), "version": (header(version=4), "header"),
            "not gzipped": (raw, "gzip"), "degree": (header(degree=9), "header"), "bits": (header(bits=60), "bits"),
            "fewer": (header(n=21), "fewer bytes than the 21"), "more": (header(n=19), "more bytes than the 19"),
            "four billion": (header(n=2 ** 32 - 1), "4294967295 Gaussians, more than"),
            "a bomb": (gzip.compress(raw + bytes(50 << 20), 1), "more bytes than the 20"),
            "a ply": (b"ply\nformat ascii 1.0\nend_header\n", "gzip")}


def test_damaged_files(tmp_path, monkeypatch):
    """Each is one line, and gsply, which decompresses everything at once, sees only what fits its header."""
    save_spz(tmp_path / "a.spz", cloud(20, 1))
    read, seen = gsply.read_spz, []
    monkeypatch.setattr(gsply, "read_spz", lambda path: (seen.append(path.stem), read(path))[1])
    for name, (content, words) in damaged((tmp_path / "a.spz").read_bytes()).items():
        (tmp_path / f"{name}.spz").write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            egs.read_gaussians(tmp_path / f"{name}.spz")
        assert len(str(error.value).splitlines()) == 1
    assert seen == ["bits"]
    for name, words in (("none.spz", "No such file"), ("a.sog", "named .ply or .spz"), ("a", "named .ply or .spz")):
        with pytest.raises(InputError, match=words):
            egs.read_gaussians(tmp_path / name)
    (tmp_path / "wrong.ply").write_bytes((tmp_path / "a.spz").read_bytes())
    with pytest.raises(InputError, match="PLY"):
        egs.read_gaussians(tmp_path / "wrong.ply")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


RAW = struct.pack("<IIIBBBB", 0x5053474E, 3, 2, 1, 12, 0, 0) + bytes(range(2 * 29))


@settings(max_examples=100, deadline=None)
@given(content=st.one_of(damaged_bytes(gzip.compress(RAW)), damaged_bytes(RAW).map(gzip.compress)))
def test_any_file_is_read_or_refused(place, content):
    (place / "a.spz").write_bytes(content)
    try:
        g = egs.read_gaussians(place / "a.spz")
    except InputError:
        return
    assert all(value.isfinite().all() and len(value) == len(g["means"]) for value in g.values())


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsply", None)
    for call in (file_writer, egs.read_gaussians):
        with pytest.raises(MissingPackageError, match="pip install 'egstalker-nb\\[models\\]'"):
            call(tmp_path / "a.spz")
    assert file_writer("a.ply")


def test_the_canonical_head_in_one_file(tmp_path, capsys):
    run = egs.load_run(copy_run(tmp_path))
    head = run.load_head(device="cpu")
    for name in ("new/head.ply", "new/head.spz"):
        assert cli.main(["export-gaussians", str(run.root), str(tmp_path / name)]) == 0
        back = egs.read_gaussians(tmp_path / name)
        assert torch.allclose(back["means"], head.gaussians["means"], rtol=0, atol=2e-4), name
    assert egs.export_gaussians(run, str(tmp_path / "new" / "head.ply"), 5).is_file(), "replaced"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["head.ply", "head.spz"]
