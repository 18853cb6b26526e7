"""The steps from a video to a dataset folder, in order; finished ones are skipped."""
from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UnfinishedError
from ..core.files import write_json, write_npy, write_npz
from ..core.reading import ArraySpec, read_npy, read_npz
from ..data.camera_view import VIEW, canvas_margin
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
    camera,
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
    speaking,
)
from .crop import NATIVE, Crop, choose_crop, native_size, to_crop
from .parallel import WorkerPool
from .results import Result
from .shots import choose_shot, find_cuts, find_shots
from .source import InputFile, Source, UnusableClipError
from .steps import Step, Workspace, load_chunks, read_chunks, remove_damaged

NO_FACE = "Use a clip that shows one person's face from the front, well lit and not too small."


@dataclass(frozen=True)
class Clip:
    """The input of `build`.

    Attributes:
        video: the file.
        info: its properties, see `probe`.
        wave: its audio, [samples] float32 16 kHz; sample 0 is at the time of the first frame.
        notes: warnings that were raised when the audio was read.
        features: an encoder, or features of the whole video, [N, 16, 29] float32.
    """

    video: InputFile
    info: VideoInfo
    wave: np.ndarray
    notes: list[str]
    features: Encoder | np.ndarray


def build(clip: Clip, root: Path, settings: dict[str, Any]) -> None:
    """Run all steps that are not yet done, and write the dataset.

    Args:
        clip: the input.
        root: the dataset folder, opened.
        settings: JSON-able, everything that the result depends on. `track` is the number of the audio track.

    Raises:
        UnusableClipError: no usable face, or a video that cannot be read.
        UnfinishedError: the video changed, or images were removed while it was prepared.
        DatasetError: frames are missing at the end.
    """
    work = Workspace(root)
    with work.in_place():
        _build(clip, work, settings)


