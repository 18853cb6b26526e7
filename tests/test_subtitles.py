"""Protects: subtitles keep their texts and times through reading, cutting and writing, from files and text tracks, and
what is no SRT is refused as a whole."""
from fractions import Fraction

import av
import numpy as np
import pytest
from av.subtitles.subtitle import SubtitleSet

from egstalker_nb.core.reading import Unreadable
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.subtitles import Cue, cut, load_subtitles, parse_srt, srt_text

TEXT = "1\n00:00:00,500 --> 00:00:01,250\nHello\n\n2\n00:00:01,250 --> 01:02:03,004\n<i>two</i>\nlines\n"
CUES = [Cue(500, 1250, "Hello"), Cue(1250, 3_723_004, "<i>two</i>\nlines")]


def random_cues(rng, count):
    starts = np.sort(rng.integers(0, 400_000_000, count))
    return [Cue(int(at), int(at + rng.integers(1, 9000)),
                "\n".join(rng.choice(["a", "7", "Grüße", "日本語", "1:2 -> 3", "- no"], rng.integers(1, 4))))
            for at in starts]


def test_any_cues_survive_writing_and_reading():
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 30):
        cues = sorted(random_cues(rng, count), key=lambda cue: (cue.start, cue.end))
        assert parse_srt(srt_text(cues)) == cues


@pytest.mark.parametrize("written", [
    TEXT, TEXT.replace("\n", "\r\n"), TEXT.strip(), "\n\n" + TEXT.replace("\n\n", "\n\n\n\n"), TEXT.replace(",", "."),
    TEXT.replace("1\n00", "00", 1).replace("2\n00", "00"), TEXT.replace("\n\n", "\n"),
    TEXT.replace("01,250\n", "01,250  X1:5 X2:9\n"), TEXT.replace("00:00:00,500", "0:0:0,5"),
    TEXT.replace("Hello\n\n", "Hello\n\n3\n00:00:09,0 --> 00:00:09,0\nnever\n\n")])
def test_the_forms_in_which_programs_write_srt(written):
    assert parse_srt(written) == CUES


@pytest.mark.parametrize("written, why", [
    ("hello\nworld\n", "hello"), ("WEBVTT\n\n" + TEXT, "WEBVTT"), ("1\n", "'1'"),
    (TEXT.replace("00:00:01,250 -", "x -"), "line 6"), (TEXT.replace(":02:", ":72:"), "line 6"),
    (TEXT.replace("01,250 --> 01:02", "01,250 --> 00:00:00,1 01:02"), "line 6"),
    (TEXT.replace("00:00:00,500", "0" * 5000), "line 2")])
def test_what_is_no_srt_is_refused(written, why):
    with pytest.raises(Unreadable, match=why) as refused:
        parse_srt(written)
    assert len(str(refused.value)) < 200


def test_a_part_has_the_texts_that_are_shown_in_it():
    rng = np.random.default_rng(1)
    cues = [Cue(at, at + 900, str(at)) for at in range(0, 20_000, 1000)]
    for _ in range(50):
        start, length = rng.integers(0, 480) / 25, rng.integers(1, 100) / 25
        part = cut(cues, start, length)
        for ms in range(0, int(1000 * length), 10):
            now = int(1000 * start + 0.5) + ms
            assert ([cue.text for cue in part if cue.start <= ms < cue.end]
                    == [cue.text for cue in cues if cue.start <= now < cue.end])
        assert all(0 <= cue.start < cue.end <= round(1000 * length) for cue in part)


def test_the_file_beside_the_audio(tmp_path):
    assert load_subtitles(save_wav(tmp_path / "a.wav", np.zeros(16000, np.float32))) == []
    (tmp_path / "a.srt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load_subtitles(tmp_path / "a.wav") == CUES


@pytest.mark.parametrize("damaged", [b"no subtitles", TEXT.encode("utf-16"), b"\xff\xfe\xfd", TEXT[:25].encode()])
def test_damaged_subtitles_are_left_out_with_a_warning(tmp_path, damaged):
    save_wav(tmp_path / "a.wav", np.zeros(16000, np.float32))
    (tmp_path / "a.srt").write_bytes(damaged)
    with pytest.warns(UserWarning, match="a.srt.*left out") as caught:
        assert load_subtitles(tmp_path / "a.wav") == []
    assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize("codec, suffix", [("mov_text", ".mp4"), ("subrip", ".mkv"), ("ass", ".mkv"),
                                           ("webvtt", ".mkv")])
def test_a_text_track_on_the_timeline_of_the_audio(tmp_path, codec, suffix):
    """The video starts 0.4 s into the file, and so do the audio's first sample and the time 0 of subtitles."""
    path = tmp_path / f"v{suffix}"
    with av.open(str(path), "w") as out:
        picture, sound, text = (out.add_stream("libx264", rate=25), out.add_stream("aac", rate=48000, layout="mono"),
                                out.add_stream(codec))
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        text.codec_context.time_base = Fraction(1, 1000)
        text.codec_context.subtitle_header = (b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name"
                                              b"\r\nStyle: Default\r\n\r\n[Events]\r\nFormat: Text\r\n")
        made = []
        for i in range(10, 40):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            made += picture.encode(frame)
        tone = av.AudioFrame.from_ndarray(np.full((1, 76_800), 0.1, np.float32), format="fltp", layout="mono")
        tone.sample_rate = 48000
        made += picture.encode(None) + sound.encode(tone) + sound.encode(None)
        text.codec_context.open()
        packet = text.codec_context.encode_subtitle(
            SubtitleSet.create(b"0,0,Default,,0,0,0,,{\\i1}Hello{\\i0}\\Ntwo, three", 0, 600))
        packet.stream, packet.time_base = text, Fraction(1, 1000)
        packet.pts, packet.dts, packet.duration = 700, 700, 600
        out.mux([*made, packet])
    (cue,) = load_subtitles(path)
    assert cue.text == "Hello\ntwo, three"
    assert abs(cue.start - 300) <= 1 and abs(cue.end - 900) <= 1
    assert abs(len(load_audio(path)) / 16000 - 1.2) < 0.05
