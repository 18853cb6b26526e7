"""Tables of the notebooks: settings, tensors, scores, the report of a dataset; and the check at the end of each."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..analysis.ablation import Ablation
from ..config import FIELDS, Config
from ..core.errors import EgsError
from ..core.table import Table, text
from ..data.dataset import Dataset

#: the dataclasses of a `Config`, one per concern
CONFIG_CLASSES = Config.__mro__[1:-1]


def settings(config: Config) -> Table:
    """Every setting of a configuration with its default and its help text; `*` marks values unlike the default."""
    rows, default = [], Config()
    for concern in (*CONFIG_CLASSES, Config):
        for name in concern.__annotations__:
            if name == "preset":  # says where the others come from
                continue
            value, usual = getattr(config, name), getattr(default, name)
            rows.append((concern.__name__, name, value, "*" if value != usual else "", usual,
                         FIELDS[name].metadata.get("help", "")))
    return Table(("concern", "setting", "value", "", "default", "meaning"), rows,
                 f"Settings of '{config.preset}'; * differs from the default (production)")


def tensors(named: dict[str, tuple[Tensor, str]], caption: str = "") -> Table:
    """Shape, type and range of tensors: name -> (tensor, meaning)."""
    rows = [(name, list(t.shape), str(t.dtype).removeprefix("torch."), float(t.min()), float(t.max()), meaning)
            for name, (t, meaning) in named.items() for t in [torch.as_tensor(t)]]
    return Table(("name", "shape", "dtype", "min", "max", "meaning"), rows, caption)


def scores(*measured: Any) -> Table:
    """Several `Scores` side by side, one column each."""
    rows: list[tuple[str, ...]] = []
    for lines in zip(*[s.rows() for s in measured]):
        name, _, unit, what = lines[0]
        rows.append((name, *[line[1] for line in lines], unit, what))
    names = [f"{s['split']} ({s['iteration']})" for s in measured]
    return Table(("score", *names, "unit", "meaning"), rows, "Scores by split (iteration)")


def what_changes_buy(ds: Dataset, folder: str | Path, iterations: int) -> Table:
    """The changes that bring back upstream's method, and what each costs on the validation frames of a dataset.

    Args:
        ds: the dataset.
        folder: of the runs, see `Ablation`.
        iterations: length of each run; 0: none is trained, which a sentence says, and the table has no values.
    """
    ablation = Ablation(ds, folder, max(iterations, 1))
    if not iterations:
        print(f"Not measured: {len(ablation.changes)} trainings. Set ablation_iterations (10,000 on a GPU), or run "
              "python benchmarks/ablation.py DATASET.")
    for _ in ablation.rows() if iterations else ():
        pass
    return ablation.table()


def check(*expectations: tuple[str, float, float, float, str]) -> Table:
    """Compare results with the range that each must lie in.

    Args:
        expectations: (what, value, minimum, maximum, what to do if the value lies outside), ends included.

    Returns:
        a table of all results.

    Raises:
        EgsError: a value is outside its range or not a number; all such values are listed.
    """
    bad = [row for row in expectations if not row[2] <= row[1] <= row[3]]
    if bad:
        wanted = ", ".join(f"{what} in {low:.4g} ... {high:.4g}" for what, _, low, high, _ in bad)
        raise EgsError(wanted, ", ".join(text(float(value)) for _, value, *_ in bad),
                       " ".join(dict.fromkeys(fix for *_, fix in bad)))
    rows = [(what, float(value), float(low), float(high), "passed") for what, value, low, high, _ in expectations]
    return Table(("check", "value", "min", "max", ""), rows)


#: values of a dataset's report -> meaning with unit; dots separate the keys of nested values
REPORT = {
    "num_frames": "frames at 25 fps", "seconds": "duration, s",
    "account.frames": "frames of the whole video at 25 fps",
    "account.missing": "frames of it that are not in the dataset, by reason",
    "frames_with_face": "frames with a tracked face; the poses of the others are interpolated",
    "reprojection_px.rms": "px between tracked rigid landmarks and the projected rigid head, root mean square",
    "pose_jitter_deg": "degrees, jitter of the head pose between frames",
    "head_motion.yaw_deg": "degrees, yaw: minimum and maximum",
    "head_motion.pitch_deg": "degrees, pitch: minimum and maximum",
    "head_motion.roll_deg": "degrees, roll: minimum and maximum",
    "face_height_px": "px from forehead to chin in the prepared frames",
    "face_height_source_px": "px from forehead to chin in the video",
    "face_outside_share": "share of frames in which the image border cuts the face",
    "person_share": "share of the image that the person covers",
    "uncovered_background": "share of the background that is visible in some frame; the rest is inpainted",
    "mouth_movement.range": "lip gap over face height, from nearly closed to wide open",
    "camera.corners_moved_px": "px by which the camera moves the corners of the frame",
    "camera.zoom": "zoom of the camera against its mean: minimum and maximum",
    "camera.exposure": "brightness against the mean exposure: minimum and maximum",
    "blinks": "number of blinks", "sound.level_dbfs": "dB of full scale, level of the speech",
    "sound.silence_share": "share of the audio that is silence",
    "sound.moved_s": "seconds by which the audio was late against the lips and was shifted (negative: early)",
    "other_faces_share": "share of frames with a second face",
    "cuts": "frames of the dataset at which a new shot begins", "black_frames": "frames without an image",
}


def report(values: dict[str, Any]) -> Table:
    """A dataset's quality report, with what each value means."""
    def at(path: str) -> Any:
        value: Any = values
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return Table(("value", "found", "meaning"), [(path, at(path), meaning) for path, meaning in REPORT.items()])
