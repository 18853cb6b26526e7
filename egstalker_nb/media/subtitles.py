"""Subtitles of audio or video, as SubRip (SRT): read from a file beside it or from a text track, cut, written."""
from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

from ..core.errors import InputError, first_line
from ..core.files import shortened
from ..core.reading import Unreadable, read_text, shown
from .container import open_media, packets, require_av, video_start

SUFFIX = ".srt"
MAX_BYTES = 16 << 20  # of an SRT file; ten hours of speech have 1 MB
_TEXT_CODECS = ("mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text")
_STAMP = r"(\d{1,3}):(\d{1,2}):(\d{1,2})(?:[,.](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s.*)?", re.ASCII)  # positions may follow
_STYLE = re.compile(r"\{\\[^}]*\}")  # of ASS, such as {\i1}
_NUMBER = re.compile(r"\s*\d+\s*", re.ASCII)


@dataclass(frozen=True)
class Cue:
    """A text and when it is shown.

    Attributes:
        start, end: ms from the beginning; end is after start.
        text: one or more lines, none of them empty.
    """

    start: int
    end: int
    text: str


def parse_srt(text: str) -> list[Cue]:
    """The cues of an SRT file, sorted by time. Numbers may be missing or wrong, and a dot may stand for the comma.

    Raises:
        Unreadable: it is none; says in which line.
    """
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if "-->" in line]
    cues = []
    for i, following in zip(heads, [*heads[1:], len(lines) + 1]):
        # the line before the next times is that cue's number, if it is one
        last = following - 1 if following > len(lines) or _NUMBER.fullmatch(lines[following - 1]) else following
        start, end = _times(lines[i], i + 1)
        words = "\n".join(line.strip() for line in lines[i + 1:last] if line.strip())
        if words and end > start:
            cues.append(Cue(start, end, words))
    before = [line for line in lines[:heads[0] if heads else None] if line.strip()]
    if len(before) > 1 or (before and not (heads and _NUMBER.fullmatch(before[0]))):
        raise Unreadable(f"it begins with {shown(before[0].strip())} instead of a number and times")
    return sorted(cues, key=lambda cue: (cue.start, cue.end))


def _times(line: str, number: int) -> tuple[int, int]:
    match = _TIMES.fullmatch(line)
    values = [] if match is None else [int((part or "0").ljust(3, "0") if n % 4 == 3 else part)
                                       for n, part in enumerate(match.groups())]
    start, end = (sum(unit * value for unit, value in zip((3_600_000, 60_000, 1000, 1), values[at:at + 4]))
                  for at in (0, 4))
    if not values or max(*values[1:3], *values[5:7]) > 59 or end < start:
        raise Unreadable(f"line {number} is {shown(line.strip())} instead of 00:00:01,000 --> 00:00:02,500")
    return start, end


def srt_text(cues: list[Cue]) -> str:
    """Cues as the text of an SRT file."""
    def stamp(ms: int) -> str:
        return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"

    return "\n".join(f"{n}\n{stamp(cue.start)} --> {stamp(cue.end)}\n{cue.text}\n" for n, cue in enumerate(cues, 1))


def cut(cues: list[Cue], start: float, duration: float) -> list[Cue]:
    """The cues of a part, with times from its beginning; those that reach beyond it are shortened.

    Args:
        cues: of the whole.
        start, duration: of the part, s.
    """
    first, length = round(1000 * start), round(1000 * duration)
    moved = (Cue(max(0, cue.start - first), min(length, cue.end - first), cue.text) for cue in cues)
    return [cue for cue in moved if cue.end > cue.start]


def sidecar(path: str | Path) -> Optional[Path]:
    """The SRT file beside a file, with the same name; None if there is none."""
    beside = Path(path).with_suffix(SUFFIX)
    return beside if beside.is_file() else None


def load_subtitles(path: str | Path) -> list[Cue]:
    """The subtitles of an audio or video file: of the SRT file beside it, else of its first text track.

    Args:
        path: a file that can be read as audio.

    Returns:
        The cues, with times on the timeline of `load_audio`; empty if there are none.

    Warns:
        UserWarning: there are some that cannot be read.
    """
    beside = sidecar(path)
    try:
        return parse_srt(read_text(beside, MAX_BYTES)) if beside else _embedded(path)
    except (Unreadable, InputError) as error:
        why = error.found if isinstance(error, InputError) else str(error)
        warnings.warn(f"The subtitles in '{shortened(beside or path)}' are left out, as they cannot be read: {why}. "
                      "Correct them in a subtitle editor to keep them.", stacklevel=1)
        return []


def _embedded(path: str | Path) -> list[Cue]:
    """The cues of the first text track.

    Raises:
        InputError: the file cannot be read to its end.
    """
    with open_media(path) as container:
        tracks = [stream for stream in container.streams.subtitles if stream.name in _TEXT_CODECS]
        if not tracks:
            return []
        zero = video_start(path) or 0.0
        cues = []
        for packet in packets(container, tracks[0]):
            if packet.size and packet.pts is not None and packet.duration:
                begin = round(1000 * (float(packet.pts * packet.time_base) - zero))
                end = begin + round(1000 * float(packet.duration * packet.time_base))
                words = "\n".join(_lines(tracks[0], packet))
                if words and end > max(begin, 0):
                    cues.append(Cue(max(begin, 0), end, words))
    return sorted(cues, key=lambda cue: (cue.start, cue.end))


def _lines(stream: Any, packet: Any) -> Iterator[str]:
    """The lines of a packet, which FFmpeg's decoders give as ASS dialogue.

    Raises:
        Unreadable: it is damaged.
    """
    try:
        decoded = stream.decode2(packet)
    except (require_av().FFmpegError, ValueError) as error:
        raise Unreadable(f"a damaged text track ({first_line(error)})") from error
    for part in decoded or ():
        dialogue = _STYLE.sub("", getattr(part, "dialogue", b"").decode("utf-8", "replace"))
        plain = dialogue.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
        yield from filter(None, (line.strip() for line in plain.splitlines()))
