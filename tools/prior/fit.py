"""Fit the speaker prior of the package.

    python tools/prior/fit.py SPEAKERS egstalker_nb/speech/weights/prior.safetensors

SPEAKERS: a folder of clips, one .npz each: `audio` (int16, 16 kHz) and `shapes` [N, 214] (`egs.Dataset.mouth`, 25 fps),
and one level above an `index.csv` with the columns name, speaker and known_in_sync. See README.md here.
"""
from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import egstalker_nb as egs
from egstalker_nb.training.fit_prior import SpeakerClip


def speaker_clips(folder: Path) -> list[SpeakerClip]:
    """The clips of a folder, with the features of the built-in encoder."""
    with open(folder.parent / "index.csv", encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    encoder, clips = egs.load_encoder("phones"), []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            shapes = data["shapes"].astype(np.float32)
            features = encoder.features(data["audio"].astype(np.float32) / 32768, len(shapes))
        row = rows[path.stem]
        clips.append(SpeakerClip(features, shapes, row["speaker"], row["known_in_sync"] == "yes"))
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speakers", type=Path)
    parser.add_argument("out", type=Path, help="the .safetensors file to write (float16)")
    args = parser.parse_args()
    prior = egs.fit_prior(speaker_clips(args.speakers), args.out)
    print(prior.facts)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
