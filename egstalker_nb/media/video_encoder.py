"""RGB frames to H.264, in segments that are encoded side by side and joined without a seam.

A segment begins with an IDR frame and refers to no other one (a closed GOP), and each has an encoder of its own that
runs on one thread. So the stream depends on the frames and on the length of a segment alone: not on the number of
cores, nor on how many segments, processes or machines work at a time.
"""
from __future__ import annotations

import collections
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generator, Iterable, NamedTuple, Optional

import numpy as np

from ..core.errors import InputError
from ..core.processes import cores
from .container import EXACT_COLOURS, require_av

if TYPE_CHECKING:
    from av import VideoCodecContext, VideoFrame

#: frames of a segment, 2.6 s at 25 fps: an I-frame more each time, which costs 1 to 2 % of the bytes
SEGMENT_FRAMES = 64
X264, NVENC = "libx264", "h264_nvenc"
_NVENC_SESSIONS = 3  # that even old consumer cards encode at a time
_MAX_BYTES = 2 ** 30  # of RGB frames that wait for an encoder


class EncodedFrame(NamedTuple):
    """One compressed frame.

    Attributes:
        data: H.264 in Annex B format.
        pts: when it is shown, in frames from the beginning of its segment.
        key: whether it is an IDR frame.
    """

    data: bytes
    pts: int
    key: bool


@dataclass(frozen=True)
class Segment:
    """Compressed frames that follow each other.

    Attributes:
        header: parameter sets (SPS and PPS) in Annex B format, the same for all segments of a stream.
        reorder: how many frames a decoder holds back at most, because of B-frames.
        frames: in decoding order.
    """

    header: bytes
    reorder: int
    frames: list[EncodedFrame]


@dataclass(frozen=True)
class Encoding:
    """How a stream is encoded.

    Attributes:
        rate: frames per second.
        crf: quality, 0 (x264: lossless) to 51 (worst).
        segment: frames of a segment; the last one may be shorter.
        encoder: FFmpeg's name, see `choose_encoder`.
    """

    rate: Fraction
    crf: int = 18
    segment: int = SEGMENT_FRAMES
    encoder: str = X264


