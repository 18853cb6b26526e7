"""The presets as a table, and the differences between configurations with the effect of each setting."""
from __future__ import annotations

from html import escape
from typing import Any, Sequence

from ..config import FIELDS, Config, densification_steps, describe, load_config, loadable, presets
from ..core.errors import ConfigError
from ..core.table import Table, text

#: setting -> effect of a difference in it, in a sentence; the most important first
EFFECTS = {
    "coarse_iterations": "The coarse stage builds the structure of the face; if too short, a blurred head is animated.",
    "densify_from_iter": "A later start leaves fewer steps to train new Gaussians; beyond the end there are none.",
    "densify_until_iter": "A longer window adds more Gaussians; the steps after it only refine the existing ones.",
    "densify_grad_threshold_coarse": "Lower: more Gaussians in the coarse stage, so more detail and a higher cost.",
    "densify_grad_threshold_fine": "The same in the fine stage.",
    "batch_size": "More frames per step: smoother gradients, but each step costs more.",
    "iterations": "Longer training sharpens the image as long as Gaussians are added or move; short clips overfit.",
    "max_points": "Limits memory and time; the Gaussians with the largest gradients are cloned or split first.",
    "densification_interval": "Shorter: Gaussians are added faster, from gradients averaged over fewer frames.",
    "torso_steps": "More steps: neck, collar and shoulders fit the frames better, for some seconds more.",
    "pose_steps": "More steps: head poses fit the frames better, for sharper heads and some seconds more.",
    "opacity_threshold": "Higher: more transparent Gaussians are pruned in each densification step.",
    "position_lr_init": "Speed of the Gaussians at first; too high scatters them, too low leaves holes.",
    "position_lr_final": "Speed of the Gaussians at the end.",
    "opacity_lr": "How fast opacities change; too high is the most common cause of an opacity collapse.",
    "scaling_lr": "How fast scales change.",
    "rotation_lr": "How fast rotations change.",
    "feature_lr": "How fast colours are learned.",
    "lambda_lip": "Weight of the error inside the lips: higher favours the mouth over the rest.",
    "lambda_dssim": "Weight of the structural error: higher gives crisper edges and texture.",
    "lambda_l1": "Weight of the absolute error: higher gives softer images with more accurate colours.",
    "lambda_perceptual": "Weight of the difference of VGG16's features: higher gives more texture, and slower steps.",
    "adversarial_share": "Higher: sharper lips and teeth, also where they are not those of the video; slower steps.",
    "lambda_mask": "Keeps Gaussians on the head; without it they also cover torso and background.",
    "deformation_lr_init": "How fast the network learns the deformation by audio, eyes and camera at first.",
    "deformation_lr_final": "The same at the end.",
    "grid_lr_init": "How fast the tri-plane features are learned at first.",
    "grid_lr_final": "The same at the end.",
    "weight_average": "A longer average gives steadier motion but lags behind training.",
    "weight_decay": "Pulls the weights towards zero: less overfitting; weaker expressions if too strong.",
    "mouth_noise": "Noise on the mouth coefficients: robust to errors of predicted ones; too much blurs the lips.",
    "token_dropout": "Replaces the eye or camera token at times: less overfitting.",
    "plane_resolution": "Finer planes separate neighbouring parts of the face, and overfit earlier.",
    "output_coordinate_dim": "Channels of the tri-plane: capacity of the features of each position.",
    "net_width": "Width of the network; must equal the number of tri-plane features.",
    "bounds": "Size of the tri-plane's cube: points outside share the features of its border.",
    "attributes": "Tri-plane: neighbours share opacity and colour; opacity may collapse.",
    "audio_token": "Features: the clip alone teaches what its audio does to the face; another voice hardly moves it.",
    "token_views": "All: lips also follow eyes and camera, lids also audio; on short clips they memorise the frames.",
    "sh_degree": "View-dependent colour; a head that turns little needs a low degree.",
    "num_heads": "Number of attention heads over the tokens.",
    "num_agents": "Number of agents: groups of Gaussians that share their attention to the tokens.",
    "input_coordinate_dim": "A tri-plane is sampled at 3D points: only 3 works.",
    "prior": "Another link from audio to the mouth, learned from other speakers; training itself does not change.",
    "seed": "Another order of frames and initialisation: the spread between seeds is the noise of a comparison.",
    "eval_interval": "Density of the validation curve; no effect on quality.",
    "checkpoint_interval": "Work lost by an interruption; no effect on quality.",
    "keep_checkpoints": "Space on the disk; no effect on quality.",
    "tracking": "Where curves are shown as well; no effect on quality.",
}

