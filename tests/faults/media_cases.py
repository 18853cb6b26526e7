"""Bad input: videos, audio files and arrays of features. Commands that get a good file of one kind get it from
`material`, which is made once."""
from __future__ import annotations

import functools
import os
import pickle
import struct
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable

import av
import numpy as np
from video_material import write_clip

from egstalker_nb.media.image_io import encode_png

from .bad_input import Case

SIZE = (48, 64)
#: FFmpeg's formats that only refer to media: name of the file, its text
SCRIPTS = {
    "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n",
    "script.mp4": "ffconcat version 1.0\nfile clip.mp4\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
                   "a=rtpmap:96 H264/90000\n",
    "manifest.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
                    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation '
                    'id="0" bandwidth="1"><BaseURL>clip.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
}


def material() -> Path:
    """A folder with files that are good: half a second of a black clip with audio, and of a tone."""
    return Path(_material().name)


@functools.cache
def _material() -> tempfile.TemporaryDirectory:
    made = tempfile.TemporaryDirectory()
    folder = Path(made.name)
    images = [np.zeros((*SIZE, 3), np.uint8)] * 12
    tone = (0.1 * np.sin(np.arange(24_000) / 20)).astype(np.float32)
    write_clip(folder / "clip.mp4", images, sound="aac", wave=tone)
    write_clip(folder / "clip.mkv", images, sound="flac", wave=tone)
    write_clip(folder / "clip.mov", images, "png", "rgb24", sound="pcm_s16le", wave=tone, aspect=Fraction(4, 3))
    write_clip(folder / "mute.mp4", images)
    (folder / "tone.wav").write_bytes(wav((tone[::3] * 32767).astype("<i2")))
    np.save(folder / "features.npy", array())
    return made


def good(name: str) -> bytes:
    """The bytes of a file of `material`."""
    return (material() / name).read_bytes()


def wav(samples: np.ndarray, channels: int = 1, rate: int = 16_000, kind: int = 1, bits: int = 16) -> bytes:
    """A WAV file whose header may be anything; kind: 1 integers, 3 floats."""
    block = channels * bits // 8
    form = struct.pack("<IHHIIHH", 16, kind, channels, rate, rate * block % 2 ** 32, block % 2 ** 16, bits)
    data = samples.tobytes()
    return (b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + form + b"data" + struct.pack("<I", len(data))
            + data)


def floats(value: float, channels: int = 1) -> bytes:
    """A WAV of float samples with one of this value after half a second."""
    samples = np.zeros((16_000, channels), "<f4")
    samples[8000, 0] = value
    return wav(samples, channels, kind=3, bits=32)


# ---- what gets the file

def video(name: str, data: bytes | Callable[[Path], Any]) -> Callable[[Path], list[Any]]:
    """`egs prepare` with a file that holds these bytes, or that a function makes."""
    def command(folder: Path) -> list[Any]:
        made(folder, name, data)
        return ["prepare", "--", name, "out"]
    return command


def audio(name: str, data: bytes | Callable[[Path], Any]) -> Callable[[Path], list[Any]]:
    """`egs trim` with such an audio file."""
    def command(folder: Path) -> list[Any]:
        made(folder, name, data)
        return ["trim", name, material() / "features.npy", "--duration", "0.2", "--out", "cut"]
    return command


def features(data: bytes | np.ndarray | Callable[[Path], Any], name: str = "a.npy") -> Callable[[Path], list[Any]]:
    """`egs trim` with a file of features that holds these bytes, or this array, or that a function makes."""
    def command(folder: Path) -> list[Any]:
        if isinstance(data, np.ndarray):
            np.save(folder / name, data, allow_pickle=True)
        else:
            made(folder, name, data)
        return ["trim", material() / "tone.wav", name, "--duration", "0.2", "--out", "cut"]
    return command


