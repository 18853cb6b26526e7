"""The steps from a video to a dataset folder, in order; finished ones are skipped."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.files import write_json, write_npy, write_npz
from ..data.dataset import FORMAT
from ..face import landmarks as face
from ..face import pose_math
from ..face.expression import landmark_motion, lower_face
from ..media import audio
from ..media.image_io import write_png
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..media.video_reader import VideoInfo
from ..metrics.landmark_metrics import aperture
from ..speech.encoders import Encoder
from . import (
    account,
    extract,
    landmark_tracking,
    masks,
    offset,
    overlay,
    people,
    plate,
    pose,
    quality,
    scan,
)
from .crop import Crop, choose_crop, to_crop
from .parallel import WorkerPool
from .shots import choose_shot, find_cuts, find_shots
from .source import Source
from .speaking import find_speaker
from .steps import Step, Workspace, load_chunks, read_chunks, read_npz


@dataclass(frozen=True)
class Clip:
    """The input of `build`.

    Attributes:
        video: the file.
        info: its properties, see `probe`.
        wave: its audio, [samples] float32 16 kHz; sample 0 is at the time of the first frame.
        notes: warnings that were raised when the audio was read.
        features: an encoder, or a file of features.
    """

    video: Path
    info: VideoInfo
    wave: np.ndarray
    notes: list[str]
    features: str | Path | Encoder


def build(clip: Clip, root: Path, settings: dict[str, Any]) -> None:
    """Run all steps that are not yet done, and write the dataset.

    Args:
        clip: the input.
        root: the dataset folder, opened.
        settings: JSON-able, everything that the result depends on. `track` is the number of the audio track.

    Raises:
        InputError: no usable face, or a video that cannot be read.
        DatasetError: frames are missing at the end.
    """
    work, size, expected = Workspace(root), settings["size"], clip.info.frames_at()
    with WorkerPool(expected) as pool:
        scanned = scan.load_scan(work.run("scan", lambda step: scan.scan(step, clip.video, expected, pool),
                                          {"version": settings["version"], "video": settings["video"]}))
        account.check_read(clip.video, expected, scanned)
        shots = find_shots(find_cuts(scanned.thumbs), scanned.num_frames)
        shot = choose_shot(shots, scanned.face_seen, settings["scenes"])
        seen, source = scanned.part(shot.start, shot.stop), Source(clip.video, shot.start, len(shot), clip.info.alpha)
        main, others = _person(work, source, seen, settings, clip.wave, pool)
        used = {"shot": [shot.start, shot.stop], "person": hashlib.sha256(main.tobytes()).hexdigest()}
        tracked = work.run("track", lambda step: landmark_tracking.track_face(step, source, seen, main, others, pool),
                           used, ["scan"])
        raw = load_chunks(tracked)
        if not raw["found"].any():
            raise InputError("a face in the clip", "none that could be tracked",
                             "Use a clip that shows one person's face from the front, well lit and not too small.")
        square = choose_crop(raw["landmarks"], raw["found"], seen.width, seen.height)
        landmarks = face.fill_gaps(to_crop(raw["landmarks"], square, size), raw["found"])
        posed = work.run("pose", lambda step: _pose_step(step, landmarks, raw["found"], size, settings["focal"]),
                         {"size": size, "focal": settings["focal"]}, ["track"])
        framed = work.run(
            "frames", lambda step: _frames_step(step, tracked, source, root, square, landmarks, size, pool),
            {"size": size}, ["track"], clears=("frames", "masks"))
    plated = work.run("plate", lambda step: _plate_step(step, framed, root), needs=["frames"])
    poses = read_npz(posed.folder / "pose.npz")
    focal, opening = float(poses.pop("focal")), aperture(landmarks)
    mouth = lower_face(landmark_motion(landmarks, poses["w2c"], poses["mean_face"], focal, size))
    audio_step = work.run("sound", lambda step: _audio_step(step, root, clip, shot, mouth),
                          {name: settings[name] for name in ("features", "encoder", "track")}, ["pose"])
    tracking = {"landmarks": landmarks, "found": raw["found"], **poses,
                "blink": face.blink_curve(landmarks, raw["found"]), "aperture": opening,
                "lip_rect": face.rectangles(landmarks, face.LIPS, face.LIP_MARGIN, size),
                "eye_rect": face.rectangles(landmarks, face.EYE_REGION, face.EYE_MARGIN, size)}
    write_npz(root / "tracking.npz", **tracking)
    wave = audio.load_audio(root / "audio.wav")
    report = quality.measure(
        seen, others, tracking, square, size, wave,
        uncovered=float(read_npz(plated.folder / "plate.npz")["uncovered"]),
        person_share=1 - float(np.concatenate([part["shares"][:, 2] for part in read_chunks(framed)]).mean()),
        late=float(read_npz(audio_step.folder / "sound.npz")["late"]))
    report["source"] |= {"hdr": clip.info.hdr, "alpha": clip.info.alpha}
    report["sound"]["notes"], report["face"] = clip.notes, settings["face"]
    if "speaker" in work.steps:
        report["follows"] = read_npz(work.steps["speaker"].folder / "speaker.npz")["follows"].round(3).tolist()
    report["account"] = account.make_account(clip.info, scanned, shots, shot)
    account.check_account(report["account"], root, {
        "tracking.npz": len(landmarks), "features.npy": len(np.load(root / "features.npy", mmap_mode="r")),
        "audio.wav": len(wave) / SAMPLES_PER_FRAME})
    _write_dataset(root, clip, settings, report, tracking, wave, square, focal, work)


def _write_dataset(root: Path, clip: Clip, settings: dict[str, Any], report: dict[str, Any],
                   tracking: dict[str, np.ndarray], wave: np.ndarray, square: Crop, focal: float, work: Workspace
                   ) -> None:
    """Write the report and, last, `dataset.json`, which marks the dataset as finished."""
    report["warnings"] = quality.find_problems(report)
    report["seconds_per_step"] = {name: step.seconds for name, step in work.steps.items()}
    (root / "report").mkdir(exist_ok=True)
    overlay.write_sheet(root, tracking, focal)
    overlay.write_curves(root, tracking, pose_math.euler(tracking["w2c"]), wave)
    write_json(root / "report.json", report)
    n = report["account"]["kept"]
    write_json(root / "dataset.json", {
        "format": FORMAT, "source": clip.video.name, "fps": FPS, "size": settings["size"], "num_frames": n,
        "crop": list(square), "focal": focal, "encoder": settings["encoder"], "num_train": max(1, n * 10 // 11),
        "settings": {name: value for name, value in settings.items() if name != "encoder"}})
    work.remove()


def _person(work: Workspace, source: Source, seen: scan.Scan, settings: dict[str, Any], wave: np.ndarray,
            pool: WorkerPool) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [M, 4] of the person that the dataset is about, and the number of others at each detection [M]."""
    found = people.find_people(seen.boxes)
    if not found:
        raise InputError("a face in the clip", "none in any frame",
                         "Use a clip that shows one person's face from the front, well lit and not too small.")
    if settings["face"] == "speaking":
        candidates = people.prominent(found)
        speaker = work.run("speaker", lambda step: find_speaker(step, source, seen, candidates, wave, pool),
                           {"shot": [source.first, source.num_frames], "track": settings["track"]}, ["scan"])
        main = candidates[int(read_npz(speaker.folder / "speaker.npz")["speaker"])]
    else:
        main = people.choose_person(found, settings["face"])
    return main, people.count_other_faces(seen.boxes, main)


