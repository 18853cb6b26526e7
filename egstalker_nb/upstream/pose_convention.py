"""Head poses as AD-NeRF's face tracker writes them, to and from the poses of this kit.

`track_params.pt` holds `euler` [N, 3] (rad) and `trans` [N, 3]. A point of the head is in the camera's frame at
`R(euler) point + trans`, where `R = Rx(euler[0]) Ry(euler[1]) Rz(-euler[2])`, and the axes of head and camera are those
of OpenGL: x to the right of the image, y up, z towards the viewer, so that a head in view has `trans[2] < 0`. Here head
and camera have OpenCV axes: y down, z away from the camera. Turning both about x by 180 degrees leads from one to the
other. The sign of the third angle is that of the functions with which ER-NeRF, GaussianTalker and EGSTalker read the
file (`euler2rot`). Units of length are the head model's own: see `align`.
"""
from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

#: OpenGL axes <-> OpenCV axes
FLIP = np.diag([1.0, -1.0, -1.0])
#: the same for poses
FLIP_POSE = np.diag([1.0, -1.0, -1.0, 1.0])
#: `transform_matrix` has lengths divided by this, against `trans`
MATRIX_UNIT = 10.0


def to_euler_trans(w2c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses of this kit -> `euler` and `trans`.

    Args:
        w2c: [N, 4, 4] world-to-camera, OpenCV axes, the world is the head frame.

    Returns:
        euler [N, 3] rad and trans [N, 3], float64, in the unit of the head frame.
    """
    w2c = w2c.astype(np.float64)
    angles = Rotation.from_matrix(FLIP @ w2c[:, :3, :3] @ FLIP).as_euler("XYZ")
    return angles * [1, 1, -1], w2c[:, :3, 3] @ FLIP


def from_euler_trans(euler: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """`euler` [N, 3] rad and `trans` [N, 3] -> world-to-camera [N, 4, 4] float64, OpenCV axes of head and camera."""
    w2c = np.tile(np.eye(4), (len(euler), 1, 1))
    rotation = Rotation.from_euler("XYZ", np.asarray(euler, np.float64) * [1, 1, -1]).as_matrix()
    w2c[:, :3, :3] = FLIP @ rotation @ FLIP
    w2c[:, :3, 3] = np.asarray(trans, np.float64) @ FLIP
    return w2c


def transform_matrices(w2c: np.ndarray) -> np.ndarray:
    """`transform_matrix` of the transforms files for poses of this kit [N, 4, 4]: camera to head, OpenGL axes, with
    lengths divided by ten."""
    matrices = np.linalg.inv(FLIP_POSE @ w2c.astype(np.float64) @ FLIP_POSE)
    matrices[:, :3, 3] /= MATRIX_UNIT
    return matrices


def align(w2c: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Express poses in the head frame and unit of others of the same frames.

    Each face tracker has its own head frame: its poses differ from another's by one similarity of the head, the same in
    all frames. It is found by least squares: the mean rotation, then scale and origin together.

    Args:
        w2c: [N, 4, 4] poses of another head model.
        reference: [N, 4, 4] poses of the same frames in the wanted head frame.

    Returns:
        [N, 4, 4] float64.
    """
    given, wanted = w2c[:, :3, :3].astype(np.float64), reference[:, :3, :3].astype(np.float64)
    turn = Rotation.from_matrix(given.transpose(0, 2, 1) @ wanted).mean().as_matrix()
    # wanted translation = scale * translation + rotation @ origin
    system = np.concatenate([w2c[:, :3, 3:].astype(np.float64), given], axis=2).reshape(-1, 4)
    scale, *origin = np.linalg.lstsq(system, reference[:, :3, 3].astype(np.float64).ravel(), rcond=None)[0]
    aligned = np.tile(np.eye(4), (len(w2c), 1, 1))
    aligned[:, :3, :3] = given @ turn
    aligned[:, :3, 3] = scale * w2c[:, :3, 3] + given @ np.array(origin)
    return aligned


def rotation_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between the rotations of two sets of poses [N, 4, 4], in degrees: [N]."""
    turns = a[:, :3, :3].astype(np.float64).transpose(0, 2, 1) @ b[:, :3, :3].astype(np.float64)
    return np.degrees(Rotation.from_matrix(turns).magnitude())
