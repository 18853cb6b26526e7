"""Exercises of notebook 06: the widest mouth, how much is silence, what the mouth attends to."""
from __future__ import annotations

from ...model.deformation import TOKENS, VIEWS
from ..widgets.studio import Studio
from . import Exercise, Exercises


def rendering(studio: Studio) -> Exercises:
    """Three questions about the speech that drives the head now."""
    def attended() -> str:
        mean = studio.curves.attention[:, list(VIEWS).index("mouth")].mean(0)
        return TOKENS[int(mean.argmax())]

    return Exercises([
        Exercise(
            "In which frame is the predicted mouth opening largest? (its number)",
            lambda: int(studio.curves.opening.argmax()), 1,
            "Move the cursor to the highest point of the lowest chart, or search studio.curves.opening.",
            "int(studio.curves.opening.argmax())"),
        Exercise(
            "What share of the frames is silence, in which the mouth is held closed? (per cent)",
            lambda: 100 * float((studio.curves.silent > 0.5).mean()), 1,
            "studio.curves.silent is 0 in speech and 1 in silence, one number for each frame: count those above 0.5.",
            "100 * float((studio.curves.silent > 0.5).mean())"),
        Exercise(
            "Which token do lips, chin and jaw attend to most, on average over all frames? (its name in quotes)",
            attended, 0,
            f"One of {', '.join(TOKENS)}: the highest curve of the chart of the mouth. The numbers are in "
            "studio.curves.attention [frames, parts, tokens]; the parts are the rest, the mouth, the eyes.",
            "tokens = ('audio', 'eye', 'camera', 'null')\n"
            "mouth = studio.curves.attention[:, 1].mean(0)\n"
            "tokens[int(mouth.argmax())]"),
    ])
