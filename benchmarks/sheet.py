"""A contact sheet of one head and several voices: frames of each video, its sound, and the mouth opening tracked on it
(lip gap over face height).

    python benchmarks/sheet.py outputs/clip-prod a.wav b.wav c.wav --out docs/images/voices.jpg

Writes each video beside the sheet's name as well where `--videos FOLDER` is given. Needs mediapipe.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import DEVICE

import egstalker_nb as egs
from egstalker_nb.evaluation.lip_sync import _pictures, _tracked
from egstalker_nb.media.rates import FPS
from egstalker_nb.metrics.landmark_metrics import aperture
from egstalker_nb.notebook import plots
from egstalker_nb.rendering.renderer import Renderer, audio_script

COLUMNS, WIDTH, DPI = 9, 11.0, 80
ENVELOPE = 160  # samples behind each point of the waveform's outline


def drawn(axes: np.ndarray, renderer: Renderer, sound: Path, name: str) -> None:
    """Frames at equal times over the waveform and the mouth's opening."""
    script = audio_script(renderer, sound)
    pictures = list(_pictures(renderer, script, name))
    seconds = len(pictures) / FPS
    strip, wave, mouth = axes
    edge = seconds / COLUMNS
    for k in range(COLUMNS):
        middle = (k + 0.5) * edge
        strip.imshow(pictures[int(middle * FPS)], extent=(k * edge, (k + 1) * edge, 0, 1), aspect="auto")
        for axis in (wave, mouth):
            axis.axvline(middle, color="#7f7f7f", linewidth=0.6)
    strip.axis("off")
    blocks = np.abs(script.wave[:len(script.wave) // ENVELOPE * ENVELOPE].reshape(-1, ENVELOPE)).max(1)
    time = (np.arange(len(blocks)) + 0.5) * ENVELOPE / 16_000
    wave.fill_between(time, -blocks, blocks, color=plots.STYLES[0][0], linewidth=0)
    plots.label(wave, "", "sound", "")
    opening = aperture(_tracked(iter(pictures), len(pictures)))
    plots.curve(mouth, (np.arange(len(pictures)) + 0.5) / FPS, opening, style=1)
    plots.label(mouth, "time (s)", "opening")
    strip.set_title(name, fontsize=9, loc="left")
    for axis in axes:
        axis.set_xlim(0, seconds)
    wave.tick_params(labelbottom=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("sounds", nargs="+", type=Path)
    parser.add_argument("--names", nargs="+", help="a title for each sound")
    parser.add_argument("--dataset", type=Path, help="where the dataset of the run lies now")
    parser.add_argument("--videos", type=Path, help="write the videos with their sound here too")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    run = egs.load_run(args.run, args.dataset)
    renderer = Renderer.from_run(run, device=DEVICE)
    heights = [1.25, 0.35, 0.5] * len(args.sounds)
    figure, _ = plots.subplots(1, 1, WIDTH, 2.6 * len(args.sounds))
    figure.clear()
    axes = figure.subplots(len(heights), 1, gridspec_kw={"height_ratios": heights}).reshape(-1, 3)
    for row, sound, name in zip(axes, args.sounds, args.names or [path.stem for path in args.sounds]):
        drawn(row, renderer, sound, name)
        if args.videos:
            args.videos.mkdir(parents=True, exist_ok=True)
            print(egs.render(run, sound, args.videos / f"{sound.stem}.mp4", device=DEVICE))
    figure.savefig(args.out, dpi=DPI, facecolor="white")


if __name__ == "__main__":
    main()
