"""Scores of a trained head against its clip: image quality, landmark distance, mouth opening."""
from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable, Iterator, Literal, Optional

import numpy as np
import torch

from ..core.errors import DatasetError, InputError, MissingPackageError
from ..core.files import make_folder, write_json
from ..core.progress import Progress
from ..core.reading import Unreadable, read_json
from ..core.table import Table
from ..data.frame_loader import Frames
from ..metrics import action_units, image_metrics, landmark_metrics
from ..metrics.perceptual import Perceptual, load_perceptual, perceptual_missing
from ..rendering.renderer import Renderer
from ..training.run import Run

#: score -> (unit, meaning)
SCORES = {
    "psnr_composite": ("dB", "composite (head over torso and background) against the ground truth, all pixels"),
    "ssim_composite": ("", "the same, structural similarity"),
    "psnr_frame": ("dB", "head over the clean background, without the torso: necessarily low"),
    "ssim_frame": ("", "the same, structural similarity"),
    "psnr_head": ("dB", "composite against the ground truth, weighted by the head mask"),
    "ssim_head": ("", "the same, structural similarity"),
    "psnr_lips": ("dB", "the same, within the lip rectangle"),
    "sharpness_lips": ("", "gradient energy of the composite over that of the ground truth, within the lip rectangle; "
                           "1: as sharp as the video"),
    "seam": ("", "error in a band around the border of the head mask over that inside; below 1.2: no visible seam"),
    "lpips_composite": ("", "composite against the ground truth, LPIPS (AlexNet); 0: equal"),
    "lmd_mouth": ("px", "distance of the mouth landmarks tracked on the rendering from those of the clip"),
    "lmd_face": ("px", "the same for all 478 landmarks"),
    "aue_upper": ("%", "error of brows and eyes by MediaPipe's geometry, not OpenFace: not comparable with papers"),
    "aue_lower": ("%", "the same for mouth, chin and nose"),
    "aperture_r": ("", "correlation of the mouth opening on the rendering with that of the clip"),
    "aperture_best_r": ("", "the highest correlation within 10 frames of lag"),
    "aperture_lag": ("frames", "the lag at that correlation; positive: the rendering is late"),
    "frames": ("", "frames scored"),
    "frames_tracked": ("", "rendered frames in which a face was found"),
}

#: image [S, S, 3] uint8 -> landmarks [478, 3] px, None without a face
LandmarkTracker = Callable[[np.ndarray], Optional[np.ndarray]]


