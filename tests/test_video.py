"""Protects video reading and writing: time, audio sync, orientation, colour, and damaged files."""

import itertools
import math
import struct
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.video_reader import probe, read_frames
from egstalker_nb.media.video_writer import write_video

SIZE = (64, 96)  # height, width
FLASHES = (0.4, 1.0, 1.6)  # seconds; multiples of 0.2 fall on a frame at 25, 30, 50 and 60 fps
SECONDS = 2.2


def flash_frame(time, index=0):
    """Grey until a flash, white for 0.1 s; the index is written in grey at the left edge."""
    lit = any(flash - 1e-6 <= time < flash + 0.1 for flash in FLASHES)
    image = np.full((*SIZE, 3), 255 if lit else 40, np.uint8)
    image[:, :16] = index % 55 * 4 + 20
    return image


def clicks(rate, seconds=SECONDS):
    """A 3 ms burst at each flash, float32 [samples]."""
    wave = np.zeros(round(seconds * rate), np.float32)
    for flash in FLASHES:
        begin = round(flash * rate)
        wave[begin:begin + rate * 3 // 1000] = 0.8
    return wave


def make_clip(path, rate=30, times=None, picture_delay=0.0, sound_delay=0.0, sound_rate=44_100, sound="aac",
              gop=12, aspect=None, picture="libx264"):
    """Encode the flash clip. A delay moves a stream's timestamps; what it shows at a given time stays true."""
    rate = Fraction(rate)
    times = [n / rate for n in range(int(SECONDS * rate))] if times is None else times
    with av.open(str(path), "w") as out:
        video_reader = out.add_stream(picture, rate=rate.limit_denominator(1001))
        video_reader.width, video_reader.height, video_reader.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        video_reader.gop_size = gop
        video_reader.codec_context.time_base = Fraction(1, 90_000)
        if aspect:
            video_reader.codec_context.sample_aspect_ratio = aspect
        if sound:
            audio = out.add_stream(sound, rate=sound_rate, layout="stereo")
        for index, time in enumerate(times):
            if time < picture_delay - 1e-6:
                continue
            frame = av.VideoFrame.from_ndarray(flash_frame(float(time), index), format="rgb24")
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            out.mux(video_reader.encode(frame))
        out.mux(video_reader.encode(None))
        if sound:
            skip = round(sound_delay * sound_rate)
            wave = np.tile(clicks(sound_rate)[skip:], (2, 1))
            for begin in range(0, wave.shape[1], 1024):
                chunk = np.ascontiguousarray(wave[:, begin:begin + 1024])
                frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = sound_rate, skip + begin
                frame.time_base = Fraction(1, sound_rate)
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return path


def flash_times(frames, fps=25):
    """Seconds at which the image turns white."""
    bright = np.array([frame[:, 32:].mean() > 140 for frame in frames])
    return (np.flatnonzero(bright[1:] & ~bright[:-1]) + 1) / fps


def click_times(wave):
    """Seconds at which a burst begins."""
    loud = np.flatnonzero(np.abs(wave) > 0.35)
    return loud[np.diff(loud, prepend=-16_000) > 1600] / 16_000


def assert_in_sync(path, zero=0.0, rate=Fraction(30)):
    """Flashes and clicks come when they should; a source frame after a flash is where the source shows it."""
    frames = list(read_frames(path))
    shown = [float(math.ceil(flash * rate - 1e-6) / rate - zero) for flash in FLASHES]
    np.testing.assert_allclose(flash_times(frames), shown, atol=0.02)
    np.testing.assert_allclose(click_times(load_audio(path)), np.array(FLASHES) - zero, atol=0.005)
    return frames


@pytest.mark.parametrize("rate", [24, Fraction(30_000, 1001), 30, 50, 60])
def test_any_rate_becomes_25_fps_in_sync(tmp_path, rate):
    """A resampler that maps frames by index instead of time drifts."""
    path = make_clip(tmp_path / "clip.mp4", rate)
    frames = assert_in_sync(path, rate=rate)
    source = int(SECONDS * rate)
    assert len(frames) == round(source / rate * 25) == probe(path).frames_at(25)
    assert probe(path).num_frames == source
    assert probe(path).fps == pytest.approx(float(rate), rel=1e-3)


def test_audio_and_video_agree_after_reading_and_writing(tmp_path):
    """The whole way: 30 fps source with 44.1 kHz audio -> 25 fps frames and 16 kHz -> written file."""
    source = make_clip(tmp_path / "in.mp4", 30)
    write_video(tmp_path / "out.mp4", read_frames(source), load_audio(source))
    assert_in_sync(tmp_path / "out.mp4")


@pytest.mark.parametrize("suffix, sound", [(".mp4", "aac"), (".mkv", "pcm_s16le"), (".mov", "pcm_s16le")])
@pytest.mark.parametrize("picture_delay, sound_delay", [(0, 0.3), (0.3, 0), (0.2, 0.3)])
def test_streams_that_start_apart_stay_in_sync(tmp_path, suffix, sound, picture_delay, sound_delay):
    """The zero is the first frame: late audio is padded, early audio is cut."""
    path = make_clip(tmp_path / f"clip{suffix}", 30, picture_delay=picture_delay, sound_delay=sound_delay, sound=sound)
    assert_in_sync(path, picture_delay)


def test_a_gap_in_the_audio_becomes_silence(tmp_path):
    """Audio whose packets stop for a while must not move what follows."""
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for begin in range(0, 32_000, 1600):
            if 8000 <= begin < 16_000:
                continue
            chunk = (clicks(16_000)[None, begin:begin + 1600] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, begin, Fraction(1, 16_000)
            out.mux(stream.encode(frame))
    np.testing.assert_allclose(click_times(load_audio(path)), FLASHES, atol=0.002)


def test_variable_rate_holds_frames_until_the_next(tmp_path):
    """A frame held for 0.6 s is not replaced early by its successor."""
    times = [Fraction(n, 30) for n in range(66) if not 16 <= n < 30]
    path = make_clip(tmp_path / "held.mp4", 30, times)
    frames = list(read_frames(path))
    np.testing.assert_allclose(flash_times(frames), FLASHES, atol=0.02)
    np.testing.assert_array_equal(frames[13], frames[24])
    assert len(frames) == 55


def test_timestamps_that_jitter_do_not_repeat_frames(tmp_path):
    """25 fps with times rounded to milliseconds, as many recorders write, gives every frame once."""
    rng = np.random.default_rng(0)
    times = [Fraction(n, 25) + Fraction(int(rng.integers(-5, 6)), 1000) * (n > 0) for n in range(50)]
    frames = list(read_frames(make_clip(tmp_path / "jitter.mkv", 25, times, sound="pcm_s16le")))
    shown = [round((frame[:, 4:12].mean() - 20) / 4) for frame in frames]
    assert shown == list(range(50))


@pytest.mark.parametrize("rate", [24, 30, 50, 60])
def test_the_nearest_source_frame_is_shown(tmp_path, rate):
    """Not the one before nor the one after: over a clip the image must be neither early nor late."""
    frames = list(read_frames(make_clip(tmp_path / "clip.mp4", rate)))
    shown = [round((frame[:, 4:12].mean() - 20) / 4) for frame in frames]
    assert shown == [round(i / 25 * rate) % 55 for i in range(len(frames))]


@pytest.mark.parametrize("name, rate", [("a.mp4", 25), ("a.mp4", 30), ("a.mkv", 25), ("a.ts", 30), ("a.avi", 25)])
def test_start_gives_the_same_frames_as_reading_through(tmp_path, name, rate):
    """Entering at a key frame must not shift or change frames; at the end there is nothing left."""
    path = make_clip(tmp_path / name, rate, picture_delay=0 if name == "a.avi" else 0.2,
                     sound="mp2" if name == "a.ts" else "pcm_s16le" if name == "a.avi" else "aac")
    frames = list(read_frames(path))
    assert probe(path).frames_at(25) == pytest.approx(len(frames), abs=1)
    for start in (1, 20, 37, len(frames) - 1):
        rest = list(read_frames(path, start=start))
        assert len(rest) == len(frames) - start
        assert all(np.array_equal(a, b) for a, b in zip(rest, frames[start:], strict=True))
    assert list(read_frames(path, start=len(frames))) == []


def test_start_decodes_only_from_the_key_frame_before(tmp_path, monkeypatch):
    """Otherwise continuing an interrupted preparation would decode a long clip again and again."""
    from egstalker_nb.media import video_reader

    path = make_clip(tmp_path / "clip.mp4", 25, gop=5)
    seen = []
    decode = video_reader.decode
    monkeypatch.setattr(video_reader, "decode", lambda *args: (seen.append(f.pts) or f for f in decode(*args)))
    assert len(list(read_frames(path, start=45))) == 10
    assert len(seen) < 30


def test_a_seek_that_lands_too_late_is_not_trusted(tmp_path, monkeypatch):
    """Files without a good index: the clip is read from its beginning rather than from the wrong place."""
    from egstalker_nb.media import video_reader

    path = make_clip(tmp_path / "clip.mp4", 25, gop=5)
    frames = list(read_frames(path))
    decode, calls = video_reader.decode, []

    def late(*args):
        calls.append(args)
        return itertools.islice(decode(*args), 20 if len(calls) == 1 else 0, None)

    monkeypatch.setattr(video_reader, "decode", late)
    rest = list(read_frames(path, start=30))
    assert len(calls) == 2
    np.testing.assert_array_equal(np.stack(rest), np.stack(frames[30:]))


def test_frames_are_independent_arrays(tmp_path):
    """A caller that draws into a frame must not draw into its repetition."""
    frames = read_frames(make_clip(tmp_path / "slow.mp4", 10))
    first = next(frames)
    first[:] = 0
    assert next(frames).max() > 0


ORIENTATIONS = {"none": ((1, 0, 0, 1), lambda x: x), "clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
                "half": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)), "counter": ((0, -1, 1, 0), np.rot90),
                "mirror": ((-1, 0, 0, 1), lambda x: x[:, ::-1]), "flip": ((1, 0, 0, -1), lambda x: x[::-1]),
                "transpose": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
                "anti": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2))}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_display_matrix_is_applied(tmp_path, name):
    """Phones store the image lying down; the file's matrix [x' y'] = [x y] M says how to show it."""
    (a, b, c, d), turn = ORIENTATIONS[name]
    image = np.full((*SIZE, 3), 60, np.uint8)
    image[:20, :30] = (220, 60, 60)
    image[:20, -30:] = (60, 60, 220)
    path = write_video(tmp_path / "clip.mp4", [image] * 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at:at + 20] = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    path.write_bytes(data)
    shown = next(read_frames(path))
    assert shown.shape == turn(image).shape
    assert np.abs(shown.astype(int) - turn(image)).mean() < 3
    info = probe(path)
    assert (info.height, info.width) == shown.shape[:2]


