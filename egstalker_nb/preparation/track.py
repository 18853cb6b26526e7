"""Where the face is: a first pass finds faces, black frames and cuts, a second one the 478 landmarks."""
from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import cv2
import numpy as np

from ..errors import InputError, MissingPackageError
from ..progress import Progress
from ..video import read_frames
from . import steps
from .face import NUM_LANDMARKS
from .steps import Step, missing_chunks, quiet_frames, read_npz, write_npz

#: a face detector looks at every fifth frame
STRIDE = 5
#: longest picture side that the detector and the landmark network are given, px
DETECT_SIDE, MESH_SIDE = 640, 1024
MAX_FACES = 4
#: colours of a thumbnail, on which cuts and black frames are seen
THUMB = 16
#: frames that the landmark tracker sees before the first frame of a chunk, so that it has settled there
WARM_UP = 5


def require_mediapipe():
    """Import MediaPipe, or raise MissingPackageError with the command that installs it."""
    try:
        import mediapipe
    except ImportError as error:
        raise MissingPackageError("MediaPipe, which finds the face", "no package 'mediapipe'",
                                  "Prepare data on a machine with: pip install mediapipe==0.10.21") from error
    return mediapipe


class QuietNet:
    """A MediaPipe network whose C++ part does not write its notes to stderr, where they would land in notebooks.

    Args:
        solution: a class of `mediapipe.solutions`. options: its arguments.
    """

    def __init__(self, solution: type, **options: Any):
        with _silent_stderr():
            self._net = solution(**options)
            # its threads write until the first answer is there; an empty picture leaves no trace in the tracker
            self._net.process(np.zeros((64, 64, 3), np.uint8))

    def process(self, image: np.ndarray) -> Any:
        """The network's answer to a picture [H, W, 3] uint8 RGB."""
        with _silent_stderr():
            return self._net.process(image)

    def close(self) -> None:
        self._net.close()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Point file descriptor 2 elsewhere: the notes do not pass through Python's sys.stderr."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclass
class Scan:
    """What the first pass found.

    Attributes:
        boxes: [M, MAX_FACES, 5] float32, faces on every fifth frame: x0, y0, x1, y1 (source px), score; NaN where none.
        brightness: [N] float32, 0..1. change: [N] float32, mean colour change to the frame before, 0..1.
        width, height: source px. notes: what the reader said about damage.
    """

    boxes: np.ndarray
    brightness: np.ndarray
    change: np.ndarray
    width: int
    height: int
    notes: list[str] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return len(self.brightness)


