"""Opening and decoding media files with PyAV: the one place that knows how FFmpeg fails.

Files are opened by their absolute path, so no name is taken for a URL, and only in formats that hold their own data:
FFmpeg would follow playlists, scripts and session descriptions to other files and hosts.
"""
from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Optional

from ..core.errors import InputError, first_line, require_package
from ..core.files import shortened
from ..core.reading import shown
from .limits import MAX_PIXELS

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer
    from av.subtitles.stream import SubtitleStream

#: swscale's SWS_ACCURATE_RND and SWS_FULL_CHR_H_INT: without them each conversion through YUV darkens by 1-2 levels
EXACT_COLOURS = 0x40000 | 0x2000

#: FFmpeg's names of the containers and raw streams that are read; none of them refers to other files
FORMATS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "mxf", "nut", "ivf", "dv", "rm",
    "wtv", "h264", "hevc", "av1", "obu", "m4v", "vc1", "mjpeg", "yuv4mpegpipe", "gif", "apng",
    "wav", "w64", "mp3", "flac", "aac", "loas", "ac3", "eac3", "aiff", "caf", "au", "amr", "amrnb", "amrwb", "ape",
    "tta", "wv", "mpc", "mpc8", "tak", "dts", "truehd", "dsf", "iff", "voc", "gsm", "sox", "nistsphere")


def require_av() -> Any:
    """Import PyAV.

    Raises:
        MissingPackageError: it is not installed.
    """
    return require_package("av", "PyAV, which reads and writes media files", "Install it with: pip install av")


def check_file(path: str | Path, what: str) -> Path:
    """Check that a path is one of a plain file that is not empty; a pipe or a device would never end.

    Args:
        path: the path.
        what: the kind of file that is expected, for the message.

    Returns:
        The absolute path, links and all.

    Raises:
        InputError: it is missing, empty, a folder, a pipe or a device, or it cannot be reached.
    """
    place = f"'{shortened(path)}'"
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        why = getattr(error, "strerror", None) or first_line(error)
        raise InputError(what, f"no file at {place}" if missing else f"{place} ({why})", "Check the path.") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise InputError(what, f"{kind} at {place}", "Give the path of a file.")
    if found.st_size == 0:
        raise InputError(what, f"{place} with 0 bytes", "Copy or record the file again.")
    return Path(path).absolute()


