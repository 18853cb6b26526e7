"""Protects: nothing in a file is executed, memory is reserved only for what is there, and what is wrong is said in one
line. (`tests/faults/test_fuzz.py` looks for more.)"""
import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

from egstalker_nb.core import device, reading
from egstalker_nb.core.errors import InputError
from egstalker_nb.core.reading import (
    ArraySpec,
    Unreadable,
    digest,
    parse_yaml,
    read_json,
    read_npy,
    read_npz,
    read_safetensors,
    read_text,
    read_torch,
    read_yaml,
    shown,
)
from egstalker_nb.model.ply import load_ply, save_ply


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def npz(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header(shape, descr="'<f4'", body=b""):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize("read, data", [
    (read_npy, lambda payload: npy(np.array([payload], object))),
    (read_npz, lambda payload: npz({"a.npy": npy(np.array([payload], object))})),
    (read_torch, lambda payload: saved({"a": payload})),
    (read_safetensors, lambda payload: npy(np.array([payload], object)))])
def test_nothing_is_unpickled(tmp_path, read, data):
    (tmp_path / "file").write_bytes(data(Payload(tmp_path / "planted")))
    with pytest.raises(Unreadable):
        read(tmp_path / "file")
    assert not (tmp_path / "planted").exists()


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("data, words", [
    (header("(10**12,)"), "no .npy"), (header("(1000000000000,)"), "announces 4000000000128"),
    (header("(-2, -6)", body=bytes(48)), "announces"), (header("(3,)", body=bytes(8)), "has 136 bytes"),
    (header("(3,)", "'|O'"), "Python objects"), (header("(1,)", "__import__('os')"), "no .npy"),
    (header("(" * 500), "no .npy"), (header(f"({'1,' * 33})", body=bytes(4)), "announces"),
    (header(f"({'9' * 60},)"), "announces"), (header("(1,)", "'<c8'", bytes(8)), "complex numbers"),
    (header("(1,)", "[('a', '<f4')]", bytes(4)), "instead of real numbers"), (b"", "no .npy"),
    (b"\x93NUMPY\x09\x00", "version")])
def test_headers_that_lie(tmp_path, data, words):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(Unreadable, match=words):
        read_npy(tmp_path / "a.npy")


def test_arrays_come_back_as_they_were_saved(tmp_path):
    rng = np.random.default_rng(0)
    for array in (rng.normal(size=(3, 4)), np.asfortranarray(rng.normal(size=(3, 4))), np.array(5), np.zeros((0, 3)),
                  np.arange(6, dtype=">i4"), np.array([True, False]), rng.normal(size=7).astype(np.float16)):
        np.save(tmp_path / "a.npy", array)
        np.savez_compressed(tmp_path / "a.npz", a=array, b=array)
        for again in (read_npy(tmp_path / "a.npy"), read_npz(tmp_path / "a.npz")["b"]):
            np.testing.assert_array_equal(again, array)
            assert again.dtype == array.dtype and again.flags.writeable
    assert read_npz(tmp_path / "a.npz", {"a": ArraySpec((None,))}).keys() == {"a"}
    with pytest.raises(Unreadable, match=r"a of '.*' holds float16 \[7\] instead of integers \[6\]"):
        read_npz(tmp_path / "a.npz", {"a": ArraySpec((6,), "iu")})
    with pytest.raises(Unreadable, match="no array 'c'"):
        read_npz(tmp_path / "a.npz", {"c": ArraySpec((7,))})


def test_a_small_archive_of_much_data_is_read_only_if_it_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ARRAY_BYTES", 1 << 20)
    (tmp_path / "a.npz").write_bytes(npz({"a.npy": npy(np.zeros(1 << 20, np.float32))}))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    assert read_npz(tmp_path / "a.npz")["a"].shape == (1 << 20,)
    monkeypatch.setattr(device, "available_memory", lambda: 4 << 20)
    with pytest.raises(Unreadable, match="more than fits into memory"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("place", [200, 1000, 3000])
def test_a_flipped_bit_in_an_archive_is_seen(tmp_path, place):
    data = npz({"a.npy": npy(np.random.default_rng(0).normal(size=500))})
    flipped = bytearray(data)
    flipped[place] ^= 1
    (tmp_path / "a.npz").write_bytes(flipped)
    with pytest.raises(Unreadable, match="damaged|announces|NaN"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("text, words", [
    ("a: !!python/object/apply:os.getcwd []", "tags"), ("a: !!set {x}", "tags"), ("a: &x 1\nb: *x", r"aliases \(\*x\)"),
    ("a: 1\na: 2", "'a' stands there twice"), ("a:\n\t- 1", "line 2"), ("[" * 60, "nesting"),
    ("? {a: 1}\n: 2", "a key must be a name"), ("a: 0b_", "invalid literal"), ("9" * 5000, "digits"),
    ("a: [1", "line 1")])
def test_yaml_is_plain(text, words):
    with pytest.raises(Unreadable, match=words) as error:
        parse_yaml(text)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_plain_yaml_values():
    assert parse_yaml("{a: 1, b: [1.5, x, true, null], 'c': 2001-01-01, d: '<<', <<: 5}") == {
        "a": 1, "b": [1.5, "x", True, None], "c": "2001-01-01", "d": "<<", "<<": 5}


def test_text_with_a_byte_order_mark_is_text(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffa: ä".encode())
    assert read_yaml(tmp_path / "a") == {"a": "ä"}
    (tmp_path / "a").write_bytes('\ufeff{"a": 1}'.encode())
    assert read_json(tmp_path / "a", a=int) == {"a": 1}


@pytest.mark.parametrize("value, kind, words", [
    (None, int, "a None"), (True, int, "a True"), (1.0, int, "a 1.0"), (float("nan"), float, "a nan"),
    ([1], dict, r"a \[1\]"), ("x" * 10_000, int, "a 'xxx.{20,60}xxx'")])
def test_json_has_the_keys_and_types_that_are_asked_for(tmp_path, value, kind, words):
    (tmp_path / "a").write_text(json.dumps({"a": value}))
    with pytest.raises(Unreadable, match=f"has {words}"):
        read_json(tmp_path / "a", a=kind)
    with pytest.raises(Unreadable, match="has no b"):
        read_json(tmp_path / "a", b=kind)


@pytest.mark.parametrize("read", [read_text, read_json, read_yaml, read_npy, read_npz, read_safetensors, read_torch])
def test_what_is_no_file_is_not_read(tmp_path, read):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name in ("loop", "folder", "none", "x" * 300, "a\0b", "folder/none"):
        with pytest.raises(Unreadable, match="no file|not a file|cannot be read"):
            read(tmp_path / name)
    with pytest.raises(Unreadable, match="not a file"):
        read(tmp_path.__class__("/dev/zero"))


def test_tensors_need_memory_of_their_own(tmp_path):
    """A stride of zero makes a terabyte of four bytes; sparse tensors and other classes have sizes of their own."""
    good = {"a": torch.arange(6.0).view(2, 3), "b": {"c": [1, 2.5, "x", None, (True,)]}}
    (tmp_path / "a.pt").write_bytes(saved(good))
    assert torch.equal(read_torch(tmp_path / "a.pt")["a"], good["a"])
    wide = torch.zeros(1).expand(10 ** 12)
    sparse = torch.zeros(3).to_sparse()
    for wrong in ({"a": wide}, {"a": [{"b": wide}]}, {"a": sparse}, {"a": {1, 2}}, [1], torch.zeros(3)):
        (tmp_path / "a.pt").write_bytes(saved(wrong))
        with pytest.raises(Unreadable, match="instead of named tensors"):
            read_torch(tmp_path / "a.pt")


def test_torch_files_are_archives_that_are_not_compressed(tmp_path):
    """The older formats reserve memory before they look at the file, and compressed ones grow without limit."""
    torch.save({"a": torch.zeros(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(100_000)}))) as source:
        (tmp_path / "small.pt").write_bytes(npz({name: source.read(name) for name in source.namelist()}))
    for name in ("old.pt", "small.pt"):
        with pytest.raises(Unreadable, match="damaged, or holds more than tensors") as error:
            read_torch(tmp_path / name)
        assert "weights_only" not in str(error.value) and "trust" not in str(error.value)


def test_safetensors_headers_that_lie(tmp_path):
    good = save({"a": torch.arange(4.0)}, {"note": "x"})
    (tmp_path / "a").write_bytes(good)
    tensors, facts = read_safetensors(tmp_path / "a")
    assert torch.equal(tensors["a"], torch.arange(4.0)) and facts == {"note": "x"}
    for wrong in (good[:-1], good[:5], struct.pack("<Q", 2 ** 60) + good[8:], good.replace(b"[4]", b"[9]"), b""):
        (tmp_path / "a").write_bytes(wrong)
        with pytest.raises(Unreadable, match="damaged, or no safetensors"):
            read_safetensors(tmp_path / "a")


def test_values_in_messages_are_short_and_of_one_line():
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in ("x" * 10 ** 6, list(range(10 ** 6)), {i: i for i in range(10 ** 4)}, 10 ** 4000, 1 << 10 ** 5, "a\nb",
                  deep, np.zeros(1000), b"\0" * 10 ** 6):
        assert len(shown(value)) <= 210 and "\n" not in shown(value), type(value)
    assert shown("a") == "'a'" and shown([1, 2.5, None]) == "[1, 2.5, None]"


def test_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---- PLY ----

@pytest.fixture(scope="module")
def gaussians():
    generator = torch.Generator().manual_seed(0)
    shapes = {"means": (5, 3), "scales": (5, 3), "quats": (5, 4), "opacities": (5,), "sh0": (5, 1, 3),
              "shN": (5, 15, 3)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_ply_round_trip(tmp_path, gaussians):
    save_ply(tmp_path / "a.ply", gaussians)
    again = load_ply(tmp_path / "a.ply")
    assert again.keys() == gaussians.keys() and all(torch.equal(again[name], gaussians[name]) for name in again)


@pytest.mark.parametrize("old, new, words", [
    (b"element vertex 5", b"element vertex 1000000000000", "1000000000000 vertices, but 5 follow"),
    (b"element vertex 5", b"element vertex 4", "4 vertices, but 5 follow"),
    (b"element vertex 5", b"element vertex -1", "one table"), (b"element vertex 5", b"element vertex x", "one table"),
    (b"element vertex 5", b"element vertex 5\nelement face 1", "one table"),
    (b"binary_little_endian", b"binary_big_endian", "little-endian"),
    (b"binary_little_endian", b"ascii", "little-endian"), (b"property float opacity\n", b"", "no property opacity"),
    (b"float opacity", b"double opacity", "instead of a float"),
    (b"float opacity", b"list uchar int opacity", "instead of a float"), (b"float nx", b"float x", "a property twice"),
    (b"opacity", b"opacitx", "no property opacity"),
    (b"end_header", b"end_heade_", "little-endian"), (b"ply\n", b"PLY\n", "little-endian")])
def test_ply_headers_that_lie(tmp_path, gaussians, old, new, words):
    save_ply(tmp_path / "a.ply", gaussians)
    data = (tmp_path / "a.ply").read_bytes()
    assert old in data
    (tmp_path / "a.ply").write_bytes(data.replace(old, new, 1))
    with pytest.raises(InputError, match=words) as error:
        load_ply(tmp_path / "a.ply")
    assert len(str(error.value).splitlines()) == 1


def test_damaged_ply_files(tmp_path, gaussians):
    save_ply(tmp_path / "a.ply", gaussians)
    data = (tmp_path / "a.ply").read_bytes()
    bad = gaussians["means"].clone()
    bad[3, 1] = float("nan")
    save_ply(tmp_path / "nan.ply", {**gaussians, "means": bad})
    for name, content in (("cut.ply", data[:-7]), ("empty.ply", b""), ("long.ply", data + b"x"), ("words.ply", b"x")):
        (tmp_path / name).write_bytes(content)
    for name, words in (("nan.ply", "vertex 3"), ("cut.ply", "but 4.9"), ("empty.ply", "not a binary"),
                        ("long.ply", "but 5.0"), ("words.ply", "not a binary"), ("none.ply", "No such file"),
                        (".", "directory")):
        with pytest.raises(InputError, match=words):
            load_ply(tmp_path / name)
