"""Lip sync with other speakers' audio, for every ordered pair of trained heads, as a table and one JSON.

    python benchmarks/sync.py outputs/a-prod outputs/b-prod [...] --out benchmarks/results/sync.json

Each head is driven by the audio of every other head's clip, by that of the clips in `--sounds`, and by its own
validation frames. Needs mediapipe. Takes twice the time of rendering each clip once with each head (512 px, 10,000
Gaussians, one CPU core: about 6 frames/s).
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import DEVICE, facts, given_runs

import egstalker_nb as egs
from egstalker_nb.evaluation.lip_sync import sync_table
from egstalker_nb.notebook import plots
from egstalker_nb.notebook.audio_figures import lip_sync_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", nargs="+", type=Path, default=[], help="datasets whose audio drives every head")
    parser.add_argument("--out", type=Path, required=True, help="the JSON; curves are saved in figures/ next to it")
    args, runs = given_runs(parser)
    table = sync_table(runs, [egs.load_dataset(path) for path in args.sounds], DEVICE)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"facts": facts(args.revision), "columns": list(table.columns), "rows": [list(row) for row in table.rows],
              "scores": [score.as_dict() for score in table.scores]}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for score in table.scores:
        voice = score.sound if score.foreign else "own"
        plots.finish(lip_sync_figure(score), args.out.parent, f"{args.out.stem}_{score.head}_{voice}")
    print(table)


if __name__ == "__main__":
    main()
