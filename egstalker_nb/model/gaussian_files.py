"""Gaussians as files of two formats: PLY in the 3DGS layout, lossless, and SPZ, about a tenth of its size."""
from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from ..core.errors import InputError, first_line, require_package
from ..core.files import shortened
from ..core.reading import MAX_ARRAY_BYTES
from .ply import load_ply, save_ply

#: writes Gaussians before activation to a path
Writer = Callable[[Path, dict[str, Tensor]], None]

MAGIC, HEADER = 0x5053474E, "<IIIBBBB"  # magic, version, count, SH degree, fractional bits, flags, reserved
VERSION = 3                             # one gzip stream; version 4 (separate zstd streams) is newer than most viewers
REACH = 2048.0                          # head units: positions are clipped to this
FRACTION = 12                           # bits of a position after the point: steps of 1/4096 head units
SH_SIZES = (0, 3, 8, 15)                # coefficients above degree 0, by degree
_ROTATED = (-1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0)


def file_writer(path: str | Path) -> Writer:
    """The function that writes Gaussians to files of this name's ending; it refuses NaN and infinite values.

    Args:
        path: ends in `.ply` or `.spz`, in any case.

    Raises:
        InputError: another ending.
        MissingPackageError: `.spz` without the package gsply.
    """
    save: Writer = save_ply
    if _format(path) == ".spz":
        _gsply()
        save = save_spz

    def write(path: Path, gaussians: dict[str, Tensor]) -> None:
        wrong = [name for name, value in gaussians.items() if not value.isfinite().all()]
        if wrong:
            raise InputError("a head of finite values", f"NaN or infinite {wrong[0]}", "Choose another checkpoint.")
        save(path, gaussians)

    return write


def read_gaussians(path: str | Path) -> dict[str, Tensor]:
    """Read a 3D Gaussian head or scene, of this kit or another program, from a PLY of the 3DGS layout or an SPZ.

    What `egs.rasterize` takes is `means`, `quats`, `scales.exp()`, `opacities.sigmoid()` and
    `torch.cat([sh0, shN], 1)` with `sh_degree=3`. PLY files are taken in the frame in which they are; SPZ files, which
    are stored in RUB axes (y up, z towards the viewer), are turned into the OpenCV axes (RDF) of a head.

    Args:
        path: the file, `.ply` (binary little-endian) or `.spz` (version 2 or 3; needs the extra `models`).

    Returns:
        float32 on the CPU: means [N, 3]; scales [N, 3], natural logarithms of the standard deviations; quats [N, 4]
        wxyz, of unit length in an SPZ only; opacities [N], logits; sh0 [N, 1, 3]; shN [N, 15, 3], zeros above the
        file's degree.

    Raises:
        InputError: another ending, missing, damaged, of another layout or version, with NaN or infinite values, or
            larger than memory should hold.
        MissingPackageError: `.spz` without the package gsply.
    """
    if _format(path) == ".ply":
        return load_ply(path)
    return load_spz(path)


def save_spz(path: str | Path, gaussians: dict[str, Tensor]) -> None:
    """Write Gaussians in OpenCV axes as SPZ version 3, in the RUB axes of that format.

    The format rounds and clips: positions to 1/4096 within +-2048, log scales to 1/16 within -10 ... 5.94, opacities to
    1/255, sh0 to 0.026 within +-3.33, shN to 1/128 within -1 ... 1.

    Args:
        path: the file.
        gaussians: see `make_gaussians`; all finite, as the format has no other values.

    Raises:
        MissingPackageError: no package gsply.
    """
    gsply = _gsply()
    g = {name: value.detach().cpu().float() for name, value in gaussians.items()}
    # gsply's integers overflow before it clips
    g = _turned({**g, "means": g["means"].clamp(-REACH, REACH), "opacities": g["opacities"].clamp(-80, 80),
                 "quats": normalize(g["quats"], dim=-1)})
    arrays = {name: value.contiguous().numpy() for name, value in g.items()}
    rest = arrays.pop("shN")
    data = gsply.GSData.from_arrays(**{**arrays, "sh0": arrays["sh0"][:, 0]}, shN=rest if rest.shape[1] else None,
                                    format="ply")
    gsply.write_spz(path, data, version=VERSION, fractional_bits=FRACTION)


def load_spz(path: str | Path) -> dict[str, Tensor]:
    """Read an SPZ into OpenCV axes, see `read_gaussians`."""
    gsply = _gsply()
    try:
        _check_spz(Path(path))
        data = gsply.read_spz(path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise InputError("an SPZ file of version 2 or 3", f"'{shortened(path)}' ({why})",
                         "Export it again, as .spz of version 3 or as .ply.") from error
    names = ("means", "scales", "quats", "opacities")
    g = {name: torch.from_numpy(getattr(data, name)) for name in names}
    g["opacities"], g["sh0"] = g["opacities"].reshape(-1), torch.from_numpy(data.sh0).reshape(-1, 1, 3)
    rest = g["sh0"][:, :0] if data.shN is None else torch.from_numpy(data.shN)
    return _turned({**g, "shN": pad(rest, (0, 0, 0, SH_SIZES[-1] - rest.shape[1]))})


def _check_spz(path: Path) -> None:
    """Raise a ValueError unless a gzipped SPZ holds exactly what its header announces, within the limit for arrays.

    gsply decompresses a file in one piece before it looks at the header; here a block at a time is held.
    """
    with gzip.open(path, "rb") as file:
        head = file.read(struct.calcsize(HEADER))
        if len(head) < struct.calcsize(HEADER):
            raise ValueError("too short for a header")
        magic, version, count, degree, *_ = struct.unpack(HEADER, head)
        if magic != MAGIC or version not in (2, 3) or degree >= len(SH_SIZES):
            raise ValueError("its header is another one")
        if 4 * count * (14 + 3 * SH_SIZES[-1]) > MAX_ARRAY_BYTES:
            raise ValueError(f"{count} Gaussians, more than {MAX_ARRAY_BYTES >> 20} MiB hold")
        left = count * (16 + (4 if version == VERSION else 3) + 3 * SH_SIZES[degree])
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            left -= len(block)
        if left or file.read(1):
            raise ValueError(f"{'fewer' if left else 'more'} bytes than the {count} Gaussians of its header need")


def _turned(g: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gaussians turned by 180 degrees about x, between OpenCV axes (RDF) and those of SPZ (RUB); its own inverse.

    y and z change their sign, so a harmonic changes its own if it is odd in y and z together (gsplat's basis).
    """
    rest = torch.tensor(_ROTATED)[:g["shN"].shape[1], None]
    return {**g, "means": g["means"] * torch.tensor([1.0, -1, -1]),
            "quats": g["quats"] * torch.tensor([1.0, 1, -1, -1]), "shN": g["shN"] * rest}


def _format(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".ply", ".spz"):
        raise InputError("a file named .ply or .spz", f"'{shortened(path)}'", "Give it one of these endings.")
    return suffix


def _gsply() -> Any:
    from ..core.numba_cache import ensure_cache

    ensure_cache()  # its reader compiles code
    return require_package("gsply", "gsply, which reads and writes SPZ",
                           "Install it with: pip install 'egstalker-nb[models]'")
