"""Video files in: any clip becomes RGB frames on a 25 fps timeline (`video_writer` is the way out).

The zero of a clip's timeline is the presentation time of its first decodable frame; `audio.load_audio`
puts the sound on the same zero, so that frame i and sample `i * 640` always belong together.
"""

import contextlib
import itertools
import math
import warnings
from dataclasses import dataclass
from fractions import Fraction

from ..core.errors import InputError
from .container import (
    alpha_decoder,
    decode,
    first_frame,
    has_decoder,
    has_only_decoding_times,
    moving_pictures,
    open_media,
    picture_stream,
    require_av,
)
from .rates import FPS
from .video_color import ALPHA_BACKGROUND, FrameConverter, check_color, has_alpha, hdr_format, orientation

__all__ = ["ALPHA_BACKGROUND", "VideoInfo", "probe", "read_frames"]

_SEEK_MARGIN = 0.5  # seconds; a seek lands on a key frame by decoding time, which precedes presentation


@dataclass(frozen=True)
class VideoInfo:
    """What a clip holds, as shown (after rotation and pixel aspect), counted from its packets.

    Attributes:
        width, height: pixels.
        fps: mean source frames per second.
        num_frames: frames in the source, at its own rate; `frames_at(25)` counts resampled ones.
        duration: seconds from the first frame's start to the last frame's end.
        has_audio: whether there is a sound stream.
        rotation: degrees counter-clockwise that the stored picture is turned by to be shown (0, 90, 180, 270).
        hdr: "HLG" or "PQ" for HDR video (`read_frames` gives it tone-mapped), None for SDR.
        alpha: whether something of the first frame is transparent. A clip whose first frame is opaque counts as
            without alpha, as most files in formats with alpha hold none (the whole clip would have to be decoded to
            know); `read_frames` follows the alpha of every frame in either case.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    duration: float
    has_audio: bool
    rotation: int
    hdr: str | None
    alpha: bool

    def frames_at(self, fps=FPS):
        """Number of frames `read_frames(path, fps)` yields from an undamaged file."""
        return max(1, math.floor(self.duration * fps + 0.5))


def _require_picture(container, path):
    stream = picture_stream(container)
    if stream is None and moving_pictures(container):
        raise InputError("a video in a codec that FFmpeg knows", f"{path} in an unknown one",
                         "Convert it to MP4 (H.264) with the program that made it.")
    if stream is None:
        raise InputError("a video", f"{path} without a picture stream", "Give a video file, not a sound file.")
    stream.thread_type = "AUTO"
    return stream


def _checked_first_frame(path):
    """The clip's first frame, whose time is the zero and whose size and colour tags hold for the clip."""
    with open_media(path) as container:
        stream = _require_picture(container, path)
        frame = first_frame(path)
        if frame is None:
            raise _no_frames(path)
        check_color(frame, stream, path)
    return frame


def probe(path):
    """Read a clip's properties without decoding more than its first frame.

    Args:
        path: a video file.

    Returns:
        VideoInfo, counted from the packets that are really there (a truncated file counts short).

    Errors: InputError if the file is missing, not a video, no frame of it can be decoded, or its colours
    cannot be read (see `read_frames`).
    """
    first = _checked_first_frame(path)
    with open_media(path) as container:
        stream = _require_picture(container, path)
        nominal, aspect = _nominal_interval(stream), stream.sample_aspect_ratio
        has_audio = bool(container.streams.audio)
        # AVI packets may have a decoding time only.
        spans = [((p.dts if p.pts is None else p.pts) * p.time_base, (p.duration or 0) * p.time_base)
                 for p in container.demux(stream) if p.size and not p.is_discard and (p.pts, p.dts) != (None, None)]
    if not spans:
        raise _no_frames(path)
    image = FrameConverter(first, aspect)(first, alpha=True)
    transparent = bool(has_alpha(first) and image[..., 3].min() < 255)
    last, length = max(spans)
    duration = float(last - min(spans)[0]) + (float(length) or nominal)
    return VideoInfo(image.shape[1], image.shape[0], len(spans) / duration, len(spans), duration, has_audio,
                     orientation(first)[0] * 90, hdr_format(first), transparent)


def read_frames(path, fps=FPS, start=0, stop=None, alpha=False):
    """Frames of a clip, resampled to a constant rate by presentation time.

    Output frame i is the source frame shown at i / fps seconds, where a source frame counts as shown from
    half a source interval (at most 21 ms) before its time: for constant rates from 24 on this is the nearest
    frame, and a long-held frame of a variable-rate clip is still held. Rotation metadata and pixel aspect are
    applied, interlaced video is deinterlaced, and a frame of another size than the first is scaled to it. Memory
    does not grow with the length of the clip.

    Colours: RGB is BT.709 SDR. HDR (HLG, PQ) is tone-mapped by BT.2390, BT.2020 and P3 primaries are converted (see
    `tone_map`). Hidden colours of transparent pixels never show: by default a plain grey, `ALPHA_BACKGROUND`, does.

    Args:
        path: a video file.
        fps: output frames per second, above 0.
        start: index of the first output frame to yield; the clip is entered at the key frame before it.
        stop: index of the frame to end before; None: the end of the clip.
        alpha: True to yield alpha as a fourth channel.

    Returns:
        iterator of uint8 [H, W, 3] RGB; with `alpha=True` uint8 [H, W, 4], RGB and straight (not premultiplied)
        alpha, 255 throughout where the video has none. A frame that the resampling repeats is a new array each
        time. Nothing is yielded when `start` is at or beyond the end.

    Errors: InputError if the file is missing, not a video, in an unknown codec, in colours that no decoder shows
    (Dolby Vision profile 5, ICtCp), or no frame can be decoded. A truncated or damaged file gives what can be
    read, and a UserWarning that says how much is missing; so does alpha that this build of FFmpeg cannot decode.
    """
    if not fps > 0 or start < 0:
        raise InputError("fps above 0 and start at least 0", f"fps={fps}, start={start}", "Correct the arguments.")
    end = math.inf if stop is None else int(stop)
    return _resampled(path, float(fps), int(start), end, alpha, _checked_first_frame(path))


