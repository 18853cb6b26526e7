"""Lip sync in five languages: synthesised speech, of which the phones are known, drives a head.

    python benchmarks/languages.py outputs/a-prod [outputs/b-prod ...] --out benchmarks/results/languages.json

Two voices for each language, 8 to 12 s each. Two curves are correlated with the openness of the phones spoken
(`phones.OPENNESS`, smoothed over 0.1 s, 25 fps): `encoder`, the openness of the phones that the built-in encoder
predicts; `r`, the mouth opening tracked on the rendered frames. Swahili and the espeak-ng variants used here are not
in the encoder's training data. Needs mediapipe and the synthesisers (see tools/phones/README.md). About 2700 frames
per head.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np
from common import DEVICE, facts, given_runs

from egstalker_nb.core.table import Table
from egstalker_nb.evaluation.lip_sync import MAX_LAG, rendered_frames, tracked_landmarks
from egstalker_nb.media.audio import frames_of, save_wav
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.metrics import landmark_metrics
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.speech import phones
from egstalker_nb.training.run import Run

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "phones"))
import synthesize  # noqa: E402

#: language -> Universal Declaration of Human Rights, article 1, and voices as "synthesiser voice"
SPOKEN = {
    "English": ("All human beings are born free and equal in dignity and rights. They are endowed with reason and "
                "conscience and should act towards one another in a spirit of brotherhood.",
                ("espeak en-us+Alicia", "flite rms")),
    "German": ("Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
               "begabt und sollen einander im Geiste der Brüderlichkeit begegnen.",
               ("espeak de+Marco", "espeak de+Jacky")),
    "Italian": ("Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e "
                "di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
                ("espeak it+adam", "festival pc_diphone")),
    "Russian": ("Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью "
                "и должны поступать в отношении друг друга в духе братства.",
                ("espeak ru+pablo", "espeak ru+Andrea")),
    "Swahili": ("Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa akili na dhamiri, hivyo yapasa "
                "watendeane kindugu.",
                ("espeak sw+Marco", "espeak sw+Alicia")),
}
COLUMNS = ("head", "language", "voice", "seconds", "encoder", "r", "best_r", "lag")
OPENNESS = np.array([phones.OPENNESS[name] for name in phones.CLASSES], np.float32)
WIDTH = 10                     # intervals of 10 ms over which the openness of a frame is averaged
PER_FRAME = 4                  # intervals of 10 ms per frame


class Piece(NamedTuple):
    """A spoken text.

    Attributes:
        language, voice: see `SPOKEN`.
        wave: [samples] float32, 16 kHz.
        truth: [frames] float32, openness of the phones spoken.
        predicted: [frames] float32, openness of the phones that the encoder predicts.
    """

    language: str
    voice: str
    wave: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def at_frames(openness: np.ndarray, frames: int) -> np.ndarray:
    """Openness of 10 ms intervals [T] -> mean of the 0.1 s around each frame [frames], 0 outside the audio."""
    padded = np.zeros(PER_FRAME * frames + WIDTH, np.float32)
    used = openness[:len(padded) - WIDTH // 2]
    padded[WIDTH // 2:WIDTH // 2 + len(used)] = used
    return np.lib.stride_tricks.sliding_window_view(padded, WIDTH)[::PER_FRAME][:frames].mean(1)


def predicted_openness(wave: np.ndarray, frames: int) -> np.ndarray:
    """Openness of the phones that the built-in encoder predicts, at each frame: [frames]."""
    steps = phones.steps(wave) ** 2 @ OPENNESS
    return at_frames(np.repeat(steps, 2)[1:], frames)  # a step covers 10 ms before and after its time


def pieces() -> Iterator[Piece]:
    """Every text in every voice."""
    espeak = synthesize.Espeak()
    with tempfile.TemporaryDirectory() as folder:
        for language, (text, voices) in SPOKEN.items():
            for name in voices:
                kind, voice = name.split()
                if kind == "espeak":
                    wave, labels = espeak(text, voice)
                elif kind == "flite":
                    wave, labels = synthesize.flite(text, voice, 1.0, 110.0, Path(folder))
                else:
                    wave, labels = synthesize.festival(text, voice, 1.0, Path(folder))
                wave = np.clip(wave, -1, 1)
                frames = frames_of(len(wave))
                yield Piece(language, name, wave, at_frames(OPENNESS[labels], frames), predicted_openness(wave, frames))


def mouth(run: Run, wave: np.ndarray, name: str) -> np.ndarray:
    """Mouth opening [frames] on the rendering of a head driven by a wave; NaN: no face found."""
    renderer = Renderer.from_run(run, device=DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        script = audio_script(renderer, save_wav(Path(folder) / "speech.wav", wave), poses="cycle")
    return landmark_metrics.aperture(tracked_landmarks(rendered_frames(renderer, script, name), len(script)))


def measure(runs: list[Run]) -> tuple[list[tuple], list[dict]]:
    """Rows of `COLUMNS` with a mean for each head, and the curves that were correlated."""
    spoken, rows, curves = list(pieces()), [], []
    for run in runs:
        own = []
        for piece in spoken:
            driven = mouth(run, piece.wave, f"{run.root.name} < {piece.voice}")
            encoder = landmark_metrics.correlation_and_lag(piece.predicted, piece.truth, 0)[0]
            measured = landmark_metrics.correlation_and_lag(driven, piece.truth, MAX_LAG)
            scores = [None if np.isnan(x) else x for x in measured]
            own.append((run.root.name, piece.language, piece.voice, len(piece.wave) / SAMPLE_RATE, encoder, *scores))
            curves.append({"head": run.root.name, "voice": piece.voice, "truth": numbers(piece.truth),
                           "heard": numbers(piece.predicted), "mouth": numbers(driven)})
        means = [mean([row[column] for row in own]) for column in range(4, 7)]
        rows += [*own, (run.root.name, "mean", str(len(own)), None, *means, mean([abs(row[7]) for row in own
                                                                               if row[7] is not None]))]
    return rows, curves


def mean(values: list) -> float | None:
    """Mean of the known values."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def numbers(values: np.ndarray) -> list:
    """JSON-able: NaN becomes None."""
    return [round(float(x), 4) if np.isfinite(x) else None for x in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON")
    args, runs = given_runs(parser)
    synthesize.require()
    rows, curves = measure(runs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"facts": facts(args.revision), "columns": list(COLUMNS), "rows": [list(row) for row in rows],
              "curves": curves}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = [[f"{x:.2f}" if isinstance(x, float) else x for x in row] for row in rows]
    caption = "Correlation of mouth opening and phones spoken; means of lags (frames) are of absolute values"
    print(Table(COLUMNS, shown, caption))


if __name__ == "__main__":
    main()
