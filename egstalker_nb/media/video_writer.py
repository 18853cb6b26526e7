"""Writing frames and audio to an MP4 that any player can play."""
from __future__ import annotations

import io
import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generator, Iterable, Iterator, Optional

import numpy as np

from ..core.errors import InputError
from ..core.files import make_folder, replacing
from .audio import checked_wave
from .container import require_av
from .limits import check_fps
from .rates import FPS, SAMPLE_RATE
from .synthetic import COMMENT, mark_mp4
from .video_encoder import SEGMENT_FRAMES, X264, Encoding, Segment, encode_segments

if TYPE_CHECKING:
    from av import AudioFrame, Packet
    from av.container import OutputContainer

_FILE_AUDIO_RATE = 48_000  # the priming of AAC is then 21 ms, and every player supports it
#: FFmpeg's name -> format of the samples that it takes, options. AAC's default coder takes three times as long, which
#: would limit long videos, and is worse at this bit rate.
_AUDIO_CODECS = {"aac": ("fltp", {"b": "96k", "aac_coder": "fast"}), "libopus": ("flt", {"b": "96k"}),
                 "pcm_s16le": ("s16", {})}


def write_video(path: str | Path, frames: Iterable[np.ndarray], wave: Optional[np.ndarray] = None, fps: float = FPS,
                crf: int = 18, segment: int = SEGMENT_FRAMES, encoder: str = X264) -> Path:
    """Write a rendered video as an MP4 (H.264 yuv420p BT.709, AAC) that can be streamed.

    Its metadata say that it is synthetic (see `synthetic`).

    Odd sizes are padded by one repeated pixel at the right or bottom, as 4:2:0 requires even ones. The audio is cut or
    padded with silence to the length of the video. The file is renamed to `path` only when it is complete. The same
    arguments give the same bytes on any number of cores.

    Args:
        path: file to write; its folder is made if needed.
        frames: uint8 [H, W, 3] RGB, all of one size, at least one. Many frames are consumed ahead of the encoder, see
            `encode_segments`, so each must be an array of its own.
        wave: None, or float [samples] mono, 16 kHz, -1..1, starting at the first frame.
        fps: frames per second, above 0 and at most 1000.
        crf: x264 quality, 0 (lossless) to 51 (worst).
        segment: frames that are encoded together; each segment begins with an IDR frame.
        encoder: see `choose_encoder`.

    Returns:
        The path as a Path.

    Raises:
        InputError: no frames, a changing size, a wrong dtype or shape, an unusable wave or fps; no file is written.
        StorageError: the disk is full, or the folder cannot be written to.
    """
    check_fps(fps)
    how = Encoding(frame_rate(fps), crf, segment, encoder)
    return mux_video(path, encode_segments(frames, how), wave, how.rate)


def frame_rate(fps: float) -> Fraction:
    """Frames per second as a fraction."""
    return Fraction(fps).limit_denominator(100_000)


def mux_video(path: str | Path, segments: Generator[Segment, None, None], wave: Optional[np.ndarray], rate: Fraction
              ) -> Path:
    """Write segments, however they were encoded, one after the other with their audio. See `write_video`.

    Args:
        path: file to write.
        segments: at least one, all encoded with the same settings. Closed in any case.
        wave: see `write_video`.
        rate: frames per second.

    Returns:
        The path as a Path.

    Raises:
        InputError: no segments, segments that do not fit together, an unusable wave; no file is written.
        StorageError: see `write_video`.
    """
    path = Path(path)
    with closing(segments):
        if wave is not None:
            wave = checked_wave(wave, min_samples=0)
        first = next(segments, None)
        if first is None:
            raise InputError("at least one frame", "none", "Check the range of frames to write.")
        make_folder(path.parent)
        with replacing(path) as temporary:
            _mux(temporary, itertools.chain([first], segments), first, wave, rate)
            mark_mp4(temporary)
    return path