def test_rotation_is_reported_counter_clockwise(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [np.zeros((*SIZE, 3), np.uint8)])
    assert probe(path).rotation == 0
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at:at + 20] = struct.pack(">5i", 0, 1 << 16, 0, -1 << 16, 0)
    path.write_bytes(data)
    assert probe(path).rotation == 270


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    """A face from an anamorphic clip would otherwise be too thin."""
    path = make_clip(tmp_path / "wide.mp4", 25, aspect=Fraction(4, 3))
    assert next(read_frames(path)).shape == (64, 128, 3)
    assert (probe(path).width, probe(path).height) == (128, 64)


def colour_chart():
    """Random flat patches of 16 px, uint8 [128, 128, 3]."""
    patches = np.random.default_rng(3).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return patches.repeat(16, 0).repeat(16, 1)


def test_colours_survive_a_file(tmp_path):
    """A wrong matrix or range between writing and reading shifts colours by 5 to 20 levels."""
    chart = colour_chart()
    path = write_video(tmp_path / "chart.mp4", [chart] * 3, crf=1)
    back = list(read_frames(path))[1].astype(int)
    centre = np.s_[8::16, 8::16]
    error = back[centre] - chart[centre]
    assert np.abs(error).max() <= 4
    assert np.abs(error.mean((0, 1))).max() < 0.5
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)


