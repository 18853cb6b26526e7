"""Numba kernels that alpha-blend the Gaussians of tiles of 16 x 16 pixels into an image, and their gradients.

Each tile is processed by one thread: the outer loop runs over its Gaussians, the inner one over its pixel rows, with
the transmittance and colours of the tile in a small buffer. Every innermost loop runs over the 16 pixels of a row
without a branch, so that LLVM vectorises it. Maths as in gsplat 1.5.3 (`RasterizeToPixels3DGS{Fwd,Bwd}.cu`).
"""
from __future__ import annotations

import math

import numpy as np

from ..core.numba_jit import helper, jit
from . import TILE
from .geometry import MIN_ALPHA

PIXELS = TILE * TILE
MAX_ALPHA = np.float32(0.999)
MIN_TRANSMITTANCE = np.float32(1e-4)  # a Gaussian that would lower a pixel's transmittance to this is not blended
LOG2E = 1.4426950408889634
LOG2_MIN_ALPHA = np.float32(math.log2(MIN_ALPHA))
ZERO, ONE = np.float32(0.0), np.float32(1.0)

# The state of a tile is one flat float32 buffer of 16 rows; a row is a sequence of lines of 16 pixels, one line per
# quantity. With unsigned indices (no wrap-around of negative ones) and constant offsets between the lines, LLVM can
# prove that they do not overlap, and vectorises. The first three channels are unrolled: colours are padded to three.
ROW = np.uint64(TILE)
TRANSMITTANCE, LAST, COLUMN, WEIGHT = (np.uint64(TILE * i) for i in range(4))
COLOR = np.uint64(TILE * 4)  # forward: blended channels, one line each
BEHIND, VALUE, S, IMAGE = (np.uint64(TILE * i) for i in range(4, 8))  # backward: IMAGE like COLOR
FIRST, SECOND, THIRD = (np.uint64(TILE * i) for i in range(3))  # lines of the first three channels

Splat = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]  # see `_load_splat`


@helper
def _exp2(p: np.float32) -> np.float32:
    """2^p for p <= 0.5, relative error 2e-7 (Numba from pip has no vectorised exp); below -20 it is 2^-20."""
    p = max(p, np.float32(-20.0))
    n = np.int32(p - np.float32(0.5))
    f = p - np.float32(n)
    y = np.float32(0.001326472708863247) * f + np.float32(0.009671512861880836)
    y = y * f + np.float32(0.055507337456148366)
    y = y * f + np.float32(0.24022242081848974)
    y = y * f + np.float32(0.6931469775966117)
    y = y * f + np.float32(1.0)
    return y * np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@helper
def _load_splat(g: int, means2d: np.ndarray, conics: np.ndarray, opacities: np.ndarray) -> Splat:
    """Mean x and y, conic (3) times -log2(e), and log2 opacity of a Gaussian: alpha is then a single exp2."""
    half, full = np.float32(-0.5 * LOG2E), np.float32(-LOG2E)
    peak = np.float32(math.log2(opacities[g]))
    return means2d[g, 0], means2d[g, 1], half * conics[g, 0], full * conics[g, 1], half * conics[g, 2], peak


