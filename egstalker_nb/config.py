"""Training configurations: dataclasses, one per concern, loaded from presets or YAML and checked."""
from __future__ import annotations

import dataclasses
import difflib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .core.errors import ConfigError
from .core.files import shortened, write_text
from .core.reading import Unreadable, read_yaml, shown

PRESETS = Path(__file__).parent / "presets"
#: settings that came after the first version, and what a run of before goes on with
BEFORE_THEY_CAME: dict[str, Any] = {"adversarial_share": 0.0}
NEVER = 1_000_000_000  # an iteration that no run reaches
MAX_LISTED = 10        # problems of one configuration that a message lists
MAX_PLANES = 8         # entries of `plane_resolution`
MAX_TEXT = 1000        # characters of a setting that is text
TRACKERS = "tensorboard", "wandb", "mlflow"


def setting(default: Any, low: float, high: float, help: str) -> Any:
    """A dataclass field with its allowed range, ends included, and what it does, in one sentence or two."""
    return field(default=default, metadata={"low": low, "high": high, "help": help})


def choice(words: tuple[str, ...], help: str) -> Any:
    """A dataclass field with one of some words, the first by default, and what it does."""
    return field(default=words[0], metadata={"choices": words, "help": help})


@dataclass
class Schedule:
    """When things happen, on one counter that runs 1 ... iterations."""

    iterations: int = setting(30_000, 1, 1_000_000, "Training steps in all, coarse stage included.")
    coarse_iterations: int = setting(
        3_000, 1, 1_000_000, "Steps of the coarse stage: static, without audio; it builds the basic 3D structure.")
    batch_size: int = setting(1, 1, 64, "Frames per step.")
    checkpoint_interval: int = setting(
        5_000, 1, 1_000_000,
        "Steps between checkpoints; one is also written at the end of each stage and on interruption.")
    keep_checkpoints: int = setting(
        10, 1, 1_000_000, "Checkpoints to keep: the newest, and in any case that of the coarse stage.")
    eval_interval: int = setting(
        1_000, 1, 1_000_000,
        "Steps between evaluations on a few validation frames: for curves only, without effect on training.")
    pose_steps: int = setting(
        4, 0, 100, "Gauss-Newton steps that refine each frame's head pose against its image, at the end of the coarse "
                   "stage, after as many fine steps again and at the end; 0 keeps the tracked poses.")
    torso_steps: int = setting(
        1_200, 1, 1_000_000, "Steps that learn the torso layer of a clip of up to 10 s, before the first iteration; "
                             "longer clips have more, in proportion, up to half a minute's. A fortieth as many then "
                             "fit its pose in each frame.")
    seed: int = setting(0, 0, 2**31 - 1, "Seed of every random generator.")


@dataclass
class Densification:
    """Growing and pruning of the Gaussians, by the criteria of gsplat's DefaultStrategy."""

    densify_from_iter: int = setting(500, 0, NEVER, "Densification steps come after this iteration.")
    densify_until_iter: int = setting(15_000, 0, NEVER, "Densification steps come before this iteration.")
    densification_interval: int = setting(100, 1, NEVER, "Iterations between densification steps.")
    densify_grad_threshold_coarse: float = setting(
        0.0002, 1e-7, 1.0, "Mean image-plane gradient (per half image size) above which a Gaussian is cloned or split, "
                           "in the coarse stage.")
    densify_grad_threshold_fine: float = setting(
        0.0002, 1e-7, 1.0, "Mean image-plane gradient (per half image size) above which a Gaussian is cloned or split, "
                           "in the fine stage.")
    opacity_threshold: float = setting(
        0.05, 0.0, 0.5, "Gaussians below this opacity are pruned, which makes room below the cap. Upstream: 0.005.")
    max_points: int = setting(
        10_000, 478, 1_000_000, "Cap on the number of Gaussians: only those with the largest gradients are grown. "
                                "Without a cap, a threshold of 0.0002 makes their number explode.")