def _pose_step(step: Step, landmarks: np.ndarray, found: np.ndarray, size: int, focal: float | None) -> None:
    """Write head shape, focal length and camera poses."""
    result = pose.solve_pose(landmarks, found, size, focal)
    write_npz(step.folder / "pose.npz", w2c=result.w2c, mean_face=result.mean_face, reprojection=result.reprojection,
              focal=np.array(result.focal, np.float64))


def _frames_step(step: Step, tracked: Step, source: Source, root: Path, square: Crop, landmarks: np.ndarray, size: int,
                 pool: WorkerPool) -> None:
    """Learn the colours of hair, skin and clothes, then write frames and masks."""
    points = masks.smooth_in_time(landmarks[..., :2])
    colours = extract.learn_colours(tracked, source.num_frames, square, size, points, pool)
    extract.extract(step, source, root, square, size, points, colours, pool)


def _plate_step(step: Step, framed: Step, root: Path) -> None:
    """Write `background.png`, and the share of its pixels that were visible in the clip."""
    image, uncovered = plate.clean_plate(read_chunks(framed))
    write_png(root / "background.png", image)
    write_npz(step.folder / "plate.npz", uncovered=np.array(uncovered, np.float32))


def _audio_step(step: Step, root: Path, clip: Clip, shot: range, mouth: np.ndarray) -> None:
    """Write audio.wav, aligned with the frames and as long as they are, and features.npy, from an encoder or a file.

    With features from a file the audio is not shifted: they belong to it as it is.
    """
    late = 0.0
    if isinstance(clip.features, Encoder):
        late, _ = offset.audio_offset(_of_shot(clip.wave, shot), mouth)
        wave = _of_shot(offset.shift_earlier(clip.wave, late), shot)
        windows = clip.features.features(wave, len(shot))
    else:
        wave = _of_shot(clip.wave, shot)
        windows = audio.load_features(clip.features, clip.wave)
        # if the audio ends a little before the video, the last window is repeated
        windows = windows[np.minimum(shot, len(windows) - 1)]
    write_npy(root / "features.npy", windows)
    write_npz(step.folder / "sound.npz", late=np.array(late, np.float64))
    audio.save_wav(root / "audio.wav", wave)


def _of_shot(wave: np.ndarray, shot: range) -> np.ndarray:
    """The samples of the shot's frames, padded with silence where the audio is shorter."""
    part = wave[shot.start * SAMPLES_PER_FRAME:shot.stop * SAMPLES_PER_FRAME]
    return np.pad(part, (0, len(shot) * SAMPLES_PER_FRAME - len(part)))