@helper
def _rows(splat: Splat, left: int, top: int, bottom: int) -> tuple[int, int]:
    """Rows of the tile (first, one past the last) in which the Gaussian can reach the alpha threshold.

    The threshold's ellipse is intersected with the strip of the tile's columns: its lowest and highest points there are
    the ellipse's own extremes, or lie on the nearest edge of the strip. A margin covers rounding.
    """
    a, b, c = -2.0 * splat[2], -1.0 * splat[3], -2.0 * splat[4]  # 2 sigma = a x² + 2 b x y + c y², in log2
    level = 2.0 * (float(splat[5]) - LOG2_MIN_ALPHA) * 1.0001 + 1e-3
    rows, det = min(TILE, bottom - top), a * c - b * b
    if not det > 1e-6 * a * c:  # so thin that its determinant is all rounding
        return 0, rows
    low, high = left + 0.5 - splat[0], left + TILE - 0.5 - splat[0]
    lean = b / a * math.sqrt(level * a / det)
    x_up, x_down = min(max(-lean, low), high), min(max(lean, low), high)
    up, down = level * c - det * x_up * x_up, level * c - det * x_down * x_down
    if up < 0.0 or down < 0.0:
        return 0, 0
    y_up = (math.sqrt(up) - b * x_up) / c + splat[1] - 0.5 - top
    y_down = (-math.sqrt(down) - b * x_down) / c + splat[1] - 0.5 - top
    return int(min(max(math.ceil(y_down), 0.0), TILE)), int(max(min(math.floor(y_up) + 1.0, rows), 0.0))


@helper
def _finished(state: np.ndarray, stride: np.uint64) -> np.bool_:
    """Whether all pixels of the tile are finished."""
    total = ZERO
    for y in range(TILE):
        o = np.uint64(y) * stride
        for x in range(ROW):
            total += max(state[o + TRANSMITTANCE + x], ZERO)
    return total <= ZERO


@helper
def _blend_row(state: np.ndarray, o: np.uint64, splat: Splat, dy: np.float32, rank: np.float32, c0: np.float32,
               c1: np.float32, c2: np.float32) -> None:
    """Blend one Gaussian over the row at o: updates transmittance, rank of the last Gaussian and three channels."""
    cross, square = splat[3] * dy, splat[4] * dy * dy
    for x in range(ROW):
        p = o + x
        dx = splat[0] - state[COLUMN + p]
        power = dx * (splat[2] * dx + cross) + square  # minus sigma, in log2
        alpha = min(_exp2(splat[5] + power), MAX_ALPHA)
        alpha = alpha if (power <= ZERO) & (splat[5] + power >= LOG2_MIN_ALPHA) else ZERO
        held, last = state[TRANSMITTANCE + p], state[LAST + p]
        before = max(held, ZERO)
        after, weight, stopped = before * (ONE - alpha), alpha * before, -abs(held)
        go = after > MIN_TRANSMITTANCE
        weight = weight if go else ZERO
        state[TRANSMITTANCE + p] = after if go else stopped
        state[LAST + p] = rank if weight > ZERO else last
        state[WEIGHT + p] = weight
        state[COLOR + FIRST + p] += weight * c0
        state[COLOR + SECOND + p] += weight * c1
        state[COLOR + THIRD + p] += weight * c2


@helper
def _blend_tile(t: int, left: int, top: int, height: int, means2d: np.ndarray, conics: np.ndarray,
                opacities: np.ndarray, colors: np.ndarray, starts: np.ndarray, ids: np.ndarray, state: np.ndarray,
                stride: np.uint64) -> None:
    """Blend one tile's Gaussians front to back. A finished pixel has minus its final transmittance."""
    for j in range(state.shape[0]):
        state[j] = ZERO
    for y in range(TILE):
        for x in range(TILE):
            o = np.uint64(y) * stride + np.uint64(x)
            state[TRANSMITTANCE + o], state[COLUMN + o] = ONE, np.float32(left + x + 0.5)
    for i in range(starts[t], starts[t + 1]):
        if (i - starts[t]) % 8 == 7 and _finished(state, stride):
            break
        g = ids[i]
        splat = _load_splat(g, means2d, conics, opacities)
        y0, y1 = _rows(splat, left, top, height)
        rank = np.float32(i + 1 - starts[t])
        for y in range(y0, y1):
            o = np.uint64(y) * stride
            dy = splat[1] - np.float32(top + y + 0.5)
            _blend_row(state, o, splat, dy, rank, colors[g, 0], colors[g, 1], colors[g, 2])
            for k in range(3, colors.shape[1]):
                c, line = colors[g, k], COLOR + np.uint64(k) * ROW + o
                for x in range(ROW):
                    state[line + x] += state[WEIGHT + o + x] * c


