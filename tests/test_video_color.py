"""Protects colours and transparency of videos: HDR, wide gamut, Dolby Vision, alpha; plain SDR stays as it is."""

import itertools
import warnings

import av
import numpy as np
import pytest
from video_material import pq, to_bt2020, write_clip, ycc_frame

from egstalker_nb.core.errors import InputError
from egstalker_nb.media import container as media
from egstalker_nb.media import video_reader
from egstalker_nb.media.container import EXACT_COLOURS
from egstalker_nb.media.video_reader import ALPHA_BACKGROUND, probe, read_frames

LOSSLESS = {"codec": "ffv1", "pix_fmt": "yuv444p10le"}


def patches(colors):
    """Colours [N, 3] as an image [16, 16 N, 3]."""
    return np.asarray(colors)[None].repeat(16, 0).repeat(16, 1)


def centres(image):
    return image[8, 8::16].astype(int)


def write_signal(path, signal, kind, pix_fmt="yuv444p10le", full_tags=True):
    """Store HDR signal values [N, 3], 0..1, as they are; without full tags only the transfer function is named."""
    transfer = {"HLG": 18, "PQ": 16}[kind]
    tags = (9, transfer, 9) if full_tags else (2, transfer, 2)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16 * len(signal), 16, pix_fmt
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = tags
        context.color_range = 1
        out.mux(stream.encode(ycc_frame(patches(signal), pix_fmt)))
        out.mux(stream.encode(None))
    return path


def read_signal(tmp_path, signal, kind):
    return centres(next(read_frames(write_signal(tmp_path / f"{kind}.mkv", np.asarray(signal), kind))))


@pytest.mark.parametrize("kind", ["HLG", "PQ"])
def test_greys_stay_neutral_and_in_order(tmp_path, kind):
    """A wrong matrix tints greys; a tone curve that folds back turns highlights inside out."""
    shown = read_signal(tmp_path, np.linspace(0, 1, 41)[:, None].repeat(3, 1), kind)
    assert np.ptp(shown, axis=1).max() <= 1
    assert (np.diff(shown[:, 1]) >= 0).all()
    assert shown[0].max() == 0 and shown[-1].min() == 255


@pytest.mark.parametrize("kind, white, brighter", [("PQ", pq(203), pq([400, 999])), ("HLG", 0.75, [0.85, 0.99])])
def test_reference_white_is_bright_and_highlights_are_kept(tmp_path, kind, white, brighter):
    """White (203 cd/m²) is shown near SDR white, with headroom for what is brighter, up to 1000 cd/m²."""
    shown = read_signal(tmp_path, np.array([white, *brighter])[:, None].repeat(3, 1), kind)[:, 1]
    assert 0.85 * 255 < shown[0] < 0.95 * 255
    assert shown[0] + 10 < shown[1] < shown[2] >= 254


@pytest.mark.parametrize("kind", ["HLG", "PQ", "SDR"])
def test_bt709_colours_come_back_from_bt2020(tmp_path, kind):
    """Below the knee of the tone curve exactly, above it compressed without a change of hue; SDR exactly."""
    colors = np.array(list(itertools.product((60, 100, 140, 175), repeat=3)), np.uint8)
    bright = np.array([(255, 255, 255), (250, 200, 170), (255, 80, 60), (90, 140, 250), (200, 240, 90)], np.uint8)
    path = write_clip(tmp_path / "clip.mkv", [patches(np.vstack([colors, bright]))], hdr=kind, **LOSSLESS)
    assert probe(path).hdr == (None if kind == "SDR" else kind)
    back = centres(next(read_frames(path)))
    assert np.abs(back[:len(colors)] - colors).max() <= 3
    compressed = back[len(colors):] / bright
    assert np.ptp(compressed, axis=1).max() < 0.02
    assert compressed.min() > (0.99 if kind == "SDR" else 0.88)


def test_a_phone_file_keeps_its_skin_tones(tmp_path):
    """HEVC 10 bit 4:2:0 in MP4; read as SDR the skin would be grey."""
    skin = np.array([(178, 138, 118), (126, 84, 66), (66, 44, 36)], np.uint8)
    for kind in ("HLG", "PQ"):
        path = write_clip(tmp_path / "phone.mp4", [patches(skin)[:, :, :3].repeat(4, 0).repeat(4, 1)] * 3, "libx265",
                          "yuv420p10le", hdr=kind, options={"x265-params": "log-level=none", "crf": "4"})
        shown = list(read_frames(path))[1][32, 32::64].astype(int)
        assert probe(path).hdr == kind
        assert np.abs(shown - skin).max() <= 4