def trim(*arguments: Any, out: str = "cut") -> Callable[[Path], list[Any]]:
    """`egs trim` of good files with these options."""
    def command(folder: Path) -> list[Any]:
        for name in ("tone.wav", "features.npy"):
            (folder / name).write_bytes(good(name))
        (folder / "file").write_text("a file")
        return ["trim", "tone.wav", "features.npy", *arguments, "--out", out]
    return command


def made(folder: Path, name: str, data: bytes | Callable[[Path], Any]) -> None:
    if isinstance(data, bytes):
        (folder / name).write_bytes(data)
    else:
        data(folder / name)


def nothing(path: Path) -> None:
    """No file."""


def swapped(name: str, *pairs: tuple[bytes, bytes]) -> Callable[[Path], None]:
    """A good file with some bytes replaced, all of which must be there."""
    def make(path: Path) -> None:
        data = good(name)
        for old, new in pairs:
            assert old in data, old
            data = data.replace(old, new)
        path.write_bytes(data)
    return make


def cut(name: str, start: int, stop: int) -> Callable[[Path], None]:
    """A part of a good file."""
    return lambda path: path.write_bytes(good(name)[start:stop])


def frames_at(*times: float) -> Callable[[Path], None]:
    """A clip with frames at these seconds."""
    return lambda path: write_clip(path, [np.full((*SIZE, 3), 40, np.uint8)] * len(times),
                                   times=[Fraction(str(time)) for time in times])


def of_size(height: int, width: int) -> Callable[[Path], None]:
    return lambda path: write_clip(path, [np.zeros((height, width, 3), np.uint8)] * 3, "ffv1")


def cover_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))


def sound_at(*times: int, frame_at: int = 0, suffix: str = "matroska") -> Callable[[Path], None]:
    """Packets of 0.1 s of audio at these seconds, beside one video frame."""
    def make(path: Path) -> None:
        with av.open(str(path), "w", format=suffix, options={"avoid_negative_ts": "disabled"}) as out:
            image = out.add_stream("ffv1", rate=25)
            image.height, image.width, image.pix_fmt = *SIZE, "yuv420p"
            sound = out.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = frame_at * 25, Fraction(1, 25)
            out.mux(image.encode(frame))
            out.mux(image.encode(None))
            for time in times:
                part = av.AudioFrame.from_ndarray(np.full((1, 800), 1000, np.int16), "s16", "mono")
                part.sample_rate, part.pts, part.time_base = 8000, time * 8000, Fraction(1, 8000)
                out.mux(sound.encode(part))
            out.mux(sound.encode(None))
    return make


def days_long(path: Path) -> None:
    data = good("clip.mov")
    at = data.index(b"stts") + 16
    path.write_bytes(data[:at] + struct.pack(">I", 2 ** 31 - 1) + data[at + 4:])


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def npy(header: str, data: bytes = b"") -> bytes:
    """A `.npy` file with any header."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


class Payload:
    """Makes a file when it is unpickled, hidden, so that `check` finds it."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(".planted"),)


def array(value: Any = 0.0, shape: tuple[int, ...] = (12, 16, 29), dtype: Any = np.float32) -> np.ndarray:
    """Good features, but for what is given; the value is that of frame 7."""
    result = np.zeros(shape, dtype)
    result[7:8] = value
    return result


def npz(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, features=array())


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (5787037, 16, 29), }"  # 10 GB
UNREAD = "FFmpeg can read"

