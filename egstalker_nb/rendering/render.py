"""From a trained run and a sound to a video."""
from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal, Optional

import torch

from ..core.errors import InputError
from ..core.files import check_target
from ..core.progress import Progress
from ..media import player
from ..media.rates import FPS
from ..training.run import Run
from . import motion
from .motion import Blink, Poses
from .renderer import Renderer, audio_script, replay_script


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
        name = f"{Path(audio).stem}_{motion.label(given.get('poses', 'cycle'))}"
    out = Path(out) if out is not None else run.root / "renders" / f"{name}_{number}.mp4"
    out = check_target(out, ".mp4", audio, features)
    from ..media.video_writer import write_video

    began = time.perf_counter()
    with Progress(len(script), f"render {out.name}", "frame") as bar:
        write_video(out, renderer.pictures(script, batch, bar, compare), script.wave, FPS)
    elapsed = time.perf_counter() - began
    return Video(out, len(script), len(script) / max(renderer.seconds, 1e-9), len(script) / elapsed)


