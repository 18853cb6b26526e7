"""Converting decoded frames to RGB arrays: colour matrix, HDR, wide gamut, alpha, rotation and pixel aspect."""
from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Optional

import numpy as np

from ..core.errors import InputError
from ..core.files import shortened
from .container import EXACT_COLOURS, require_av

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream

#: grey level 0..255 of the background that frames with alpha are composited over
ALPHA_BACKGROUND = 128

# codes of ITU-T H.273 for which PyAV has no names
_UNSPECIFIED = 2
_BT2020_MATRIX = 9
#: what swscale converts: RGB, BT.709, unspecified, FCC, BT.601 (two), SMPTE 240M, BT.2020 non-constant luminance
_MATRICES = {0, 1, 2, 4, 5, 6, 7, 9}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_WIDE_PRIMARIES = {9: "BT.2020", 12: "P3-D65"}
_SDR_TRANSFERS = {1, _UNSPECIFIED, 6, 13, 14, 15}
_DOLBY_VISION_TAGS = {"dvh1", "dvhe", "dav1", "dva1", "dvav"}


def hdr_format(frame: VideoFrame) -> Optional[str]:
    """The HDR transfer function that a frame is tagged with: "HLG", "PQ", or None for SDR."""
    return _HDR_TRANSFERS.get(int(frame.color_trc))


def _side_data(frame: VideoFrame) -> Iterable[Any]:
    """A frame's side data; PyAV's own types describe it as a mapping, whose iteration would give its keys."""
    data: Any = frame.side_data
    return data


def has_alpha(frame: VideoFrame) -> bool:
    """Whether a frame's pixel format carries alpha (which may be 255 throughout)."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def check_color(frame: VideoFrame, stream: VideoStream, path: str | Path) -> None:
    """Refuse colours that FFmpeg would decode wrongly without a warning.

    Args:
        frame: the first decoded frame.
        stream: its stream.
        path: for the message.

    Raises:
        InputError: Dolby Vision without a base layer (profile 5), or a colour matrix that swscale lacks.
    """
    av = require_av()
    kinds = av.sidedata.sidedata.Type
    dolby = _codec_tag(stream) in _DOLBY_VISION_TAGS or any(
        data.type in (kinds.DOVI_METADATA, kinds.DOVI_RPU_BUFFER) for data in _side_data(frame))
    # With a base layer (profiles 7 and 8) the tags describe that layer: HLG, PQ or BT.709.
    if dolby and int(frame.color_trc) == _UNSPECIFIED:
        raise InputError("a video that any decoder can show",
                         f"'{shortened(path)}' in Dolby Vision profile 5, which has no base layer",
                         "Export it as SDR or as HDR10 or HLG: on a phone switch HDR video off or share as 'most "
                         "compatible', in an editor choose BT.709.")
    if int(frame.colorspace) not in _MATRICES:
        raise InputError("a video in RGB or in the YCbCr of BT.601, BT.709 or BT.2020",
                         f"'{shortened(path)}' with colour matrix {int(frame.colorspace)} of ITU-T H.273",
                         "Export it with BT.709 colours.")


def _codec_tag(stream: VideoStream) -> str:
    try:
        return stream.codec_context.codec_tag
    except UnicodeDecodeError:  # a number instead of four letters, as in transport streams
        return ""


class FrameConverter:
    """Converts decoded frames of one clip to RGB arrays, all of the first frame's size.

    Args:
        first: the clip's first frame; later frames of another size are scaled to it.
        aspect: pixel aspect ratio, width over height; None or 0 if unknown.
    """

    def __init__(self, first: VideoFrame, aspect: Optional[Fraction]):
        # One for all frames: building swscale's tables costs as much as converting a frame.
        self._reformatter = require_av().video.reformatter.VideoReformatter()
        self.width = max(1, round(first.width * float(aspect))) if aspect else first.width
        self.height = first.height

    def __call__(self, frame: VideoFrame, alpha: bool = False) -> np.ndarray:
        """One frame as displayed: BT.709 SDR, rotated, with square pixels.

        Args:
            frame: as decoded.
            alpha: False to composite frames with alpha over `ALPHA_BACKGROUND`, True to return alpha as well.

        Returns:
            Contiguous uint8 [H, W, 3] RGB, or [H, W, 4] RGB and straight alpha (255 if the format has none).
        """
        transparent = has_alpha(frame)
        hdr = hdr_format(frame)
        primaries = _WIDE_PRIMARIES.get(int(frame.color_primaries), "BT.2020" if hdr and _untagged(frame) else "BT.709")
        if hdr or (primaries != "BT.709" and int(frame.color_trc) in _SDR_TRANSFERS):
            image = self._mapped(frame, hdr, primaries, transparent)
        else:
            image = self._reformat(frame, "rgba" if transparent else "rgb24").to_ndarray()
        if transparent and not alpha:
            image = composite(image, ALPHA_BACKGROUND)
        elif alpha and not transparent:
            image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        turns, mirrored = orientation(frame)
        if mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, turns))

    def _mapped(self, frame: VideoFrame, hdr: Optional[str], primaries: str, transparent: bool) -> np.ndarray:
        """Tone-mapped RGB or RGBA of a frame with HDR or wide-gamut colours."""
        from .tone_map import to_bt709

        if hdr and int(frame.colorspace) == _UNSPECIFIED:
            frame.colorspace = _BT2020_MATRIX
        planar: Any = self._reformat(frame, "gbrap16le" if transparent else "gbrp16le")
        green, blue, red, *opacity = (
            np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, :plane.width] for plane in planar.planes)
        image = to_bt709(red, green, blue, hdr, primaries)
        return np.dstack([image, (opacity[0] >> 8).astype(np.uint8)]) if opacity else image

    def _reformat(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        from av.video.reformatter import Colorspace, Interpolation

        # Untagged high-definition video is BT.709 by convention; FFmpeg would assume BT.601.
        untagged = int(frame.colorspace) == _UNSPECIFIED
        space = Colorspace.ITU709 if untagged and frame.height >= 720 else None
        return self._reformatter.reformat(frame, width=self.width, height=self.height, format=pixel_format,
                                          src_colorspace=space, interpolation=Interpolation.BICUBIC | EXACT_COLOURS)


def _untagged(frame: VideoFrame) -> bool:
    return int(frame.color_primaries) == _UNSPECIFIED


def composite(image: np.ndarray, background: int | np.ndarray) -> np.ndarray:
    """Composite an image with straight alpha over a background.

    Args:
        image: uint8 [H, W, 4], RGB and straight alpha.
        background: grey level 0..255, or uint8 [H, W, 3].

    Returns:
        uint8 [H, W, 3].
    """
    alpha = image[..., 3:].astype(np.uint16)
    mixed = image[..., :3] * alpha + np.asarray(background, np.uint16) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Counter-clockwise quarter turns, and whether to mirror before turning, from the frame's display matrix."""
    av = require_av()
    data = next((d for d in _side_data(frame) if d.type is av.sidedata.sidedata.Type.DISPLAYMATRIX), None)
    if data is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(float)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(math.degrees(math.atan2(-b, a)) / 90) % 4, mirrored
