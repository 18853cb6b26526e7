"""What becomes of each setting of an upstream arguments file here: taken over, kept at ours, not used, or unknown.

Upstream behaviour is that of GaussianTalker's `train.py` and `arguments/__init__.py`, on which EGSTalker is built.
"""
from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from ..config import FIELDS

_SCALED = "ours kept: upstream multiplies it by the extent of its cameras; lengths here are head radii"
_TIME = "not used here: for scenes that change with time; here audio, eyes and pose drive the head"
_SWITCH = "not used here: the deformation offsets position, scale, rotation, opacity and colour"
_DELAY = "not used here: learning rates decay exponentially over the whole stage, without a delay"
_PRUNE = "not used here: each densification step also prunes"
_DENSE = "not used here: gsplat's DefaultStrategy decides between clone and split by its own scale"
_LOADING = "not used here: loading and rendering need no such switch"
_HEADS = "not used here: the five heads have two layers each, as wide as net_width says"

#: upstream's name -> that of the same setting here
RENAMED = {"d_model": "net_width", "n_head": "num_heads", "opacity_threshold_coarse": "opacity_threshold",
           "densify_grad_threshold_fine_init": "densify_grad_threshold_fine"}

#: settings that exist here under the same name but are not comparable, and why
KEPT = {
    "position_lr_init": f"{_SCALED}, and ours is ten times upstream's",
    "position_lr_final": f"{_SCALED}, and ours is ten times upstream's",
    "deformation_lr_init": _SCALED, "deformation_lr_final": _SCALED, "grid_lr_init": _SCALED, "grid_lr_final": _SCALED,
    "bounds": "ours kept: in head radii here, in units of the scene upstream",
    "lambda_dssim": "ours kept: upstream's train.py does not read it; it always takes 0.8 L1 + 0.2 D-SSIM",
}

#: settings that are taken over, with what differs in their meaning
REMARKS = {
    "iterations": "here all steps; upstream runs coarse_iterations and then these",
    "densify_from_iter": "on one counter; upstream's starts again with the fine stage",
    "densify_until_iter": "on one counter; upstream's starts again with the fine stage",
    "batch_size": "in both stages; upstream's coarse stage always takes 1",
}

#: settings that do not exist here, and why
ABSENT = {
    "lip_fine_tuning": "not used here: lambda_lip is the weight of the lips; 0 leaves them out",
    "depth_fine_tuning": "not used here: lambda_mask is the weight of opacity against mask; 0 leaves it out",
    "lambda_lpips": "not used here: lambda_perceptual is the weight of VGG16's features (upstream: always 0.01)",
    "split_gs_in_fine_stage": "not used here: the densification window may reach into the fine stage",
    "densify_grad_threshold_after": "not used here: densify_grad_threshold_fine stays the same",
    "opacity_threshold_fine_init": "not used here: opacity_threshold holds in both stages",
    "opacity_threshold_fine_after": "not used here: opacity_threshold holds in both stages",
    "opacity_reset_interval": "not used here: opacities are never reset; resets are a known way to lose a head",
    "canonical_tri_plane_factor_list": "not used here: opacity and colour are optimised directly in the coarse stage; "
                                       "from the tri-plane (attributes: triplane), opacity may collapse",
    "train_tri_plane": "not used here: the tri-plane is trained in the fine stage",
    "train_l": "not used here: every group is trained",
    "drop_prob": "not used here: weight_decay, weight_average, mouth_noise and token_dropout counter overfitting",
    "n_layer": "not used here: one layer of attention", "ffn_hidden": _HEADS, "defor_depth": _HEADS,
    "static_mlp": _HEADS, "pos_emb": "not used here: no positional encoding",
    "grid_pe": "not used here: no positional encoding",
    "empty_voxel": "not used here: no grid of empty space",
    "apply_rotation": "not used here: the offsets of quaternions are added to them",
    "plane_tv_weight": "not used here: the tri-plane has no smoothness term",
    "pruning_from_iter": _PRUNE, "pruning_interval": _PRUNE, "percent_dense": _DENSE,
    "add_point": "not used here: max_points limits growth", "add_points": "not used here: max_points limits growth",
    **dict.fromkeys(["position_lr_delay_mult", "position_lr_max_steps", "deformation_lr_delay_mult",
                     "deformation_lr_max_steps"], _DELAY),
    **dict.fromkeys(["time_smoothness_weight", "l1_time_planes", "timebase_pe", "posebase_pe", "scale_rotation_pe",
                     "opacity_pe", "timenet_width", "timenet_output", "zerostamp_init"], _TIME),
    **dict.fromkeys(["no_dx", "no_grid", "no_ds", "no_dr", "no_do", "no_dshs"], _SWITCH),
    **dict.fromkeys(["dataloader", "custom_sampler", "render_process", "only_infer", "visualize_attention", "eval",
                     "extension", "llffhold", "data_device", "images", "resolution", "debug", "convert_SHs_python",
                     "compute_cov3D_python"], _LOADING),
    **dict.fromkeys(["weight_constraint_init", "weight_constraint_after", "weight_decay_iteration"],
                    "not used here: upstream's train.py does not read it either"),
    "source_path": "not used here: the dataset is the first argument of `egs train`",
    "model_path": "not used here: the run folder is the second argument of `egs train`",
    "white_background": "not used here: the background is the dataset's own",
}
#: text, which names files, and services that get rendered frames: never from the file of a stranger
NOT_THEIRS = {name for name, entry in FIELDS.items() if isinstance(entry.default, str)}