def _resampled(path, fps, start, stop, alpha, first):
    zero, damage, index, shown = float(first.time), [], start, None
    with open_media(path) as container:
        stream = _require_picture(container, path)
        nominal, convert = _nominal_interval(stream), FrameConverter(first, stream.sample_aspect_ratio)
        _warn_if_alpha_is_lost(stream, path)
        announced = stream.duration * stream.time_base if stream.duration else None
        lookahead = min(nominal / 2, 0.021) - 1e-6
        frames = _from(container, stream, path, zero, start / fps, damage)
        for frame in _deinterlaced(frames) if first.interlaced_frame else frames:
            time = frame.time - zero
            # `shown` covers every output time until the new frame takes over.
            while shown is not None and index < stop and index / fps + lookahead < time:
                yield convert(shown, alpha)
                index += 1
            if index >= stop:
                _warn_if_damaged(path, damage, 0.0, None, nominal)
                return
            shown = frame
    if shown is None:
        raise _no_frames(path)
    length = float(shown.duration * shown.time_base) if shown.duration else nominal
    end = float(shown.time) - zero + length
    while index < min(stop, max(1, math.floor(end * fps + 0.5))):
        yield convert(shown, alpha)
        index += 1
    _warn_if_damaged(path, damage, end, announced, nominal)


def _from(container, stream, path, zero, seconds, damage):
    """Decoded frames in presentation order, starting at or before `seconds` after the zero."""
    av = require_av()
    # Without presentation times only counting from the first frame tells when a frame is shown.
    if seconds > _SEEK_MARGIN and not has_only_decoding_times(container):
        target = int((zero + seconds - _SEEK_MARGIN) / stream.time_base)
        with contextlib.suppress(av.FFmpegError):
            container.seek(target, stream=stream, backward=True)
            frames = _timed(decode(container, stream, damage))
            first = next(frames, None)
            # Two frames early at least: deinterlacing looks at the one before.
            if first is not None and first.time - zero <= seconds - 2 * _nominal_interval(stream):
                yield from itertools.chain([first], frames)
                return
        # No index, or the seek overshot: decode from the beginning instead.
        damage.clear()
        with open_media(path) as fresh:
            yield from _timed(decode(fresh, _require_picture(fresh, path), damage))
        return
    yield from _timed(decode(container, stream, damage))


def _deinterlaced(frames):
    """Frames whose fields were taken at two moments, as whole pictures (FFmpeg's bwdif); the others unchanged."""
    av = require_av()
    graph = None
    for frame in frames:
        if graph is None:
            graph = av.filter.Graph()
            source = graph.add("buffer", video_size=f"{frame.width}x{frame.height}", pix_fmt=frame.format.name,
                               time_base=str(frame.time_base), pixel_aspect="1/1",
                               colorspace=str(int(frame.colorspace)), range=str(int(frame.color_range)))
            filter_ = graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
            graph.link_nodes(source, filter_, graph.add("buffersink")).configure()
        graph.push(frame)
        yield from _ready(graph)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _ready(graph):
    av = require_av()
    with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            yield graph.pull()


def _timed(frames):
    last = -math.inf
    for frame in frames:
        # Without a time, or with one that runs backwards, a frame cannot be placed.
        if frame.time is not None and frame.time > last:
            last = frame.time
            yield frame


def _nominal_interval(stream):
    """Seconds between source frames according to the container."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return float(1 / rate)


def _no_frames(path):
    return InputError("a video with at least one frame", f"{path} with none that can be decoded and has a time",
                      "If the file is damaged or cut off, copy or record it again; if it is a raw stream (.h264), "
                      "which stores no times, convert it to MP4.")


def _warn_if_alpha_is_lost(stream, path):
    name = alpha_decoder(stream)
    if name is not None and not has_decoder(name):
        warnings.warn(f"{path} has transparency, which is not read: this build of FFmpeg has no {name}. Hidden colours "
                      "may appear; convert it to ProRes 4444.", stacklevel=3)


def _warn_if_damaged(path, damage, end, announced, nominal):
    missing = float(announced) - end if announced else 0.0
    if missing > max(0.25, 2 * nominal):
        warnings.warn(f"{path} ends after {end:.2f} s, but announces {float(announced):.2f} s: the file is cut off. "
                      "Copy it again to use all of it.", stacklevel=3)
    elif damage:
        warnings.warn(f"{path} has damaged packets; their frames are missing and the frames before them are held "
                      "instead.", stacklevel=3)
