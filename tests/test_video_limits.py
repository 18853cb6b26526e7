"""Protects: a media file from a stranger opens nothing but itself and asks for no more memory or work than a clip of a
talking head can; what real clips do is within the limits."""
import socket
import struct
import threading
import wave as wavefile
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from video_material import SOUND_RATE, write_clip

from egstalker_nb.core.errors import InputError
from egstalker_nb.media import audio, container, limits
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.image_io import encode_jpeg, encode_png, read_rgb
from egstalker_nb.media.synthetic import COMMENT, SOURCE_TYPE, XMP, mark_image
from egstalker_nb.media.video_reader import probe, read_frames
from egstalker_nb.media.video_writer import write_video

TONE = (0.1 * np.sin(np.arange(SOUND_RATE // 2) / 20)).astype(np.float32)


def grey(count, size=(48, 64)):
    return [np.full((*size, 3), 40 + 10 * n, np.uint8) for n in range(count)]


# ---- nothing else is opened

@pytest.fixture
def server():
    """Its port, and a list that gets an entry for each connection."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                seen.append(1)
                connection.close()
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1], seen
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["http:/", "file:/", "concat:", "rtmp:/"])
def test_a_folder_named_like_a_url_is_a_folder(tmp_path, monkeypatch, server, scheme):
    """FFmpeg takes `http:/127.0.0.1/a.mp4` for an address, to read from and to write to."""
    monkeypatch.chdir(tmp_path)
    port, seen = server
    name = f"{scheme}127.0.0.1:{port}/a.mp4"
    assert write_video(name, grey(3), TONE[:1920]).is_file()
    assert probe(name).num_frames == len(list(read_frames(name))) == 3 and len(load_audio(name)) > 0
    assert not seen


def test_files_that_refer_to_others_are_refused(tmp_path, monkeypatch, server):
    """Whatever they are called; the files that they refer to are there, and the host answers."""
    monkeypatch.chdir(tmp_path)
    port, seen = server
    write_clip(tmp_path / "clip.ts", grey(5), "mpeg2video", sound="mp2", wave=TONE)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    texts = {"remote.m3u8": playlist.format(f"http://127.0.0.1:{port}/a.ts"), "local.m3u8": playlist.format("clip.ts"),
             "script.mp4": "ffconcat version 1.0\nfile clip.ts\n",
             "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
                            f"m=video {port} RTP/AVP 32\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        for function in (probe, read_frames, load_audio):
            with pytest.raises(InputError, match=f"{name}.*not followed"):
                function(name)
    assert not seen


def test_names_that_are_no_text_can_be_used(tmp_path):
    """Linux allows any bytes in a name."""
    folder = tmp_path / "d\udcff"
    path = write_video(folder / "\udcfe.mp4", grey(3), TONE[:1920])
    assert probe(path).num_frames == 3 and len(load_audio(path)) > 0
    with pytest.raises(InputError, match="no file at .*udcff"):
        probe(folder / "no.mp4")


# ---- time

def test_frames_that_are_held_for_seconds_are_read(tmp_path):
    """Screen recordings store a frame when the picture changes."""
    path = write_clip(tmp_path / "a.mp4", grey(3), times=[Fraction(0), Fraction(2), Fraction(17)])
    assert probe(path).frames_at() == len(list(read_frames(path))) >= 17 * 25 + 1


def test_a_frame_that_is_held_too_long_ends_reading(tmp_path):
    """Also where frames are read without `probe`."""
    path = write_clip(tmp_path / "a.mp4", grey(3), times=[Fraction(0), Fraction(1, 25), Fraction(7200)])
    frames = read_frames(path)
    with pytest.raises(InputError, match="at most 60 s; found one that is held for 7200 s, from 0.04 s on"):
        for count, _ in enumerate(frames):
            assert count < 5
    assert len(list(read_frames(path, stop=1))) == 1


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_clips_stamped_by_the_wall_clock_are_read(tmp_path, suffix):
    """Cameras that count from their start, or from 1970: only the difference of the streams matters."""
    begin = 80_000 if suffix == ".ts" else 1_700_000_000
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        video = out.add_stream("mpeg2video" if suffix == ".ts" else "libx264", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        sound = out.add_stream("mp2" if suffix == ".ts" else "aac", rate=SOUND_RATE, layout="mono")
        for n, image in enumerate(grey(12)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = begin * 25 + n, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for at in range(0, len(TONE), 960):
            part = av.AudioFrame.from_ndarray(TONE[None, at:at + 960].copy(), "fltp", "mono")
            part.sample_rate, part.pts, part.time_base = SOUND_RATE, begin * SOUND_RATE + at, Fraction(1, SOUND_RATE)
            out.mux(sound.encode(part))
        out.mux(sound.encode(None))
    assert probe(path).num_frames == len(list(read_frames(path))) == 12
    assert len(load_audio(path)) == pytest.approx(8000, abs=800)


def test_long_audio_is_read(tmp_path):
    """An hour as it is stored, and ten minutes through FFmpeg (8-bit, 8 kHz)."""
    for rate, width, minutes in ((16_000, 2, 60), (8000, 1, 10)):
        with wavefile.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setparams((1, width, rate, 0, "NONE", ""))
            file.writeframes(b"\x81" * (rate * width * 60 * minutes))
        assert len(load_audio(tmp_path / "a.wav")) == minutes * 60 * 16_000


def test_audio_longer_than_the_limit_is_refused_while_it_is_decoded(tmp_path, monkeypatch):
    """A compressed file of silence is small."""
    monkeypatch.setattr(limits, "MAX_HOURS", 1 / 3600)
    audio.save_wav(tmp_path / "a.wav", np.zeros(40_000, np.float32))
    with pytest.raises(InputError, match="hours"):
        load_audio(tmp_path / "a.wav")
    monkeypatch.setattr(audio, "_joined", None)  # not reached
    with pytest.raises(InputError, match="hours"):
        load_audio((tmp_path / "a.wav").rename(tmp_path / "a.bin"))


def test_a_wav_that_is_cut_off_warns(tmp_path):
    path = audio.save_wav(tmp_path / "a.wav", np.zeros(32_000, np.float32))
    data = path.read_bytes()
    path.write_bytes(data[:44 + 32_000])
    with pytest.warns(UserWarning, match="ends after 1.00 s, but announces 2.00 s"):
        assert len(load_audio(path)) == 16_000
    # written into a pipe: the length was not known
    path.write_bytes(data[:40] + struct.pack("<I", 0xffffffff) + data[44:])
    assert len(load_audio(path)) == 32_000


# ---- space

def test_pixels_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    """The container's size may lie: the decoders have the limit as well, also while the file is being opened."""
    path = write_clip(tmp_path / "a.mov", grey(3), "png", "rgb24")
    monkeypatch.setattr(container, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="none that can be decoded"):
        probe(path)


def test_8k_and_odd_sizes_and_120_fps(tmp_path):
    """One frame of 8K; 4:4:4 has odd sizes."""
    path = write_clip(tmp_path / "8k.mkv", [np.zeros((4320, 7680, 3), np.uint8)], "mjpeg", "yuvj420p", full=True)
    assert next(iter(read_frames(path))).shape == (4320, 7680, 3)
    path = write_clip(tmp_path / "odd.mp4", grey(24, (49, 63)), pix_fmt="yuv444p", rate=120)
    frames = list(read_frames(path))
    assert len(frames) == 5 and frames[0].shape == (49, 63, 3) and round(probe(path).fps) == 120


def test_images_are_measured_before_they_are_decoded(tmp_path):
    path = tmp_path / "a.png"
    data = encode_png(grey(1)[0])
    for side, words in ((8000, "50 million pixels; found 8000x8000"), (60_000, "cannot be decoded")):
        header = data[12:16] + struct.pack(">II", side, side) + data[24:29]
        path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
        with pytest.raises(InputError, match=words):
            read_rgb(path)
    path.write_bytes(data[:60])
    with pytest.raises(InputError, match="cannot be decoded"):
        read_rgb(path)
    with pytest.raises(InputError, match="a folder"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("name, codec, layout", [
    ("a.flac", "flac", "7.1"), ("a.mka", "pcm_f32le", "9 channels"), ("a.caf", "pcm_s16le", "hexadecagonal"),
    ("a.mov", "pcm_s16le", "22.2"), ("a.w64", "pcm_s16le", "64 channels"), ("a.wv", "wavpack", "7.1"),
    ("a.mka", "libopus", "12 channels"), ("a.wav", "pcm_s24le", "ambisonic 3"), ("a.aiff", "pcm_s16be", "8 channels")])
def test_many_channels_in_any_container(tmp_path, name, codec, layout):
    """Packed and planar, with names, without, and ambisonic: PyAV reads past the planes of some of them."""
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=48_000, layout=layout)
        if codec == "libopus":
            stream.codec_context.options = {"mapping_family": "255"}
        count = stream.codec_context.layout.nb_channels
        data = np.repeat(TONE[:9600], count)[None]
        for at in range(0, 9600, 960):
            frame = av.AudioFrame.from_ndarray(data[:, at * count:(at + 960) * count].copy(), "flt", layout)
            frame.sample_rate, frame.pts = 48_000, at
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    wave = load_audio(tmp_path / name)
    assert len(wave) == 3200 and np.abs(wave[400:2800]).max() == pytest.approx(0.1, abs=0.01)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    """The frames end, with a warning or an error, and not the interpreter."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    path = write_clip(tmp_path / "a.mov", list(noise), "png", "rgb24")
    frames = read_frames(path)
    next(frames)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.warns(UserWarning, match="cut off"):
        assert len(list(frames)) < 38


# ---- rendered media say so

def test_rendered_videos_say_that_they_are_synthetic(tmp_path):
    """In a comment that survives remuxing, and in XMP behind the video; any player still plays it."""
    path = write_video(tmp_path / "a.mp4", grey(3), TONE[:1920])
    with av.open(str(path)) as file, av.open(str(tmp_path / "b.mp4"), "w") as out:
        assert file.metadata["comment"] == COMMENT and "synthetic" in COMMENT.lower()
        out.metadata.update(file.metadata)
    assert SOURCE_TYPE.encode() in XMP
    data, at, boxes = path.read_bytes(), 0, {}
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        boxes[kind] = data[at + 8:at + size]
        at += size
    assert at == len(data) and boxes[b"uuid"].hex().startswith("be7acfcb97a942e89c71999491e3afac")
    assert boxes[b"uuid"].endswith(XMP)


@pytest.mark.parametrize("encode, suffix", [(encode_png, ".png"), (encode_jpeg, ".jpg")])
def test_exported_images_can_say_that_they_are_synthetic(tmp_path, encode, suffix):
    """Without a change of a pixel; other libraries find the packet where they look for it."""
    from PIL import Image

    data = encode(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    for name, content in (("plain", data), ("marked", mark_image(data))):
        (tmp_path / f"{name}{suffix}").write_bytes(content)
    np.testing.assert_array_equal(read_rgb(tmp_path / f"plain{suffix}"), read_rgb(tmp_path / f"marked{suffix}"))
    with Image.open(tmp_path / f"marked{suffix}") as image:
        image.load()
        assert SOURCE_TYPE.encode() in bytes(image.info["xmp"])
    with pytest.raises(ValueError, match="PNG"):
        mark_image(b"GIF89a")
