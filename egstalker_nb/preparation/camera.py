"""How the camera moved and how its exposure changed, measured on the background of each frame.

Frames are aligned with key frames by the texture of their background, as far as the person does not cover it; a frame
that is far from its key frame becomes the next one. Key frames are then aligned directly with the earliest one that
they overlap, so that errors do not add up over a clip. Where the background has too little texture to tell, or the
camera stays within `MIN_MOTION`, it is still: exact zeros, so that noise of the measurement moves nothing.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence

import cv2
import numpy as np

from ..core.files import write_npz
from ..core.progress import Progress
from ..core.reading import ArraySpec
from ..data.camera_view import CAMERA, VIEW, corners_moved, pixels, view_matrix, view_of
from ..media.image_io import read_rgb
from .parallel import WorkerPool
from .plate import image_paths, uncovered
from .results import Result
from .steps import Step, chunks, missing_chunks

SIDES = 64, 256             # px of the images that are compared, coarse to fine
BLUR = 1.0                  # px, against noise
MIN_GRADIENT = 1.0          # grey levels per px: texture
MIN_TEXTURE = 0.01          # share of an image's pixels that must have it
MAX_POINTS = 16_000         # of them, evenly spread (OpenCV takes 32,766)
MAX_STEPS = 20              # of Gauss-Newton at each level
CORRELATED = 10             # pixels that share their noise
MAX_ERROR = 0.5             # px at `SIDES`: standard error of a similarity that is used
MIN_AGREE = 0.3             # share of a key frame's pixels that must be seen
KEY_MOTION = 0.15           # image widths: from here on a frame is too far from its key frame
MIN_OVERLAP = 0.5           # share of a key frame that must lie inside another for a direct alignment
MIN_FOUND = 0.8             # share of the frames in which the motion must be found
MIN_MOTION = 1.0            # px at `SIZE`: a camera that moves less is still
SIZE = 512
MIN_GAIN = 0.02             # log gain: twice the noise of the measurement
GAIN_RANGE = 0.05           # log gain: pixels that differ by more from the median do not count
BETTER = 0.8                # a motion must reduce the difference between frames to this share
FACE_SHARE = 0.4, 2.0       # of a change of exposure must also be seen on the face: others are of the background alone
PERCENTILE = 98             # of the frames: a single wrong one does not make a camera move


@dataclass(frozen=True)
class _Look:
    """What is compared of a frame: images of its background with the share that is clean, at each of `SIDES`; at the
    first, colours [w, w, 3] float32 and where they can be compared [w, w] bool; log colours of the face [3]."""

    levels: tuple[tuple[np.ndarray, np.ndarray], ...]
    colour: np.ndarray
    usable: np.ndarray
    face: np.ndarray


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
    key = KeyFrame(_look(root, max(ids.start - 1, 0)))
    at_key, key_gains = np.eye(3), np.zeros(3)    # of the key frame, against the chunk's first one
    pose, gain = np.eye(3), np.zeros(3)           # of the last frame that was found, against the key frame
    for row, i in enumerate(ids):
        look = _look(root, i)
        aligned = key.align(look, pose)
        if aligned is not None:
            pose, found[row] = aligned, True
            seen = _log_gains(key.look, look, pose)
            gain = np.where(np.isfinite(seen), seen, gain)
        matrices[row], gains[row], faces[row] = pose @ at_key, gain + key_gains, look.face
        if found[row] and _moved(pose) > KEY_MOTION:
            key, keys[row] = KeyFrame(look), True
            at_key, key_gains, pose, gain = matrices[row], gains[row], np.eye(3), np.zeros(3)
        tick()
    write_npz(path, matrices=matrices, gains=gains, faces=faces, found=found, keys=keys)


def _look(root: Path, i: int) -> _Look:
    frame, mask = map(read_rgb, image_paths(root, i))
    clean, _ = uncovered(mask)
    grey: np.ndarray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    colour, head, usable = (_resized(x.astype(np.float32), SIDES[0]) for x in (frame, mask[..., 0], clean))
    usable = (usable > 0.99) & (colour > 8).all(-1) & (colour < 247).all(-1)
    face = colour[head > 250]
    return _Look(tuple(_level(_resized(grey, side), _resized(clean.astype(np.float32), side)) for side in SIDES),
                 colour, usable, np.log(np.maximum(face.mean(0), 1)) if len(face) else np.zeros(3))


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    how = cv2.INTER_AREA if len(image) > side else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=how)


def _level(grey: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grey image blurred against noise, without colours of the person at the edge of the background, and what is
    clean of it."""
    known = cv2.GaussianBlur(clean, (0, 0), BLUR)
    return cv2.GaussianBlur(grey * clean, (0, 0), BLUR) / np.maximum(known, 1e-3), clean


