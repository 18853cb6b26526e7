"""Which extractor audio features probably come from, by their shape, for messages about features that are unfit."""
from __future__ import annotations

from pathlib import Path

from ..core.reading import Unreadable, read_npy


def extractor_of(path: Path) -> str:
    """Name the kind of features that AD-NeRF, ER-NeRF and their relatives save with the shape of this array.

    Args:
        path: the `.npy` file, [N, ...].

    Returns:
        a phrase such as `HuBERT features`; empty for a file that is unreadable, or of another shape.
    """
    try:
        last = read_npy(path).shape[1:]
    except Unreadable:
        return ""
    if last == (29,):
        return "DeepSpeech outputs before windowing, usually 50 a second"
    if last == (29, 16):
        return "DeepSpeech windows with steps and channels swapped"
    if last in ((1024,), (2, 1024)):
        return "HuBERT features"
    if last in ((44, 16), (16, 44)):
        return "wav2vec features of 44 letters"
    return ""
