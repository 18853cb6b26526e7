"""Protects: any head motion and any blinks stay smooth, inside the image, and within the range of the training data."""
import copy

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import egstalker_nb as egs
from egstalker_nb.core.errors import DatasetError, InputError
from egstalker_nb.rendering import motion

FIVE_MINUTES = 5 * 60 * 25


@pytest.fixture(scope="module")
def wild(tiny_dataset):
    """The tiny clip with a head that turns three times as far, around another mean pose."""
    turns = Rotation.from_matrix(tiny_dataset.w2c[:, :3, :3]).as_rotvec() * 3
    w2c = tiny_dataset.w2c.copy()
    w2c[:, :3, :3] = (Rotation.from_euler("y", 20, degrees=True) * Rotation.from_rotvec(turns)).as_matrix()
    w2c[:, :3, 3] += [0.5, 0.2, 3.0]
    other = copy.copy(tiny_dataset)
    other.w2c = w2c
    return other


def turns(w2c):
    """Degrees from each pose to the next."""
    rotation = Rotation.from_matrix(w2c[:, :3, :3])
    return np.degrees((rotation[1:] * rotation[:-1].inv()).magnitude())


def shifts(w2c):
    return np.linalg.norm(np.diff(w2c[:, :3, 3], axis=0), axis=1)


def test_cycle_never_jumps():
    assert motion.cycle(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert motion.cycle(1, 3).tolist() == [0, 0, 0] and motion.cycle(2, 4).tolist() == [0, 1, 0, 1]
    assert np.abs(np.diff(motion.cycle(7, 100))).max() == 1


@pytest.mark.parametrize("frames", [1, 2, 3, 12, 200])
def test_turning_points_are_eased_and_the_start_is_that_of_the_clip(frames):
    at = motion.eased_cycle(frames, 5 * frames + 3)
    assert at.min() >= 0 and at.max() <= frames - 1
    assert np.abs(np.diff(at)).max(initial=0) <= 1 + 1e-9
    if frames >= 12:
        assert at[:6].tolist() == [0, 1, 2, 3, 4, 5]
        assert np.abs(np.diff(at, 2)).max() <= 0.25, "an abrupt reversal would be 2"


@pytest.mark.parametrize("poses", ["cycle", "static", "orbit", "wild", "folder", "array", "npy"])
def test_every_kind_of_poses(stand_in, wild, tmp_path, poses):
    np.save(tmp_path / "poses.npy", stand_in.w2c[motion.cycle(12, 50)].astype(np.float64))
    given = {"wild": wild, "folder": str(stand_in.ds.root), "array": stand_in.w2c[motion.cycle(12, 40)],
             "npy": tmp_path / "poses.npy"}.get(poses, poses)
    source, w2c, pose = motion.head_motion(stand_in, given, 40)
    if poses in motion.POSE_PATHS:
        assert source.shape == (40,) and 0 <= source.min() and source.max() < 12
    else:
        assert source is None, "no frame of the clip has these poses: none may be shown"
    assert w2c.shape == pose.shape == (40, 4, 4) and w2c.dtype == pose.dtype == np.float32
    if poses in ("array", "npy"):
        np.testing.assert_allclose(w2c, stand_in.w2c[motion.cycle(12, 40)], atol=1e-6)


def test_cycle_shows_the_clips_own_frames(stand_in):
    source, w2c, pose = motion.head_motion(stand_in, "cycle", 7)
    assert source.tolist() == list(range(7)) and pose is w2c
    np.testing.assert_allclose(w2c, stand_in.w2c[:7], atol=1e-6)


def test_another_clips_motion_is_applied_around_this_heads_mean(stand_in, wild):
    _, w2c, _ = motion.head_motion(stand_in, wild, 12 * 20)
    mean, middle = motion.mean_pose(wild.w2c), motion.mean_pose(stand_in.w2c)
    np.testing.assert_allclose(np.linalg.inv(middle) @ w2c[3], np.linalg.inv(mean) @ wild.w2c[3], atol=1e-4)
    assert np.linalg.norm(w2c[:, :3, 3].mean(0) - middle[:3, 3]) < 0.1, "framing stays"
    assert turns(w2c).max() <= turns(wild.w2c).max() + 1e-3 and shifts(w2c).max() <= shifts(wild.w2c).max() + 1e-3


def test_cycle_has_no_larger_step_than_the_clip(stand_in):
    _, w2c, _ = motion.head_motion(stand_in, "cycle", 100)
    assert turns(w2c).max() <= turns(stand_in.w2c).max() + 1e-3
    assert shifts(w2c).max() <= shifts(stand_in.w2c).max() + 1e-3


def test_orbit_keeps_the_distance_and_turns(stand_in):
    _, w2c, pose = motion.head_motion(stand_in, "orbit", 100)
    rotation = w2c[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3)[None].repeat(100, 0), atol=1e-5)
    np.testing.assert_allclose(w2c[:, :3, 3], w2c[:1, :3, 3].repeat(100, 0), atol=1e-6)
    start = stand_in.w2c[motion.middle_frame(stand_in.ds)]
    angles = np.degrees((Rotation.from_matrix(rotation) * Rotation.from_matrix(start[:3, :3]).inv()).magnitude())
    assert angles[0] < 0.1 and 14 < angles.max() < 17
    np.testing.assert_array_equal(pose, start[None].repeat(100, 0))


