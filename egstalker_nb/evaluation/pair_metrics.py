"""The metrics of papers on pairs of frames, and which of them can be computed here."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from ..core.errors import MissingPackageError
from ..face.landmarks import NUM_LANDMARKS, RIGID
from ..metrics import action_units, image_metrics, landmark_metrics
from ..metrics.identity import Describe, load_sface
from ..metrics.perceptual import MIN_SIDE, Perceptual, load_perceptual, perceptual_missing
from ..metrics.syncnet import SyncNet, load_syncnet
from ..metrics.weights import how_to_get, weight_path
from .face_crops import face_box

IDENTITY_EVERY = 5  # frames from one descriptor to the next


@dataclass
class Networks:
    """The networks that metrics need, those whose weights are here.

    Attributes:
        lpips, describe, syncnet: None where `missing` says what is needed.
        missing: name of a metric -> what it needs and where to get it, in one line.
    """

    lpips: Optional[Perceptual] = None
    describe: Optional[Describe] = None
    syncnet: Optional[SyncNet] = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """`missing` as lines."""
        return [f"{name}: {need}" for name, need in self.missing.items()]


def load_networks(folder: Optional[str | Path] = None, device: str | torch.device = "cpu") -> Networks:
    """Load what is there; nothing is downloaded, and nothing takes the place of what is missing.

    Args:
        folder: of weights; by default PyTorch's hub cache, see `metrics.weights`.
        device: cpu or cuda.

    Raises:
        InputError: no such folder, or a file in it is damaged.
    """
    networks = Networks()
    need = perceptual_missing("alexnet", folder)
    if need is None:
        networks.lpips = load_perceptual("alexnet", folder, device)
    else:
        networks.missing["LPIPS"] = need
    if weight_path("sface", folder):
        networks.describe = load_sface(folder)
    else:
        networks.missing["CSIM"] = how_to_get("sface", folder)
    if weight_path("syncnet", folder):
        networks.syncnet = load_syncnet(folder, device)
    else:
        networks.missing["LSE-C, LSE-D"] = how_to_get("syncnet", folder)
    return networks


class PairMetrics:
    """Collects the scores of a video against its reference, frame by frame.

    Args:
        networks: see `load_networks`.
        device: cpu or cuda.

    Attributes:
        landmarks: those of the video and of the reference, [N, 478, 3] px; NaN where no face was found.
        note: why landmarks are missing; "" if they are not.
    """

    def __init__(self, networks: Networks, device: str | torch.device = "cpu"):
        from ..face.tracker import WARM_UP, FaceTracker

        self.networks, self.device, self.note = networks, device, ""
        self._repeats = 1 + WARM_UP  # of the first frame, until the trackers' smoothing has settled
        self._per_frame: dict[str, list[float]] = {}
        self._landmarks: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        self._identity: list[tuple[Optional[np.ndarray], Optional[np.ndarray]]] = []
        try:
            self._trackers: Optional[tuple[FaceTracker, FaceTracker]] = (FaceTracker(), FaceTracker())
        except MissingPackageError:
            self._trackers, self.note = None, "Everything about the face needs mediapipe, which is not installed here."

    def add(self, image: np.ndarray, truth: np.ndarray) -> None:
        """The next frame of both, [H, W, 3] uint8 of equal size."""
        pair = torch.from_numpy(np.stack([image, truth])).to(self.device).float() / 255
        self._image_scores("", pair)
        if self._trackers is None:
            return
        for _ in range(self._repeats):
            found = [tracker(x) for tracker, x in zip(self._trackers, (image, truth))]
        self._repeats = 1
        for kept, points in zip(self._landmarks, found):
            kept.append(np.full((NUM_LANDMARKS, 3), np.nan, np.float32) if points is None else points)
        if found[1] is not None:
            x0, y0, x1, y1 = face_box(found[1], image.shape[1], image.shape[0])
            self._image_scores("_face", pair[:, y0:y1, x0:x1])
        describe = self.networks.describe
        if describe is not None and (len(self._landmarks[0]) - 1) % IDENTITY_EVERY == 0:
            a, b = (None if p is None else describe(x, p) for x, p in zip((image, truth), found))
            self._identity.append((a, b))

    def _image_scores(self, part: str, pair: torch.Tensor) -> None:
        if 0 in pair.shape:
            return
        scores = {"psnr": image_metrics.psnr(pair[0], pair[1]), "ssim": image_metrics.ssim(pair[0], pair[1])}
        if self.networks.lpips is not None and min(pair.shape[1:3]) >= MIN_SIDE:
            with torch.inference_mode():
                scores["lpips"] = self.networks.lpips(pair[:1], pair[1:])[0]
        for name, value in scores.items():
            self._per_frame.setdefault(name + part, []).append(float(value))

    @property
    def landmarks(self) -> tuple[np.ndarray, np.ndarray]:
        video, reference = (np.array(x, np.float32).reshape(-1, NUM_LANDMARKS, 3) for x in self._landmarks)
        return video, reference

    def scores(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Scores by name, of the video and of the reference itself; None: could not be measured."""
        video = {name: float(np.mean(values)) for name, values in self._per_frame.items()}
        perfect = {"psnr": 100.0, "ssim": 1.0, "lpips": 0.0}  # of a video against itself, see `image_metrics.psnr`
        real: dict[str, Any] = {name: perfect[name.removesuffix("_face")] for name in video}
        if self._trackers is not None:
            a, b = self.landmarks
            video |= self._landmark_scores(a, b)
            real |= self._landmark_scores(b, b)
        if self._identity:
            video["csim"] = _mean_cosine(self._identity)
            own = [truth for _, truth in self._identity]
            half = len(own) // 2
            real["csim"] = _mean_cosine(list(zip(own[half:], own[:len(own) - half]))) if half else float("nan")
        return _known(video), _known(real)

    def _landmark_scores(self, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
        found = np.isfinite(a).all((1, 2))
        r, best, lag = landmark_metrics.correlation_and_lag(landmark_metrics.aperture(a), landmark_metrics.aperture(b))
        upper, lower = action_units.geometric_error(a, b)
        return {"lmd_mouth": landmark_metrics.landmark_distance(a, b, "mouth"),
                "lmd_face": landmark_metrics.landmark_distance(a, b, "face"), "aue_upper": upper, "aue_lower": lower,
                "aperture_r": r, "aperture_best_r": best, "aperture_lag": lag,
                "wobble": landmark_metrics.temporal_jitter(a[:, RIGID]),
                "faces": 100 * float(found.mean()) if len(found) else float("nan")}


def _mean_cosine(pairs: list[tuple[Optional[np.ndarray], Optional[np.ndarray]]]) -> float:
    cosines = [float(a @ b) for a, b in pairs if a is not None and b is not None]
    return float(np.mean(cosines)) if cosines else float("nan")


def _known(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: value if np.isfinite(value) else None for name, value in scores.items()}
