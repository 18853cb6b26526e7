"""Writing frames and audio to an MP4 that any player can play."""
from __future__ import annotations

import collections
import itertools
import os
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Optional

import numpy as np

from ..core.errors import InputError
from ..core.files import make_folder, replacing
from .audio import checked_wave
from .container import EXACT_COLOURS, require_av
from .limits import check_fps
from .rates import FPS, SAMPLE_RATE
from .synthetic import COMMENT, mark_mp4

if TYPE_CHECKING:
    from av import AudioFrame, VideoFrame, VideoStream
    from av.container import OutputContainer

_FILE_AUDIO_RATE = 48_000  # of the AAC stream: its priming is then 21 ms, and every player supports it


def write_video(path: str | Path, frames: Iterable[np.ndarray], wave: Optional[np.ndarray] = None, fps: float = FPS,
                crf: int = 18) -> Path:
    """Write a rendered video as an MP4 (H.264 yuv420p BT.709, AAC) that can be streamed.

    Its metadata say that it is synthetic (see `synthetic`).

    Odd sizes are padded by one repeated pixel at the right or bottom, as 4:2:0 requires even ones. The audio is cut or
    padded with silence to the length of the video. The file is renamed to `path` only when it is complete.

    Args:
        path: file to write; its folder is made if needed.
        frames: uint8 [H, W, 3] RGB, all of one size, at least one. Several frames are consumed ahead of the encoder, so
            each must be an array of its own.
        wave: None, or float [samples] mono, 16 kHz, -1..1, starting at the first frame.
        fps: frames per second, above 0 and at most 1000.
        crf: x264 quality, 0 (lossless) to 51 (worst).

    Returns:
        The path as a Path.

    Raises:
        InputError: no frames, a changing size, a wrong dtype or shape, an unusable wave or fps; no file is written.
        StorageError: the disk is full, or the folder cannot be written to.
    """
    av = require_av()
    check_fps(fps)
    path, frames = Path(path), iter(frames)
    if wave is not None:
        wave = checked_wave(wave, min_samples=0)
    first = next(frames, None)
    if first is None:
        raise InputError("at least one frame", "none", "Check the range of frames to write.")
    shape = _checked_frame(first, None)
    make_folder(path.parent)
    rate = Fraction(fps).limit_denominator(100_000)
    with replacing(path) as temporary:
        # the absolute path, as FFmpeg would take some relative ones for a URL
        with av.open(str(temporary.absolute()), "w", format="mp4", options={"movflags": "+faststart"}) as out:
            out.metadata["comment"] = COMMENT
            video = _video_encoder(out, shape, rate, crf)
            audio = None if wave is None else _AudioWriter(out, wave)
            rgb_frames = (_rgb_frame(image, shape) for image in itertools.chain([first], frames))
            for count, frame in enumerate(_converted(rgb_frames), 1):
                frame.pts, frame.time_base = count - 1, 1 / rate
                out.mux(video.encode(frame))
                if audio:
                    audio.write_until(count / rate)
            out.mux(video.encode(None))
            if audio:
                audio.finish()
        mark_mp4(temporary)
    return path


def _checked_frame(image: np.ndarray, shape: Optional[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a frame, which must equal `shape` unless that is None."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError("frames as uint8 [H, W, 3] arrays", found,
                         "Convert with (255 * image).round().astype('uint8').")
    if shape is not None and image.shape != shape:
        raise InputError(f"frames of one size, {shape[1]}x{shape[0]}", f"{image.shape[1]}x{image.shape[0]}",
                         "Resize all frames to the first one's size.")
    return image.shape


def _video_encoder(out: OutputContainer, shape: tuple[int, ...], rate: Fraction, crf: int) -> VideoStream:
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    stream = out.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "superfast"})
    stream.width, stream.height, stream.pix_fmt = shape[1] + shape[1] % 2, shape[0] + shape[0] % 2, "yuv420p"
    context = stream.codec_context
    context.thread_type = "AUTO"  # frames in parallel; PyAV's default divides small frames into slices
    # Without tags, players guess the colour space.
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _rgb_frame(image: np.ndarray, shape: tuple[int, ...]) -> VideoFrame:
    """An FFmpeg frame of even size (for 4:2:0) that shares the image's memory."""
    _checked_frame(image, shape)
    odd = (image.shape[0] % 2, image.shape[1] % 2)
    if any(odd):
        image = np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    return require_av().VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")


def _to_yuv(frame: VideoFrame) -> VideoFrame:
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    return frame.reformat(format="yuv420p", interpolation=Interpolation.BILINEAR | EXACT_COLOURS,
                          dst_colorspace=Colorspace.ITU709, src_color_range=ColorRange.JPEG,
                          dst_color_range=ColorRange.MPEG)


def _converted(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """`_to_yuv` of each frame, some frames ahead on all cores, as one thread is slower than the encoder."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: collections.deque[Future[VideoFrame]] = collections.deque()
        for frame in frames:
            ahead.append(pool.submit(_to_yuv, frame))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _AudioWriter:
    """Feeds a wave to the AAC encoder in step with the video, so that the muxer need not buffer either stream."""

    def __init__(self, out: OutputContainer, wave: np.ndarray):
        av = require_av()
        self.out, self.wave = out, wave
        self.stream = out.add_stream("aac", rate=_FILE_AUDIO_RATE, layout="mono", options={"b": "96k"})
        self.resampler = av.AudioResampler(format="fltp", layout="mono", rate=_FILE_AUDIO_RATE)
        self.done = 0

    def write_until(self, seconds: float | Fraction) -> None:
        """Encode the samples before `seconds`; silence after the end of the wave."""
        av = require_av()
        end = round(seconds * SAMPLE_RATE)
        chunk = self.wave[self.done:end]
        chunk = np.pad(chunk, (0, end - self.done - len(chunk)))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self.done, Fraction(1, SAMPLE_RATE)
        self._encode(self.resampler.resample(frame))
        self.done = end

    def finish(self) -> None:
        """Flush the resampler and the encoder."""
        self._encode(self.resampler.resample(None))
        self.out.mux(self.stream.encode(None))

    def _encode(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            self.out.mux(self.stream.encode(frame))