def full_circle(stand_in, count=200):
    w2c = stand_in.w2c[:1].repeat(count, 0)
    w2c[:, :3, :3] = Rotation.from_euler("y", np.linspace(0, 360, count)[:, None], True).as_matrix()
    return w2c


@pytest.mark.parametrize("poses", ["cycle", "static", "orbit", "wild", "circle"])
def test_the_network_is_never_conditioned_on_a_pose_outside_the_clip(stand_in, wild, poses):
    given = {"wild": wild, "circle": full_circle(stand_in)}.get(poses, poses)
    _, w2c, pose = motion.head_motion(stand_in, given, 200)
    mean = motion.mean_pose(stand_in.w2c)
    given, known = motion.pose_vectors(mean, pose), motion.pose_vectors(mean, stand_in.w2c)
    assert (given >= known.min(0) - 1e-4).all() and (given <= known.max(0) + 1e-4).all()
    assert turns(pose).max() <= turns(w2c).max() + 1e-3, "and it does not jump where the camera does not"


def test_poses_near_the_mean_are_not_clamped(stand_in):
    known = stand_in.w2c[:stand_in.ds.num_train]
    mean = motion.mean_pose(known)[None]
    np.testing.assert_allclose(motion.clamp_poses(known, mean), mean, atol=1e-5)


def changed(w2c, change):
    w2c = w2c.copy()
    change(w2c)
    return w2c


BAD_POSES = [
    ("four rows", lambda w: w[:, :3], r"\[F, 4, 4\].*\[12, 3, 4\]"),
    ("one matrix", lambda w: w[0], r"\[F, 4, 4\]"),
    ("text", lambda w: np.array(["a"]), r"\[F, 4, 4\]"),
    ("ragged", lambda w: [[1, 2], [3]], r"\[F, 4, 4\]"),
    ("nothing", lambda w: 7, r"\[F, 4, 4\]"),
    ("too short", lambda w: w[:5], "F >= 8 frames.*5 frames.*3 more"),
    ("not finite", lambda w: changed(w, lambda x: x.__setitem__((3, 0, 3), np.nan)), "finite.*first: 3"),
    ("reflection", lambda w: changed(w, lambda x: x[:, 0].__imul__(-1)), "rigid.*frame 0"),
    ("scale", lambda w: changed(w, lambda x: x[2, :3, :3].__imul__(1.1)), "rigid.*frame 2"),
    ("last row", lambda w: w.transpose(0, 2, 1), "rigid"),
    ("camera to world", lambda w: np.linalg.inv(w), "in front of the camera.*not camera-to-world"),
    ("at the camera", lambda w: changed(w, lambda x: x[4, :3, 3].fill(0)), "in front of the camera.*frame 4"),
]


@pytest.mark.parametrize("name, make, message", BAD_POSES, ids=[name for name, *_ in BAD_POSES])
def test_poses_that_cannot_be_used_are_refused(stand_in, name, make, message):
    with pytest.raises(InputError, match=message):
        motion.head_motion(stand_in, make(stand_in.w2c), 8)


