"""From a trained run to a video: `render` drives the head with audio, `replay` shows the frames of its own clip."""
from __future__ import annotations

import time
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Literal, Optional

import torch

from ..core.errors import InputError
from ..core.files import check_target, short_name, shortened, write_text
from ..core.progress import Progress
from ..media import player, subtitles
from ..media.alpha_video import ALPHA_FORMATS, write_alpha_video
from ..media.rates import FPS
from ..media.video_encoder import Encoding, choose_encoder
from ..training.run import Run
from . import motion
from .backdrop import CLIP, Backdrop, load_backdrop
from .framing import Framing, choose_framing
from .motion import Blink, Poses
from .renderer import Renderer
from .script import Script, audio_script, replay_script
from .split import SplitRendering, segment_frames


@dataclass
class Video:
    """A finished video; shows itself in a notebook.

    Attributes:
        path: of the video.
        frames: their number.
        render_fps: frames/s of network, rasteriser and background composite, the device waited for.
        total_fps: frames/s of everything, reading and video encoding included.
        subtitles: the SRT beside it; None if the audio has none.
    """

    path: Path
    frames: int
    render_fps: float
    total_fps: float
    subtitles: Optional[Path] = None

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def __str__(self) -> str:
        return (f"{self.path}: {self.frames} frames, {self.seconds:.2f} s; {self.render_fps:.1f} frames/s for network, "
                f"rasteriser and composite (device waited for), {self.total_fps:.1f} with reading and encoding"
                f"{f'; subtitles in {self.subtitles}' if self.subtitles else ''}")

    def _repr_html_(self) -> str:
        return f"{player.html(self.path)}<br><code>{escape(str(self))}</code>"


def render(run: Run, audio: str | Path, out: Optional[str | Path] = None, features: Optional[str | Path] = None,
           poses: Poses = "cycle", blink: Blink = "dataset", iteration: Optional[int] = None, start: float = 0.0,
           duration: Optional[float] = None, batch: int = 8, device: Optional[str | torch.device] = None,
           workers: int = 1, address: Optional[str] = None, background: str | Path = "clip",
           aspect: Optional[str] = None, source: Optional[str | Path] = None) -> Video:
    """Drive a trained head with audio and write a video at 25 fps: an H.264/AAC MP4, or one with alpha.

    If there is an SRT file of the same name beside the audio, or if `audio` is a video with a text track, the subtitles
    of the rendered part are written beside the MP4, with times from its beginning.

    Args:
        run: see `load_run`.
        audio: any audio file or video with audio, of any length and sample rate.
        out: the MP4, or a .mov (ProRes 4444) or .webm (VP9) with the background `transparent`; default: a name in the
            run's `renders/`.
        features: .npy of [num_frames, 16, 29] for `audio` (the upstream contract); computed from the audio if None.
        poses: `cycle` plays the dataset's poses back and forth, `static` keeps its middle pose, `orbit` moves the
            camera around that; the head motion of another `Dataset` or its folder, back and forth, around this
            head's mean pose; an array [F, 4, 4] or .npy is used as given: world-to-camera, OpenCV axes, the world being
            the head's frame (see `Dataset.w2c`), one for each video frame or more.
        blink: `dataset` keeps the clip's eyelids; a number is a rate of random natural blinks per minute (people:
            15-20; 0: none); an array [F] or .npy of 0 open ... 1 closed. The eyelids stay within the range of the
            training frames. Brows and gaze are the clip's.
        iteration: checkpoint, default the newest.
        start: where in the audio the video begins, in seconds.
        duration: of the video, in seconds; default: to the end of the audio.
        batch: frames rendered at a time.
        device: default CUDA, else the CPU.
        workers: processes that render and encode parts of a long video at a time, by Ray (extra `cluster`); on the CPU
            the video is the same to the bit for any number. With more than 1, `device` is `cpu`, `cuda` or None, and
            each takes a GPU, or a share of one if there are fewer, or a core. They start within some 10 s.
        address: of a Ray cluster; default: that of the environment variable `RAY_ADDRESS`, else this machine. Run
            folder and dataset must lie under the same path on all its machines.
        background: behind head and torso: `clip` is the clip's own; a colour as CSS writes it (`white`, `#00ff00`); the
            path of a JPEG, PNG or video, scaled to cover the frame, a video looped; `transparent`: straight alpha, one
            worker only.
            `source`: the head is put back into the full frames of the video that its clip was prepared from, at that
            video's resolution; with the poses `cycle` only.
        aspect: WIDTH:HEIGHT of the video, such as `9:16`: the largest window of it around the mean position of the
            head, the same in all frames; default: all of the picture.
        source: for the background `source`, the path of that video if it was moved since.

    Raises:
        InputError: unusable audio, features that do not fit the audio or the run, poses or blinks that cannot be used,
            an unknown choice; a cluster that cannot be reached, or from which the run folder cannot be; an unknown
            background, or one that an MP4 cannot have; an aspect that cannot be used; a source that is not the video
            that was prepared.
        DatasetError: no such checkpoint; `poses` is a folder without a dataset; a dataset that does not say where in
            its source its frames are.
        MissingPackageError: several workers without Ray.
        UnfinishedError: workers were killed again and again.

    Warns:
        UserWarning: subtitles that cannot be read are left out; see `audio_script` for others.
    """
    _check_batch(batch, workers)
    framing = choose_framing(run.dataset, background, poses, aspect, source)
    backdrop = load_backdrop(CLIP if framing.paste else background, run.dataset.size)
    suffix = _suffix(out, backdrop, workers)
    number = run.pick(iteration)
    split = SplitRendering(run, number, device, workers, batch, address) if workers > 1 else None
    renderer = Renderer.from_run(run, number, "cpu" if split else device)
    script = audio_script(renderer, audio, features, poses, blink, start, duration)
    name = f"{short_name(Path(audio).stem)}_{short_name(motion.label(poses))}_{number}"
    picture = background if Path(background).is_file() else None
    out = _target(run, out, name, audio, features, picture, framing.paste.video if framing.paste else None,
                  suffix=suffix)
    cues = subtitles.cut(subtitles.load_subtitles(audio), round(start * FPS) / FPS, len(script) / FPS)
    srt = check_target(out.with_suffix(subtitles.SUFFIX), subtitles.SUFFIX, subtitles.sidecar(audio)) if cues else None
    video = (_write_split(split, script, out, backdrop, framing) if split else
             _write(renderer, script, out, batch, backdrop=backdrop, framing=framing))
    if srt:
        write_text(srt, subtitles.srt_text(cues))
    return replace(video, subtitles=srt)