@dataclass(frozen=True)
class SettingVerdict:
    """What becomes of one upstream setting: in a sentence, and the settings here that follow from it."""

    text: str
    sets: dict[str, Any] = field(default_factory=dict)


def verdict(name: str, theirs: dict[str, Any]) -> SettingVerdict:
    """What becomes of the setting `name` of an upstream file, whose settings are `theirs`."""
    value = theirs[name]
    if name == "_base_":
        return SettingVerdict("not followed: run `egs config` on that file too, or copy its settings into this one")
    if name in ("kplanes_config", "multires"):
        return _planes(name, theirs)
    if name == "net_width" and "d_model" in theirs:
        return SettingVerdict("not used here: width of upstream's decoder; d_model is what net_width is here")
    if name in RENAMED:
        return SettingVerdict(f"taken over as {RENAMED[name]}", {RENAMED[name]: value})
    if name in KEPT:
        return SettingVerdict(KEPT[name])
    if name in ABSENT:
        return SettingVerdict(ABSENT[name])
    if name in FIELDS and name not in NOT_THEIRS:
        return SettingVerdict("taken over" + (f" ({REMARKS[name]})" if name in REMARKS else ""), {name: value})
    known = [*RENAMED, *KEPT, *ABSENT, "kplanes_config", "multires", *(f for f in FIELDS if f not in NOT_THEIRS)]
    near = difflib.get_close_matches(name[:100], known, 1, 0.7)
    return SettingVerdict("unknown" + (f"; did you mean '{near[0]}'?" if near else ""))


def _planes(name: str, theirs: dict[str, Any]) -> SettingVerdict:
    """`kplanes_config`: channels and base resolution of the planes; `multires`: factors of that resolution."""
    planes, factors = theirs.get("kplanes_config"), theirs.get("multires")
    cells = _resolution(planes, factors)
    if name == "multires":
        return SettingVerdict("taken over in plane_resolution" if cells else
                       "ours kept: plane_resolution needs kplanes_config too, with the same resolution in x, y and z")
    if not isinstance(planes, dict):
        return SettingVerdict("ours kept: kplanes_config is no dictionary")
    sets = {key: planes[key] for key in ("input_coordinate_dim", "output_coordinate_dim") if key in planes}
    if cells:
        sets["plane_resolution"] = cells
    why = "" if cells else "; plane_resolution is ours: it needs multires too, and the same resolution in x, y and z"
    return SettingVerdict(f"taken over as {', '.join(sets)}{why}" if sets else f"not used here{why}", sets)


def _resolution(planes: Any, factors: Any) -> list[int]:
    """Cells along each axis for each factor of `multires`; empty if the two do not say so."""
    base = planes.get("resolution") if isinstance(planes, dict) else None
    if not isinstance(base, (list, tuple)) or not isinstance(factors, (list, tuple)):
        return []
    if not all(type(number) is int for number in (*base, *factors)) or len(base) < 3 or len(set(base[:3])) > 1:
        return []
    return [base[0] * factor for factor in factors]
