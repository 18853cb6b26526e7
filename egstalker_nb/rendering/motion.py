"""Motion of a head besides speech: its poses, and its blinks."""
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, Union

import numpy as np
from scipy.ndimage import gaussian_filter1d, grey_opening
from scipy.spatial.transform import Rotation

from ..core.errors import InputError
from ..core.files import shortened
from ..core.reading import Unreadable, read_npy, shown
from ..data.dataset import Dataset, load_dataset
from ..media.rates import FPS

if TYPE_CHECKING:
    from .renderer import Renderer

ORBIT_YAW, ORBIT_PITCH, ORBIT_SECONDS = 15.0, 6.0, 4.0  # amplitudes in degrees, period in seconds
EASE_FRAMES = 5            # frames before and after a turning point in which the motion decelerates and accelerates
MIN_SPREAD = 0.01          # rad or head units, added to the spread of the training poses along each axis
TRAINING_QUANTILE = 0.95   # of the training poses' distances from their mean: poses are clamped to it
MAX_VALUE = 1e6            # of a number in given poses or blinks
RIGID_TOLERANCE = 1e-3     # by how much a given matrix may deviate from a rigid transform
CLOSE_SECONDS, HOLD_SECONDS, OPEN_SECONDS = 0.09, 0.05, 0.18  # of a blink; held for over a frame, so that one shows it
MIN_BLINK_INTERVAL = 0.8   # seconds between the onsets of two blinks
MAX_BLINK_RATE = 60.0      # blinks per minute; the minimum interval allows no more
CLOSED_FRAMES = 3          # training frames that closed eyes are averaged over
MAX_BLINK_FRAMES = 13      # eyelids that are lowered for fewer frames are blinking, for more they follow the gaze

Poses = Union[Literal["cycle", "static", "orbit"], str, Path, Dataset, np.ndarray]
Blink = Union[Literal["dataset"], float, str, Path, np.ndarray]


def cycle(num_frames: int, count: int) -> np.ndarray:
    """`count` frame numbers that run back and forth without a jump: 0, 1, ..., n-1, n-2, ..., 1, 0, 1, ..."""
    if num_frames == 1:
        return np.zeros(count, int)
    there_and_back = np.concatenate([np.arange(num_frames), np.arange(num_frames - 2, 0, -1)])
    return np.resize(there_and_back, count)


def eased_cycle(num_frames: int, count: int) -> np.ndarray:
    """`cycle` with eased turning points, [count] float64: reversing at full speed looks mechanical.

    It starts at frame 0 at full speed and passes through frames 0, 1, 2, ... exactly, up to the first turning point.
    """
    ease, last = min(EASE_FRAMES, (num_frames - 1) / 2), num_frames - 1

    def eased(distance: np.ndarray) -> np.ndarray:
        """Speed 1 away from the end, 0 at the end: a parabola, tangent to the line `ease` frames before the end."""
        return np.where(distance < ease, (distance ** 2 / max(ease, 1e-9) + ease) / 2, distance)

    at = cycle(num_frames, count).astype(float)
    at = last - eased(last - at)
    return np.where(np.arange(count) > last, eased(at), at)


def middle_frame(ds: Dataset) -> int:
    """The frame whose tracked pose is closest to the mean pose, among those with open eyes.

    Tracked poses make it the same frame for every head of the clip.
    """
    distance = np.linalg.norm((ds.w2c - ds.w2c.mean(0)).reshape(len(ds), -1), axis=1)
    return int(np.argmin(distance + np.where(ds.blink > 0.5, 1e3, 0)))