def scan(step: Step, video: Path, expected: int) -> None:
    """First pass over the clip: writes the chunks that `load_scan` reads.

    Args:
        step: where to write. video: the clip. expected: about how many frames it has (for the progress line).
    """
    done = len(list(step.folder.glob("*.npz")))
    faces = _FaceFinder()
    rows = _ScanRows()
    previous, index = None, done * steps.CHUNK
    # one frame earlier, for the change into the first one
    start = max(index - 1, 0)
    with Progress(expected, "find face", "frame", initial=index) as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for i, image in enumerate(read_frames(video, start=start), start):
            small = cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
            if i >= index:
                rows.add(small, previous, faces(image) if i % STRIDE == 0 else None, image.shape)
                if i % steps.CHUNK == steps.CHUNK - 1:
                    rows.write(step.chunk(i // steps.CHUNK))
                bar.update()
            previous = small
    if len(rows) or not done:
        rows.write(step.chunk(i // steps.CHUNK))
    notes = {str(w.message) for w in caught if issubclass(w.category, UserWarning)}
    (step.folder / "notes.txt").write_text("\n".join(sorted(notes)), encoding="utf-8")


class _ScanRows:
    """Per-frame results of the first pass that are not yet written."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.brightness, self.change, self.boxes, self.shape = [], [], [], (0, 0)

    def __len__(self) -> int:
        return len(self.brightness)

    def add(self, small, previous, boxes, shape) -> None:
        self.brightness.append(float(small.mean()))
        self.change.append(0.0 if previous is None else float(np.abs(small - previous).mean()))
        if boxes is not None:
            self.boxes.append(boxes)
        self.shape = shape[:2]

    def write(self, path: Path) -> None:
        boxes = np.stack(self.boxes) if self.boxes else np.zeros((0, MAX_FACES, 5), np.float32)
        write_npz(path, boxes=boxes, brightness=np.float32(self.brightness), change=np.float32(self.change),
                  shape=np.int32([self.shape]))
        self._clear()


class _FaceFinder:
    """Boxes of all faces in one picture, from the near and the far detector together."""

    def __init__(self) -> None:
        detection = require_mediapipe().solutions.face_detection
        self._models = [QuietNet(detection.FaceDetection, model_selection=m, min_detection_confidence=0.5)
                        for m in (0, 1)]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 -> [MAX_FACES, 5] float32, best first, NaN where there is none."""
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
            if all(overlap(row, other) < 0.3 for other in kept):
                kept.append(row)
        result[:len(kept[:MAX_FACES])] = kept[:MAX_FACES] or np.zeros((0, 5))
        return result


def overlap(a, b) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1, ...)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def load_scan(step: Step) -> Scan:
    parts = [read_npz(path) for path in sorted(step.folder.glob("*.npz"))]
    height, width = parts[0]["shape"][0]
    notes = (step.folder / "notes.txt").read_text(encoding="utf-8").splitlines()
    return Scan(*(np.concatenate([p[name] for p in parts]) for name in ("boxes", "brightness", "change")),
                int(width), int(height), notes)


def main_face(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The face that the clip is about: the one that is large for long, followed from detection to detection.

    Args:
        boxes: [M, MAX_FACES, 5] detections, NaN where none.

    Returns:
        main [M, 4] float32 (NaN where it is not seen) and others [M] int, how many further faces of at least a tenth
        of its area there are.
    """
    tracks: list[dict[int, np.ndarray]] = []
    for m, faces in enumerate(boxes):
        free = [t for t in tracks if m - max(t) <= 10]
        for face in faces[~np.isnan(faces[:, 0])]:
            near = max(free, key=lambda t: overlap(face, t[max(t)]), default=None)
            if near is not None and overlap(face, near[max(near)]) > 0.1:
                near[m] = face
                free = [t for t in free if t is not near]
            else:
                tracks.append({m: face})
    main = np.full((len(boxes), 4), np.nan, np.float32)
    # later tracks fill what longer ones leave open: the same person again after a turn or a cut
    for track in sorted(tracks, key=lambda t: -sum(np.sqrt((f[2] - f[0]) * (f[3] - f[1])) * f[4] for f in t.values())):
        for m, face in track.items():
            if np.isnan(main[m, 0]):
                main[m] = face[:4]
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    own = (main[:, 2] - main[:, 0]) * (main[:, 3] - main[:, 1])
    with np.errstate(invalid="ignore"):
        others = (area >= 0.1 * own[:, None]).sum(axis=1) - 1
    return main, np.maximum(others, 0)


def track(step: Step, video: Path, seen: Scan) -> None:
    """Second pass: landmarks of the main face in source px, in chunks that start the tracker afresh.

    Each chunk holds landmarks [n, 478, 3] float32 (z in the same scale) and found [n] bool.
    """
    main, others = main_face(seen.boxes)
    if np.isnan(main[:, 0]).all():
        raise InputError("a face in the clip", "none in any frame",
                         "Use a clip that shows one person's face from the front, well lit and not too small.")
    todo = missing_chunks(step, seen.num_frames)
    done = seen.num_frames - sum(len(ids) for _, ids in todo)
    with Progress(seen.num_frames, "track face", "frame", initial=done) as bar:
        frames, position = None, -1
        for number, ids in todo:
            part = slice(ids.start // STRIDE, -(-ids.stop // STRIDE))
            roi, rivals = _region(main[part], others[part], seen)
            start = max(ids.start - WARM_UP, 0)
            if position != start:
                frames, position = quiet_frames(video, start), start
            landmarks = np.zeros((len(ids), NUM_LANDMARKS, 3), np.float32)
            found = np.zeros(len(ids), bool)
            mesh = FaceTracker(faces=2 if rivals else 1)
            for i in range(start, ids.stop):
                image = next(frames)
                position += 1
                # before the clip's first frame there are none to warm up with: it is shown a few times
                for _ in range(WARM_UP if i == 0 else 0):
                    mesh(image, roi, main[0])
                points = mesh(image, roi, main[i // STRIDE])
                if i >= ids.start:
                    if points is not None:
                        landmarks[i - ids.start], found[i - ids.start] = points, True
                    bar.update()
            mesh.close()
            write_npz(step.chunk(number), landmarks=landmarks, found=found)


def _region(main: np.ndarray, others: np.ndarray, seen: Scan) -> tuple[tuple[int, int, int, int], bool]:
    """Part of the source that the landmark network looks at during a chunk, and whether another face is near."""
    main = main[~np.isnan(main[:, 0])]
    if len(main) == 0:
        return (0, 0, seen.width, seen.height), bool(others.any())
    low, high = main[:, :2].min(axis=0), main[:, 2:].max(axis=0)
    reach = float((main[:, 2:] - main[:, :2]).max())
    x0, y0 = np.maximum(np.floor(low - reach), 0).astype(int)
    x1, y1 = np.ceil(high + reach).astype(int)
    return (int(x0), int(y0), min(int(x1), seen.width), min(int(y1), seen.height)), bool(others.any())


class FaceTracker:
    """The landmark network, following one face from picture to picture (also used to score rendered videos).

    Args:
        faces: how many faces it looks for; of several, the one nearest to the given box is taken.
    """

    def __init__(self, faces: int = 1):
        self._net = QuietNet(require_mediapipe().solutions.face_mesh.FaceMesh, static_image_mode=False,
                             max_num_faces=faces, refine_landmarks=True, min_detection_confidence=0.5,
                             min_tracking_confidence=0.5)

    def __call__(self, image: np.ndarray, roi: tuple[int, int, int, int] | None = None,
                 box: np.ndarray | None = None) -> np.ndarray | None:
        """Landmarks of the next picture.

        Args:
            image: [H, W, 3] uint8 RGB. roi: x0, y0, x1, y1 px, the part to look at; default: all of it.
            box: [4] px, where the face was detected (NaN or None: anywhere).

        Returns:
            [478, 3] float32, x and y in px of the picture, z in the same scale; None without a face.
        """
        x0, y0, x1, y1 = roi or (0, 0, image.shape[1], image.shape[0])
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        scale = min(1.0, MESH_SIDE / max(part.shape[:2]))
        if scale < 1:
            part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        size = np.float32([x1 - x0, y1 - y0, x1 - x0])
        points = [np.float32([(p.x, p.y, p.z) for p in face.landmark]) * size + np.float32([x0, y0, 0])
                  for face in self._net.process(part).multi_face_landmarks or ()]
        if not points:
            return None
        if box is None or np.isnan(box[0]):
            return points[0]
        middle = (box[:2] + box[2:4]) / 2
        away = [float(np.linalg.norm(p[:, :2].mean(axis=0) - middle)) for p in points]
        best = int(np.argmin(away))
        return points[best] if away[best] < (box[2:4] - box[:2]).max() else None

    def close(self) -> None:
        self._net.close()
