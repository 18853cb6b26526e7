"""What a video shows, frame by frame: audio features, eyes, camera and head pose, made from audio or from the clip."""
from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import torch

from ..core.errors import InputError
from ..media.audio import load_audio, load_features
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..speech.encoders import load_encoder
from ..speech.voice_activity import loudness, shut_in_silence, silent_note
from . import motion
from .motion import Blink, Poses

if TYPE_CHECKING:
    from .renderer import Renderer


@dataclass
class Script:
    """What a video of F frames shows.

    Attributes:
        features: [F, 16, 29] float32 audio features, or more of them, see `Mouth.context`; None in a replay, which has
            the mouth of the `source` frames.
        silent: [F] float32 0...1, how far the mouth is closed because of silence; None in a replay.
        eyes: [F, 7] float32 lids, brows and gaze, see `upper_face`.
        w2c: [F, 4, 4] float32 world-to-camera, OpenCV axes: the camera.
        pose: [F, 4, 4] float32, the head pose that the network is conditioned on. It differs from `w2c` where the
            camera leaves the range of the clip, in which the network would extrapolate.
        source: [F] int, the frame of the clip that each pose is taken from; None if the poses are not the clip's own.
        wave: [F * 640] float32, the audio of the video, 16 kHz; None if there is none.
    """

    features: Optional[np.ndarray]
    silent: Optional[np.ndarray]
    eyes: np.ndarray
    w2c: np.ndarray
    pose: np.ndarray
    source: Optional[np.ndarray]
    wave: Optional[np.ndarray]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.w2c)

    def part(self, first: int, last: int) -> Script:
        """Its frames [first, last), without the audio."""
        arrays: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            arrays[name] = None if value is None or name == "wave" else value[first:last]
        return Script(**arrays)


def replay_script(renderer: Renderer, split: str, start: float = 0.0, duration: Optional[float] = None) -> Script:
    """The clip's own frames with its own audio, in the poses that the head was trained with.

    Args:
        renderer: of the head; gives the clip and the poses.
        split: `train`, `val` or `all`.
        start: where in the split the script begins, in seconds.
        duration: in seconds; default: to the end of the split.

    Raises:
        InputError: a part outside the split.
        DatasetError: no such split.
    """
    ds = renderer.ds
    ids = np.asarray(ds.split(split))
    first, last = _frame_range(len(ids), start, duration)
    ids = ids[first:last]
    wave = ds.audio()[ids[0] * SAMPLES_PER_FRAME:(ids[-1] + 1) * SAMPLES_PER_FRAME]
    w2c = renderer.w2c[ids]
    return Script(None, None, ds.eyes[ids], w2c, w2c, ids, _fit_length(wave, len(ids)))


def audio_script(renderer: Renderer, audio: str | Path, features: Optional[str | Path] = None,
                 poses: Poses = "cycle", blink: Blink = "dataset", start: float = 0.0,
                 duration: Optional[float] = None) -> Script:
    """Any audio, with these poses and blinks.

    Args:
        renderer: of the head; gives the clip and the poses.
        audio: any audio file or video with audio.
        features: .npy of audio features [num_frames, 16, 29]; computed from the audio if None.
        poses: see `render`.
        blink: see `render`.
        start: where in the audio the script begins, in seconds.
        duration: in seconds; default: to the end of the audio.

    Warns:
        UserWarning: the audio is inaudible throughout.

    Raises:
        InputError: unusable audio, features that do not fit it, poses or blinks that cannot be used, a part outside.
        DatasetError: `poses` is a folder without a dataset.
    """
    wave = load_audio(audio)
    if features is not None:
        windows = load_features(features, wave)
    else:
        windows = load_encoder(renderer.ds.encoder).features(wave)
    context = renderer.head.mouth.context(torch.from_numpy(windows)).numpy()
    note = silent_note(loudness(wave, len(windows)).max(), f"'{audio}'")
    if note:
        warnings.warn(note, stacklevel=1)  # this line as origin: Python then warns once per file, not once per caller
    first, last = _frame_range(len(windows), start, duration)
    count = last - first
    source, w2c, pose = motion.head_motion(renderer, poses, count)
    eyes = motion.eye_motion(renderer.ds, blink, count)
    part = wave[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    return Script(context[first:last], shut_in_silence(wave, len(windows))[first:last], eyes, w2c, pose, source,
                  _fit_length(part, count))


def _fit_length(wave: np.ndarray, frames: int) -> np.ndarray:
    """Pad audio with silence, or cut it, to the length of `frames` video frames."""
    samples = frames * SAMPLES_PER_FRAME
    return np.pad(wave[:samples], (0, max(0, samples - len(wave))))


def _frame_range(total: int, start: float, duration: Optional[float]) -> tuple[int, int]:
    """Convert a start and a duration in seconds to frames [first, last) at 25 fps."""
    if not all(abs(seconds) < 1e9 for seconds in (start, duration or 0.0)):  # not of NaN either
        raise InputError("start and duration in seconds", f"start={start}, duration={duration}", "Give finite numbers.")
    first = int(round(start * FPS))
    last = total if duration is None else first + int(round(duration * FPS))
    if not 0 <= first < last <= total:
        span = f"start={start} s, duration={duration} s"
        raise InputError(f"a part inside 0 ... {total / FPS:.2f} s", span, "Choose a shorter or earlier part.")
    return first, last