def head_motion(renderer: Renderer, poses: Poses, count: int) -> tuple[Optional[np.ndarray], np.ndarray, np.ndarray]:
    """The camera of each of `count` video frames, and the pose that the network is conditioned on.

    Args:
        renderer: of the head; gives the clip and the poses that the head was trained with.
        poses: `cycle`, `static` or `orbit`; another dataset or its folder, whose motion is transferred; an array (or
            .npy) [F, 4, 4] of world-to-camera matrices with F >= count. See `render`.
        count: number of video frames.

    Returns:
        source [count] int, the frames of the clip that the poses are taken from, or None; w2c [count, 4, 4] float32;
        pose [count, 4, 4] float32, within the range of the training poses.

    Raises:
        InputError: other poses, or an array that is not a sequence of rigid poses with the head in front of the camera.
        DatasetError: a folder without a dataset.
    """
    poses = resolve_poses(poses)
    if isinstance(poses, str):
        source, w2c = POSE_PATHS[poses](renderer, count)
        return source, w2c, renderer.w2c[source] if poses == "orbit" else w2c  # in an orbit the head itself stays still
    if isinstance(poses, Dataset):
        w2c = _transfer_motion(renderer.w2c, poses, count)
    else:
        w2c = _check_poses(renderer, poses, count)
    return None, w2c, clamp_poses(renderer.w2c[:renderer.ds.num_train], w2c)


def resolve_poses(poses: Poses) -> Union[str, Dataset, np.ndarray]:
    """Load the dataset or array that `poses` names; a name of `POSE_PATHS`, a dataset and an array stay as they are.

    Raises:
        InputError: no such file.
        DatasetError: a folder without a dataset.
    """
    if not isinstance(poses, (str, Path)):
        return poses
    if isinstance(poses, str) and poses in POSE_PATHS:
        return poses
    return _load(poses, f"poses {', '.join(POSE_PATHS)}, a dataset folder or a .npy file", load_dataset)


def label(poses: Poses) -> str:
    """A short name of `poses` for the file name of a video."""
    if isinstance(poses, Dataset):
        return poses.root.name
    return Path(poses).stem if isinstance(poses, (str, Path)) else "poses"


def _load(place: str | Path, expected: str, load_folder: Callable[[Path], Any]) -> Any:
    """Load an array from a .npy file, or whatever `load_folder` loads from a folder."""
    path = Path(place)
    if os.path.isdir(path):
        return load_folder(path)
    if path.suffix.lower() != ".npy" or not os.path.isfile(path):
        raise InputError(expected, f"'{shortened(place)}'", "Choose one of them; a path must exist.")
    try:
        return read_npy(path)
    except Unreadable as error:
        raise InputError("an array of numbers, all finite", str(error), "Write it with numpy.save.") from error


