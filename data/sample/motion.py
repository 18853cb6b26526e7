"""Animation curves: mouth shapes from phonemes, blinks, gaze and head motion. Pure functions in NumPy."""

from dataclasses import dataclass

import numpy as np

FPS = 25

# Mouth shape of each phoneme (ARPABET, lower case), as fractions:
# opening between the lips, spread (+) or rounding (-) of the corners, jaw drop, tongue lifted behind the teeth,
# lower lip tucked under the upper teeth, and the weight of the shape in coarticulation.
_SHAPES = {
    "pau": (0.00, 0.00, 0.00, 0.0, 0.0, 0.7),
    "aa": (0.95, 0.05, 1.00, 0.0, 0.0, 1.1), "ae": (0.85, 0.45, 0.85, 0.0, 0.0, 1.1),
    "ah": (0.65, 0.10, 0.65, 0.0, 0.0, 0.9), "ax": (0.42, 0.05, 0.38, 0.1, 0.0, 0.6),
    "ao": (0.80, -0.55, 0.85, 0.0, 0.0, 1.0), "eh": (0.66, 0.35, 0.64, 0.1, 0.0, 1.1),
    "er": (0.42, -0.45, 0.35, 0.3, 0.0, 0.9), "ih": (0.44, 0.40, 0.32, 0.2, 0.0, 0.9),
    "iy": (0.34, 0.85, 0.15, 0.3, 0.0, 1.0), "uh": (0.40, -0.60, 0.35, 0.0, 0.0, 0.9),
    "uw": (0.26, -1.00, 0.20, 0.0, 0.0, 1.1),
    "b": (-0.06, 0.00, 0.05, 0.0, 0.0, 5.5), "p": (-0.06, 0.00, 0.05, 0.0, 0.0, 5.5),
    "m": (-0.05, 0.00, 0.05, 0.0, 0.0, 5.5),
    "f": (0.16, 0.10, 0.10, 0.0, 1.0, 3.0), "v": (0.17, 0.05, 0.10, 0.0, 1.0, 2.6),
    "w": (0.16, -1.00, 0.20, 0.0, 0.0, 1.8), "r": (0.30, -0.60, 0.25, 0.4, 0.0, 0.9),
    "y": (0.28, 0.60, 0.15, 0.3, 0.0, 0.8), "hh": (0.35, 0.10, 0.35, 0.0, 0.0, 0.25),
    "t": (0.24, 0.15, 0.12, 1.0, 0.0, 0.8), "d": (0.24, 0.15, 0.14, 1.0, 0.0, 0.8),
    "n": (0.26, 0.15, 0.16, 1.0, 0.0, 0.8), "l": (0.38, 0.10, 0.30, 1.0, 0.0, 0.8),
    "th": (0.28, 0.10, 0.20, 1.0, 0.0, 1.0), "dh": (0.28, 0.10, 0.20, 1.0, 0.0, 0.9),
    "s": (0.22, 0.40, 0.04, 0.7, 0.0, 1.2), "z": (0.22, 0.38, 0.05, 0.7, 0.0, 1.1),
    "sh": (0.28, -0.65, 0.05, 0.5, 0.0, 1.3), "zh": (0.28, -0.60, 0.05, 0.5, 0.0, 1.2),
    "ch": (0.28, -0.60, 0.06, 0.7, 0.0, 1.3), "jh": (0.28, -0.55, 0.06, 0.7, 0.0, 1.2),
    "k": (0.36, 0.10, 0.30, 0.2, 0.0, 0.45), "g": (0.36, 0.10, 0.30, 0.2, 0.0, 0.45),
    "ng": (0.36, 0.15, 0.30, 0.2, 0.0, 0.45),
}  # fmt: skip
# Diphthongs glide from one vowel to another.
_GLIDES = {"ay": ("aa", "ih"), "aw": ("aa", "uh"), "ey": ("eh", "iy"), "ow": ("ao", "uw"), "oy": ("ao", "ih")}


