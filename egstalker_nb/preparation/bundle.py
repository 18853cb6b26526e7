"""Least squares for a rigid face seen by a moving camera: the shape and all poses together (bundle adjustment).

Conventions: `u = f * Xc[:2] / Xc[2]` px from the image centre with `Xc = R @ X + t` (OpenCV axes); a pose is updated by
`R <- exp(w) R`, `t <- t + v`, packed as (w, v). Everything is float64.
"""
from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

from ..face.pose_math import cross_matrix, exponential, logarithm, project

#: frames per batch where a [frames, points, 2, 6] Jacobian is needed
FRAME_BATCH = 500
#: weight of a deviation from the tracked mean shape against a reprojection error (both in px^2). A flatter face with
#: larger rotations fits nearly as well, so that tracking errors would decide between the two without the prior
SHAPE_PRIOR = 0.001
#: standard deviations of acceleration beyond which the smoothness term is down-weighted: such accelerations are real
#: head movements (a head mostly rests, then nods) or cuts
ROBUST_ACCELERATION = 2.0


def _linearize(rotation: np.ndarray, translation: np.ndarray, points: np.ndarray, observed: np.ndarray, focal: float
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual [N, P, 2] (px) and its derivatives to the pose [N, P, 2, 6] and to the point [N, P, 2, 3]."""
    rotated = np.einsum("nij,pj->npi", rotation, points)
    camera = rotated + translation[:, None]
    inverse = 1 / camera[..., 2]
    flat = camera[..., :2] * inverse[..., None]
    to_camera = np.zeros((*camera.shape[:2], 2, 3))
    to_camera[..., 0, 0] = to_camera[..., 1, 1] = focal * inverse
    to_camera[..., 2] = -focal * flat * inverse[..., None]
    to_pose = np.concatenate([-to_camera @ cross_matrix(rotated), to_camera], axis=-1)
    return focal * flat - observed, to_pose, np.einsum("npij,njk->npik", to_camera, rotation)


def robust_weights(residual: np.ndarray, scale: float) -> np.ndarray:
    """Weights [N, P] of the Cauchy loss for residuals [N, P, 2]; residuals of `scale` px get weight 1/2."""
    return 1 / (1 + np.sum(residual**2, axis=-1) / scale**2)


def robust_cost(residual: np.ndarray, scale: float) -> float:
    """Mean Cauchy loss in px^2."""
    return float(scale**2 * np.log1p(np.sum(residual**2, axis=-1) / scale**2).mean())


def adjust(rotation: np.ndarray, translation: np.ndarray, points: np.ndarray, observed: np.ndarray, focal: float,
           scale: float, iterations: int = 25) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Refine the shape and the poses of some frames together (Levenberg-Marquardt, Schur complement).

    Args:
        rotation: [N, 3, 3] initial rotations.
        translation: [N, 3] initial translations.
        points: [P, 3] initial shape.
        observed: [N, P, 2] px from the image centre.
        focal: px.
        scale: scale of the robust loss, px.
        iterations: at most.

    Returns:
        rotation, translation, points, cost (mean robust loss in px^2 with the shape prior).
    """
    start, pixel = points.copy(), focal / float(np.median(translation[:, 2]))
    prior = SHAPE_PRIOR * pixel**2

    def cost_of(r: np.ndarray, t: np.ndarray, x: np.ndarray) -> float:
        data = robust_cost(project(r, t, x, focal) - observed, scale)
        return data + prior * float(np.sum((x - start) ** 2)) / len(x)

    damping, cost = 1e-3, cost_of(rotation, translation, points)
    for _ in range(iterations):
        pose_step, point_step = _joint_step(rotation, translation, points, observed, focal, scale, start, prior,
                                            damping)
        trial = exponential(pose_step[:, :3]) @ rotation, translation + pose_step[:, 3:], points + point_step
        new = cost_of(*trial) if (trial[1][:, 2] > 0).all() else np.inf
        if new < cost:
            (rotation, translation, points), gain, cost = trial, cost - new, new
            damping = max(damping / 5, 1e-7)
            if gain < 1e-6 * cost:
                break
        else:
            damping *= 8
            if damping > 1e4:
                break
    return rotation, translation, points, cost


def _joint_step(rotation: np.ndarray, translation: np.ndarray, points: np.ndarray, observed: np.ndarray, focal: float,
                scale: float, start: np.ndarray, prior: float, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """One damped Gauss-Newton step of poses [N, 6] and points [P, 3]; the poses are eliminated (Schur complement)."""
    frames, count = observed.shape[:2]
    residual, to_pose, to_point = _linearize(rotation, translation, points, observed, focal)
    weight = robust_weights(residual, scale)[..., None, None]
    pose_block = np.einsum("npia,npib->nab", weight * to_pose, to_pose)
    point_block = np.einsum("npia,npib->pab", weight * to_point, to_point)
    mixed = np.einsum("npia,npib->napb", weight * to_pose, to_point).reshape(frames, 6, 3 * count)
    pose_side = -np.einsum("npia,npi->na", weight * to_pose, residual)
    point_side = -np.einsum("npia,npi->pa", weight * to_point, residual)
    point_block += frames * prior * np.eye(3)
    point_side -= frames * prior * (points - start)
    pose_block += damping * np.einsum("naa,ab->nab", pose_block, np.eye(6))
    point_block += damping * np.einsum("paa,ab->pab", point_block, np.eye(3))

    solved = np.linalg.solve(pose_block, np.concatenate([mixed, pose_side[..., None]], axis=-1))
    reduced = -np.einsum("nax,nay->xy", mixed, solved[..., :-1], optimize=True)
    for p in range(count):
        reduced[3 * p:3 * p + 3, 3 * p:3 * p + 3] += point_block[p]
    right = point_side.ravel() - np.einsum("nax,na->x", mixed, solved[..., -1])
    point_step = np.linalg.solve(reduced, right)
    pose_step: np.ndarray = solved[..., -1] - solved[..., :-1] @ point_step
    return pose_step, point_step.reshape(-1, 3)


def smooth_poses(rotation: np.ndarray, translation: np.ndarray, points: np.ndarray, observed: np.ndarray,
                 frame_weight: np.ndarray, focal: float, scale: float, sigma: np.ndarray, iterations: int = 8
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Poses of all frames for a fixed shape: robust reprojection and small accelerations (banded Gauss-Newton).

    Args:
        rotation: [N, 3, 3] initial rotations.
        translation: [N, 3] initial translations.
        points: [P, 3] shape.
        observed: [N, P, 2] px from the image centre.
        frame_weight: [N] weight of each frame's landmarks, 0 for a frame without a face (its pose is interpolated).
        focal: px.
        scale: scale of the robust loss, px.
        sigma: [6] expected acceleration per frame^2: rotation (rad), translation (shape units).
        iterations: number of Gauss-Newton steps.

    Returns:
        rotation, translation.
    """
    n = len(rotation)
    for _ in range(iterations):
        block, side = np.zeros((n, 6, 6)), np.zeros((n, 6))
        for a in range(0, n, FRAME_BATCH):
            part = slice(a, a + FRAME_BATCH)
            residual, jacobian, _ = _linearize(rotation[part], translation[part], points, observed[part], focal)
            weight = (robust_weights(residual, scale) * frame_weight[part, None])[..., None, None]
            block[part] = np.einsum("npia,npib->nab", weight * jacobian, jacobian)
            side[part] = -np.einsum("npia,npi->na", weight * jacobian, residual)
        banded = _banded(block)
        if n > 2:
            _add_smoothness(banded, side, rotation, translation, 1 / sigma**2)
        step = solveh_banded(banded, side.ravel(), overwrite_ab=True).reshape(n, 6)
        rotation, translation = exponential(step[:, :3]) @ rotation, translation + step[:, 3:]
    return rotation, translation


def _banded(block: np.ndarray) -> np.ndarray:
    """Block-diagonal [N, 6, 6] in the upper banded form of `solveh_banded`, 13 rows, slightly damped."""
    n = len(block)
    banded = np.zeros((13, n, 6))
    for i in range(6):
        for j in range(i, 6):
            banded[12 + i - j, :, j] = block[:, i, j]
    # keeps the system solvable where consecutive frames have neither landmarks nor neighbours
    banded[12] += 1e-6
    return banded.reshape(13, n * 6)


def _add_smoothness(banded: np.ndarray, side: np.ndarray, rotation: np.ndarray, translation: np.ndarray,
                    weight: np.ndarray) -> None:
    """Add |second difference|^2 * weight to the normal equations, in place."""
    velocity = logarithm(rotation[1:] @ np.transpose(rotation[:-1], (0, 2, 1)))
    acceleration = np.concatenate([np.diff(velocity, axis=0), np.diff(translation, n=2, axis=0)], axis=1)
    squared = np.einsum("na,na,a->n", acceleration, acceleration, weight)
    robust = (1 / (1 + squared / ROBUST_ACCELERATION**2))[:, None] * weight
    n = len(side)
    rows = banded.reshape(13, n, 6)
    factor = (1.0, -2.0, 1.0)
    for i in range(3):
        side[i:n - 2 + i] -= factor[i] * robust * acceleration
        for j in range(i, 3):
            rows[12 - 6 * (j - i), j:n - 2 + j] += factor[i] * factor[j] * robust


def locate_points(rotation: np.ndarray, translation: np.ndarray, points: np.ndarray, observed: np.ndarray,
                  focal: float, iterations: int = 5) -> np.ndarray:
    """Mean 3D position of every landmark (also of moving ones) for fixed poses, with the shape prior.

    Args:
        rotation: [N, 3, 3].
        translation: [N, 3].
        points: [P, 3] initial positions.
        observed: [N, P, 2] px from the image centre.
        focal: px.
        iterations: number of Gauss-Newton steps.

    Returns:
        [P, 3].
    """
    start, prior = points.copy(), SHAPE_PRIOR * (focal / float(np.median(translation[:, 2]))) ** 2
    for _ in range(iterations):
        block = len(rotation) * prior * np.eye(3) + np.zeros((len(points), 3, 3))
        side = -len(rotation) * prior * (points - start)
        for a in range(0, len(rotation), FRAME_BATCH):
            part = slice(a, a + FRAME_BATCH)
            residual, _, jacobian = _linearize(rotation[part], translation[part], points, observed[part], focal)
            block += np.einsum("npia,npib->pab", jacobian, jacobian)
            side -= np.einsum("npia,npi->pa", jacobian, residual)
        points = points + np.linalg.solve(block, side[..., None])[..., 0]
    return points