@helper
def _tile_origin(t: int, tiles_x: int, tiles: int) -> tuple[int, int, int]:
    """Image, left and top pixel of tile t of all images."""
    return t // tiles, (t % tiles % tiles_x) * TILE, (t % tiles // tiles_x) * TILE


@helper
def _background_at(background: np.ndarray, img: int, x: int, y: int, k: int) -> np.float32:
    """Channel k of the background at a pixel; background is [I, H, W, D], or [I, 1, 1, D] for one colour per image."""
    return background[img, min(y, background.shape[1] - 1), min(x, background.shape[2] - 1), k]


@jit
def blend_forward(first: int, step: int, means2d: np.ndarray, conics: np.ndarray, opacities: np.ndarray,
                  colors: np.ndarray, background: np.ndarray, tiles_x: int, tiles: int, starts: np.ndarray,
                  ids: np.ndarray, image: np.ndarray, alpha: np.ndarray, saved: np.ndarray) -> None:
    """Blend front to back; items are the tiles of all images. colors [I * N, max(D, 3)], background: `_background_at`.

    Outputs image [I, H, W, D], alpha [I, H, W] and, for the backward pass, saved [I * tiles, 2, 256]: each pixel's
    final transmittance, and the rank (from 1, in the tile's list) of the last Gaussian blended into it. saved has no
    rows if no gradient is needed.
    """
    height, width, channels = image.shape[1], image.shape[2], image.shape[3]
    stride = COLOR + np.uint64(colors.shape[1]) * ROW
    state = np.empty(int(stride) * TILE, np.float32)
    for t in range(first, starts.shape[0] - 1, step):
        img, left, top = _tile_origin(t, tiles_x, tiles)
        _blend_tile(t, left, top, height, means2d, conics, opacities, colors, starts, ids, state, stride)
        if saved.shape[0] > 0:
            for y in range(TILE):
                o = np.uint64(y) * stride
                for x in range(ROW):
                    saved[t, 0, y * TILE + int(x)] = abs(state[TRANSMITTANCE + o + x])
                    saved[t, 1, y * TILE + int(x)] = state[LAST + o + x]
        for y in range(min(TILE, height - top)):
            for x in range(min(TILE, width - left)):
                o = np.uint64(y) * stride + np.uint64(x)
                rest = abs(state[TRANSMITTANCE + o])
                alpha[img, top + y, left + x] = ONE - rest
                for k in range(channels):
                    color = state[COLOR + np.uint64(k) * ROW + o]
                    behind = _background_at(background, img, left + x, top + y, k)
                    image[img, top + y, left + x, k] = color + rest * behind


@helper
def _load_tile(t: int, img: int, left: int, top: int, saved: np.ndarray, v_image: np.ndarray, v_alpha: np.ndarray,
               background: np.ndarray, state: np.ndarray, stride: np.uint64) -> int:
    """Initialise a tile's state for the backward pass; zeros outside the image.

    Sets transmittance, rank of the last Gaussian, pixel columns, the image's gradient, and BEHIND: the gradient times
    the background, minus the gradient of alpha. Returns the highest rank of all pixels.
    """
    height, width, channels = v_image.shape[1], v_image.shape[2], v_image.shape[3]
    highest = ZERO
    for j in range(state.shape[0]):
        state[j] = ZERO
    for y in range(TILE):
        for x in range(TILE):
            o, p = np.uint64(y) * stride + np.uint64(x), y * TILE + x
            state[COLUMN + o] = np.float32(left + x + 0.5)
            state[TRANSMITTANCE + o], state[LAST + o] = saved[t, 0, p], saved[t, 1, p]
            highest = max(highest, saved[t, 1, p])
    for y in range(min(TILE, height - top)):
        for x in range(min(TILE, width - left)):
            o = np.uint64(y) * stride + np.uint64(x)
            value = -v_alpha[img, top + y, left + x]
            for k in range(channels):
                v = v_image[img, top + y, left + x, k]
                state[IMAGE + np.uint64(k) * ROW + o] = v
                value += v * _background_at(background, img, left + x, top + y, k)
            state[BEHIND + o] = value
    return int(highest)


