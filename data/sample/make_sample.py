"""Generate the sample: clip.mp4, truth.npz and speech.wav beside this file.

    python data/sample/make_sample.py [--out FOLDER]

Needs this package, scikit-image (`pip install -e .[sample]`) and the program `flite` (Debian and Ubuntu:
apt-get install flite). Nothing is downloaded. See README.md.
"""

import argparse
from pathlib import Path

import motion
import numpy as np
from expression import Expression
from portrait import SIDE, load_portrait
from render import CENTRE, DISTANCE, PIVOT, Renderer, unproject
from voice import say

from egstalker_nb.core.progress import progress
from egstalker_nb.media.audio import save_wav
from egstalker_nb.media.video_writer import write_video

SIZE, SECONDS = 256, 12.0
SCRIPT = (
    ("Hello, and welcome.", 0.10),
    ("Today a picture learns to speak.", 0.25),
    ("Watch my lips: baby blue, five fat foxes, moonbeams, and warm apple pie.", 0.10),
    ("Now choose your own voice.", 0.10),
)
OTHER_SCRIPT = (("Morning light moved over the water, and everyone began to sing.", 0.10),)
BLINKS = (0.95, 4.72, 7.75, 10.62)  # seconds


def head_points(portrait):
    """The portrait's landmarks in the head frame: float64 [478, 3], crop px, origin at the pivot of the neck."""
    x, y, z = portrait.landmarks.T
    return np.stack(unproject(x, y, z), 1) - PIVOT


def camera(turn, shift):
    """Head-to-camera matrices float64 [N, 4, 4] (OpenCV axes, crop px), from rotations [N, 3, 3] and shifts [N, 3]."""
    w2c = np.tile(np.eye(4), (len(turn), 1, 1))
    w2c[:, :3, :3] = turn
    w2c[:, :3, 3] = PIVOT + shift - CENTRE
    return w2c


def true_aperture(portrait, frames):
    """Inner lip gap over face height of each frame: float64 [N].

    Gap: between the inner edges of the lips at the middle of the mouth (landmarks 13 and 14); height: landmarks 10 to
    152 (top of the forehead to chin). Measured in the frontal view, so that it does not depend on the head pose.
    """
    marks = portrait.landmarks
    x = marks[[13, 13, 10, 152], 0]
    y = np.array([portrait.mouth.upper(x[0]) - 1e-6, portrait.mouth.lower(x[1]) + 1e-6, marks[10, 1], marks[152, 1]])
    field = Expression(portrait, x, y, marks[[13, 14, 10, 152], 2])
    values = []
    for frame in frames:
        dx, dy, _ = field(frame["mouth"], frame["blink"], frame["brow"])
        at = np.stack([x + dx, y + dy], 1)
        values.append(np.linalg.norm(at[1] - at[0]) / np.linalg.norm(at[3] - at[2]))
    return np.array(values)


def animate(wave, phones, count):
    """The animation parameters of every frame.

    Args:
        wave: float32 [samples], 16 kHz.
        phones: list of (name, end in seconds).
        count: number of frames.

    Returns:
        The arguments of `Renderer.frame` for each frame (dicts); euler float64 [count, 3], see `head_track`.
    """
    track = motion.mouth_track(phones, count)
    blink = motion.blink_track(BLINKS, count)
    euler, shift, stress = motion.head_track(wave, count)
    gaze = motion.gaze_track(euler, count)
    turn = motion.rotation(euler)
    breath = 0.4 * np.sin(2 * np.pi * np.arange(count) / motion.FPS / 3.7)
    frames = []
    for k in range(count):
        mouth = {name: float(values[k]) for name, values in vars(track).items()}
        frames.append(dict(mouth=mouth, blink=blink[k], brow=stress[k], turn=turn[k], shift=shift[k], gaze=gaze[k],
                           breath=breath[k]))  # fmt: skip
    return frames, euler


def truth(portrait, frames, euler, phones):
    """The arrays of truth.npz, see README.md."""
    names, ends = zip(*phones, strict=True)
    floats = dict(
        aperture=true_aperture(portrait, frames), blink=[f["blink"] for f in frames], euler=euler,
        w2c=camera(np.array([f["turn"] for f in frames]), np.array([f["shift"] for f in frames])),
        focal=DISTANCE * SIZE / SIDE, points=head_points(portrait), phone_ends=ends,
    )  # fmt: skip
    return {name: np.asarray(value, np.float32) for name, value in floats.items()} | {"phones": np.array(names)}


def main():
    """The command line."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=here, help="folder to write to (default: beside this script)")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    save_wav(out / "speech.wav", say(OTHER_SCRIPT, "rms")[0])
    wave, phones = say(SCRIPT, "slt", SECONDS)
    frames, euler = animate(wave, phones, int(SECONDS * motion.FPS))
    portrait = load_portrait()
    np.savez_compressed(out / "truth.npz", **truth(portrait, frames, euler, phones))
    renderer = Renderer(portrait, SIZE)
    images = (renderer.frame(**f) for f in progress(frames, "frames"))
    clip = write_video(out / "clip.mp4", images, wave, fps=motion.FPS, crf=14)
    print(f"wrote clip.mp4 ({clip.stat().st_size / 1e6:.2f} MB), truth.npz and speech.wav to {out}")


if __name__ == "__main__":
    main()
