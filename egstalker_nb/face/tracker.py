"""The landmark network, following one face from image to image."""
from __future__ import annotations

import cv2
import numpy as np

from .nets import QuietNet, require_mediapipe

#: longest picture side that the landmark network is given, px
MESH_SIDE = 1024
#: frames that the landmark tracker sees before the first frame of a chunk, so that it has settled there
WARM_UP = 5


Region = tuple[int, int, int, int]


class FaceTracker:
    """The landmark network, following one face from picture to picture (also used to score rendered videos).

    Args:
        faces: how many faces it looks for; of several, the one nearest to the given box is taken.
    """

    def __init__(self, faces: int = 1):
        self._net = QuietNet(require_mediapipe().solutions.face_mesh.FaceMesh, static_image_mode=False,
                             max_num_faces=faces, refine_landmarks=True, min_detection_confidence=0.5,
                             min_tracking_confidence=0.5)

    def __call__(self, image: np.ndarray, roi: Region | None = None, box: np.ndarray | None = None
                 ) -> np.ndarray | None:
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
