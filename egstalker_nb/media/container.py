"""Opening and decoding media files, and writing files under a temporary name: shared by `audio` and `video`."""

import contextlib
import os
import tempfile
from pathlib import Path

from ..core.errors import InputError, MissingPackageError
from ..core.files import make_folder, writing_to

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
    """The container's moving picture: its default track, else the first one; None if there is none to decode.

    Cover art and thumbnails are not moving pictures; tracks in a codec that FFmpeg does not know are left out.
    """
    av = require_av()
    kinds = av.stream.Disposition
    streams = [stream for stream in moving_pictures(container) if stream.codec_context is not None]
    return next((stream for stream in streams if stream.disposition & kinds.default), streams[0] if streams else None)


def audio_stream(container, path, track=None):
    """The audio track to read.

    Args:
        container: of `path`. track: its number, 1 for the first; None: the one flagged as default (of several the first
            of them, of none the first track). Tracks in an unknown codec are passed over.

    Returns:
        (stream, note): a plain sentence where there were others to choose, else "".

    Errors: InputError without an audio track, without one that can be decoded, or for a number that is none of them.
    """
    av = require_av()
    tracks = list(container.streams.audio)
    if not tracks:
        raise InputError("a file with sound", f"{path} without a sound stream", "Give a file that has sound.")
    usable = [stream for stream in tracks if stream.codec_context is not None]
    listed = "; ".join(f"{n}: {_described(stream)}" for n, stream in enumerate(tracks, 1))
    if track is not None:
        number = isinstance(track, int) and not isinstance(track, bool) and 1 <= track <= len(tracks)
        if not number or tracks[track - 1] not in usable:
            raise InputError("track as the number of an audio track that can be decoded, counted from 1",
                             f"track={track!r}; tracks of {path}: {listed}", "Choose one of them, or leave it out.")
        return tracks[track - 1], ""
    if not usable:
        raise InputError("an audio track in a codec that FFmpeg knows", f"{path} with the tracks {listed}",
                         "Convert its sound to AAC or WAV.")
    flagged = [stream for stream in usable if stream.disposition & av.stream.Disposition.default]
    stream = (flagged or usable)[0]
    note = (f"has {len(tracks)} audio tracks ({listed}): track {tracks.index(stream) + 1} is used. To choose another, "
            "give its number as track= to egs.prepare or audio.load_audio.")
    return stream, note if len(tracks) > 1 else ""


def _described(stream):
    codec = stream.codec_context
    language = stream.language or "no language"
    if codec is None:
        return f"{language}, unknown codec"
    channels = codec.layout.nb_channels
    return f"{language}, {codec.name}, {channels} channel{'s' * (channels != 1)}"


def moving_pictures(container):
    """All picture streams but cover art, thumbnails and still images, decodable or not."""
    kinds = require_av().stream.Disposition
    still = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    return [stream for stream in container.streams.video if not stream.disposition & still]


def alpha_decoder(stream):
    """The name of the decoder that reads the alpha of a VP8 or VP9 stream, None for streams without it.

    FFmpeg's own decoders drop it: it lies beside the picture as a second stream.
    """
    if stream.metadata.get("alpha_mode") != "1":
        return None
    return {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(stream.codec_context.name)


def has_decoder(name):
    """Whether this build of FFmpeg has a decoder of that name."""
    av = require_av()
    try:
        av.Codec(name, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def decode(container, stream, damage=None):
    """Yield the decodable frames of one stream; damaged packets are skipped and counted.

    Args:
        damage: None, or a list that gets one entry for each damaged packet.

    Errors: InputError if FFmpeg does not know the stream's codec.
    """
    av = require_av()
    if stream.codec_context is None:
        raise InputError(f"a {stream.type} track in a codec that FFmpeg knows",
                         f"an unknown one in {container.name}", "Convert the file to MP4 (H.264 and AAC).")
    name = alpha_decoder(stream) if stream.type == "video" else None
    decoder = av.CodecContext.create(name, "r") if name and has_decoder(name) else stream.codec_context
    frames = _decoded(decoder, container.demux(stream), [] if damage is None else damage)
    yield from _avi_times(frames) if stream.type == "video" and has_only_decoding_times(container) else frames


def _decoded(decoder, packets, damage):
    av = require_av()
    while True:
        try:
            packet = next(packets)
            # An empty packet in the middle is a dropped frame of an AVI; to the decoder it would mean the end.
            if packet.size or packet.dts is None:
                yield from decoder.decode(packet)
        except StopIteration:
            return
        except av.FFmpegError as error:
            damage.append(str(error))


def has_only_decoding_times(container):
    """Whether the container stores no presentation times; those that FFmpeg guesses are wrong with B-frames."""
    return container.format.name == "avi"


def _avi_times(frames):
    """Presentation times from decoding times: decoders give frames in order, and players show the first one at 0."""
    delay = last = None
    for frame in frames:
        delay = frame.dts if delay is None else delay
        # Frames that come out at the end, when no packet is left, have no decoding time. One tick is one frame.
        last = last + 1 if frame.dts is None and last is not None else (frame.dts or 0) - (delay or 0)
        frame.pts = last
        yield frame


def first_frame(path):
    """The first decodable frame of the picture that has a time, or None if the file has none."""
    with open_media(path) as container:
        stream = picture_stream(container)
        frames = () if stream is None else decode(container, stream)
        return next((frame for frame in frames if frame.time is not None), None)


def picture_zero(path):
    """Presentation time in seconds of the first decodable frame, or None if the file has no picture."""
    frame = first_frame(path)
    return None if frame is None else float(frame.time)


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
