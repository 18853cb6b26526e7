"""From a trained run and a sound to a video."""
from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Iterator, Literal, Optional, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from . import control, player
from .audio import FPS, SAMPLES_PER_FRAME, load_audio, load_features
from .control import Blink, Poses
from .dataset import Dataset
from .encoders import load_encoder
from .errors import InputError
from .files import check_target
from .graphs import Captured
from .model import Head
from .mouth import shut_in_silence
from .progress import Progress
from .rasterizer.cuda import SPARE
from .run import Run
from .silence import loudness, silent_note


@dataclass
class Script:
    """What a video shows, frame by frame.

    Attributes:
        features: [F, 16, 29] float32, what each video frame hears; silent: [F] float32 0...1, how far the mouth is
            shut for silence. Both None in a replay, which shows the mouth of the `source` frames.
        eyes: [F, 7] float32, lids, brows and gaze (see `upper_face`).
        w2c: [F, 4, 4] float32, the camera. pose: [F, 4, 4] float32, what the network is told instead: it would
            extrapolate where the camera leaves the clip's range.
        source: [F] the dataset frame whose pose each video frame has; None where poses are not the clip's own.
        wave: the sound of exactly F frames, or None.
    """

    features: Optional[np.ndarray]
    silent: Optional[np.ndarray]
    eyes: np.ndarray
    w2c: np.ndarray
    pose: np.ndarray
    source: Optional[np.ndarray]
    wave: Optional[np.ndarray]

    def __len__(self) -> int:
        return len(self.w2c)

    def part(self, first: int, last: int) -> "Script":
        """Its frames [first, last), without the sound."""
        return Script(*(None if x is None else x[first:last] for x in (
            self.features, self.silent, self.eyes, self.w2c, self.pose, self.source)), None)


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
        return f"{player.html(self.path)}<br><code>{escape(str(self))}</code>"


def render(run: Run, audio: Optional[str | Path] = None, out: Optional[str | Path] = None,
           features: Optional[str | Path] = None, poses: Optional[Poses] = None, blink: Optional[Blink] = None,
           iteration: Optional[int] = None, start: float = 0.0, duration: Optional[float] = None, batch: int = 8,
           split: Literal["train", "val", "all"] = "val", compare: bool = False,
           device: Optional[str | torch.device] = None) -> Video:
    """Drive a trained head and write an H.264/AAC MP4 at 25 fps.

    Args:
        run: see `load_run`. audio: any sound file or video, any length and rate; None replays frames of the dataset.
        out: the MP4; default: a name in the run's `renders/`.
        features: .npy of [num_frames, 16, 29] for `audio` (the upstream contract); computed from the sound if None.
        poses: with `audio`: `cycle` (default) plays the dataset's poses back and forth, `static` keeps its middle
            pose, `orbit` moves the camera around that; another `Dataset` or its folder lends its head motion, back
            and forth, around this head's mean pose; an array [F, 4, 4] or .npy is used as given: world-to-camera,
            OpenCV axes, the world being the head's frame (see `Dataset.w2c`), one for each video frame or more.
        blink: with `audio`: `dataset` (default) keeps the clip's lids; a number draws natural blinks, so many a minute
            (people: 15-20; 0: never); an array [F] or .npy of 0 open ... 1 closed. The lids stay within what the
            training frames show. Brows and gaze are the clip's.
        iteration: checkpoint, default the newest.
        start, duration: the part of the sound (or split) in seconds. batch: frames at a time.
        split: without `audio`: the frames to replay. compare: without `audio`: the video's own frame beside each.

    Raises:
        InputError: unusable sound, features that do not fit the sound or the run, poses or blinks that cannot be
            used, unknown choice. DatasetError: `poses` is a folder without a dataset.
    """
    if batch < 1:
        raise InputError("batch of at least 1", str(batch), "Choose how many frames are rendered at a time.")
    if compare and audio is not None:
        raise InputError("compare=True without audio", f"audio={str(audio)!r}",
                         "Another sound has no ground truth to compare with: leave one of the two out.")
    if features is not None and audio is None:
        raise InputError("audio together with features", "features alone", "Give the sound that they belong to.")
    given = {name: value for name, value in (("poses", poses), ("blink", blink)) if value is not None}
    if audio is None and given:
        raise InputError(f"audio together with {' and '.join(given)}", "no audio",
                         "A replay keeps the clip's own: give a sound, or leave this out.")
    number = run.pick(iteration)
    renderer = Renderer.from_run(run, number, device)
    if audio is None:
        script, name = replay_script(renderer, split, start, duration), f"{split}{'_compare' if compare else ''}"
    else:
        script = audio_script(renderer, audio, features, start=start, duration=duration, **given)
        name = f"{Path(audio).stem}_{control.label(given.get('poses', 'cycle'))}"
    out = Path(out) if out is not None else run.root / "renders" / f"{name}_{number}.mp4"
    out = check_target(out, ".mp4", audio, features)
    from .video_writer import write_video

    began = time.perf_counter()
    with Progress(len(script), f"render {out.name}", "frame") as bar:
        write_video(out, renderer.pictures(script, batch, bar, compare), script.wave, FPS)
    elapsed = time.perf_counter() - began
    return Video(out, len(script), len(script) / max(renderer.seconds, 1e-9), len(script) / elapsed)


