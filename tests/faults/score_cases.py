"""Bad input of `egs score`."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
from video_material import write_clip

from .bad_input import Case
from .media_cases import good


def score(*options: Any, second: tuple[int, int] = (48, 64), csv: str = "frame, AU01_r\n1, 0.5\n"
          ) -> Callable[[Path], list[Any]]:
    """Two clips and a CSV, of which one thing is wrong."""
    def command(folder: Path) -> list[Any]:
        (folder / "a.mp4").write_bytes(good("clip.mp4"))
        write_clip(folder / "b.mp4", [np.zeros((*second, 3), np.uint8)] * 3)
        (folder / "au.csv").write_text(csv)
        return ["score", "a.mp4", "b.mp4", *options]

    return command


AU = "--au", "au.csv", "au.csv"
CASES: list[Case] = [
    Case("score_of_another_shape", score(second=(64, 48)), ("aspect ratio", "48 x 64")),
    Case("score_without_weights_folder", score("--weights", "no"), ("folder of weights", "'no'")),
    Case("score_with_units_missing", score("--au", "no.csv", "au.csv"), ("OpenFace", "no.csv")),
    Case("score_with_units_of_another_kind", score(*AU, csv="a,b\n1,2\n"), ("AU01_r", "au.csv")),
    Case("score_with_units_that_are_text", score(*AU, csv="AU01_r\nhigh\n"), ("AU01_r",)),
    Case("score_with_rows_cut_off", score(*AU, csv="AU01_r,AU25_r\n1,2\n1\n"), ("AU01_r",)),
    Case("score_without_units_of_the_mouth", score(*AU), ("upper and the lower face",)),
]