def _build(clip: Clip, work: Workspace, settings: dict[str, Any]) -> None:
    """See `build`."""
    root, expected = work.root, clip.info.frames_at()
    with WorkerPool(expected) as pool:
        scanned = scan.load_scan(work.run("scan", lambda step: scan.scan(step, clip.video, expected, pool),
                                          {"version": settings["version"], "video": settings["video"]},
                                          results=lambda step: scan.results(step, expected)))
        account.check_read(clip.video.path, expected, scanned)
        shots = find_shots(find_cuts(scanned.thumbs), scanned.num_frames)
        shot = choose_shot(shots, scanned.face_seen, settings["scenes"])
        seen, source = scanned.part(shot.start, shot.stop), Source(clip.video, shot.start, len(shot), clip.info.alpha)
        main, others = _person(work, source, seen, settings, clip.wave, pool)
        tracked = work.run("track", lambda step: landmark_tracking.track_face(step, source, seen, main, others, pool),
                           {"shot": [shot.start, shot.stop], "person": hashlib.sha256(main.tobytes()).hexdigest()},
                           ["scan"], results=lambda step: landmark_tracking.results(step, len(shot)))
        raw = load_chunks(tracked)
        if not raw["found"].any():
            raise UnusableClipError("a face in the clip", "none that could be tracked", NO_FACE)
        square = choose_crop(raw["landmarks"], raw["found"], seen.width, seen.height)
        size = native_size(square) if settings["size"] == NATIVE else settings["size"]
        landmarks = face.fill_gaps(to_crop(raw["landmarks"], square, size), raw["found"])
        posed = work.run("pose", lambda step: _pose_step(step, landmarks, raw["found"], size, settings["focal"]),
                         {"size": size, "focal": settings["focal"]}, ["track"],
                         results=lambda step: [_pose_result(step, len(shot))])
        framed = work.run(
            "frames", lambda step: _frames_step(step, tracked, source, root, square, landmarks, size, pool),
            {"size": size}, ["track"], clears=("frames", "masks"),
            results=lambda step: extract.results(step, len(shot), root, size))
        seen_by = work.run("camera", lambda step: camera.track_camera(step, root, len(shot), pool), needs=["frames"],
                           results=lambda step: camera.results(step, len(shot)))
        motion = camera.solve_camera(root, load_chunks(seen_by), size, _num_train(len(shot)))
        summed, margin = _canvas(work, motion.camera, size, pool)
    plated = work.run("plate", lambda step: _plate_step(step, summed, work.folder), {"margin": margin},
                      ["frames", "camera"], publishes=["background.png"], results=lambda step: [
                          _number_result(step, "uncovered", "plate.npz", root / "background.png")])
    tracking, focal = _tracking(posed, landmarks, raw["found"], size)
    if motion.camera.any():
        tracking["camera"] = motion.camera
    mouth = lower_face(landmark_motion(landmarks, tracking["w2c"], tracking["mean_face"], focal, size))
    heard = work.run("sound", lambda step: _audio_step(step, work.folder, clip, shot, mouth),
                     {name: settings[name] for name in ("features", "encoder", "track")}, ["pose"],
                     publishes=["features.npy", "audio.wav"], results=lambda step: [
                         _number_result(step, "late", "sound.npz", root / "features.npy", root / "audio.wav")])
    wave = audio.load_audio(root / "audio.wav")
    report = quality.measure(
        seen, others, tracking, square, size, wave,
        uncovered=float(read_npz(plated.folder / "plate.npz")["uncovered"]),
        person_share=1 - float(np.concatenate([part["shares"][:, 2] for part in read_chunks(framed)]).mean()),
        late=float(read_npz(heard.folder / "sound.npz")["late"]))
    report["source"] |= {"hdr": clip.info.hdr, "alpha": clip.info.alpha, "path": str(clip.video.path.absolute())}
    report["sound"]["notes"], report["face"] = clip.notes, settings["face"]
    if "speaker" in work.steps:
        report["follows"] = read_npz(work.steps["speaker"].folder / "speaker.npz")["follows"].round(3).tolist()
    report["camera"] = quality.camera_report(motion, size, margin)
    report["account"] = account.make_account(clip.info, scanned, shots, shot)
    if remove_damaged(extract.results(framed, len(shot), root, size)):
        raise UnfinishedError("the frames and masks that were written", "some of them gone or damaged",
                              "Repeat the same call, which makes them again.")
    account.check_account(report["account"], root, {
        "tracking.npz": len(landmarks), "features.npy": len(read_npy(root / "features.npy")),
        "audio.wav": len(wave) / SAMPLES_PER_FRAME})
    _write_dataset(root, clip, settings, report, tracking, wave, square, size, focal, work)


