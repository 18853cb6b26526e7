"""Bad input: videos and audio files."""
from __future__ import annotations

from .bad_input import Case

CASES: list[Case] = [
    Case("video_missing", lambda folder: ["prepare", "no.mp4", "out"], ("no file", "no.mp4")),
]
