"""Writing frames with alpha, and audio, for compositing: ProRes 4444 in a MOV, or VP9 in a WebM."""
from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Iterable, Optional

import numpy as np

from ..core.errors import InputError
from ..core.files import make_folder, replacing
from .audio import checked_wave
from .container import require_av
from .rates import FPS
from .synthetic import COMMENT, mark_mp4
from .video_encoder import YuvConverter, checked_frame, padded, tag_colours
from .video_writer import AudioTrack


@dataclass(frozen=True)
class AlphaFormat:
    """A kind of video that has alpha.

    Attributes:
        container, video, audio: FFmpeg's names.
        pixels: of the encoded frames: 4:2:0 needs even sizes, 4:4:4 takes any.
        options: of the video encoder.
    """

    container: str
    video: str
    audio: str
    pixels: str
    options: dict[str, str]


#: by the suffix of the file
ALPHA_FORMATS = {
    ".mov": AlphaFormat("mov", "prores_ks", "pcm_s16le", "yuva444p10le",
                        {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"}),
    # constant quality; alternative reference frames cannot be had with alpha
    ".webm": AlphaFormat("webm", "libvpx-vp9", "libopus", "yuva420p",
                         {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1",
                          "auto-alt-ref": "0"}),
}


def write_alpha_video(path: str | Path, frames: Iterable[np.ndarray], wave: Optional[np.ndarray] = None) -> Path:
    """Write a rendered video with straight (unassociated) alpha at 25 fps, BT.709.

    Its metadata say that it is synthetic. Unlike an MP4 it is encoded in one piece.

    Args:
        path: file to write, .mov (ProRes 4444, alpha of 16 bits, PCM) or .webm (VP9 with alpha, Opus); its folder is
            made if needed. WebM frames of an odd size are padded by one repeated pixel at the right or bottom.
        frames: uint8 [H, W, 4] RGBA, straight, all of one size, at least one.
        wave: None, or float [samples] mono, 16 kHz, -1..1, starting at the first frame; cut or padded with silence to
            the length of the video.

    Returns:
        The path as a Path.

    Raises:
        InputError: no frames, a changing size, a wrong dtype or shape, an unusable wave; no file is written.
        StorageError: the disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    how = ALPHA_FORMATS[path.suffix.lower()]
    if wave is not None:
        wave = checked_wave(wave, min_samples=0)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError("at least one frame", "none", "Check the range of frames to write.")
    make_folder(path.parent)
    with replacing(path) as temporary:
        _write(temporary, how, first, frames, wave)
        if how.container == "mov":  # WebM has no place for XMP: its comment must do
            mark_mp4(temporary)
    return path


def _write(path: Path, how: AlphaFormat, first: np.ndarray, rest: Iterable[np.ndarray], wave: Optional[np.ndarray]
           ) -> None:
    with require_av().open(str(path.absolute()), "w", format=how.container) as out:
        out.metadata["comment"] = COMMENT
        stream = _open_stream(out, how, first)
        convert = YuvConverter(how.pixels)
        with nullcontext() if wave is None else AudioTrack(out, wave, how.audio) as audio:
            for count, image in enumerate(itertools.chain([first], rest), start=1):
                checked_frame(image, first.shape, channels=4)
                frame = convert(image)
                frame.pts, frame.time_base = count - 1, Fraction(1, FPS)
                for packet in stream.encode(frame):
                    out.mux(packet)
                if audio:
                    audio.write_until(Fraction(count, FPS))
            for packet in stream.encode(None):
                out.mux(packet)
            if audio:
                audio.finish()


def _open_stream(out: Any, how: AlphaFormat, image: np.ndarray) -> Any:
    stream = out.add_stream(how.video, rate=FPS)
    stream.height, stream.width = padded(checked_frame(image, None, channels=4), how.pixels)
    stream.pix_fmt, stream.options = how.pixels, how.options
    tag_colours(stream.codec_context)
    return stream
