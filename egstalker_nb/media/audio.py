"""Loading, saving and trimming audio, and audio features cut into one window per video frame.

A frame at 25 fps gets a window of 16 steps at 50 Hz with 29 channels each, the shape of upstream's DeepSpeech logits.
What the channels mean depends on the audio encoder (see `speech.encoders`).
"""
from __future__ import annotations

import contextlib
import math
import warnings
import wave as wavefile
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Optional

import numpy as np

from ..core.errors import InputError
from ..core.files import check_target, make_folder, replacing, shortened
from ..core.reading import ArraySpec, Unreadable, read_npy
from .container import audio_stream, check_file, decode, open_media, require_av, video_start, video_stream
from .downmix import Downmix
from .feature_shapes import extractor_of
from .limits import check_audio_format, check_gap, check_length, check_samples
from .rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from av import AudioFrame, AudioLayout

SAMPLES_PER_STEP = SAMPLE_RATE // 50
WINDOW_STEPS = 16
FEATURE_CHANNELS = 29

_UNKNOWN_LENGTH = 2 ** 30  # samples; programs that write a WAV into a pipe announce 2 or 4 GB
_GAP = 0.04  # seconds; a larger difference between a packet's time and the sample count starts a new segment

Segment = tuple[float, list[np.ndarray]]  # start in seconds, float32 pieces at 16 kHz


def load_audio(path: str | Path, track: Optional[int] = None) -> np.ndarray:
    """Read the audio of any media file as 16 kHz mono.

    All channels are averaged, except those that would degrade the average: opposite phase, silence, noise, or all but
    the centre of 5.1 (see `downmix`). The audio of a video starts at the time of its first frame (see `video_reader`):
    if the streams start at different times, the beginning is cut or padded with silence. Gaps become silence.

    Warns with a UserWarning if one of several tracks was chosen, if channels were left out, and if a WAV of 16 kHz ends
    earlier than it announces.

    Args:
        path: WAV, MP3, FLAC, M4A, OGG, ... or a video with audio.
        track: number of the audio track, 1 for the first. None: the one that the file flags as default, else the first.

    Returns:
        float32 [samples], -1..1, at least one sample.

    Raises:
        InputError: the file is missing or not a media file, has no such audio track, none of its samples can be
            decoded, all of them lie before the first video frame, some are NaN or far outside -1..1, or it is beyond
            the limits of length, gaps, channels and sample rate (see `limits`).
    """
    path = Path(path)
    check_file(path, "a media file")
    plain = _read_plain_wav(path) if track in (None, 1) else None
    if plain is not None:
        return plain
    with open_media(path) as container:
        stream, note = audio_stream(container, path, track)
        check_audio_format(stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels, path)
        index, has_video = stream.index, video_stream(container) is not None
    start = video_start(path) if has_video else None
    downmix = Downmix()
    segments = list(_segments(path, index, downmix))
    samples = _joined(path, segments, start)
    if len(samples) == 0:
        which = "at or after its first video frame" if segments and start is not None else "that can be decoded"
        raise InputError("audio with at least one sample", f"'{shortened(path)}' with none {which}",
                         "Give a file that is complete, and whose time stamps are right.")
    left_out = downmix.choose()
    if left_out:
        samples = _joined(path, list(_segments(path, index, downmix)), start)
    for sentence in filter(None, (note, *left_out)):
        warnings.warn(f"'{shortened(path)}' {sentence}", stacklevel=1)  # at this line, so that each file warns once
    return np.clip(samples, -1.0, 1.0, out=samples)


