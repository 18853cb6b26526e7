"""Head pose: one rigid head shape, one focal length and a camera for every frame, from the tracked landmarks.

Generalised Procrustes analysis of the rigid landmarks gives an initial mean shape and weak-perspective poses. Shape and
poses are then refined together on up to 300 keyframes, and the poses of all frames for that shape with a smoothness
term. Only landmarks on the skull are used (see `RIGID`).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..face import pose_math
from ..face.landmarks import CHIN, FOREHEAD, RIGID, RIGID_PAIRS
from . import bundle
from .source import UnusableClipError

MAX_KEYFRAMES = 300
#: focal length in image widths. Face landmarks hardly constrain it, so it is that of a typical head crop from a camera
#: about two metres away
FOCAL_WIDTHS = 2.5
#: scale of the robust loss, px at 512 px
ROBUST_SCALE = 2.0
#: landmark errors within a frame are correlated: about this share of them counts as independent
INDEPENDENT_SHARE = 0.15
#: expected acceleration of a speaking head per frame^2: rotation in rad, translation in head units (x, y, depth)
ACCELERATION = np.array([0.003, 0.003, 0.003, 0.006, 0.006, 0.015])


@dataclass
class PoseSolution:
    """Result of `solve_pose`.

    Attributes:
        w2c: [N, 4, 4] float32 world-to-camera, OpenCV axes; the world is the head frame.
        focal: px at the image size.
        mean_face: [478, 3] float32, head frame.
        reprojection: [N] float32, rms px over the rigid landmarks.
    """

    w2c: np.ndarray
    focal: float
    mean_face: np.ndarray
    reprojection: np.ndarray


def procrustes(shapes: np.ndarray, used: np.ndarray, iterations: int = 5) -> tuple[np.ndarray, ...]:
    """Generalised Procrustes analysis: a mean shape, and each frame's rotation, scale and centre.

    Args:
        shapes: [N, P, 3] px.
        used: indices of the landmarks that are aligned.
        iterations: number of iterations.

    Returns:
        mean [P, 3] (centred on the used landmarks, rms size 1 over them), rotation [N, 3, 3], scale [N] and centre
        [N, 3] such that `shapes ~ scale * mean @ rotation.T + centre`.
    """
    centre = shapes[:, used].mean(axis=1)
    centred = shapes - centre[:, None]
    scale = np.sqrt((centred[:, used] ** 2).sum(axis=(1, 2)) / len(used))
    unit = centred / scale[:, None, None]
    mean, rotation = unit[0], np.broadcast_to(np.eye(3), (len(shapes), 3, 3))
    for _ in range(iterations):
        u, _, vt = np.linalg.svd(np.einsum("npi,pj->nij", unit[:, used], mean[used]))
        sign = np.linalg.det(u @ vt)
        u[:, :, 2] *= sign[:, None]
        rotation = u @ vt
        mean = np.einsum("npj,nji->npi", unit, rotation).mean(axis=0)
        mean = mean / np.sqrt((mean[used] ** 2).sum() / len(used))
    return mean, rotation, scale, centre


def frontal_frame(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Axes, origin and unit of the head frame for a mean face.

    x points to the right of the image, from left landmarks to their right counterparts; y down, from the top of the
    forehead to the chin; z away from the camera. The origin is the centroid of the rigid landmarks.

    Args:
        points: [478, 3].

    Returns:
        rotation [3, 3], origin [3], scale: `head = scale * rotation @ (point - origin)`.
    """
    x = (points[RIGID_PAIRS[:, 1]] - points[RIGID_PAIRS[:, 0]]).sum(axis=0)
    x = x / np.linalg.norm(x)
    y = points[CHIN] - points[FOREHEAD]
    y = y - (y @ x) * x
    y = y / np.linalg.norm(y)
    scale = 1 / np.linalg.norm(points - points.mean(axis=0), axis=1).mean()
    return np.stack([x, y, np.cross(x, y)]), points[RIGID].mean(axis=0), float(scale)


def solve_pose(landmarks: np.ndarray, found: np.ndarray, size: int, focal: float | None = None) -> PoseSolution:
    """Head shape, focal length and camera poses of a clip.

    Args:
        landmarks: [N, 478, 3] px at image size `size`, z in the same scale; any finite values in frames without a face.
        found: [N] bool, a face was tracked.
        size: image size S.
        focal: px; by default `FOCAL_WIDTHS` image widths.

    Returns:
        the solution: `mean_face` projected by `w2c` and `focal` coincides with the landmarks.

    Raises:
        UnusableClipError: no frame has a face, or its landmarks fit no head.
    """
    if not found.any():
        raise UnusableClipError("a face in the clip", "none in any frame",
                                "Use a clip that shows one face from the front.")
    try:
        with np.errstate(all="ignore"):
            solution = _solve(landmarks, found, size, focal)
        solved = all(np.isfinite(part).all() for part in (solution.w2c, solution.mean_face, solution.reprojection))
    except ValueError as error:
        if not isinstance(error, np.linalg.LinAlgError) and "infs or NaNs" not in str(error):  # the latter by SciPy
            raise
        solved = False
    if not solved:
        raise UnusableClipError("landmarks of a head", "ones that fit none, in any position",
                                "Use a clip that shows one face from the front, well lit and not too small.")
    return solution


