"""A Numba kernel: structural dissimilarity and its gradient in one pass over the images.

The definition is `image_metrics.ssim_map`; as separate tensor operations it is half of a training step. Here strips of
rows go through small buffers that stay in the processor's cache: four blurs (along the rows, then down the
columns), SSIM and its derivatives by the three blurs that depend on x, and the same blur, which is its own adjoint,
of these derivatives.
"""

from __future__ import annotations

from typing import Any, Union

import numpy as np

from ..core.numba_jit import helper, jit

Array = np.ndarray
Index = Union[int, np.uint64]
Box = tuple[int, int, int, int]

STRIP = 128      # rows of a work item: whatever the number of threads, so that sums do not depend on it
PANEL = 3 * 256  # most values of a row at a time; pixels keep their three channels beside each other
BLOCK = 10       # rows at a time: as many as a block needs from the one before
REACH = 5        # of the window, in rows
SIDE = 3 * 5     # and in values along a row

_half = np.exp(-0.5 * (np.arange(REACH + 1) / 1.5) ** 2)
W0, W1, W2, W3, W4, W5 = (np.float32(w) for w in _half / (2 * _half.sum() - 1))  # the window by distance
C1, C2 = np.float32(0.01 ** 2), np.float32(0.03 ** 2)  # SSIM's constants for a value range of 1
ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)

# Flat buffers. With unsigned indices and constant distances between the rows LLVM makes vector instructions.
LINE = np.uint64(PANEL + 64)       # values of a row, with the window's reach twice on both sides
KEPT = np.uint64(BLOCK) * LINE     # a plane is ten rows of the block before and ten new ones
PLANE = np.uint64(2) * KEPT
A1, A2, A3, A4, A5, A6, A7, A8, A9, A10 = (np.uint64(3 * i) for i in range(1, 11))     # pixels along a row
D1, D2, D3, D4, D5, D6, D7, D8, D9, D10 = (np.uint64(i) * LINE for i in range(1, 11))  # rows down a column


@helper
def _along(source: Array, o: Index, target: Array, p: Index, n: Index) -> None:
    """Blur a row into n values of target from p on; source is 5 px ahead at o."""
    for i in range(n):
        a = o + i
        target[p + i] = (W5 * (source[a] + source[a + A10]) + W4 * (source[a + A1] + source[a + A9])
                         + W3 * (source[a + A2] + source[a + A8]) + W2 * (source[a + A3] + source[a + A7])
                         + W1 * (source[a + A4] + source[a + A6]) + W0 * source[a + A5])


@helper
def _down(source: Array, o: Index, target: Array, p: Index, n: Index) -> None:
    """Blur down the columns into n values of target from p on; source is 5 rows ahead at o."""
    for i in range(n):
        a = o + i
        target[p + i] = (W5 * (source[a] + source[a + D10]) + W4 * (source[a + D1] + source[a + D9])
                         + W3 * (source[a + D2] + source[a + D8]) + W2 * (source[a + D3] + source[a + D7])
                         + W1 * (source[a + D4] + source[a + D6]) + W0 * source[a + D5])


@helper
def _clear(buffer: Array, o: Index, n: Index) -> None:
    for i in range(n):
        buffer[o + i] = ZERO


@helper
def _read(x: Array, y: Array, o: Index, lines: Array, p: Index, n: Index) -> None:
    """x, y, x² + y² and x y of n values from o on, as four lines from p on."""
    for i in range(n):
        u, v, a = x[o + i], y[o + i], p + i
        lines[a], lines[D1 + a], lines[D2 + a], lines[D3 + a] = u, v, u * u + v * v, u * v


@helper
def _compare(lines: Array, parts: Array, n: Index) -> None:
    """n values from their four blurs: 1 - SSIM and its derivatives by the blurs of x, x² + y² and x y."""
    for i in range(n):
        mx, my, square, product = lines[i], lines[D1 + i], lines[D2 + i], lines[D3 + i]
        both, power = mx * my, mx * mx + my * my
        a1, a2 = TWO * both + C1, TWO * (product - both) + C2
        b1, b2 = power + C1, square - power + C2
        inverse = ONE / (b1 * b2)
        by_b1, by_b2 = a1 * a2 * inverse * b2 * inverse, a1 * a2 * inverse * b1 * inverse
        parts[i] = ONE - a1 * a2 * inverse
        parts[D1 + i] = TWO * (my * (a1 - a2) * inverse + mx * (by_b1 - by_b2))
        parts[D2 + i] = by_b2
        parts[D3 + i] = -TWO * a1 * inverse


@helper
def _sum(source: Array, o: Index, n: Index) -> Any:
    total = ZERO
    for i in range(n):
        total += source[o + i]
    return total


@helper
def _advance(buffer: Array, planes: int) -> None:
    """Keep the last ten rows of each plane as its first ones."""
    for q in range(planes):
        o = np.uint64(q) * PLANE
        for i in range(KEPT):
            buffer[o + i] = buffer[o + KEPT + i]