def test_paths_that_hold_no_poses_are_refused(stand_in, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([None]))
    for place in ("spin", tmp_path / "missing.npy", tmp_path / "objects.npy"):
        with pytest.raises(InputError):
            motion.head_motion(stand_in, place, 3)
    with pytest.raises(DatasetError, match="prepared dataset"):
        motion.head_motion(stand_in, tmp_path, 3)


@pytest.mark.parametrize("rate", [6.0, 17, 30, 60])
def test_blinks_come_at_the_rate_and_look_like_blinks(rate):
    closed = motion.natural_blinks(rate, FIVE_MINUTES)
    onsets = np.flatnonzero((closed[1:] > 0) & (closed[:-1] == 0))
    assert len(onsets) == pytest.approx(5 * rate, rel=0.2)
    intervals = np.diff(onsets) / 25
    assert intervals.min() >= motion.MIN_BLINK_INTERVAL - 0.04
    if rate < 60:
        assert intervals.std() > 0.3 * (intervals.mean() - motion.MIN_BLINK_INTERVAL), "not a metronome"
    for onset in onsets[:-1]:
        shape = closed[onset:onset + 12]
        top = int(np.argmax(shape))
        assert shape[top] == 1, "every blink closes the eyes in some frame"
        assert 2 <= top <= 4 and np.count_nonzero(shape[top:]) > top, "they close faster than they open"
    np.testing.assert_array_equal(closed, motion.natural_blinks(rate, FIVE_MINUTES))


@pytest.mark.parametrize("blink", [0, 17.0, np.arange(300) % 2, "npy"])
def test_blinks_close_the_eyes_as_the_clip_does_and_leave_gaze_alone_while_open(tiny_dataset, tmp_path, blink):
    ds = tiny_dataset
    np.save(tmp_path / "blink.npy", np.linspace(0, 1, 250))
    blink = tmp_path / "blink.npy" if isinstance(blink, str) else blink
    own, eyes = (motion.eye_motion(ds, choice, 250) for choice in ("dataset", blink))
    np.testing.assert_array_equal(own[:6], ds.eyes[:6])
    eyelids, closed = eyes[:, 0], motion.closed_eyes(ds)
    still = eyelids <= motion.without_blinks(ds.eyes[:, 0]).min() + 1e-6
    np.testing.assert_allclose(own[still, 1:], eyes[still, 1:], atol=1e-6)
    shown = eyes[eyelids >= closed[0] - 1e-6]
    np.testing.assert_allclose(shown, np.broadcast_to(closed, shown.shape), atol=1e-6)
    known = ds.eyes[:ds.num_train, 0]
    assert eyes.dtype == np.float32 and eyes[:, 0].min() >= known.min() and eyes[:, 0].max() <= known.max()
    if np.ndim(blink) == 0 and blink == 0:
        assert eyes[:, 0].max() < -0.5, "the clip's own blinks are gone"
    else:
        assert eyes[:, 0].max() == pytest.approx(known.max()) and eyes[:, 0].min() == pytest.approx(known.min())


@pytest.mark.parametrize("blink, message", [
    (-1, "0 to 60"), (61, "0 to 60"), (float("nan"), "0 to 60"), (True, "0 to 60"), ("often", "npy"),
    (np.zeros(9), "F >= 10 frames.*9 frames"), (np.zeros((10, 2)), r"\[F\].*\[10, 2\]"), (np.full(10, 1.5), "1.50"),
    (np.full(10, np.nan), "finite"), (np.array(["a"] * 10), "0 open"), (None, "0 to 60"), (".", "0 to 60")])
def test_blinks_that_cannot_be_used_are_refused(tiny_dataset, blink, message):
    with pytest.raises(InputError, match=message):
        motion.eye_motion(tiny_dataset, blink, 10)


def test_a_video_with_motion_of_another_clip_and_random_blinks(tiny_dataset, wild, tmp_path):
    cfg = egs.load_config("quick_test", iterations=4, coarse_iterations=2, batch_size=2, plane_resolution=[8, 16])
    run = egs.train(tiny_dataset, cfg, tmp_path / "run", device="cpu")
    video = egs.render(run, tiny_dataset.root / "audio.wav", poses=wild, blink=30, device="cpu")
    assert video.frames == 12 and video.path.name == "audio_dataset_4.mp4"
