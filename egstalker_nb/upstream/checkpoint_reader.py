"""Checkpoints of EGSTalker and GaussianTalker (`point_cloud.ply` and `deformation.pth`): read, explained, rendered."""
from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import torch
from torch import Tensor

from ..core.errors import ConfigError, InputError
from ..core.files import shortened
from ..core.reading import MAX_YAML_BYTES, Unreadable, read_text, read_torch, shown
from ..core.table import Table
from ..model.ply import load_ply
from ..rasterizer import MAX_SH_DEGREE, rasterize
from .arguments_file import read_arguments
from .pose_convention import FLIP_POSE, from_euler_trans
from .upstream_motion import FEATURE, NETWORK, UNUSED, UpstreamMotion, expected_shapes

FIX = "Give the folder of an upstream model, or one of its point_cloud/iteration_N."
#: beginning of a tensor's name -> what it belongs to, what has its place in a head of this kit
PARTS = {
    "tri_plane.grid": ("tri-plane", "deformation.triplane: other bounds and resolutions"),
    "tri_plane": ("canonical attributes from the tri-plane (coarse stage)", "none: Gaussians are trained directly"),
    "audio": ("audio network: DeepSpeech to the audio token", "the speaker prior and deformation.encoders.audio"),
    "eye_mlp": ("blink to the eye token", "deformation.encoders.eye: 7 measures of the upper face"),
    "cam_mlp": ("camera to the camera token", "deformation.encoders.camera"),
    "null_vector": ("null token", "deformation.null"),
    "transformer": ("attention of the Gaussians to the tokens", "deformation.attention: learned agents, by region"),
    "static_mlp": ("share of the canonical Gaussian that is kept", "none"),
    **{head: (f"head of {what}", f"deformation.heads.{ours}") for head, what, ours in (
        ("pos_deform", "positions", "means"), ("scales_deform", "scales", "scales"),
        ("rotations_deform", "rotations", "quats"), ("opacity_deform", "opacities", "opacities"),
        ("shs_deform", "harmonics", "sh"))},
}


