"""Scores of a trained head: picture quality, landmarks, lip sync."""
from __future__ import annotations

import json
from typing import Any, Iterator, Literal, Optional

import numpy as np
import torch

from ..core.errors import DatasetError, InputError, MissingPackageError
from ..core.progress import Progress
from ..data.frame_loader import Frames
from ..metrics import image_metrics, landmark_metrics
from ..rendering.renderer import Renderer
from ..training import checkpoint
from ..training.run import Run

#: score -> (unit, what it is)
SCORES = {
    "psnr_composite": ("dB", "the video frame (splats over torso and plate) against the camera's frame, all pixels"),
    "ssim_composite": ("", "the same, structural similarity"),
    "psnr_frame": ("dB", "splats over the clean plate, without the torso: low by nature"),
    "ssim_frame": ("", "the same, structural similarity"),
    "psnr_head": ("dB", "composite against the camera's frame, weighed by the head mask"),
    "ssim_head": ("", "the same, structural similarity"),
    "seam": ("", "error in a band around the edge of the head mask over that inside the head: below 1.2 no seam shows"),
    "lmd_mouth": ("px", "distance of mouth landmarks, tracked on the render, from those of the clip"),
    "lmd_face": ("px", "the same for all 478 landmarks"),
    "aperture_r": ("", "correlation of the mouth opening on the render with the clip's"),
    "aperture_best_r": ("", "the highest correlation within 10 frames of lag"),
    "aperture_lag": ("frames", "the lag at that correlation; positive: the render is late"),
    "frames": ("", "frames scored"),
    "frames_tracked": ("", "frames of the render in which a face was found"),
}