def _solve(landmarks: np.ndarray, found: np.ndarray, size: int, focal: float | None) -> PoseSolution:
    """See `solve_pose`."""
    seen = np.flatnonzero(found)
    focal = float(focal or FOCAL_WIDTHS * size)
    robust = ROBUST_SCALE * size / 512
    keys = seen[np.unique(np.linspace(0, len(seen) - 1, min(MAX_KEYFRAMES, len(seen))).round().astype(int))]
    mean, rotation, scale, centre = procrustes(landmarks[keys].astype(np.float64), RIGID)
    observed = landmarks[..., :2].astype(np.float64) - size / 2
    translation = _perspective_translation(scale, centre, size, focal)
    rotation, translation, rigid, _ = bundle.adjust(rotation, translation, mean[RIGID], observed[keys][:, RIGID],
                                                    focal, robust)
    # the similarity that aligns the two rigid shapes is applied to the non-rigid landmarks as well
    shape = _align(mean, mean[RIGID], rigid)
    shape[RIGID] = rigid

    nearest = keys[np.abs(np.arange(len(found))[:, None] - keys).argmin(axis=1)] if len(keys) < len(found) else keys
    row = np.searchsorted(keys, nearest)
    rotation, translation = _all_poses(rotation[row], translation[row], rigid, observed[:, RIGID], found, focal, robust,
                                       size)
    # before the first and after the last face the pose is held: there is nothing to interpolate
    held = np.clip(np.arange(len(found)), seen[0], seen[-1])
    rotation, translation = rotation[held], translation[held]
    shape = bundle.locate_points(rotation[keys], translation[keys], shape, observed[keys], focal)
    shape[RIGID] = rigid
    return _in_head_frame(rotation, translation, shape, observed, focal)


def _perspective_translation(scale: np.ndarray, centre: np.ndarray, size: int, focal: float) -> np.ndarray:
    """Weak-perspective scale and centre (px) -> translations [N, 3] of a perspective camera."""
    return np.concatenate([(centre[:, :2] - size / 2) / scale[:, None], (focal / scale)[:, None]], axis=1)


def _align(points: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Apply the similarity that best maps `source` to `target` to `points`, all [P, 3]."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    u, s, vt = np.linalg.svd((target - b).T @ (source - a))
    d = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    return (s * d).sum() / ((source - a) ** 2).sum() * (points - a) @ (u * d @ vt).T + b


def _all_poses(rotation: np.ndarray, translation: np.ndarray, rigid: np.ndarray, observed: np.ndarray,
               found: np.ndarray, focal: float, robust: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth poses of all frames, from initial ones: see `bundle.smooth_poses`."""
    unit = np.sqrt((rigid**2).sum() / len(rigid))
    # the expected error is one px at 512 px, whatever the image size
    frame_weight = found * (INDEPENDENT_SHARE * (512 / size) ** 2)
    sigma = ACCELERATION * np.array([1, 1, 1, unit, unit, unit])
    # two passes: the first, hardly constrained, moves every frame from the pose of its keyframe to its own
    rotation, translation = bundle.smooth_poses(rotation, translation, rigid, observed, frame_weight, focal,
                                                10 * robust, 50 * sigma)
    return bundle.smooth_poses(rotation, translation, rigid, observed, frame_weight, focal, robust, sigma)


def _in_head_frame(rotation: np.ndarray, translation: np.ndarray, shape: np.ndarray, observed: np.ndarray, focal: float
                   ) -> PoseSolution:
    """The same shape and poses, with the head frame of `frontal_frame` as the world."""
    axes, origin, scale = frontal_frame(shape)
    head = scale * (shape - origin) @ axes.T
    w2c = np.tile(np.eye(4), (len(rotation), 1, 1))
    w2c[:, :3, :3] = rotation @ axes.T
    w2c[:, :3, 3] = scale * (translation + rotation @ origin)
    error = pose_math.project(w2c[:, :3, :3], w2c[:, :3, 3], head[RIGID], focal) - observed[:, RIGID]
    return PoseSolution(w2c.astype(np.float32), focal, head.astype(np.float32),
                        np.sqrt((error**2).sum(-1).mean(axis=1)).astype(np.float32))