@dataclass
class UpstreamCheckpoint:
    """A checkpoint of EGSTalker or GaussianTalker.

    Attributes:
        folder: in which `point_cloud.ply` lies.
        raw: the canonical Gaussians before activation: means, scales (logs), quats, opacities (logits), colors.
        tensors: of `deformation.pth`; empty if there is none.
        settings: upstream's arguments, as far as they are known.
    """

    folder: Path
    raw: dict[str, Tensor]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def gaussians(self) -> dict[str, Tensor]:
        """The canonical Gaussians as `egs.rasterize` takes them (sh_degree=3).

        Their frame is upstream's: x right, y up, z towards the camera in front of the face, in units of the tracker's
        face model. That of this kit has y down and z away from the camera.
        """
        return _activated(self.raw)

    def problems(self) -> list[str]:
        """What keeps the head from moving; empty if it can be rendered with audio."""
        if not self.tensors:
            return ["there is no deformation.pth"]
        wrong = [f"{name}: {here}" for name, _, _, _, here in self._rows() if here not in ("fits", "not needed")]
        heads, width = self.settings.get("n_head"), self.tensors.get(NETWORK + "null_vector", torch.empty(0)).shape[-1]
        if heads is None:
            wrong.append("n_head is not known: it is not in deformation.pth, so give upstream's file of arguments")
        elif not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or width % heads:
            wrong.append(f"n_head is {shown(heads)}, which does not divide the width {width}")
        if self.settings.get("apply_rotation"):
            wrong.append("apply_rotation multiplies rotations, which is not supported")
        return wrong

    def table(self) -> Table:
        """Each tensor of the deformation: shape, what it is, what a head of this kit has instead, whether it fits."""
        problems = self.problems()
        moves = "moves with audio (its own network, not that of this kit)" if not problems else (
            f"can be rendered without motion only: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
        rows = [(name, shape and str(list(shape)), what, ours, here) for name, shape, what, ours, here in self._rows()]
        return Table(("tensor", "shape", "what it is", "in a head of this kit", "here"), rows,
                     f"{shortened(self.folder)}: {len(self.raw['means'])} Gaussians; the head {moves}")

    def _rows(self) -> list[tuple[str, Optional[tuple[int, ...]], str, str, str]]:
        need, rows = expected_shapes(self.tensors) if self.tensors else {}, []
        for name in dict.fromkeys([*self.tensors, *need]):
            tensor, want = self.tensors.get(name), need.get(name)
            shape = None if tensor is None else tuple(tensor.shape)
            if tensor is None:
                here = f"missing, expected {list(want or ())}"
            elif want is None:
                here = "not needed" if UNUSED.match(name) else "unknown: GaussianTalker has no such tensor"
            elif shape != want or 0 in want:
                here = f"does not fit: expected {list(want)}"
            elif not tensor.is_floating_point() or not tensor.isfinite().all():
                here = "does not fit: expected finite floats"
            else:
                here = "fits"
            short = name.removeprefix(NETWORK)
            what, ours = next((about for begin, about in PARTS.items() if short.startswith(begin)), ("", "none"))
            rows.append((name, shape, what, ours, here))
        return rows

    @torch.no_grad()
    def render(self, w2c: Tensor, K: Tensor, width: int, height: int, features: Optional[Tensor] = None,
               blink: Optional[Tensor] = None, frames: Optional[Sequence[int]] = None,
               background: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """Render the head, on the CPU, from its own cameras (see `upstream_cameras`) or any others.

        Args:
            w2c: [F, 4, 4] world-to-camera, OpenCV axes, of the frames of a clip, in the frame of `gaussians`.
            K: [3, 3] intrinsics, px.
            width: of the images, px.
            height: of the images, px.
            features: [F, 16, 29] DeepSpeech, one row a frame; None: the canonical head.
            blink: [F] intensity of action unit 45; None: eyes open.
            frames: which of the F frames to render; None: all.
            background: [height, width, 3] 0...1; None: black.

        Returns:
            rgb [frames, height, width, 3], not clamped, and alpha [frames, height, width, 1].

        Raises:
            InputError: the deformation does not fit, or cameras, features and blink do not agree.
        """
        w2c, chosen = w2c.float(), range(len(w2c)) if frames is None else frames
        if w2c.shape[1:] != (4, 4) or any(not 0 <= i < len(w2c) for i in chosen):
            raise InputError("cameras [F, 4, 4] and frames from 0 to F - 1", f"{list(w2c.shape)} and {shown(chosen)}",
                             "Give one camera a frame.")
        scenes = ([self.raw] * len(chosen) if features is None else
                  self._moved(w2c, features.float(), torch.zeros(len(w2c)) if blink is None else blink.float(), chosen))
        images = []
        for i, scene in zip(chosen, scenes):
            now = _activated(scene)
            images.append(rasterize(now["means"], now["quats"], now["scales"], now["opacities"], now["colors"],
                                    w2c[i][None], K.float()[None], width, height, sh_degree=MAX_SH_DEGREE,
                                    backgrounds=None if background is None else background.float()[None])[:2])
        if not images:
            return torch.empty(0, height, width, 3), torch.empty(0, height, width, 1)
        return torch.cat([rgb for rgb, _ in images]), torch.cat([alpha for _, alpha in images])

    def _moved(self, w2c: Tensor, features: Tensor, blink: Tensor, frames: Sequence[int]
               ) -> Iterator[dict[str, Tensor]]:
        """The Gaussians of each of the frames, before activation, one by one."""
        if problems := self.problems():
            raise InputError("a deformation that fits", "; ".join(problems[:3]),
                             "Render without features, and see table() for the rest.")
        if features.shape != (len(w2c), *FEATURE) or blink.shape != (len(w2c),):
            raise InputError(f"features [{len(w2c)}, 16, 29] and blink [{len(w2c)}], one row a camera",
                             f"{list(features.shape)} and {list(blink.shape)}", "Cut them to the same frames.")
        motion = UpstreamMotion(self.tensors, self.settings)
        tokens, feature = motion.tokens(features, blink, w2c), motion.features(self.raw["means"])
        return (motion.move(self.raw, feature, tokens[i]) for i in frames)


def read_checkpoint(folder: str | Path, arguments: Optional[str | Path] = None) -> UpstreamCheckpoint:
    """Read a checkpoint of EGSTalker or GaussianTalker; nothing of it is executed.

    Args:
        folder: the model's folder, of which the newest `point_cloud/iteration_N` is taken, or one of these.
        arguments: upstream's file of arguments with which it was trained, whose `n_head` the weights do not tell; None:
            the `cfg_args` that training left in the model's folder, if it is there.

    Raises:
        InputError: no point_cloud.ply, or a file that is damaged or holds more than tensors.
        ConfigError: a file of arguments that cannot be read.
    """
    place = _newest(Path(folder))
    raw = load_ply(place / "point_cloud.ply")
    raw["colors"] = torch.cat([raw.pop("sh0"), raw.pop("shN")], 1)
    found = UpstreamCheckpoint(place, raw)
    weights = place / "deformation.pth"
    if weights.exists():
        try:
            tensors = read_torch(weights)
        except Unreadable as error:
            raise InputError("weights of a deformation", str(error), FIX) from error
        if wrong := [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]:
            raise InputError("named tensors in deformation.pth", f"{shown(wrong[0])} is something else", FIX)
        found.tensors = tensors
    if arguments is not None:
        found.settings = read_arguments(arguments).settings
    else:
        for left in (Path(folder), *place.parents[:2]):
            if (left / "cfg_args").is_file():
                found.settings = _namespace(left / "cfg_args")
                break
    return found


def upstream_cameras(euler: Tensor, trans: Tensor) -> Tensor:
    """World-to-camera matrices of upstream's tracking, as its program makes them from `track_params.pt`.

    Args:
        euler: [F, 3] radians, about x, y and z.
        trans: [F, 3] translation.

    Returns:
        [F, 4, 4] with OpenCV axes, from the frame of `UpstreamCheckpoint.gaussians`.

    Raises:
        InputError: of other shapes.
    """
    if euler.shape != trans.shape or euler.shape[1:] != (3,):
        raise InputError("euler [F, 3] and trans [F, 3]", f"{list(euler.shape)} and {list(trans.shape)}",
                         "Give euler and trans of one track_params.pt.")
    # those of `from_euler_trans` expect heads with OpenCV axes; these keep upstream's
    return torch.from_numpy(from_euler_trans(euler.numpy(), trans.numpy()) @ FLIP_POSE).float()


def _activated(raw: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"means": raw["means"], "quats": raw["quats"], "scales": raw["scales"].exp(),
            "opacities": raw["opacities"].sigmoid(), "colors": raw["colors"]}


def _newest(folder: Path) -> Path:
    """The folder itself if it has a point_cloud.ply, else the one of the highest iteration."""
    if (folder / "point_cloud.ply").is_file():
        return folder
    numbers = {int(match[1]): path.parent for path in folder.glob("point_cloud/iteration_*/point_cloud.ply")
               if (match := re.fullmatch(r"iteration_(\d{1,9})", path.parent.name))}
    if not numbers:
        raise InputError("a checkpoint of EGSTalker or GaussianTalker",
                         f"no point_cloud.ply in '{shortened(folder)}'", FIX)
    return numbers[max(numbers)]


def _namespace(path: Path) -> dict[str, Any]:
    """The literals of a `cfg_args`, which is one line `Namespace(name=value, ...)`; upstream evaluates it."""
    try:
        call = ast.parse(read_text(path, MAX_YAML_BYTES).strip(), mode="eval").body
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "Namespace" or call.args:
            raise ValueError("not Namespace(...)")
        return {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ConfigError("a cfg_args that is Namespace(...) of literals", f"'{shortened(path)}'",
                          "Give upstream's file of arguments instead.") from error
