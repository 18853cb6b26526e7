"""Numba kernels that blend the Gaussians of 16 x 16 pixel tiles into an image, and their gradients.

A tile is one thread's work: its Gaussians form the outer loop and its pixel rows the inner one, with the
tile's transmittance and colours in a small buffer. Every inner loop runs over the 16 pixels of a row without
a branch, so that it becomes vector instructions. Maths as in gsplat 1.5.3 (`RasterizeToPixels3DGS{Fwd,Bwd}.cu`).
"""

import math

import numpy as np

from ..core.numba_jit import helper, jit
from .geometry import ALPHA_MIN
from .tiles import TILE

PIXELS = TILE * TILE
ALPHA_MAX = np.float32(0.999)
STOP = np.float32(1e-4)  # a pixel is finished before its transmittance falls to this
LOG2E = 1.4426950408889634
LOG2_ALPHA_MIN = np.float32(math.log2(ALPHA_MIN))
ZERO, ONE = np.float32(0.0), np.float32(1.0)

# A tile's state is one flat float32 buffer of 16 rows; a row is a sequence of lines of 16 pixels. With unsigned
# indices (no wrap-around of negative ones) and constant distances between the lines, LLVM knows that they do not
# overlap and makes vector instructions. The first three channels are unrolled: colours are padded to three.
ROW = np.uint64(TILE)
LEFT, TAKEN, COLUMN, WEIGHT = (np.uint64(TILE * i) for i in range(4))  # LEFT: transmittance
COLOR = np.uint64(TILE * 4)  # forward: blended channels, as many lines as there are
BEHIND, VALUE, S, IMAGE = (np.uint64(TILE * i) for i in range(4, 8))  # backward: IMAGE like COLOR
FIRST, SECOND, THIRD = (np.uint64(TILE * i) for i in range(3))


@helper
def _exp2(p):
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
def _load(g, means2d, conics, opacities):
    """(x, y, conic times -log2(e), log2 opacity) of a Gaussian as float32: alpha is then one exp2."""
    half, full = np.float32(-0.5 * LOG2E), np.float32(-LOG2E)
    peak = np.float32(math.log2(opacities[g]))
    return means2d[g, 0], means2d[g, 1], half * conics[g, 0], full * conics[g, 1], half * conics[g, 2], peak


@helper
def _rows(splat, left, top, bottom):
    """Rows of the tile (first, one past the last) in which the Gaussian can reach the alpha threshold.

    The ellipse of the threshold is cut with the strip of the tile's columns; its lowest and highest point
    there lie above each other's own extreme, or on the strip's edge next to it. A margin covers rounding.
    """
    a, b, c = -2.0 * splat[2], -1.0 * splat[3], -2.0 * splat[4]  # 2 sigma = a x² + 2 b x y + c y², in log2
    level = 2.0 * (float(splat[5]) - LOG2_ALPHA_MIN) * 1.0001 + 1e-3
    rows, det = min(TILE, bottom - top), a * c - b * b
    if not det > 1e-6 * a * c:  # a needle: its determinant is all rounding
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
def _finished(state, stride):
    """Whether no pixel of the tile lets more light through."""
    light = ZERO
    for y in range(TILE):
        o = np.uint64(y) * stride
        for x in range(ROW):
            light += max(state[o + LEFT + x], ZERO)
    return light <= ZERO


@helper
def _blend_row(state, o, splat, dy, place, c0, c1, c2):
    """One Gaussian over the row at o: update transmittance, the last place taken and three channels."""
    cross, square = splat[3] * dy, splat[4] * dy * dy
    for x in range(ROW):
        p = o + x
        dx = splat[0] - state[COLUMN + p]
        power = dx * (splat[2] * dx + cross) + square  # minus sigma, in log2
        alpha = min(_exp2(splat[5] + power), ALPHA_MAX)
        alpha = alpha if (power <= ZERO) & (splat[5] + power >= LOG2_ALPHA_MIN) else ZERO
        held, taken = state[LEFT + p], state[TAKEN + p]
        before = max(held, ZERO)
        after, weight, stopped = before * (ONE - alpha), alpha * before, -abs(held)
        go = after > STOP
        weight = weight if go else ZERO
        state[LEFT + p] = after if go else stopped
        state[TAKEN + p] = place if weight > ZERO else taken
        state[WEIGHT + p] = weight
        state[COLOR + FIRST + p] += weight * c0
        state[COLOR + SECOND + p] += weight * c1
        state[COLOR + THIRD + p] += weight * c2


