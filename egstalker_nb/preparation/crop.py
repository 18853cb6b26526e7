"""One fixed square around the head for the whole clip, and the frames cut to it."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..progress import Progress
from .face import CHIN, FOREHEAD, OVAL
from .steps import Step, Writers, missing_chunks, quiet_frames, write_npz
from .track import QuietNet, require_mediapipe

#: in heights of the face (top of the forehead to chin): room above for the hair, below for neck and shoulders,
#: and on each side
ABOVE, BELOW, BESIDE = 0.5, 0.4, 0.55
#: a nearly square source whose side is at most this much longer than the wanted crop is a head crop already
KEEP = 1.5
#: side that the person segmentation works at, px
PERSON_SIDE = 256
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def choose_crop(landmarks: np.ndarray, found: np.ndarray, width: int, height: int) -> tuple[int, int, int]:
    """The square that holds the head, its hair and some shoulder in every frame.

    It never leaves the picture: a border made up by padding would be trained as if it were background.

    Args:
        landmarks: [N, 478, 3] source px. found: [N] bool. width, height: source px.

    Returns:
        x0, y0, side in source px.
    """
    seen = landmarks[found][..., :2]
    face = float(np.median(np.linalg.norm(seen[:, FOREHEAD] - seen[:, CHIN], axis=-1)))
    border = seen[:, OVAL]
    # percentiles: one frame with a lost tracker must not decide the crop
    left, top = np.percentile(border.min(axis=1), 1, axis=0)
    right, bottom = np.percentile(border.max(axis=1), 99, axis=0)
    left, right = left - BESIDE * face, right + BESIDE * face
    top, bottom = top - ABOVE * face, bottom + BELOW * face
    side = max(right - left, bottom - top)
    shorter = min(width, height)
    if max(width, height) <= 1.1 * shorter and shorter <= KEEP * side:
        side = shorter
    side = int(min(round(side), shorter))
    x0 = (left + right) / 2 - side / 2
    # spare height goes below: shoulders rather than ceiling
    y0 = top
    return int(np.clip(round(x0), 0, width - side)), int(np.clip(round(y0), 0, height - side)), side


def cut(image: np.ndarray, crop: tuple[int, int, int], size: int) -> np.ndarray:
    """The crop of a source frame as [size, size, 3] uint8."""
    x0, y0, side = crop
    part = image[y0:y0 + side, x0:x0 + side]
    if side == size:
        return np.ascontiguousarray(part)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


def to_crop(landmarks: np.ndarray, crop: tuple[int, int, int], size: int) -> np.ndarray:
    """Landmarks in source px -> px of the cropped frame (x, y and z in the same scale)."""
    x0, y0, side = crop
    return ((landmarks - np.float32([x0, y0, 0])) * np.float32(size / side)).astype(np.float32)


def write_frames(step: Step, video: Path, folder: Path, num_frames: int, crop: tuple[int, int, int],
                 size: int) -> None:
    """Write the frames as JPEG and, per chunk, how surely each pixel is person ([n, 256, 256] uint8)."""
    todo = missing_chunks(step, num_frames)
    if not todo:
        return
    net = QuietNet(require_mediapipe().solutions.selfie_segmentation.SelfieSegmentation, model_selection=0)
    frames, position = None, -1
    done = num_frames - sum(len(ids) for _, ids in todo)
    with Progress(num_frames, "cut frames", "frame", initial=done) as bar, Writers() as writers:
        for number, ids in todo:
            if position != ids.start:
                frames, position = quiet_frames(video, ids.start), ids.start
            person = np.zeros((len(ids), PERSON_SIDE, PERSON_SIDE), np.uint8)
            for i in ids:
                image = cut(next(frames), crop, size)
                position += 1
                writers.submit(write_jpeg, folder / f"{i:06d}.jpg", image)
                small = cv2.resize(image, (PERSON_SIDE, PERSON_SIDE),
                                   interpolation=cv2.INTER_AREA if size >= PERSON_SIDE else cv2.INTER_CUBIC)
                mask = net.process(small).segmentation_mask
                person[i - ids.start] = np.clip(mask * 255 + 0.5, 0, 255).astype(np.uint8)
                bar.update()
            writers.finish()
            write_npz(step.chunk(number), person=person)
    net.close()


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """RGB uint8 -> JPEG quality 95 with full colour resolution."""
    path.write_bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), JPEG)[1].tobytes())


def write_png(path: Path, image: np.ndarray) -> None:
    """RGB uint8 -> PNG."""
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                  [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def read_rgb(path: Path) -> np.ndarray:
    """A picture file as [H, W, 3] uint8 RGB."""
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