def replay(run: Run, split: Literal["train", "val", "all"] = "val", out: Optional[str | Path] = None,
           compare: bool = False, iteration: Optional[int] = None, start: float = 0.0, duration: Optional[float] = None,
           batch: int = 8, device: Optional[str | torch.device] = None) -> Video:
    """Render the frames of the clip that a head was trained on, with their own audio, and write them as an MP4.

    Args:
        run: see `load_run`.
        split: which frames.
        out: the MP4; default: a name in the run's `renders/`.
        compare: put the ground truth beside each frame.
        iteration: checkpoint, default the newest.
        start: where in the split the video begins, in seconds.
        duration: of the video, in seconds; default: to the end of the split.
        batch: frames rendered at a time.
        device: default CUDA, else the CPU.

    Raises:
        InputError: a part outside the split, or a place where no video can be written.
        DatasetError: no such checkpoint or split.
    """
    _check_batch(batch)
    number = run.pick(iteration)
    renderer = Renderer.from_run(run, number, device)
    script = replay_script(renderer, split, start, duration)
    name = f"{split}{'_compare' if compare else ''}_{number}"
    return _write(renderer, script, _target(run, out, name), batch, compare)


def _check_batch(batch: int, workers: int = 1) -> None:
    if batch < 1:
        raise InputError("batch of at least 1", str(batch), "Choose how many frames are rendered at a time.")
    if workers < 1:
        raise InputError("workers of at least 1", str(workers), "Choose how many processes render at a time.")


def _suffix(out: Optional[str | Path], backdrop: Optional[Backdrop], workers: int) -> str:
    """What the name of the video ends in: an MP4 has no alpha."""
    if backdrop is None or not backdrop.transparent:
        return ".mp4"
    if workers > 1:
        raise InputError("one worker for a video with alpha", f"workers={workers}", "It is encoded in one piece.")
    suffix = ".mov" if out is None else Path(out).suffix.lower()
    if suffix not in ALPHA_FORMATS:
        raise InputError(f"the name of a video with alpha, {' or '.join(ALPHA_FORMATS)}", f"'{shortened(str(out))}'",
                         "Choose such a name, or write PNGs with egs.export_frames(..., background='transparent').")
    return suffix


def _target(run: Run, out: Optional[str | Path], name: str, *sources: Optional[str | Path], suffix: str = ".mp4"
            ) -> Path:
    """Where the video goes; the files that it is made from are not overwritten."""
    return check_target(Path(out) if out is not None else run.root / "renders" / f"{name}{suffix}", suffix, *sources)


def _write(renderer: Renderer, script: Script, out: Path, batch: int, compare: bool = False,
           backdrop: Optional[Backdrop] = None, framing: Optional[Framing] = None) -> Video:
    from ..media.video_writer import write_video

    began = time.perf_counter()
    size = renderer.ds.size
    height, width = framing.shape if framing else (size, size * (1 + compare))
    encoder = choose_encoder(renderer.device.type == "cuda", height, width)
    with Progress(len(script), f"render {out.name}", "frame") as bar:
        frames = renderer.frames(script, batch, bar, compare, backdrop)
        if framing:
            frames = framing.frames(frames, script.source)
        if backdrop is not None and backdrop.transparent:
            write_alpha_video(out, frames, script.wave)
        else:
            write_video(out, frames, script.wave, segment=segment_frames(batch), encoder=encoder)
    return _video(out, script, renderer.seconds, began)


def _write_split(split: SplitRendering, script: Script, out: Path, backdrop: Optional[Backdrop],
                 framing: Framing) -> Video:
    from ..media.video_writer import frame_rate, mux_video

    began, how = time.perf_counter(), Encoding(frame_rate(FPS), segment=segment_frames(split.batch))
    with Progress(len(script), f"render {out.name}", "frame") as bar:
        mux_video(out, split.segments(script, how, bar, backdrop, framing), script.wave, how.rate)
    return _video(out, script, split.seconds, began)


def _video(out: Path, script: Script, seconds: float, began: float) -> Video:
    elapsed = time.perf_counter() - began
    return Video(out, len(script), len(script) / max(seconds, 1e-9), len(script) / elapsed)