@helper
def _blur_inputs(x: Array, y: Array, box: Box, row: int, c0: int, c1: int, lines: Array, blurred: Array) -> None:
    """Ten rows from `row` on, blurred along the rows, values c0 - 15...c1 + 15, as the last rows of four planes."""
    left, top, right, bottom = box
    a, b, n = max(left, c0 - 2 * SIDE), min(right, c1 + 2 * SIDE), np.uint64(c1 - c0 + 2 * SIDE)
    for q in range(4):
        _clear(lines, np.uint64(q) * LINE, LINE)
    for i in range(BLOCK):
        o, r = KEPT + np.uint64(i) * LINE, row + i
        if top <= r < bottom:
            _read(x[r], y[r], np.uint64(a), lines, np.uint64(a - c0 + 2 * SIDE), np.uint64(b - a))
        for q in range(4):
            p = np.uint64(q) * PLANE + o
            if top <= r < bottom:
                _along(lines, np.uint64(q) * LINE, blurred, p, n)
            else:
                _clear(blurred, p, n)


@helper
def _map_rows(box: Box, row: int, r0: int, r1: int, c0: int, c1: int,
              blurred: Array, lines: Array, parts: Array, slopes: Array) -> float:
    """Ten rows of the map from `row` on: their derivatives, blurred along the rows, as the last rows of three planes;
    returns the sum of 1 - SSIM within r0...r1, c0...c1."""
    left, top, right, bottom = box
    n, wide, total = np.uint64(c1 - c0), np.uint64(c1 - c0 + 2 * SIDE), 0.0
    before, behind = np.uint64(max(0, left - c0 + SIDE)), np.uint64(max(0, c1 + SIDE - right))
    for i in range(BLOCK):
        o = np.uint64(i) * LINE
        if top <= row + i < bottom:
            for q in range(4):
                _down(blurred, np.uint64(q) * PLANE + o, lines, np.uint64(q) * LINE, wide)
            _compare(lines, parts, wide)
            if r0 <= row + i < r1:
                total += _sum(parts, np.uint64(SIDE), n)
        for q in range(3):
            p, part = np.uint64(q) * PLANE + KEPT + o, np.uint64(q + 1) * LINE
            if top <= row + i < bottom:
                _clear(parts, part, before)
                _clear(parts, part + wide - behind, behind)
                _along(parts, part, slopes, p, n)
            else:
                _clear(slopes, p, n)
    return total


@helper
def _gradient_rows(x: Array, y: Array, row: int, r0: int, r1: int, c0: int,
                   c1: int, slopes: Array, lines: Array, grad: Array) -> None:
    """Ten rows of the gradient from `row` on, as far as they lie within r0...r1."""
    o, n = np.uint64(c0), np.uint64(c1 - c0)
    for i in range(BLOCK):
        if r0 <= row + i < r1:
            for q in range(3):
                _down(slopes, np.uint64(q) * PLANE + np.uint64(i) * LINE, lines, np.uint64(q) * LINE, n)
            u, v, w = x[row + i], y[row + i], grad[row + i]
            for j in range(n):
                w[o + j] = lines[j] + TWO * u[o + j] * lines[D1 + j] + v[o + j] * lines[D2 + j]


@jit
def dissimilarity(first: int, step: int, x: Array, y: Array, box: Box, sums: Array, grad: Array) -> None:
    """Sums of 1 - SSIM over a box, and their gradient by x; items are strips of rows of the images.

    x, y, grad [B, H, 3 W], grad given as zeros. box: left, top, right, bottom, across in values (three times px).
    Fills sums [B, strips].
    """
    left, top, right, bottom = box
    lines, parts = np.empty(int(D4), np.float32), np.empty(int(D4), np.float32)
    blurred, slopes = np.zeros(int(PLANE) * 4, np.float32), np.zeros(int(PLANE) * 3, np.float32)
    for item in range(first, sums.size, step):
        image, strip = item // sums.shape[1], item % sums.shape[1]
        r0, total = top + strip * STRIP, 0.0
        r1 = min(r0 + STRIP, bottom)
        for c0 in range(left, right, PANEL):
            c1 = min(c0 + PANEL, right)
            for row in range(r0 - REACH - BLOCK, r1 + REACH, BLOCK):
                _advance(blurred, 4)
                _blur_inputs(x[image], y[image], box, row + REACH, c0, c1, lines, blurred)
                if row >= r0 - REACH:  # the first block only fills the ten rows that the second one starts from
                    _advance(slopes, 3)
                    total += _map_rows(box, row, r0, r1, c0, c1, blurred, lines, parts, slopes)
                    _gradient_rows(x[image], y[image], row - REACH, r0, r1, c0, c1, slopes, lines, grad[image])
        sums[image, strip] = total