def _interpolate(w2c: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Poses w2c [N, 4, 4] interpolated at fractional frame numbers `at` [F]: [F, 4, 4] float64."""
    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
    share = (at - low)[:, None]
    before, after = (Rotation.from_matrix(w2c[i, :3, :3]) for i in (low, high))
    rotation = before * Rotation.from_rotvec(share * (before.inv() * after).as_rotvec())
    return _matrices(rotation, (1 - share) * w2c[low, :3, 3] + share * w2c[high, :3, 3])


def _matrices(rotation: Rotation, translation: np.ndarray) -> np.ndarray:
    """Rotations and translations [F, 3] as matrices [F, 4, 4] float64."""
    w2c = np.tile(np.eye(4), (len(translation), 1, 1))
    w2c[:, :3, :3], w2c[:, :3, 3] = rotation.as_matrix(), translation
    return w2c


def mean_pose(w2c: np.ndarray) -> np.ndarray:
    """Mean rotation and mean translation of poses [N, 4, 4], as [4, 4] float64."""
    return _matrices(Rotation.from_matrix(w2c[:, :3, :3]).mean(), w2c[:, :3, 3].mean(0, keepdims=True))[0]


def _cycle_path(renderer: Renderer, count: int) -> tuple[np.ndarray, np.ndarray]:
    at = eased_cycle(len(renderer.ds), count)
    return np.rint(at).astype(int), _interpolate(renderer.w2c, at).astype(np.float32)


def _static_path(renderer: Renderer, count: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.full(count, middle_frame(renderer.ds))
    return source, renderer.w2c[source]


def _orbit_path(renderer: Renderer, count: int) -> tuple[np.ndarray, np.ndarray]:
    source, w2c = _static_path(renderer, count)
    phase = 2 * np.pi * np.arange(count) / (ORBIT_SECONDS * FPS)
    yaw, pitch = np.radians(ORBIT_YAW) * np.sin(phase), np.radians(ORBIT_PITCH) * np.sin(2 * phase)
    turns = Rotation.from_rotvec(np.stack([pitch, yaw, np.zeros(count)], 1)).as_matrix()
    moved = w2c.copy()
    moved[:, :3, :3] = w2c[:, :3, :3] @ turns  # the camera circles the head's origin; the distance stays
    return source, moved


POSE_PATHS = {"cycle": _cycle_path, "static": _static_path, "orbit": _orbit_path}


def _transfer_motion(own: np.ndarray, other: Dataset, count: int) -> np.ndarray:
    """Apply another clip's motion, relative to its mean pose, to the mean of this head's poses: [count, 4, 4] float32.

    It is expressed in head axes, so a nod of the other head stays a nod of this one.

    Args:
        own: [N, 4, 4], the poses of this head.
        other: the other clip.
        count: number of video frames.
    """
    relative = np.linalg.inv(mean_pose(other.w2c)) @ _interpolate(other.w2c, eased_cycle(len(other), count))
    return (mean_pose(own) @ relative).astype(np.float32)


def _check_poses(renderer: Renderer, given: Any, count: int) -> np.ndarray:
    """The first `count` of the given world-to-camera matrices, checked: [count, 4, 4] float32."""
    w2c = _check_array(given, "poses as world-to-camera matrices [F, 4, 4]", (4, 4), count)
    far = np.abs(w2c[:, :3, :3] @ w2c[:, :3, :3].transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    far = np.maximum(far, np.abs(w2c[:, 3] - [0, 0, 0, 1]).max(1))
    wrong = np.flatnonzero((far > RIGID_TOLERANCE) | (np.linalg.det(w2c[:, :3, :3]) < 0))
    if len(wrong):
        raise InputError("rigid poses: a rotation (determinant +1) and a translation above the row 0 0 0 1",
                         f"frame {wrong[0]}: {w2c[wrong[0]].round(3).tolist()}", "No scale, no mirrored axis.")
    near = float(np.linalg.norm(renderer.ds.mean_face, axis=1).max())
    wrong = np.flatnonzero(w2c[:, 2, 3] <= near)
    if len(wrong):
        usual = renderer.w2c[0, 2, 3]
        raise InputError(f"heads in front of the camera: w2c[:, 2, 3] above {near:.1f} (this clip: {usual:.1f})",
                         f"{w2c[wrong[0], 2, 3]:.2f} in frame {wrong[0]}",
                         "Give world-to-camera matrices, not camera-to-world; axes x right, y down, z forward.")
    return w2c.astype(np.float32)


def _check_array(given: Any, what: str, shape: tuple[int, ...], count: int) -> np.ndarray:
    """The first `count` rows of a given array [F, *shape], float64, checked to be finite numbers."""
    try:
        values = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors on another device
        values = np.empty(0, object)
    if values.dtype.kind not in "fiu" or values.shape[1:] != shape or values.ndim != len(shape) + 1:
        found = f"shape {shown(list(values.shape))}, {values.dtype}" if isinstance(given, np.ndarray) else shown(given)
        raise InputError(what, found, "Give one row per video frame, 25 per second.")
    if len(values) < count:
        raise InputError(f"{what} with F >= {count} frames, the length of the video", f"{len(values)} frames",
                         f"Give {count - len(values)} more, or render less of the audio with duration=.")
    values = values[:count].astype(float)
    wrong = np.flatnonzero(~(np.abs(values) <= MAX_VALUE).reshape(count, -1).all(1))  # NaN is not <= either
    if len(wrong):
        raise InputError(f"{what}, all finite and at most {MAX_VALUE:g}",
                         f"{len(wrong)} frames that are not, the first: {wrong[0]}", "Fill the gaps.")
    return values


def clamp_poses(known: np.ndarray, w2c: np.ndarray) -> np.ndarray:
    """Clamp poses to the range of the training poses, outside of which the network would extrapolate.

    Rotations and translations of a clip are correlated, so each pose is scaled towards the mean until its Mahalanobis
    distance is within that of most training frames; clamping the components one by one would leave combinations that
    distort the mouth. Smooth motion stays smooth.

    Args:
        known: [N, 4, 4], the poses of the training frames.
        w2c: [F, 4, 4], the poses to clamp.

    Returns:
        [F, 4, 4] float32.
    """
    mean = mean_pose(known)
    away, training = pose_vectors(mean, w2c), pose_vectors(mean, known)
    # the rotation vector changes its sign at 180 degrees: fading to the mean pose before that avoids a jump
    angle = np.linalg.norm(away[:, :3], axis=1, keepdims=True)
    away[:, :3] *= np.clip(2 - 2 * angle / np.pi, 0, 1)
    weight = np.linalg.inv(training.T @ training / len(training) + MIN_SPREAD ** 2 * np.eye(6))

    def distance(x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.einsum("ni,ij,nj->n", x, weight, x))

    limit = np.quantile(distance(training), TRAINING_QUANTILE)
    away *= np.minimum(1, limit / np.maximum(distance(away), 1e-9))[:, None]
    away = np.clip(away, training.min(0), training.max(0))
    return poses_of_vectors(mean, away).astype(np.float32)


def pose_vectors(mean: np.ndarray, w2c: np.ndarray) -> np.ndarray:
    """Poses relative to `mean`, [F, 6]: rotation (rad, head axes) and translation (head units, camera axes)."""
    vectors = Rotation.from_matrix(mean[:3, :3].T @ w2c[:, :3, :3]).as_rotvec()
    return np.concatenate([vectors, w2c[:, :3, 3] - mean[:3, 3]], 1)


def poses_of_vectors(mean: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The poses [F, 4, 4] float64 whose `pose_vectors` are these [F, 6]."""
    rotation = Rotation.from_matrix(mean[:3, :3]) * Rotation.from_rotvec(vectors[:, :3])
    return _matrices(rotation, mean[:3, 3] + vectors[:, 3:])


def eye_motion(ds: Dataset, blink: Blink, count: int) -> np.ndarray:
    """Eyelids, brows and gaze of each video frame: the clip's own, back and forth, with these blinks.

    The eyelids stay within the range of the training frames: blinks cannot be learned from a clip without one.

    Args:
        ds: the clip.
        blink: `dataset`: the clip's own; blinks per minute, 0 ... 60: random ones in place of the clip's (the same for
            the same count); an array (or .npy) [F] of 0 open ... 1 closed with F >= count.
        count: number of video frames.

    Returns:
        [count, 7] float32, see `upper_face`.

    Raises:
        InputError: another blink.
    """
    at = eased_cycle(len(ds), count)
    low = np.floor(at).astype(int)
    share = (at - low)[:, None].astype(np.float32)
    eyes = (1 - share) * ds.eyes[low] + share * ds.eyes[np.ceil(at).astype(int)]
    blink = resolve_blink(blink)
    if isinstance(blink, str):
        return eyes
    closed, known = closed_eyes(ds), ds.eyes[:ds.num_train, 0]
    eyes[:, 0] = without_blinks(ds.eyes[:, 0])[np.rint(at).astype(int)]
    travel = np.maximum(closed[0] - eyes[:, 0], 1e-6)
    if isinstance(blink, float):
        closing = natural_blinks(blink, count)
    else:
        eyelids = np.clip(2 * _check_closing(blink, count) - 1, known.min(), known.max())
        closing = np.maximum(eyelids - eyes[:, 0], 0) / travel
        eyes[:, 0] = np.minimum(eyelids, eyes[:, 0])
    closing = closing.clip(0, 1)[:, None].astype(np.float32)
    return (1 - closing) * eyes + closing * closed


def closed_eyes(ds: Dataset) -> np.ndarray:
    """`upper_face` with this person's eyes closed, [7] float32, averaged over the training frames that show it best.

    It includes the brows and the tracked positions of the hidden irises: the network has seen closed eyelids only
    together with them.
    """
    known = ds.eyes[:ds.num_train]
    closed = known[np.argsort(known[:, 0])[-CLOSED_FRAMES:]].mean(0)
    closed[0] = known[:, 0].max()
    return closed


def resolve_blink(blink: Blink) -> Union[str, float, np.ndarray]:
    """`dataset`, a valid rate in blinks per minute, or an array, which is loaded if `blink` names a file.

    Raises:
        InputError: no such file, or an impossible rate.
    """
    found: Union[float, np.ndarray]
    if not isinstance(blink, (str, Path)):
        found = blink
    elif blink == "dataset":
        return "dataset"
    else:
        expected = "blink as 'dataset', blinks per minute, or a .npy file"
        found = _load(blink, expected, lambda folder: _check_rate(str(folder)))
    return found if np.ndim(found) else _check_rate(found)


def _check_rate(blink: Any) -> float:
    is_number = isinstance(blink, (int, float, np.number)) and not isinstance(blink, bool)
    if not is_number or not 0 <= blink <= MAX_BLINK_RATE:
        raise InputError(f"blink as 'dataset', blinks per minute from 0 to {MAX_BLINK_RATE:.0f}, or an array [F]",
                         shown(blink), "People blink 15 to 20 times a minute.")
    return float(blink)


def _check_closing(blink: Any, count: int) -> np.ndarray:
    """The first `count` values of a given array, checked to be 0 ... 1."""
    what = "blink as an array [F] of 0 open ... 1 closed"
    closing = _check_array(blink, what, (), count)
    if closing.min() < 0 or closing.max() > 1:
        raise InputError(what, f"{closing.min():.2f} ... {closing.max():.2f}", "Scale them to 0 ... 1.")
    return closing


def without_blinks(eyelids: np.ndarray) -> np.ndarray:
    """Eyelids [N] with blinks removed: their resting position, which follows the gaze."""
    rest = grey_opening(eyelids, MAX_BLINK_FRAMES, mode="nearest")
    return gaussian_filter1d(rest, 2.0, mode="nearest")


def natural_blinks(rate: float, count: int) -> np.ndarray:
    """Closing of the eyelids by blinks at random times, [count] float64, 0 open ... 1 closed.

    Intervals are a minimum plus a gamma distribution, which is skewed as people's intervals are. The eyelids close
    fast, hold briefly and open slowly. The same rate and count give the same blinks.

    Args:
        rate: blinks per minute, 0 ... 60.
        count: frames at 25 fps.
    """
    if rate == 0:
        return np.zeros(count)
    rng, seconds = np.random.default_rng(count), count / FPS
    intervals = blink_intervals(rng, rate, int(seconds / MIN_BLINK_INTERVAL) + 2)
    onsets = np.cumsum(np.concatenate([[rng.uniform(0, 60 / rate)], intervals]))
    time = np.arange(count) / FPS
    last = np.searchsorted(onsets, time, side="right") - 1
    return closed_after(np.where(last < 0, np.inf, time - onsets[last]))


def blink_intervals(rng: np.random.Generator, rate: float, count: int) -> np.ndarray:
    """Random intervals between the onsets of blinks, [count] float64, seconds; rate: blinks per minute, above 0."""
    return MIN_BLINK_INTERVAL + rng.gamma(2.0, (60 / rate - MIN_BLINK_INTERVAL) / 2, count)


def closed_after(since: Union[float, np.ndarray]) -> np.ndarray:
    """Closing of the eyelids `since` seconds after the onset of a blink, 0 open ... 1 closed, same shape."""
    phase = np.interp(since, np.cumsum([0, CLOSE_SECONDS, HOLD_SECONDS, OPEN_SECONDS]), [0, 1, 1, 0], right=0)
    return phase * phase * (3 - 2 * phase)
