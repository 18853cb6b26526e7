"""Reading video files as RGB frames at a constant frame rate.

The timeline of a clip starts at the presentation time of its first decodable frame; `audio.load_audio` aligns the audio
to the same start, so that frame i at 25 fps corresponds to sample 640 i.
"""
from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Optional

import numpy as np

from ..core.errors import InputError
from ..core.files import shortened
from .container import (
    alpha_decoder,
    decode,
    first_frame,
    has_decoder,
    has_only_decoding_times,
    open_media,
    packets,
    require_av,
    video_stream,
    video_streams,
)
from .limits import check_fps, check_hold, check_size
from .rates import FPS
from .video_color import ALPHA_BACKGROUND, FrameConverter, check_color, has_alpha, hdr_format, orientation

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

__all__ = ["ALPHA_BACKGROUND", "VideoInfo", "probe", "read_frames"]

_MAX_FRAMES = 10 ** 9
_SEEK_MARGIN = 0.5  # seconds; seeking uses decoding times, which precede presentation times


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a clip as displayed (after rotation and pixel aspect), counted from its packets.

    Attributes:
        width: pixels.
        height: pixels.
        fps: mean source frames per second.
        num_frames: frames in the source, at its own rate; `frames_at(25)` counts resampled ones.
        duration: seconds from the first frame's start to the last frame's end.
        has_audio: whether there is an audio stream.
        rotation: degrees counter-clockwise by which stored frames are rotated for display (0, 90, 180, 270).
        hdr: "HLG" or "PQ" for HDR video (`read_frames` tone-maps it), None for SDR.
        alpha: whether any pixel of the first frame is transparent. Most files in formats with alpha are opaque, and
            only decoding the whole clip could tell; `read_frames` uses the alpha of every frame in either case.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    duration: float
    has_audio: bool
    rotation: int
    hdr: Optional[str]
    alpha: bool

    def frames_at(self, fps: float = FPS) -> int:
        """Number of frames that `read_frames(path, fps)` yields from an undamaged file."""
        return max(1, math.floor(self.duration * fps + 0.5))


def _require_video(container: InputContainer, path: str | Path) -> VideoStream:
    """The video stream to read, decoded on several threads."""
    stream = video_stream(container)
    if stream is None and video_streams(container):
        raise InputError("a video in a codec that FFmpeg knows", f"'{shortened(path)}' in an unknown one",
                         "Convert it to MP4 (H.264) with the program that made it.")
    if stream is None:
        raise InputError("a video", f"'{shortened(path)}' without a video stream",
                         "Give a video file, not an audio file.")
    if stream.codec_context.width:  # 0 if only the first frame will tell
        check_size(stream.codec_context.width, stream.codec_context.height, path)
    stream.thread_type = "AUTO"
    return stream


def _checked_first_frame(path: str | Path) -> VideoFrame:
    """The clip's first frame, which sets the start of the timeline, the size and the colour tags."""
    with open_media(path) as container:
        stream = _require_video(container, path)
        frame = first_frame(path)
        if frame is None:
            raise _no_frames(path)
        check_size(frame.width * float(stream.sample_aspect_ratio or 1), frame.height, path)
        check_color(frame, stream, path)
    return frame


def probe(path: str | Path) -> VideoInfo:
    """Read a clip's properties; only its first frame is decoded.

    Args:
        path: a video file.

    Returns:
        VideoInfo, counted from the packets in the file (fewer in a truncated file).

    Raises:
        InputError: the file is missing or not a video, none of its frames can be decoded, its colours are not
            supported (see `read_frames`), or it is beyond the limits of size and time (see `limits`).
    """
    first = _checked_first_frame(path)
    with open_media(path) as container:
        stream = _require_video(container, path)
        aspect, has_audio = stream.sample_aspect_ratio, bool(container.streams.audio)
        count, duration = _measured(container, stream, path)
    image = FrameConverter(first, aspect)(first, alpha=True)
    transparent = bool(has_alpha(first) and image[..., 3].min() < 255)
    return VideoInfo(image.shape[1], image.shape[0], count / duration, count, duration, has_audio,
                     orientation(first)[0] * 90, hdr_format(first), transparent)


