"""How well mouth openings are predicted from audio: encoders and settings of the mouth model, without rendering.

    python benchmarks/mouth_prediction.py data/a data/b data/c --out benchmarks/results/hearing.json

For every ordered pair of datasets: the mouth opening that the first one's mouth model predicts from the audio of the
second, against the opening tracked in the second. Takes seconds on one CPU core and needs no trained head, so that
many settings can be compared.
"""
from __future__ import annotations

import argparse
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import torch
from common import facts

import egstalker_nb as egs
from egstalker_nb.core.table import Table
from egstalker_nb.face.expression import LOWER
from egstalker_nb.metrics.landmark_metrics import correlation_and_lag
from egstalker_nb.model import mouth
from egstalker_nb.training import fit_mouth

MAX_LAG = 2
#: name -> constants of `mouth` and `fit_mouth` that differ
SETTINGS: dict[str, dict[str, Any]] = {
    "as shipped": {}, "no openness of phones": {"OPEN_WEIGHT": 1e-6}, "more openness": {"OPEN_WEIGHT": 6.0},
    "no taps 80 ms ahead": {"TAPS": (-2, 0, 2)}, "current step only": {"TAPS": (0,)},
    "wider taps": {"BLUR": 2.0}, "penalty 1": {"RIDGE": 1.0}, "penalty 10": {"RIDGE": 10.0},
}


@contextmanager
def changed(constants: dict[str, Any]) -> Iterator[None]:
    """Replace constants of the mouth model and of its fit."""
    before = [(module, name, getattr(module, name)) for module in (mouth, fit_mouth)
              for name in (*constants, "INPUTS") if hasattr(module, name)]
    try:
        for module, name, value in before:
            setattr(module, name, constants.get(name, value))
        for module in (mouth, fit_mouth):
            module.INPUTS = len(mouth.TAPS) * len(mouth.CLASSES) + len(mouth.OPEN_TAPS)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def opening(fitted: mouth.Mouth, coefficients: torch.Tensor) -> np.ndarray:
    """Gap between the inner lips for mouth coefficients [N, 8], head units: [N]."""
    shapes = fitted.decode(coefficients).unflatten(1, (-1, 2))
    return (shapes[:, LOWER.index(14), 1] - shapes[:, LOWER.index(13), 1]).numpy()


def pairs(datasets: list[egs.Dataset], encoder: str) -> dict[str, Any]:
    """Mean correlations over all pairs, with the current constants."""
    fits = [fit_mouth.fit_mouth(ds) for ds in datasets]
    foreign, own = [], []
    for head, fitted in zip(datasets, fits):
        for speaker in datasets:
            coefficients = fitted.predict(torch.from_numpy(speaker.features), torch.zeros(len(speaker)))
            if speaker is head:
                val = slice(head.num_train, None)
                own.append(np.corrcoef(opening(fitted, coefficients)[val], head.aperture[val])[0, 1])
            else:
                foreign.append(correlation_and_lag(opening(fitted, coefficients), speaker.aperture, MAX_LAG))
    r, best, lag = np.array(foreign, float).T
    return {"encoder": encoder, "r": round(r.mean(), 3), "best_r": round(best.mean(), 3),
            "lags": sorted(lag.astype(int).tolist()), "own_r": round(float(np.mean(own)), 3),
            "left_out_r": round(float(np.mean([fitted.cross_validated_r[:4].mean() for fitted in fits])), 3)}


def with_features(datasets: list[egs.Dataset], encoder: str) -> list[egs.Dataset]:
    """The same clips with the features of another encoder."""
    extractor = egs.load_encoder(encoder)
    for ds in datasets:
        ds.features, ds.encoder = extractor.features(ds.audio(), len(ds)), extractor.spec
    return datasets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--encoders", nargs="+", default=["logmel", "phones"])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for encoder in args.encoders:
        datasets = with_features([egs.load_dataset(path) for path in args.datasets], encoder)
        for name, constants in SETTINGS.items() if encoder == "phones" else (("as shipped", {}),):
            with changed(constants):
                rows.append({"setting": name, **pairs(datasets, encoder)})
    args.out.write_text(json.dumps({"facts": facts(None), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(Table(tuple(rows[0]), [tuple(str(value) for value in row.values()) for row in rows],
                "mouth openings predicted from audio"))


if __name__ == "__main__":
    main()