VIDEOS = [
    Case("video_missing", video("no.mp4", nothing), ("no file", "no.mp4")),
    Case("video_missing_like_a_url", lambda folder: ["prepare", "http:/127.0.0.1/a.mp4", "out"], ("no file",)),
    Case("video_missing_like_a_protocol", lambda folder: ["prepare", "concat:a.mp4|b.mp4", "out"], ("no file",)),
    Case("video_missing_above", lambda folder: ["prepare", "../no/../no.mp4", "out"], ("no file",)),
    Case("video_empty", video("a.mp4", b""), ("0 bytes",)),
    Case("video_cut_in_its_first_box", video("a.mp4", cut("clip.mp4", 0, 20)), (UNREAD,)),
    Case("video_cut_in_its_data", video("a.mp4", cut("clip.mp4", 0, 1500)), (UNREAD,)),
    Case("video_cut_in_its_index", video("a.mp4", cut("clip.mp4", 0, -2000)), (UNREAD,)),
    Case("video_without_its_beginning", video("a.mp4", cut("clip.mp4", 1000, -1)), (UNREAD,)),
    Case("video_cut_in_the_header_of_an_mkv", video("a.mkv", cut("clip.mkv", 0, 100)), (UNREAD,)),
    Case("video_cut_before_the_first_frame", video("a.mkv", cut("clip.mkv", 0, 800)), ("a.mkv",)),
    Case("video_is_text", video("a.mp4", b"this is not a video\n" * 90), (UNREAD,)),
    Case("video_is_zeros", video("a.mp4", bytes(5000)), (UNREAD,)),
    Case("video_is_an_archive", video("a.mp4", npz), (UNREAD,)),
    Case("video_is_an_image", video("a.mp4", encode_png(np.zeros((*SIZE, 3), np.uint8))), (UNREAD,)),
    Case("video_is_sound", video("a.mp4", cut("tone.wav", 0, 9000)), ("without a video stream",)),
    Case("video_is_cover_art", video("a.mp4", cover_only), ("without a video stream",)),
    Case("video_without_sound", video("a.mp4", swapped("mute.mp4")), ("without an audio stream",)),
    Case("video_without_a_face", video("a.mp4", swapped("clip.mp4")), ("face",)),
    Case("video_in_an_unknown_codec", video("a.mp4", swapped("clip.mp4", (b"avc1", b"zzz1"))), ("unknown",)),
    Case("video_of_damaged_frames", video("a.mov", swapped("clip.mov", (b"IHDR", b"IHDX"))), ("none that can be",)),
    Case("video_with_a_frame_two_hours_late", video("a.mp4", frames_at(0, 0.04, 7200)), ("60 s", "7200 s", "0.04 s")),
    Case("video_with_frames_of_two_days", video("a.mov", days_long), ("at most 60 s", "167772 s")),
    Case("video_of_two_rows", video("a.mkv", of_size(2, 4000)), ("16x16", "4000x2")),
    Case("video_of_two_pixels", video("a.mkv", of_size(2, 2)), ("16x16", "2x2")),
    Case("video_of_wide_pixels", video("a.mov", swapped("clip.mov", (
        b"pasp" + struct.pack(">II", 4, 3), b"pasp" + struct.pack(">II", 20_000, 1)))), ("50 million", "1280000x48")),
    Case("video_of_65000_pixels_square", video("a.mov", swapped("clip.mov", (
        b"IHDR" + struct.pack(">II", 64, 48), b"IHDR" + struct.pack(">II", 65_000, 65_000)))), ("a.mov",)),
    *(Case(f"video_is_a_{name.replace('.', '_')}", video(name, text.encode()), (UNREAD, "not followed"))
      for name, text in SCRIPTS.items()),
    Case("video_is_a_folder", video("a.mp4", Path.mkdir), ("a folder",)),
    Case("video_is_the_folder_above", lambda folder: ["prepare", "..", "out"], ("a folder",)),
    Case("video_is_a_pipe", video("a.mp4", os.mkfifo), ("a pipe or a device",)),
    Case("video_is_a_device", lambda folder: ["prepare", "/dev/zero", "out"], ("a pipe or a device",)),
    Case("video_is_a_dead_link", video("a.mp4", lambda path: path.symlink_to("gone.mp4")), ("no file",)),
    Case("video_is_a_loop_of_links", video("a.mp4", loop), ("too many levels",)),
    Case("video_in_a_file", video("a.mp4/b.mp4", lambda path: path.parent.touch()), ("no file",)),
    Case("name_of_300_bytes", video("a" * 300 + ".mp4", nothing), ("name too long",)),
    Case("name_of_4_bytes_a_letter", video("🙂" * 70 + ".mp4", nothing), ("name too long",)),
    Case("name_with_newlines", video("a\nTraceback\r\nb.mp4", b"text"), (UNREAD, r"a\nTraceback\r\nb.mp4")),
    Case("name_with_quotes", video("a'\"`$(touch .planted);.mp4", b"text"), (UNREAD,)),
    Case("name_with_a_dash", video("-o.mp4", b"text"), (UNREAD, "-o.mp4")),
    Case("name_with_spaces_and_letters", video(" ü ñ 顔 .mp4", b"text"), (UNREAD, " ü ñ 顔 .mp4")),
    Case("name_with_a_pattern", video("a%03d%s{}.mp4", b"text"), (UNREAD, "a%03d%s{}.mp4")),
    Case("name_not_in_utf8", video(os.fsdecode(b"\xff\xfe.mp4"), b"text"), (UNREAD, ".mp4")),
]

