"""What settings do: the presets, and the differences between configurations with their effects."""
from __future__ import annotations

from html import escape
from typing import Any, Sequence

from ..config import FIELDS, Config, densification_steps, describe, load_config, loadable, presets
from ..core.errors import ConfigError
from ..core.table import Table, text

#: setting -> what a difference in it does, in a sentence; the most important first
EFFECTS = {
    "coarse_iterations": "The static stage builds the face's structure; with too few steps a blur is set in motion.",
    "densify_from_iter": "A later start leaves fewer steps to train what is born; beyond the end nothing grows.",
    "densify_until_iter": "A longer window lets more Gaussians appear; what follows it only refines those that exist.",
    "densify_grad_threshold_coarse": "A lower one lets more Gaussians grow in the coarse stage: detail, and cost.",
    "densify_grad_threshold_fine": "The same in the fine stage.",
    "batch_size": "More frames a step: smoother gradients, but each step costs more.",
    "iterations": "Longer training sharpens the picture while something still grows or moves; short clips overfit.",
    "max_points": "Caps memory and time; growth then goes where gradients are largest.",
    "densification_interval": "Shorter intervals grow faster, on gradients that were averaged over fewer frames.",
    "pose_steps": "How carefully head poses are fitted to the pictures: sharper heads for some seconds more.",
    "opacity_threshold": "A higher one removes more faint Gaussians in each round.",
    "position_lr_init": "How fast Gaussians travel at first; too fast scatters them, too slow leaves holes.",
    "position_lr_final": "How much they still travel at the end.",
    "opacity_lr": "How fast they fade in and out; too fast is the usual way to lose a head.",
    "scaling_lr": "How fast they change size.",
    "rotation_lr": "How fast they turn.",
    "feature_lr": "How fast colours are learned.",
    "lambda_lip": "Weight of the mouth: more of it, better lips at the cost of the rest.",
    "lambda_dssim": "Weight of structural error: more of it, crisper edges and texture.",
    "lambda_l1": "Weight of plain colour error: more of it, softer but truer colours.",
    "lambda_mask": "Keeps Gaussians on the head; without it they also paint torso and background.",
    "deformation_lr_init": "How fast audio, eyes and camera learn to move the face at first.",
    "deformation_lr_final": "How much they still learn at the end.",
    "grid_lr_init": "How fast the tri-plane learns what each place on the face does, at first.",
    "grid_lr_final": "How much it still learns at the end.",
    "weight_average": "A longer average renders steadier motion but lags behind training.",
    "weight_decay": "Pulls the network towards zero motion: less overfitting, and weaker expressions if too strong.",
    "mouth_noise": "Blurs the mouth's shape in training: kinder to what is only heard, and too much blurs the lips.",
    "token_dropout": "Forces the network to manage without eyes or camera at times: less overfitting.",
    "plane_resolution": "Finer planes separate neighbouring parts of the face, and overfit earlier.",
    "output_coordinate_dim": "Channels of the tri-plane: what it can say about a place.",
    "net_width": "Width of the network; must equal the tri-plane's features.",
    "bounds": "Size of the tri-plane's cube: points outside share the border's features.",
    "sh_degree": "Colour that changes with the view; a head that turns little does not need much.",
    "num_heads": "Ways in which a Gaussian can look at the sound at once.",
    "num_agents": "Groups of Gaussians that share their view of the sound.",
    "input_coordinate_dim": "A tri-plane is sampled at 3-D points: only 3 works.",
    "seed": "Another order of frames and other random starts: the spread between seeds is the noise of a comparison.",
    "eval_interval": "How dense the validation curve is; no effect on quality.",
    "checkpoint_interval": "How much work an interruption may cost; no effect on quality.",
}

#: setting -> the lesson that most poor heads come down to
LESSONS = {
    "coarse_iterations": "1 foundation", "densify_from_iter": "2 window", "densify_until_iter": "2 window",
    "densify_grad_threshold_coarse": "3 threshold", "densify_grad_threshold_fine": "3 threshold",
    "batch_size": "4 batch",
}
NO_EFFECT = ("eval_interval", "checkpoint_interval")  # on quality


class Differences(Table):
    """Settings that differ. Lessons stand out by a bar and bold names; values unlike the first column's are bold."""

    def _repr_html_(self) -> str:
        lesson, name, *configs, _ = (f"<th style='text-align:left'>{escape(str(c))}</th>" for c in self.columns)
        body = "".join(map(self._row, self.rows))
        return (f"<table><caption>{escape(self.caption)}</caption><tr>{lesson}{name}{''.join(configs)}</tr>"
                f"{body}</table>")

    def _row(self, row: Sequence[Any]) -> str:
        """One setting; what it does stands under its name, where there is room."""
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
    """The presets with the numbers that decide quality; a preset that cannot be loaded says so."""
    rows, usable = [], loadable()
    for name in [*usable, *[p for p in presets() if p not in usable]]:
        if name not in usable:
            rows.append((name, "does not load", *[None] * 6, describe(name)))
            continue
        c = usable[name]
        window = f"{c.densify_from_iter} - {c.densify_until_iter}"
        rows.append((name, c.iterations, c.coarse_iterations, window, len(densification_steps(c)), c.batch_size,
                     c.densify_grad_threshold_coarse, c.iterations * c.batch_size, describe(name)))
    return Table(("preset", "iterations", "coarse", "densify from - until", "growth rounds", "batch", "threshold",
                  "frames seen", "what it is for"), rows, "Presets")


def differences(configs: dict[str, Config]) -> Differences:
    """The settings in which named configurations differ, the most important first, and what each difference does."""
    settings = [c.to_dict() for c in configs.values()]
    rows = [(importance(name), name, *[s[name] for s in settings], what) for name, what in EFFECTS.items()
            if any(s[name] != settings[0][name] for s in settings)]
    same = len(EFFECTS) - len(rows)
    return Differences(("matters", "setting", *configs, "what it does"), rows,
                       f"Settings that differ, the most important first ({same} are the same; bold: unlike the first)")


def with_presets(configs: dict[str, Config]) -> dict[str, Config]:
    """Configurations of runs, and every preset that none of them has, as `NAME (not trained)`."""
    def key(config: Config) -> dict[str, Any]:
        return {k: v for k, v in config.to_dict().items() if k != "preset"}

    trained = [key(c) for c in configs.values()]
    return {**configs, **{f"{name} (not trained)": c for name, c in loadable().items() if key(c) not in trained}}


def makes_grow(config: Config, other: Config, keep: Sequence[str] = ("iterations",)) -> list[str]:
    """The settings that, taken alone from `other`, give `config` growth rounds; those in `keep` stay as they are."""
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
