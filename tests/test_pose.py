"""Head pose from landmarks: a made-up head with known cameras must be recovered."""
import numpy as np
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.face import pose_math
from egstalker_nb.face.landmarks import CHIN, FOREHEAD, RIGID, RIGID_MIDDLE, RIGID_PAIRS
from egstalker_nb.preparation import bundle
from egstalker_nb.preparation.pose import solve_pose
from egstalker_nb.preparation.source import UnusableClipError

SIZE, FOCAL, COUNT = 512, 1280.0, 80


def made_up_head(rng):
    """478 points on the front of an ellipsoid, twins mirrored, in arbitrary units: [478, 3]."""
    x, y = rng.uniform(-0.9, 0.9, 478), rng.uniform(-0.9, 0.9, 478)
    x[RIGID_PAIRS[:, 1]], y[RIGID_PAIRS[:, 1]] = -x[RIGID_PAIRS[:, 0]], y[RIGID_PAIRS[:, 0]]
    x[RIGID_PAIRS] = np.sort(np.abs(x[RIGID_PAIRS]), axis=1) * [-1, 1]
    x[np.concatenate([RIGID_MIDDLE, [CHIN, FOREHEAD]])] = 0
    y[FOREHEAD], y[CHIN] = -0.95, 0.95
    head = np.stack([x, 1.3 * y, -np.sqrt(np.maximum(1.9 - x**2 - y**2, 0))], axis=1)
    head[CHIN, 2] = head[FOREHEAD, 2]
    return head


def made_up_poses():
    """A head that nods, turns, tilts and drifts: rotations [N, 3, 3], translations [N, 3]."""
    t = np.arange(COUNT) / 25
    turn = np.stack([0.10 * np.sin(2 * t), 0.22 * np.sin(3 * t + 1), 0.08 * np.cos(2.5 * t)], axis=1)
    place = np.stack([0.2 * np.sin(t), 0.1 * np.cos(2 * t), 11 + 0.3 * np.sin(1.5 * t)], axis=1)
    return pose_math.exponential(turn), place


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    head = made_up_head(rng)
    rotation, place = made_up_poses()
    landmarks = np.concatenate([pose_math.project(rotation, place, head, FOCAL) + SIZE / 2,
                                # depth as the tracker gives it: a little too flat
                                0.95 * FOCAL / 11 * np.einsum("nij,pj->npi", rotation, head)[..., 2:]], axis=2)
    landmarks += rng.normal(0, 0.5, landmarks.shape)
    return head, rotation, place, landmarks.astype(np.float32)


def misfit(poses, rotation):
    """Degrees between found and true rotations [N], after the best constant change of the head's axes."""
    found = poses.w2c[:, :3, :3].astype(float)
    u, _, vt = np.linalg.svd(np.einsum("nji,njk->ik", found, rotation))
    return angle(found @ (u * [1, 1, np.linalg.det(u @ vt)] @ vt), rotation)


