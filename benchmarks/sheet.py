"""A contact sheet of one head and several audio files: frames, waveform and tracked mouth opening of each.

    python benchmarks/sheet.py outputs/clip-prod a.wav b.wav c.wav --out docs/images/voices.jpg

With `--videos FOLDER` the videos are written as well. Needs mediapipe.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import DEVICE

import egstalker_nb as egs
from egstalker_nb.evaluation.lip_sync import rendered_frames, tracked_landmarks
from egstalker_nb.media.rates import FPS
from egstalker_nb.metrics.landmark_metrics import aperture
from egstalker_nb.notebook import plots
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import audio_script

FRAMES, WIDTH, DPI = 9, 11.0, 80
ENVELOPE = 160  # samples for each point of the waveform's envelope


def draw(axes: np.ndarray, renderer: Renderer, audio: Path, name: str) -> None:
    """Frames at regular intervals above the waveform and the mouth opening."""
    script = audio_script(renderer, audio)
    images = list(rendered_frames(renderer, script, name))
    seconds = len(images) / FPS
    strip, wave, mouth = axes
    edge = seconds / FRAMES
    for k in range(FRAMES):
        middle = (k + 0.5) * edge
        strip.imshow(images[int(middle * FPS)], extent=(k * edge, (k + 1) * edge, 0, 1), aspect="auto")
        for axis in (wave, mouth):
            axis.axvline(middle, color="#7f7f7f", linewidth=0.6)
    strip.axis("off")
    blocks = np.abs(script.wave[:len(script.wave) // ENVELOPE * ENVELOPE].reshape(-1, ENVELOPE)).max(1)
    time = (np.arange(len(blocks)) + 0.5) * ENVELOPE / 16_000
    wave.fill_between(time, -blocks, blocks, color=plots.STYLES[0][0], linewidth=0)
    plots.label(wave, "", "audio", "")
    opening = aperture(tracked_landmarks(iter(images), len(images)))
    plots.curve(mouth, (np.arange(len(images)) + 0.5) / FPS, opening, style=1)
    plots.label(mouth, "time (s)", "opening")
    strip.set_title(name, fontsize=9, loc="left")
    for axis in axes:
        axis.set_xlim(0, seconds)
    wave.tick_params(labelbottom=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("sounds", nargs="+", type=Path)
    parser.add_argument("--names", nargs="+", help="a title for each audio file")
    parser.add_argument("--dataset", type=Path, help="current path of the run's dataset")
    parser.add_argument("--videos", type=Path, help="folder for the videos, with audio")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    run = egs.load_run(args.run, args.dataset)
    renderer = Renderer.from_run(run, device=DEVICE)
    heights = [1.25, 0.35, 0.5] * len(args.sounds)
    figure, _ = plots.subplots(1, 1, WIDTH, 2.6 * len(args.sounds))
    figure.clear()
    axes = figure.subplots(len(heights), 1, gridspec_kw={"height_ratios": heights}).reshape(-1, 3)
    for row, audio, name in zip(axes, args.sounds, args.names or [path.stem for path in args.sounds]):
        draw(row, renderer, audio, name)
        if args.videos:
            args.videos.mkdir(parents=True, exist_ok=True)
            print(egs.render(run, audio, args.videos / f"{audio.stem}.mp4", device=DEVICE))
    figure.savefig(args.out, dpi=DPI, facecolor="white")


if __name__ == "__main__":
    main()