@contextlib.contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a media file for reading. What goes wrong in FFmpeg while it is open becomes an InputError as well.

    Raises:
        InputError: the file is missing, empty, not a media file, or cannot be read.
    """
    av = require_av()
    absolute = check_file(path, "a media file")
    place = f"'{shortened(path)}'"
    try:
        # The streams' own limit of pixels holds for the frames that are decoded while the file is being opened.
        container = av.open(str(absolute), metadata_errors="ignore", options={"max_pixels": str(MAX_PIXELS)},
                            container_options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"})
    except Exception as error:  # damaged files fail in many ways, and PyAV has no common error for them
        why = getattr(error, "strerror", None) or first_line(error)
        if isinstance(error, av.error.ArgumentError):
            why = "damaged, or in a format that is not read"
        raise InputError("a video or audio file that FFmpeg can read", f"{place} ({why})",
                         "Check that the file is complete, or convert it to MP4 or WAV; playlists and other files that "
                         "only refer to media are not followed.") from error
    try:
        with container:
            yield container
    except (av.FFmpegError, OSError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise InputError("a media file that can be read to its end", f"{place} ({why})",
                         "Copy the file again, or convert it to MP4 or WAV.") from error


def video_stream(container: InputContainer) -> Optional[VideoStream]:
    """The video stream to read: the default one, else the first; None if there is none that FFmpeg can decode."""
    av = require_av()
    kinds = av.stream.Disposition
    streams = [stream for stream in video_streams(container) if stream.codec_context is not None]
    return next((stream for stream in streams if stream.disposition & kinds.default), streams[0] if streams else None)


def audio_stream(container: InputContainer, path: Path, track: Optional[int] = None) -> tuple[AudioStream, str]:
    """The audio stream to read.

    Args:
        container: the opened file.
        path: its path, for messages.
        track: number of the audio track, 1 for the first; None: the first one flagged as default, else the first.
            Tracks in an unknown codec are skipped.

    Returns:
        The stream, and a sentence for the user if there were several tracks, else "".

    Raises:
        InputError: no audio track, none that can be decoded, or no track of that number.
    """
    av = require_av()
    tracks = list(container.streams.audio)
    if not tracks:
        raise InputError("a file with audio", f"'{shortened(path)}' without an audio stream",
                         "Give a file that has audio.")
    usable = [stream for stream in tracks if stream.codec_context is not None]
    listed = "; ".join(f"{n}: {_described(stream)}" for n, stream in enumerate(tracks, 1))
    if track is not None:
        number = isinstance(track, int) and not isinstance(track, bool) and 1 <= track <= len(tracks)
        if not number or tracks[track - 1] not in usable:
            raise InputError("track as the number of an audio track that can be decoded, counted from 1",
                             f"track={shown(track)}; tracks of '{shortened(path)}': {listed}",
                             "Choose one of them, or leave it out.")
        return tracks[track - 1], ""
    if not usable:
        raise InputError("an audio track in a codec that FFmpeg knows", f"'{shortened(path)}' with the tracks {listed}",
                         "Convert its audio to AAC or WAV.")
    flagged = [stream for stream in usable if stream.disposition & av.stream.Disposition.default]
    stream = (flagged or usable)[0]
    note = (f"has {len(tracks)} audio tracks ({listed}): track {tracks.index(stream) + 1} is used. To choose another, "
            "give its number as track= to egs.prepare or nb.load_audio.")
    return stream, note if len(tracks) > 1 else ""


def _described(stream: AudioStream) -> str:
    codec = stream.codec_context
    language = stream.language or "no language"
    if codec is None:
        return f"{language}, unknown codec"
    channels = codec.layout.nb_channels
    return f"{language}, {codec.name}, {channels} channel{'s' * (channels != 1)}"


def video_streams(container: InputContainer) -> list[VideoStream]:
    """All video streams except cover art, thumbnails and still images, decodable or not."""
    kinds = require_av().stream.Disposition
    still = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    return [stream for stream in container.streams.video if not stream.disposition & still]


def alpha_decoder(stream: VideoStream) -> Optional[str]:
    """Name of the decoder that reads the alpha of a VP8 or VP9 stream; None for streams without such alpha.

    FFmpeg's own decoders drop that alpha, which is stored as a second stream beside the colours.
    """
    if stream.metadata.get("alpha_mode") != "1":
        return None
    return {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(stream.codec_context.name)


def has_decoder(name: str) -> bool:
    """Whether this build of FFmpeg has a decoder of that name."""
    av = require_av()
    try:
        av.Codec(name, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def decode(container: InputContainer, stream: VideoStream | AudioStream, damage: Optional[list[str]] = None
           ) -> Iterator[Any]:
    """Decode one stream, skipping damaged packets.

    Args:
        container: the opened file.
        stream: one of its streams.
        damage: None, or a list that gets one entry for each damaged packet.

    Yields:
        av.VideoFrame or av.AudioFrame, as the stream's type.

    Raises:
        InputError: FFmpeg does not know the stream's codec.
    """
    av = require_av()
    if stream.codec_context is None:
        raise InputError(f"a {stream.type} track in a codec that FFmpeg knows", "an unknown one",
                         "Convert the file to MP4 (H.264 and AAC).")
    name = alpha_decoder(stream) if stream.type == "video" else None
    decoder = av.CodecContext.create(name, "r") if name and has_decoder(name) else stream.codec_context
    if not decoder.is_open:
        decoder.options = {**decoder.options, "max_pixels": str(MAX_PIXELS)}
    frames = _decoded(decoder, packets(container, stream), [] if damage is None else damage)
    yield from _avi_times(frames) if stream.type == "video" and has_only_decoding_times(container) else frames


def packets(container: InputContainer, stream: VideoStream | AudioStream | SubtitleStream) -> Iterator[Packet]:
    """The packets of one stream up to where the file cannot be read on, and an empty one at the end of it."""
    with contextlib.suppress(require_av().FFmpegError):
        yield from container.demux(stream)


def _decoded(decoder: Any, packets: Iterator[Packet], damage: list[str]) -> Iterator[Any]:
    av = require_av()
    for packet in packets:
        try:
            # An empty packet in the middle is a dropped frame of an AVI, but the decoder would take it for the end.
            if packet.size or packet.dts is None:
                yield from decoder.decode(packet)
        except av.FFmpegError as error:
            damage.append(str(error))


def has_only_decoding_times(container: InputContainer) -> bool:
    """Whether the container stores no presentation times; FFmpeg's guesses are wrong with B-frames."""
    return container.format.name == "avi"


def _avi_times(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Presentation times from decoding times: decoders give frames in order, and players show the first one at 0."""
    delay: Optional[int] = None
    last: Optional[int] = None
    for frame in frames:
        delay = frame.dts if delay is None else delay
        # Frames flushed from the decoder at the end have no decoding time. One tick is one frame.
        last = last + 1 if frame.dts is None and last is not None else (frame.dts or 0) - (delay or 0)
        frame.pts = last
        yield frame


def first_frame(path: str | Path) -> Optional[VideoFrame]:
    """The first decodable video frame that has a time, or None."""
    with open_media(path) as container:
        stream = video_stream(container)
        frames = () if stream is None else decode(container, stream)
        return next((frame for frame in frames if frame.time is not None), None)


def video_start(path: str | Path) -> Optional[float]:
    """Presentation time in seconds of the first decodable video frame, or None if there is none."""
    frame = first_frame(path)
    return None if frame is None or frame.time is None else float(frame.time)