def _read_plain_wav(path: Path) -> Optional[np.ndarray]:
    """Samples of a WAV that is already 16 kHz mono 16-bit (exact, and without PyAV), else None."""
    if path.suffix.lower() != ".wav":
        return None
    try:
        with open(path, "rb") as source, wavefile.open(source) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                return None
            announced = file.getnframes()
            # never more than the file holds: memory for them is reserved first
            data = file.readframes(min(announced, path.stat().st_size // 2))
    except (wavefile.Error, EOFError, OSError, RuntimeError):  # the module skips chunks without a check
        return None
    if len(data) < 2:
        return None
    check_length(len(data) / 2 / SAMPLE_RATE, path)
    if len(data) // 2 < announced < _UNKNOWN_LENGTH:
        warnings.warn(f"'{shortened(path)}' ends after {len(data) / 2 / SAMPLE_RATE:.2f} s, but announces "
                      f"{announced / SAMPLE_RATE:.2f} s: the file is cut off. Copy it again to use all of it.",
                      stacklevel=1)
    return np.frombuffer(data[:len(data) // 2 * 2], "<i2").astype(np.float32) / 32768.0


def _segments(path: Path, index: int, downmix: Downmix) -> Iterator[Segment]:
    """Each gapless segment of an audio stream."""
    av = require_av()
    with open_media(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, av.AudioStream)
        limit = math.inf if container.duration is None else container.duration / av.time_base + 1
        resampler: Optional[_Resampler] = None
        form: Optional[tuple[int, str, str]] = None
        begin = expected = total = 0.0
        chunks: list[np.ndarray] = []
        for frame in decode(container, stream):
            time = float(frame.time) if frame.time is not None else expected
            jump = resampler is not None and abs(time - expected) > _GAP and abs(time - begin) <= limit
            if resampler is None or jump or form != (frame.sample_rate, frame.layout.name, frame.format.name):
                if resampler is not None:
                    yield begin, chunks + resampler.mono(None)
                    check_gap(time - expected, time, path)
                check_audio_format(frame.sample_rate, frame.layout.nb_channels, path)
                form = (frame.sample_rate, frame.layout.name, frame.format.name)
                resampler = _Resampler(frame.layout, downmix, time, path)
                begin, chunks, expected = time, [], time
            # With times, the resampler would insert or drop samples itself; `_joined` does that.
            frame.pts = None
            chunks += resampler.mono(frame)
            expected += frame.samples / frame.sample_rate
            total += frame.samples / frame.sample_rate
            check_length(total, path)
        if resampler is not None:
            yield begin, chunks + resampler.mono(None)


class _Resampler:
    """Resamples frames of one channel layout to 16 kHz mono.

    Args:
        layout: the channels.
        downmix: averages them.
        begin: time of the first sample in seconds, for messages.
        path: of the file, for messages.
    """

    def __init__(self, layout: AudioLayout, downmix: Downmix, begin: float, path: Path):
        self.layout, self.downmix, self.time, self.path = layout.name, downmix, begin, path
        self.names = [channel.name for channel in layout.channels]
        # Packed samples: PyAV crashes on planar frames of 8 channels or more.
        self.resampler = require_av().AudioResampler(format="flt", layout=layout, rate=SAMPLE_RATE)

    def mono(self, frame: Optional[AudioFrame]) -> list[np.ndarray]:
        """Samples of a frame, float32 [n] each; None flushes the resampler."""
        parts = []
        for resampled in self.resampler.resample(frame):
            samples = resampled.to_ndarray().reshape(-1, len(self.names))
            check_samples(samples, self.time, self.path)
            self.time += len(samples) / SAMPLE_RATE
            # FFmpeg's own downmix sums float channels, which would exceed 1.
            parts.append(self.downmix.mono(samples, self.layout, self.names))
        return parts


def _joined(path: Path, segments: list[Segment], start: Optional[float]) -> np.ndarray:
    """Join segments on one timeline that begins at `start` seconds (None: at the first segment)."""
    if not segments:
        return np.zeros(0, np.float32)
    start = segments[0][0] if start is None else start
    check_gap(segments[0][0] - start, segments[0][0], path)
    parts = [(round((begin - start) * SAMPLE_RATE), np.concatenate(chunks)) for begin, chunks in segments if chunks]
    check_length(max([0] + [at + len(part) for at, part in parts]) / SAMPLE_RATE, path)
    result = np.zeros(max([0] + [at + len(part) for at, part in parts]), np.float32)
    for at, part in parts:
        part = part[max(0, -at):]
        result[max(0, at):max(0, at) + len(part)] = part
    return result


def save_wav(path: str | Path, wave: np.ndarray) -> Path:
    """Write 16 kHz mono 16-bit PCM, under a temporary name that is replaced when the file is complete.

    Args:
        path: file to write.
        wave: float [samples], -1..1 (clipped), finite. Samples read from 16-bit files are kept exactly.

    Returns:
        The path as a Path.

    Raises:
        InputError: another shape or dtype, no samples, or non-finite values.
    """
    path, wave = Path(path), checked_wave(wave)
    make_folder(path.parent)
    with replacing(path) as temporary:
        _write_wav(temporary, wave)
    return path


def _write_wav(path: Path, wave: np.ndarray) -> None:
    data = np.clip(np.rint(wave * 32768.0), -32768, 32767).astype("<i2")
    with wavefile.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(data.tobytes())


def checked_wave(wave: np.ndarray, min_samples: int = 1) -> np.ndarray:
    """The wave as float32 [samples].

    Raises:
        InputError: another shape or dtype, fewer than `min_samples` samples, or non-finite values.
    """
    wave = np.asarray(wave)
    if wave.ndim != 1 or wave.dtype.kind != "f" or len(wave) < min_samples:
        raise InputError(f"audio as floats [samples], at least {min_samples}", f"{wave.dtype} {list(wave.shape)}",
                         "Load it with load_audio.")
    if not np.isfinite(wave).all():
        raise InputError("finite samples", "NaN or infinite ones", "Load the audio again with load_audio.")
    return wave.astype(np.float32, copy=False)


def frames_of(samples: int) -> int:
    """Number of 25 fps video frames in this many 16 kHz samples: rounded, at least 1."""
    return max(1, int(samples / SAMPLES_PER_FRAME + 0.5))


def windows_of(steps: np.ndarray, num_frames: int) -> np.ndarray:
    """Cut features into one window per video frame.

    Args:
        steps: float32 [T, 29] at 50 Hz; step k is centred at k / 50 s.
        num_frames: number of windows, at least 1.

    Returns:
        float32 [num_frames, 16, 29]. Window i holds steps 2i-8 .. 2i+7; steps outside the audio are 0.
    """
    padded = np.zeros((2 * num_frames + WINDOW_STEPS - 2, FEATURE_CHANNELS), np.float32)
    used = steps[:max(0, len(padded) - WINDOW_STEPS // 2)]
    padded[WINDOW_STEPS // 2:WINDOW_STEPS // 2 + len(used)] = used
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_STEPS, axis=0)[::2]
    return windows.transpose(0, 2, 1).copy()


def steps_of(windows: np.ndarray) -> np.ndarray:
    """Undo `windows_of`: overlapping windows [N, 16, 29] -> steps [2N, 29] at 50 Hz."""
    return windows[:, WINDOW_STEPS // 2:WINDOW_STEPS // 2 + 2].reshape(-1, windows.shape[2])


def load_features(path: str | Path, wave: np.ndarray) -> np.ndarray:
    """Read and check features that were computed elsewhere or earlier.

    Args:
        path: `.npy` with numbers [num_frames, 16, 29], one window per frame at 25 fps.
        wave: float [samples], 16 kHz, the audio that they belong to.

    Returns:
        float32 [num_frames, 16, 29], finite.

    Raises:
        InputError: the file is missing or not such an array, has another shape or dtype, holds NaN or infinite values,
            or its length differs from the audio's by more than one frame.
    """
    features = _read_features(path)
    expected = frames_of(len(wave))
    if abs(len(features) - expected) > 1:
        raise InputError(f"{expected} frames of features for {len(wave) / SAMPLE_RATE:.2f} s of audio at {FPS} fps",
                         f"{len(features)} frames in '{shortened(path)}'",
                         "Compute the features from this audio, or cut both together with trim.")
    return features


def _read_features(path: str | Path) -> np.ndarray:
    what = f"floating point features of shape [num_frames, {WINDOW_STEPS}, {FEATURE_CHANNELS}] in one .npy file"
    fix = "Save one window of 16 steps and 29 channels for each frame as a float32 array with numpy.save."
    try:
        features = read_npy(Path(path), ArraySpec((None, WINDOW_STEPS, FEATURE_CHANNELS)))
    except Unreadable as error:
        kind = extractor_of(Path(path))
        raise InputError(what, f"{error} (it looks like {kind})" if kind else str(error),
                         f"{fix} Or leave the features out: they are then computed from the audio." if kind else fix
                         ) from error
    if len(features) == 0:
        raise InputError(what, f"no frames in '{shortened(path)}'", fix)
    if np.abs(features).max() > np.finfo(np.float32).max:
        raise InputError(what, f"values beyond float32 in '{shortened(path)}'", "Compute the features again.")
    return features.astype(np.float32, copy=False)


def trim(wav: str | Path, features: str | Path, start: float, duration: float, out: str | Path) -> tuple[Path, Path]:
    """Cut audio and its features together, exact to the frame.

    `start` and `duration` are rounded to whole frames (0.04 s): with i0 = round(25 * start) and i1 = i0 +
    round(25 * duration), the new features equal features[i0:i1], and the new WAV holds exactly
    (i1 - i0) * 640 samples from sample i0 * 640 on, so the two stay in sync.

    Args:
        wav: audio file (anything `load_audio` reads).
        features: its `.npy` features [num_frames, 16, 29].
        start: seconds, at least 0.
        duration: seconds, above 0.
        out: where to write, without suffix: `out.wav` (16 kHz mono 16-bit) and `out.npy`. A `.wav` or `.npy`
            suffix is dropped.

    Returns:
        Path of the WAV file, path of the `.npy` file.

    Raises:
        InputError: unusable inputs, a range outside the audio, or an `out` that is one of the inputs.
    """
    wave = load_audio(wav)
    windows = load_features(features, wave)
    total = len(windows)
    first, last = _frame_range(start, duration, total)
    out = Path(out)
    if out.name in ("", ".."):
        raise InputError("out as the path of the trimmed files, without suffix", f"'{shortened(out)}'",
                         "Add a name for the files.")
    stem = out.name[:-4] if out.suffix.lower() in (".wav", ".npy") else out.name
    wav_path, npy_path = (check_target(out.with_name(stem + end), end, wav, features) for end in (".wav", ".npy"))
    samples = wave[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    # The audio may end up to one frame before its features.
    samples = np.pad(samples, (0, (last - first) * SAMPLES_PER_FRAME - len(samples)))
    with contextlib.ExitStack() as files:
        npy_temporary = files.enter_context(replacing(npy_path))
        wav_temporary = files.enter_context(replacing(wav_path))
        _write_wav(wav_temporary, samples)
        np.save(npy_temporary, windows[first:last])
    return wav_path, npy_path


def _frame_range(start: float, duration: float, total: int) -> tuple[int, int]:
    """First frame and one past the last, from seconds, checked against the total number of frames."""
    if not (math.isfinite(start) and math.isfinite(duration)) or start < 0 or duration <= 0:
        raise InputError("start of at least 0 and duration above 0 seconds", f"start={start}, duration={duration}",
                         "Correct the range.")
    first = int(min(start, 1e9) * FPS + 0.5)
    last = first + int(min(duration, 1e9) * FPS + 0.5)
    if last == first:
        raise InputError(f"a duration of at least one frame ({1 / FPS} s)", f"{duration} s", "Cut a longer piece.")
    if last > total:
        raise InputError(f"a range within the audio's {total / FPS:.2f} s ({total} frames)",
                         f"{start} to {start + duration:g} s (frames {first} to {last})", "Shorten the range.")
    return first, last