#: setting -> the lesson it belongs to: the four most common causes of poor quality
LESSONS = {
    "coarse_iterations": "1 foundation", "densify_from_iter": "2 window", "densify_until_iter": "2 window",
    "densify_grad_threshold_coarse": "3 threshold", "densify_grad_threshold_fine": "3 threshold",
    "batch_size": "4 batch",
}
NO_EFFECT = ("eval_interval", "checkpoint_interval", "keep_checkpoints", "tracking")  # on quality


class Differences(Table):
    """Settings that differ. Bars and bold names mark lessons; values that differ from the first column are bold."""

    def _repr_html_(self) -> str:
        lesson, name, *configs, _ = (f"<th style='text-align:left'>{escape(str(c))}</th>" for c in self.columns)
        body = "".join(map(self._row, self.rows))
        return (f"<table><caption>{escape(self.caption)}</caption><tr>{lesson}{name}{''.join(configs)}</tr>"
                f"{body}</table>")

    def _row(self, row: Sequence[Any]) -> str:
        """One setting, with its effect below its name."""
        lesson, name, *values, what = row
        taught = lesson.startswith("lesson")
        style = f"text-align:left;{'font-weight:bold;border-left:5px solid #c1440e' if taught else ''}"
        cells = [f"<td style='{style}'>{escape(lesson)}</td>",
                 f"<td style='text-align:left'><code>{'<b>' if taught else ''}{escape(name)}{'</b>' if taught else ''}"
                 f"</code><br>{escape(what)}</td>"]
        cells += [f"<td style='text-align:right'>{'<b>' if v != values[0] else ''}{escape(text(v))}"
                  f"{'</b>' if v != values[0] else ''}</td>" for v in values]
        return f"<tr>{''.join(cells)}</tr>"


def importance(name: str) -> str:
    """How much a setting matters: `lesson N ...`, `quality` or `bookkeeping`."""
    if name in LESSONS:
        return f"lesson {LESSONS[name]}"
    return "bookkeeping" if name in NO_EFFECT else "quality"


def preset_table() -> Table:
    """The presets with the settings that decide quality; a preset that cannot be loaded is marked."""
    rows: list[tuple[Any, ...]] = []
    usable = loadable()
    for name in [*usable, *[p for p in presets() if p not in usable]]:
        if name not in usable:
            rows.append((name, "does not load", *[None] * 6, describe(name)))
            continue
        c = usable[name]
        window = f"{c.densify_from_iter} - {c.densify_until_iter}"
        rows.append((name, c.iterations, c.coarse_iterations, window, len(densification_steps(c)), c.batch_size,
                     c.densify_grad_threshold_coarse, c.iterations * c.batch_size, describe(name)))
    return Table(("preset", "iterations", "coarse", "densify from - until", "densification steps", "batch",
                  "threshold", "frames seen", "purpose"), rows, "Presets")


def differences(configs: dict[str, Config]) -> Differences:
    """The settings in which named configurations differ, the most important first, with the effect of each."""
    settings = [c.to_dict() for c in configs.values()]
    rows = [(importance(name), name, *[s[name] for s in settings], what) for name, what in EFFECTS.items()
            if any(s[name] != settings[0][name] for s in settings)]
    same = len(EFFECTS) - len(rows)
    return Differences(("matters", "setting", *configs, "effect"), rows,
                       f"Settings that differ, the most important first ({same} are equal; bold: unlike the first)")


def with_presets(configs: dict[str, Config]) -> dict[str, Config]:
    """Configurations of runs, and every preset that equals none of them, as `NAME (not trained)`."""
    def key(config: Config) -> dict[str, Any]:
        return {k: v for k, v in config.to_dict().items() if k != "preset"}

    trained = [key(c) for c in configs.values()]
    return {**configs, **{f"{name} (not trained)": c for name, c in loadable().items() if key(c) not in trained}}


def makes_grow(config: Config, other: Config, keep: Sequence[str] = ("iterations",)) -> list[str]:
    """The settings that, each alone taken from `other`, give `config` densification steps; those in `keep` stay."""
    found = []
    for name in FIELDS:
        if name in (*keep, "preset") or getattr(config, name) == getattr(other, name):
            continue
        try:
            if densification_steps(load_config("production", **{**config.to_dict(), name: getattr(other, name)})):
                found.append(name)
        except ConfigError:
            continue
    return found
