"""Reading files that may be damaged, or made to do harm.

Nothing is unpickled or evaluated. Sizes are compared with the file's own before memory is reserved, and an array is
read only if its header says the shape and dtype that the caller needs. Every way in which such a file is wrong becomes
one `Unreadable` with a reason of one line; callers, who know what the file is for, turn that into their own error.
"""
from __future__ import annotations

import hashlib
import json
import math
import reprlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Mapping, Optional

import numpy as np
import yaml

from .errors import first_line
from .files import shortened

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEXT_BYTES = 64 << 20    # of a JSON file; a report of ten hours of video has 5 MB
MAX_YAML_BYTES = 64 << 10    # of settings; PyYAML reads about 100 kB/s
MAX_DEPTH = 50               # of nesting in JSON and YAML
MAX_ARRAY_BYTES = 256 << 20  # larger arrays are read only if they fit into half of the memory that is available


class Unreadable(ValueError):
    """A file is missing, damaged, or holds something else. Its text says which file, and why, in one line."""


@dataclass(frozen=True)
class ArraySpec:
    """What an array must be.

    Attributes:
        shape: None for any length of an axis.
        kinds: NumPy's kinds of dtype: `f` floats, `i` and `u` integers, `b` booleans.
    """

    shape: tuple[Optional[int], ...]
    kinds: str = "f"

    def __str__(self) -> str:
        names = {"f": "floats", "iu": "integers", "b": "booleans"}
        shape = ", ".join("N" if n is None else str(n) for n in self.shape)
        return f"{names.get(self.kinds, 'numbers')} [{shape}]"

    def fits(self, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        """Whether an array of this shape and dtype is one."""
        return (dtype.kind in self.kinds and len(shape) == len(self.shape)
                and all(want in (None, have) for want, have in zip(self.shape, shape)))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 2


def shown(value: object) -> str:
    """A value for a message: its repr, shortened, however large or deeply nested it is."""
    try:
        return first_line(_short.repr(value))
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        return f"a very large {type(value).__name__}"


def digest(*paths: str | Path) -> str:
    """SHA-256 of a file, or of several as if they were one, hexadecimal."""
    result = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                result.update(block)
    return result.hexdigest()


# ---- text ----

def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        Unreadable: missing, not a plain file, too large, or not UTF-8.
    """
    size = _size(path)
    if size > limit:
        raise Unreadable(f"'{shortened(path)}' has {size / 1000:,.0f} kB, more than such a file can have")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16 or UTF-32" if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff") else "no text"
        raise Unreadable(f"'{shortened(path)}' is not UTF-8 text, but {kind}") from error
    except OSError as error:
        raise Unreadable(f"'{shortened(path)}' cannot be read ({error.strerror})") from error


def read_json(path: Path, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """A JSON object.

    Args:
        path: the file.
        kinds: keys that it must have, and the types of their values.

    Raises:
        Unreadable: missing, damaged, not an object, or without one of the keys.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"'{shortened(path)}' is not JSON ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise Unreadable(f"'{shortened(path)}' is not a JSON object, but {shown(value)}")
    for key, kind in kinds.items():
        good = isinstance(value.get(key), kind) and (kind is bool or not isinstance(value.get(key), bool))
        if not good or (isinstance(value[key], float) and not math.isfinite(value[key])):
            found = f"{key} {shown(value[key])}" if key in value else f"no {key}"
            raise Unreadable(f"'{shortened(path)}' has {found}")
    return value


class _PlainLoader(yaml.SafeLoader):
    """YAML of plain settings: no aliases (a few lines of them make gigabytes), tags or dates, and no key twice."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases (*{event.anchor}) are not allowed (line {event.start_mark.line + 1})")
        if event.tag is not None:
            raise yaml.YAMLError(f"tags ({shown(event.tag)}) are not allowed (line {event.start_mark.line + 1})")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels of nesting")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key must be a name (line {key.start_mark.line + 1})")
            text = key.value
            if text in seen:
                raise yaml.YAMLError(f"the key {shown(text)} stands there twice (line {key.start_mark.line + 1})")
            seen.add(text)
        return super().construct_mapping(node, deep)


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}


def parse_yaml(text: str) -> Any:
    """Plain values from YAML: text, numbers, booleans, null, lists and mappings.

    Raises:
        Unreadable: not YAML, or with tags, aliases, a key twice, too deeply nested, or too long.
    """
    if len(text) > MAX_YAML_BYTES:
        raise Unreadable(f"{len(text)} characters, more than settings can have")
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise Unreadable(f"{first_line(error.problem or error)}{where}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Unreadable(first_line(error)) from error


def read_yaml(path: Path, limit: int = MAX_YAML_BYTES) -> dict[str, Any]:
    """A YAML file of `name: value`.

    Args:
        path: the file.
        limit: bytes that it may have.

    Raises:
        Unreadable: missing, not plain YAML (see `parse_yaml`), or not a mapping.
    """
    text = read_text(path, limit)
    try:
        value = parse_yaml(text)
    except Unreadable as error:
        raise Unreadable(f"'{shortened(path)}': {error}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"'{shortened(path)}' holds " + ("nothing" if value is None else
                                                         f"a {type(value).__name__} ({shown(value)})"))
    return value


# ---- arrays ----

def read_npy(path: Path, spec: Optional[ArraySpec] = None) -> np.ndarray:
    """An array of numbers from a `.npy` file, all of them finite.

    Args:
        path: the file.
        spec: what the array must be; None: any numbers.

    Raises:
        Unreadable: missing, not an array, truncated, of another shape or dtype, or with values that are not finite.
    """
    size = _size(path)
    try:
        with open(path, "rb") as file:
            return _array(file, size, spec, f"'{shortened(path)}'")
    except OSError as error:
        raise Unreadable(f"'{shortened(path)}' cannot be read ({error.strerror})") from error


def read_npz(path: Path, specs: Optional[Mapping[str, ArraySpec]] = None) -> dict[str, np.ndarray]:
    """Arrays of numbers from an `.npz` file, all of them finite.

    Args:
        path: the file.
        specs: the arrays to read, and what they must be; None: all of them.

    Raises:
        Unreadable: missing, damaged, without one of the arrays, or with one of another shape or dtype, or with values
            that are not finite.
    """
    _size(path)
    result, name = {}, ""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in specs or [entry.removesuffix(".npy") for entry in archive.namelist()]:
                info = archive.getinfo(f"{name}.npy")
                with archive.open(info) as file:
                    spec = specs[name] if specs else None
                    result[name] = _array(file, info.file_size, spec, f"{name} of '{shortened(path)}'")
    except KeyError as error:
        raise Unreadable(f"'{shortened(path)}' has no array '{name}'") from error
    except Unreadable:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds
        raise Unreadable(f"'{shortened(path)}' is damaged, or no .npz file ({first_line(error)})") from error
    return result


def has_array(path: Path, name: str) -> bool:
    """Whether an `.npz` file has an array of this name.

    Raises:
        Unreadable: missing or damaged.
    """
    _size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{name}.npy" in archive.namelist()
    except Exception as error:
        raise Unreadable(f"'{shortened(path)}' is damaged, or no .npz file ({first_line(error)})") from error


def _array(file: Any, size: int, spec: Optional[ArraySpec], what: str) -> np.ndarray:
    """Read the array of an open `.npy` file of `size` bytes."""
    shape, order, dtype = _header(file, what)
    if dtype.kind not in "biuf" or (spec and not spec.fits(shape, dtype)):
        kind = {"O": "Python objects", "c": "complex numbers", "U": "text", "S": "text"}.get(dtype.kind, dtype.name)
        raise Unreadable(f"{what} holds {kind} {shown(list(shape))} instead of {spec or 'real numbers'}")
    length = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or len(shape) > 32 or file.tell() + length != size:
        raise Unreadable(f"{what} has {size} bytes, but its header announces {shown(file.tell() + length)} "
                         f"({dtype.name} {shown(list(shape))})")
    if length > MAX_ARRAY_BYTES:  # it may be compressed, or a file of holes
        from .device import available_memory

        if length > available_memory() // 2:
            raise Unreadable(f"{what} has {length / 2**30:.1f} GiB, more than fits into memory")
    values = np.frombuffer(file.read(length), dtype).reshape(shape, order="F" if order else "C").copy()
    if dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).reshape(max(len(values), 1) if shape else 1, -1).all(axis=1))[0])
        raise Unreadable(f"{what} holds NaN or infinite values, from entry {row} on")
    return values


def _header(file: BinaryIO, what: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype that a `.npy` file announces."""
    fmt = np.lib.format
    try:
        version = fmt.read_magic(file)
        read = {(1, 0): fmt.read_array_header_1_0, (2, 0): fmt.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version}")
        return read(file)
    except Exception as error:  # the header is parsed as a Python literal, which fails in many ways
        raise Unreadable(f"{what} is damaged, or no .npy file ({first_line(error)})") from error


# ---- tensors ----

def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        Unreadable: missing or damaged.
    """
    from safetensors.torch import load

    _size(path)
    try:
        data = path.read_bytes()  # its own opening of files refuses paths that are not UTF-8
        tensors = load(data)      # checks the header first
        return tensors, json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except Exception as error:  # safetensors raises its own kinds
        raise Unreadable(f"'{shortened(path)}' is damaged, or no safetensors file ({first_line(error)})") from error


def read_torch(path: Path, legacy: bool = False) -> dict[str, Any]:
    """A dictionary of tensors and numbers that `torch.save` wrote, on the CPU; nothing else is unpickled.

    Args:
        path: the file.
        legacy: accept PyTorch's format from before version 1.6 as well, as published weights have; memory is then
            reserved as the file asks.

    Raises:
        Unreadable: missing, damaged, or with anything else in it.
    """
    import torch

    size = _size(path)
    try:
        if not legacy or zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch's older formats reserve memory before they look
                if sum(entry.file_size for entry in archive.infolist()) > size:
                    raise ValueError("compressed")
        with open(path, "rb") as file:
            value = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip readers raise many kinds; torch's advice for them is not ours
        cause = "it holds Python objects" if "weights_only" in str(error) else type(error).__name__
        raise Unreadable(f"'{shortened(path)}' is damaged, or holds more than tensors ({cause})") from error
    if not isinstance(value, dict) or not _is_plain(value):
        raise Unreadable(f"'{shortened(path)}' holds {shown(type(value).__name__)} instead of named tensors")
    return value


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value consists of numbers, text and tensors that have memory of their own for each number."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.layout == torch.strided and value.device.type == "cpu" and (
            value.numel() * value.element_size() <= value.untyped_storage().nbytes())
    if isinstance(value, (dict, list, tuple)):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return depth < MAX_DEPTH and all(_is_plain(part, depth + 1) for part in parts)
    return value is None or isinstance(value, (bool, int, float, str))


def _size(path: Path) -> int:
    """Bytes of a plain file.

    Raises:
        Unreadable: missing, or a folder, a pipe or a device.
    """
    try:
        if not path.is_file():
            raise Unreadable(f"there is no file '{shortened(path)}'" if not path.exists() else
                             f"'{shortened(path)}' is not a file")
        return path.stat().st_size
    except (OSError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"'{shortened(path)}' cannot be read ({first_line(error)})") from error
