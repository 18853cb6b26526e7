"""Sound in and out, and speech features cut into the windows that drive the head.

A frame at 25 fps sees a window of 16 steps at 50 Hz, 29 channels each: the shape upstream uses for
DeepSpeech logits. What the channels are is the encoder's business (see `encoders`).
"""

import contextlib
import math
import warnings
import wave as wavefile
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import check_target
from .container import audio_stream, decode, open_media, picture_stream, picture_zero, replacing, require_av
from .downmix import Downmix
from .rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

SAMPLES_PER_STEP = SAMPLE_RATE // 50
STEPS = 16
BANDS = 29
MAX_CHANNELS = 64  # that FFmpeg's resampler takes

_GAP = 0.04  # seconds a packet's time may differ from the running count before the sound is placed anew


def load_audio(path, track=None):
    """Read the sound of any media file as mono at 16 kHz.

    All channels are averaged, but for those that would spoil the average: opposite phase, silence, noise, or what is
    not the centre of 5.1 (see `downmix`). The sound of a video is put on the zero of its picture (see `video`): its
    head is cut or padded with silence when the streams start at different times, and gaps become silence.

    Args:
        path: WAV, MP3, FLAC, M4A, OGG, ... or a video with sound.
        track: which audio track, 1 for the first. None: the one that the file flags as default, else the first.

    Returns:
        float32 [samples], -1..1, at least one sample.

    Warns: UserWarning that says which track was taken of several, and which channels were left out.

    Errors: InputError if the file is missing, not a media file, has no such audio track, or no sample of it can be
    decoded (or all of it lies before the picture).
    """
    path = Path(path)
    ready = _read_plain_wav(path) if track in (None, 1) else None
    if ready is not None:
        return ready
    with open_media(path) as container:
        stream, note = audio_stream(container, path, track)
        channels = stream.codec_context.layout.nb_channels
        if channels > MAX_CHANNELS:
            raise InputError(f"sound of at most {MAX_CHANNELS} channels", f"{path} with {channels}",
                             "Export the channel with the voice as a WAV file of its own.")
        index, has_picture = stream.index, picture_stream(container) is not None
    zero = picture_zero(path) if has_picture else None
    downmix = Downmix()
    samples = _placed(list(_segments(path, index, downmix)), zero)
    if len(samples) == 0:
        raise InputError("a sound with at least one sample", f"{path} with none", "Give a file that is not empty.")
    left_out = downmix.choose()
    if left_out:
        samples = _placed(list(_segments(path, index, downmix)), zero)
    for sentence in filter(None, (note, *left_out)):
        warnings.warn(f"'{path}' {sentence}", stacklevel=1)  # from here: once for a file, whoever reads it
    return np.clip(samples, -1.0, 1.0)


