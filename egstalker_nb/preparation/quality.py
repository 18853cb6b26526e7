"""Measurements of a prepared dataset that predict how well it will train, and warnings in plain sentences."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable, Literal

import numpy as np

from ..data.camera_view import VIEW, canvas_margin
from ..face.landmarks import CHIN, FOREHEAD, OVAL
from ..face.pose_math import euler
from ..media.rates import FPS
from ..speech.voice_activity import INAUDIBLE_DB, QUIET_DB, block_power, speech_level
from .account import account_text
from .camera import MIN_FOUND, CameraMotion
from .scan import Scan
from .shots import find_cuts

# thresholds of the warnings
BLACK = 0.03                                # brightness 0..1 of a black frame
MIN_LEVEL_DBFS = -45.0                      # level of speech
MIN_FACE_PX, MAX_ENLARGEMENT = 90, 1.6      # face height in the video; frame px over video px
USUAL_SIZE = 512                            # px; above it, a size is chosen for its detail
MIN_SECONDS = 4.0
MAX_MISSING_SHARE, MAX_FAULTY_SHARE = 0.02, 0.05    # of the frames: without a face; with any other fault
MAX_MEAN_YAW, MAX_YAW = 25.0, 45.0          # degrees
MAX_SILENCE, MIN_MOUTH_RANGE = 0.6, 0.015   # share of the audio; share of the face height
MIN_SPEAKER_CORRELATION = 0.25              # of the mouth with its prediction from the audio, for a person who speaks


def audio_levels(wave: np.ndarray) -> dict[str, float]:
    """Level of speech in dBFS (rms of the louder half of 20 ms blocks) and share of silent blocks.

    Args:
        wave: [samples] float32, 16 kHz.
    """
    power = block_power(wave)
    level = speech_level(wave)
    silent = 10 * np.log10(np.maximum(power, 1e-10)) < max(level - QUIET_DB, INAUDIBLE_DB)
    return {"level_dbfs": round(level, 1), "silence_share": round(float(silent.mean()), 3)}


def measure(seen: Scan, others: np.ndarray, tracking: dict[str, np.ndarray], crop: tuple[int, int, int], size: int,
            wave: np.ndarray, uncovered: float, person_share: float, late: float) -> dict[str, Any]:
    """All measurements of the report, JSON-able.

    Args:
        seen: first pass over the frames used.
        others: [M] number of other faces at each detection.
        tracking: landmarks [N, 478, 3] px of the cropped frames, found [N] bool, w2c [N, 4, 4], reprojection [N] px,
            aperture and blink [N].
        crop: source px.
        size: S.
        wave: 16 kHz mono.
        uncovered: share of the background that is visible, 0..1.
        person_share: share of the pixels that show the person, 0..1.
        late: seconds, see `offset.audio_offset`.
    """
    landmarks, found, w2c, reprojection, aperture, blink = (tracking[name] for name in (
        "landmarks", "found", "w2c", "reprojection", "aperture", "blink"))
    angles, position = euler(w2c), w2c[:, :3, 3].astype(np.float64)
    seen_angles, seen_position = angles[found], position[found]
    jitter = np.diff(angles, n=2, axis=0) if len(angles) > 2 else np.zeros((1, 3))
    points = landmarks[found][..., :2]
    face = np.linalg.norm(points[:, FOREHEAD] - points[:, CHIN], axis=-1)
    border = points[:, OVAL]
    outside = ((border < 0) | (border > size)).any(axis=(1, 2))
    return {
        "num_frames": int(len(found)), "seconds": round(len(found) / FPS, 2),
        "source": {"width": seen.width, "height": seen.height, "notes": seen.notes},
        "frames_with_face": int(found.sum()),
        "reprojection_px": {"rms": _round(np.sqrt((reprojection[found].astype(np.float64) ** 2).mean())),
                            "mean": _round(reprojection[found].mean()),
                            "p95": _round(np.percentile(reprojection[found], 95))},
        "pose_jitter_deg": _round(np.sqrt((jitter**2).sum(axis=1)).mean()),
        "head_motion": {"yaw_deg": _range(seen_angles[:, 0]), "pitch_deg": _range(seen_angles[:, 1]),
                        "roll_deg": _range(seen_angles[:, 2]), "x": _range(seen_position[:, 0]),
                        "y": _range(seen_position[:, 1]), "depth": _range(seen_position[:, 2])},
        "face_height_px": _round(np.median(face), 1),
        "face_height_source_px": _round(np.median(face) * crop[2] / size, 1),
        "frame_px": size, "crop_px": crop[2],
        "face_outside_share": _round(outside.mean()),
        "uncovered_background": _round(uncovered), "person_share": _round(person_share),
        "mouth_movement": {"mean": _round(aperture[found].mean(), 4),
                           "range": _round(_percentile_range(aperture[found]), 4)},
        "blinks": int(((blink[1:] > 0.6) & (blink[:-1] <= 0.6)).sum()),
        "sound": {**audio_levels(wave), "moved_s": _round(late)},
        "other_faces_share": _round((others > 0).mean()),
        "cuts": [int(c) for c in find_cuts(seen.thumbs)],
        "black_frames": int((seen.brightness < BLACK).sum()),
    }


def camera_report(motion: CameraMotion, size: int, margin: int) -> dict[str, Any]:
    """What the report says of the camera, JSON-able.

    Args:
        motion: what was measured.
        size: of a frame, px.
        margin: of the plate around a frame, px.
    """
    views, gains = motion.camera[:, :VIEW], motion.camera[:, VIEW:]
    return {"still": not views.any(), "measured_share": _round(motion.found),
            "corners_moved_px": _round(motion.moved, 2),
            "zoom": _range(np.exp(views[:, 2])), "roll_deg": _range(np.degrees(views[:, 3])),
            "exposure": _range(np.exp(gains.mean(1))), "canvas_margin_px": margin,
            "cut": canvas_margin(views, size)[1]}


def _round(value: float, digits: int = 3) -> float:
    return round(float(value), digits)


def _percentile_range(values: np.ndarray) -> float:
    return float(np.percentile(values, 95) - np.percentile(values, 5))


def _range(values: np.ndarray) -> list[float]:
    return [_round(values.min(), 2), _round(values.max(), 2)]


Report = dict[str, Any]
Level = Literal["ok", "warning", "error", "unknown"]


@dataclass(frozen=True)
class Fault:
    """Something that may make the clip train badly.

    Attributes:
        level: `error`: fix it before training. `warning`: check whether it matters.
        text: what is wrong and what to do, plain sentences.
    """

    level: Level
    text: str


@dataclass(frozen=True)
class Concern:
    """The result of one check of a clip.

    Attributes:
        name: of the check.
        level: ok, warning, error, or unknown if it was not measured.
        found: measured values, with units.
        wanted: values of a good clip, with units.
        faults: what is wrong and what to do, plain sentences.
    """

    name: str
    level: Level
    found: str
    wanted: str
    faults: tuple[str, ...] = ()


def find_problems(report: Report) -> list[str]:
    """Plain sentences about what may make this clip train badly, and what to do; empty for a good clip.

    Args:
        report: what `measure` returned, and what `build` added.
    """
    return [fault.text for check, _, _ in QUALITY_CHECKS.values() for fault in check(report)]


def concerns(report: Report) -> list[Concern]:
    """The same checks with their results, passed ones too; measurements that an older report lacks are unknown."""
    found = []
    for name, (check, measured, wanted) in QUALITY_CHECKS.items():
        try:
            faults = list(check(report))
            levels = {fault.level for fault in faults}
            level: Level = "error" if "error" in levels else "warning" if levels else "ok"
            found.append(Concern(name, level, measured(report), wanted, tuple(fault.text for fault in faults)))
        except (KeyError, TypeError):
            found.append(Concern(name, "unknown", "not measured", wanted))
    return found


def _check_length(r: Report) -> Iterable[Fault]:
    if r["seconds"] < MIN_SECONDS:
        yield Fault("error", f"The clip lasts only {r['seconds']:.1f} s: too little speech to train a mouth. "
                    "Use at least 10 s, better one to five minutes.")


def _check_face(r: Report) -> Iterable[Fault]:
    missing = 1 - r["frames_with_face"] / r["num_frames"]
    if missing > MAX_MISSING_SHARE:
        yield Fault("error", f"No face was found in {missing:.0%} of the frames; their poses are interpolated. Cut "
                    "those parts out, or record with the face always in view.")
    if r["face_height_source_px"] < MIN_FACE_PX:
        yield Fault("error", f"The face is only {r['face_height_source_px']:.0f} px high in the video: fine detail is "
                    "missing. Use a video with a closer view or a higher resolution (200 px or more).")
    elif r["face_height_px"] > MAX_ENLARGEMENT * r["face_height_source_px"]:
        enlarged = r["face_height_px"] / r["face_height_source_px"]
        yield Fault("warning", f"The frames are the video enlarged {enlarged:.1f} times: a smaller size trains faster "
                    "and looks the same.")
    elif r.get("frame_px", 0) > max(USUAL_SIZE, r.get("crop_px", 0)):
        yield Fault("warning", f"The frames have {r['frame_px']} px, but the head's crop has {r['crop_px']} px in the "
                    "video: they are enlarged, which adds no detail. Prepare with size='native'.")
    if r["face_outside_share"] > MAX_FAULTY_SHARE:
        yield Fault("error", f"The face is cut by the border of the image in {r['face_outside_share']:.0%} of the "
                    "frames. Use a clip that shows the whole head with some space around it.")
    if r["other_faces_share"] > MAX_FAULTY_SHARE:
        yield Fault("error", f"More than one face is in view in {r['other_faces_share']:.0%} of the clip; the "
                    f"{r['face']} one is used. Choose with face='left', 'right', 'largest' or 'speaking', or cut the "
                    "clip so that only one person is visible.")
    if max(r.get("follows", [1.0])) < MIN_SPEAKER_CORRELATION:
        yield Fault("warning", "None of the mouths in view clearly follows the audio (correlations "
                    f"{', '.join(f'{value:.2f}' for value in r['follows'])}). Check whether the right person was "
                    "used, and choose with face='left' or 'right' if not.")


def _check_view(r: Report) -> Iterable[Fault]:
    low, high = r["head_motion"]["yaw_deg"]
    if abs(low + high) / 2 > MAX_MEAN_YAW:
        yield Fault("error", f"The face is seen from the side (about {abs(low + high) / 2:.0f} degrees). Use a clip "
                    "that is recorded from the front.")
    elif max(abs(low), abs(high)) > MAX_YAW:
        yield Fault("error", f"The head turns up to {max(abs(low), abs(high)):.0f} degrees sideways: such frames are "
                    "tracked badly. Cut them out.")
    if r["uncovered_background"] < MAX_FAULTY_SHARE:
        yield Fault("warning", "Almost no background is ever visible around the head: most of it is inpainted. Use a "
                    "wider view.")


def _check_camera(r: Report) -> Iterable[Fault]:
    if r.get("camera", {}).get("cut"):
        yield Fault("warning", "The camera moves so far that the background does not hold all that it shows: its edge "
                    "is repeated there. Cut the clip to a part in which the camera moves less.")


def _describe_camera(r: Report) -> str:
    seen = r["camera"]
    if seen["measured_share"] < MIN_FOUND:
        return "taken as still: the background has too little texture to measure it"
    moved = f"moves the corners by {seen['corners_moved_px']:.1f} px"
    if not seen["still"]:
        low, high = seen["zoom"]
        moved = f"{moved}, zooms {low:.2f} to {high:.2f} times, rolls {seen['roll_deg'][0]:.1f} to " \
                f"{seen['roll_deg'][1]:.1f} degrees; background and torso follow"
    low, high = seen["exposure"]
    exposure = "constant exposure" if low == high else f"exposure {low:.2f} to {high:.2f} times"
    return f"{'still' if seen['still'] else 'moves'} ({moved}), {exposure}"


def _check_frames(r: Report) -> Iterable[Fault]:
    account = r["account"]
    lost = account["missing"]["could not be decoded"]
    if lost:
        yield Fault("warning", f"{lost} of {account['frames']} frames could not be decoded and are missing. Copy or "
                    "record the file again to use all of it.")
    if account["other_shots"]:
        used, shots = account["used"], account["other_shots"]
        others = ", ".join(_time_span(*shot) for shot in shots[:5]) + (" ..." if len(shots) > 5 else "")
        yield Fault("warning", f"The video has {len(shots) + 1} shots; the longest that shows a face is used "
                    f"({_time_span(*used)}). Left out: {others}. Cut the video there to prepare another one.")


def _time_span(first: int, last: int) -> str:
    return f"{first / FPS:.1f} to {last / FPS:.1f} s"


def _check_image(r: Report) -> Iterable[Fault]:
    for note in r["source"]["notes"]:
        yield Fault("warning", f"The file is damaged: {note}")
    if r["cuts"]:
        times = ", ".join(f"{c / FPS:.1f} s" for c in r["cuts"][:5]) + (" ..." if len(r["cuts"]) > 5 else "")
        yield Fault("error", f"The image changes abruptly at {times}: one uncut shot is needed, as background, light "
                    "and distance must stay the same. Prepare it with scenes='longest'.")
    if r["black_frames"]:
        yield Fault("error", f"{r['black_frames']} frames are black. Cut them off.")


def _check_sync(r: Report) -> Iterable[Fault]:
    moved = r["sound"]["moved_s"]
    if abs(moved) >= 1 / FPS:
        yield Fault("warning", f"The audio was {abs(moved) * 1000:.0f} ms {_late_or_early(moved)} relative to the lips "
                    "and was moved. Play the replay video: if it is out of sync, correct the audio in a video editor.")


def _check_audio(r: Report) -> Iterable[Fault]:
    for note in r["sound"]["notes"]:
        yield Fault("warning", note)
    level, silence = r["sound"]["level_dbfs"], r["sound"]["silence_share"]
    if level < MIN_LEVEL_DBFS:
        yield Fault("error", f"The audio is silent or nearly so ({level:.0f} dBFS): the mouth cannot be trained on it. "
                    "Check the microphone of the recording, or use a clip with speech.")
    elif silence > MAX_SILENCE:
        yield Fault("warning", f"{silence:.0%} of the audio is silence. Use a clip in which the person speaks most "
                    "of the time.")


def _check_mouth(r: Report) -> Iterable[Fault]:
    if r["mouth_movement"]["range"] < MIN_MOUTH_RANGE:
        yield Fault("error", "The mouth hardly moves. Use a clip in which the visible person is the one who speaks.")


def _max_reprojection(r: Report) -> float:
    # 2 px for a face 300 px high, as is usual at 512 px, and in proportion for others
    return max(2.0 * r["face_height_px"] / 300, 0.5)


def _check_pose(r: Report) -> Iterable[Fault]:
    if r["reprojection_px"]["rms"] > _max_reprojection(r):
        yield Fault("warning", f"The head pose fits badly (reprojection error {r['reprojection_px']['rms']:.1f} px). "
                    "See the overlays; common causes are hair or hands over the face, blur and large head rotations.")


def _late_or_early(moved: float) -> str:
    return "late" if moved > 0 else "early"


def _describe_face(r: Report) -> str:
    cut, others = r["face_outside_share"], r["other_faces_share"]
    crop = f" (crop of {r['crop_px']} px, frames of {r['frame_px']} px)" if "crop_px" in r else ""
    return (f"in {r['frames_with_face'] / r['num_frames']:.0%} of the frames, {r['face_height_source_px']:.0f} px high "
            f"in the video{crop}, cut by the border in {cut:.0%}, with others in {others:.0%}")


def _describe_sync(r: Report) -> str:
    moved = r["sound"]["moved_s"]
    return f"{abs(moved) * 1000:.0f} ms {_late_or_early(moved)}, moved" if moved else "0 ms, not moved"


#: name -> the check, and the measured and wanted values as text; in the order of the warnings
QUALITY_CHECKS: dict[str, tuple[Callable[[Report], Iterable[Fault]], Callable[[Report], str], str]] = {
    "length": (_check_length, lambda r: f"{r['seconds']:.1f} s",
               f"at least {MIN_SECONDS:.0f} s, better a minute or more"),
    "frames": (_check_frames, lambda r: account_text(r["account"]), "all of the video, one shot"),
    "face": (_check_face, _describe_face, f"in all frames, {MIN_FACE_PX} px or higher, uncut, no other face"),
    "view": (_check_view, lambda r: "turned {:.0f} to {:.0f} degrees, {:.0%} of the background visible".format(
        *r["head_motion"]["yaw_deg"], r["uncovered_background"]),
             f"from the front, turned {MAX_YAW:.0f} degrees at most, {MAX_FAULTY_SHARE:.0%} of the background or more"),
    "camera": (_check_camera, _describe_camera, "still, or slow"),
    "image": (_check_image, lambda r: f"{len(r['cuts'])} cuts, {r['black_frames']} black frames, "
              f"{len(r['source']['notes'])} faults in the file", "none"),
    "timing": (_check_sync, _describe_sync, f"less than {1000 / FPS:.0f} ms"),
    "audio": (_check_audio, lambda r: f"{r['sound']['level_dbfs']:.0f} dBFS, {r['sound']['silence_share']:.0%} silence",
              f"{MIN_LEVEL_DBFS:.0f} dBFS or louder, {MAX_SILENCE:.0%} silence at most"),
    "mouth": (_check_mouth, lambda r: f"opens by {r['mouth_movement']['range']:.3f} of the face's height",
              f"{MIN_MOUTH_RANGE} or more"),
    "pose": (_check_pose, lambda r: f"{r['reprojection_px']['rms']:.2f} px from the landmarks (limit for this face: "
             f"{_max_reprojection(r):.2f} px)", "2 px or less on a face 300 px high"),
}
