"""How well the speaker prior predicts mouths of speakers that it was not fitted on, before anything is drawn.

    python benchmarks/prior.py SPEAKERS data/a data/b data/c --out benchmarks/results/prior.json

SPEAKERS is a folder as `tools/prior/fit.py` takes (`fit/`, `index.csv`), with a second folder `measure/` of other
speakers. The clips in `fit` shaped the shipped prior; they are measured with priors fitted again without a fifth of
the speakers (five folds), those in `measure` with the shipped one. The datasets are prepared clips, whose heads are
fitted but not trained.

Every figure is a mean over speakers with a 95 % interval by bootstrap over speakers. Needs the synthesisers (see
tools/phones/README.md); about ten minutes on two CPU cores. With `--only`, the other parts of the JSON stay as they
are.
"""
from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import prior_speech
import torch
from common import facts
from intervals import MOTIONS, correlation, motions, row
from languages import languages
from prior_offset import STEP, MeasuredClip, estimate, moved, offsets, unguarded

import egstalker_nb as egs
from egstalker_nb.core.table import Table
from egstalker_nb.speech.prior import Prior, built_in_prior

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "prior"))
from fit import speaker_clips  # noqa: E402

PARTS = ("unseen", "offset", "speech", "languages", "voices")
MIN_FRAMES = 50                # of a clip that is measured
FOLDS = 5                      # of the speakers in `fit`
#: how the audio was moved -> by how many ms it is taken to be late
AUDIO = {"as in the files": lambda clip: 0.0, "moved by audio_offset": lambda clip: estimate(clip, clip.wave),
         "at the best shift (optimistic)": unguarded}
CHOICES = {
    "fit": "weights, inputs, settings and gain of the prior were chosen on it, by cross-validation over speakers; here "
           "each speaker is measured with a prior fitted without its fold",
    "measure": "looked at about a dozen times while the prior was developed; the rules of closures and silence and the "
               "limits of audio_offset were compared on it and on fit; nothing was fitted to it",
    "datasets": "settings of the mouth model before there was a prior were chosen on hdtf_markey, hdtf_radio2, may_5s; "
                "recordings that are in `fit` too are counted apart",
    "synthesised speech": "synthesisers and collections of texts of the encoder's training speech, drawn with a seed "
                          "that neither the training nor the choice of the closure rule used; espeak-ng in voice "
                          "variants that are not in the training speech",
}


def measured_clips(folder: Path, split: str, min_frames: int = MIN_FRAMES) -> list[MeasuredClip]:
    """The clips of a split that are long enough, with the built-in prior."""
    clips = []
    with open(folder / "index.csv", encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            if entry["split"] != split or int(entry["frames"]) < min_frames:
                continue
            with np.load(folder / split / f"{entry['name']}.npz") as data:
                clips.append(MeasuredClip(entry["name"], entry["speaker"], split, entry["source"], entry["language"],
                                         entry["known_in_sync"] == "yes", data["audio"].astype(np.float32) / 32768,
                                         data["shapes"].astype(np.float32), data["aperture"].astype(np.float64),
                                         built_in_prior()))
    return clips


def cross_validated(folder: Path, clips: Sequence[MeasuredClip]) -> list[MeasuredClip]:
    """The clips, each with a prior that was fitted on the speakers of other folds, shorter clips included."""
    fitted = speaker_clips(folder / "fit")
    speakers = sorted({clip.speaker for clip in fitted})
    fold = {speaker: k % FOLDS for k, speaker in enumerate(speakers)}
    priors = [egs.fit_prior([clip for clip in fitted if fold[clip.speaker] != k]) for k in range(FOLDS)]
    return [clip._replace(prior=priors[fold[clip.speaker]]) for clip in clips]


def predicted(prior: Prior, wave: np.ndarray, frames: int) -> np.ndarray:
    """Opening, width and chin that a prior predicts, [frames, 3]."""
    features = egs.load_encoder("phones").features(wave, frames)
    return motions(prior.motion(prior(torch.from_numpy(features))).numpy())


def unseen(clips: Sequence[MeasuredClip]) -> list[dict[str, Any]]:
    """Correlation of the predicted with the tracked mouth, frame by frame, on speakers left out of the fit."""
    groups: dict[str, list[int]] = {}
    for n, clip in enumerate(clips):
        for name in (clip.split, f"{clip.split}: {clip.source} ({clip.language})"):
            groups.setdefault(name, []).append(n)
    rows = []
    for audio, late_ms in AUDIO.items():
        late = [late_ms(clip) for clip in clips]
        r = [correlations(clip, ms) for clip, ms in zip(clips, late)]
        for name, chosen in sorted(groups.items()):
            speakers = [clips[n].speaker for n in chosen]
            rows += [row(figure, name, [r[n][k] for n in chosen], speakers, audio=audio,
                         moved=sum(late[n] != 0 for n in chosen)) for k, figure in enumerate(MOTIONS)]
    return rows


def correlations(clip: MeasuredClip, late_ms: float) -> list[float]:
    """Correlations of `MOTIONS` after the audio was moved to be earlier by so many milliseconds."""
    wave = moved(clip.wave, -STEP * round(late_ms / STEP))
    made, tracked = predicted(clip.prior, wave, len(clip.shapes)), motions(clip.shapes)
    tracked[:, 0] = clip.aperture
    return [correlation(made[:, k], tracked[:, k]) for k in range(len(MOTIONS))]


def measure(speakers: Path, datasets: Sequence[Path], parts: Sequence[str]) -> dict[str, Any]:
    """The parts of the result."""
    result: dict[str, Any] = {}
    others = measured_clips(speakers, "measure")
    if {"unseen", "offset"} & {*parts}:
        known = cross_validated(speakers, measured_clips(speakers, "fit"))
        if "unseen" in parts:
            result["unseen"] = unseen([*known, *others])
        if "offset" in parts:
            result["offset"] = offsets({"fit: GRID": [clip for clip in known if clip.in_sync],
                                        "measure: LRS2, LRS3": [c for c in others if c.source in ("LRS2", "LRS3")]})
    heads = prior_speech.heads_of(datasets)
    clips = [prior_speech.Clip(clip.speaker, clip.wave) for clip in others]
    if "speech" in parts:
        result["speech"] = [*prior_speech.closures(heads, list(prior_speech.texts_spoken())),
                            *prior_speech.spread(heads, clips), *prior_speech.silence(heads, clips)]
    if "languages" in parts:
        result["languages"] = languages(heads)
    if "voices" in parts:
        fitted = [clip.wave for clip in measured_clips(speakers, "fit", 1)]
        result["voices"], result["pairs"] = prior_speech.voices(heads, fitted)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speakers", type=Path)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="the JSON")
    args = parser.parse_args()
    prior_speech.synthesize.require(texts=True)
    result: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    built_in = built_in_prior().facts
    result.update(facts=facts(), choices=CHOICES, datasets=[path.name for path in args.datasets],
                  prior={name: built_in[name] for name in ("speakers", "clips", "seconds", "cross_validated_r")})
    found = measure(args.speakers, args.datasets, args.only)
    result.update(found)
    args.out.write_text(json.dumps(result, indent=None).replace('{"figure"', '\n{"figure"') + "\n", encoding="utf-8")
    for part in (part for part in PARTS if part in found):
        shown = [(line["figure"], line["group"], line.get("audio", ""), line["mean"], line["low"], line["high"],
                  line["speakers"]) for line in found[part]]
        print(Table(("figure", "of", "audio", "mean", "low", "high", "speakers"),
                    [[str(value) for value in line] for line in shown], part))


if __name__ == "__main__":
    main()
