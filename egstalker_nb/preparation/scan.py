"""The first pass over a video: face detections, a thumbnail of each frame, damage."""
from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Callable, Iterator

import cv2
import numpy as np

from ..core.errors import InputError, UnfinishedError
from ..core.files import write_npz
from ..core.progress import Progress
from ..core.reading import ArraySpec
from ..face.nets import QuietNet, require_mediapipe
from ..media.video_reader import read_frames
from . import steps
from .parallel import WorkerPool
from .people import iou
from .results import Result
from .source import InputFile, UnusableClipError
from .steps import Step, chunks, read_chunks

#: the face detector runs on every fifth frame
STRIDE = 5
#: longest image side at which it runs, px
DETECT_SIDE = 640
MAX_FACES = 4
#: side of the thumbnails from which cuts and black frames are found, px
THUMB = 16
#: of a chunk: boxes (a score of -1 where there is no face), thumbnails, height and width, and the notes as JSON
_ARRAYS = {"boxes": ArraySpec((None, MAX_FACES, 5)), "thumbs": ArraySpec((None, THUMB, THUMB, 3), "u"),
           "shape": ArraySpec((2,), "i"), "notes": ArraySpec((None,), "u")}


@dataclass
class Scan:
    """Results of the first pass.

    Attributes:
        boxes: [M, MAX_FACES, 5] float32, faces in every fifth frame: x0, y0, x1, y1 (source px), score; NaN where none.
        rows: [N] int, the row of `boxes` for each frame.
        thumbs: [N, THUMB, THUMB, 3] uint8.
        width, height: of the source, px.
        notes: the reader's warnings about damage.
    """

    boxes: np.ndarray
    rows: np.ndarray
    thumbs: np.ndarray
    width: int
    height: int
    notes: list[str] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return len(self.thumbs)

    @property
    def brightness(self) -> np.ndarray:
        """[N] float32, 0..1."""
        return self.thumbs.mean(axis=(1, 2, 3), dtype=np.float32) / 255

    @property
    def face_seen(self) -> np.ndarray:
        """[N] bool, a face was detected in or near each frame."""
        return ~np.isnan(self.boxes[self.rows, 0, 0])

    def part(self, first: int, last: int) -> "Scan":
        """The results for frames [first, last), from detections inside this part; if it is too short to contain one,
        from the last one before it."""
        low, high = -(-first // STRIDE), (last - 1) // STRIDE
        if low > high:  # a part without a detection of its own
            low = high
        rows = np.clip(self.rows[first:last], low, high) - low
        return Scan(self.boxes[low:high + 1], rows, self.thumbs[first:last], self.width, self.height, self.notes)


def results(step: Step, expected: int) -> Iterator[Result]:
    """What `scan` leaves; arguments as for `scan`. A damaged file has fewer frames than expected."""
    return (Result(step.chunk(k), _ARRAYS) for k in range(len(chunks(expected))))


def scan(step: Step, video: InputFile, expected: int, pool: WorkerPool) -> None:
    """Write the chunks that `load_scan` reads. The last one continues to the end of the file, wherever that is.

    Args:
        step: holds the partial results.
        video: the file.
        expected: number of frames by its packets.
        pool: runs the chunks.

    Raises:
        UnusableClipError: the video cannot be read.
    """
    parts = chunks(expected)
    tasks = [(step.chunk(k), video, ids.start, None if k == len(parts) - 1 else ids.stop)
             for k, ids in enumerate(parts) if not step.chunk(k).is_file()]
    done = sum(len(ids) for k, ids in enumerate(parts) if step.chunk(k).is_file())
    with Progress(expected, "find face", "frame", initial=done) as bar:
        try:
            pool.run(scan_chunk, tasks, bar)
        except InputError as error:
            if isinstance(error, UnfinishedError):
                raise
            raise UnusableClipError(error.expected, error.found, error.fix) from error


def scan_chunk(path: Path, video: InputFile, start: int, stop: int | None, tick: Callable[[], None]) -> None:
    """Scan frames start ... stop - 1 (None: to the end) and write the results."""
    detector = face_detector()
    boxes: list[np.ndarray] = []
    thumbs: list[np.ndarray] = []
    height, width = 0, 0
    with video.unchanged(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for i, image in enumerate(read_frames(video.path, start=start, stop=stop), start):
            thumbs.append(cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA))
            if i % STRIDE == 0:
                boxes.append(detector(image))
            height, width = image.shape[:2]
            tick()
    notes = sorted({str(w.message) for w in caught if issubclass(w.category, UserWarning)})
    write_npz(path, boxes=np.nan_to_num(np.array(boxes, np.float32).reshape(-1, MAX_FACES, 5), nan=-1),
              thumbs=np.array(thumbs, np.uint8).reshape(-1, THUMB, THUMB, 3), shape=np.array([height, width], np.int32),
              notes=np.frombuffer(json.dumps(notes).encode(), np.uint8))


def load_scan(step: Step) -> Scan:
    """Join the chunks of the first pass.

    Raises:
        UnusableClipError: no frame, or frames are missing between others.
    """
    parts = list(read_chunks(step))
    lengths = [len(part["thumbs"]) for part in parts]
    last = max((k for k, length in enumerate(lengths) if length), default=-1)
    if last < 0 or any(length != steps.CHUNK for length in lengths[:last]):
        read = f"{sum(lengths)} of them in {len(lengths)} chunks of {steps.CHUNK}, with gaps"
        raise UnusableClipError("a video whose frames can be read in sequence", read,
                                "The file is damaged: copy or record it again, or convert it to MP4.")
    boxes, thumbs = (np.concatenate([part[name] for part in parts]) for name in ("boxes", "thumbs"))
    boxes = np.where(boxes[..., 4:] < 0, np.float32(np.nan), boxes)
    height, width = parts[0]["shape"]
    notes = sorted({note for part in parts for note in json.loads(part["notes"].tobytes())})
    return Scan(boxes, np.arange(len(thumbs)) // STRIDE, thumbs, int(width), int(height), notes)


class FaceDetector:
    """Boxes of all faces in one image, from the short-range and the full-range detector together."""

    def __init__(self) -> None:
        detection = require_mediapipe().solutions.face_detection
        self._models = [QuietNet(detection.FaceDetection, model_selection=m, min_detection_confidence=0.5)
                        for m in (0, 1)]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 -> [MAX_FACES, 5] float32, by descending score, NaN where there is none."""
        height, width = image.shape[:2]
        scale = min(1.0, DETECT_SIDE / max(height, width))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        rows = []
        for model in self._models:
            for found in model.process(image).detections or ():
                box = found.location_data.relative_bounding_box
                rows.append((box.xmin * width, box.ymin * height, (box.xmin + box.width) * width,
                             (box.ymin + box.height) * height, found.score[0]))
        result = np.full((MAX_FACES, 5), np.nan, np.float32)
        kept: list[tuple] = []
        for row in sorted(rows, key=lambda r: -r[4]):
            if all(iou(row, other) < 0.3 for other in kept):
                kept.append(row)
        result[:len(kept[:MAX_FACES])] = kept[:MAX_FACES] or np.zeros((0, 5))
        return result


@lru_cache(1)
def face_detector() -> FaceDetector:
    """One for each process."""
    return FaceDetector()