def test_colours_outside_bt709_are_clipped_not_wrapped(tmp_path):
    """BT.2020's green has no red and blue in BT.709; a negative value must not become a bright one."""
    primaries = read_signal(tmp_path, 0.5 * np.eye(3), "HLG")
    for channel, color in enumerate(primaries):
        others = np.delete(color, channel)
        assert color[channel] > 100 and others.max() < 40


def test_colours_above_the_peak_keep_their_hue(tmp_path):
    """A saturated light of 2000 cd/m² looks like one of 9000, and neither turns white or another hue."""
    light = np.array([(2000, 5, 1200), (400, 900, 2000), (2000, 2000, 2000)])
    dim, bright = (read_signal(tmp_path, pq(light * k), "PQ") for k in (1, 4.5))
    assert np.abs(dim - bright).max() <= 4
    assert dim[0, 0] == 255 and 150 < dim[0, 2] < 235 and dim[1, 2] == 255 and dim[1, 0] < 160 and dim[2].min() == 255


def test_hdr_whose_primaries_and_matrix_are_not_named_is_bt2020(tmp_path):
    """BT.2100 defines HLG and PQ for these alone, and some recorders leave the rest out."""
    signal = np.random.default_rng(0).uniform(0.2, 0.7, (20, 3))
    tagged = write_signal(tmp_path / "tagged.mkv", signal, "HLG")
    untagged = write_signal(tmp_path / "untagged.mkv", signal, "HLG", full_tags=False)
    np.testing.assert_array_equal(next(read_frames(untagged)), next(read_frames(tagged)))


def test_p3_colours_are_converted(tmp_path):
    """Display P3 as some phones and screens store it: a full P3 red is beyond BT.709's, half of it is not grey."""
    path = tmp_path / "p3.mkv"
    image = patches(np.array([(200, 60, 60), (128, 128, 128)], np.uint8))
    write_clip(path, [image], "ffv1", "yuv444p", tags=(12, 1, 1))
    red, grey = centres(next(read_frames(path)))
    assert red[0] > 210 and red[1] < 50 and np.abs(grey - 128).max() <= 1


SDR = [("libx264", "yuv420p", (1, 1, 1), False), ("libx264", "yuv444p", (6, 6, 6), False),
       ("libx264", "yuv420p", (2, 2, 2), True), ("libx265", "yuv420p10le", (1, 1, 1), False),
       ("mpeg4", "yuv420p", (5, 5, 5), False), ("ffv1", "gray", (2, 2, 2), False), ("qtrle", "rgb24", (2, 2, 2), False)]


@pytest.mark.parametrize("codec, pix_fmt, tags, full", SDR)
def test_plain_video_is_what_swscale_gives(tmp_path, codec, pix_fmt, tags, full):
    """Tone mapping and alpha must not touch the usual video by a single bit."""
    images = list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2))
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = write_clip(tmp_path / "clip.mov" if codec == "qtrle" else tmp_path / "clip.mkv", images, codec, pix_fmt,
                      tags=tags, full=full, options=options)
    with av.open(str(path)) as container:
        expected = [frame.reformat(format="rgb24", interpolation=4 | EXACT_COLOURS).to_ndarray()
                    for frame in container.decode(video=0)]
    np.testing.assert_array_equal(np.stack(list(read_frames(path))), np.stack(expected))
    info = probe(path)
    assert info.hdr is None and not info.alpha


def hevc(path, tags, tag="hvc1"):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.codec_tag, (context.color_primaries, context.color_trc, context.colorspace) = tag, tags
        out.mux(stream.encode(ycc_frame(np.full((64, 64, 3), 0.5), "yuv420p10le")))
        out.mux(stream.encode(None))
    return path


def test_colours_that_no_decoder_shows_are_refused(tmp_path):
    """Dolby Vision without a base layer comes out green and violet, ICtCp too; with a base layer all is well."""
    for path, match in [(hevc(tmp_path / "profile5.mp4", (2, 2, 2), "dvh1"), "Dolby Vision profile 5.*[Ee]xport"),
                        (hevc(tmp_path / "ictcp.mp4", (9, 16, 14)), "matrix 14.*[Ee]xport")]:
        for function in (probe, read_frames):
            with pytest.raises(InputError, match=match):
                function(path)
    with_base = hevc(tmp_path / "profile8.mp4", (9, 18, 9), "dvh1")
    assert probe(with_base).hdr == "HLG" and len(list(read_frames(with_base))) == 1


# --- alpha ---