@dataclass
class Mouth:
    """Mouth shape of every frame, float64 [N] each, fractions as in the phoneme table.

    Attributes:
        opening: between the lips, at least 0.
        spread: of the corners, negative for rounding.
        jaw: drop of the jaw.
        tongue: lifted behind the teeth.
        tuck: lower lip under the upper teeth, at least 0.
    """

    opening: np.ndarray
    spread: np.ndarray
    jaw: np.ndarray
    tongue: np.ndarray
    tuck: np.ndarray


def targets(phones):
    """Mouth targets of a sequence of phonemes.

    Args:
        phones: list of (name, end in seconds), in order, the first starting at 0.

    Returns:
        starts, ends: float64 [M] in seconds.
        shapes: float64 [M, 6], rows of the phoneme table.

    Raises:
        KeyError: a phoneme that is not in the table.
    """
    rows, start = [], 0.0
    for name, end in phones:
        parts = _GLIDES.get(name, (name,))
        edges = np.linspace(start, end, len(parts) + 1)
        rows += [(edges[k], edges[k + 1], _SHAPES[part]) for k, part in enumerate(parts)]
        start = end
    rows = [row for row in rows if row[1] > row[0]]
    return np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([r[2] for r in rows])


def mouth_track(phones, num_frames):
    """Mouth shapes with coarticulation.

    The shape at a time is the mean of all targets, weighted by the weight in the table times a window that is flat over
    the inner part of the phoneme and decays over about 60 ms on either side (the mouth moves before the sound, so the
    rise before a phoneme is slower than the decay after it). Computed at 200 Hz, smoothed by 18 ms, then sampled at the
    frames.

    Args:
        phones: list of (name, end in seconds).
        num_frames: number of frames at 25 fps.

    Returns:
        Mouth.
    """
    starts, ends, shapes = targets(phones)
    time = np.arange(0, num_frames / FPS + 0.2, 0.005)[:, None]
    inset = 0.25 * (ends - starts)
    brisk = np.where(shapes[:, 5] > 2, 0.7, 1.0)  # lip closures are quick, and leave time for the vowels
    before = np.maximum(starts + inset - time, 0) / (0.055 * brisk)
    after = np.maximum(time - ends + inset, 0) / (0.045 * brisk)
    weight = shapes[:, 5] * np.exp(-(before**1.4)) * np.exp(-(after**1.4)) + 1e-9 * shapes[:, 5]
    # Short phonemes have less weight, so that fast speech moves less, except for lip closures.
    weight *= np.clip((ends - starts) / 0.09, np.where(shapes[:, 5] > 2, 0.85, 0.45), 1.0)
    track = weight @ shapes[:, :5] / weight.sum(1, keepdims=True)
    width = np.arange(-12, 13) * 0.005
    kernel = np.exp(-0.5 * (width / 0.018) ** 2)
    padded = np.pad(track, ((12, 12), (0, 0)), mode="edge")
    track = np.stack([np.convolve(padded[:, k], kernel / kernel.sum(), mode="valid") for k in range(5)], 1)
    at = np.arange(num_frames) / FPS
    opening, spread, jaw, tongue, tuck = (np.interp(at, time[:, 0], track[:, k]) for k in range(5))
    return Mouth(np.maximum(opening, 0), spread, jaw, tongue, np.maximum(tuck, 0))


def blink_track(times, num_frames):
    """Eyelid closure 0 (open) .. 1 (closed) of each frame, float64 [N]; each blink lasts 0.28 s around its time."""
    at = np.arange(num_frames) / FPS
    closed = np.zeros(num_frames)
    for time in times:
        rise = np.clip((at - time + 0.12) / 0.10, 0, 1)
        fall = np.clip((time + 0.16 - at) / 0.14, 0, 1)
        ease = np.minimum(rise, fall)
        closed = np.maximum(closed, ease * ease * (3 - 2 * ease))
    return closed


