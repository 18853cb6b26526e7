"""Protects: a video is one continuous stream, the same on any number of cores; segments are encoded apart."""
import threading
import time
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.media import video_encoder
from egstalker_nb.media.video_encoder import NVENC, X264, Encoding, choose_encoder, encode_segments
from egstalker_nb.media.video_reader import probe, read_frames
from egstalker_nb.media.video_writer import mux_video, write_video

RATE = Fraction(25)


def moving(count, size=(64, 96)):
    """A pattern that moves; the number of each frame is written in grey at the left edge."""
    y, x = np.mgrid[:size[0], :size[1]]
    for i in range(count):
        wave = 128 + 60 * np.sin((x + 2 * i) / 7) + 50 * np.cos((y - i) / 5)
        image = np.stack([wave, np.roll(wave, 9, 0), 255 - wave], -1).clip(0, 255).astype(np.uint8)
        image[:, :16] = i % 50 * 5
        yield image


def decoded(segment):
    """Its frames [n, H, W] luma, by a decoder that knows no other segment."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = segment.header
    frames = [frame for packet in segment.frames for frame in decoder.decode(av.Packet(packet.data))]
    return [frame.to_ndarray()[:64] for frame in frames + decoder.decode(None)]


@pytest.mark.parametrize("count", [1, 6, 7, 8, 50])
def test_segments_make_one_stream(tmp_path, count):
    """Every frame once, in order; times without a gap; nothing refers across a join; parameter sets only in front."""
    path = write_video(tmp_path / "a.mp4", moving(count), np.zeros(640 * count, np.float32), segment=7)
    assert probe(path).num_frames == count and probe(path).fps == pytest.approx(25)
    shown = [round(frame[:, 4:12].mean() / 5) for frame in read_frames(path)]
    assert shown == [i % 50 for i in range(count)]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        tick = int(1 / RATE / stream.time_base)
        assert sorted(p.pts for p in packets) == [i * tick for i in range(count)] and stream.duration == count * tick
        assert [p.dts - packets[0].dts for p in packets] == [i * tick for i in range(count)]
        assert all(p.dts <= p.pts for p in packets)
        assert [i for i, p in enumerate(packets) if p.is_keyframe] == list(range(0, count, 7))
        units = {data[4] & 31 for data in map(bytes, packets)}  # after the length of the first one
        assert not units & {7, 8}, "SPS or PPS among the frames"
        container.seek(0)
        whole = [frame.to_ndarray()[:64] for frame in container.decode(stream)]
    segments = encode_segments(moving(count), Encoding(RATE, segment=7))
    apart = [frame for segment in segments for frame in decoded(segment)]
    np.testing.assert_array_equal(np.stack(whole), np.stack(apart))


@pytest.mark.parametrize("crf", [0, 18])
def test_the_file_does_not_depend_on_cores_and_memory(tmp_path, monkeypatch, crf):
    wave = np.random.default_rng(0).normal(0, 0.1, 40 * 640).astype(np.float32)
    files = []
    for cores, limit in ((1, 2 ** 30), (2, 0), (5, 2 ** 30), (5, 4_000_000)):
        monkeypatch.setattr(video_encoder, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(video_encoder, "_MAX_BYTES", limit)
        files.append(write_video(tmp_path / "a.mp4", moving(40, (256, 160)), wave, crf=crf, segment=15).read_bytes())
    assert len(set(files)) == 1


def test_segments_cost_few_bytes_and_no_quality():
    """An IDR frame each 2.6 s instead of each 10 s."""
    sizes, errors = [], []
    for segment in (64, 10_000):
        found = list(encode_segments(moving(256), Encoding(RATE, segment=segment)))
        sizes.append(sum(len(frame.data) for part in found for frame in part.frames))
        first = decoded(found[0])[:60]
        truth = [video_encoder.YuvConverter()(image).to_ndarray()[:64] for image in moving(60)]
        errors.append(np.square(np.stack(first).astype(float) - np.stack(truth)).mean())
    assert sizes[0] < 1.15 * sizes[1] and errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("limit, ahead", [(2 ** 30, 6), (5 * 64 * 96 * 3 * 2, 2), (0, 1)])
def test_few_frames_are_consumed_ahead_of_the_encoders(monkeypatch, limit, ahead):
    """A renderer is faster than the encoders: the frames of an hour would fill the memory."""
    consumed, release, real = [], threading.Event(), video_encoder._encode

    def slow(*args):
        release.wait(20)
        return real(*args)

    def frames():
        for image in moving(60):
            consumed.append(1)
            yield image

    monkeypatch.setattr(video_encoder, "_encode", slow)
    monkeypatch.setattr(video_encoder, "_MAX_BYTES", limit)
    segments = encode_segments(frames(), Encoding(RATE, segment=5), threads=3)
    reader = threading.Thread(target=lambda: list(segments))
    reader.start()
    before = -1
    while before != (before := len(consumed)) or not before:
        time.sleep(0.1)
    release.set()
    reader.join(20)
    assert before == 5 * ahead + 1 and len(consumed) == 60


@pytest.mark.parametrize("at", [3, 17])
def test_a_failing_source_ends_all_threads(tmp_path, at):
    def failing():
        yield from moving(at)
        raise RuntimeError("renderer failed")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="renderer failed"):
        write_video(tmp_path / "a.mp4", failing(), segment=5)
    assert threading.active_count() == before and list(tmp_path.iterdir()) == []


def test_a_failing_encoder_or_disk_ends_rendering(tmp_path, monkeypatch):
    closed = []

    def frames():
        try:
            yield from moving(1000)
        finally:
            closed.append(1)

    monkeypatch.setattr(video_encoder, "_open_encoder", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "a.mp4", frames(), segment=5)
    monkeypatch.undo()
    monkeypatch.setattr("egstalker_nb.media.video_writer._VideoWriter.packets", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "a.mp4", frames(), segment=5)
    assert closed == [1, 1] and list(tmp_path.iterdir()) == []


def test_segments_that_do_not_fit_together_are_refused(tmp_path):
    """Of workers with other versions of FFmpeg: players would show garbage from the join on."""
    one, other = (list(encode_segments(moving(3), Encoding(RATE, crf=crf))) for crf in (18, 0))
    with pytest.raises(InputError, match="same version of PyAV"):
        mux_video(tmp_path / "a.mp4", (s for s in one + other), None, RATE)
    assert list(tmp_path.iterdir()) == []


# ---- hardware: no machine of the tests has it, so a stand-in plays its part

@pytest.fixture
def stand_in(monkeypatch):
    """x264 without B-frames under the name of the hardware encoder; gives the calls."""
    calls, real = [], video_encoder._open_encoder

    def opened(shape, how):
        calls.append(how)
        return real(shape, replace(how, encoder=X264) if how.encoder == NVENC else how)

    monkeypatch.setattr(video_encoder, "_open_encoder", opened)
    options = video_encoder._options
    monkeypatch.setattr(video_encoder, "_options", lambda how: {**options(how), "bf": "0"})
    choose_encoder.cache_clear()
    yield calls
    choose_encoder.cache_clear()


def test_a_hardware_encoder_that_works_is_used_on_gpus_only(tmp_path, stand_in):
    assert choose_encoder(False, 64, 96) == X264 and not stand_in
    assert choose_encoder(True, 64, 96) == choose_encoder(True, 64, 96) == NVENC and len(stand_in) == 1
    write_video(tmp_path / "a.mp4", moving(20), segment=7, encoder=NVENC)
    assert [how.encoder for how in stand_in] == 4 * [NVENC]
    shown = [round(frame[:, 4:12].mean() / 5) for frame in read_frames(tmp_path / "a.mp4")]
    assert shown == list(range(20))


@pytest.mark.parametrize("fails", ["to open", "to give all frames", "to begin with a key frame", "to give a header"])
def test_a_hardware_encoder_that_does_not_work_is_not_used(stand_in, monkeypatch, fails):
    real = video_encoder._encode

    def broken(feed, shape, how):
        found = real(feed, shape, how)
        if fails == "to open":
            raise av.error.ExternalError(1, "no device")
        if fails == "to give all frames":
            return replace(found, frames=found.frames[1:])
        if fails == "to give a header":
            return replace(found, header=b"")
        return replace(found, frames=[frame._replace(key=False) for frame in found.frames])

    monkeypatch.setattr(video_encoder, "_encode", broken)
    assert choose_encoder(True, 64, 96) == X264


def test_without_such_a_card_the_processor_encodes():
    if video_encoder._works(Encoding(RATE, encoder=NVENC), 256, 256):
        pytest.skip("this machine has NVENC")
    choose_encoder.cache_clear()
    assert choose_encoder(True, 256, 256) == X264