def _mux(path: Path, segments: Iterable[Segment], first: Segment, wave: Optional[np.ndarray], rate: Fraction) -> None:
    # the absolute path, as FFmpeg would take some relative ones for a URL
    with require_av().open(str(path.absolute()), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        out.metadata["comment"] = COMMENT
        video = _VideoWriter(out, first, rate)
        with nullcontext() if wave is None else AudioTrack(out, wave) as audio:
            for segment in segments:
                for packet in video.packets(segment):
                    out.mux(packet)
                if audio:
                    audio.write_until(video.done / rate)
            if audio:
                audio.finish()


class _VideoWriter:
    """Gives the frames of segments their place in the file."""

    def __init__(self, out: OutputContainer, first: Segment, rate: Fraction):
        self.header, self.reorder, self.tick, self.done = first.header, first.reorder, 1 / rate, 0
        # The parameter sets and the first frame describe the stream to the muxer, whatever encoded them and wherever.
        with require_av().open(io.BytesIO(first.header + first.frames[0].data), format="h264") as described:
            self.stream = out.add_stream_from_template(described.streams.video[0], opaque=True)
        self.stream.time_base = self.tick

    def packets(self, segment: Segment) -> Iterator[Packet]:
        """The packets of the next segment; `done` counts them.

        Raises:
            InputError: it was encoded in another way than the first one.
        """
        if (segment.header, segment.reorder) != (self.header, self.reorder):
            raise InputError("parts of the video that were all encoded in the same way", "different H.264 headers",
                             "Install the same version of PyAV (av) on all machines.")
        begin = self.done
        for frame in segment.frames:
            packet = require_av().Packet(frame.data)
            packet.stream, packet.time_base, packet.duration = self.stream, self.tick, 1
            packet.pts, packet.dts = begin + frame.pts, self.done - self.reorder
            packet.is_keyframe = frame.key
            self.done += 1
            yield packet


class AudioTrack:
    """Feeds a wave to an audio encoder in step with the video, so that the muxer need not buffer either stream.

    It encodes in a thread of its own while the frames go on, and writes one call later.

    Args:
        out: the file.
        wave: float [samples] mono, 16 kHz.
        codec: a key of `_AUDIO_CODECS`.
    """

    def __init__(self, out: OutputContainer, wave: np.ndarray, codec: str = "aac"):
        self.out, self.wave = out, wave
        samples, options = _AUDIO_CODECS[codec]
        self.stream: Any = out.add_stream(codec, rate=_FILE_AUDIO_RATE, layout="mono", options=options)
        self.resampler = require_av().AudioResampler(format=samples, layout="mono", rate=_FILE_AUDIO_RATE)
        self.done = 0
        self._pool = ThreadPoolExecutor(1)
        self._encoding: Optional[Future[list[Packet]]] = None

    def __enter__(self) -> AudioTrack:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown()

    def write_until(self, seconds: float | Fraction) -> None:
        """Encode the samples before `seconds`; silence after the end of the wave."""
        end = round(seconds * SAMPLE_RATE)
        chunk = self.wave[self.done:end]
        chunk = np.pad(chunk, (0, end - self.done - len(chunk)))
        frame = require_av().AudioFrame.from_ndarray(np.ascontiguousarray(chunk[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self.done, Fraction(1, SAMPLE_RATE)
        self._write()
        self._encoding = self._pool.submit(self._encode, frame)
        self.done = end

    def finish(self) -> None:
        """Flush the resampler and the encoder."""
        self._write()
        self.out.mux(self._encode(None))
        self.out.mux(self.stream.encode(None))

    def _encode(self, frame: Optional[AudioFrame]) -> list[Packet]:
        return [packet for part in self.resampler.resample(frame) for packet in self.stream.encode(part)]

    def _write(self) -> None:
        """Write what was encoded last."""
        if self._encoding:
            self.out.mux(self._encoding.result())
            self._encoding = None