def encode_segments(frames: Iterable[np.ndarray], how: Encoding, threads: Optional[int] = None
                    ) -> Generator[Segment, None, None]:
    """Encode a video, several segments at a time while `frames` goes on.

    Args:
        frames: uint8 [H, W, 3] RGB, all of one size. Up to two segments a thread, but not more than 1 GiB, are
            consumed ahead of the encoders (one segment in any case), so each must be an array of its own.
        how: the settings.
        threads: segments encoded at a time; default: one for each core that this process may use.

    Yields:
        Segments, in order.

    Raises:
        InputError: a changing size, a wrong dtype or shape.
    """
    threads = _NVENC_SESSIONS if how.encoder == NVENC else threads or cores()
    shape: Optional[tuple[int, ...]] = None
    ahead: collections.deque[Future[Segment]] = collections.deque()
    feed: SimpleQueue[Optional[np.ndarray]] = SimpleQueue()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number, image in enumerate(frames):
                shape = checked_frame(image, shape)
                if number % how.segment == 0:
                    feed.put(None)  # ends the one before
                    at_most = min(2 * threads, _MAX_BYTES // (image.nbytes * how.segment))
                    while ahead and (len(ahead) >= at_most or ahead[0].done()):
                        yield ahead.popleft().result()
                    feed = SimpleQueue()
                    ahead.append(pool.submit(_encode, feed, shape, how))
                feed.put(image)
            feed.put(None)
            while ahead:
                yield ahead.popleft().result()
        finally:
            feed.put(None)  # if `frames` failed: the pool waits for its threads
            for future in ahead:
                future.cancel()


def checked_frame(image: np.ndarray, shape: Optional[tuple[int, ...]], channels: int = 3) -> tuple[int, ...]:
    """The shape of a frame, which must equal `shape` unless that is None.

    Raises:
        InputError: another size, dtype or number of channels.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"frames as uint8 [H, W, {channels}] arrays", found,
                         "Convert with (255 * image).round().astype('uint8').")
    if shape is not None and image.shape != shape:
        raise InputError(f"frames of one size, {shape[1]}x{shape[0]}", f"{image.shape[1]}x{image.shape[0]}",
                         "Resize all frames to the first one's size.")
    return image.shape


def _encode(feed: SimpleQueue[Optional[np.ndarray]], shape: tuple[int, ...], how: Encoding) -> Segment:
    """Encode the frames that come out of `feed`, up to None."""
    context, convert, packets = _open_encoder(shape, how), YuvConverter(), []
    pts, tick = 0, 1 / how.rate
    while (image := feed.get()) is not None:
        frame = convert(image)
        frame.pts, frame.time_base = pts, tick
        packets += context.encode(frame)
        pts += 1
    packets += context.encode(None)
    return Segment(context.extradata or b"", context.reorder_depth,
                   [EncodedFrame(bytes(packet), packet.pts or 0, packet.is_keyframe) for packet in packets])


def _open_encoder(shape: tuple[int, ...], how: Encoding) -> VideoCodecContext:
    from av.codec.context import Flags

    context = require_av().CodecContext.create(how.encoder, "w")
    (context.height, context.width), context.pix_fmt = padded(shape, "yuv420p"), "yuv420p"
    context.framerate, context.time_base = how.rate, 1 / how.rate
    context.options = _options(how)
    context.thread_count = 1  # x264's output depends on their number
    context.flags |= Flags.global_header  # parameter sets once in the file's index, as MP4 has them
    tag_colours(context)
    context.open()
    return context


def tag_colours(context: VideoCodecContext) -> None:
    """Say that frames are as `YuvConverter` makes them; without tags, players guess the colour space."""
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def _options(how: Encoding) -> dict[str, str]:
    if how.encoder == NVENC:  # constant quality; 0 would mean that the encoder chooses
        return {"rc": "vbr", "cq": str(max(1, how.crf)), "b": "0", "bf": "0", "preset": "p5", "tune": "hq",
                "profile": "high"}
    return {"crf": str(how.crf), "preset": "superfast"}


def padded(shape: tuple[int, ...], pixels: str) -> tuple[int, int]:
    """Height and width of encoded frames: 4:2:0 requires even ones."""
    height, width = shape[:2]
    return (height + height % 2, width + width % 2) if "420" in pixels else (height, width)


class YuvConverter:
    """Converts RGB or RGBA images to frames that encoders take: limited-range BT.709. Of one thread, and of one size.

    Args:
        pixels: FFmpeg's name of their format; with an alpha plane for RGBA.
    """

    def __init__(self, pixels: str = "yuv420p") -> None:
        self._pixels = pixels
        # One for all frames: building swscale's tables costs as much as converting a frame.
        self._reformatter = require_av().video.reformatter.VideoReformatter()

    def __call__(self, image: np.ndarray) -> VideoFrame:
        """Convert one image.

        Args:
            image: uint8 [H, W, 3] RGB or [H, W, 4] RGBA, padded by one repeated pixel at the right or bottom where
                `padded` says so.
        """
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        height, width = padded(image.shape, self._pixels)
        if (height, width) != image.shape[:2]:
            image = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge")
        frame = require_av().VideoFrame.from_numpy_buffer(np.ascontiguousarray(image),
                                                          format="rgb24" if image.shape[2] == 3 else "rgba")
        return self._reformatter.reformat(frame, format=self._pixels,
                                          interpolation=Interpolation.BILINEAR | EXACT_COLOURS,
                                          dst_colorspace=Colorspace.ITU709, src_color_range=ColorRange.JPEG,
                                          dst_color_range=ColorRange.MPEG, threads=1)


@lru_cache
def choose_encoder(on_gpu: bool, height: int, width: int) -> str:
    """The encoder for a video: `h264_nvenc` if this machine's graphics card has one that works, else `libx264`.

    The hardware encoder is tried on a few frames. It was never seen at work by the tests: they cover that it is refused
    where there is none (as on data-centre cards such as A100 and H100), and that it is chosen where the trial succeeds.

    Args:
        on_gpu: whether the frames are rendered on a GPU; else the answer is always `libx264`, whose output is
            reproducible.
        height, width: of a frame, in pixels; hardware encoders refuse small ones.
    """
    return NVENC if on_gpu and _works(Encoding(Fraction(25), encoder=NVENC), height, width) else X264


def _works(how: Encoding, height: int, width: int) -> bool:
    """Whether an encoder turns a few frames into a segment that can be joined to others."""
    av = require_av()
    frames = [np.full((height, width, 3), shade, np.uint8) for shade in (0, 128, 255)]
    try:
        (segment,) = encode_segments(frames, how)
    except (av.FFmpegError, OSError, ValueError):  # not in this build of FFmpeg, no such card, no driver
        return False
    return bool(segment.header) and len(segment.frames) == len(frames) and segment.frames[0].key
