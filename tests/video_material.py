"""Video files in many forms, made with PyAV for the tests: any codec, pixel format, colour tags, times and audio."""

import struct
from fractions import Fraction

import av
import numpy as np

from egstalker_nb.media.container import EXACT_COLOURS
from egstalker_nb.media.synthetic import COMMENT

SOUND_RATE = 48_000
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
LUMA = np.array([0.2627, 0.6780, 0.0593])
#: FFmpeg's numbers of colour tags: primaries, transfer, matrix
TAGS = {"HLG": (9, 18, 9), "PQ": (9, 16, 9), "SDR": (9, 1, 9)}


def write_clip(path, images, codec="libx264", pix_fmt="yuv420p", rate=25, times=None, options=None, aspect=None,
               tags=(2, 2, 2), full=False, sound=None, wave=None, hdr=None, rotate=None, interlaced=False):
    """Encode RGB(A) frames; `times` in seconds (default: by rate); `sound` names the codec for `wave` (48 kHz mono).

    tags: primaries, transfer, matrix. hdr: "HLG", "PQ" or "SDR" to store the BT.709 pictures in BT.2020.
    rotate: degrees clockwise that players turn the stored picture by.
    """
    times = [Fraction(n) / Fraction(rate) for n in range(len(images))] if times is None else times
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=options or {})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pix_fmt
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = TAGS[hdr] if hdr else tags
        context.color_range = 2 if full else 1
        if aspect:
            context.sample_aspect_ratio = aspect
        if interlaced:
            context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        tick = 1 / Fraction(rate) if all((t * Fraction(rate)).denominator == 1 for t in times) else Fraction(1, 90_000)
        context.time_base = tick
        track = out.add_stream(sound, rate=SOUND_RATE, layout="mono") if sound else None
        for image, time in zip(images, times, strict=True):
            frame = hdr_frame(image, hdr, pix_fmt) if hdr else _frame(image, pix_fmt, tags[2], full)
            frame.pts, frame.time_base = round(time / tick), tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound:
            _write_sound(out, track, wave)
    if rotate:
        turn(path, rotate)
    return path


def _write_sound(out, track, wave):
    for begin in range(0, len(wave), 960):
        frame = av.AudioFrame.from_ndarray(wave[None, begin:begin + 960].copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, begin, Fraction(1, SOUND_RATE)
        out.mux(track.encode(frame))
    out.mux(track.encode(None))


def _frame(image, pix_fmt, matrix, full):
    frame = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
    if frame.format.name == pix_fmt:
        return frame
    return frame.reformat(format=pix_fmt, dst_colorspace=matrix if matrix != 2 else 5, src_color_range=2,
                          dst_color_range=2 if full else 1, interpolation=4 | EXACT_COLOURS)


def turn(path, clockwise):
    """Write into an MP4 or MOV that its image is to be turned by so many degrees clockwise."""
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at:at + 20] = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    path.write_bytes(data)


def pq(light):
    """PQ signal of cd/m² (BT.2100)."""
    power = (np.asarray(light, float) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(scene):
    """HLG signal of scene light 0..1 (BT.2100)."""
    scene = np.asarray(scene, float)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene),
                    0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073)


def to_bt2020(signal, kind):
    """BT.709 signal 0..1 [..., 3] as it stands in BT.2020 HLG, PQ (white at 203 cd/m²) or SDR."""
    light = 203 * np.asarray(signal, float) ** 2.4 @ BT709_TO_BT2020.T
    if kind == "PQ":
        return pq(light)
    if kind == "SDR":
        return (light / 203) ** (1 / 2.4)
    luma = np.maximum(light @ LUMA, 1e-9)[..., None]
    return hlg(light / 1000 * (luma / 1000) ** (-1 / 6))


def ycc_frame(signal, pix_fmt="yuv444p10le"):
    """R'G'B' 0..1 [H, W, 3] as a 10-bit BT.2020 frame, 4:4:4 or 4:2:0."""
    luma = signal @ LUMA
    chroma = [(signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746]
    if "420" in pix_fmt:
        height, width = luma.shape
        chroma = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in chroma]
    frame = av.VideoFrame(signal.shape[1], signal.shape[0], pix_fmt)
    planes = [64 + 876 * luma, *(512 + 896 * c for c in chroma)]
    for plane, values in zip(frame.planes, planes, strict=True):
        data = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        data[:, :plane.width] = np.rint(values)
        plane.update(data)
    return frame


def hdr_frame(image, kind, pix_fmt):
    """A BT.709 image uint8 [H, W, 3] as a frame in BT.2020 HLG, PQ or SDR."""
    frame = ycc_frame(to_bt2020(image[..., :3] / 255, kind), pix_fmt)
    frame.color_primaries, frame.color_trc, frame.colorspace = TAGS[kind]
    frame.color_range = 1
    return frame


def read_alpha_video(path):
    """RGBA frames [N, H, W, 4] and the number of samples of a video with alpha, by FFmpeg alone.

    libvpx reads the alpha of VP9, which FFmpeg's own decoder drops.
    """
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r") if path.suffix == ".webm" else stream.codec_context
        frames = [frame for packet in file.demux(stream) for frame in decoder.decode(packet)]
        assert file.metadata.get("comment", file.metadata.get("COMMENT")) == COMMENT and stream.average_rate == 25
    with av.open(str(path)) as file:
        samples = sum(frame.samples for frame in file.decode(file.streams.audio[0])) if file.streams.audio else 0
    images = np.stack([frame.reformat(format="rgba", src_colorspace="ITU709", dst_color_range="JPEG").to_ndarray()
                       for frame in frames])
    if path.suffix == ".webm":  # from the plane: swscale leaves the last pixels of rows at random for some widths
        for image, plane in zip(images, (frame.planes[3] for frame in frames)):
            image[..., 3] = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:len(image), :image.shape[1]]
    return images, samples
