"""How the camera moved and how its exposure changed, measured on the background of each frame.

Frames are aligned with key frames by the texture of their background, as far as the person does not cover it; a frame
that is far from its key frame becomes the next one. Key frames are then aligned directly with the earliest one that
they overlap, so that errors do not add up over a clip. Where the background has too little texture to tell, or the
camera stays within `MIN_MOTION`, it is still: exact zeros, so that noise of the measurement moves nothing.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Sequence

import numpy as np

from ..core.files import write_npz
from ..core.progress import Progress
from ..core.reading import ArraySpec
from ..data.camera_view import CAMERA, VIEW, corners_moved, pixels, view_matrix, view_of
from .parallel import WorkerPool
from .registration import SIDES, KeyFrame, log_gains, look_at, warped
from .results import Result
from .steps import Step, chunks, missing_chunks

KEY_MOTION = 0.15           # image widths: from here on a frame is too far from its key frame
MIN_OVERLAP = 0.5           # share of a key frame that must lie inside another for a direct alignment
MIN_FOUND = 0.8             # share of the frames in which the motion must be found
MIN_MOTION = 1.0            # px at `SIZE`: a camera that moves less is still
SIZE = 512
MIN_GAIN = 0.02             # log gain: twice the noise of the measurement
BETTER = 0.8                # a motion must reduce the difference between frames to this share
FACE_SHARE = 0.4, 2.0       # of a change of exposure must also be seen on the face: others are of the background alone
PERCENTILE = 98             # of the frames: a single wrong one does not make a camera move


@dataclass(frozen=True)
class CameraMotion:
    """What was found.

    Attributes:
        camera: [N, 7] float32, see `Dataset.camera`; zeros if the camera is still and its exposure constant.
        moved: px, how far the frame's corners move, see `corners_moved`.
        gain: largest change of exposure, as log gain.
        found: share of the frames in which the background showed the motion.
    """

    camera: np.ndarray
    moved: float
    gain: float
    found: float


def track_camera(step: Step, root: Path, num_frames: int, pool: WorkerPool) -> None:
    """Measure each chunk's frames against its first one, for `solve_camera`.

    Args:
        step: holds the partial results.
        root: the dataset folder, with frames and masks.
        num_frames: N.
        pool: runs the chunks.
    """
    todo = missing_chunks(step, num_frames)
    with Progress(num_frames, "measure the camera's motion", "frame",
                  initial=num_frames - sum(len(ids) for _, ids in todo)) as bar:
        pool.run(track_chunk, [(step.chunk(number), root, ids) for number, ids in todo], bar)


def results(step: Step, num_frames: int) -> Iterator[Result]:
    """What `track_camera` leaves."""
    for number, ids in enumerate(chunks(num_frames)):
        n = len(ids)
        yield Result(step.chunk(number), {
            "matrices": ArraySpec((n, 3, 3)), "gains": ArraySpec((n, 3)), "faces": ArraySpec((n, 3)),
            "found": ArraySpec((n,), "b"), "keys": ArraySpec((n,), "b")})


def track_chunk(path: Path, root: Path, ids: range, tick: Callable[[], None]) -> None:
    """One chunk of `track_camera`: similarities [n, 3, 3] (half images) and log gains [n, 3] against the last frame
    before the chunk (of the first chunk: its first frame), whether they were found, and which became key frames."""
    n = len(ids)
    matrices, gains, faces = np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3)), np.zeros((n, 3))
    found, keys = np.zeros(n, bool), np.zeros(n, bool)
    key = KeyFrame(look_at(root, max(ids.start - 1, 0)))
    at_key, key_gains = np.eye(3), np.zeros(3)    # of the key frame, against the chunk's first one
    pose, gain = np.eye(3), np.zeros(3)           # of the last frame that was found, against the key frame
    for row, i in enumerate(ids):
        look = look_at(root, i)
        aligned = key.align(look, pose)
        if aligned is not None:
            pose, found[row] = aligned, True
        seen = log_gains(key.look, look, pose)  # a plain wall shows it too, wherever the camera looks
        gain = np.where(np.isfinite(seen), seen, gain)
        matrices[row], gains[row], faces[row] = pose @ at_key, gain + key_gains, look.face
        if found[row] and _moved(pose) > KEY_MOTION:
            key, keys[row] = KeyFrame(look), True
            at_key, key_gains, pose, gain = matrices[row], gains[row], np.eye(3), np.zeros(3)
        tick()
    write_npz(path, matrices=matrices, gains=gains, faces=faces, found=found, keys=keys)


def _moved(matrix: np.ndarray) -> float:
    """`corners_moved` of a similarity [3, 3], image widths."""
    return float(corners_moved(view_of(matrix), 1))


def solve_camera(root: Path, tracked: dict[str, np.ndarray], size: int, num_train: int) -> CameraMotion:
    """The camera of all frames.

    The reference view and exposure are the mean ones of the training frames. Validation frames are measured on their
    own background, as their head poses are on their own landmarks.

    Args:
        root: the dataset folder, with frames and masks.
        tracked: what `track_camera` has found, all chunks.
        size: of the frames, px.
        num_train: number of training frames.
    """
    found = tracked["found"]
    share, shown = float(found.mean()), bool(found.mean() >= MIN_FOUND)
    matrices, gains, keys = _chained(tracked)
    if not shown:
        matrices, found = np.broadcast_to(np.eye(3), matrices.shape), np.ones_like(found)
    matrices, gains = _without_drift(root, matrices, gains, keys, shown)
    camera = _filled(np.concatenate([view_of(matrices), gains], 1), found)
    views, gains = _centred(camera[:, :VIEW], num_train), camera[:, VIEW:] - camera[:num_train, VIEW:].mean(0)
    moved, gain = (float(np.percentile(x, PERCENTILE)) for x in (corners_moved(views, size), np.abs(gains).max(1)))
    if moved < MIN_MOTION * max(1.0, size / SIZE) or not _explains(root, views):
        views = np.zeros_like(views)
    if gain < MIN_GAIN or not _on_face(gains, tracked["faces"]):
        gains = np.zeros_like(gains)
    return CameraMotion(np.concatenate([views, gains], 1).astype(np.float32), moved, gain, share)


def _chained(tracked: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Similarities [N, 3, 3] (half images) and log gains [N, 3] against frame 0, and the numbers of the key frames."""
    matrices, gains, keys = tracked["matrices"].copy(), tracked["gains"].copy(), [0]
    for ids in chunks(len(matrices)):
        if ids.start:
            matrices[ids.start:ids.stop] = matrices[ids.start:ids.stop] @ matrices[ids.start - 1]
            gains[ids.start:ids.stop] += gains[ids.start - 1]
            keys.append(ids.start - 1)
        keys += [i for i in ids if tracked["keys"][i]]
    return matrices, gains, sorted(set(keys))


