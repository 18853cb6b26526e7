"""The clean background: the mean of each pixel over the frames in which it is visible, the rest inpainted."""
from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterable, Iterator, Optional

import cv2
import numpy as np

from ..core.files import write_npz
from ..core.progress import Progress
from ..core.reading import ArraySpec
from ..data.camera_view import VIEW, to_canvas
from ..media.image_io import read_rgb
from .parallel import WorkerPool
from .results import Result
from .steps import Step, chunks, missing_chunks

#: at 512 px: minimum distance of clean pixels from the person (hair tips, motion blur)
CLEAN_GAP = 9
#: minimum share of frames in which a pixel is uncovered, for clean pixels and for those nearer to the person: fewer may
#: be mask errors
MIN_SHARE, MIN_SHARE_NEAR = 0.01, 0.05


def uncovered(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clean pixels of the background, and those that are also near the person: [S, S] uint8 each, 1 or 0.

    Args:
        mask: [S, S, 3] uint8, head, torso, background.
    """
    near = (mask[..., 2] >= 250).astype(np.uint8)
    gap = 2 * max(1, round(CLEAN_GAP * len(mask) / 512)) + 1
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
    return cv2.erode(near, reach, borderType=cv2.BORDER_CONSTANT, borderValue=(1,)), near


class PlateSum:
    """Sums of uncovered pixels; memory does not grow with the number of frames, and the sums of chunks can be added.

    Args:
        size: side of the plate, px: that of a frame, or of the canvas of a camera that moves.
    """

    def __init__(self, size: int):
        # clean pixels, and those near the person, which are used only where no clean ones exist
        self.totals = np.zeros((2, size, size, 3), np.float32)
        self.counts = np.zeros((2, size, size), np.uint32)
        self.frames = 0

    def add(self, image: np.ndarray, mask: np.ndarray, camera: Optional[np.ndarray] = None) -> None:
        """Add a frame; at most 65,000, so that the float32 sums stay exact.

        Args:
            image: [S, S, 3] uint8.
            mask: [S, S, 3] uint8, head, torso, background.
            camera: [7] of the frame, see `Dataset.camera`: it is moved to its place on the canvas, in the reference
                exposure. None: a still camera.
        """
        uses = uncovered(mask)
        if camera is not None:
            side = len(self.counts[0])
            px = to_canvas(camera[:VIEW], len(image), (side - len(image)) // 2)
            # pixels of the canvas between two of the frame, of which one is covered, are not used
            uses = tuple((cv2.warpAffine(255 * use, px, (side, side)) == 255).astype(np.uint8) for use in uses)
            image = cv2.warpAffine(image / np.exp(camera[VIEW:]).astype(np.float32), px, (side, side),
                                   flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).clip(0, 255)
        for k, use in enumerate(uses):
            cv2.accumulate(image, self.totals[k], use)
            self.counts[k] += use
        self.frames += 1

    def sums(self) -> dict[str, np.ndarray]:
        """What `clean_plate` adds up: totals [2, S, S, 3] and counts [2, S, S], uint32."""
        totals = np.rint(self.totals).astype(np.uint32)
        return {"totals": totals, "counts": self.counts, "frames": np.array(self.frames)}


def plate_of_canvas(step: Step, root: Path, camera: np.ndarray, size: int, pool: WorkerPool) -> None:
    """The sums of a plate in the reference view of a camera that moves, of the frames and masks in a dataset folder.

    Args:
        step: holds the sums of each chunk, see `PlateSum.sums`.
        root: the dataset folder.
        camera: [N, 7], see `Dataset.camera`.
        size: side of the canvas, px.
        pool: runs the chunks.
    """
    todo = missing_chunks(step, len(camera))
    with Progress(sum(len(ids) for _, ids in todo), "background of all views", "frame") as bar:
        pool.run(_canvas_chunk, [(step.chunk(number), root, ids, camera[ids.start:ids.stop], size)
                                 for number, ids in todo], bar)


def canvas_results(step: Step, num_frames: int, size: int) -> Iterator[Result]:
    """What `plate_of_canvas` leaves."""
    for number, _ in enumerate(chunks(num_frames)):
        yield Result(step.chunk(number), sums_spec(size))


def sums_spec(size: int) -> dict[str, ArraySpec]:
    """The arrays of `PlateSum.sums`."""
    return {"totals": ArraySpec((2, size, size, 3), "u"), "counts": ArraySpec((2, size, size), "u"),
            "frames": ArraySpec((), "i")}


def _canvas_chunk(path: Path, root: Path, ids: range, camera: np.ndarray, size: int, tick: Callable[[], None]) -> None:
    total = PlateSum(size)
    for i, row in zip(ids, camera):
        image, mask = map(read_rgb, image_paths(root, i))
        total.add(image, mask, row)
        tick()
    write_npz(path, **total.sums())


def image_paths(root: Path, i: int) -> tuple[Path, Path]:
    """Files of a frame and of its masks in the dataset folder."""
    return root / "frames" / f"{i:06d}.jpg", root / "masks" / f"{i:06d}.png"


def clean_plate(parts: Iterable[dict[str, np.ndarray]]) -> tuple[np.ndarray, float]:
    """The background, from the sums of all chunks.

    Args:
        parts: of each chunk, see `PlateSum.sums`.

    Returns:
        image [S, S, 3] uint8, and the share of its pixels that were visible, 0..1.
    """
    parts = iter(parts)
    first = next(parts)
    totals, counts, frames = first["totals"].astype(np.uint64), first["counts"].astype(np.uint64), int(first["frames"])
    for part in parts:
        totals, counts = totals + part["totals"].astype(np.uint64), counts + part["counts"].astype(np.uint64)
        frames += int(part["frames"])
    clean, near = (counts[k] >= max(1.0, share * frames) for k, share in enumerate((MIN_SHARE, MIN_SHARE_NEAR)))
    seen = clean | near
    if not seen.any():
        return np.full((*seen.shape, 3), 128, np.uint8), 0.0
    mean = totals / np.maximum(counts, 1)[..., None]
    plate = np.where(clean[..., None], mean[0], mean[1])
    return fill_unseen(np.clip(np.round(plate), 0, 255).astype(np.uint8), seen), float(seen.mean())


def fill_unseen(plate: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Inpaint the pixels that were never visible from their surroundings (push-pull over an image pyramid).

    Args:
        plate: [S, S, 3] uint8.
        seen: [S, S] bool with at least one True.

    Returns:
        [S, S, 3] uint8; seen pixels are unchanged.
    """
    if seen.all():
        return plate
    weight: np.ndarray = seen.astype(np.float32)
    colour: np.ndarray = plate.astype(np.float32) * weight[..., None]
    levels = []
    while True:
        levels.append((colour, weight))
        if min(weight.shape) <= 2:
            break
        half = (weight.shape[1] + 1) // 2, (weight.shape[0] + 1) // 2
        colour = cv2.resize(colour, half, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
        # a partly visible cell counts as visible, so that colours extend inwards
        full = np.minimum(1, 3 * weight)
        colour, weight = colour * (full / np.maximum(weight, 1e-6))[..., None], full
    filled = colour.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6) + np.zeros_like(colour)
    for colour, weight in reversed(levels):
        above = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        # blurred, so that the cells of the coarser level are not visible
        above = cv2.GaussianBlur(above, (0, 0), 1.0)
        share = np.minimum(weight, 1)[..., None]
        filled = colour + (1 - share) * above
    return np.where(seen[..., None], plate, np.clip(np.round(filled), 0, 255)).astype(np.uint8)
