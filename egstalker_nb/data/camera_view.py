"""How the camera saw the scene in a frame: a similarity against the reference view, and its exposure.

A view is four numbers: shift x and y (half images), log scale, and roll (rad). It maps a point of the reference view to
the frame: `scale * turned(point) + shift`, both in half images from the centre, x right and y down, so that it does not
depend on the image's size. Zeros are the reference view, which a still camera has in every frame.
"""
from __future__ import annotations

import numpy as np

VIEW = 4                # numbers of a view
CAMERA = VIEW + 3       # numbers of a frame in `Dataset.camera`: view, and log gains of red, green and blue
MAX_CANVAS = 2.0        # side of the canvas, in sides of a frame
#: of a frame, half images, as columns
CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]], np.float64).T


def view_matrix(views: np.ndarray) -> np.ndarray:
    """Views [..., 4] as matrices [..., 3, 3] float64, from the reference to the frame, half images."""
    views = np.asarray(views, np.float64)
    along, across = (np.exp(views[..., 2]) * f(views[..., 3]) for f in (np.cos, np.sin))
    zero, one = np.zeros_like(along), np.ones_like(along)
    rows = [[along, -across, views[..., 0]], [across, along, views[..., 1]], [zero, zero, one]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def view_of(matrices: np.ndarray) -> np.ndarray:
    """The inverse of `view_matrix`: [..., 3, 3] similarities -> [..., 4] float64."""
    scale = np.log(np.hypot(matrices[..., 0, 0], matrices[..., 1, 0]))
    roll = np.arctan2(matrices[..., 1, 0], matrices[..., 0, 0])
    return np.stack([matrices[..., 0, 2], matrices[..., 1, 2], scale, roll], -1)


def pixels(size: int, margin: int = 0) -> np.ndarray:
    """[3, 3] float64 from half images to px, as OpenCV counts them (0 is the centre of the first), of a canvas with a
    margin around frames of `size` px."""
    half = size / 2
    return np.array([[half, 0, half - 0.5 + margin], [0, half, half - 0.5 + margin], [0, 0, 1]])


def to_canvas(views: np.ndarray, size: int, margin: int) -> np.ndarray:
    """[..., 2, 3] float64 from px of frames with these views [..., 4] to px of the canvas."""
    return (pixels(size, margin) @ np.linalg.inv(view_matrix(views)) @ np.linalg.inv(pixels(size)))[..., :2, :]


def corners_moved(views: np.ndarray, size: int) -> np.ndarray:
    """How far the frame's corner that moves most is from its place in the reference view, px: [...]."""
    moved = (view_matrix(views) @ CORNERS - CORNERS)[..., :2, :]
    return np.linalg.norm(moved, axis=-2).max(-1) * size / 2


def canvas_margin(views: np.ndarray, size: int) -> tuple[int, bool]:
    """The margin of a canvas that holds what frames with these views [N, 4] show.

    Returns:
        px, a multiple of 4, and whether frames reach beyond the largest one allowed.
    """
    reach = np.abs((np.linalg.inv(view_matrix(views)) @ CORNERS)[:, :2]).max()
    needed, most = 4 * int(np.ceil((reach - 1) * size / 8)), int((MAX_CANVAS - 1) * size / 8) * 4
    return max(0, min(needed, most)), needed > most