def _read_plain_wav(path):
    """Samples of a WAV that is already 16 kHz mono 16-bit (exact, and without PyAV), else None."""
    if path.suffix.lower() != ".wav" or not path.is_file():
        return None
    try:
        with wavefile.open(str(path), "rb") as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                return None
            data = file.readframes(file.getnframes())
    except (wavefile.Error, EOFError):
        return None
    if len(data) < 2:
        return None
    return np.frombuffer(data[:len(data) // 2 * 2], "<i2").astype(np.float32) / 32768.0


def _segments(path, index, downmix):
    """Yield (start in seconds, [float32 arrays at 16 kHz]) for each unbroken stretch of one stream's sound."""
    av = require_av()
    with open_media(path) as container:
        stream = container.streams[index]
        limit = math.inf if container.duration is None else container.duration / av.time_base + 1
        resampler = layout = begin = expected = None
        chunks = []
        for frame in decode(container, stream):
            time = float(frame.time) if frame.time is not None else expected or 0.0
            jump = expected is not None and abs(time - expected) > _GAP and abs(time - (begin or 0.0)) <= limit
            if jump or layout != (frame.sample_rate, frame.layout.name, frame.format.name):
                if resampler is not None:
                    yield begin, chunks + resampler.mono(None)
                layout = (frame.sample_rate, frame.layout.name, frame.format.name)
                resampler = _Resampler(frame.layout, downmix)
                begin, chunks, expected = time, [], time
            # The resampler would fill or drop by these times itself; placement is done here.
            frame.pts = None
            chunks += resampler.mono(frame)
            expected += frame.samples / frame.sample_rate
        if resampler is not None:
            yield begin, chunks + resampler.mono(None)


class _Resampler:
    """Frames of one layout to mono at 16 kHz."""

    def __init__(self, layout, downmix):
        self.layout, self.downmix = layout.name, downmix
        self.names = [channel.name for channel in layout.channels]
        # Packed samples: PyAV reads beyond the pointers of planar frames of 8 channels or more, and crashes.
        self.resampler = require_av().AudioResampler(format="flt", layout=layout, rate=SAMPLE_RATE)

    def mono(self, frame):
        # Averaged here: FFmpeg's own mix to mono adds float channels up and would exceed 1.
        return [self.downmix.mono(f.to_ndarray().reshape(-1, len(self.names)), self.layout, self.names)
                for f in self.resampler.resample(frame)]


def _placed(segments, zero):
    """Join stretches on one timeline that starts at `zero` seconds (None: where the sound starts)."""
    if not segments:
        return np.zeros(0, np.float32)
    zero = segments[0][0] if zero is None else zero
    places = [(round((begin - zero) * SAMPLE_RATE), np.concatenate(chunks)) for begin, chunks in segments if chunks]
    result = np.zeros(max([0] + [at + len(part) for at, part in places]), np.float32)
    for at, part in places:
        part = part[max(0, -at):]
        result[max(0, at):max(0, at) + len(part)] = part
    return result


def save_wav(path, wave):
    """Write mono 16 kHz 16-bit PCM; finished under a temporary name, then renamed.

    Args:
        path: file to write.
        wave: float [samples], -1..1 (clipped), finite. Samples read from 16-bit files are kept exactly.

    Returns:
        the path as a Path.

    Errors: InputError for another shape or dtype, no samples, or non-finite values.
    """
    path, wave = Path(path), checked_wave(wave)
    with replacing(path) as temporary:
        _write_wav(temporary, wave)
    return path


def _write_wav(path, wave):
    data = np.clip(np.rint(wave * 32768.0), -32768, 32767).astype("<i2")
    with wavefile.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(data.tobytes())


def checked_wave(wave):
    """The wave as float32 [samples].

    Errors: InputError for another shape or dtype, no samples, or non-finite values.
    """
    wave = np.asarray(wave)
    if wave.ndim != 1 or wave.dtype.kind != "f" or len(wave) == 0:
        raise InputError("sound as floats [samples], at least one", f"{wave.dtype} {list(wave.shape)}",
                         "Load it with load_audio.")
    if not np.isfinite(wave).all():
        raise InputError("finite samples", "NaN or infinite ones", "Load the sound again with load_audio.")
    return wave.astype(np.float32, copy=False)


def frames_of(samples):
    """Number of 25 fps frames that a sound of so many 16 kHz samples lasts: rounded, at least 1."""
    return max(1, int(samples / SAMPLES_PER_FRAME + 0.5))


def windows_of(steps, num_frames):
    """The part of the steps that each video frame sees.

    Args:
        steps: float32 [T, 29] at 50 Hz; step k is centred at k / 50 s.
        num_frames: how many frames to return, at least 1.

    Returns:
        float32 [num_frames, 16, 29]. Window i holds steps 2i-8 .. 2i+7; steps outside the sound are 0.
    """
    padded = np.zeros((2 * num_frames + STEPS - 2, BANDS), np.float32)
    used = steps[:max(0, len(padded) - STEPS // 2)]
    padded[STEPS // 2:STEPS // 2 + len(used)] = used
    windows = np.lib.stride_tricks.sliding_window_view(padded, STEPS, axis=0)[::2]
    return windows.transpose(0, 2, 1).copy()


def steps_of(windows):
    """Windows [N, 16, 29], which overlap, as one strip of 50 steps a second: [2N, 29]."""
    return windows[:, STEPS // 2:STEPS // 2 + 2].reshape(-1, windows.shape[2])


def load_features(path, wave):
    """Read and check features that were computed elsewhere or earlier.

    Args:
        path: `.npy` with numbers [num_frames, 16, 29], one window per frame at 25 fps.
        wave: float [samples], the 16 kHz sound they belong to.

    Returns:
        float32 [num_frames, 16, 29], finite.

    Errors: InputError if the file is missing or not such an array, has another shape or dtype, holds NaN or
    infinite values, or its length differs from the sound's by more than one frame.
    """
    features = _read_features(path)
    expected = frames_of(len(wave))
    if abs(len(features) - expected) > 1:
        raise InputError(f"{expected} frames of features for {len(wave) / SAMPLE_RATE:.2f} s of sound at {FPS} fps",
                         f"{len(features)} frames in {path}",
                         "Compute the features from this sound, or cut both together with trim.")
    return features


def _read_features(path):
    path = Path(path)
    if not path.is_file():
        raise InputError("a .npy file of features", f"no file at {path}", "Check the path.")
    try:
        features = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError("a NumPy .npy file with numbers", f"{path} ({error})",
                         "Save the features with numpy.save.") from error
    if not isinstance(features, np.ndarray) or features.dtype.kind != "f":
        found = f"{features.dtype} values" if isinstance(features, np.ndarray) else "an archive of several arrays"
        raise InputError("floating point features in one .npy array", f"{found} in {path}",
                         "Save one float32 array with numpy.save.")
    if features.ndim != 3 or features.shape[1:] != (STEPS, BANDS) or len(features) == 0:
        raise InputError(f"features of shape [num_frames, {STEPS}, {BANDS}]", f"{list(features.shape)} in {path}",
                         "Use one window of 16 steps and 29 channels for each frame.")
    features = features.astype(np.float32, copy=False)
    if not np.isfinite(features).all():
        bad = int(np.flatnonzero(~np.isfinite(features).all(axis=(1, 2)))[0])
        raise InputError("finite features", f"NaN or infinite values from frame {bad} on in {path}",
                         "Compute the features again.")
    return features


def trim(wav, features, start, duration, out):
    """Cut a sound and its features together, frame-exactly.

    `start` and `duration` are rounded to whole frames (0.04 s): with i0 = round(25 * start) and i1 = i0 +
    round(25 * duration), the new features equal features[i0:i1], and the new WAV holds exactly
    (i1 - i0) * 640 samples from sample i0 * 640 on, so the two cannot drift apart.

    Args:
        wav: sound file (anything `load_audio` reads).
        features: its `.npy` features [num_frames, 16, 29].
        start: seconds, at least 0.
        duration: seconds, above 0.
        out: where to write, without suffix: `out.wav` (16 kHz mono 16-bit) and `out.npy`. A `.wav` or `.npy`
            suffix is dropped.

    Returns:
        (wav_path, npy_path).

    Errors: InputError for unusable inputs, a range outside the sound, or an `out` that is one of the inputs.
    """
    sound = load_audio(wav)
    windows = load_features(features, sound)
    total = len(windows)
    first, last = _frame_range(start, duration, total)
    out = Path(out)
    stem = out.name[:-4] if out.suffix.lower() in (".wav", ".npy") else out.name
    wav_path, npy_path = (check_target(out.with_name(stem + end), end, wav, features) for end in (".wav", ".npy"))
    samples = sound[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    # The last frame of a sound may be up to one frame short of samples.
    samples = np.pad(samples, (0, (last - first) * SAMPLES_PER_FRAME - len(samples)))
    with contextlib.ExitStack() as files:
        npy_temporary = files.enter_context(replacing(npy_path))
        wav_temporary = files.enter_context(replacing(wav_path))
        _write_wav(wav_temporary, samples)
        np.save(npy_temporary, windows[first:last])
    return wav_path, npy_path


def _frame_range(start, duration, total):
    if not (math.isfinite(start) and math.isfinite(duration)) or start < 0 or duration <= 0:
        raise InputError("start of at least 0 and duration above 0 seconds", f"start={start}, duration={duration}",
                         "Correct the range.")
    first = int(start * FPS + 0.5)
    last = first + int(duration * FPS + 0.5)
    if last == first:
        raise InputError(f"a duration of at least one frame ({1 / FPS} s)", f"{duration} s", "Cut a longer piece.")
    if last > total:
        raise InputError(f"a range within the sound's {total / FPS:.2f} s ({total} frames)",
                         f"{start} to {start + duration:g} s (frames {first} to {last})", "Shorten the range.")
    return first, last
