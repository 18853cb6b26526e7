"""Gaussians as PLY files in the common 3DGS layout."""
from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Iterable

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError, first_line
from ..core.files import shortened
from ..core.reading import shown

PLY_REST = 45  # common viewers expect harmonics of degree 3: 15 coefficients for each of 3 colours
MAX_HEADER_BYTES = 64 << 10
_PLY_NAMES = ("x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)),
              *(f"f_rest_{i}" for i in range(PLY_REST)), "opacity", *(f"scale_{i}" for i in range(3)),
              *(f"rot_{i}" for i in range(4)))
_NEEDED = {name for name in _PLY_NAMES if name[0] != "n" and not name.startswith("f_rest_")}  # what all programs write


def save_ply(path: str | Path, gaussians: dict[str, Tensor]) -> None:
    """Write Gaussians in the common 3DGS layout (x y z, normals, f_dc, f_rest, opacity, scale, rot).

    Opacities are logits, scales logs, harmonics channel-major, padded with zeros to degree 3, as viewers expect.
    """
    g = {k: v.detach().cpu().float().numpy() for k, v in gaussians.items()}
    n = len(g["means"])
    rest = np.zeros((n, 3, PLY_REST // 3), np.float32)
    rest[:, :, :g["shN"].shape[1]] = g["shN"].transpose(0, 2, 1)
    columns = [g["means"], np.zeros((n, 3)), g["sh0"][:, 0], rest.reshape(n, PLY_REST), g["opacities"][:, None],
               g["scales"], g["quats"]]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {n}",
              *(f"property float {name}" for name in _PLY_NAMES), "end_header", ""]
    with open(path, "wb") as file:
        file.write("\n".join(header).encode())
        file.write(np.concatenate(columns, 1).astype("<f4").tobytes())


def load_ply(path: str | Path, sh_degree: int = 3) -> dict[str, Tensor]:
    """Read a 3DGS PLY, also of another program, into gsplat's layout (see `make_gaussians`).

    Properties come in any order; normals and others that a head does not have are ignored. Harmonics up to `sh_degree`:
    those beyond it are dropped, those that the file lacks are zeros.

    Raises:
        InputError: not a PLY file, not in the 3DGS layout, damaged, or with NaN or infinite values.
    """
    try:
        with open(path, "rb") as file:
            table = _read_ply(file, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else first_line(error)
        raise InputError("a binary PLY file in the 3DGS layout", f"'{shortened(path)}' ({why})",
                         "Give a point_cloud.ply of a checkpoint.") from error

    def get(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([table[name] for name in names], -1))

    have, want = len(_rest_names(table.dtype.names or ())) // 3, (sh_degree + 1) ** 2 - 1
    shN = torch.zeros(len(table), want, 3)
    if have and want:
        rest = get(*[f"f_rest_{i}" for i in range(3 * have)]).reshape(-1, 3, have).transpose(1, 2)
        shN[:, :have] = rest[:, :want]
    return {"means": get("x", "y", "z"), "scales": get("scale_0", "scale_1", "scale_2"),
            "quats": get("rot_0", "rot_1", "rot_2", "rot_3"), "opacities": get("opacity")[:, 0],
            "sh0": get("f_dc_0", "f_dc_1", "f_dc_2")[:, None],
            "shN": shN}


def _rest_names(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("f_rest_")]


def _read_ply(file: BinaryIO, size: int) -> np.ndarray:
    """The vertex table of a little-endian PLY of `size` bytes whose properties are floats; ValueError if it is
    something else.

    Our own few lines, because the library for PLY files is under the GPL.
    """
    start = file.read(MAX_HEADER_BYTES)
    header, end, _ = start.partition(b"end_header\n")
    lines = header.decode("ascii", "replace").split("\n")
    if not end or lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise ValueError("not a binary little-endian PLY")
    elements, names = [], []
    for line in lines[2:]:
        words = line.split()
        if words[:1] == ["element"]:
            elements.append(words)
        elif words[:1] == ["property"]:
            if words[1:2] != ["float"] or len(words) != 3:
                raise ValueError(f"the property {shown(line)} instead of a float")
            names.append(words[2])
    if len(elements) != 1 or elements[0][1:2] != ["vertex"] or len(elements[0]) != 3 or not elements[0][2].isdecimal():
        raise ValueError("not one table of vertices")
    rest = _rest_names(names)
    missing = _NEEDED - set(names)
    if missing or len(set(names)) != len(names):
        raise ValueError(f"no property {min(missing)}" if missing else "a property twice")
    if len(rest) not in (0, 9, 24, 45) or set(rest) != {f"f_rest_{i}" for i in range(len(rest))}:
        raise ValueError(f"{len(rest)} properties f_rest instead of f_rest_0 to f_rest_8, 23 or 44, or none")
    row = np.dtype([(name, "<f4") for name in names])
    count, have = int(elements[0][2]), size - len(header) - len(end)
    if count * row.itemsize != have:
        raise ValueError(f"its header announces {shown(count)} vertices, but {have / row.itemsize:g} follow")
    file.seek(len(header) + len(end))
    values = np.frombuffer(file.read(have), "<f4")
    if not np.isfinite(values).all():
        raise ValueError(f"NaN or infinite values in vertex {int(np.argmin(np.isfinite(values))) // len(names)}")
    return values.view(row)
