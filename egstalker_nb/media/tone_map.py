"""Tone mapping of HDR and wide-gamut frames to BT.709 SDR: lookup tables and a Numba kernel.

Luminance is relative to SDR white, which equals HDR reference white, 203 cd/m² (ITU-R BT.2408), so that HDR frames made
from SDR material map back to that material. Highlights are compressed by the EETF of ITU-R BT.2390 (Hermite spline,
from a 1000 cd/m² master down to 203 cd/m²), applied to the largest of R, G and B to preserve hue and saturation.
Everything below 88 cd/m² (signal 0.70) is unchanged, reference white maps to 0.90, 1000 cd/m² and above to 1. FFmpeg's
own mapping (swscale 9) either clips everything above reference white, or maps it to 0.61 (PQ) and 0.68 (HLG).

This module imports Numba, which is slow: import it inside the function that uses it.
"""
from __future__ import annotations

from functools import lru_cache
from typing import Optional

import numpy as np

from ..core.numba_jit import jit, run

WHITE = 203.0    # cd/m², reference white of BT.2408: 58 % PQ, 75 % HLG
PEAK = 1000.0    # cd/m², nominal peak of HLG, and of the PQ masters of phones
GAMMA = 2.4      # BT.1886, the display of BT.709 and of BT.2020 SDR
SIGNAL_WHITE = 65_280  # white in swscale's 16-bit RGB: 255 * 256
TABLE_SIZE = 16_384  # entries of the luminance tables, uniform in its square root: finer than 8 bits

#: CIE xy of red, green, blue; the white point is D65 in all
PRIMARIES = {"BT.709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
             "BT.2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
             "P3-D65": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))}
_D65 = (0.3127, 0.3290)


def pq_eotf(signal: np.ndarray) -> np.ndarray:
    """PQ signal 0..1 to cd/m² (BT.2100 table 4)."""
    m1, m2, c1, c2, c3 = _PQ
    power = np.asarray(signal, np.float64) ** (1 / m2)
    return 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def pq_inverse_eotf(light: np.ndarray | float) -> np.ndarray:
    """cd/m² to PQ signal 0..1."""
    m1, m2, c1, c2, c3 = _PQ
    power = (np.asarray(light, np.float64) / 10_000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


_PQ = (2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32)


def hlg_inverse_oetf(signal: np.ndarray) -> np.ndarray:
    """HLG signal 0..1 to scene light 0..1 (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.asarray(signal, np.float64)
    return np.where(signal <= 0.5, signal ** 2 / 3, (np.exp((signal - c) / a) + b) / 12)


def bt2390_eetf(light: np.ndarray, peak: float = PEAK, target: float = WHITE) -> np.ndarray:
    """Tone curve from a display of `peak` to one of `target` cd/m², identity up to its knee (BT.2390, 5.4.1)."""
    scale = pq_inverse_eotf(peak)
    e, top = np.minimum(pq_inverse_eotf(light) / scale, 1.0), pq_inverse_eotf(target) / scale
    knee = 1.5 * top - 0.5
    t = (e - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return np.where(e < knee, light, pq_eotf(np.where(e < knee, e, spline) * scale))


def rgb_to_xyz(primaries: str) -> np.ndarray:
    """Matrix [3, 3] from linear RGB of named primaries to CIE XYZ."""
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in PRIMARIES[primaries]]).T
    white = np.array([_D65[0] / _D65[1], 1.0, (1 - _D65[0] - _D65[1]) / _D65[1]])
    return xyz * np.linalg.solve(xyz, white)


@lru_cache
def tables(hdr: Optional[str], primaries: str) -> tuple:
    """Lookup tables of the kernel for one kind of source.

    Args:
        hdr: "PQ", "HLG" or None for SDR.
        primaries: a key of PRIMARIES.

    Returns:
        eotf, luma, ootf, matrix, tone, tone_scale, encode: the kernel's last arguments.
    """
    signal, root = np.minimum(np.arange(65_536) / SIGNAL_WHITE, 1), np.linspace(0, 1, TABLE_SIZE)
    luma, ootf, brightest = np.zeros(3), np.ones(TABLE_SIZE), 1.0
    if hdr == "PQ":
        eotf, brightest = pq_eotf(signal) / WHITE, 10_000 / WHITE
    elif hdr == "HLG":
        eotf, brightest = hlg_inverse_oetf(signal), PEAK / WHITE
        luma, ootf = rgb_to_xyz(primaries)[1], brightest * np.maximum(root, 1e-4) ** (2 * 0.2)  # system gamma 1.2
    else:
        eotf = signal ** GAMMA
    matrix = np.linalg.solve(rgb_to_xyz("BT.709"), rgb_to_xyz(primaries))
    limit = brightest * matrix.max()  # largest component of a saturated colour in BT.709
    light = np.maximum(root**2 * limit, 1e-9)
    tone = bt2390_eetf(light * WHITE) / WHITE / light if hdr else np.ones(TABLE_SIZE)
    encode = np.rint(255 * root ** (2 / GAMMA)).astype(np.uint8)
    single = (np.ascontiguousarray(x, np.float32) for x in (eotf, luma, ootf, matrix, tone))
    return (*single, np.float32(1 / limit), encode)


@jit
def _kernel(first: int, step: int, red: np.ndarray, green: np.ndarray, blue: np.ndarray, out: np.ndarray,
            eotf: np.ndarray, luma: np.ndarray, ootf: np.ndarray, matrix: np.ndarray, tone: np.ndarray,
            tone_scale: np.float32, encode: np.ndarray) -> None:
    last, zero, one = np.float32(len(encode) - 1), np.float32(0), np.float32(1)
    for y in range(first, out.shape[0], step):
        for x in range(out.shape[1]):
            r, g, b = eotf[red[y, x]], eotf[green[y, x]], eotf[blue[y, x]]
            scene = min(luma[0] * r + luma[1] * g + luma[2] * b, one)
            gain = ootf[int(np.sqrt(scene) * last + np.float32(0.5))]
            # Colours outside the BT.709 gamut are clipped.
            lr = max(gain * (matrix[0, 0] * r + matrix[0, 1] * g + matrix[0, 2] * b), zero)
            lg = max(gain * (matrix[1, 0] * r + matrix[1, 1] * g + matrix[1, 2] * b), zero)
            lb = max(gain * (matrix[2, 0] * r + matrix[2, 1] * g + matrix[2, 2] * b), zero)
            largest = max(lr, lg, lb)
            factor = tone[int(np.sqrt(min(largest * tone_scale, one)) * last + np.float32(0.5))]
            out[y, x, 0] = encode[int(np.sqrt(min(lr * factor, one)) * last + np.float32(0.5))]
            out[y, x, 1] = encode[int(np.sqrt(min(lg * factor, one)) * last + np.float32(0.5))]
            out[y, x, 2] = encode[int(np.sqrt(min(lb * factor, one)) * last + np.float32(0.5))]


def to_bt709(red: np.ndarray, green: np.ndarray, blue: np.ndarray, hdr: Optional[str], primaries: str) -> np.ndarray:
    """Map R'G'B' planes of HDR or wide-gamut video to BT.709.

    Args:
        red, green, blue: uint16 [H, W], white at SIGNAL_WHITE.
        hdr: "PQ", "HLG" or None.
        primaries: a key of PRIMARIES.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    out = np.empty((*red.shape, 3), np.uint8)
    run(_kernel, max(1, out.size // 100_000), red, green, blue, out, *tables(hdr, primaries))
    return out