@helper
def _blend_tile(t, left, top, height, means2d, conics, opacities, colors, starts, ids, state, stride):
    """Front to back over one tile's Gaussians. A finished pixel is marked by a negative transmittance, whose
    size stays the final one."""
    for j in range(state.shape[0]):
        state[j] = ZERO
    for y in range(TILE):
        for x in range(TILE):
            o = np.uint64(y) * stride + np.uint64(x)
            state[LEFT + o], state[COLUMN + o] = ONE, np.float32(left + x + 0.5)
    for i in range(starts[t], starts[t + 1]):
        if (i - starts[t]) % 8 == 7 and _finished(state, stride):
            break
        g = ids[i]
        splat = _load(g, means2d, conics, opacities)
        y0, y1 = _rows(splat, left, top, height)
        place = np.float32(i + 1 - starts[t])
        for y in range(y0, y1):
            o = np.uint64(y) * stride
            dy = splat[1] - np.float32(top + y + 0.5)
            _blend_row(state, o, splat, dy, place, colors[g, 0], colors[g, 1], colors[g, 2])
            for k in range(3, colors.shape[1]):
                c, line = colors[g, k], COLOR + np.uint64(k) * ROW + o
                for x in range(ROW):
                    state[line + x] += state[WEIGHT + o + x] * c


@helper
def _tile_origin(t, tiles_x, tiles):
    """(image, left, top) of the tile with index t over all images."""
    return t // tiles, (t % tiles % tiles_x) * TILE, (t % tiles // tiles_x) * TILE


@helper
def _backdrop(background, img, x, y, k):
    """The background behind a pixel: [I, H, W, D], or [I, 1, 1, D] of one colour."""
    return background[img, min(y, background.shape[1] - 1), min(x, background.shape[2] - 1), k]


@jit
def blend_forward(first, step, means2d, conics, opacities, colors, background, tiles_x, tiles, starts, ids,
                  image, alpha, kept):  # fmt: skip
    """Blend front to back; items are the tiles of all images. colors [I * N, max(D, 3)], background as in
    `_backdrop`.

    Outputs image [I, H, W, D], alpha [I, H, W] and, for the backward pass, kept [I * tiles, 2, 256]: each
    pixel's transmittance, and how many of the tile's Gaussians there are up to the last one that it took.
    kept may have no rows when no gradient is wanted.
    """
    height, width, channels = image.shape[1], image.shape[2], image.shape[3]
    stride = COLOR + np.uint64(colors.shape[1]) * ROW
    state = np.empty(int(stride) * TILE, np.float32)
    for t in range(first, starts.shape[0] - 1, step):
        img, left, top = _tile_origin(t, tiles_x, tiles)
        _blend_tile(t, left, top, height, means2d, conics, opacities, colors, starts, ids, state, stride)
        if kept.shape[0] > 0:
            for y in range(TILE):
                o = np.uint64(y) * stride
                for x in range(ROW):
                    kept[t, 0, y * TILE + int(x)] = abs(state[LEFT + o + x])
                    kept[t, 1, y * TILE + int(x)] = state[TAKEN + o + x]
        for y in range(min(TILE, height - top)):
            for x in range(min(TILE, width - left)):
                o = np.uint64(y) * stride + np.uint64(x)
                rest = abs(state[LEFT + o])
                alpha[img, top + y, left + x] = ONE - rest
                for k in range(channels):
                    color = state[COLOR + np.uint64(k) * ROW + o]
                    image[img, top + y, left + x, k] = color + rest * _backdrop(background, img, left + x, top + y, k)


@helper
def _open_tile(t, img, left, top, kept, v_image, v_alpha, background, state, stride):
    """Fill a tile's state for the way back: transmittance, places taken, columns, the image's gradient, and
    as BEHIND the gradient's value of what lies behind every Gaussian: the background, and minus the gradient
    of alpha. Zeros outside the image. Returns one past the last place that any pixel took."""
    height, width, channels = v_image.shape[1], v_image.shape[2], v_image.shape[3]
    most = ZERO
    for j in range(state.shape[0]):
        state[j] = ZERO
    for y in range(TILE):
        for x in range(TILE):
            o, p = np.uint64(y) * stride + np.uint64(x), y * TILE + x
            state[COLUMN + o] = np.float32(left + x + 0.5)
            state[LEFT + o], state[TAKEN + o] = kept[t, 0, p], kept[t, 1, p]
            most = max(most, kept[t, 1, p])
    for y in range(min(TILE, height - top)):
        for x in range(min(TILE, width - left)):
            o = np.uint64(y) * stride + np.uint64(x)
            value = -v_alpha[img, top + y, left + x]
            for k in range(channels):
                v = v_image[img, top + y, left + x, k]
                state[IMAGE + np.uint64(k) * ROW + o] = v
                value += v * _backdrop(background, img, left + x, top + y, k)
            state[BEHIND + o] = value
    return int(most)