class Scores(dict[str, Any]):
    """Scores by name; None: could not be measured, and `note` says why. Shows itself as a table."""

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, value as text, unit and meaning of each score."""
        def text(value: Any) -> str:
            return "-" if value is None else f"{value}" if isinstance(value, int) else f"{value:.3f}"

        return [(name, text(self.get(name)), unit, meaning) for name, (unit, meaning) in SCORES.items()]

    def __str__(self) -> str:
        head = f"{self['run']}, iteration {self['iteration']}, {self['split']} frames"
        lines = [f"{name:16} {value:>8} {unit:6} {meaning}" for name, value, unit, meaning in self.rows()]
        return "\n".join([head, *lines, *([self["note"]] if self.get("note") else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        caption = f"{self['run']}, iteration {self['iteration']}, {self['split']} frames. {self.get('note') or ''}"
        return Table(("score", "value", "unit", "meaning"), self.rows(), caption)._repr_html_()


def evaluate(run: Run, split: Literal["train", "val", "all"] = "val", iteration: Optional[int] = None, batch: int = 8,
             max_frames: Optional[int] = None, device: Optional[str | torch.device] = None) -> Scores:
    """Score a checkpoint on a split, and write `scores/<split>_<iteration>.json` in the run folder.

    Each frame is rendered with its own mouth coefficients, pose, eyes and torso, in the mean exposure of the clip. In
    validation frames the mouth is predicted from the audio; poses of head and torso are tracked on their images, and
    appearance is not fitted to them. Values are means over frames.

    Args:
        run: see `load_run`.
        split: which frames.
        iteration: of the checkpoint; by default the newest.
        batch: frames rendered together.
        max_frames: score only this many frames from the start (written as `<split>_<iteration>_first<n>.json`).
        device: cpu or cuda; by default cuda where available.

    Returns:
        the scores; without mediapipe, those of landmarks are missing, and without its weights LPIPS, which `note` says.
        `egs.score` has further metrics, and the real video's own values.

    Raises:
        InputError: batch or max_frames below 1.
        DatasetError: no checkpoint, dataset missing or changed, empty split.
    """
    ds, number = run.dataset, run.pick(iteration)
    if batch < 1 or (max_frames is not None and max_frames < 1):
        raise InputError("batch and max_frames of at least 1", f"batch={batch}, max_frames={max_frames}",
                         "Omit max_frames to score the whole split.")
    whole = list(ds.split(split))
    ids = whole[:max_frames]
    if not ids:
        raise DatasetError(f"frames in split '{split}'", "none", "Use a longer clip or another split.")
    renderer = Renderer.from_run(run, number, device)
    per_frame: dict[str, list[float]] = {}
    tracker, note = _tracker()
    missing = perceptual_missing("alexnet")
    lpips = load_perceptual("alexnet", device=renderer.device) if missing is None else None
    note = " ".join(filter(None, [note, missing and f"LPIPS: {missing}"]))
    tracked: list[Optional[np.ndarray]] = []
    with Progress(len(ids), f"evaluate {split}", "frame") as bar:
        for images in _scored_images(renderer, ids, batch, per_frame, lpips):
            if tracker is not None:
                tracked += [tracker(image) for image in images]
            bar.update(len(images))
    scores = Scores(run=run.root.name, split=split, iteration=number, frames=len(ids), note=note,
                    **{k: float(np.mean(v)) for k, v in per_frame.items()})
    if tracker is not None:
        found = _landmark_scores(tracked, ds.landmarks[ids], ds.aperture[ids])
        scores.update(found, note=" ".join(filter(None, [found.get("note"), note])))
    folder = make_folder(run.root / "scores")
    part = "" if len(ids) == len(whole) else f"_first{len(ids)}"
    write_json(folder / f"{split}_{number}{part}.json", _finite(scores))
    return scores


def _finite(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores with None in place of NaN, which JSON lacks."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in scores.items()}


def _scored_images(renderer: Renderer, ids: list[int], batch: int, per_frame: dict[str, list[float]],
                   lpips: Optional[Perceptual] = None) -> Iterator[np.ndarray]:
    """Render frames `ids` in batches and append their image scores to `per_frame`.

    Yields:
        composites [B, S, S, 3] uint8.
    """
    ds, device = renderer.ds, renderer.device
    frames = Frames(ds, ids, device).for_head(renderer.head)
    torso = renderer.head.torso
    for first in range(0, len(ids), batch):
        given = frames.batch(ids[first:first + batch])
        splats, alpha = renderer.batch(frames.conditions(given["ids"]))
        composite = (splats + (1 - alpha) * given["background"]).clamp(0, 1)
        # quantised to 8 bits, as in a video
        composite = (composite * 255).round() / 255
        plate = torso.scene(torso.codes[given["ids"]]).permute(0, 2, 3, 1)
        head_only = (splats + (1 - alpha) * plate).clamp(0, 1)
        for image, truth, lips in zip(composite, given["frame"], given["lips"]):
            detail, own = (float(image_metrics.gradient_energy(x, lips)) for x in (image, truth))
            per_frame.setdefault("sharpness_lips", []).append(detail / max(own, 1e-9))
            per_frame.setdefault("psnr_lips", []).append(float(image_metrics.psnr(image, truth, lips)))
        for name, images, mask in (("composite", composite, None), ("frame", head_only, None),
                                   ("head", composite, given["head"])):
            for i, (image, truth) in enumerate(zip(images, given["frame"])):
                weight = None if mask is None else mask[i]
                per_frame.setdefault(f"psnr_{name}", []).append(float(image_metrics.psnr(image, truth, weight)))
                per_frame.setdefault(f"ssim_{name}", []).append(float(image_metrics.ssim(image, truth, weight)))
        per_frame.setdefault("seam", []).extend(image_metrics.seam(composite, given["frame"], given["head"]).tolist())
        if lpips is not None:
            with torch.inference_mode():
                per_frame.setdefault("lpips_composite", []).extend(lpips(composite, given["frame"]).tolist())
        yield (composite * 255).round().byte().cpu().numpy()


def _tracker() -> tuple[Optional[LandmarkTracker], str]:
    """A landmark tracker and "", or None and the reason."""
    from ..face.tracker import FaceTracker

    try:
        return FaceTracker(), ""
    except MissingPackageError:
        return None, "Landmark and lip-sync scores need mediapipe, which is not installed here."


def _landmark_scores(tracked: list[Optional[np.ndarray]], truth: np.ndarray, aperture: np.ndarray) -> dict[str, Any]:
    """Scores of the landmarks on the rendering.

    Args:
        tracked: [478, 3] px of each rendered frame, None without a face.
        truth: [F, 478, 3] px, those of the clip.
        aperture: [F] mouth opening in the clip.
    """
    found = np.array([t is not None for t in tracked])
    scores: dict[str, Any] = {"frames_tracked": int(found.sum())}
    if not found.any():
        return {**scores, "note": "No face was found in any rendered frame."}
    rendered, truth = np.stack([t for t in tracked if t is not None]), truth[found]
    scores["lmd_mouth"] = float(landmark_metrics.landmark_distance(rendered, truth, "mouth"))
    scores["lmd_face"] = float(landmark_metrics.landmark_distance(rendered, truth, "face"))
    scores["aue_upper"], scores["aue_lower"] = action_units.geometric_error(rendered, truth)
    opening = np.interp(np.arange(len(found)), np.flatnonzero(found), landmark_metrics.aperture(rendered))
    r, best, lag = landmark_metrics.correlation_and_lag(opening, aperture)
    return {**scores, "aperture_r": float(r), "aperture_best_r": float(best),
            "aperture_lag": None if not np.isfinite(lag) else int(lag)}


def saved_scores(run: Run, split: str) -> dict[int, Scores]:
    """Scores of the newest checkpoint that `evaluate` has written, by number of frames."""
    stem = f"{split}_{run.pick()}"
    files = [p for p in (run.root / "scores").glob(f"{stem}*.json") if p.stem == stem or p.stem.startswith(f"{stem}_")]
    scores = []
    for path in files:
        with suppress(Unreadable):  # damaged ones are computed again
            scores.append(Scores(read_json(path, frames=int)))
    return {s["frames"]: s for s in scores}
