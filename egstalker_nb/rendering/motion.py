"""What the head does besides speaking: where it is turned to, and when it blinks."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, Union

import numpy as np
from scipy.ndimage import gaussian_filter1d, grey_opening
from scipy.spatial.transform import Rotation

from ..core.errors import InputError
from ..data.dataset import Dataset, load_dataset
from ..media.rates import FPS

if TYPE_CHECKING:
    from .renderer import Renderer

ORBIT_YAW, ORBIT_PITCH, ORBIT_SECONDS = 15.0, 6.0, 4.0  # degrees, degrees, seconds a round
EASE = 5               # frames before and after a turning point in which a motion slows down and speeds up again
MIN_SPREAD = 0.01    # rad or head units: a clip that hardly moves along an axis still allows that much
KNOWN_SHARE = 0.95     # share of the training frames whose poses count as learned
RIGID = 1e-3           # how far a given rotation may be from a rigid one
CLOSING, CLOSED, OPENING = 0.09, 0.05, 0.18  # seconds of a blink; closed for more than a frame, so that one shows it
MIN_BLINK_INTERVAL = 0.8   # seconds from blink to blink
MAX_BLINK_RATE = 60.0     # a minute: more leave no room for the least interval
SHUT_FRAMES = 3        # training frames that show the eyes of a blink
SLOW_LIDS = 13         # frames; lids that close for less than that are blinking, for longer they follow the gaze

Poses = Union[Literal["cycle", "static", "orbit"], str, Path, Dataset, np.ndarray]
Blink = Union[Literal["dataset"], float, str, Path, np.ndarray]


def cycle(num_frames: int, count: int) -> np.ndarray:
    """0, 1, ..., n-1, n-2, ..., 1, 0, 1, ...: `count` frame numbers that run back and forth without a jump."""
    if num_frames == 1:
        return np.zeros(count, int)
    there_and_back = np.concatenate([np.arange(num_frames), np.arange(num_frames - 2, 0, -1)])
    return np.resize(there_and_back, count)


def eased_cycle(num_frames: int, count: int) -> np.ndarray:
    """`cycle` whose turning points are rounded off, [count] float64: a head that turns back at full speed looks driven.

    The first run starts at frame 0 at full speed and visits frames 0, 1, 2, ... exactly.
    """
    ease, last = min(EASE, (num_frames - 1) / 2), num_frames - 1

    def rounded(distance: np.ndarray) -> np.ndarray:
        """Speed 1 away from the end, 0 at the end: a parabola that touches the line `ease` frames before it."""
        return np.where(distance < ease, (distance ** 2 / max(ease, 1e-9) + ease) / 2, distance)

    at = cycle(num_frames, count).astype(float)
    at = last - rounded(last - at)
    return np.where(np.arange(count) > last, rounded(at), at)


def middle_frame(ds: Dataset) -> int:
    """The dataset frame whose tracked pose is nearest to the mean pose, among those with open eyes: the same frame for
    every head of the clip."""
    distance = np.linalg.norm((ds.w2c - ds.w2c.mean(0)).reshape(len(ds), -1), axis=1)
    return int(np.argmin(distance + np.where(ds.blink > 0.5, 1e3, 0)))


def head_motion(renderer: "Renderer", poses: Poses, count: int) -> tuple[Optional[np.ndarray], np.ndarray, np.ndarray]:
    """Where the camera is in each of `count` video frames, and which pose the network is told.

    Args:
        renderer: draws the head; gives its clip and the poses that it was trained on. poses: `cycle`, `static` or
            `orbit`; another dataset or its folder, whose motion is transferred; an array (or .npy) [F, 4, 4] of
            world-to-camera matrices with F >= count. See `render`.

    Returns:
        source [count] int, the frames of the clip that are followed, or None; w2c [count, 4, 4] float32; pose
        [count, 4, 4] float32, among those of the clip.

    Raises:
        InputError: something else, or an array that is no path of a head before a camera. DatasetError: no dataset.
    """
    poses = opened_poses(poses)
    if isinstance(poses, str):
        source, w2c = POSE_PATHS[poses](renderer, count)
        return source, w2c, renderer.w2c[source] if poses == "orbit" else w2c  # in an orbit the head itself stays still
    given = not isinstance(poses, Dataset)
    w2c = _checked_poses(renderer, poses, count) if given else _transferred(renderer.w2c, poses, count)
    return None, w2c, inside_range(renderer.w2c[:renderer.ds.num_train], w2c)


def opened_poses(poses: Poses) -> Any:
    """The dataset or array that `poses` names; the name of a path of the camera, and what is no name, as they are.

    Raises:
        InputError: no such file. DatasetError: a folder without a dataset.
    """
    if not isinstance(poses, (str, Path)) or poses in POSE_PATHS:
        return poses
    return _opened(poses, f"poses {', '.join(POSE_PATHS)}, a dataset folder or a .npy file", load_dataset)


def label(poses: Poses) -> str:
    """A short name of `poses` for the name of a video."""
    if isinstance(poses, Dataset):
        return poses.root.name
    return Path(poses).stem if isinstance(poses, (str, Path)) else "poses"


def _opened(place: str | Path, expected: str, open_folder: Callable[[Path], Any]) -> Any:
    """What a path stands for: an array, or what `open_folder` makes of a folder."""
    path = Path(place)
    if path.is_dir():
        return open_folder(path)
    if path.suffix.lower() != ".npy" or not path.is_file():
        raise InputError(expected, repr(str(place)), "Choose one of them; a path must exist.")
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"an array of numbers in '{path}'", str(error), "Write it with numpy.save.") from error


def _between(w2c: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Poses [N, 4, 4] at fractional frame numbers `at` [F] -> [F, 4, 4] float64."""
    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
    share = (at - low)[:, None]
    before, after = (Rotation.from_matrix(w2c[i, :3, :3]) for i in (low, high))
    turned = before * Rotation.from_rotvec(share * (before.inv() * after).as_rotvec())
    return _pose(turned, (1 - share) * w2c[low, :3, 3] + share * w2c[high, :3, 3])