def _num_train(num_frames: int) -> int:
    return max(1, num_frames * 10 // 11)


def _canvas(work: Workspace, motion: np.ndarray, size: int, pool: WorkerPool) -> tuple[Step, int]:
    """The step that holds the sums of the plate, and the margin of the plate around a frame, px.

    Args:
        motion: [N, 7], see `Dataset.camera`; of a still camera zeros, and the sums are those of `frames`.
    """
    if not motion.any():
        return work.steps["frames"], 0
    margin, _ = canvas_margin(motion[:, :VIEW], size)
    side = size + 2 * margin
    return work.run("canvas", lambda step: plate.plate_of_canvas(step, work.root, motion, side, pool),
                    {"margin": margin}, ["frames", "camera"],
                    results=lambda step: plate.canvas_results(step, len(motion), side)), margin


def _pose_result(step: Step, num_frames: int) -> Result:
    return Result(step.folder / "pose.npz", {
        "w2c": ArraySpec((num_frames, 4, 4)), "mean_face": ArraySpec((face.NUM_LANDMARKS, 3)),
        "reprojection": ArraySpec((num_frames,)), "focal": ArraySpec(())})


def _number_result(step: Step, name: str, file: str, *others: Path) -> Result:
    """Of a step that keeps one number, and writes other files before it."""
    return Result(step.folder / file, {name: ArraySpec(())}, others)


def _tracking(posed: Step, landmarks: np.ndarray, found: np.ndarray, size: int) -> tuple[dict[str, np.ndarray], float]:
    """The arrays of `tracking.npz`, and the focal length in px."""
    poses = read_npz(posed.folder / "pose.npz")
    focal = float(poses.pop("focal"))
    return {"landmarks": landmarks, "found": found, **poses, "blink": face.blink_curve(landmarks, found),
            "aperture": aperture(landmarks),
            "lip_rect": face.rectangles(landmarks, face.LIPS, face.LIP_MARGIN, size),
            "eye_rect": face.rectangles(landmarks, face.EYE_REGION, face.EYE_MARGIN, size)}, focal


def _write_dataset(root: Path, clip: Clip, settings: dict[str, Any], report: dict[str, Any],
                   tracking: dict[str, np.ndarray], wave: np.ndarray, square: Crop, size: int, focal: float,
                   work: Workspace) -> None:
    """Write arrays and report and, last, `dataset.json`, which marks the dataset as finished."""
    report["warnings"] = quality.find_problems(report)
    report["seconds_per_step"] = {name: step.seconds for name, step in work.steps.items()}
    write_npz(work.folder / "tracking.npz", **tracking)
    work.publish("tracking.npz")
    (root / "report").mkdir(exist_ok=True)
    overlay.write_sheet(root, tracking, focal)
    overlay.write_curves(root, tracking, pose_math.euler(tracking["w2c"]), wave)
    n = report["account"]["kept"]
    for name, record in (("report.json", report), ("dataset.json", {
            "format": FORMAT, "source": clip.video.path.name, "fps": FPS, "size": size, "num_frames": n,
            "crop": list(square), "focal": focal, "encoder": settings["encoder"], "num_train": _num_train(n),
            "settings": {name: value for name, value in settings.items() if name != "encoder"}})):
        write_json(work.folder / name, record)
        os.sync()  # the images, before a file says that they are there
        work.publish(name)
    work.remove()


def _person(work: Workspace, source: Source, seen: scan.Scan, settings: dict[str, Any], wave: np.ndarray,
            pool: WorkerPool) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [M, 4] of the person that the dataset is about, and the number of others at each detection [M]."""
    found = people.find_people(seen.boxes)
    if not found:
        raise UnusableClipError("a face in the clip", "none in any frame", NO_FACE)
    if settings["face"] == "speaking":
        candidates = people.prominent(found)
        speaker = work.run("speaker", lambda step: speaking.find_speaker(step, source, seen, candidates, wave, pool),
                           {"shot": [source.first, source.num_frames], "track": settings["track"]}, ["scan"],
                           results=speaking.results)
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


def _plate_step(step: Step, summed: Step, folder: Path) -> None:
    """Write `background.png`, and the share of its pixels that were visible in the clip."""
    image, uncovered = plate.clean_plate(read_chunks(summed))
    write_png(folder / "background.png", image)
    write_npz(step.folder / "plate.npz", uncovered=np.array(uncovered, np.float32))


def _audio_step(step: Step, folder: Path, clip: Clip, shot: range, mouth: np.ndarray) -> None:
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
        # if the audio ends a little before the video, the last window is repeated
        windows = clip.features[np.minimum(shot, len(clip.features) - 1)]
    write_npy(folder / "features.npy", windows)
    audio.save_wav(folder / "audio.wav", wave)
    write_npz(step.folder / "sound.npz", late=np.array(late, np.float64))


def _of_shot(wave: np.ndarray, shot: range) -> np.ndarray:
    """The samples of the shot's frames, padded with silence where the audio is shorter."""
    part = wave[shot.start * SAMPLES_PER_FRAME:shot.stop * SAMPLES_PER_FRAME]
    return np.pad(part, (0, len(shot) * SAMPLES_PER_FRAME - len(part)))
