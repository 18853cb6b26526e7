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

import numpy as np

from .errors import InputError
from .media import EXACT_COLOURS, decode, open_media, picture_stream, picture_zero, require_av

FPS = 25.0
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
    """

    width: int
    height: int
    fps: float
    num_frames: int
    duration: float
    has_audio: bool
    rotation: int

    def frames_at(self, fps=FPS):
        """Number of frames `read_frames(path, fps)` yields from an undamaged file."""
        return max(1, math.floor(self.duration * fps + 0.5))


def _require_picture(container, path):
    stream = picture_stream(container)
    if stream is None:
        raise InputError("a video", f"{path} without a picture stream", "Give a video file, not a sound file.")
    stream.thread_type = "AUTO"
    return stream


def probe(path):
    """Read a clip's properties without decoding more than its first frame.

    Args:
        path: a video file.

    Returns:
        VideoInfo, counted from the packets that are really there (a truncated file counts short).

    Errors: InputError if the file is missing, not a video, or no frame of it can be decoded.
    """
    with open_media(path) as container:
        stream = _require_picture(container, path)
        first = next(decode(container, stream), None)
        if first is None:
            raise _no_frames(path)
        height, width = _to_rgb(first, stream.sample_aspect_ratio).shape[:2]
        turns, _ = _orientation(first)
        has_audio = bool(container.streams.audio)
    with open_media(path) as container:
        stream = _require_picture(container, path)
        nominal = _nominal_interval(stream)
        # AVI packets may have a decoding time only.
        spans = [((p.dts if p.pts is None else p.pts) * p.time_base, (p.duration or 0) * p.time_base)
                 for p in container.demux(stream) if p.size and not p.is_discard and (p.pts, p.dts) != (None, None)]
    if not spans:
        raise _no_frames(path)
    last, length = max(spans)
    duration = float(last - min(spans)[0]) + (float(length) or nominal)
    return VideoInfo(width, height, len(spans) / duration, len(spans), duration, has_audio, turns * 90)


def read_frames(path, fps=FPS, start=0):
    """Frames of a clip, resampled to a constant rate by presentation time.

    Output frame i is the source frame shown at i / fps seconds, where a source frame counts as shown from
    half a source interval (at most 21 ms) before its time: for constant rates from 24 on this is the nearest
    frame, and a long-held frame of a variable-rate clip is still held. Rotation metadata and pixel aspect are
    applied. Memory does not grow with the length of the clip.

    Args:
        path: a video file.
        fps: output frames per second, above 0.
        start: index of the first output frame to yield; the clip is entered at the key frame before it.

    Returns:
        iterator of uint8 [H, W, 3] RGB. A frame that the resampling repeats is a new array each time. Nothing is
        yielded when `start` is at or beyond the end.

    Errors: InputError if the file is missing, not a video, or no frame can be decoded. A truncated or
    damaged file gives what can be read, and a UserWarning that says how much is missing.
    """
    if not fps > 0 or start < 0:
        raise InputError("fps above 0 and start at least 0", f"fps={fps}, start={start}", "Correct the arguments.")
    with open_media(path) as container:
        _require_picture(container, path)
    return _resampled(path, float(fps), int(start))


def _resampled(path, fps, start):
    zero = picture_zero(path)
    if zero is None:
        raise _no_frames(path)
    damage, index, shown = [], start, None
    with open_media(path) as container:
        stream = _require_picture(container, path)
        nominal, aspect = _nominal_interval(stream), stream.sample_aspect_ratio
        announced = stream.duration * stream.time_base if stream.duration else None
        lookahead = min(nominal / 2, 0.021) - 1e-6
        for frame in _from(container, stream, path, zero, start / fps, damage):
            time = frame.time - zero
            # `shown` covers every output time until the new frame takes over.
            while shown is not None and index / fps + lookahead < time:
                yield _to_rgb(shown, aspect)
                index += 1
            shown = frame
    if shown is None:
        raise _no_frames(path)
    length = float(shown.duration * shown.time_base) if shown.duration else nominal
    end = float(shown.time) - zero + length
    while index < max(1, math.floor(end * fps + 0.5)):
        yield _to_rgb(shown, aspect)
        index += 1
    _warn_if_damaged(path, damage, end, announced, nominal)


def _from(container, stream, path, zero, seconds, damage):
    """Decoded frames in presentation order, starting at or before `seconds` after the zero."""
    av = require_av()
    if seconds > _SEEK_MARGIN:
        target = int((zero + seconds - _SEEK_MARGIN) / stream.time_base)
        with contextlib.suppress(av.FFmpegError):
            container.seek(target, stream=stream, backward=True)
            frames = _timed(decode(container, stream, damage))
            first = next(frames, None)
            if first is not None and first.time - zero <= seconds:
                yield from itertools.chain([first], frames)
                return
        # No index, or the seek overshot: decode from the beginning instead.
        damage.clear()
        with open_media(path) as fresh:
            yield from _timed(decode(fresh, _require_picture(fresh, path), damage))
        return
    yield from _timed(decode(container, stream, damage))


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
    return InputError("a video with at least one frame", f"{path} with none that can be decoded",
                      "The file is damaged or cut off: copy or record it again.")


def _warn_if_damaged(path, damage, end, announced, nominal):
    missing = float(announced) - end if announced else 0.0
    if missing > max(0.25, 2 * nominal):
        warnings.warn(f"{path} ends after {end:.2f} s, but announces {float(announced):.2f} s: the file is cut off. "
                      "Copy it again to use all of it.", stacklevel=3)
    elif damage:
        warnings.warn(f"{path} has {len(damage)} damaged packets; their frames are missing and the frames before "
                      "them are held instead.", stacklevel=3)


def _orientation(frame):
    """(quarter turns counter-clockwise, mirrored first) from the frame's display matrix."""
    av = require_av()
    data = next((d for d in frame.side_data if d.type is av.sidedata.sidedata.Type.DISPLAYMATRIX), None)
    if data is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(float)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(math.degrees(math.atan2(-b, a)) / 90) % 4, mirrored


def _to_rgb(frame, aspect):
    """One decoded frame as contiguous uint8 [H, W, 3] RGB, as shown: turned, and with square pixels.

    `aspect` is the stored pixels' width over height, None or 0 if unknown.
    """
    from av.video.reformatter import Colorspace, Interpolation

    # Untagged high-definition video is BT.709 by convention; FFmpeg would take BT.601.
    untagged = int(frame.colorspace) == 2
    space = Colorspace.ITU709 if untagged and frame.height >= 720 else None
    width = round(frame.width * float(aspect)) if aspect else frame.width
    image = frame.reformat(width=max(1, width), format="rgb24", src_colorspace=space,
                           interpolation=Interpolation.BICUBIC | EXACT_COLOURS).to_ndarray()
    turns, mirrored = _orientation(frame)
    if mirrored:
        image = image[:, ::-1]
    return np.ascontiguousarray(np.rot90(image, turns))