def _pose(rotation: Rotation, shift: np.ndarray) -> np.ndarray:
    """Rotations and shifts [F, 3] as matrices [F, 4, 4] float64."""
    w2c = np.tile(np.eye(4), (len(shift), 1, 1))
    w2c[:, :3, :3], w2c[:, :3, 3] = rotation.as_matrix(), shift
    return w2c


def mean_pose(w2c: np.ndarray) -> np.ndarray:
    """The mean rotation and the mean shift of poses [N, 4, 4], as [4, 4] float64."""
    return _pose(Rotation.from_matrix(w2c[:, :3, :3]).mean(), w2c[:, :3, 3].mean(0, keepdims=True))[0]


def _cycle_path(renderer: "Renderer", count: int) -> tuple[np.ndarray, np.ndarray]:
    at = eased_cycle(len(renderer.ds), count)
    return np.rint(at).astype(int), _between(renderer.w2c, at).astype(np.float32)


def _static_path(renderer: "Renderer", count: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.full(count, middle_frame(renderer.ds))
    return source, renderer.w2c[source]


def _orbit_path(renderer: "Renderer", count: int) -> tuple[np.ndarray, np.ndarray]:
    source, w2c = _static_path(renderer, count)
    phase = 2 * np.pi * np.arange(count) / (ORBIT_SECONDS * FPS)
    yaw, pitch = np.radians(ORBIT_YAW) * np.sin(phase), np.radians(ORBIT_PITCH) * np.sin(2 * phase)
    turns = Rotation.from_rotvec(np.stack([pitch, yaw, np.zeros(count)], 1)).as_matrix()
    moved = w2c.copy()
    moved[:, :3, :3] = w2c[:, :3, :3] @ turns  # the camera circles the head's origin; the distance stays
    return source, moved


POSE_PATHS = {"cycle": _cycle_path, "static": _static_path, "orbit": _orbit_path}


def _transferred(own: np.ndarray, other: Dataset, count: int) -> np.ndarray:
    """Another head's motion against its own mean pose, in head axes (a nod stays a nod), around the mean of this
    head's own poses [N, 4, 4]."""
    motion = np.linalg.inv(mean_pose(other.w2c)) @ _between(other.w2c, eased_cycle(len(other), count))
    return (mean_pose(own) @ motion).astype(np.float32)


def _checked_poses(renderer: "Renderer", given: Any, count: int) -> np.ndarray:
    """The first `count` of world-to-camera matrices that a user gave, float32."""
    w2c = _numbers(given, "poses as world-to-camera matrices [F, 4, 4]", (4, 4), count)
    far = np.abs(w2c[:, :3, :3] @ w2c[:, :3, :3].transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    far = np.maximum(far, np.abs(w2c[:, 3] - [0, 0, 0, 1]).max(1))
    wrong = np.flatnonzero((far > RIGID) | (np.linalg.det(w2c[:, :3, :3]) < 0))
    if len(wrong):
        raise InputError("rigid poses: a rotation (determinant +1) and a shift above the row 0 0 0 1",
                         f"frame {wrong[0]}: {w2c[wrong[0]].round(3).tolist()}", "No scale, no mirrored axis.")
    near = float(np.linalg.norm(renderer.ds.mean_face, axis=1).max())
    wrong = np.flatnonzero(w2c[:, 2, 3] <= near)
    if len(wrong):
        usual = renderer.w2c[0, 2, 3]
        raise InputError(f"heads before the camera: w2c[:, 2, 3] above {near:.1f} (this clip: {usual:.1f})",
                         f"{w2c[wrong[0], 2, 3]:.2f} in frame {wrong[0]}",
                         "Give world-to-camera matrices, not camera-to-world; axes x right, y down, z forward.")
    return w2c.astype(np.float32)


def _numbers(given: Any, what: str, shape: tuple[int, ...], count: int) -> np.ndarray:
    """The first `count` rows of a user's array [F, *shape], float64, all finite."""
    try:
        values = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors on another device
        values = np.empty(0, object)
    if values.dtype.kind not in "fiu" or values.shape[1:] != shape or values.ndim != len(shape) + 1:
        found = f"shape {list(values.shape)}, {values.dtype}" if isinstance(given, np.ndarray) else repr(given)[:80]
        raise InputError(what, found, "Give one row for each video frame, 25 a second.")
    if len(values) < count:
        raise InputError(f"{what} with F >= {count} frames, the length of the video", f"{len(values)} frames",
                         f"Give {count - len(values)} more, or render less of the sound with duration=.")
    values = values[:count].astype(float)
    wrong = np.flatnonzero(~np.isfinite(values).reshape(count, -1).all(1))
    if len(wrong):
        raise InputError(f"{what}, all finite", f"{len(wrong)} frames that are not, the first: {wrong[0]}",
                         "Fill the gaps.")
    return values


def inside_range(known: np.ndarray, w2c: np.ndarray) -> np.ndarray:
    """The poses w2c [F, 4, 4] drawn towards the mean pose until the network has learned them: [F, 4, 4] float32.

    Turns and shifts of a clip go together. So what counts is their joint distance from the mean (Mahalanobis), kept
    within what most training frames reach; clamping them one by one leaves combinations that twist the mouth. A
    smooth motion stays smooth.

    Args:
        known: [N, 4, 4], the poses of the training frames.
    """
    mean = mean_pose(known)
    away, learned = _coordinates(mean, w2c), _coordinates(mean, known)
    # a head seen from behind may have turned either way: fading to the mean pose there leaves nothing to jump
    angle = np.linalg.norm(away[:, :3], axis=1, keepdims=True)
    away[:, :3] *= np.clip(2 - 2 * angle / np.pi, 0, 1)
    weight = np.linalg.inv(learned.T @ learned / len(learned) + MIN_SPREAD ** 2 * np.eye(6))

    def distance(x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.einsum("ni,ij,nj->n", x, weight, x))

    reach = np.quantile(distance(learned), KNOWN_SHARE)
    away *= np.minimum(1, reach / np.maximum(distance(away), 1e-9))[:, None]
    away = np.clip(away, learned.min(0), learned.max(0))
    turned = Rotation.from_matrix(mean[:3, :3]) * Rotation.from_rotvec(away[:, :3])
    return _pose(turned, mean[:3, 3] + away[:, 3:]).astype(np.float32)


def _coordinates(mean: np.ndarray, w2c: np.ndarray) -> np.ndarray:
    """Poses [F, 4, 4] against `mean`: turns (rad, head axes) and shifts (head units, camera axes), [F, 6]."""
    turn = Rotation.from_matrix(mean[:3, :3].T @ w2c[:, :3, :3]).as_rotvec()
    return np.concatenate([turn, w2c[:, :3, 3] - mean[:3, 3]], 1)


def eye_motion(ds: Dataset, blink: Blink, count: int) -> np.ndarray:
    """Lids, brows and gaze of each video frame: the clip's own, back and forth, with these blinks.

    Args:
        blink: `dataset`; blinks a minute, 0 ... 60, where blinks of the clip make room for drawn ones (the same for the
            same count); an array (or .npy) [F] of 0 open ... 1 closed with F >= count. Lids stay within what the
            training frames show: a clip without a blink cannot teach one.

    Returns:
        [count, 7] float32, see `upper_face`.

    Raises:
        InputError: another blink.
    """
    at = eased_cycle(len(ds), count)
    low = np.floor(at).astype(int)
    share = (at - low)[:, None].astype(np.float32)
    eyes = (1 - share) * ds.eyes[low] + share * ds.eyes[np.ceil(at).astype(int)]
    blink = opened_blink(blink)
    if isinstance(blink, str):
        return eyes
    closed, known = closed_eyes(ds), ds.eyes[:ds.num_train, 0]
    eyes[:, 0] = _without_blinks(ds.eyes[:, 0])[np.rint(at).astype(int)]
    room = np.maximum(closed[0] - eyes[:, 0], 1e-6)
    if np.ndim(blink) == 0:
        closing = natural_blinks(_checked_rate(blink), count)
    else:
        lids = np.clip(2 * _checked_closing(blink, count) - 1, known.min(), known.max())
        closing = np.maximum(lids - eyes[:, 0], 0) / room
        eyes[:, 0] = np.minimum(lids, eyes[:, 0])
    closing = closing.clip(0, 1)[:, None].astype(np.float32)
    return (1 - closing) * eyes + closing * closed


def closed_eyes(ds: Dataset) -> np.ndarray:
    """What `upper_face` is when this person's eyes are shut, [7] float32: from the training frames that show it best.

    Brows and what is tracked of the hidden irises belong to it: the network saw lids close only together with them.
    """
    known = ds.eyes[:ds.num_train]
    closed = known[np.argsort(known[:, 0])[-SHUT_FRAMES:]].mean(0)
    closed[0] = known[:, 0].max()
    return closed


def opened_blink(blink: Blink) -> Any:
    """The array that `blink` names; `dataset`, and what is no name, as they are.

    Raises:
        InputError: no such file.
    """
    if not isinstance(blink, (str, Path)) or blink == "dataset":
        return blink
    expected = "blink as 'dataset', blinks a minute, or a .npy file"
    return _opened(blink, expected, lambda folder: _checked_rate(str(folder)))


def _checked_rate(blink: Any) -> float:
    number = isinstance(blink, (int, float, np.number)) and not isinstance(blink, bool)
    if not number or not 0 <= blink <= MAX_BLINK_RATE:
        raise InputError(f"blink as 'dataset', blinks a minute from 0 to {MAX_BLINK_RATE:.0f}, or an array [F]",
                         repr(blink), "People blink 15 to 20 times a minute.")
    return float(blink)


def _checked_closing(blink: Any, count: int) -> np.ndarray:
    """How far the lids are closed, [count] 0...1, from what a user gave."""
    what = "blink as an array [F] of 0 open ... 1 closed"
    closing = _numbers(blink, what, (), count)
    if closing.min() < 0 or closing.max() > 1:
        raise InputError(what, f"{closing.min():.2f} ... {closing.max():.2f}", "Scale them to 0 ... 1.")
    return closing


def _without_blinks(lids: np.ndarray) -> np.ndarray:
    """Lids [N] as they rest and follow the gaze: short closings are cut off."""
    rest = grey_opening(lids, SLOW_LIDS, mode="nearest")
    return gaussian_filter1d(rest, 2.0, mode="nearest")


def natural_blinks(rate: float, count: int) -> np.ndarray:
    """How far the lids are closed by blinks at random times, [count] float64, 0 open ... 1 closed.

    Intervals are skewed as people's are: a least interval and a gamma distribution on top. Lids close fast, hold for a
    moment and open slowly. The same rate and count give the same blinks.

    Args:
        rate: blinks a minute, 0 ... 60. count: frames at 25 fps.
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
    """Seconds from blink to blink, [count] float64; rate: blinks a minute, above 0."""
    return MIN_BLINK_INTERVAL + rng.gamma(2.0, (60 / rate - MIN_BLINK_INTERVAL) / 2, count)


def closed_after(since: np.ndarray) -> np.ndarray:
    """How far the lids are closed so many seconds after a blink began, 0 open ... 1 closed."""
    phase = np.interp(since, np.cumsum([0, CLOSING, CLOSED, OPENING]), [0, 1, 1, 0], right=0)
    return phase * phase * (3 - 2 * phase)
