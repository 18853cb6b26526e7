"""How well a clip will train: measures of a prepared dataset, and plain warnings."""
from __future__ import annotations

import numpy as np

from ..silence import INAUDIBLE_DB, QUIET_DB, block_power, speech_level
from .face import CHIN, FOREHEAD, OVAL
from .track import Scan, main_face

FPS = 25.0
#: mean colour change of a 16 x 16 thumbnail that counts as a cut, if it also stands out from its surroundings
CUT, CUT_RATIO = 0.08, 5.0
BLACK = 0.03
SILENT_DBFS = -45.0
#: face height in the video (px) that is too small, and enlargement that is too much
SMALL_FACE, ENLARGED = 90, 1.6


def find_cuts(change: np.ndarray) -> np.ndarray:
    """Numbers of the frames that begin a new shot.

    Args:
        change: [N] mean colour change to the frame before, 0..1.
    """
    padded = np.pad(change, 5, mode="reflect" if len(change) > 5 else "edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 11), axis=1)
    return np.flatnonzero((change > CUT) & (change > CUT_RATIO * (around + 1e-3)))


def euler(w2c: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of the head in degrees: [N, 4, 4] -> [N, 3].

    Positive: the face turns to the image's right, downwards, and its top tilts to the image's right.
    """
    r = w2c[:, :3, :3].astype(np.float64)
    # the face looks along -z of the head frame; in the camera that is minus the third column
    yaw = np.arctan2(-r[:, 0, 2], r[:, 2, 2])
    pitch = np.arctan2(-r[:, 1, 2], np.hypot(r[:, 0, 2], r[:, 2, 2]))
    roll = np.arctan2(r[:, 1, 0], r[:, 0, 0])
    return np.degrees(np.unwrap(np.stack([yaw, pitch, roll], axis=1), axis=0))


def loudness(wave: np.ndarray) -> dict[str, float]:
    """Level of speech in dBFS (rms of the louder half of 20 ms blocks) and the share of silent blocks.

    Args:
        wave: [samples] float32, 16 kHz.
    """
    power = block_power(wave)
    level = speech_level(wave)
    silent = 10 * np.log10(np.maximum(power, 1e-10)) < max(level - QUIET_DB, INAUDIBLE_DB)
    return {"level_dbfs": round(level, 1), "silence_share": round(float(silent.mean()), 3)}


def measure(seen: Scan, landmarks: np.ndarray, found: np.ndarray, w2c: np.ndarray, reprojection: np.ndarray,
            crop: tuple[int, int, int], size: int, aperture: np.ndarray, blink: np.ndarray, wave: np.ndarray,
            uncovered: float, person_share: float, late: float) -> dict:
    """All measures of the report, JSON-able.

    Args:
        seen: first pass. landmarks: [N, 478, 3] px of the crop. found: [N] bool. w2c: [N, 4, 4].
        reprojection: [N] px. crop: source px. size: S. aperture, blink: [N]. wave: 16 kHz mono.
        uncovered, person_share: 0..1. late: see `offset.sound_offset`.
    """
    angles, place = euler(w2c), w2c[:, :3, 3].astype(np.float64)
    seen_angles, seen_place = angles[found], place[found]
    wobble = np.diff(angles, n=2, axis=0) if len(angles) > 2 else np.zeros((1, 3))
    points = landmarks[found][..., :2]
    face = np.linalg.norm(points[:, FOREHEAD] - points[:, CHIN], axis=-1)
    border = points[:, OVAL]
    outside = ((border < 0) | (border > size)).any(axis=(1, 2))
    _, others = main_face(seen.boxes)
    return {
        "num_frames": int(len(found)), "seconds": round(len(found) / FPS, 2),
        "source": {"width": seen.width, "height": seen.height, "notes": seen.notes},
        "frames_with_face": int(found.sum()),
        "reprojection_px": {"rms": _round(np.sqrt((reprojection[found].astype(np.float64) ** 2).mean())),
                            "mean": _round(reprojection[found].mean()),
                            "p95": _round(np.percentile(reprojection[found], 95))},
        "pose_jitter_deg": _round(np.sqrt((wobble**2).sum(axis=1)).mean()),
        "head_motion": {"yaw_deg": _range(seen_angles[:, 0]), "pitch_deg": _range(seen_angles[:, 1]),
                        "roll_deg": _range(seen_angles[:, 2]), "x": _range(seen_place[:, 0]),
                        "y": _range(seen_place[:, 1]), "depth": _range(seen_place[:, 2])},
        "face_height_px": _round(np.median(face), 1),
        "face_height_source_px": _round(np.median(face) * crop[2] / size, 1),
        "face_outside_share": _round(outside.mean()),
        "uncovered_background": _round(uncovered), "person_share": _round(person_share),
        "mouth_movement": {"mean": _round(aperture[found].mean(), 4), "range": _round(_spread(aperture[found]), 4)},
        "blinks": int(((blink[1:] > 0.6) & (blink[:-1] <= 0.6)).sum()),
        "sound": {**loudness(wave), "moved_s": _round(late)},
        "other_faces_share": _round((others > 0).mean()),
        "cuts": [int(c) for c in find_cuts(seen.change)],
        "black_frames": int((seen.brightness < BLACK).sum()),
    }


def _round(value: float, digits: int = 3) -> float:
    return round(float(value), digits)


def _spread(values: np.ndarray) -> float:
    return float(np.percentile(values, 95) - np.percentile(values, 5))


def _range(values: np.ndarray) -> list[float]:
    return [_round(values.min(), 2), _round(values.max(), 2)]


def find_problems(report: dict) -> list[str]:
    """Plain sentences about what will make this clip train badly, and what to do; empty for a good clip.

    Args:
        report: what `measure` returned.
    """
    return [text for check in (_length, _faces, _view, _picture, _sound, _pose) for text in check(report)]


def _length(r: dict) -> list[str]:
    if r["seconds"] < 4:
        return [f"The clip lasts only {r['seconds']:.1f} s: the head will hardly learn to speak. "
                "Use at least 10 s, better one to five minutes."]
    return []


def _faces(r: dict) -> list[str]:
    texts, n = [], r["num_frames"]
    missing = 1 - r["frames_with_face"] / n
    if missing > 0.02:
        texts.append(f"No face was found in {missing:.0%} of the frames; their poses are interpolated. Cut those parts "
                     "out, or record with the face always in view.")
    if r["face_height_source_px"] < SMALL_FACE:
        texts.append(f"The face is only {r['face_height_source_px']:.0f} px high in the video: fine detail is missing. "
                     "Use a video with a closer view or a higher resolution (200 px or more).")
    elif r["face_height_px"] > ENLARGED * r["face_height_source_px"]:
        texts.append(f"The pictures are the video enlarged {r['face_height_px'] / r['face_height_source_px']:.1f} "
                     "times: a smaller size trains faster and shows the same.")
    if r["face_outside_share"] > 0.05:
        texts.append(f"The face is cut by the border of the picture in {r['face_outside_share']:.0%} of the frames. "
                     "Use a clip that shows the whole head with some space around it.")
    if r["other_faces_share"] > 0.05:
        texts.append(f"More than one face is in view in {r['other_faces_share']:.0%} of the clip; the largest one is "
                     "used. Cut the clip so that only one person is visible.")
    return texts


def _view(r: dict) -> list[str]:
    low, high = r["head_motion"]["yaw_deg"]
    texts = []
    if abs(low + high) / 2 > 25:
        texts.append(f"The face is seen from the side (about {abs(low + high) / 2:.0f} degrees). Use a clip that is "
                     "recorded from the front.")
    elif max(abs(low), abs(high)) > 45:
        texts.append(f"The head turns up to {max(abs(low), abs(high)):.0f} degrees aside: such frames are "
                     "tracked badly. Cut them out.")
    if r["uncovered_background"] < 0.05:
        texts.append("Almost no background is ever visible around the head; it is made up. Use a wider view.")
    return texts


def _picture(r: dict) -> list[str]:
    texts = [f"The file is damaged: {note}" for note in r["source"]["notes"]]
    if r["cuts"]:
        times = ", ".join(f"{c / FPS:.1f} s" for c in r["cuts"][:5]) + (" ..." if len(r["cuts"]) > 5 else "")
        texts.append(f"The picture changes abruptly at {times}: one uncut shot is needed, as background, light and "
                     "distance must stay the same. Cut the clip at these times and use one piece.")
    if r["black_frames"]:
        texts.append(f"{r['black_frames']} frames are black. Cut them off.")
    return texts


def _sound(r: dict) -> list[str]:
    level, silence, moved = (r["sound"][name] for name in ("level_dbfs", "silence_share", "moved_s"))
    texts = []
    if abs(moved) >= 1 / FPS:
        side = "late" if moved > 0 else "early"
        texts.append(f"The sound was {abs(moved) * 1000:.0f} ms {side} against the lips; it was moved. Play the "
                     "replay video: if it looks wrong, put the sound right in a video editor.")
    if level < SILENT_DBFS:
        texts.append(f"The sound is silent or nearly so ({level:.0f} dBFS): the mouth cannot learn from it. Check the "
                     "recording's microphone, or use a clip with speech.")
    elif silence > 0.6:
        texts.append(f"{silence:.0%} of the sound is silence. Use a clip in which the person speaks most of the time.")
    if r["mouth_movement"]["range"] < 0.015:
        texts.append("The mouth hardly moves. Use a clip in which the visible person is the one who speaks.")
    return texts


def _pose(r: dict) -> list[str]:
    # the limit is meant for the picture: two px at 512, in heights of a usual face there
    limit = 2.0 * r["face_height_px"] / 300
    if r["reprojection_px"]["rms"] > max(limit, 0.5):
        return [f"The head pose fits badly (reprojection error {r['reprojection_px']['rms']:.1f} px). Look at the "
                "overlays; hair or hands over the face, blur and strong turns are usual reasons."]
    return []