@dataclass
class Optimisation:
    """Learning rates, in head units (mean landmark radius = 1). `_init` decays exponentially to `_final`."""

    position_lr_init: float = setting(
        1.6e-3, 0.0, 1.0, "Learning rate of the positions at the first step. Ten times upstream's, which was too slow "
                          "in trials on real clips.")
    position_lr_final: float = setting(1.6e-5, 0.0, 1.0, "Learning rate of the positions at the last step.")
    scaling_lr: float = setting(5e-3, 0.0, 1.0, "Learning rate of the logarithms of the scales.")
    rotation_lr: float = setting(1e-3, 0.0, 1.0, "Learning rate of the rotations (quaternions).")
    opacity_lr: float = setting(5e-2, 0.0, 1.0, "Learning rate of the logits of the opacities.")
    feature_lr: float = setting(
        2.5e-3, 0.0, 1.0, "Learning rate of the spherical harmonics of degree 0; higher degrees take a twentieth.")
    deformation_lr_init: float = setting(
        8e-4, 0.0, 1.0, "Learning rate of token encoders, attention and heads at the first fine step.")
    deformation_lr_final: float = setting(
        8e-5, 0.0, 1.0, "Learning rate of token encoders, attention and heads at the last step.")
    grid_lr_init: float = setting(1.6e-3, 0.0, 1.0, "Learning rate of the tri-plane at the first fine step.")
    grid_lr_final: float = setting(1.6e-4, 0.0, 1.0, "Learning rate of the tri-plane at the last step.")
    weight_decay: float = setting(
        1e-4, 0.0, 1.0, "Decoupled weight decay (AdamW) of the deformation network: short clips overfit.")
    weight_average: float = setting(
        0.999, 0.0, 0.99999, "Decay of the exponential moving average (EMA) of the deformation network's weights, "
                             "which is used for rendering; 0 turns it off.")


@dataclass
class LossWeights:
    """Weights of the named loss terms; 0 leaves a term out."""

    lambda_l1: float = setting(0.8, 0.0, 100.0, "Weight of the mean absolute error of the composite.")
    lambda_dssim: float = setting(0.2, 0.0, 100.0, "Weight of 1 - SSIM of the composite.")
    lambda_lip: float = setting(
        0.2, 0.0, 100.0, "Weight of the mean absolute error inside the lip rectangle (fine stage).")
    lambda_mask: float = setting(
        0.1, 0.0, 100.0, "Weight of the mean absolute difference of splat opacity and head mask, which keeps Gaussians "
                         "off the torso and the background.")
    lambda_perceptual: float = setting(
        0.0, 0.0, 100.0, "Weight of the difference of VGG16's features. Upstream: 0.01; needs vgg16-397923af.pth in "
                         "PyTorch's hub cache, see docs/metrics.md.")
    adversarial_share: float = setting(
        0.5, 0.0, 10.0, "How strongly a discriminator of mouths, learned along with the head, pulls at the rendered "
                        "mouth: times the gradient of all other terms there, in the last third of the run.")


@dataclass
class Network:
    """The deformation network, and what drives its mouth."""

    sh_degree: int = setting(
        1, 0, 3, "Degree of the spherical harmonics. Upstream: 3, which a head that turns by a few degrees does not "
                 "need.")
    input_coordinate_dim: int = setting(3, 1, 4, "Coordinates of a point in the plane grid: 3 for a tri-plane.")
    plane_resolution: tuple[int, ...] = setting(
        (64, 128), 4, 1024, "Cells along each axis, one tri-plane per entry.")
    output_coordinate_dim: int = setting(32, 1, 256, "Channels of each tri-plane.")
    bounds: float = setting(
        4.0, 0.5, 100.0, "Half the edge of the tri-plane's cube, in head units; points outside take the border's "
                         "value.")
    net_width: int = setting(
        64, 8, 1024,
        "Width of tokens, attention and heads: the tri-plane's channels times the number of resolutions.")
    num_heads: int = setting(16, 1, 64, "Attention heads.")
    num_agents: int = setting(8, 1, 64, "Agent tokens of the efficient attention.")
    token_dropout: float = setting(
        0.0, 0.0, 0.9, "Probability that a frame's eye or camera token is replaced by the null token in training.")
    mouth_noise: float = setting(
        0.2, 0.0, 10.0, "Standard deviation of the noise added to the (normalised) mouth coefficients in training. "
                        "Audio features get none.")
    attributes: str = choice(
        ("own", "triplane"), "Opacity and colour of the canonical Gaussians: each has its own, or the tri-plane "
                             "predicts them, from the coarse stage on, as upstream.")
    audio_token: str = choice(
        ("mouth", "features"), "What the audio token is made of: mouth coefficients, or 8 neighbouring windows of "
                               "audio features, as upstream.")
    token_views: str = choice(
        ("by part", "all"), "Tokens that a Gaussian attends to: those of its part of the face, or all, as upstream.")
    prior: str = field(default="", metadata={
        "help": "File of the speaker prior (see egs.fit_prior), which predicts the mouth from audio; empty: the one "
                "of the package."})


