"""From a trained run and a sound to a video."""
from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Literal, Optional

import cv2
import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset
from .errors import InputError
from .files import check_target
from .frames import Frames
from .graphs import Captured
from .model import Head, audio_windows
from .progress import Progress
from .rasterizer.cuda import SPARE
from .run import Run, default_device

FPS = 25
SAMPLES_PER_FRAME = 640   # 16 kHz sound at 25 fps
ORBIT_YAW, ORBIT_PITCH, ORBIT_SECONDS = 15.0, 6.0, 4.0  # degrees, degrees, seconds a round
POSES = ("cycle", "static", "orbit")


@dataclass
class Script:
    """What a video shows, frame by frame.

    Attributes:
        features: [M, 16, 29] float32 of the whole sound; rows: [F] the feature window of each video frame.
        source: [F] the dataset frame that lends each video frame its torso and eyes.
        w2c: [F, 4, 4] float32. wave: the sound of exactly F frames, or None.
    """

    features: np.ndarray
    rows: np.ndarray
    source: np.ndarray
    w2c: np.ndarray
    wave: Optional[np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Video:
    """A finished video; shows itself in a notebook.

    Attributes:
        path: the MP4. frames: their number. render_fps: network, rasteriser and background composite, the device
            waited for (frames/s). total_fps: all of it, reading and video encoding included.
    """

    path: Path
    frames: int
    render_fps: float
    total_fps: float

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def __str__(self) -> str:
        return (f"{self.path}: {self.frames} frames, {self.seconds:.2f} s; {self.render_fps:.1f} frames/s for network, "
                f"rasteriser and composite (device waited for), {self.total_fps:.1f} with reading and encoding")

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.path.read_bytes()).decode()
        return f'<video controls width="512" src="data:video/mp4;base64,{data}"></video><br><code>{self}</code>'


def render(run: Run, audio: Optional[str | Path] = None, out: Optional[str | Path] = None,
           features: Optional[str | Path] = None, poses: Literal["cycle", "static", "orbit"] = "cycle",
           iteration: Optional[int] = None, start: float = 0.0, duration: Optional[float] = None, batch: int = 8,
           split: Literal["train", "val", "all"] = "val", compare: bool = False,
           device: Optional[str | torch.device] = None) -> Video:
    """Drive a trained head and write an H.264/AAC MP4 at 25 fps.

    Args:
        run: see `load_run`. audio: any sound file or video, any length and rate; None replays frames of the dataset.
        out: the MP4; default: a name in the run's `renders/`.
        features: .npy of [num_frames, 16, 29] for `audio` (the upstream contract); computed from the sound if None.
        poses: with `audio`: `cycle` plays the dataset's poses back and forth, `static` keeps its middle pose,
            `orbit` moves the camera around that. iteration: checkpoint, default the newest.
        start, duration: the part of the sound (or split) in seconds. batch: frames at a time.
        split: without `audio`: the frames to replay. compare: without `audio`: the video's own frame beside each.

    Raises:
        InputError: unusable sound, features that do not fit the sound or the run, unknown choice.
    """
    device = torch.device(device) if device is not None else default_device()
    if batch < 1:
        raise InputError("batch of at least 1", str(batch), "Choose how many frames are rendered at a time.")
    if compare and audio is not None:
        raise InputError("compare=True without audio", f"audio={str(audio)!r}",
                         "Another sound has no ground truth to compare with: leave one of the two out.")
    if features is not None and audio is None:
        raise InputError("audio together with features", "features alone", "Give the sound that they belong to.")
    if poses not in POSES:
        raise InputError(f"poses {', '.join(POSES)}", repr(poses), "Choose one of them.")
    ds = run.dataset
    number = run.pick(iteration)
    if audio is None:
        script, name = replay_script(ds, split, start, duration), f"{split}{'_compare' if compare else ''}"
    else:
        script, name = audio_script(run, audio, features, poses, start, duration), f"{Path(audio).stem}_{poses}"
    out = Path(out) if out is not None else run.root / "renders" / f"{name}_{number}.mp4"
    out = check_target(out, ".mp4", audio, features)
    from .video_writer import write_video

    renderer = Renderer(run.load_head(number, device), ds, deform=number > run.config.coarse_iterations)
    began = time.perf_counter()
    with Progress(len(script), f"render {out.name}", "frame") as bar:
        write_video(out, renderer.pictures(script, batch, bar, compare), script.wave, FPS)
    elapsed = time.perf_counter() - began
    return Video(out, len(script), len(script) / max(renderer.seconds, 1e-9), len(script) / elapsed)