def angle(a, b):
    """Degrees between rotations [N, 3, 3]."""
    cosine = (np.trace(np.transpose(a, (0, 2, 1)) @ b, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def test_landmarks_that_are_no_head_are_refused(truth):
    """A point, a line, no numbers: one sentence, whatever the linear algebra says."""
    landmarks, found = truth[3], np.ones(COUNT, bool)
    for wrong in (0 * landmarks, landmarks * [1, 0, 0], landmarks * np.nan, landmarks * np.inf):
        with pytest.raises(UnusableClipError, match="fit none"):
            solve_pose(wrong.astype(np.float32), found, SIZE)


def test_known_poses_are_recovered(truth):
    _, rotation, place, landmarks = truth
    poses = solve_pose(landmarks, np.ones(COUNT, bool), SIZE)
    assert poses.focal == FOCAL
    assert misfit(poses, rotation).max() < 1.0
    depth = poses.w2c[:, 2, 3] / poses.w2c[:, 2, 3].mean()
    assert np.abs(depth - place[:, 2] / place[:, 2].mean()).max() < 0.02
    # noise of 0.5 px on both axes is 0.71 px; the fit must not add to it
    assert 0.5 < np.sqrt((poses.reprojection**2).mean()) < 0.85


def test_mean_face_lands_on_the_landmarks_and_fills_the_head_frame(truth):
    _, _, _, landmarks = truth
    poses = solve_pose(landmarks, np.ones(COUNT, bool), SIZE)
    face = poses.mean_face.astype(float)
    shown = pose_math.project(poses.w2c[:, :3, :3].astype(float), poses.w2c[:, :3, 3].astype(float), face, poses.focal)
    assert np.abs(shown + SIZE / 2 - landmarks[..., :2]).mean(axis=(0, 1)).max() < 0.7
    assert np.abs(face[RIGID].mean(axis=0)).max() < 1e-4
    assert np.linalg.norm(face - face.mean(axis=0), axis=1).mean() == pytest.approx(1, abs=1e-4)
    right = face[RIGID_PAIRS[:, 1]] - face[RIGID_PAIRS[:, 0]]
    assert (right[:, 0] > 0).all() and face[CHIN, 1] > face[FOREHEAD, 1]
    # the middle of the face is nearer to the camera than its sides
    assert face[RIGID_MIDDLE, 2].mean() < face[np.abs(face[:, 0]) > 0.8, 2].mean()
    # a camera that looks at the face from the front is close to no rotation
    assert angle(poses.w2c[:, :3, :3].mean(axis=0)[None], np.eye(3)[None])[0] < 15


def test_frames_without_a_face_are_interpolated(truth):
    _, rotation, _, landmarks = truth
    landmarks, found = landmarks.copy(), np.ones(COUNT, bool)
    found[30:35] = False
    landmarks[30:35] = 5.0
    poses = solve_pose(landmarks, found, SIZE)
    error = misfit(poses, rotation)
    assert error[30:35].max() < 2.5 and error[found].max() < 1.0


def test_before_the_first_face_the_head_rests(truth):
    _, _, _, landmarks = truth
    found = np.arange(COUNT) >= 12
    poses = solve_pose(landmarks, found, SIZE)
    assert (poses.w2c[:12] == poses.w2c[12]).all() and (poses.w2c[13] != poses.w2c[12]).any()


def test_a_sudden_movement_is_not_smoothed_away(truth):
    head, rotation, place, _ = truth
    jump = pose_math.exponential(np.array([[0.0, 0.5, 0.0]]))[0]
    rotation, place = rotation.copy(), place.copy()
    rotation[40:] = jump @ rotation[40:]
    place[40:] += [0.8, 0.3, 1.0]
    landmarks = np.concatenate([pose_math.project(rotation, place, head, FOCAL) + SIZE / 2,
                                FOCAL / 11 * np.einsum("nij,pj->npi", rotation, head)[..., 2:]], axis=2)
    poses = solve_pose(landmarks.astype(np.float32), np.ones(COUNT, bool), SIZE)
    assert misfit(poses, rotation)[36:44].max() < 0.5


def test_wild_landmarks_do_not_bend_the_pose(truth):
    _, rotation, _, landmarks = truth
    landmarks = landmarks.copy()
    rng = np.random.default_rng(2)
    # a hand before the cheek: a tenth of the rigid landmarks jumps for a third of the time
    for block in (slice(10, 22), slice(45, 60)):
        landmarks[block, rng.choice(RIGID, 7, replace=False), :2] += 25
    assert misfit(solve_pose(landmarks, np.ones(COUNT, bool), SIZE), rotation).max() < 1.0


def test_smoothing_takes_out_trembling(truth):
    _, rotation, _, landmarks = truth
    poses = solve_pose(landmarks, np.ones(COUNT, bool), SIZE)
    found = poses.w2c[:, :3, :3].astype(float)
    # accelerations of the true head are below 0.15 degrees per frame^2 and vary slowly: their change is trembling
    turn = pose_math.logarithm(found[1:] @ np.transpose(found[:-1], (0, 2, 1)))
    wobble = np.diff(turn, n=2, axis=0)
    # 0.5 px of noise on 69 landmarks alone would leave about 0.1 degrees
    assert np.degrees(np.sqrt((wobble**2).sum(axis=1).mean())) < 0.05


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_clips_have_poses(truth, count):
    poses = solve_pose(truth[3][:count], np.ones(count, bool), SIZE)
    assert poses.w2c.shape == (count, 4, 4) and np.isfinite(poses.w2c).all() and poses.reprojection.max() < 2


def test_derivatives_of_the_projection_are_right(truth):
    head, rotation, place, _ = truth
    points = head[:5]
    observed = np.zeros((COUNT, 5, 2))
    _, to_pose, to_point = bundle._linearize(rotation, place, points, observed, FOCAL)
    step = 1e-6
    for k in range(6):
        delta = np.zeros((COUNT, 6))
        delta[:, k] = step
        moved = pose_math.project(pose_math.exponential(delta[:, :3]) @ rotation, place + delta[:, 3:], points, FOCAL)
        back = pose_math.project(pose_math.exponential(-delta[:, :3]) @ rotation, place - delta[:, 3:], points, FOCAL)
        np.testing.assert_allclose(to_pose[..., k], (moved - back) / (2 * step), rtol=1e-4, atol=1e-3)
    for k in range(3):
        delta = np.eye(3)[k] * step
        slope = (pose_math.project(rotation, place, points + delta, FOCAL)
                 - pose_math.project(rotation, place, points - delta, FOCAL)) / (2 * step)
        np.testing.assert_allclose(to_point[..., k], slope, rtol=1e-4, atol=1e-3)


def test_rotation_logarithm_inverts_the_exponential():
    vectors = np.random.default_rng(1).normal(0, 0.7, (50, 3))
    vectors[0] = 0
    np.testing.assert_allclose(pose_math.logarithm(pose_math.exponential(vectors)), vectors, atol=1e-9)


def test_no_face_is_an_input_error(truth):
    with pytest.raises(InputError, match="face"):
        solve_pose(truth[3], np.zeros(COUNT, bool), SIZE)
