"""Exercises of notebook 06: the widest mouth, how much is silence, what a sequence of PLY files weighs."""
from __future__ import annotations

from ...model.ply import PLY_BYTES
from ..widgets.studio import Studio
from . import Exercise, Exercises


def rendering(studio: Studio) -> Exercises:
    """Three questions about the sound that the head says now, and about its files."""
    return Exercises([
        Exercise(
            "In which frame does the sound call for the widest mouth? (its number)",
            lambda: int(studio.curves.opening.argmax()), 1,
            "Move the cursor to the highest point of the lowest chart, or search studio.curves.opening.",
            "int(studio.curves.opening.argmax())"),
        Exercise(
            "What share of the frames is silence, in which the mouth is held shut? (per cent)",
            lambda: 100 * float((studio.script.silent > 0.5).mean()), 1,
            "studio.script.silent is 0 in speech and 1 in silence, one number for each frame: count those above 0.5.",
            "100 * float((studio.script.silent > 0.5).mean())"),
        Exercise(
            "How large are the PLY files of the whole sound together? (MB, millions of bytes)",
            lambda: PLY_BYTES * len(studio.head) * len(studio.script) / 1e6,
            0.02 * PLY_BYTES * len(studio.head) * len(studio.script) / 1e6,
            "A Gaussian has 62 numbers of 4 bytes in the common layout; there is one file for each frame.",
            "62 * 4 * len(head) * len(studio.script) / 1e6"),
    ])