def replay_script(ds: Dataset, split: str, start: float = 0.0, duration: Optional[float] = None) -> Script:
    """The dataset's own frames with its own sound."""
    ids = np.asarray(ds.split(split))
    first, last = _window(len(ids), start, duration)
    ids = ids[first:last]
    sound = ds.audio()[ids[0] * SAMPLES_PER_FRAME:(ids[-1] + 1) * SAMPLES_PER_FRAME]
    return Script(ds.features, ids, ids, ds.w2c[ids], _exactly(sound, len(ids)))


def audio_script(run: Run, audio: str | Path, features: Optional[str | Path], poses: str, start: float = 0.0,
                 duration: Optional[float] = None) -> Script:
    """Another sound on the dataset's poses, eyes and torso."""
    from .audio import encoder_spec, extract_features, load_audio, load_features

    ds, wave = run.dataset, load_audio(audio)
    if features is not None:
        windows = load_features(features, wave)
    elif run.manifest["encoder"] != encoder_spec():
        raise InputError(f"sound features computed as the dataset's were ({run.manifest['encoder'].get('name')})",
                         f"only the built-in encoder ({encoder_spec()['name']}) for '{audio}'",
                         "Give the features of this sound from the dataset's own encoder as features=....npy.")
    else:
        windows = extract_features(wave)
    first, last = _window(len(windows), start, duration)
    count = last - first
    source, w2c = POSE_PATHS[poses](ds, count)
    sound = wave[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    return Script(windows, np.arange(first, last), source, w2c, _exactly(sound, count))


def _exactly(sound: np.ndarray, frames: int) -> np.ndarray:
    """The sound padded with silence or cut to the length of `frames` frames."""
    samples = frames * SAMPLES_PER_FRAME
    return np.pad(sound[:samples], (0, max(0, samples - len(sound))))


def _window(total: int, start: float, duration: Optional[float]) -> tuple[int, int]:
    """Frames [first, last) of a part in seconds, on the 25 fps grid."""
    if not np.isfinite([start, duration or 0.0]).all():
        raise InputError("start and duration in seconds", f"start={start}, duration={duration}", "Give finite numbers.")
    first = int(round(start * FPS))
    last = total if duration is None else first + int(round(duration * FPS))
    if not 0 <= first < last <= total:
        span = f"start={start} s, duration={duration} s"
        raise InputError(f"a part inside 0 ... {total / FPS:.2f} s", span, "Choose a shorter or earlier part.")
    return first, last


def cycle(num_frames: int, count: int) -> np.ndarray:
    """0, 1, ..., n-1, n-2, ..., 1, 0, 1, ...: `count` frame numbers that run back and forth without a jump."""
    if num_frames == 1:
        return np.zeros(count, int)
    there_and_back = np.concatenate([np.arange(num_frames), np.arange(num_frames - 2, 0, -1)])
    return np.resize(there_and_back, count)


def middle_frame(ds: Dataset) -> int:
    """The dataset frame whose pose is nearest to the mean pose, among those with open eyes."""
    distance = np.linalg.norm((ds.w2c - ds.w2c.mean(0)).reshape(len(ds), -1), axis=1)
    return int(np.argmin(distance + np.where(ds.blink > 0.5, 1e3, 0)))


def _cycle_path(ds: Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    source = cycle(ds.num_frames, count)
    return source, ds.w2c[source]


def _static_path(ds: Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.full(count, middle_frame(ds))
    return source, ds.w2c[source]


def _orbit_path(ds: Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    source, w2c = _static_path(ds, count)
    phase = 2 * np.pi * np.arange(count) / (ORBIT_SECONDS * FPS)
    yaw, pitch = np.radians(ORBIT_YAW) * np.sin(phase), np.radians(ORBIT_PITCH) * np.sin(2 * phase)
    turns = np.stack([cv2.Rodrigues(np.array([p, y, 0.0]))[0] for p, y in zip(pitch, yaw)])
    moved = w2c.copy()
    moved[:, :3, :3] = w2c[:, :3, :3] @ turns  # the camera circles the head's origin; the distance stays
    return source, moved.astype(np.float32)


POSE_PATHS = {"cycle": _cycle_path, "static": _static_path, "orbit": _orbit_path}


class Renderer:
    """Renders scripts with one head; counts the seconds spent on the device.

    Args:
        head: on its device. ds: lends backgrounds and eyes. deform: False for a head of the coarse stage.
    """

    def __init__(self, head: Head, ds: Dataset, deform: bool = True):
        self.head, self.ds, self.deform = head, ds, deform
        self.device = next(head.parameters()).device
        self.K = ds.K.to(self.device)
        self.seconds = 0.0
        self._spatial = None
        self._draw = Captured(self._device_work, self.device)
        self._features: Optional[Tensor] = None
        self._slot: tuple[Tensor, ...] = ()
        self._room = 0

    @torch.no_grad()
    def batch(self, features: Tensor, rows: Tensor, eyes: Tensor, w2c: Tensor,
              background: Optional[Tensor] = None, pose: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """rgb [B, S, S, 3] 0...1 and alpha [B, S, S, 1] of B frames; arguments on the device, see `Head.render`."""
        began = time.perf_counter()
        if self.deform and self._spatial is None:
            self._spatial = self.head.spatial()
        self._fill_slot(features, rows, eyes, w2c, w2c if pose is None else pose)
        splats, alpha, pairs = self._draw()
        alpha = alpha.clone()  # the next drawing writes into the same memory
        rgb = splats.clone() if background is None else torch.addcmul(splats, 1 - alpha, background)
        rgb.clamp_(0, 1)
        if self.device.type == "cuda":
            pairs = int(pairs)  # waits for the device
            if pairs > self._room:
                self._room = int(SPARE * pairs)
                if self._draw.recorded:  # some Gaussians were left out: draw again, with more room
                    self._draw.reset()
                    return self.batch(features, rows, eyes, w2c, background, pose)
        self.seconds += time.perf_counter() - began
        return rgb, alpha

    def _fill_slot(self, features: Tensor, *given: Tensor) -> None:
        """Copy a batch to where the recorded drawing reads it."""
        if features is not self._features or len(given[0]) != len(self._slot[0]):
            self._features, self._slot, self._room = features, tuple(x.clone() for x in given), 0
            self._draw.reset()
        for place, x in zip(self._slot, given):
            place.copy_(x)

    def _device_work(self) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        rows, eyes, w2c, pose = self._slot
        rgb, alpha, info = self.head.render(audio_windows(self._features, rows), eyes, w2c, self.K, self.ds.size, None,
                                            self.deform, self._spatial, pose,
                                            self._room if self._draw.recording else None)
        return rgb, alpha, info.get("pairs")

    def pictures(self, script: Script, batch: int, bar: Progress, compare: bool = False) -> Iterator[np.ndarray]:
        """Frames of the video, [S, S, 3] uint8 ([S, 2S, 3] with `compare`)."""
        frames = Frames(self.ds, sorted(set(script.source.tolist())), self.device)
        features = torch.from_numpy(script.features).to(self.device)
        chunks = [np.arange(i, min(i + batch, len(script))) for i in range(0, len(script), batch)]
        for n, chunk in enumerate(chunks):
            source = script.source[chunk].tolist()
            given = frames.batch(source)
            if n + 1 < len(chunks):
                frames.prefetch(script.source[chunks[n + 1]].tolist())
            rgb, _ = self.batch(features, torch.from_numpy(script.rows[chunk]).to(self.device), given["eyes"],
                                torch.from_numpy(script.w2c[chunk]).to(self.device), given["background"],
                                pose=given["w2c"])  # the orbit leaves the poses that the network knows
            if compare:
                rgb = torch.cat([rgb, given["frame"]], 2)
            for picture in (rgb * 255).round().byte().cpu().numpy():
                yield _labelled(picture, ("render", "ground truth")) if compare else picture
            bar.update(len(chunk))


def _labelled(picture: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Names in the upper left corner of each part of a row of pictures."""
    picture = np.ascontiguousarray(picture)
    size = picture.shape[0]
    for n, name in enumerate(names):
        at = (n * size + size // 40, size // 14)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(picture, name, at, cv2.FONT_HERSHEY_SIMPLEX, size / 700, colour, width, cv2.LINE_AA)
    return picture
