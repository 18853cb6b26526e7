"""Rotations and projections in NumPy: Euler angles, exponential and logarithmic map, pinhole projection."""
from __future__ import annotations

import numpy as np


def euler(w2c: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of the head in degrees: [N, 4, 4] -> [N, 3].

    Positive yaw turns the face to the image's right, positive pitch downwards, and positive roll tilts the top of the
    head to the image's right. Angles are unwrapped over time.
    """
    r = w2c[:, :3, :3].astype(np.float64)
    # the face looks along -z of the head frame: in the camera frame, minus the third column
    yaw = np.arctan2(-r[:, 0, 2], r[:, 2, 2])
    pitch = np.arctan2(-r[:, 1, 2], np.hypot(r[:, 0, 2], r[:, 2, 2]))
    roll = np.arctan2(r[:, 1, 0], r[:, 0, 0])
    return np.degrees(np.unwrap(np.stack([yaw, pitch, roll], axis=1), axis=0))


def project(rotation: np.ndarray, translation: np.ndarray, points: np.ndarray, focal: float) -> np.ndarray:
    """Pinhole projection, in px from the image centre.

    Args:
        rotation: [N, 3, 3] head to camera.
        translation: [N, 3].
        points: [P, 3] head frame.
        focal: focal length in px.

    Returns:
        [N, P, 2] px.
    """
    camera = np.einsum("nij,pj->npi", rotation, points) + translation[:, None]
    return focal * camera[..., :2] / camera[..., 2:]


def exponential(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors [N, 3] (rad) -> matrices [N, 3, 3]."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    skew = cross_matrix(vectors)
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1.0, np.sin(safe) / safe)
    second = np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    return np.eye(3) + first * skew + second * (skew @ skew)


def logarithm(matrices: np.ndarray) -> np.ndarray:
    """Rotation matrices [N, 3, 3] of less than 180 degrees -> rotation vectors [N, 3] (rad)."""
    axis = np.stack([matrices[:, 2, 1] - matrices[:, 1, 2], matrices[:, 0, 2] - matrices[:, 2, 0],
                     matrices[:, 1, 0] - matrices[:, 0, 1]], axis=1)
    sine = np.linalg.norm(axis, axis=1) / 2
    angle = np.arctan2(sine, (np.trace(matrices, axis1=1, axis2=2) - 1) / 2)
    return axis * (np.where(sine > 1e-9, angle / np.maximum(2 * sine, 1e-12), 0.5))[:, None]


def cross_matrix(vectors: np.ndarray) -> np.ndarray:
    """Skew-symmetric matrices, [..., 3] -> [..., 3, 3]: cross_matrix(a) @ b = a x b."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)
