"""Strategies that damage files: bytes changed, parts replaced by others of any kind, and what nobody would write."""
from __future__ import annotations

import copy
import io
import json
import re
import struct
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st

NUMBERS = (b"-1", b"0", b"0.5", b"1e400", b"-1e308", b"999999999999", b"9" * 400, b"NaN", b"Infinity", b"true", b"0x1f",
           b"''")
#: what YAML makes something special of
TOKENS = ("!!python/object/apply:os.getcwd []", "!!binary aGk=", "&a [x]", "*a", "{<<: *a}", "? [1, 2]\n: 3", "\t",
          "---\n", "...\n", "%YAML 1.1\n", "2001-01-01", "12:30:45", "|\n  x", ">", "{", "[" * 70, "}",
          "0x" + "f" * 5000, "9" * 5000, "~", "yes", "=", "<<", "\0", "\x85", "\u2028", "\ufeff", "'", '"', "#",
          "- ", ": ", "1e999", ".inf", ".nan", "-0.0")
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from([10 ** 400, -1, 0, 2 ** 31, 2 ** 63, 1e308, -1e-320, "x" * 5000, "a\nb", "../..", "/dev/zero",
                     "1e-3"]))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)), max_leaves=5)
DTYPES = ("<f4", "<f8", "<f2", ">f4", "<i4", "<u8", "|b1", "<c8", "<U3", "|S2", "|O", "<M8[s]", [("a", "<f4")], "<f4")


@st.composite
def damaged(draw: Any, valid: bytes) -> bytes:
    """Bytes with a few of them flipped, removed, inserted, repeated, or with another number in their text."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        last = max(len(data) - 1, 0)
        at = draw(st.one_of(st.integers(0, last), st.integers(0, min(last, 300)),
                            st.integers(max(0, last - 300), last)))
        kind = draw(st.sampled_from(("flip", "cut", "drop", "insert", "copy", "number", "number")))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at:at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = draw(st.one_of(st.binary(max_size=16), st.sampled_from([b"\0" * 64, b"\xff" * 8, b"["])))
        elif kind == "copy":
            data[at:at] = data[draw(st.integers(0, last)):][:draw(st.integers(1, 200))]
        elif found := list(re.finditer(rb"\d+", bytes(data[:3000]))):
            place = draw(st.sampled_from(found))
            data[place.start():place.end()] = draw(st.sampled_from(NUMBERS))
    return bytes(data)


@st.composite
def edited(draw: Any, value: Any) -> Any:
    """Nested dictionaries and lists with one to three of their parts replaced, removed, renamed or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        place = value
        while place and draw(st.booleans()):
            inner = [part for part in (place.values() if isinstance(place, dict) else place)
                     if isinstance(part, (dict, list)) and part]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys)) if keys else "x"
        kind = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "scale")))
        if isinstance(place, list):
            place.append(draw(VALUES))
        elif kind == "replace":
            place[key] = draw(VALUES)
        elif kind == "remove":
            place.pop(key, None)
        elif kind == "rename":
            place[draw(st.one_of(st.text(max_size=8), st.just(key.upper())))] = place.pop(key, None)
        elif isinstance(place.get(key), (int, float)):
            place[key] = place[key] * draw(st.sampled_from([-1, 0, 2, 1000, 10 ** 12, 1.0, 0.5]))
    return value


def json_file(value: Any) -> st.SearchStrategy[bytes]:
    """A JSON file like this one, with other values or other bytes."""
    whole = json.dumps(value, indent=1).encode()
    other = edited(value).map(lambda v: json.dumps(v).encode())
    return st.one_of(other, other, damaged(whole), VALUES.map(lambda v: json.dumps(v).encode()))