@helper
def _row_backward(state: np.ndarray, o: np.uint64, splat: Splat, dy: np.float32, rank: np.float32, c0: np.float32,
                  c1: np.float32, c2: np.float32) -> None:
    """Backward pass of `_blend_row`: leaves the weights and S = alpha * dalpha (dsigma = -S).

    VALUE is the product of image gradient and colour over the channels beyond three. BEHIND is the product of image
    gradient and the colour blended from everything behind the Gaussian, per unit of transmittance: this recursion needs
    no division and has no cancellation.
    """
    cross, square = splat[3] * dy, splat[4] * dy * dy
    for x in range(ROW):
        p = o + x
        dx = splat[0] - state[COLUMN + p]
        power = dx * (splat[2] * dx + cross) + square  # minus sigma, in log2
        raw = _exp2(splat[5] + power)
        use = (power <= ZERO) & (splat[5] + power >= LOG2_MIN_ALPHA) & (rank <= state[LAST + p])
        alpha = min(raw, MAX_ALPHA)
        alpha = alpha if use else ZERO
        before = state[TRANSMITTANCE + p] / (ONE - alpha)
        weight, behind = alpha * before, state[BEHIND + p]
        value = c0 * state[IMAGE + FIRST + p] + c1 * state[IMAGE + SECOND + p] + c2 * state[IMAGE + THIRD + p]
        gain = value + state[VALUE + p] - behind
        s = weight * gain
        state[TRANSMITTANCE + p] = before
        state[BEHIND + p] = behind + alpha * gain
        state[WEIGHT + p] = weight
        state[S + p] = ZERO if raw > MAX_ALPHA else s


@helper
def _add_row(state: np.ndarray, o: np.uint64, dy: np.float32, sums: np.ndarray) -> None:
    """Add a row to the column sums: s, s dy, s dy², and the weighted image gradient of three channels."""
    for x in range(ROW):
        p = o + x
        s, weight = state[S + p], state[WEIGHT + p]
        sums[x] += s
        sums[ROW + x] += s * dy
        sums[ROW + ROW + x] += s * dy * dy
        sums[ROW + ROW + ROW + x] += weight * state[IMAGE + FIRST + p]
        sums[COLOR + x] += weight * state[IMAGE + SECOND + p]
        sums[COLOR + ROW + x] += weight * state[IMAGE + THIRD + p]


@helper
def _moments(state: np.ndarray, splat: Splat, conic: np.ndarray, opacity: np.float32, channels: int, sums: np.ndarray,
             slot: np.ndarray) -> None:
    """Gradients of a Gaussian from its column sums in a tile, into its slot: mean (2), conic (3), opacity, channels."""
    s0 = sx = sxx = sy = sxy = syy = ZERO
    for x in range(ROW):
        dx, s, s_dy = splat[0] - state[COLUMN + x], sums[x], sums[ROW + x]
        s0 += s
        sx += s * dx
        sxx += s * dx * dx
        sy += s_dy
        sxy += s_dy * dx
        syy += sums[ROW + ROW + x]
    slot[0] = -(conic[0] * sx + conic[1] * sy)
    slot[1] = -(conic[1] * sx + conic[2] * sy)
    slot[2], slot[3], slot[4] = np.float32(-0.5) * sxx, -sxy, np.float32(-0.5) * syy
    slot[5] = s0 / opacity
    for k in range(channels):
        total, line = ZERO, np.uint64(3 + k) * ROW
        for x in range(ROW):
            total += sums[line + x]
        slot[6 + k] = total