def replay_script(renderer: "Renderer", split: str, start: float = 0.0, duration: Optional[float] = None) -> Script:
    """The dataset's own frames with its own sound, in the poses that the head was trained on."""
    ds = renderer.ds
    ids = np.asarray(ds.split(split))
    first, last = _window(len(ids), start, duration)
    ids = ids[first:last]
    sound = ds.audio()[ids[0] * SAMPLES_PER_FRAME:(ids[-1] + 1) * SAMPLES_PER_FRAME]
    w2c = renderer.w2c[ids]
    return Script(None, None, ds.eyes[ids], w2c, w2c, ids, _exactly(sound, len(ids)))


def audio_script(renderer: "Renderer", audio: str | Path, features: Optional[str | Path] = None,
                 poses: Poses = "cycle", blink: Blink = "dataset", start: float = 0.0,
                 duration: Optional[float] = None) -> Script:
    """Another sound with these poses and blinks, see `render`."""
    wave = load_audio(audio)
    if features is not None:
        windows = load_features(features, wave)
    else:
        windows = load_encoder(renderer.ds.encoder).features(wave)
    note = silent_note(loudness(wave, len(windows)).max(), f"'{audio}'")
    if note:
        warnings.warn(note, stacklevel=1)  # from here: once for a file, whatever is made of it
    first, last = _window(len(windows), start, duration)
    count = last - first
    source, w2c, pose = control.head_motion(renderer, poses, count)
    eyes = control.eye_motion(renderer.ds, blink, count)
    sound = wave[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    return Script(windows[first:last], shut_in_silence(wave, len(windows))[first:last], eyes, w2c, pose, source,
                  _exactly(sound, count))


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


class Renderer:
    """Draws one head, in the poses that it was trained on where frames of its clip are followed; counts the seconds
    spent on the device. `from_run` makes one of a trained run.

    Args:
        head: on its device. ds: the clip it was trained on. deform: False for a head of the coarse stage.
    """

    def __init__(self, head: Head, ds: Dataset, deform: bool = True):
        self.head, self.ds, self.deform = head, ds, deform
        self.device = next(head.parameters()).device
        self.K = ds.K.to(self.device)
        self.seconds = 0.0
        self._spatial = None
        self._draw = Captured(self._device_work, self.device)
        self._slot: tuple[Tensor, ...] = ()
        self._room = 0

    @classmethod
    def from_run(cls, run: Run, iteration: Optional[int] = None,
                 device: Optional[str | torch.device] = None) -> "Renderer":
        """Of a checkpoint (default: the newest) on a device (default: CUDA where there is one, else the CPU).

        Raises:
            DatasetError: no such checkpoint, or a damaged one; the dataset is gone or changed.
        """
        number = run.pick(iteration)
        return cls(run.load_head(number, device), run.dataset, deform=run.config.stage(number) == "fine")

    @property
    def w2c(self) -> np.ndarray:
        """The poses of all frames of the clip that the head was trained on, [N, 4, 4] float32, see `Head.w2c`."""
        return self.head.w2c.cpu().numpy()

    def conditions(self, ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """What the network is told of frames `ids` of the clip: mouth [B, 8], upper face [B, 7] and camera [B, 4, 4],
        on the device."""
        index = torch.as_tensor(list(ids), device=self.device)
        eyes = torch.from_numpy(self.ds.eyes).to(self.device)
        return self.head.mouth.codes[index], eyes[index], self.head.w2c[index]

    @torch.no_grad()
    def batch(self, mouth: Tensor, eyes: Tensor, w2c: Tensor,
              background: Optional[Tensor] = None, pose: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """rgb [B, S, S, 3] 0...1 and alpha [B, S, S, 1] of B frames; arguments on the device, see `Head.render`."""
        began = time.perf_counter()
        if self.deform and self._spatial is None:
            self._spatial = self.head.spatial()
        self._fill_slot(mouth, eyes, w2c, w2c if pose is None else pose)
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
                    return self.batch(mouth, eyes, w2c, background, pose)
        self.seconds += time.perf_counter() - began
        return rgb, alpha

    def _fill_slot(self, *given: Tensor) -> None:
        """Copy a batch to where the recorded drawing reads it."""
        if not self._slot or len(given[0]) != len(self._slot[0]):
            self._slot, self._room = tuple(x.clone() for x in given), 0
            self._draw.reset()
        for place, x in zip(self._slot, given):
            place.copy_(x)

    def _device_work(self) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        mouth, eyes, w2c, pose = self._slot
        rgb, alpha, info = self.head.render(mouth, eyes, w2c, self.K, self.ds.size, None, self.deform, self._spatial,
                                            pose, self._room if self._draw.recording else None)
        return rgb, alpha, info.get("pairs")

    def mouth(self, script: Script) -> Tensor:
        """Codes of the mouth [F, 8] in each frame: what the sound calls for, or the dataset's own in a replay."""
        if script.features is None:
            return self.head.mouth.codes[script.source]
        features, silent = (torch.from_numpy(x).to(self.device) for x in (script.features, script.silent))
        return self.head.mouth.heard(features, silent)

    def torso(self, script: Script) -> Tensor:
        """Codes of the torso in each frame: the clip's own where its frames are followed, else as the pose says."""
        torso = self.head.torso
        if script.source is not None:
            return torso.codes[script.source]
        return torso.codes_of(torch.from_numpy(script.pose).to(self.device))

    def pictures(self, script: Script, batch: int, bar: Progress, compare: bool = False) -> Iterator[np.ndarray]:
        """Frames of the video, [S, S, 3] uint8 ([S, 2S, 3] with `compare`)."""
        for first in range(0, len(script), batch):
            part = script.part(first, first + batch)
            for i, picture in enumerate(self.drawn(part)):
                yield _beside(picture, self.ds.frame(part.source[i])) if compare else picture
            bar.update(len(part))

    def drawn(self, script: Script) -> np.ndarray:
        """All frames of a short script at once, [F, S, S, 3] uint8."""
        eyes, w2c, pose = (torch.from_numpy(x).to(self.device) for x in (script.eyes, script.w2c, script.pose))
        rgb, _ = self.batch(self.mouth(script), eyes, w2c, self.head.torso(self.torso(script)), pose)
        return (rgb * 255).round().byte().cpu().numpy()


def _beside(render: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two pictures side by side, [S, 2 S, 3] uint8, with their names in the upper left corners."""
    size, both = len(render), np.ascontiguousarray(np.concatenate([render, truth], 1))
    for n, name in enumerate(("render", "ground truth")):
        at = (n * size + size // 40, size // 14)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(both, name, at, cv2.FONT_HERSHEY_SIMPLEX, size / 700, colour, width, cv2.LINE_AA)
    return both