class Scores(dict):
    """Scores by name (None: could not be measured, `note` says why); prints as a table."""

    def rows(self) -> list[tuple[str, str, str, str]]:
        def text(value: Any) -> str:
            return "-" if value is None else f"{value}" if isinstance(value, int) else f"{value:.3f}"

        return [(name, text(self.get(name)), unit, what) for name, (unit, what) in SCORES.items()]

    def __str__(self) -> str:
        head = f"{self['run']}, iteration {self['iteration']}, {self['split']} frames"
        lines = [f"{name:16} {value:>8} {unit:6} {what}" for name, value, unit, what in self.rows()]
        return "\n".join([head, *lines, *([self["note"]] if self.get("note") else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><td>{n}</td><td style='text-align:right'>{v}</td><td>{u}</td>"
                       f"<td style='text-align:left'>{w}</td></tr>" for n, v, u, w in self.rows())
        caption = f"{self['run']}, iteration {self['iteration']}, {self['split']} frames. {self.get('note') or ''}"
        names = "".join(f"<th>{name}</th>" for name in ("score", "value", "unit", "what"))
        return f"<table><caption>{caption}</caption><tr>{names}</tr>{body}</table>"


def evaluate(run: Run, split: Literal["train", "val", "all"] = "val", iteration: Optional[int] = None, batch: int = 8,
             max_frames: Optional[int] = None, device: Optional[str | torch.device] = None) -> Scores:
    """Score a checkpoint on a split, and write `scores/<split>_<iteration>.json` in the run folder.

    Each frame is rendered with its own sound, pose, eyes and torso. Values are means over frames.

    Args:
        run: see `load_run`. split: which frames. iteration: default the newest checkpoint. batch: frames at a time.
        max_frames: score only the first so many frames (written as `<split>_<iteration>_first<n>.json`).

    Raises:
        DatasetError: no checkpoint, dataset gone or changed, empty split.
    """
    ds, number = run.dataset, run.pick(iteration)
    if batch < 1 or (max_frames is not None and max_frames < 1):
        raise InputError("batch and max_frames of at least 1", f"batch={batch}, max_frames={max_frames}",
                         "Leave max_frames out to score the whole split.")
    whole = list(ds.split(split))
    ids = whole[:max_frames]
    if not ids:
        raise DatasetError(f"frames in split '{split}'", "none", "Use a longer clip or another split.")
    renderer = Renderer.from_run(run, number, device)
    collected: dict[str, list[float]] = {}
    tracker, note = _tracker()
    tracked = []
    with Progress(len(ids), f"evaluate {split}", "frame") as bar:
        for chunk_ids, pictures in _rendered(renderer, ids, batch, collected):
            if tracker is not None:
                tracked += [tracker(p) for p in pictures]
            bar.update(len(chunk_ids))
    scores = Scores(run=run.root.name, split=split, iteration=number, frames=len(ids), note=note,
                    **{k: float(np.mean(v)) for k, v in collected.items()})
    if tracker is not None:
        scores.update(_landmark_scores(tracked, ds.landmarks[ids], ds.aperture[ids]))
    folder = run.root / "scores"
    folder.mkdir(exist_ok=True)
    part = "" if len(ids) == len(whole) else f"_first{len(ids)}"
    checkpoint.write_text_atomic(folder / f"{split}_{number}{part}.json", json.dumps(_finite(scores), indent=1))
    return scores


def _finite(scores: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: such scores become None."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in scores.items()}


def _rendered(renderer: Renderer, ids: list[int], batch: int, collected: dict[str, list[float]]
              ) -> Iterator[tuple[list[int], np.ndarray]]:
    """Render and score the pictures of `ids`, batch by batch."""
    ds, device = renderer.ds, renderer.device
    frames = Frames(ds, ids, device).for_head(renderer.head)
    plate = torch.from_numpy(ds.plate).to(device).float() / 255
    for begin in range(0, len(ids), batch):
        chunk = ids[begin:begin + batch]
        given = frames.batch(chunk)
        splats, alpha = renderer.batch(frames.conditions(given["ids"]))
        composite = (splats + (1 - alpha) * given["background"]).clamp(0, 1)
        # the 8 bits of a video, so that scores hold for what a viewer sees
        composite = (composite * 255).round() / 255
        alone = (splats + (1 - alpha) * plate).clamp(0, 1)
        for name, picture, mask in (("composite", composite, None), ("frame", alone, None),
                                    ("head", composite, given["head"])):
            for i in range(len(chunk)):
                pair, m = (picture[i], given["frame"][i]), None if mask is None else mask[i]
                collected.setdefault(f"psnr_{name}", []).append(float(image_metrics.psnr(*pair, m)))
                collected.setdefault(f"ssim_{name}", []).append(float(image_metrics.ssim(*pair, m)))
        collected.setdefault("seam", []).extend(image_metrics.seam(composite, given["frame"], given["head"]).tolist())
        yield chunk, (composite * 255).round().byte().cpu().numpy()


def _tracker():
    """(function picture -> landmarks [478, 3] or None, "") or (None, why there is none)."""
    from ..face.tracker import FaceTracker

    try:
        return FaceTracker(), ""
    except MissingPackageError:
        return None, "Landmark and lip-sync scores need mediapipe, which is not installed here."


def _landmark_scores(tracked: list[Optional[np.ndarray]], truth: np.ndarray, aperture: np.ndarray) -> dict[str, Any]:
    found = np.array([t is not None for t in tracked])
    scores: dict[str, Any] = {"frames_tracked": int(found.sum())}
    if not found.any():
        return {**scores, "note": "No face was found in any rendered frame."}
    shown, truth = np.stack([t for t in tracked if t is not None]), truth[found]
    scores["lmd_mouth"] = float(landmark_metrics.landmark_distance(shown, truth, "mouth"))
    scores["lmd_face"] = float(landmark_metrics.landmark_distance(shown, truth, "face"))
    opening = np.interp(np.arange(len(found)), np.flatnonzero(found), landmark_metrics.aperture(shown))
    r, best, lag = landmark_metrics.correlation_and_lag(opening, aperture)
    return {**scores, "aperture_r": float(r), "aperture_best_r": float(best),
            "aperture_lag": None if not np.isfinite(lag) else int(lag)}


def saved_scores(run: Run, split: str) -> dict[int, Scores]:
    """Number of frames -> scores of the newest checkpoint that `evaluate` wrote before."""
    stem = f"{split}_{run.pick()}"
    files = [p for p in (run.root / "scores").glob(f"{stem}*.json") if p.stem == stem or p.stem.startswith(f"{stem}_")]
    return {s["frames"]: s for s in (Scores(json.loads(p.read_text(encoding="utf-8"))) for p in files)}