@pytest.mark.parametrize("space, range_", [(1, 1), (1, 2), (5, 1), (5, 2)])
def test_tagged_matrix_and_range_are_followed(tmp_path, space, range_):
    """BT.709 and BT.601, limited and full range: each is decoded as its tag says."""
    chart, path = colour_chart(), tmp_path / "chart.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, range_
        frame = av.VideoFrame.from_ndarray(chart, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=space, src_color_range=2, dst_color_range=range_, interpolation=4)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    back = next(read_frames(path)).astype(int)
    assert np.abs(back[8::16, 8::16] - chart[8::16, 8::16]).max() <= 5


def test_odd_sizes_are_padded_by_one_pixel(tmp_path):
    """4:2:0 has no odd sizes; the encoder would refuse."""
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8).repeat(9, 0).repeat(9, 1)
    path = write_video(tmp_path / "odd.mp4", [image] * 2, crf=1)
    back = next(read_frames(path))
    assert image.shape == (45, 63, 3) and back.shape == (46, 64, 3)
    assert np.abs(back[4:45:9, 4:63:9].astype(int) - image[4::9, 4::9]).max() <= 6


@pytest.mark.parametrize("num_frames, sound_seconds", [(1, 0.04), (25, 0.2), (26, 5.0), (63, 2.52)])
def test_audio_is_as_long_as_the_video(tmp_path, num_frames, sound_seconds):
    """Shorter audio is padded, longer is cut; in the file's own bookkeeping and in what is decoded."""
    wave = np.random.default_rng(0).normal(0, 0.1, round(sound_seconds * 16_000)).astype(np.float32)
    frames = (flash_frame(i / 25, i) for i in range(num_frames))
    path = write_video(tmp_path / "out.mp4", frames, wave)
    assert len(load_audio(path)) / 16_000 == pytest.approx(num_frames / 25, abs=0.02)
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(num_frames / 25, abs=0.025)
        assert probe(path).num_frames == num_frames