def frame_rms(wave, num_frames):
    """RMS of the audio in the 40 ms around each frame, float64 [N]; wave [samples] is 16 kHz mono -1..1."""
    hop = 16000 // FPS
    padded = np.pad(np.asarray(wave, np.float64), (hop // 2, hop + max(0, num_frames * hop - len(wave))))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, hop)[::hop][:num_frames]
    return np.sqrt((pieces**2).mean(1))


def smooth(track, seconds):
    """Gaussian smoothing of a curve at 25 fps along its first axis, edge values repeated."""
    radius = int(np.ceil(3 * seconds * FPS))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (seconds * FPS)) ** 2)
    padded = np.pad(track, (radius, radius), mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def head_track(wave, num_frames, seed=5):
    """Head motion: slow rotations, small nods on stressed syllables, small translations.

    Args:
        wave: float32 [samples], 16 kHz.
        num_frames: number of frames.
        seed: of the random phases.

    Returns:
        euler: float64 [N, 3], yaw (+ to the image's right), pitch (+ down), roll (+ clockwise in the image) in degrees,
            each within 10.
        shift: float64 [N, 3] in crop px.
        stress: float64 [N] 0..1.
    """
    rng = np.random.default_rng(seed)
    at = np.arange(num_frames) / FPS

    def drift(amplitude, periods):
        # a sum of sines, scaled to the amplitude
        waves = [np.sin(2 * np.pi * at / p + rng.uniform(0, 2 * np.pi)) / (1 + 0.4 * k) for k, p in enumerate(periods)]
        total = np.sum(waves, 0)
        return amplitude * total / np.abs(total).max()

    rms = frame_rms(wave, num_frames)
    stress = smooth(np.clip(rms / max(1e-6, np.quantile(rms, 0.95)), 0, 1.3), 0.09)
    accent = np.clip(stress - smooth(stress, 0.45), 0, None) / 0.45
    yaw = drift(8.5, (5.3, 3.1, 1.9))
    pitch = drift(5.0, (4.3, 2.3, 1.4)) + 2.2 * smooth(accent, 0.06)
    roll = drift(3.0, (6.1, 2.9, 1.7))
    shift = np.stack([drift(1.6, (5.7, 2.7)), drift(0.8, (3.9, 2.1)), drift(2.5, (6.7, 3.3))], 1)
    euler = np.clip(np.stack([yaw, pitch, roll], 1), -9.8, 9.8)
    return euler, shift, np.clip(smooth(accent, 0.05), 0, 1)


def gaze_track(euler, num_frames, seed=9):
    """Gaze direction relative to the head, degrees, float64 [N, 2] (right, down).

    The eyes follow the camera while the head rotates, with small saccades about every second.
    """
    rng = np.random.default_rng(seed)
    saccades = np.zeros((num_frames, 2))
    frame = 0
    while frame < num_frames:
        length = int(rng.uniform(0.7, 1.8) * FPS)
        saccades[frame : frame + length] = rng.normal(0, (2.2, 1.1))
        frame += length
    saccades = (saccades + np.roll(saccades, 1, 0)) / 2
    return saccades - 0.9 * euler[:, :2]


def rotation(euler):
    """Rotation matrix [..., 3, 3] (axes x right, y down, z away) of yaw, pitch, roll in degrees, [..., 3].

    R = Ry(-yaw) Rx(pitch) Rz(roll): positive yaw turns the nose to the image's right, pitch lowers it, roll is
    clockwise.
    """
    yaw, pitch, roll = np.moveaxis(np.deg2rad(np.asarray(euler, np.float64)), -1, 0)
    one, zero = np.ones_like(yaw), np.zeros_like(yaw)

    def matrix(*rows):
        return np.stack([np.stack(row, -1) for row in rows], -2)

    c, s = np.cos(-yaw), np.sin(-yaw)
    around_y = matrix((c, zero, s), (zero, one, zero), (-s, zero, c))
    c, s = np.cos(pitch), np.sin(pitch)
    around_x = matrix((one, zero, zero), (zero, c, -s), (zero, s, c))
    c, s = np.cos(roll), np.sin(roll)
    around_z = matrix((c, -s, zero), (s, c, zero), (zero, zero, one))
    return around_y @ around_x @ around_z