@helper
def _add_absgrad(state: np.ndarray, o: np.uint64, splat: Splat, dy: np.float32, conic: np.ndarray, slot: np.ndarray
                ) -> None:
    """Add |gradient of the 2D mean| of a row's pixels to the last two entries of the slot."""
    ax = ay = ZERO
    for x in range(ROW):
        dx, s = splat[0] - state[COLUMN + o + x], state[S + o + x]
        ax += abs(s * (conic[0] * dx + conic[1] * dy))
        ay += abs(s * (conic[1] * dx + conic[2] * dy))
    slot[slot.shape[0] - 2] += ax
    slot[slot.shape[0] - 1] += ay


@helper
def _gaussian_backward(state: np.ndarray, stride: np.uint64, color: np.ndarray, splat: Splat, y0: int, y1: int,
                       top: int, rank: np.float32, conic: np.ndarray, absgrad: bool, sums: np.ndarray, slot: np.ndarray
                      ) -> None:
    """Backward pass over all rows of one Gaussian in a tile: leaves its column sums."""
    for j in range(sums.shape[0]):
        sums[j] = ZERO
    for y in range(y0, y1):
        o, dy = np.uint64(y) * stride, splat[1] - np.float32(top + y + 0.5)
        if color.shape[0] > 3:
            for x in range(ROW):
                state[VALUE + o + x] = ZERO
        for k in range(3, color.shape[0]):
            c, line = color[k], IMAGE + np.uint64(k) * ROW + o
            for x in range(ROW):
                state[VALUE + o + x] += c * state[line + x]
        _row_backward(state, o, splat, dy, rank, color[0], color[1], color[2])
        _add_row(state, o, dy, sums)
        for k in range(3, color.shape[0]):
            line, column = IMAGE + np.uint64(k) * ROW + o, np.uint64(3 + k) * ROW
            for x in range(ROW):
                sums[column + x] += state[WEIGHT + o + x] * state[line + x]
        if absgrad:
            _add_absgrad(state, o, splat, dy, conic, slot)


@jit
def blend_backward(first: int, step: int, means2d: np.ndarray, conics: np.ndarray, opacities: np.ndarray,
                   colors: np.ndarray, background: np.ndarray, tiles_x: int, tiles: int, starts: np.ndarray,
                   ids: np.ndarray, saved: np.ndarray, v_image: np.ndarray, v_alpha: np.ndarray, absgrad: bool,
                   slots: np.ndarray) -> None:
    """Gradients of `blend_forward`, back to front; items are the tiles of all images.

    Fills slots [len(ids), 6 + D (+ 2)], see `_moments`; with `absgrad` the last two hold the sums over pixels of the 2D
    mean's |gradient|.
    """
    height, channels = v_image.shape[1], v_image.shape[3]
    stride = IMAGE + np.uint64(colors.shape[1]) * ROW
    state, sums = np.empty(int(stride) * TILE, np.float32), np.empty((3 + colors.shape[1]) * TILE, np.float32)
    for t in range(first, starts.shape[0] - 1, step):
        if starts[t] == starts[t + 1]:
            continue
        img, left, top = _tile_origin(t, tiles_x, tiles)
        last = _load_tile(t, img, left, top, saved, v_image, v_alpha, background, state, stride)
        for i in range(starts[t], starts[t + 1]):
            for k in range(slots.shape[1]):
                slots[i, k] = ZERO
        for i in range(starts[t] + last - 1, starts[t] - 1, -1):
            g = ids[i]
            splat, slot, conic = _load_splat(g, means2d, conics, opacities), slots[i], conics[g]
            y0, y1 = _rows(splat, left, top, height)
            if y0 < y1:
                rank = np.float32(i + 1 - starts[t])
                _gaussian_backward(state, stride, colors[g], splat, y0, y1, top, rank, conic, absgrad, sums, slot)
                _moments(state, splat, conic, opacities[g], channels, sums, slot)
