"""MediaPipe's landmark tracker."""
from __future__ import annotations

import cv2
import numpy as np

from .nets import QuietNet, require_mediapipe

#: larger images are scaled down to this longest side, px
MESH_SIDE = 1024
#: frames to track before the first frame of a chunk, until the tracker's smoothing has settled
WARM_UP = 5

Roi = tuple[int, int, int, int]  # x0, y0, x1, y1 px


class FaceTracker:
    """Tracks the landmarks of one face through consecutive frames (also used to evaluate rendered videos).

    Args:
        faces: how many faces to detect; of several, the one nearest to the given box is used.
    """

    def __init__(self, faces: int = 1):
        self._net = QuietNet(require_mediapipe().solutions.face_mesh.FaceMesh, static_image_mode=False,
                             max_num_faces=faces, refine_landmarks=True, min_detection_confidence=0.5,
                             min_tracking_confidence=0.5)

    def __call__(self, image: np.ndarray, roi: Roi | None = None, box: np.ndarray | None = None
                 ) -> np.ndarray | None:
        """Landmarks in the next frame.

        Args:
            image: [H, W, 3] uint8 RGB.
            roi: x0, y0, x1, y1 px, the part of the image to search; None: all of it.
            box: [4] x0, y0, x1, y1 px, where the face was detected; None or NaN: anywhere.

        Returns:
            [478, 3] float32, x and y in px of the image, z in the same scale; None without a face.
        """
        x0, y0, x1, y1 = roi or (0, 0, image.shape[1], image.shape[0])
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        scale = min(1.0, MESH_SIDE / max(part.shape[:2]))
        if scale < 1:
            part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        size, origin = np.array([x1 - x0, y1 - y0, x1 - x0], np.float32), np.array([x0, y0, 0], np.float32)
        faces = [np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32) * size + origin
                 for face in self._net.process(part).multi_face_landmarks or ()]
        if not faces:
            return None
        if box is None or np.isnan(box[0]):
            return faces[0]
        centre = (box[:2] + box[2:4]) / 2
        distances = [float(np.linalg.norm(points[:, :2].mean(axis=0) - centre)) for points in faces]
        best = int(np.argmin(distances))
        return faces[best] if distances[best] < (box[2:4] - box[:2]).max() else None

    def close(self) -> None:
        """Release the network."""
        self._net.close()
