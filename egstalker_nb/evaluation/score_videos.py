"""`egs.score`: any video against its reference, with the metrics that papers report."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import cv2
import numpy as np
import torch

from ..core.device import default_device
from ..core.errors import InputError
from ..core.files import shortened
from ..core.progress import Progress
from ..core.table import Table
from ..media.audio import load_audio
from ..media.rates import FPS
from ..media.video_reader import VideoInfo, probe, read_frames
from ..metrics.action_units import openface_error
from ..metrics.syncnet import sync_distance
from .face_crops import sync_crops
from .pair_metrics import Networks, PairMetrics, load_networks

#: score -> what is better, meaning
PAPER_METRICS = {
    "psnr": ("higher", "dB, whole frame; at most 100"),
    "ssim": ("higher", "whole frame"),
    "lpips": ("lower", "whole frame, AlexNet"),
    "psnr_face": ("higher", "dB, box around the reference's face"),
    "ssim_face": ("higher", "the same box"),
    "lpips_face": ("lower", "the same box"),
    "lmd_mouth": ("lower", "px at the reference's size, landmarks of the lips"),
    "lmd_face": ("lower", "px at the reference's size, all 478 landmarks"),
    "aue_upper": ("lower", "% of MediaPipe's geometry of brows and eyes, not OpenFace: not comparable with papers"),
    "aue_lower": ("lower", "the same for mouth, chin and nose"),
    "aue_upper_openface": ("lower", "mean absolute difference of OpenFace's intensities (0...5), upper face"),
    "aue_lower_openface": ("lower", "the same, lower face"),
    "csim": ("higher", "cosine of SFace descriptors; real: between the halves of the reference"),
    "lse_c": ("higher", "SyncNet's confidence, of the video with its own audio"),
    "lse_d": ("lower", "SyncNet's distance"),
    "sync_offset": ("near 0", "frames, SyncNet's best offset; papers ignore it"),
    "aperture_r": ("higher", "correlation of the mouth opening with the reference's"),
    "aperture_best_r": ("higher", "the highest within 10 frames of lag"),
    "aperture_lag": ("near 0", "frames, the lag at that correlation; positive: the video is late"),
    "wobble": ("as real", "px, jitter of rigid landmarks from frame to frame"),
    "faces": ("100", "% of the frames in which a face was found; the others count in whole-frame scores only"),
}
_ASPECT = 0.02      # relative difference of aspect ratios from which the videos show different parts
_ELSEWHERE = 0.1    # of the face's height, from which the faces lie in different places


@dataclass
class VideoScores:
    """Scores of a video against its reference, beside those of the reference itself; shows itself as a table.

    Attributes:
        video, reference: their names.
        frames: compared, at 25 fps.
        scores: name (see `PAPER_METRICS`) -> value; None: could not be measured.
        real: the same of the reference against itself.
        notes: what was adapted, and what is missing for other metrics, a line each.
    """

    video: str
    reference: str
    frames: int
    scores: dict[str, Optional[float]]
    real: dict[str, Optional[float]]
    notes: Sequence[str]

    @property
    def table(self) -> Table:
        """The metrics that were computed, with the real video's own value."""
        rows = [(name, self.scores[name], self.real.get(name), better, meaning)
                for name, (better, meaning) in PAPER_METRICS.items() if name in self.scores]
        return Table(("score", "video", "real video", "better", "meaning"), rows,
                     f"{self.video} against {self.reference}, {self.frames} frames at {FPS} fps. "
                     + " ".join(self.notes))

    def __str__(self) -> str:
        table = self.table
        table.caption = f"{self.video} against {self.reference}, {self.frames} frames at {FPS} fps"
        return "\n".join([str(table), *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def score(video: str | Path, reference: str | Path, weights: Optional[str | Path] = None,
          au: Optional[tuple[str | Path, str | Path]] = None, device: Optional[str | torch.device] = None
          ) -> VideoScores:
    """Score a video against the real one, frame i against frame i.

    Both are read at 25 fps from their first frames; the video is scaled to the reference's size; the longer one is
    cut. Nothing is aligned: `aperture_lag` and `sync_offset` tell of a shift in time, a note of one in the image.

    Args:
        video: a rendering, or any other video.
        reference: the real video.
        weights: folder of the weights that LPIPS, CSIM and SyncNet need (see docs/metrics.md); by default PyTorch's
            hub cache. What is missing is named in `notes`, and those metrics are left out.
        au: CSVs of OpenFace of the video and the reference, for the action-unit errors that papers report.
        device: cpu or cuda; by default cuda where available.

    Returns:
        the scores.

    Raises:
        InputError: a file is no video, the aspect ratios differ, no such folder of weights, damaged weights, or an
            unusable CSV.
    """
    networks = load_networks(weights, chosen := torch.device(device or default_device()))
    openface = None if au is None else openface_error(Path(au[0]), Path(au[1]))
    infos = probe(video), probe(reference)
    size = _common_size(*infos)
    metrics, frames = PairMetrics(networks, chosen), 0
    with Progress(min(info.frames_at(FPS) for info in infos), "score", "frame") as bar:
        for image, truth in zip(_frames(video, size), _frames(reference, size)):
            metrics.add(image, truth)
            frames += 1
            bar.update(1)
    scores, real = metrics.scores()
    notes = _adaptations(*infos, frames)
    notes += [metrics.note] if metrics.note else _face_notes(*metrics.landmarks)
    for path, info, points, row in zip((video, reference), infos, metrics.landmarks, (scores, real)):
        notes += _add_sync(row, networks, path, info, points, size)
    if openface is not None:
        scores |= dict(zip(("aue_upper_openface", "aue_lower_openface"), openface))
        real |= {"aue_upper_openface": 0.0, "aue_lower_openface": 0.0}
    return VideoScores(Path(video).name, Path(reference).name, frames, scores, real, [*notes, *networks.notes])


def _common_size(video: VideoInfo, reference: VideoInfo) -> tuple[int, int]:
    """Width and height of the reference, to which the video is scaled."""
    ratio = video.width / video.height / (reference.width / reference.height)
    if abs(ratio - 1) > _ASPECT:
        raise InputError("two videos of one aspect ratio",
                         f"{video.width} x {video.height} and {reference.width} x {reference.height}",
                         "Crop one to what the other shows; bars at the edges are part of a frame.")
    return reference.width, reference.height


def _frames(path: str | Path, size: tuple[int, int], stop: Optional[int] = None) -> Iterator[np.ndarray]:
    for frame in read_frames(path, FPS, stop=stop):
        if frame.shape[1::-1] == size:
            yield frame
        else:
            smaller = size[0] < frame.shape[1]
            yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _adaptations(video: VideoInfo, reference: VideoInfo, frames: int) -> list[str]:
    """What was done to make the two comparable, a line each."""
    notes = []
    if (video.width, video.height) != (reference.width, reference.height):
        notes.append(f"The video was scaled from {video.width} x {video.height} to the reference's "
                     f"{reference.width} x {reference.height}.")
    if max(abs(info.fps - FPS) for info in (video, reference)) > 0.01:
        notes.append(f"Both were read at {FPS} fps; the files have {video.fps:.4g} and {reference.fps:.4g}.")
    counts = video.frames_at(FPS), reference.frames_at(FPS)
    if counts[0] != counts[1]:
        notes.append(f"The first {frames} frames were compared, of {counts[0]} and {counts[1]}.")
    return notes


def _face_notes(video: np.ndarray, reference: np.ndarray) -> list[str]:
    notes = []
    for name, points in (("video", video), ("reference", reference)):
        lost = int(np.isnan(points).any((1, 2)).sum())
        if lost:
            notes.append(f"No face was found in {lost} of {len(points)} frames of the {name}.")
    with np.errstate(invalid="ignore"):
        shift = np.linalg.norm(video[..., :2].mean(1) - reference[..., :2].mean(1), axis=1)
        height = np.ptp(reference[..., 1], axis=1)
    known = np.isfinite(shift) & np.isfinite(height)
    if known.any() and np.median(shift[known] / height[known]) > _ELSEWHERE:
        notes.append("The faces lie in different places: scores of images and landmarks say little.")
    return notes


def _add_sync(row: dict[str, Any], networks: Networks, path: str | Path, info: VideoInfo, points: np.ndarray,
              size: tuple[int, int]) -> list[str]:
    """SyncNet's scores of one video, into its row; the reason where there are none."""
    name = f"LSE-C, LSE-D of '{shortened(path)}'"
    if networks.syncnet is None:
        return []
    if not info.has_audio:
        return [f"{name}: it has no audio."]
    if not len(points) or not np.isfinite(points).all((1, 2)).any():
        return [f"{name}: no face was found."]
    found = sync_distance(networks.syncnet, sync_crops(_frames(path, size, len(points)), points), load_audio(path))
    if found is None:
        return [f"{name}: it is shorter than six frames."]
    row |= {"lse_c": found.lse_c, "lse_d": found.lse_d, "sync_offset": float(found.offset)}
    return []
