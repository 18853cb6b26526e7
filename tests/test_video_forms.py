"""Protects what preparation sees: one clip in every form a camera or editor writes gives the same frames at the same
times, the same landmarks and the audio at the same place, read through or entered anywhere."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from video_material import SOUND_RATE, write_clip

from egstalker_nb.core.errors import InputError
from egstalker_nb.face.tracker import FaceTracker
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.video_reader import probe, read_frames

COUNT = 40
CLICKS = (0.4, 0.8, 1.2)  # seconds
NTSC = Fraction(1000, 1001)
H264 = {"options": {"crf": "6", "preset": "veryfast", "g": "12", "bf": "2"}, "sound": "aac"}
HEVC = {"codec": "libx265", "pix_fmt": "yuv420p10le", "sound": "aac",
        "options": {"x265-params": "log-level=none:keyint=12", "crf": "4", "preset": "ultrafast"}}
MPEG4 = {"codec": "mpeg4", "options": {"qscale": "2", "b": "8M", "bf": "2", "g": "12"}, "sound": "pcm_s16le"}

#: name of the file: how it is written
FORMS = {
    "plain.mp4": H264,
    "plain.mov": {**H264, "sound": "pcm_s16le"},
    "plain.mkv": {**H264, "sound": "flac"},
    "plain.ts": {**H264, "sound": "mp2"},
    "mpeg4.avi": MPEG4,
    "h264_b_frames.avi": {**H264, "sound": "pcm_s16le"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "full": True, "options": {"qmin": "1", "qmax": "2"},
                  "sound": "pcm_s16le"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"crf": "10", "b": "0", "cpu-used": "8", "g": "12"},
                 "sound": "libopus"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "sound": "pcm_s16le"},
    "hevc_10_bit.mp4": HEVC,
    "hlg.mp4": {**HEVC, "hdr": "HLG"},
    "pq.mp4": {**HEVC, "hdr": "PQ"},
    "bt2020_sdr.mp4": {**HEVC, "hdr": "SDR"},
    "open_gop.mp4": {**H264, "options": {**H264["options"], "x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "444.mp4": {**H264, "pix_fmt": "yuv444p"},
    "full_range.mp4": {**H264, "pix_fmt": "yuvj420p", "full": True},
    "bt709.mp4": {**H264, "tags": (1, 1, 1)},
    "rotated_90.mp4": {**H264, "rotate": 90},
    "rotated_180.mov": {**H264, "rotate": 180},
    "rotated_270.mp4": {**H264, "rotate": 270},
    "narrow_pixels.mp4": {**H264, "aspect": Fraction(4, 3)},
    "grey.mp4": {**H264, "pix_fmt": "gray", "full": True},
    "23.976.mp4": {**H264, "rate": 24 * NTSC},
    "24.mp4": {**H264, "rate": 24},
    "29.97.mp4": {**H264, "rate": 30 * NTSC},
    "30.mkv": {**H264, "rate": 30},
    "50.mp4": {**H264, "rate": 50},
    "59.94.mp4": {**H264, "rate": 60 * NTSC},
    "60.mp4": {**H264, "rate": 60},
    "variable.mp4": {**H264, "dropped": (7, 8, 9, 20, 21, 33)},
    "variable.mkv": {**H264, "dropped": (7, 8, 9, 20, 21, 33)},
    "starts_late.mp4": {**H264, "late": Fraction(1, 5)},
    "trimmed.mp4": {**H264, "cut": 5},
}


@pytest.fixture(scope="module")
def pictures(sample_clip):
    """[40, 256, 256, 3] uint8, a second and a half of the sample at 25 fps."""
    return np.stack([image for image, _ in zip(read_frames(sample_clip), range(COUNT))])


def clicks(seconds):
    wave = np.zeros(round(seconds * SOUND_RATE), np.float32)
    for click in CLICKS:
        wave[round(click * SOUND_RATE):][:144] = 0.8
    return wave


def write_form(path, pictures, rate=25, dropped=(), late=0, cut=0, **form):
    """Write the clip in one form; returns the index of the frame that each output frame must show."""
    pictures = [np.rot90(image, form["rotate"] // 90) for image in pictures] if "rotate" in form else list(pictures)
    if "aspect" in form:
        pictures = [cv2.resize(image, (192, 256), interpolation=cv2.INTER_AREA) for image in pictures]
    source = [n for n in range(int(COUNT / 25 * Fraction(rate))) if n not in dropped]
    times = [Fraction(n) / Fraction(rate) for n in source]
    shows = [min(COUNT - 1, round(float(time) * 25)) for time in times]
    kept = [k for k, time in enumerate(times) if time >= late]
    write_clip(path, [np.ascontiguousarray(pictures[shows[k]]) for k in kept], times=[times[k] for k in kept],
               rate=rate, wave=clicks(COUNT / 25), **form)
    if cut:
        trim_by_edit_list(path, Fraction(cut, 25))
    skipped = float(late) + cut / 25
    length = round((float(times[-1]) + 1 / float(rate) - skipped) * 25)
    # The nearest source frame; one that is followed by a gap is held.
    nearest = [max(k for k in kept if float(times[k]) - min(0.5 / float(rate), 0.021) < i / 25 + skipped)
               for i in range(length)]
    return [shows[k] for k in nearest], skipped


def trim_by_edit_list(path, seconds):
    """Cut the start off without encoding again: the packets before it stay, an edit list hides their frames."""
    whole = path.rename(path.with_stem("whole"))
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            shift = round(seconds / packet.time_base)
            if packet.stream.type == "audio" and packet.pts < shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream.index]
            out.mux(packet)


def landmarks(images):
    """[3, 478, 2] px in the last frames of a few, as the tracker finds them once it has settled."""
    tracker = FaceTracker()
    try:
        return np.float32([tracker(image)[:, :2] for image in images])[-3:]
    finally:
        tracker.close()


@pytest.mark.parametrize("name", FORMS)
def test_the_same_clip_in_every_form(tmp_path, pictures, name):
    path = tmp_path / name
    shows, skipped = write_form(path, pictures, **FORMS[name])
    frames = np.stack(list(read_frames(path)))
    expected = pictures[shows]
    assert frames.shape == expected.shape
    info = probe(path)
    assert (info.width, info.height) == (256, 256) and info.frames_at() == len(frames)

    if name == "grey.mp4":
        expected = np.stack([cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for x in expected])
    errors = np.abs(frames.astype(np.int16) - expected).mean((1, 2, 3))
    # A neighbouring frame differs by 1.5 levels or more while the mouth moves; tone mapping dims the background.
    assert errors.max() < (12 if info.hdr else 3)

    if "sound" in FORMS[name]:
        wave = load_audio(path)
        loud = np.flatnonzero(np.abs(wave) > 0.35)
        found = loud[np.diff(loud, prepend=-16_000) > 1600] / 16_000
        np.testing.assert_allclose(found, np.array(CLICKS) - skipped, atol=0.005)

    part = slice(10, 15)
    distance = np.linalg.norm(landmarks(frames[part]) - landmarks(expected[part]), axis=-1).mean(axis=0)
    assert distance.max() < 1 and distance.mean() < 0.4

    for start in (1, 13, 19, 26, len(frames) - 1):
        np.testing.assert_array_equal(np.stack(list(read_frames(path, start=start))), frames[start:])


def marked(level, count=4, size=(48, 64)):
    """Frames of one grey level."""
    return [np.full((*size, 3), level, np.uint8)] * count


def write_tracks(path, *tracks):
    """Several video tracks: (grey level, size, codec, pixel format, disposition)."""
    with av.open(str(path), "w") as out:
        streams = []
        for level, size, codec, pix_fmt, disposition in tracks:
            stream = out.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt, stream.disposition = *size, pix_fmt, disposition
            streams.append((stream, level, size))
        for stream, level, size in streams:
            count = 1 if stream.disposition & av.stream.Disposition.attached_pic else 4
            for image in marked(level, count, size):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_default_track_is_taken(tmp_path, suffix):
    """The first one may be a second camera, a screen recording or a preview."""
    default = av.stream.Disposition.default
    path = write_tracks(tmp_path / f"two{suffix}", (60, (32, 32), "libx264", "yuv420p", 0),
                        (200, (48, 64), "libx264", "yuv420p", default))
    frames = list(read_frames(path))
    assert len(frames) == 4 and frames[0].shape == (48, 64, 3) and abs(int(frames[0].mean()) - 200) < 4


def test_cover_art_is_not_the_video(tmp_path):
    """Neither beside a video nor in an audio file."""
    cover = av.stream.Disposition.attached_pic
    song = write_tracks(tmp_path / "song.mp4", (60, (32, 32), "mjpeg", "yuvj420p", cover))
    with pytest.raises(InputError, match="without a video stream"):
        read_frames(song)
    path = write_tracks(tmp_path / "cover.mp4", (60, (32, 32), "mjpeg", "yuvj420p", cover),
                        (200, (48, 64), "libx264", "yuv420p", av.stream.Disposition.default))
    assert probe(path).width == 64 and len(list(read_frames(path))) == 4


def test_a_codec_that_ffmpeg_does_not_know_is_said(tmp_path):
    """Without a decoder PyAV fails with an AttributeError or ends the interpreter."""
    path = write_clip(tmp_path / "clip.mov", marked(90), sound="pcm_s16le", wave=np.full(7680, 0.1, np.float32))
    data = path.read_bytes()
    unknown = tmp_path / "unknown.mov"
    unknown.write_bytes(data.replace(b"avc1", b"zzz1"))
    for function in (probe, read_frames):
        with pytest.raises(InputError, match="codec that FFmpeg knows"):
            function(unknown)
    assert np.abs(load_audio(unknown)).max() > 0.05  # the audio is there
    unknown.write_bytes(data.replace(b"sowt", b"zzz2"))
    assert len(list(read_frames(unknown))) == 4
    with pytest.raises(InputError, match="audio track in a codec"):
        load_audio(unknown)


@pytest.mark.parametrize("name, codec, pix_fmt, options", [
    ("h264.mp4", "libx264", "yuv420p", {"x264-params": "tff=1"}),
    ("mpeg2.mkv", "mpeg2video", "yuv422p", {"flags": "+ilme+ildct", "top": "1"})])
def test_interlaced_video_has_no_combs(tmp_path, name, codec, pix_fmt, options):
    """An upright bar that moves 5 px between two fields: woven frames show it as a comb."""
    fields = np.full((40, 64, 240, 3), 40, np.uint8)
    for i, field in enumerate(fields):
        field[:, 5 * i:5 * i + 24] = 220
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2, 1::2]
    path = write_clip(tmp_path / name, list(woven), codec, pix_fmt, options={"g": "6", "b": "8M", **options},
                      interlaced=True)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames = np.stack(list(read_frames(path)))
    assert len(frames) == 20
    combs, before = (np.abs(np.diff(x.astype(int), axis=1)).mean((1, 2, 3))[2:-2] for x in (frames, woven))
    assert combs.max() < 0.3 * before.min()
    for start in (5, 14, 18):
        np.testing.assert_array_equal(np.stack(list(read_frames(path, start=start))), frames[start:])


def test_frames_that_change_size_are_brought_to_the_first(tmp_path):
    """Browsers record calls so: the resolution follows the connection."""
    path = tmp_path / "call.mkv"
    parts = [write_clip(tmp_path / f"{level}.mkv", marked(level, 25, size), "mjpeg", "yuvj420p", full=True)
             for level, size in ((60, (48, 64)), (200, (96, 128)))]
    with av.open(str(path), "w") as out:
        stream = None
        for k, part in enumerate(parts):
            with av.open(str(part)) as source:
                stream = stream or out.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = packet.pts + k * 1000
                        packet.stream = stream
                        out.mux(packet)
    frames = np.stack(list(read_frames(path)))
    assert frames.shape == (50, 48, 64, 3)
    assert abs(frames[:25].mean() - 60) < 3 and abs(frames[25:].mean() - 200) < 3
    np.testing.assert_array_equal(np.stack(list(read_frames(path, start=40))), frames[40:])


def test_dropped_frames_of_an_avi_hold_the_one_before(tmp_path):
    """AVI has no times: a capture card that missed frames leaves holes in the numbering."""
    whole = write_clip(tmp_path / "whole.avi", [image for n in range(20) for image in marked(20 + 10 * n, 1)], "mjpeg",
                       "yuvj420p", full=True)
    path = tmp_path / "holes.avi"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for n, packet in enumerate(source.demux(video=0)):
            if packet.size and n not in (5, 6, 12):
                packet.stream = stream
                out.mux(packet)
    shown = [round((float(frame.mean()) - 20) / 10) for frame in read_frames(path)]
    assert shown == [0, 1, 2, 3, 4, 4, 4, 7, 8, 9, 10, 11, 11, *range(13, 20)]
