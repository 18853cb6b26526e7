"""Limits of media files, far beyond any clip of a talking head: they keep a file of some kilobytes from asking for
gigabytes of memory, or hours of work."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import shortened
from .rates import SAMPLE_RATE

MIN_SIDE = 16               # pixels
MAX_PIXELS = 50_000_000     # of an image or video frame as displayed; 8K has 33 million
MAX_FPS = 1000
MAX_HOLD = 60.0             # seconds for which a video shows one frame; screen recordings hold frames for some seconds
MAX_GAP = 600.0             # seconds of silence between two packets of audio, which calls with a muted microphone have
MAX_HOURS = 10              # of audio, 2.3 GB in memory
MAX_CHANNELS = 64           # of audio, the limit of FFmpeg's resampler
MIN_RATE, MAX_RATE = 1000, 768_000  # audio samples per second
MAX_LEVEL = 100.0           # of audio samples; full scale is 1


def check_size(width: float, height: float, path: str | Path, what: str = "a video",
               min_side: int = MIN_SIDE) -> None:
    """Check the size of an image.

    Args:
        width, height: pixels as displayed.
        path: of its file, for the message.
        what: the kind of file, for the message.
        min_side: in pixels.

    Raises:
        InputError: a side below `min_side`, or more than `MAX_PIXELS`.
    """
    if min(width, height) < min_side or width * height > MAX_PIXELS:
        raise InputError(f"{what} of at least {min_side}x{min_side} and at most {MAX_PIXELS // 10**6} million pixels",
                         f"{width:.0f}x{height:.0f} in '{shortened(path)}'", "Scale it, to 1080p for instance.")


def check_hold(seconds: float, at: float, path: str | Path) -> None:
    """Check for how long a video shows one frame.

    Args:
        seconds: from the frame's time to that of the next one, or to the end.
        at: time of the frame in seconds from the first one.
        path: of the video, for the message.

    Raises:
        InputError: longer than `MAX_HOLD`.
    """
    if seconds > MAX_HOLD:
        raise InputError(f"a video that shows each frame for at most {MAX_HOLD:.0f} s",
                         f"one that is held for {seconds:.0f} s, from {at:.2f} s on, in '{shortened(path)}'",
                         "If its time stamps are wrong, convert it to MP4 with another program; else cut that part "
                         "out.")


def check_gap(seconds: float, at: float, path: str | Path) -> None:
    """Check how much silence precedes a part of the audio.

    Args:
        seconds: of silence.
        at: time of the part in seconds.
        path: of the file, for the message.

    Raises:
        InputError: more than `MAX_GAP`.
    """
    if seconds > MAX_GAP:
        raise InputError(f"audio without gaps of more than {MAX_GAP / 60:.0f} minutes",
                         f"one of {seconds:.0f} s before {at:.2f} s in '{shortened(path)}'",
                         "If its time stamps are wrong, export the audio as WAV; else cut the file there.")


def check_length(seconds: float, path: str | Path) -> None:
    """Check the length of audio.

    Raises:
        InputError: more than `MAX_HOURS`.
    """
    if seconds > MAX_HOURS * 3600:
        raise InputError(f"audio of at most {MAX_HOURS} hours", f"{seconds / 3600:.1f} hours in '{shortened(path)}'",
                         "Cut it into pieces.")


def check_audio_format(rate: int, channels: int, path: str | Path) -> None:
    """Check the sample rate and the number of channels of audio.

    Raises:
        InputError: outside the limits.
    """
    place = f"'{shortened(path)}'"
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"audio of at least 1 and at most {MAX_CHANNELS} channels", f"{place} with {channels}",
                         "Export the channel with the voice as a WAV file of its own.")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"audio of {MIN_RATE} to {MAX_RATE} samples per second", f"{place} with {rate}",
                         "Export it as a WAV file at 48000.")


def check_samples(samples: np.ndarray, at: float, path: str | Path) -> None:
    """Check the values of decoded audio.

    Args:
        samples: float [n, channels] at 16 kHz.
        at: time of the first one in seconds, for the message.
        path: of the file, for the message.

    Raises:
        InputError: NaN, infinite, or far outside -1..1.
    """
    if np.abs(samples).max(initial=0) <= MAX_LEVEL:  # false for NaN
        return
    row, channel = np.argwhere(~(np.abs(samples) <= MAX_LEVEL))[0]
    raise InputError("audio samples from -1 to 1", f"{samples[row, channel]:g} at {at + row / SAMPLE_RATE:.2f} s in "
                     f"'{shortened(path)}'", "Export the audio again, as 16-bit WAV for instance.")


def check_fps(fps: float) -> None:
    """Check a number of video frames per second.

    Raises:
        InputError: not above 0, above `MAX_FPS`, or not a number.
    """
    if not 0 < fps <= MAX_FPS:
        raise InputError(f"fps above 0 and at most {MAX_FPS}", f"fps={fps}", "Correct the argument.")