@dataclass
class Config(Schedule, Densification, Optimisation, LossWeights, Network):
    """Everything that decides a training run. Names are upstream's; make one with `load_config`."""

    preset: str = field(default="custom", metadata={"help": "The preset or file that it was loaded from."})
    tracking: str = field(default="", metadata={
        "words": TRACKERS, "help": "Where metrics and snapshots are shown as well: tensorboard, wandb, mlflow, or "
                                   "several of them with commas; empty: nowhere."})

    def to_dict(self) -> dict[str, Any]:
        """Every setting by its name, as plain values that YAML and JSON have."""
        plain = dataclasses.asdict(self)
        plain["plane_resolution"] = list(self.plane_resolution)
        return plain

    def to_yaml(self) -> str:
        """Every setting, as a file that `load_config` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def save(self, path: str | Path) -> None:
        """Write every setting as YAML."""
        write_text(Path(path), self.to_yaml())

    @property
    def network_from(self) -> int:
        """The iteration after which the network is trained: the fine stage only, unless its tri-plane predicts
        opacity and colour, which the coarse stage needs too."""
        return 0 if self.attributes == "triplane" else self.coarse_iterations

    @property
    def adversarial_from(self) -> int:
        """The iteration after which the discriminator takes part: in the last third, when what it sees is nearly
        right. From twice the coarse stage on, lips become no sharper (two clips), and each step takes longer."""
        return max(self.coarse_iterations, self.iterations * 2 // 3)

    def stage(self, iteration: int) -> str:
        """`coarse` or `fine`."""
        return "coarse" if iteration <= self.coarse_iterations else "fine"


FIELDS = {f.name: f for f in dataclasses.fields(Config)}


def first_densification_step(cfg: Config) -> int:
    """The iteration at which the first densification step would take place in an endless run."""
    return (cfg.densify_from_iter // cfg.densification_interval + 1) * cfg.densification_interval


def densification_steps(cfg: Config) -> range:
    """Iterations of the densification steps of a configuration; gsplat's window is open at both ends."""
    end = min(cfg.densify_until_iter, cfg.iterations + 1)
    return range(first_densification_step(cfg), end, cfg.densification_interval)


