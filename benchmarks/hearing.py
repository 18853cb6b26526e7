"""How well mouth openings are told from sound, before anything is drawn: encoders and settings of `mouth.py` compared.

    python benchmarks/hearing.py data/a data/b data/c --out benchmarks/results/hearing.json

For every ordered pair of datasets: what the mouth of the first would do with the sound of the second, against what the
second's own mouth did. Seconds on one CPU core; needs no trained head, so many settings can be tried.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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
#: name -> constants of `mouth.py` that differ
SETTINGS: dict[str, dict[str, Any]] = {
    "as shipped": {}, "no openness of phones": {"OPEN_WEIGHT": 1e-6}, "more openness": {"OPEN_WEIGHT": 6.0},
    "without what comes 80 ms later": {"TAPS": (-2, 0, 2)}, "this moment only": {"TAPS": (0,)},
    "softer taps": {"BLUR": 2.0}, "penalty 1": {"RIDGE": 1.0}, "penalty 10": {"RIDGE": 10.0},
}


def opening(fitted: mouth.Mouth, codes: torch.Tensor) -> np.ndarray:
    """Gap between the inner lips that codes [N, 8] stand for, head units: [N]."""
    shapes = fitted.decode(codes).unflatten(1, (-1, 2))
    return (shapes[:, LOWER.index(14), 1] - shapes[:, LOWER.index(13), 1]).numpy()


def pairs(datasets: list[egs.Dataset], encoder: str) -> dict[str, Any]:
    """Mean correlations over all pairs, with the fit that constants now give."""
    fits = [fit_mouth.fit_mouth(ds) for ds in datasets]
    foreign, own = [], []
    for head, fitted in zip(datasets, fits):
        for speaker in datasets:
            codes = fitted.predict(torch.from_numpy(speaker.features), torch.zeros(len(speaker)))
            if speaker is head:
                val = slice(head.num_train, None)
                own.append(np.corrcoef(opening(fitted, codes)[val], head.aperture[val])[0, 1])
            else:
                foreign.append(correlation_and_lag(opening(fitted, codes), speaker.aperture, MAX_LAG))
    r, best, lag = np.array(foreign, float).T
    return {"encoder": encoder, "r": round(r.mean(), 3), "best_r": round(best.mean(), 3),
            "lags": sorted(lag.astype(int).tolist()), "own_r": round(float(np.mean(own)), 3),
            "left_out_r": round(float(np.mean([fitted.cross_validated_r[:4].mean() for fitted in fits])), 3)}


def with_features(datasets: list[egs.Dataset], encoder: str) -> list[egs.Dataset]:
    """The same clips heard by another encoder."""
    listener = egs.load_encoder(encoder)
    for ds in datasets:
        ds.features, ds.encoder = listener.features(ds.audio(), len(ds)), listener.spec
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
        for name, changed in SETTINGS.items() if encoder == "phones" else (("as shipped", {}),):
            before = {key: getattr(mouth, key) for key in (*changed, "INPUTS")}
            for key, value in changed.items():
                setattr(mouth, key, value)
            mouth.INPUTS = len(mouth.TAPS) * len(mouth.CLASSES) + len(mouth.OPEN_TAPS)
            rows.append({"setting": name, **pairs(datasets, encoder)})
            for key, value in before.items():
                setattr(mouth, key, value)
    args.out.write_text(json.dumps({"facts": facts(None), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(Table(tuple(rows[0]), [tuple(str(value) for value in row.values()) for row in rows], "mouth openings heard"))


if __name__ == "__main__":
    main()