def _measured(container: InputContainer, stream: VideoStream, path: str | Path) -> tuple[int, float]:
    """Number of frames, and seconds from the start of the first to the end of the last one, from the packets."""
    # AVI packets may have a decoding time only.
    spans = sorted((p.dts or 0 if p.pts is None else p.pts, p.duration or 0) for p in packets(container, stream)
                   if p.size and not p.is_discard and (p.pts, p.dts) != (None, None))
    if not spans:
        raise _no_frames(path)
    tick, begin = _seconds(1, stream.time_base), spans[0][0]
    for (time, _), (following, _) in itertools.pairwise(spans):
        check_hold(float((following - time) * tick), float((time - begin) * tick), path)
    last, ticks = spans[-1]
    length = float(ticks * tick) or _nominal_interval(stream)
    check_hold(length, float((last - begin) * tick), path)
    return len(spans), float((last - begin) * tick) + length


def read_frames(path: str | Path, fps: float = FPS, start: int = 0, stop: Optional[int] = None, alpha: bool = False
                ) -> Iterator[np.ndarray]:
    """Frames of a clip, resampled to a constant rate by presentation time.

    Output frame i is the source frame displayed at i / fps seconds, where a source frame counts as displayed from half
    a source interval (at most 21 ms) before its time: at constant rates of 24 fps or more this is the nearest frame,
    and a long-held frame of a variable-rate clip is still held. Rotation metadata and pixel aspect are applied,
    interlaced video is deinterlaced, and frames of another size than the first are scaled to it. Memory does not grow
    with the length of the clip.

    RGB is BT.709 SDR: HDR (HLG, PQ) is tone-mapped by BT.2390, BT.2020 and P3 primaries are converted (see `tone_map`).
    By default frames with alpha are composited over a plain grey, `ALPHA_BACKGROUND`.

    Warns with a UserWarning if a file is truncated or damaged (what can be decoded is returned), and if this build of
    FFmpeg cannot decode its alpha.

    Args:
        path: a video file.
        fps: output frames per second, above 0.
        start: index of the first output frame; decoding starts at the key frame before it.
        stop: one past the index of the last output frame; None: the end of the clip.
        alpha: True to yield alpha as a fourth channel.

    Yields:
        uint8 [H, W, 3] RGB; with `alpha=True` uint8 [H, W, 4], RGB and straight (not premultiplied) alpha, 255
        throughout if the video has none. Frames that the resampling repeats are separate arrays. Nothing if `start` is
        at or beyond the end.

    Raises:
        InputError: the file is missing, not a video, in an unknown codec, in colours that FFmpeg cannot decode (Dolby
            Vision profile 5, ICtCp), none of its frames can be decoded, or it is beyond the limits of size and time
            (see `limits`).
    """
    check_fps(fps)
    if not 0 <= start <= _MAX_FRAMES:
        raise InputError(f"start from 0 to {_MAX_FRAMES} frames", f"start={start}", "Correct the argument.")
    end = math.inf if stop is None else int(stop)
    return _resampled(path, float(fps), int(start), end, alpha, _checked_first_frame(path))


def _resampled(path: str | Path, fps: float, start: int, stop: float, alpha: bool, first: VideoFrame
               ) -> Iterator[np.ndarray]:
    """The generator behind `read_frames`; `first` is the clip's first frame."""
    zero, index = _time(first), start
    damage: list[str] = []
    shown: Optional[VideoFrame] = None
    with open_media(path) as container:
        stream = _require_video(container, path)
        nominal, convert = _nominal_interval(stream), FrameConverter(first, stream.sample_aspect_ratio)
        _warn_if_alpha_is_lost(stream, path)
        announced = _seconds(stream.duration, stream.time_base) if stream.duration else None
        lookahead = min(nominal / 2, 0.021) - 1e-6
        frames = _from(container, stream, path, zero, start / fps, damage)
        for frame in _deinterlaced(frames) if first.interlaced_frame else frames:
            time = _time(frame) - zero
            # `shown` is displayed until the new frame.
            if shown is not None:
                check_hold(zero + time - _time(shown), _time(shown) - zero, path)
            while shown is not None and index < stop and index / fps + lookahead < time:
                yield convert(shown, alpha)
                index += 1
            if index >= stop:
                _warn_if_damaged(path, damage, 0.0, None, nominal)
                return
            shown = frame
    if shown is None:
        raise _no_frames(path)
    length = float(_seconds(shown.duration, shown.time_base)) if shown.duration else nominal
    check_hold(length, _time(shown) - zero, path)
    end = _time(shown) - zero + length
    while index < min(stop, max(1, math.floor(end * fps + 0.5))):
        yield convert(shown, alpha)
        index += 1
    _warn_if_damaged(path, damage, end, announced, nominal)