def presets() -> list[str]:
    """Names of the presets."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def describe(name: str) -> str:
    """The first comment line of a preset: what it is for."""
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def load_config(name: str | Path, **overrides: Any) -> Config:
    """Load a configuration.

    Args:
        name: a preset (`quick_test`, `extended_test`, `production`, `egstalker_paper`) or the path of a YAML file. A
            YAML file holds only what differs from the defaults (production), or a whole saved `config.yaml`,
            also of an earlier version.
        overrides: settings that replace the file's.

    Raises:
        ConfigError: unknown name or key (with the nearest one), wrong type, out of range, or contradictions; all
            problems of a configuration are listed at once.
    """
    values = _read(name)
    values.update(overrides)
    values = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
    stem = Path(name).stem
    values.setdefault("preset", stem if stem.isprintable() else "custom")
    problems = problems_of(values)
    if problems:
        more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        listed = "".join(f"\n  - {p}" for p in problems[:MAX_LISTED] + more)
        raise ConfigError(f"a consistent configuration from '{shortened(name)}'",
                          f"{len(problems)} problem(s):{listed}",
                          "For good quality use 'production', for a pipeline test 'quick_test'.")
    return _config(values)


def problems_of(values: dict[str, Any]) -> list[str]:
    """What is wrong with settings, each alone or together, in plain sentences; empty if nothing is."""
    return [p for key, value in values.items() for p in _check(key, value)] or contradictions(_config(values))


def loadable() -> dict[str, Config]:
    """The presets that can be used, by name, the shortest first."""
    found = {}
    for name in presets():
        try:
            found[name] = load_config(name)
        except ConfigError:
            continue
    return dict(sorted(found.items(), key=lambda item: item[1].iterations))


def _read(name: str | Path) -> dict[str, Any]:
    if not isinstance(name, (str, Path)):
        raise ConfigError("the name of a preset or the path of a YAML file", shown(name), "Give one of them.")
    is_preset = str(name) in presets()
    if not is_preset and Path(name).name == str(name) and not Path(name).suffix and not os.path.lexists(name):
        hint = difflib.get_close_matches(str(name), presets(), 1, 0.5)
        usable = ", ".join(n for n in presets() if n != "args_default")
        raise ConfigError(f"a preset ({usable}) or the path of a YAML file", shown(str(name)),
                          f"Did you mean '{hint[0]}'?" if hint else "Choose one of them.")
    try:
        found = read_yaml(PRESETS / f"{name}.yaml" if is_preset else Path(name))
    except Unreadable as error:
        raise ConfigError("a YAML file of settings 'name: value'", str(error),
                          "Correct it, or use a preset: production, quick_test.") from error
    # only a saved configuration names its preset; one of an earlier version lacks settings
    return {**BEFORE_THEY_CAME, **found} if "preset" in found else found


def _check(key: Any, value: Any) -> list[str]:
    if key not in FIELDS:
        near = difflib.get_close_matches(str(key)[:100], FIELDS, 1, 0.7) if isinstance(key, str) else []
        return [f"{shown(key)} is not a setting" + (f"; did you mean '{near[0]}'?" if near else "")]
    default, bounds = FIELDS[key].default, FIELDS[key].metadata
    if isinstance(default, tuple):
        good = isinstance(value, (list, tuple)) and value and len(value) <= MAX_PLANES and all(
            type(v) is int and bounds["low"] <= v <= bounds["high"] for v in value)
        return [] if good else [f"{key} must be a list of whole numbers from {bounds['low']} to {bounds['high']}, not "
                                f"{shown(value)}"]
    if isinstance(default, str):
        good = isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()
        if not good:
            return [f"{key} must be text of one line, not {shown(value)}"]
        if value not in bounds.get("choices", (value,)):
            return [f"{key} must be one of {', '.join(bounds['choices'])}, not {shown(value)}"]
        known = bounds.get("words", ())
        wrong = [word for word in words(value) if word not in known] if known else []
        return [f"{key} must be one or several of {', '.join(known)}, with commas, not {shown(value)}"] if wrong else []
    number = type(value) is int or (isinstance(default, float) and type(value) is float and value == value)
    if not number:
        kind = "a number" if isinstance(default, float) else "a whole number"
        return [f"{key} must be {kind}, not {shown(value)}" + _notation_hint(value)]
    if not bounds["low"] <= value <= bounds["high"]:
        return [f"{key} must lie in {bounds['low']:g} ... {bounds['high']:g}, not {shown(value)}"]
    return []


def words(value: str) -> list[str]:
    """The words of a setting like `"tensorboard, wandb"`, each once."""
    return list(dict.fromkeys(word for word in (part.strip() for part in value.split(",")) if word))


def _notation_hint(value: Any) -> str:
    """YAML 1.1 reads `1e-3` as text: say so, it surprises everybody."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    return f" (in YAML write {number:.9f}".rstrip("0").rstrip(".") + ")" if 1e-9 < abs(number) < 1e9 else ""


def _config(values: dict[str, Any]) -> Config:
    return Config(**{key: _convert(key, value) for key, value in values.items()})


def _convert(key: str, value: Any) -> Any:
    default = FIELDS[key].default
    kind: Any = type(default)
    return kind(value)


def contradictions(c: Config) -> list[str]:
    """What is wrong between the settings, in plain sentences; empty if nothing is."""
    found = []
    width = c.output_coordinate_dim * len(c.plane_resolution)
    if c.input_coordinate_dim != 3:
        found.append(f"input_coordinate_dim is {c.input_coordinate_dim}: a plane grid of that dimension cannot be "
                     "sampled at 3-D points; the tri-plane needs 3")
    if c.net_width != width:
        found.append(f"net_width is {c.net_width}, but the tri-plane gives {len(c.plane_resolution)} x "
                     f"{c.output_coordinate_dim} = {width} features; the two must agree")
    if c.net_width % c.num_heads:
        found.append(f"net_width {c.net_width} cannot be divided among num_heads {c.num_heads}")
    if c.coarse_iterations > c.iterations:
        found.append(f"coarse_iterations {c.coarse_iterations} exceeds iterations {c.iterations}")
    if c.densify_from_iter > c.densify_until_iter:
        found.append(f"densify_from_iter {c.densify_from_iter} lies after densify_until_iter {c.densify_until_iter}")
    if not any((c.lambda_l1, c.lambda_dssim)):
        found.append("lambda_l1 and lambda_dssim are both 0: nothing would be learned")
    return found