HIDDEN, SHOWN = (230, 20, 20), (60, 170, 60)
ALPHA_FORMS = {"vp9.webm": ("libvpx-vp9", "yuva420p"), "vp9.mkv": ("libvpx-vp9", "yuva420p"),
               "prores.mov": ("prores_ks", "yuva444p10le"), "qtrle.mov": ("qtrle", "argb"), "png.mov": ("png", "rgba"),
               "ffv1.mkv": ("ffv1", "yuva420p"), "rgb.avi": ("rawvideo", "bgra")}


def transparent_images(count=30):
    """Left to right: hidden, half transparent, opaque; a moving bright bar at the bottom that is opaque."""
    image = np.empty((64, 96, 4), np.uint8)
    image[:, :32], image[:, 32:64], image[:, 64:] = (*HIDDEN, 0), (*SHOWN, 128), (*SHOWN, 255)
    images = np.stack([image] * count)
    for i in range(count):
        images[i, 48:, :3 * i + 3] = 255
    return list(images)


@pytest.mark.parametrize("name", ALPHA_FORMS)
def test_alpha_is_read(tmp_path, name):
    """Hidden colours never appear; on request straight alpha comes as a fourth channel."""
    path = write_clip(tmp_path / name, transparent_images(), *ALPHA_FORMS[name])
    assert probe(path).alpha
    flat, straight = list(read_frames(path)), list(read_frames(path, alpha=True))
    half = (np.array(SHOWN) + ALPHA_BACKGROUND) / 2
    for image, full in zip(flat, straight, strict=True):
        assert image.shape == (64, 96, 3) and full.shape == (64, 96, 4) and full.dtype == np.uint8
        for x, color, alpha in [(16, np.full(3, ALPHA_BACKGROUND), 0), (48, half, 128), (80, SHOWN, 255)]:
            assert np.abs(image[16, x] - np.asarray(color, float)).max() <= 6
            assert abs(int(full[16, x, 3]) - alpha) <= 3
            if alpha:
                assert np.abs(full[16, x, :3] - np.asarray(SHOWN, float)).max() <= 6
    for start in (1, 13, 20, 29):
        np.testing.assert_array_equal(np.stack(list(read_frames(path, start=start, alpha=True))),
                                      np.stack(straight[start:]))


def test_opaque_alpha_counts_as_none(tmp_path):
    """Editors write alpha that is 255 throughout; a first frame that hides nothing is taken for that."""
    images = [np.dstack([image[..., :3], np.full(image.shape[:2], 255, np.uint8)]) for image in transparent_images(4)]
    path = write_clip(tmp_path / "opaque.mov", images, "qtrle", "argb")
    assert not probe(path).alpha
    for image, shown in zip(images, read_frames(path), strict=True):
        np.testing.assert_array_equal(shown, image[..., :3])


def test_alpha_that_comes_later_still_hides(tmp_path):
    images = transparent_images(3)
    images[0][..., 3] = 255
    path = write_clip(tmp_path / "late.mov", images, "qtrle", "argb")
    shown = list(read_frames(path))
    assert not probe(path).alpha
    assert tuple(shown[0][16, 16]) == HIDDEN and tuple(shown[1][16, 16]) == (ALPHA_BACKGROUND,) * 3


def test_video_without_alpha_gives_an_opaque_channel(tmp_path):
    path = write_clip(tmp_path / "plain.mp4", [image[..., :3].copy() for image in transparent_images(2)])
    plain, full = next(read_frames(path)), next(read_frames(path, alpha=True))
    np.testing.assert_array_equal(full[..., :3], plain)
    assert (full[..., 3] == 255).all()


def test_alpha_that_cannot_be_decoded_is_said(tmp_path, monkeypatch):
    """FFmpeg without libvpx shows the hidden colours: there must be a word."""
    path = write_clip(tmp_path / "clip.webm", transparent_images(3), "libvpx-vp9", "yuva420p")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(read_frames(path))
    for module in (media, video_reader):
        monkeypatch.setattr(module, "has_decoder", lambda name: False)
    with pytest.warns(UserWarning, match="transparency, which is not read.*libvpx-vp9"):
        assert len(list(read_frames(path))) == 3
    assert not probe(path).alpha


def test_hdr_signal_of_the_tests_is_that_of_the_standard():
    """Anchors of BT.2408: reference white is 58 % PQ and 75 % HLG."""
    assert to_bt2020(np.ones(3), "PQ") == pytest.approx(0.58, abs=0.002)
    assert to_bt2020(np.ones(3), "HLG") == pytest.approx(0.75, abs=0.002)