def text_with(valid: str, tokens: tuple[str, ...] = TOKENS) -> st.SearchStrategy[str]:
    """A text with something special at some line, or with a token in place of a value."""
    lines = valid.splitlines()

    def put(at: int, token: str, instead: bool) -> str:
        name = lines[at].partition(":")[0]
        return "\n".join([*lines[:at], f"{name}: {token}" if instead else token, *lines[at + instead:]])

    special = st.one_of(st.sampled_from(tokens), st.text(max_size=20))
    return st.builds(put, st.integers(0, len(lines) - 1), special, st.booleans())


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@st.composite
def odd_array(draw: Any, valid: np.ndarray) -> np.ndarray:
    """An array with some values replaced, or of another dtype or shape."""
    kind = draw(st.sampled_from(("values", "values", "dtype", "shape", "any")))
    if kind == "values":
        array = valid.copy()
        for _ in range(draw(st.integers(1, 3))):
            odd = draw(st.sampled_from([np.nan, np.inf, -1, 0, 1e30, -1e9, 7]))
            start, length = draw(st.integers(0, array.size - 1)), draw(st.sampled_from([1, 3, 16, 10 ** 6]))
            with np.errstate(all="ignore"):
                array.reshape(-1)[start:start + length] = np.array(odd).astype(array.dtype)
        return array
    if kind == "dtype":
        try:
            return valid.astype(draw(st.sampled_from(DTYPES)))
        except (TypeError, ValueError):
            return np.zeros(len(valid), "<M8[s]")
    if kind == "shape":
        return draw(st.sampled_from([valid[:-1], valid[None], valid.reshape(-1), valid[..., :1], valid[:0], valid.T,
                                     np.concatenate([valid, valid]), np.asfortranarray(valid)]))
    return np.zeros(draw(st.lists(st.integers(0, 3), max_size=4)), draw(st.sampled_from(DTYPES)))


def npy_file(valid: np.ndarray) -> st.SearchStrategy[bytes]:
    """A `.npy` file like this one, with another array or other bytes."""
    return st.one_of(odd_array(valid).map(npy), damaged(npy(valid)), header_of_npy(npy(valid)))


def header_of_npy(valid: bytes) -> st.SearchStrategy[bytes]:
    """A `.npy` file whose header says something else."""
    length, = struct.unpack("<H", valid[8:10])
    body = valid[10 + length:]

    def with_header(descr: str, order: str, shape: str) -> bytes:
        header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        return valid[:8] + struct.pack("<H", len(header)) + header + body

    return st.builds(
        with_header,
        st.sampled_from(["'<f4'", "'|O'", "'<f8'", "[('a', '<f4')]", "'<f4' * 3", "__import__('os')",
                         "('<f4', (1000000000,))", "'V9'"]),
        st.sampled_from(["False", "True", "1"]),
        st.sampled_from(["()", "(1,)", "(-1,)", "(-12, -16, 29)", "(10**12,)", f"({10 ** 12},)", f"({2 ** 62}, 4)",
                         "(0, 7)", "(True,)", f"({'1,' * 40})", "None", "(2.0,)", "(" * 200, f"({'9' * 5000},)"]))


@st.composite
def npz_file(draw: Any, valid: dict[str, np.ndarray]) -> bytes:
    """An archive of arrays with some of them damaged, missing, or of another kind; or with other bytes."""
    members = {f"{name}.npy": npy(array) for name, array in valid.items()}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(members)))
        kind = draw(st.sampled_from(("array", "array", "array", "bytes", "remove", "name")))
        if kind == "remove":
            del members[name]
        elif kind == "name":
            members[draw(st.sampled_from(["x.npy", "../x.npy", "x", "/x.npy"]))] = members.pop(name)
        elif name.removesuffix(".npy") in valid:
            array = valid[name.removesuffix(".npy")]
            members[name] = draw(npy_file(array) if kind == "array" else damaged(npy(array)))
        if not members:
            break
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return draw(st.one_of(st.just(buffer.getvalue()), damaged(buffer.getvalue())))


@st.composite
def safetensors_file(draw: Any, valid: bytes) -> bytes:
    """A safetensors file whose header says something else, or with other bytes."""
    length, = struct.unpack("<Q", valid[:8])
    header = draw(edited(json.loads(valid[8:8 + length])))
    text = json.dumps(header).encode()
    announced = draw(st.sampled_from([len(text)] * 4 + [len(text) + 8, 2 ** 63, 10 ** 9]))
    return draw(st.one_of(st.just(struct.pack("<Q", announced) + text + valid[8 + length:]), damaged(valid)))


@st.composite
def torch_file(draw: Any, valid: bytes) -> bytes:
    """A file of torch.save whose pickle has other bytes, inside an archive that is intact; or with other bytes."""
    if draw(st.booleans()):
        return draw(damaged(valid))
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(valid)) as source, zipfile.ZipFile(buffer, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry, draw(damaged(data)) if entry.filename.endswith("data.pkl") else data)
    return buffer.getvalue()
