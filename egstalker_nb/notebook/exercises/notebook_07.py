"""Exercises of notebook 07: when a stream begins, how large an export is, what is in a PLY file."""
from __future__ import annotations

import math

from ...media.rates import FPS
from ...model.ply import load_ply
from ...rendering.export import Exported
from ...rendering.streaming import LOOK_AHEAD
from . import Exercise, Exercises

CHUNK = 0.02  # seconds


def live_and_export(clouds: Exported) -> Exercises:
    """Three questions about streams and about an export of PLY files."""
    def megabytes_a_minute() -> float:
        return 60 * FPS * clouds.files[0].stat().st_size / 1e6

    return Exercises([
        Exercise(
            f"After how many chunks of {1000 * CHUNK:g} ms does `egs.stream` yield its first frame?",
            lambda: math.ceil(round(LOOK_AHEAD / CHUNK, 6)), 0.0,
            "Give it chunks of silence from a generator that counts them, and take the first frame with next(...).",
            "taken = []\n"
            "chunks = (taken.append(i) or np.zeros(320, np.float32) for i in range(100))\n"
            "first = next(egs.stream(trained, chunks))\n"
            "len(taken)"),
        Exercise(
            "How large are the PLY files of one minute of video together? (MB, millions of bytes)",
            megabytes_a_minute, 0.02 * megabytes_a_minute(),
            f"There is one file for each frame, {FPS} a second, and all have one size: clouds.files[0].stat().st_size.",
            f"clouds.files[0].stat().st_size * {FPS} * 60 / 1e6"),
        Exercise(
            "What is the median opacity of the Gaussians in the first PLY file? (0 ... 1)",
            lambda: float(load_ply(clouds.files[0])["opacities"].sigmoid().median()), 0.01,
            "The file stores logits: nb.load_ply(clouds.files[0])['opacities'] before the sigmoid.",
            "logits = nb.load_ply(clouds.files[0])['opacities']\n"
            "float(torch.sigmoid(logits).median())"),
    ])
