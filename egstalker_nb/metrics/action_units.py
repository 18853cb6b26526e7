"""Action-unit errors of the upper and lower face (AUE-U, AUE-L): from landmarks, or from OpenFace's CSV files."""
from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import shortened
from ..core.reading import Unreadable, read_text
from ..face.landmarks import CHIN, FOREHEAD, NUM_LANDMARKS
from .landmark_metrics import aperture, blink_ratio

UPPER_UNITS = (1, 2, 4, 5, 6, 7, 45)
LOWER_UNITS = (9, 10, 12, 14, 15, 17, 20, 23, 25, 26)
_CSV_BYTES = 64 << 20


def geometric_units(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a few action units move, measured on MediaPipe's landmarks. Not OpenFace's intensities.

    Args:
        landmarks: [N, 478, 2 or 3] px; NaN where no face was found.

    Returns:
        upper [N, 4]: height of the inner and outer brows over the eyes (AU1, AU2), distance of the brows (AU4),
        openness of the eyes (AU5, AU7, AU45); lower [N, 5]: width of the mouth (AU12, AU20), height of its corners
        over its middle (AU12, AU15), opening of the lips (AU25), chin to nose (AU26), upper lip to nose (AU9, AU10).
        In shares of the face's height (eyes: of their width), invariant to shift, scale and rotation in the image.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1] != NUM_LANDMARKS or points.shape[2] not in (2, 3):
        raise InputError("landmarks [N, 478, 2 or 3]", str(list(points.shape)), "Give the face mesh with irises.")
    points = points[..., :2]
    down = points[:, CHIN] - points[:, FOREHEAD]
    height = np.linalg.norm(down, axis=1)
    down = down / height[:, None]

    def gap(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=1) / height

    def over(a: tuple[int, ...], b: tuple[int, ...]) -> np.ndarray:
        """How far a lies above b along the face."""
        return np.einsum("ni,ni->n", points[:, list(b)].mean(1) - points[:, list(a)].mean(1), down) / height

    upper = (over((55, 285), (133, 362)), over((46, 276), (33, 263)), gap(55, 285), blink_ratio(landmarks))
    lower = (gap(61, 291), over((61, 291), (13, 14)), aperture(landmarks), gap(1, CHIN), over((1,), (0,)))
    return np.stack(upper, 1), np.stack(lower, 1)


def geometric_error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference of `geometric_units` of two videos' landmarks, upper and lower, in percent.

    Frames without a face in either are skipped; nan if none is left.
    """
    (upper, lower), (true_upper, true_lower) = geometric_units(a), geometric_units(b)
    return 100 * _mean_difference(upper, true_upper), 100 * _mean_difference(lower, true_lower)


def openface_units(path: Path) -> dict[int, np.ndarray]:
    """Intensities 0...5 of the action units in a CSV of OpenFace (`AU01_r`, with or without a leading space).

    Returns:
        number of the unit -> [N]; NaN where OpenFace had no success.

    Raises:
        InputError: no such CSV, or no `AU.._r` column, or a value that is no number.
    """
    fix = "Give what OpenFace's FeatureExtraction -aus writes."
    try:
        rows = list(csv.reader(io.StringIO(read_text(Path(path), _CSV_BYTES))))
        names = [name.strip() for name in rows[0]] if rows else []
        units = {int(name[2:-2]): i for i, name in enumerate(names) if name.startswith("AU") and name.endswith("_r")}
        table = np.array([row for row in rows[1:] if row], dtype=np.float64)
        if not units or table.shape[1:] != (len(names),):
            raise ValueError("no AU01_r ... columns")
    except (Unreadable, ValueError, csv.Error) as error:
        raise InputError("a CSV of OpenFace with intensities (AU01_r ...)", f"'{shortened(path)}' without",
                         fix) from error
    if "success" in names:
        table[table[:, names.index("success")] == 0] = np.nan
    return {unit: table[:, column] for unit, column in units.items()}


def openface_error(a: Path, b: Path) -> tuple[float, float]:
    """Mean absolute difference of OpenFace's intensities of two videos, upper and lower face, in its units 0...5.

    The units that both files have; the longer is cut.

    Raises:
        InputError: see `openface_units`; no unit of a half in both.
    """
    first, second = openface_units(a), openface_units(b)
    errors = []
    for units in (UPPER_UNITS, LOWER_UNITS):
        common = [unit for unit in units if unit in first and unit in second]
        if not common:
            raise InputError("units of the upper and the lower face in both files", "none in common",
                             "Run OpenFace in the same way on both videos.")
        length = min(len(first[common[0]]), len(second[common[0]]))
        x, y = (np.stack([given[unit][:length] for unit in common], 1) for given in (first, second))
        errors.append(_mean_difference(x, y))
    return errors[0], errors[1]


def _mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    difference = np.abs(a - b)
    difference = difference[np.isfinite(difference).all(1)]
    return float(difference.mean()) if len(difference) else float("nan")