def _without_drift(root: Path, matrices: np.ndarray, gains: np.ndarray, keys: Sequence[int], shown: bool
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Correct the chain at the key frames, each aligned directly with the earliest one that shows half of it; the
    corrections are interpolated between them.

    Args:
        root: the dataset folder.
        matrices, gains, keys: see `_chained`.
        shown: whether the background shows the motion; if not, only the gains are corrected.
    """
    known = {0: (KeyFrame(look_at(root, 0)), matrices[0], gains[0])}
    corrections, change, more = [np.zeros(CAMERA)], np.eye(3), np.zeros(3)
    for i in keys[1:]:
        look, at, gain, direct = look_at(root, i), matrices[i] @ change, gains[i] + more, False
        for key, there, there_gain in known.values():
            guess = at @ np.linalg.inv(there)
            aligned = None if _overlap(guess) < MIN_OVERLAP else key.align(look, guess) if shown else guess
            if aligned is not None:
                seen = log_gains(key.look, look, aligned) + there_gain
                at, gain, direct = aligned @ there, np.where(np.isfinite(seen), seen, gain), True
                break
        if not direct:  # a new part of the scene
            known[i] = KeyFrame(look), at, gain
        change, more = np.linalg.inv(matrices[i]) @ at, gain - gains[i]
        corrections.append(np.concatenate([view_of(change), more]))
    between = np.stack([np.interp(np.arange(len(matrices)), keys, column) for column in np.transpose(corrections)], 1)
    return matrices @ view_matrix(between[:, :VIEW]), gains + between[:, VIEW:]


def _overlap(matrix: np.ndarray) -> float:
    """Share of a frame that lies inside another, given the similarity [3, 3] to it from there, half images."""
    axis = (np.arange(8) + 0.5) / 4 - 1
    grid = np.stack([*np.meshgrid(axis, axis), np.ones((8, 8))], -1).reshape(-1, 3)
    return float((np.abs(grid @ np.linalg.inv(matrix).T)[:, :2] <= 1).all(1).mean())


def _filled(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Rows [N, C] of frames that were not found, interpolated between those that were."""
    frames = np.arange(len(values))
    return np.stack([np.interp(frames, frames[found], column[found]) for column in values.T], 1)


def _centred(views: np.ndarray, num_train: int) -> np.ndarray:
    """Views [N, 4] against the mean view of the training frames."""
    mean = view_matrix(views[:num_train].mean(0))
    return view_of(view_matrix(views) @ np.linalg.inv(mean))


def _explains(root: Path, views: np.ndarray, samples: int = 16) -> bool:
    """Whether frames far from the reference differ less from one near it once the motion is undone: a plain background
    looks the same either way, and a screen in the background moves by itself."""
    moved = corners_moved(views, 2)
    near, far = int(np.argmin(moved)), np.argsort(moved)[-max(samples, len(views) // 4):]
    (reference, clean), shares, to_px = look_at(root, near).levels[-1], [], pixels(SIDES[-1])
    for i in far[:: -(-len(far) // samples)]:
        image, clean_there = look_at(root, int(i)).levels[-1]
        relative = view_matrix(views[i]) @ np.linalg.inv(view_matrix(views[near]))
        px = to_px @ relative @ np.linalg.inv(to_px)
        both = (clean > 0.99) & (clean_there > 0.99) & (warped(clean_there, px) > 0.99)
        if both.any():
            undone, as_it_is = (np.abs(x[both] * (reference[both].mean() / x[both].mean()) - reference[both]).mean()
                                for x in (warped(image, px), image))
            shares.append(undone / max(as_it_is, 1e-3))
    return bool(shares) and float(np.median(shares)) < BETTER


def _on_face(gains: np.ndarray, faces: np.ndarray) -> bool:
    """Whether the exposure [N, 3] is also seen in log colours of the face [N, 3]: light on the wall alone is no
    exposure."""
    means, seen = gains.mean(1), faces.mean(1)
    slope = ((means - means.mean()) * (seen - seen.mean())).sum() / max(((means - means.mean()) ** 2).sum(), 1e-12)
    low, high = FACE_SHARE
    return bool(low < slope < high)
