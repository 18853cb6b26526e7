"""How well a clip will train: measures of a prepared dataset, and plain warnings."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable

import numpy as np

from ..face.landmarks import CHIN, FOREHEAD, OVAL
from ..face.pose_math import euler
from ..media.rates import FPS
from ..speech.voice_activity import INAUDIBLE_DB, QUIET_DB, block_power, speech_level
from .account import in_words
from .scan import Scan
from .shots import find_cuts

BLACK = 0.03
SILENT_DBFS = -45.0
#: face height in the video (px) that is too small, and enlargement that is too much
SMALL_FACE, ENLARGED = 90, 1.6
SHORT = 4.0                     # seconds
MISSING, SHARE = 0.02, 0.05     # of the frames: without a face; with any other fault
SIDE, TURN = 25.0, 45.0         # degrees: the usual view, and the strongest turn
MOSTLY_SILENT, STILL_MOUTH = 0.6, 0.015
SPEAKS = 0.25                   # correlation of a mouth with what the sound says of it, of somebody who speaks


def loudness(wave: np.ndarray) -> dict[str, float]:
    """Level of speech in dBFS (rms of the louder half of 20 ms blocks) and the share of silent blocks.

    Args:
        wave: [samples] float32, 16 kHz.
    """
    power = block_power(wave)
    level = speech_level(wave)
    silent = 10 * np.log10(np.maximum(power, 1e-10)) < max(level - QUIET_DB, INAUDIBLE_DB)
    return {"level_dbfs": round(level, 1), "silence_share": round(float(silent.mean()), 3)}


def measure(seen: Scan, others: np.ndarray, tracking: dict[str, np.ndarray], crop: tuple[int, int, int], size: int,
            wave: np.ndarray, uncovered: float, person_share: float, late: float) -> dict:
    """All measures of the report, JSON-able.

    Args:
        seen: first pass, of the frames used. others: [M] further faces at each detection. tracking: landmarks
            [N, 478, 3] px of the square, found [N] bool, w2c [N, 4, 4], reprojection [N] px, aperture and blink [N].
        crop: source px. size: S. wave: 16 kHz mono. uncovered, person_share: 0..1. late: see `offset.audio_offset`.
    """
    landmarks, found, w2c, reprojection, aperture, blink = (tracking[name] for name in (
        "landmarks", "found", "w2c", "reprojection", "aperture", "blink"))
    angles, place = euler(w2c), w2c[:, :3, 3].astype(np.float64)
    seen_angles, seen_place = angles[found], place[found]
    wobble = np.diff(angles, n=2, axis=0) if len(angles) > 2 else np.zeros((1, 3))
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
        "cuts": [int(c) for c in find_cuts(seen.thumbs)],
        "black_frames": int((seen.brightness < BLACK).sum()),
    }


def _round(value: float, digits: int = 3) -> float:
    return round(float(value), digits)


def _spread(values: np.ndarray) -> float:
    return float(np.percentile(values, 95) - np.percentile(values, 5))


def _range(values: np.ndarray) -> list[float]:
    return [_round(values.min(), 2), _round(values.max(), 2)]


@dataclass(frozen=True)
class Fault:
    """Something that will make the clip train badly. level: `act` before training, or `look` whether it matters."""

    level: str
    text: str


@dataclass(frozen=True)
class Concern:
    """One thing that a clip must have.

    Attributes:
        name: of it. level: good, look, act, or unknown where it was not measured. found, wanted: values with units.
        faults: what is wrong and what to do, plain sentences.
    """

    name: str
    level: str
    found: str
    wanted: str
    faults: tuple[str, ...] = ()


def find_problems(report: dict) -> list[str]:
    """Plain sentences about what will make this clip train badly, and what to do; empty for a good clip.

    Args:
        report: what `measure` returned.
    """
    return [fault.text for check, _, _ in CONCERNS.values() for fault in check(report)]


def concerns(report: dict) -> list[Concern]:
    """The same checks, one entry for each concern, good ones too; what an older report lacks is unknown."""
    found = []
    for name, (check, measured, wanted) in CONCERNS.items():
        try:
            faults = list(check(report))
            levels = {fault.level for fault in faults}
            level = "act" if "act" in levels else "look" if levels else "good"
            found.append(Concern(name, level, measured(report), wanted, tuple(fault.text for fault in faults)))
        except (KeyError, TypeError):
            found.append(Concern(name, "unknown", "not measured", wanted))
    return found


def _length(r: dict) -> Iterable[Fault]:
    if r["seconds"] < SHORT:
        yield Fault("act", f"The clip lasts only {r['seconds']:.1f} s: the head will hardly learn to speak. "
                    "Use at least 10 s, better one to five minutes.")


def _faces(r: dict) -> Iterable[Fault]:
    missing = 1 - r["frames_with_face"] / r["num_frames"]
    if missing > MISSING:
        yield Fault("act", f"No face was found in {missing:.0%} of the frames; their poses are interpolated. Cut those "
                    "parts out, or record with the face always in view.")
    if r["face_height_source_px"] < SMALL_FACE:
        yield Fault("act", f"The face is only {r['face_height_source_px']:.0f} px high in the video: fine detail is "
                    "missing. Use a video with a closer view or a higher resolution (200 px or more).")
    elif r["face_height_px"] > ENLARGED * r["face_height_source_px"]:
        enlarged = r["face_height_px"] / r["face_height_source_px"]
        yield Fault("look", f"The pictures are the video enlarged {enlarged:.1f} times: a smaller size trains faster "
                    "and shows the same.")
    if r["face_outside_share"] > SHARE:
        yield Fault("act", f"The face is cut by the border of the picture in {r['face_outside_share']:.0%} of the "
                    "frames. Use a clip that shows the whole head with some space around it.")
    if r["other_faces_share"] > SHARE:
        yield Fault("act", f"More than one face is in view in {r['other_faces_share']:.0%} of the clip; the "
                    f"{r['face']} one is used. Choose with face='left', 'right', 'largest' or 'speaking', or cut the "
                    "clip so that only one person is visible.")
    if max(r.get("follows", [1.0])) < SPEAKS:
        yield Fault("look", "None of the mouths in view clearly follows the sound (correlations "
                    f"{', '.join(f'{value:.2f}' for value in r['follows'])}). Look whether the right person was taken, "
                    "and choose with face='left' or 'right' if not.")


def _view(r: dict) -> Iterable[Fault]:
    low, high = r["head_motion"]["yaw_deg"]
    if abs(low + high) / 2 > SIDE:
        yield Fault("act", f"The face is seen from the side (about {abs(low + high) / 2:.0f} degrees). Use a clip that "
                    "is recorded from the front.")
    elif max(abs(low), abs(high)) > TURN:
        yield Fault("act", f"The head turns up to {max(abs(low), abs(high)):.0f} degrees aside: such frames are "
                    "tracked badly. Cut them out.")
    if r["uncovered_background"] < SHARE:
        yield Fault("look", "Almost no background is ever visible around the head; it is made up. Use a wider view.")


def _frames(r: dict) -> Iterable[Fault]:
    account = r["account"]
    lost = account["missing"]["could not be decoded"]
    if lost:
        yield Fault("look", f"{lost} of {account['frames']} frames could not be decoded and are missing. Copy or "
                    "record the file again to use all of it.")
    if account["other_shots"]:
        used, shots = account["used"], account["other_shots"]
        others = ", ".join(_span(*shot) for shot in shots[:5]) + (" ..." if len(shots) > 5 else "")
        yield Fault("look", f"The video has {len(shots) + 1} shots; the longest that shows a face is used "
                    f"({_span(*used)}). Left out: {others}. Cut the video there to prepare another one.")


def _span(first: int, last: int) -> str:
    return f"{first / FPS:.1f} to {last / FPS:.1f} s"


def _picture(r: dict) -> Iterable[Fault]:
    for note in r["source"]["notes"]:
        yield Fault("look", f"The file is damaged: {note}")
    if r["cuts"]:
        times = ", ".join(f"{c / FPS:.1f} s" for c in r["cuts"][:5]) + (" ..." if len(r["cuts"]) > 5 else "")
        yield Fault("act", f"The picture changes abruptly at {times}: one uncut shot is needed, as background, light "
                    "and distance must stay the same. Prepare it with scenes='longest'.")
    if r["black_frames"]:
        yield Fault("act", f"{r['black_frames']} frames are black. Cut them off.")


def _timing(r: dict) -> Iterable[Fault]:
    moved = r["sound"]["moved_s"]
    if abs(moved) >= 1 / FPS:
        yield Fault("look", f"The sound was {abs(moved) * 1000:.0f} ms {_side(moved)} against the lips; it was moved. "
                    "Play the replay video: if it looks wrong, put the sound right in a video editor.")


def _sound(r: dict) -> Iterable[Fault]:
    for note in r["sound"]["notes"]:
        yield Fault("look", note)
    level, silence = r["sound"]["level_dbfs"], r["sound"]["silence_share"]
    if level < SILENT_DBFS:
        yield Fault("act", f"The sound is silent or nearly so ({level:.0f} dBFS): the mouth cannot learn from it. "
                    "Check the recording's microphone, or use a clip with speech.")
    elif silence > MOSTLY_SILENT:
        yield Fault("look", f"{silence:.0%} of the sound is silence. Use a clip in which the person speaks most of the "
                    "time.")


def _mouth(r: dict) -> Iterable[Fault]:
    if r["mouth_movement"]["range"] < STILL_MOUTH:
        yield Fault("act", "The mouth hardly moves. Use a clip in which the visible person is the one who speaks.")


def _pose_limit(r: dict) -> float:
    # the limit is meant for the picture: two px at 512, in heights of a usual face there
    return max(2.0 * r["face_height_px"] / 300, 0.5)


def _pose(r: dict) -> Iterable[Fault]:
    if r["reprojection_px"]["rms"] > _pose_limit(r):
        yield Fault("look", f"The head pose fits badly (reprojection error {r['reprojection_px']['rms']:.1f} px). Look "
                    "at the overlays; hair or hands over the face, blur and strong turns are usual reasons.")


def _side(moved: float) -> str:
    return "late" if moved > 0 else "early"


def _found_face(r: dict) -> str:
    cut, others = r["face_outside_share"], r["other_faces_share"]
    return (f"in {r['frames_with_face'] / r['num_frames']:.0%} of the frames, {r['face_height_source_px']:.0f} px high "
            f"in the video, cut by the border in {cut:.0%}, not alone in {others:.0%}")


def _found_timing(r: dict) -> str:
    moved = r["sound"]["moved_s"]
    return f"{abs(moved) * 1000:.0f} ms {_side(moved)}, moved" if moved else "0 ms, not moved"


#: name -> its check, what was measured and what is wanted, as text; the order of the warnings
CONCERNS: dict[str, tuple[Callable[[dict], Iterable[Fault]], Callable[[dict], str], str]] = {
    "length": (_length, lambda r: f"{r['seconds']:.1f} s", f"at least {SHORT:.0f} s, better a minute or more"),
    "frames": (_frames, lambda r: in_words(r["account"]), "all of the video, one shot"),
    "face": (_faces, _found_face, f"in all frames, {SMALL_FACE} px or higher, whole and alone"),
    "view": (_view, lambda r: "turned {:.0f} to {:.0f} degrees, {:.0%} of the background seen".format(
        *r["head_motion"]["yaw_deg"], r["uncovered_background"]),
             f"from the front, turned {TURN:.0f} degrees at most, {SHARE:.0%} of the background or more"),
    "picture": (_picture, lambda r: f"{len(r['cuts'])} cuts, {r['black_frames']} black frames, "
                f"{len(r['source']['notes'])} faults of the file", "none"),
    "timing": (_timing, _found_timing, f"less than {1000 / FPS:.0f} ms"),
    "sound": (_sound, lambda r: f"{r['sound']['level_dbfs']:.0f} dBFS, {r['sound']['silence_share']:.0%} silence",
              f"{SILENT_DBFS:.0f} dBFS or louder, {MOSTLY_SILENT:.0%} silence at most"),
    "mouth": (_mouth, lambda r: f"opens by {r['mouth_movement']['range']:.3f} of the face's height",
              f"{STILL_MOUTH} or more"),
    "pose": (_pose, lambda r: f"{r['reprojection_px']['rms']:.2f} px from the landmarks (limit for this face: "
             f"{_pose_limit(r):.2f} px)", "2 px or less on a face 300 px high"),
}