def _time(frame: VideoFrame) -> float:
    """Presentation time in seconds, of a frame that has one (see `_timed`)."""
    assert frame.time is not None
    return float(frame.time)


def _seconds(ticks: Optional[int], time_base: Optional[Fraction]) -> Fraction:
    """Seconds of a time in a stream's unit, both of which must be known."""
    assert ticks is not None and time_base is not None
    return ticks * time_base


def _from(container: InputContainer, stream: VideoStream, path: str | Path, zero: float, seconds: float,
          damage: list[str]) -> Iterator[VideoFrame]:
    """Decoded frames in presentation order, starting at or before `seconds` after the start of the timeline."""
    av = require_av()
    # Without presentation times, frames must be counted from the first one.
    if seconds > _SEEK_MARGIN and not has_only_decoding_times(container):
        target = int((zero + seconds - _SEEK_MARGIN) / _seconds(1, stream.time_base))
        with contextlib.suppress(av.FFmpegError):
            container.seek(target, stream=stream, backward=True)
            frames = _timed(decode(container, stream, damage))
            first = next(frames, None)
            # At least two frames early, as deinterlacing uses the previous frame.
            if first is not None and _time(first) - zero <= seconds - 2 * _nominal_interval(stream):
                yield from itertools.chain([first], frames)
                return
        # No index, or the seek went too far: decode from the beginning instead.
        damage.clear()
        with open_media(path) as fresh:
            yield from _timed(decode(fresh, _require_video(fresh, path), damage))
        return
    yield from _timed(decode(container, stream, damage))


def _deinterlaced(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Interlaced frames are deinterlaced (FFmpeg's bwdif), progressive ones unchanged."""
    av = require_av()
    graph: Any = None
    for frame in frames:
        if graph is None:
            graph = av.filter.Graph()
            source = graph.add("buffer", video_size=f"{frame.width}x{frame.height}", pix_fmt=frame.format.name,
                               time_base=str(frame.time_base), pixel_aspect="1/1",
                               colorspace=str(int(frame.colorspace)), range=str(int(frame.color_range)))
            filter_ = graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
            graph.link_nodes(source, filter_, graph.add("buffersink")).configure()
        graph.push(frame)
        yield from _filtered(graph)
    if graph is not None:
        graph.push(None)
        yield from _filtered(graph)


def _filtered(graph: Any) -> Iterator[VideoFrame]:
    """Frames that a filter graph has finished."""
    av = require_av()
    with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            yield graph.pull()


def _timed(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Frames with increasing presentation times; the others are dropped."""
    last = -math.inf
    for frame in frames:
        if frame.time is not None and frame.time > last:
            last = frame.time
            yield frame


def _nominal_interval(stream: VideoStream) -> float:
    """Seconds between source frames according to the container."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return float(1 / rate)


def _no_frames(path: str | Path) -> InputError:
    return InputError("a video with at least one frame", f"'{shortened(path)}' with none that can be decoded and "
                      "has a time",
                      "If the file is damaged or cut off, copy or record it again; if it is a raw stream (.h264), "
                      "which stores no times, convert it to MP4.")


def _warn_if_alpha_is_lost(stream: VideoStream, path: str | Path) -> None:
    name = alpha_decoder(stream)
    if name is not None and not has_decoder(name):
        warnings.warn(f"'{shortened(path)}' has transparency, which is not read: this build of FFmpeg has no {name}. "
                      "Hidden colours may appear; convert it to ProRes 4444.", stacklevel=3)


def _warn_if_damaged(path: str | Path, damage: list[str], end: float, announced: Optional[Fraction], nominal: float
                     ) -> None:
    missing = float(announced) - end if announced else 0.0
    if announced and missing > max(0.25, 2 * nominal):
        warnings.warn(f"'{shortened(path)}' ends after {end:.2f} s, but announces {float(announced):.2f} s: the file "
                      "is cut off. Copy it again to use all of it.", stacklevel=3)
    elif damage:
        warnings.warn(f"'{shortened(path)}' has damaged packets; their frames are missing and the frames before "
                      "them are held instead.", stacklevel=3)
