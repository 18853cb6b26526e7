"""Frames and sound to an MP4 that any player takes."""

import collections
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .container import EXACT_COLOURS, replacing, require_av
from .rates import FPS, SAMPLE_RATE

_FILE_SOUND_RATE = 48_000  # what is stored: AAC's priming is then 21 ms, and every player takes it


def write_video(path, frames, wave=None, fps=FPS, crf=18):
    """Write an MP4 (H.264 yuv420p BT.709, AAC) that plays while it downloads.

    Odd sizes grow by one repeated pixel at the right or bottom, as 4:2:0 needs even ones. The sound is cut
    or padded with silence to the length of the picture. The file appears under its name only when finished.

    Args:
        path: file to write; its folder is made if needed.
        frames: iterable of uint8 [H, W, 3] RGB, all of one size, at least one; read some frames ahead of the
            encoder, so each needs memory of its own.
        wave: None, or float [samples] mono, 16 kHz, -1..1, on the same zero as the first frame.
        fps: frames per second.
        crf: x264 quality, 0 (lossless) to 51 (worst).

    Returns:
        the path as a Path.

    Errors: InputError on no frames, a changing size, a wrong dtype or shape, or an unusable wave; nothing
    is left behind.
    """
    av = require_av()
    path, frames = Path(path), iter(frames)
    if wave is not None:
        wave = _checked_wave(wave)
    first = next(frames, None)
    if first is None:
        raise InputError("at least one frame", "none", "Check the range of frames to write.")
    shape = _checked_frame(first, None)
    rate = Fraction(fps).limit_denominator(100_000)
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4",
                                               options={"movflags": "+faststart"}) as out:
        picture = _picture_encoder(out, shape, rate, crf)
        sound = None if wave is None else _SoundWriter(out, wave)
        pictures = (_rgb_frame(image, shape) for image in itertools.chain([first], frames))
        for count, frame in enumerate(_converted(pictures), 1):
            frame.pts, frame.time_base = count - 1, 1 / rate
            out.mux(picture.encode(frame))
            if sound:
                sound.write_until(count / rate)
        out.mux(picture.encode(None))
        if sound:
            sound.finish()
    return path


def _checked_frame(image, shape):
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError("frames as uint8 [H, W, 3] arrays", found,
                         "Convert with (255 * image).round().astype('uint8').")
    if shape is not None and image.shape != shape:
        raise InputError(f"frames of one size, {shape[1]}x{shape[0]}", f"{image.shape[1]}x{image.shape[0]}",
                         "Resize all frames to the first one's size.")
    return image.shape


def _checked_wave(wave):
    wave = np.asarray(wave)
    if wave.ndim != 1 or wave.dtype.kind != "f" or not np.isfinite(wave).all():
        raise InputError("sound as finite floats [samples]", f"{wave.dtype} {list(wave.shape)}",
                         "Load it with load_audio.")
    return wave.astype(np.float32, copy=False)


def _picture_encoder(out, shape, rate, crf):
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    stream = out.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "superfast"})
    stream.width, stream.height, stream.pix_fmt = shape[1] + shape[1] % 2, shape[0] + shape[0] % 2, "yuv420p"
    context = stream.codec_context
    context.thread_type = "AUTO"  # whole frames side by side; PyAV's default cuts small pictures into slices
    # Tagged, so that players do not guess (and shift) the colours.
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _rgb_frame(image, shape):
    """The picture as an FFmpeg frame, of even size (4:2:0 needs that), in the picture's own memory."""
    _checked_frame(image, shape)
    odd = (image.shape[0] % 2, image.shape[1] % 2)
    if any(odd):
        image = np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    return require_av().VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")


def _to_yuv(frame):
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    return frame.reformat(format="yuv420p", interpolation=Interpolation.BILINEAR | EXACT_COLOURS,
                          dst_colorspace=Colorspace.ITU709, src_color_range=ColorRange.JPEG,
                          dst_color_range=ColorRange.MPEG)


def _converted(frames):
    """`_to_yuv` of each frame, some frames ahead on all cores: alone it would hold up the encoder."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead = collections.deque()
        for frame in frames:
            ahead.append(pool.submit(_to_yuv, frame))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _SoundWriter:
    """Feeds a wave to the AAC encoder in step with the picture, so that the muxer need not hold either back."""

    def __init__(self, out, wave):
        av = require_av()
        self.out, self.wave = out, wave
        self.stream = out.add_stream("aac", rate=_FILE_SOUND_RATE, layout="mono", options={"b": "96k"})
        self.resampler = av.AudioResampler(format="fltp", layout="mono", rate=_FILE_SOUND_RATE)
        self.done = 0

    def write_until(self, seconds):
        """Encode the samples before `seconds`; past the wave's end, silence."""
        av = require_av()
        end = round(seconds * SAMPLE_RATE)
        chunk = self.wave[self.done:end]
        chunk = np.pad(chunk, (0, end - self.done - len(chunk)))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self.done, Fraction(1, SAMPLE_RATE)
        self._encode(self.resampler.resample(frame))
        self.done = end

    def finish(self):
        """Flush the resampler and the encoder."""
        self._encode(self.resampler.resample(None))
        self.out.mux(self.stream.encode(None))

    def _encode(self, frames):
        for frame in frames:
            self.out.mux(self.stream.encode(frame))