class KeyFrame:
    """A frame that others are aligned with: the pixels of its background that have texture, at each level.

    Args:
        look: the frame.
    """

    def __init__(self, look: _Look):
        self.look = look
        self.levels = [self._textured(*level) for level in look.levels]

    @staticmethod
    def _textured(image: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points [P, 2] half images, values [P] and derivatives [P, 6]: by shift x and y, scale and roll, gain and
        offset of brightness."""
        side = len(image)
        across, down = (cv2.Sobel(image, cv2.CV_32F, *order, scale=side / 16) for order in ((1, 0), (0, 1)))
        inside = cv2.erode((clean > 0.99).astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=(0,))
        y, x = np.nonzero((np.hypot(across, down) > MIN_GRADIENT * side / 2) & (inside > 0))
        few = slice(None, None, len(x) // MAX_POINTS + 1)
        y, x = y[few], x[few]
        gx, gy, value = across[y, x], down[y, x], image[y, x]
        u, v = ((axis + 0.5) * 2 / side - 1 for axis in (x, y))
        slopes = np.stack([gx, gy, gx * u + gy * v, gy * u - gx * v, value, np.ones_like(value)], 1)
        return np.stack([u, v], 1), value.astype(np.float64), slopes.astype(np.float64)

    def align(self, look: _Look, guess: np.ndarray) -> Optional[np.ndarray]:
        """The similarity [3, 3] from this frame to another, half images, by robust Gauss-Newton steps on the
        differences of brightness (inverse compositional, Baker and Matthews 2004), coarse to fine.

        Args:
            look: the other frame.
            guess: [3, 3]; right to a few percent of the image's width.

        Returns:
            None if the background does not show it.
        """
        matrix: np.ndarray = guess
        for number, (points, value, slopes) in enumerate(self.levels):
            if len(points) < MIN_TEXTURE * len(look.levels[number][0]) ** 2:
                continue
            last = number == len(self.levels) - 1
            found = _aligned(points, value, slopes, look.levels[number], matrix)
            if found is None and last:
                return None
            matrix = matrix if found is None else found
        return matrix if len(points) >= MIN_TEXTURE * SIDES[-1] ** 2 else None


def _aligned(points: np.ndarray, value: np.ndarray, slopes: np.ndarray, level: tuple[np.ndarray, np.ndarray],
             matrix: np.ndarray) -> Optional[np.ndarray]:
    """`KeyFrame.align` at one level."""
    image, clean = level
    side, light = len(image), np.array([1.0, 0.0])  # gain and offset of brightness
    for _ in range(MAX_STEPS):
        at = ((points @ matrix[:2, :2].T + matrix[:2, 2] + 1) * side / 2 - 0.5).astype(np.float32)
        seen, uncovered_there = (cv2.remap(x, at[:, 0], at[:, 1], cv2.INTER_LINEAR, borderValue=(0,))[:, 0]
                                 for x in (image, clean))
        use = uncovered_there > 0.99
        if use.sum() < max(MIN_AGREE * len(points), 50):
            return None
        difference, slope = seen[use] - light[0] * value[use] - light[1], slopes[use]
        spread = 1.5 * np.median(np.abs(difference)) + 1e-3
        weight = 1 / (1 + (difference / (2 * spread)) ** 2)
        normal = (slope * weight[:, None]).T @ slope
        try:
            covariance = np.linalg.inv(normal + 1e-6 * np.diag(np.diag(normal)))
        except np.linalg.LinAlgError:
            return None
        change = covariance @ (slope.T @ (weight * difference))
        along, across = 1 + change[2], change[3]
        light += change[4:]
        step = np.array([[along, -across, change[0]], [across, along, change[1]], [0, 0, 1]])
        matrix = matrix @ np.linalg.inv(step)
        if (moved := np.abs(change[:4]).sum() * side / 2) < 0.01:
            break
    if moved > 0.1:
        return None
    # pixels near each other have the same noise: as if only one of `CORRELATED` counted
    error = spread * np.sqrt(CORRELATED * np.trace(covariance[:4, :4])) * side / 2
    return matrix if error < MAX_ERROR else None


def _log_gains(key: _Look, look: _Look, matrix: np.ndarray) -> np.ndarray:
    """Log of how much brighter the background is in `look` than in `key`: [3], NaN where too little of it is seen."""
    to_px = pixels(SIDES[0])
    px = to_px @ matrix @ np.linalg.inv(to_px)
    both = key.usable & (_warped(look.usable.astype(np.float32), px) > 0.99)
    if both.mean() < 0.02:
        return np.full(3, np.nan)
    before, after = key.colour[both], np.maximum(_warped(look.colour, px)[both], 1)
    ratio = np.log(after / before)
    close = np.abs(ratio - np.median(ratio, 0)) < GAIN_RANGE
    return np.log((after * close).sum(0) / np.maximum((before * close).sum(0), 1))


def _warped(image: np.ndarray, px: np.ndarray) -> np.ndarray:
    """An image as the key frame sees it, given the similarity [3, 3] from there, px; black beyond its border."""
    return cv2.warpAffine(image, px[:2], image.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


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
    num_frames, share = len(found), float(tracked["found"].mean())
    still = CameraMotion(np.zeros((num_frames, CAMERA), np.float32), 0.0, 0.0, share)
    if share < MIN_FOUND:
        return still
    matrices, gains, keys = _chained(tracked)
    matrices, gains = _without_drift(root, matrices, gains, keys)
    camera = np.concatenate([view_of(matrices), gains], 1)
    camera = _filled(camera, found)
    views, gains = _centred(camera[:, :VIEW], num_train), camera[:, VIEW:] - camera[:num_train, VIEW:].mean(0)
    moved, gain = (float(np.percentile(x, PERCENTILE)) for x in (corners_moved(views, size), np.abs(gains).max(1)))
    if moved < MIN_MOTION * max(1.0, size / SIZE) or not _explains(root, views):
        views = np.zeros_like(views)
    if gain < MIN_GAIN or not _on_face(gains, tracked["faces"]):
        gains = np.zeros_like(gains)
    return CameraMotion(np.concatenate([views, gains], 1).astype(np.float32), moved, gain, share)


def _chained(tracked: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Similarities [N, 3, 3] px and log gains [N, 3] against frame 0, and the numbers of the key frames."""
    matrices, gains, keys = tracked["matrices"].copy(), tracked["gains"].copy(), [0]
    for ids in chunks(len(matrices)):
        if ids.start:
            matrices[ids.start:ids.stop] = matrices[ids.start:ids.stop] @ matrices[ids.start - 1]
            gains[ids.start:ids.stop] += gains[ids.start - 1]
            keys.append(ids.start - 1)
        keys += [i for i in ids if tracked["keys"][i]]
    return matrices, gains, sorted(set(keys))


def _without_drift(root: Path, matrices: np.ndarray, gains: np.ndarray, keys: Sequence[int]
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Correct the chain at the key frames, each aligned directly with the earliest one that shows half of it; the
    corrections are interpolated between them. Arguments as `_chained` returns them."""
    known = {0: (KeyFrame(_look(root, 0)), matrices[0], gains[0])}
    corrections, change, more = [np.zeros(CAMERA)], np.eye(3), np.zeros(3)
    for i in keys[1:]:
        look, at, gain, direct = _look(root, i), matrices[i] @ change, gains[i] + more, False
        for key, there, there_gain in known.values():
            guess = at @ np.linalg.inv(there)
            aligned = key.align(look, guess) if _overlap(guess) >= MIN_OVERLAP else None
            if aligned is not None:
                seen = _log_gains(key.look, look, aligned) + there_gain
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
    (reference, clean), shares, to_px = _look(root, near).levels[-1], [], pixels(SIDES[-1])
    for i in far[:: -(-len(far) // samples)]:
        image, clean_there = _look(root, int(i)).levels[-1]
        relative = view_matrix(views[i]) @ np.linalg.inv(view_matrix(views[near]))
        px = to_px @ relative @ np.linalg.inv(to_px)
        both = (clean > 0.99) & (clean_there > 0.99) & (_warped(clean_there, px) > 0.99)
        if both.any():
            undone, as_it_is = (np.abs(x[both] * (reference[both].mean() / x[both].mean()) - reference[both]).mean()
                                for x in (_warped(image, px), image))
            shares.append(undone / max(as_it_is, 1e-3))
    return bool(shares) and float(np.median(shares)) < BETTER


def _on_face(gains: np.ndarray, faces: np.ndarray) -> bool:
    """Whether the exposure [N, 3] is also seen in log colours of the face [N, 3]: light on the wall alone is no
    exposure."""
    means, seen = gains.mean(1), faces.mean(1)
    slope = ((means - means.mean()) * (seen - seen.mean())).sum() / max(((means - means.mean()) ** 2).sum(), 1e-12)
    low, high = FACE_SHARE
    return bool(low < slope < high)
