"""Marking rendered videos and images as synthetic, in metadata that editors and sharing sites read.

The mark is an XMP packet with IPTC's digital source type, as a `uuid` box in MP4, an `iTXt` chunk in PNG and an `APP1`
segment in JPEG, none of which changes a pixel; a video's comment says it as well. It is a label, not a proof: anybody
can remove it. (C2PA manifests are signed, with a certificate that each user would have to buy.)
"""
from __future__ import annotations

import struct
import zlib
from pathlib import Path

#: what a person reads in a player or file manager
COMMENT = "Synthetic: rendered by a trained talking-head model (egstalker_nb), not a recording."
#: IPTC's term for media that a trained model made
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmp:CreatorTool="egstalker_nb"
 Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{COMMENT}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>""".encode()

_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # the UUID of XMP in MP4
_PNG_START = b"\x89PNG\r\n\x1a\n"
_IHDR_END = len(_PNG_START) + 25


def mark_mp4(path: Path) -> None:
    """Append the mark to a finished MP4."""
    with open(path, "ab") as file:
        file.write(struct.pack(">I4s", 24 + len(XMP), b"uuid") + _XMP_BOX + XMP)


def mark_image(data: bytes) -> bytes:
    """Put the mark into an encoded image.

    Args:
        data: a whole PNG or JPEG file.

    Returns:
        The same image with the mark.

    Raises:
        ValueError: neither of them.
    """
    if data.startswith(_PNG_START):
        content = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + XMP  # not compressed, no language, no translation
        chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        return data[:_IHDR_END] + chunk + data[_IHDR_END:]
    if data.startswith(b"\xff\xd8"):
        content = b"http://ns.adobe.com/xap/1.0/\0" + XMP
        at = 2
        if data[2:4] == b"\xff\xe0":  # JFIF's segment must stay the first one
            at = 4 + int.from_bytes(data[4:6], "big")
        return data[:at] + struct.pack(">HH", 0xffe1, 2 + len(content)) + content + data[at:]
    raise ValueError("neither PNG nor JPEG")
