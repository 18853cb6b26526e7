"""Opening and decoding media files, and writing files under a temporary name: shared by `audio` and `video`."""

import contextlib
import os
import tempfile
from pathlib import Path

from .errors import InputError, MissingPackageError
from .files import make_folder, writing_to

#: swscale's SWS_ACCURATE_RND and SWS_FULL_CHR_H_INT: without them each trip through YUV darkens by 1-2 levels
EXACT_COLOURS = 0x40000 | 0x2000


def require_av():
    """Import PyAV, or raise MissingPackageError with the command that installs it."""
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("PyAV, which reads and writes media files", "no package 'av'",
                                  "Install it with: pip install av") from error
    return av


@contextlib.contextmanager
def open_media(path):
    """Open a media file for reading as an `av` input container.

    Errors: InputError if the file is missing, empty, or not a media file.
    """
    av = require_av()
    path = Path(path)
    if not path.is_file():
        raise InputError("a media file", f"no file at {path}", "Check the path.")
    if path.stat().st_size == 0:
        raise InputError("a media file", f"{path} with 0 bytes", "Copy or record the file again.")
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError("a video or sound file that FFmpeg can read", f"{path} ({why})",
                         "Check that the file is complete, or convert it to MP4 or WAV.") from error
    with container:
        yield container


def picture_stream(container):
    """The container's moving picture stream, or None (cover art of a sound file is not one)."""
    for stream in container.streams.video:
        if not _is_cover(stream):
            return stream
    return None


def _is_cover(stream):
    av = require_av()
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def decode(container, stream, damage=None):
    """Yield the decodable frames of one stream; damaged packets are skipped and counted.

    Args:
        damage: None, or a list that gets one entry for each damaged packet.
    """
    av = require_av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            yield from packet.decode()
        except StopIteration:
            return
        except (av.error.InvalidDataError, av.error.EOFError) as error:
            if damage is not None:
                damage.append(str(error))


def picture_zero(path):
    """Presentation time in seconds of the first decodable frame, or None if the file has no picture."""
    with open_media(path) as container:
        stream = picture_stream(container)
        if stream is None:
            return None
        for frame in decode(container, stream):
            if frame.time is not None:
                return float(frame.time)
    return None


@contextlib.contextmanager
def replacing(path):
    """Give a temporary name beside `path`; rename it to `path` on success, remove it on any failure."""
    path = Path(path)
    if path.is_dir():
        raise InputError("the name of a file to write", f"the folder '{path}'", "Choose another name.")
    make_folder(path.parent)
    with writing_to(path.parent):
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    os.chmod(name, 0o644)
    try:
        yield Path(name)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