AUDIO = [
    Case("audio_missing", audio("no.wav", nothing), ("no file",)),
    Case("audio_empty", audio("a.wav", b""), ("0 bytes",)),
    Case("audio_of_a_header", audio("a.wav", cut("tone.wav", 0, 44)), ("a.wav",)),
    Case("audio_cut_in_its_header", audio("a.wav", cut("tone.wav", 0, 30)), (UNREAD,)),
    Case("audio_is_text", audio("a.mp3", b"no sound here\n" * 90), (UNREAD,)),
    Case("audio_is_a_folder", audio("a.wav", Path.mkdir), ("a folder",)),
    Case("audio_is_a_pipe", audio("a.wav", os.mkfifo), ("a pipe or a device",)),
    Case("audio_is_a_silent_video", audio("a.mp4", swapped("mute.mp4")), ("without an audio stream",)),
    Case("audio_in_an_unknown_codec", audio("a.mov", swapped("clip.mov", (b"sowt", b"zzz2"))), ("unknown codec",)),
    Case("audio_of_no_bits", audio("a.wav", wav(np.zeros(1600, "<i2"), bits=0)), ("unknown codec",)),
    Case("audio_of_no_channels", audio("a.wav", wav(np.zeros(1600, "<i2"), channels=0)), ("at least 1", "with 0")),
    Case("audio_of_65_channels", audio("a.wav", wav(np.zeros(6500, "<i2"), channels=65)), ("64 channels", "with 65")),
    Case("audio_of_0_hz", audio("a.wav", wav(np.zeros(1600, "<i2"), rate=0)), (UNREAD,)),
    Case("audio_of_1_hz", audio("a.wav", wav(np.zeros(1600, "<i2"), rate=1)), ("1000 to", "with 1.")),
    Case("audio_of_2_ghz", audio("a.wav", wav(np.zeros(1600, "<i2"), rate=2 * 10 ** 9)), ("2000000000",)),
    Case("audio_of_nan", audio("a.wav", floats(np.nan)), ("nan at 0.50 s",)),
    Case("audio_of_nan_in_a_channel", audio("a.wav", floats(np.nan, channels=2)), ("nan at 0.50 s",)),
    Case("audio_infinite", audio("a.wav", floats(-np.inf)), ("-inf at 0.50 s",)),
    Case("audio_of_integers_as_floats", audio("a.wav", floats(20_000)), ("from -1 to 1", "20000")),
    Case("audio_by_the_wall_clock", audio("a.mkv", sound_at(1_700_000_000)), ("10 minutes", "1700000000 s")),
    Case("audio_with_a_gap_of_an_hour", audio("a.mkv", sound_at(0, 3600)), ("10 minutes", "3600 s")),
    Case("audio_with_gaps_of_16_hours", audio("a.mkv", sound_at(*range(0, 60_000, 500))), ("10 hours", "16.5 hours")),
    Case("audio_before_the_video", audio("a.mkv", sound_at(0, frame_at=100)), ("first video frame",)),
]