@helper
def _unblend_row(state, o, splat, dy, place, c0, c1, c2):
    """Step a row from behind a Gaussian to before it: leaves the weights and S = alpha * dalpha (dsigma = -S).

    VALUE is the colour's gradient value by the channels beyond three, BEHIND that of the light from behind, per
    unit of transmittance: this recursion needs no division and loses nothing to cancellation.
    """
    cross, square = splat[3] * dy, splat[4] * dy * dy
    for x in range(ROW):
        p = o + x
        dx = splat[0] - state[COLUMN + p]
        power = dx * (splat[2] * dx + cross) + square  # minus sigma, in log2
        raw = _exp2(splat[5] + power)
        use = (power <= ZERO) & (splat[5] + power >= LOG2_ALPHA_MIN) & (place <= state[TAKEN + p])
        alpha = min(raw, ALPHA_MAX)
        alpha = alpha if use else ZERO
        before = state[LEFT + p] / (ONE - alpha)
        weight, behind = alpha * before, state[BEHIND + p]
        value = c0 * state[IMAGE + FIRST + p] + c1 * state[IMAGE + SECOND + p] + c2 * state[IMAGE + THIRD + p]
        gain = value + state[VALUE + p] - behind
        s = weight * gain
        state[LEFT + p] = before
        state[BEHIND + p] = behind + alpha * gain
        state[WEIGHT + p] = weight
        state[S + p] = ZERO if raw > ALPHA_MAX else s


@helper
def _add_row(state, o, dy, sums):
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
def _moments(state, splat, conic, opacity, channels, sums, slot):
    """Turn the column sums of one Gaussian in a tile into its slot: mean (2), conic (3), opacity, channels."""
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
def _absolute(state, o, splat, dy, conic, slot):
    """Add |gradient of the mean| of a row's pixels to the last two places of the slot."""
    ax = ay = ZERO
    for x in range(ROW):
        dx, s = splat[0] - state[COLUMN + o + x], state[S + o + x]
        ax += abs(s * (conic[0] * dx + conic[1] * dy))
        ay += abs(s * (conic[1] * dx + conic[2] * dy))
    slot[slot.shape[0] - 2] += ax
    slot[slot.shape[0] - 1] += ay


@helper
def _unblend_gaussian(state, stride, color, splat, y0, y1, top, place, conic, absolute, sums, slot):
    """All rows of one Gaussian in a tile, on the way back: leaves its column sums."""
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
        _unblend_row(state, o, splat, dy, place, color[0], color[1], color[2])
        _add_row(state, o, dy, sums)
        for k in range(3, color.shape[0]):
            line, column = IMAGE + np.uint64(k) * ROW + o, np.uint64(3 + k) * ROW
            for x in range(ROW):
                sums[column + x] += state[WEIGHT + o + x] * state[line + x]
        if absolute:
            _absolute(state, o, splat, dy, conic, slot)


@jit
def blend_backward(first, step, means2d, conics, opacities, colors, background, tiles_x, tiles, starts, ids, kept,
                   v_image, v_alpha, absolute, slots):  # fmt: skip
    """Gradients of `blend_forward`, back to front; items are the tiles of all images.

    Fills slots [len(ids), 6 + D (+ 2)] as `_moments` says; with `absolute` the last two hold the sums of
    |gradient| of the mean over pixels.
    """
    height, channels = v_image.shape[1], v_image.shape[3]
    stride = IMAGE + np.uint64(colors.shape[1]) * ROW
    state, sums = np.empty(int(stride) * TILE, np.float32), np.empty((3 + colors.shape[1]) * TILE, np.float32)
    for t in range(first, starts.shape[0] - 1, step):
        if starts[t] == starts[t + 1]:
            continue
        img, left, top = _tile_origin(t, tiles_x, tiles)
        taken = _open_tile(t, img, left, top, kept, v_image, v_alpha, background, state, stride)
        for i in range(starts[t], starts[t + 1]):
            for k in range(slots.shape[1]):
                slots[i, k] = ZERO
        for i in range(starts[t] + taken - 1, starts[t] - 1, -1):
            g = ids[i]
            splat, slot, conic = _load(g, means2d, conics, opacities), slots[i], conics[g]
            y0, y1 = _rows(splat, left, top, height)
            if y0 < y1:
                place = np.float32(i + 1 - starts[t])
                _unblend_gaussian(state, stride, colors[g], splat, y0, y1, top, place, conic, absolute, sums, slot)
                _moments(state, splat, conic, opacities[g], channels, sums, slot)
