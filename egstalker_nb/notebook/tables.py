"""Tables that notebooks show, as HTML and as text, and the check that ends each notebook."""
from __future__ import annotations

import ast
import inspect
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import config as config_module
from ..config import FIELDS, Config
from ..core.errors import EgsError
from ..core.table import Table, text

#: the dataclasses of a `Config`, one per concern
CONCERNS = Config.__mro__[1:-1]


@lru_cache
def setting_docs() -> dict[str, str]:
    """The docstring under each field of the configuration; a field without one has that of its concern's class."""
    docs = {}
    for node in ast.parse(inspect.getsource(config_module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, [*node.body[1:], None]):
            if isinstance(field, ast.AnnAssign) and field.target.id in FIELDS:
                own = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                docs[field.target.id] = " ".join((below.value.value if own else ast.get_docstring(node)).split())
    return docs


def settings(config: Config) -> Table:
    """Every setting of a configuration with its default and its meaning; `*` marks what differs from the default."""
    docs, rows, default = setting_docs(), [], Config()
    for concern in CONCERNS:
        for name in concern.__annotations__:
            value, usual = getattr(config, name), getattr(default, name)
            rows.append((concern.__name__, name, value, "*" if value != usual else "", usual, docs[name]))
    return Table(("concern", "setting", "value", "", "default", "meaning"), rows,
                 f"Settings of '{config.preset}'; * differs from the default (production)")


def tensors(named: dict[str, tuple[Tensor, str]], caption: str = "") -> Table:
    """Shape, type and range of tensors: name -> (tensor, meaning)."""
    rows = [(name, list(t.shape), str(t.dtype).removeprefix("torch."), float(t.min()), float(t.max()), meaning)
            for name, (t, meaning) in named.items() for t in [torch.as_tensor(t)]]
    return Table(("name", "shape", "type", "lowest", "highest", "meaning"), rows, caption)


def scores(*measured: Any) -> Table:
    """Several `Scores` side by side, one column each."""
    rows = []
    for lines in zip(*[s.rows() for s in measured]):
        name, _, unit, what = lines[0]
        rows.append((name, *[line[1] for line in lines], unit, what))
    names = [f"{s['split']} ({s['iteration']})" for s in measured]
    return Table(("score", *names, "unit", "meaning"), rows, "Scores by split (iteration)")


def check(*expectations: tuple[str, float, float, float, str]) -> Table:
    """Compare results with the range each must lie in.

    Args:
        expectations: (what, value, lowest, highest, what to do if it lies outside), ends included.

    Returns:
        a table of all results.

    Raises:
        EgsError: a value lies outside its range or is not a number; all of them are listed.
    """
    bad = [row for row in expectations if not row[2] <= row[1] <= row[3]]
    if bad:
        wanted = ", ".join(f"{what} in {low:.4g} ... {high:.4g}" for what, _, low, high, _ in bad)
        raise EgsError(wanted, ", ".join(text(float(value)) for _, value, *_ in bad),
                       " ".join(dict.fromkeys(fix for *_, fix in bad)))
    rows = [(what, float(value), float(low), float(high), "passed") for what, value, low, high, _ in expectations]
    return Table(("check", "value", "lowest", "highest", ""), rows)


#: values of a dataset's report -> unit and meaning; a path into it is written with dots
REPORT = {
    "num_frames": "frames at 25 per second", "seconds": "length",
    "account.frames": "frames of the whole video at 25 per second",
    "account.missing": "frames of it that are not in the dataset, by reason",
    "frames_with_face": "frames in which a face was tracked; poses of the others are interpolated",
    "reprojection_px.rms": "px between tracked rigid landmarks and the rigid head in its pose, root mean square",
    "pose_jitter_deg": "degrees by which the pose trembles from frame to frame",
    "head_motion.yaw_deg": "degrees, turn of the head: lowest and highest",
    "head_motion.pitch_deg": "degrees, nod: lowest and highest",
    "head_motion.roll_deg": "degrees, tilt: lowest and highest",
    "face_height_px": "px from forehead to chin in the prepared frames",
    "face_height_source_px": "px from forehead to chin in the video",
    "face_outside_share": "share of frames in which the border of the picture cuts the face",
    "person_share": "share of the picture that the person covers",
    "uncovered_background": "share of the background that is seen in some frame; the rest is made up",
    "mouth_movement.range": "lip gap over face height, from nearly closed to widely open",
    "blinks": "times the eyes close", "sound.level_dbfs": "dB of full scale, level of the speech",
    "sound.silence_share": "share of the sound that is silence",
    "sound.moved_s": "seconds by which the sound was late against the lips, and was moved (negative: early)",
    "other_faces_share": "share of frames with a second face",
    "cuts": "frames of the dataset at which a new shot begins", "black_frames": "frames without a picture",
}


def report(values: dict[str, Any]) -> Table:
    """A dataset's quality report, with what each value means."""
    def at(path: str) -> Any:
        value: Any = values
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return Table(("value", "found", "meaning"), [(path, at(path), meaning) for path, meaning in REPORT.items()])