FEATURES = [
    Case("features_missing", features(nothing), ("no file",)),
    Case("features_empty", features(b""), ("no .npy file",)),
    Case("features_are_text", features(b"text"), ("no .npy file",)),
    Case("features_are_a_folder", features(Path.mkdir), ("not a file",)),
    Case("features_are_a_pipe", features(os.mkfifo), ("not a file",)),
    Case("features_of_a_long_name", features(nothing, "a" * 300), ("name too long",)),
    Case("features_are_an_npz", features(npz), ("no .npy file",)),
    Case("features_are_objects", features(np.array([Payload()], object)), ("Python objects",)),
    Case("features_are_a_pickle", features(pickle.dumps(Payload())), ("no .npy file",)),
    Case("features_are_code", features(npy("__import__('os').system('touch .planted')")), ("no .npy file",)),
    Case("features_of_10_gb", features(npy(HUGE, bytes(5000))), ("announces 107",)),
    Case("features_of_negative_length", features(npy(HUGE.replace("5787037", "-1"), bytes(500))), ("a.npy",)),
    Case("features_cut_off", features(cut("features.npy", 0, -100)), ("announces",)),
    Case("features_twice", features(lambda path: path.write_bytes(good("features.npy") * 2)), ("announces",)),
    Case("features_of_nan", features(array(np.nan)), ("NaN", "entry 7")),
    Case("features_infinite", features(array(np.inf)), ("infinite", "entry 7")),
    Case("features_beyond_float32", features(array(1e300, dtype=np.float64)), ("beyond float32",)),
    Case("features_complex", features(array(dtype=np.complex64)), ("complex numbers",)),
    Case("features_of_integers", features(array(dtype=np.int16)), ("int16",)),
    Case("features_of_text", features(array("a", dtype="U1")), ("text",)),
    Case("features_of_records", features(np.zeros(12, [("a", "f4")])), ("a.npy",)),
    Case("features_transposed", features(array(shape=(12, 29, 16))), ("[12, 29, 16]", "[N, 16, 29]", "swapped")),
    Case("features_of_steps", features(array(shape=(24, 29))), ("[24, 29]", "before windowing")),
    Case("features_of_hubert", features(array(shape=(12, 2, 1024))), ("[12, 2, 1024]", "HuBERT", "leave the features")),
    Case("features_of_wav2vec", features(array(shape=(12, 44, 16))), ("[12, 44, 16]", "wav2vec")),
    Case("features_of_no_frames", features(array(shape=(0, 16, 29))), ("no frames",)),
    Case("features_of_other_audio", features(array(shape=(30, 16, 29))), ("13 frames", "found 30")),
]

RANGES = [
    Case("trim_from_1e308", trim("--start", "1e308", "--duration", 1), ("within the audio", "1e+308")),
    Case("trim_from_nan", trim("--start", "nan", "--duration", 1), ("start=nan",)),
    Case("trim_from_below_zero", trim("--start=-1", "--duration", 1), ("start=-1",)),
    Case("trim_of_nothing", trim("--duration", 0), ("duration=0",)),
    Case("trim_of_infinity", trim("--duration", "inf"), ("duration=inf",)),
    Case("trim_beyond_the_end", trim("--start", 0.3, "--duration", 1), ("0.48 s",)),
    Case("trim_onto_its_audio", trim("--duration", 0.2, out="tone.wav"), ("apart from the inputs",)),
    Case("trim_onto_its_features", trim("--duration", 0.2, out="sub/../features"), ("apart from the inputs",)),
    Case("trim_into_a_file", trim("--duration", 0.2, out="file/cut"), ("'file'",)),
    Case("trim_to_the_folder_above", trim("--duration", 0.2, out=".."), ("'..'",)),
    Case("trim_to_no_name", trim("--duration", 0.2, out=""), ("Add a name",)),
    Case("trim_to_a_long_name", trim("--duration", 0.2, out="a" * 300), ("shorter name",)),
]

CASES: list[Case] = [*VIDEOS, *AUDIO, *FEATURES, *RANGES]