def test_index_comes_before_the_data(tmp_path):
    """Faststart: browsers show the video before it is loaded to the end."""
    data = write_video(tmp_path / "out.mp4", [flash_frame(0)] * 3, clicks(16_000)).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_audio_and_video_are_interleaved(tmp_path):
    """All audio after all video would make players seek, and the muxer hold everything in memory."""
    frames = (flash_frame(i / 25, i) for i in range(150))
    path = write_video(tmp_path / "out.mp4", frames, np.zeros(96_000, np.float32))
    with av.open(str(path)) as container:
        order = [(p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.pts is not None]
    seen = {"video": 0.0, "audio": 0.0}
    for kind, time in order:
        seen[kind] = max(seen[kind], time)
        assert abs(seen["video"] - seen["audio"]) < 2.5


def failing_frames():
    yield flash_frame(0)
    raise RuntimeError("renderer failed")


@pytest.mark.parametrize("frames, wave, match", [
    ([], None, "at least one frame"),
    ([flash_frame(0), flash_frame(0)[:-2]], None, "96x64.*found 96x62"),
    ([flash_frame(0) / 255.0], None, "uint8.*float64"),
    ([flash_frame(0)[..., 0]], None, r"uint8 \[64, 96\]"),
    (["frame"], None, "found str"),
    ([flash_frame(0)], np.zeros((2, 100), np.float32), "floats"),
    ([flash_frame(0)], np.full(100, np.nan, np.float32), "finite"),
])
def test_unusable_frames_leave_nothing_behind(tmp_path, frames, wave, match):
    with pytest.raises(InputError, match=match):
        write_video(tmp_path / "out.mp4", frames, wave)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_keeps_the_old_file(tmp_path):
    """A render that dies half-way must not destroy the previous video."""
    path = write_video(tmp_path / "out.mp4", [flash_frame(0)])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="renderer failed"):
        write_video(path, failing_frames())
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"] and path.read_bytes() == before


def test_unusable_videos_are_named(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video " * 50)
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.int16), layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
    for name, match in [("missing.mp4", "no file"), ("empty.mp4", "0 bytes"), ("text.mp4", "FFmpeg can read"),
                        ("sound.wav", "without a video stream")]:
        for function in (probe, read_frames):
            with pytest.raises(InputError, match=match):
                function(tmp_path / name)
    for arguments, match in (({"fps": 0}, "fps=0"), ({"fps": math.inf}, "fps=inf"), ({"fps": math.nan}, "fps=nan"),
                             ({"start": -1}, "start=-1"), ({"start": 1e308}, r"start=1e\+308")):
        with pytest.raises(InputError, match=match):
            read_frames(sound, **arguments)


def test_truncated_file_warns_and_gives_what_is_there(tmp_path):
    """Half a download still opens (its index is in front); silently using half would surprise."""
    frames = (np.random.default_rng(i).integers(0, 256, (*SIZE, 3)).astype(np.uint8) for i in range(75))
    path = write_video(tmp_path / "clip.mp4", frames, np.zeros(48_000, np.float32))
    data = path.read_bytes()
    path.write_bytes(data[:len(data) * 6 // 10])
    with pytest.warns(UserWarning, match=r"ends after 1\.\d+ s, but announces 3\.00 s"):
        read = list(read_frames(path))
    assert 25 < len(read) < 60
    path.write_bytes(data[:data.index(b"mdat") + 8])
    with pytest.raises(InputError, match="at least one frame"):
        list(read_frames(path))


def test_damage_in_the_middle_warns_and_keeps_time(tmp_path):
    """Frames behind a damaged stretch keep their place."""
    path = make_clip(tmp_path / "clip.mp4", 25, gop=10, sound=None)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[12:15]:
        data[position:position + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged packets"):
        read = list(read_frames(path))
    assert len(read) == 55
    np.testing.assert_allclose(flash_times(read)[-2:], FLASHES[-2:], atol=0.02)


def test_clean_files_do_not_warn(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 30, picture_delay=0.2, sound_delay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(read_frames(path))
        load_audio(path)
