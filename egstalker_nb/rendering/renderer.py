"""A head, frame by frame: what a video shows, and who draws it."""
from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ..core.cuda_graph import Captured
from ..core.errors import InputError
from ..core.progress import Progress
from ..data.conditions import Conditions
from ..data.dataset import Dataset
from ..media.audio import load_audio, load_features
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..model.head import Head
from ..rasterizer.capacity import IsectCapacity
from ..speech.encoders import load_encoder
from ..speech.voice_activity import loudness, shut_in_silence, silent_note
from ..training.run import Run
from . import motion
from .motion import Blink, Poses


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
    source, w2c, pose = motion.head_motion(renderer, poses, count)
    eyes = motion.eye_motion(renderer.ds, blink, count)
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
        self._slot: Optional[Conditions] = None
        self._capacity = IsectCapacity()

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

    def conditions(self, ids: Sequence[int]) -> Conditions:
        """What frames `ids` of the clip are drawn from, on the device."""
        index = torch.as_tensor(list(ids), device=self.device)
        return self.head.conditions(index, torch.from_numpy(self.ds.eyes).to(self.device)[index])

    @torch.no_grad()
    def batch(self, given: Conditions, background: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """rgb [B, S, S, 3] 0...1 and alpha [B, S, S, 1] of B frames; arguments on the device, see `Head.render`."""
        began = time.perf_counter()
        if self.deform and self._spatial is None:
            self._spatial = self.head.spatial()
        self._fill_slot(given)
        splats, alpha, num_isects = self._draw()
        alpha = alpha.clone()  # the next drawing writes into the same memory
        rgb = splats.clone() if background is None else torch.addcmul(splats, 1 - alpha, background)
        rgb.clamp_(0, 1)
        if self.device.type == "cuda":
            count = int(num_isects)  # waits for the device
            if not self._capacity.fits(count):
                self._capacity.grow(count)
                if self._draw.recorded:  # some Gaussians were left out: render again, with a larger capacity
                    self._draw.reset()
                    return self.batch(given, background)
        self.seconds += time.perf_counter() - began
        return rgb, alpha

    def _fill_slot(self, given: Conditions) -> None:
        """Copy a batch to where the recorded drawing reads it."""
        if self._slot is None or len(given) != len(self._slot):
            self._slot, self._capacity = given.clone(), IsectCapacity()
            self._draw.reset()
        self._slot.copy_(given)

    def _device_work(self) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        rgb, alpha, info = self.head.render(self._slot, self.K, self.ds.size, None, self.deform, self._spatial,
                                            self._capacity.value if self._draw.recording else None)
        return rgb, alpha, info.get("num_isects")

    def mouth(self, script: Script) -> Tensor:
        """Codes of the mouth [F, 8] in each frame: what the sound calls for, or the dataset's own in a replay."""
        if script.features is None:
            return self.head.mouth.coefficients[script.source]
        features, silent = (torch.from_numpy(x).to(self.device) for x in (script.features, script.silent))
        return self.head.mouth.predict(features, silent)

    def conditions_of(self, script: Script) -> Conditions:
        """What the frames of a script are drawn from, on the device."""
        eyes, w2c, pose = (torch.from_numpy(x).to(self.device) for x in (script.eyes, script.w2c, script.pose))
        return Conditions(self.mouth(script), eyes, w2c, pose)

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
        rgb, _ = self.batch(self.conditions_of(script), self.head.torso(self.torso(script)))
        return (rgb * 255).round().byte().cpu().numpy()


def _beside(render: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two pictures side by side, [S, 2 S, 3] uint8, with their names in the upper left corners."""
    size, both = len(render), np.ascontiguousarray(np.concatenate([render, truth], 1))
    for n, name in enumerate(("render", "ground truth")):
        at = (n * size + size // 40, size // 14)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(both, name, at, cv2.FONT_HERSHEY_SIMPLEX, size / 700, colour, width, cv2.LINE_AA)
    return both
