"""The eye token's input: brows and gaze, whatever the head does, and nothing of the mouth."""
import numpy as np
import pytest

from egstalker_nb.face.expression import UPPER_FACE_COLUMNS, landmark_motion, upper_face

FOCAL, SIZE, COUNT = 600.0, 256, 40
BROW = [55, 107, 65, 66]   # the inner brow of column 1


@pytest.fixture
def clip():
    """A flat random face that turns and shifts: landmarks [N, 478, 3], w2c [N, 4, 4], mean face [478, 3]."""
    rng = np.random.default_rng(0)
    face = rng.normal(size=(478, 3)) * [0.5, 0.6, 0.1]
    w2c = np.tile(np.eye(4), (COUNT, 1, 1))
    for i in range(COUNT):
        a, b = 0.15 * np.sin(i / 3), 0.1 * np.cos(i / 5)
        w2c[i, :3, :3] = (np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
                          @ np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]))
        w2c[i, :3, 3] = 0.1 * np.sin(i), 0.1 * np.cos(i / 2), 5 + 0.2 * np.sin(i / 7)
    return face, w2c


def project(points, w2c):
    at = np.einsum("nij,nkj->nki", w2c[:, :3, :3], points) + w2c[:, None, :3, 3]
    return np.concatenate([FOCAL * at[..., :2] / at[..., 2:] + SIZE / 2, at[..., 2:]], -1)


def measured(points, face, w2c):
    return upper_face(landmark_motion(project(points, w2c), w2c, face, FOCAL, SIZE), np.linspace(0, 1, COUNT), COUNT)


def test_a_raised_brow_shows_and_head_motion_does_not(clip):
    face, w2c = clip
    lift = 0.05 * np.sin(np.arange(COUNT) / 2.0)
    points = np.tile(face, (COUNT, 1, 1))
    points[:, BROW, 1] += lift[:, None]
    values = measured(points, face, w2c)
    assert values.shape == (COUNT, len(UPPER_FACE_COLUMNS)) and values.dtype == np.float32
    assert np.corrcoef(values[:, 1], lift)[0, 1] > 0.99
    np.testing.assert_allclose(values[:, 0], np.linspace(-1, 1, COUNT), atol=1e-6)
    assert np.abs(values).max() <= 1.5


def test_the_mouth_does_not_enter(clip):
    """Lips that leaked into this input would let a head read them instead of listening."""
    face, w2c = clip
    points = np.tile(face, (COUNT, 1, 1))
    points[:, BROW, 1] += 0.02 * np.sin(np.arange(COUNT))[:, None]
    still = measured(points, face, w2c)
    points[:, [13, 14, 17, 61, 291, 152]] += 0.3 * np.sin(np.arange(COUNT) / 3)[:, None, None]
    np.testing.assert_array_equal(measured(points, face, w2c), still)
