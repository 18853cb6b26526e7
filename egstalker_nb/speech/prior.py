"""The speaker prior: how lips and jaw move with speech, learned from many people.

A few seconds of one person do not determine how a mouth follows speech: what is fitted on them follows another voice
badly. The prior maps a window of audio features to a mouth space that all speakers share: principal components of lip
and jaw motion, each clip centred and scaled to the same size. A head only learns how this space looks on its own face
(`model.mouth.PriorLink`). Upstream has no prior.

The shipped one was fitted by `tools/prior/fit.py`; `fit_prior` makes another from any clips.
"""
from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Mapping, Optional

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ..core.errors import InputError, first_line
from ..core.files import check_target, shortened, write_bytes
from ..core.reading import Unreadable, read_safetensors
from ..media.audio import FEATURE_CHANNELS, WINDOW_STEPS

COMPONENTS = 8           # of the mouth space; they explain 94 % of the motion of lips and jaw of speakers
SHAPE = 214              # numbers of a mouth shape, see `face.expression.lower_face`
PROJECTED = 50           # principal components of the inputs
NETS, WIDTH = 6, 48      # networks that are averaged, and their channels
TAPS = tuple(range(-8, 8, 2))  # steps of a window that the linear part sees; the frame's own time is 0
TAP_BLUR = 1.0           # steps, standard deviation of each tap
MIN_ROOT = 0.0025        # of a probability, under its logarithm: the encoder is never surer than that
ROOT_WEIGHT = 4.0        # of the roots beside the logarithms
CHUNK = 2000             # frames processed at once, which bounds memory
BUILT_IN = Path(__file__).parent / "weights" / "prior.safetensors"


class Prior(nn.Module):
    """Windows of audio features [N, 16, 29] -> motion of lips and jaw in the shared mouth space [N, 8].

    The prediction is the mean of a ridge regression and of `NETS` small convolutional networks. It uses one window per
    frame and nothing else, so that a stream and a file give the same.

    Args:
        encoder: spec of the audio encoder whose features it takes.

    Attributes:
        encoder: likewise.
        facts: what it was fitted on, JSON-serialisable.
        basis: [8, 214] orthonormal rows, the components of the mouth space.
        spread: [8] standard deviation of each over the speakers, for motion of unit standard deviation.
        gain: [8] 0...1, how much of each component's motion is used; motion that audio does not determine is left out.
    """

    basis: Tensor
    spread: Tensor
    gain: Tensor
    input_mean: Tensor
    projection: Tensor
    linear: Tensor

    def __init__(self, encoder: Mapping[str, Any]):
        super().__init__()
        self.encoder: dict[str, Any] = dict(encoder)
        self.facts: dict[str, Any] = {}
        channels = FEATURE_CHANNELS * (2 if self.has_phones else 1)
        projected = min(PROJECTED, channels)
        for name, shape in {"basis": (COMPONENTS, SHAPE), "spread": (COMPONENTS,), "gain": (COMPONENTS,),
                            "input_mean": (channels,), "projection": (projected, channels),
                            "linear": (len(TAPS) * projected + 1, COMPONENTS)}.items():
            self.register_buffer(name, torch.zeros(shape))
        self.gain.fill_(1)
        with torch.random.fork_rng(devices=[]):  # loading a prior must not change what the caller draws next
            self.nets = Nets(projected)

    @property
    def has_phones(self) -> bool:
        """Whether the features are phone posteriors."""
        return self.encoder.get("name") == "phones"

    def expanded(self, features: Tensor) -> Tensor:
        """Audio features [..., 29] -> what is projected [..., 29 or 58]: posteriors also as logarithms."""
        if not self.has_phones:
            return features
        return torch.cat([ROOT_WEIGHT * features, 2 * features.clamp_min(MIN_ROOT).log()], -1)

    def inputs(self, features: Tensor) -> Tensor:
        """Audio features [..., T, 29] -> standardised projections [..., T, C]."""
        return (self.expanded(features) - self.input_mean) @ self.projection.t()

    def linear_inputs(self, x: Tensor) -> Tensor:
        """Inputs of the ridge regression: projections [N, 16, C] -> [N, len(TAPS) * C + 1]; the last one is 1."""
        seen = torch.einsum("nsc,ts->ntc", x, taps(TAPS, TAP_BLUR).to(x)).flatten(1)
        return torch.cat([seen, seen.new_ones(len(seen), 1)], 1)

    def predict(self, x: Tensor) -> Tensor:
        """Projections [N, 16, C] -> predictions [N, 8], see `forward`."""
        return (self.linear_inputs(x) @ self.linear + self.nets(x.transpose(1, 2))[..., 0]) / 2

    def forward(self, features: Tensor) -> Tensor:
        """Predict the motion of lips and jaw.

        Args:
            features: [N, 16, 29] of the encoder `encoder`, one window per frame.

        Returns:
            [N, 8] of about unit standard deviation in speech where the prediction is sure, less where it is not.
        """
        return torch.cat([self.predict(self.inputs(part)) for part in features.split(CHUNK)])

    def motion(self, predicted: Tensor) -> Tensor:
        """Predictions [N, 8] -> motion of lips and jaw [N, 214], standard deviation about 1 over all its numbers."""
        return predicted * self.gain * self.spread @ self.basis


class Nets(nn.Module):
    """`NETS` convolutional networks side by side (grouped convolutions), each over the 16 steps of a window.

    Args:
        channels: of the input.
    """

    def __init__(self, channels: int):
        super().__init__()
        wide = NETS * WIDTH
        self.first = nn.Conv1d(channels * NETS, wide, 1, groups=NETS)
        self.wider = nn.ModuleList([nn.Conv1d(wide, wide, 5, groups=NETS) for _ in range(2)])
        self.frame = nn.Conv1d(wide, wide, 8, stride=2, groups=NETS)
        self.last = nn.Conv1d(wide, NETS * COMPONENTS, 1, groups=NETS)

    def each(self, x: Tensor, drop: float = 0.0) -> Tensor:
        """Predictions of each network.

        Args:
            x: [B, C, T] projections of T consecutive steps (16 or more, even).
            drop: share of the channels that are dropped in training.

        Returns:
            [B, NETS, 8, (T - 14) / 2] for the frames in the middle of each 16 steps.
        """
        def active(x: Tensor) -> Tensor:
            return F.dropout1d(F.gelu(x), drop, self.training)

        x = self.first(x.repeat(1, NETS, 1))
        for layer in self.wider:
            x = x[..., 2:-2] + layer(active(x))
        x = self.last(active(self.frame(active(x))))
        return x.unflatten(1, (NETS, COMPONENTS))

    def forward(self, x: Tensor) -> Tensor:
        """Their mean, [B, 8, (T - 14) / 2]; see `each`."""
        return self.each(x).mean(1)


def taps(at: tuple[int, ...], blur: float) -> Tensor:
    """Gaussian taps of a window: [len(at), 16], rows sum to 1.

    Args:
        at: steps from the frame's own time.
        blur: standard deviation in steps.
    """
    distance = torch.arange(WINDOW_STEPS)[None] - WINDOW_STEPS // 2 - torch.tensor(at)[:, None]
    weight = torch.exp(-0.5 * (distance / blur) ** 2)
    return weight / weight.sum(1, keepdim=True)


def save_prior(prior: Prior, path: str | Path) -> Path:
    """Write a prior as .safetensors (float16, about 0.5 MB), atomically.

    Raises:
        InputError: another suffix, or a folder that cannot be written to.
    """
    path = check_target(path, ".safetensors")
    tensors = {name: value.half().contiguous() for name, value in prior.state_dict().items()}
    facts = {"encoder": json.dumps(prior.encoder), "facts": json.dumps(prior.facts)}
    write_bytes(path, save(tensors, metadata=facts))
    return path


def load_prior(path: Optional[str | Path] = None) -> Prior:
    """Load a prior; nothing in the file is executed.

    Args:
        path: a file of `save_prior` or `fit_prior`; default: the one that is shipped with the package.

    Returns:
        the Prior, on the CPU, in evaluation mode.

    Raises:
        InputError: no such file, or not a prior.
    """
    return _load(Path(path).expanduser() if path else BUILT_IN)


def _load(path: Path) -> Prior:
    if not path.is_file():
        raise InputError("a speaker prior (.safetensors)", f"no file '{path}'",
                         "Give the path of a file that egs.fit_prior wrote, or leave it out for the built-in one.")
    try:
        tensors, facts = read_safetensors(path)
        tensors = {name: value.float() for name, value in tensors.items()}
        prior = Prior(json.loads(facts["encoder"]))
        prior.facts = json.loads(facts["facts"])
        prior.load_state_dict(tensors)
    except Unreadable as error:
        raise InputError("a speaker prior that egs.fit_prior wrote", str(error),
                         "Fit it again, or leave it out.") from error
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise InputError("a speaker prior that egs.fit_prior wrote", f"'{shortened(path)}' with other tensors or facts "
                         f"({first_line(error)})", "Fit it again, or leave it out.") from error
    if not all(value.isfinite().all() for value in tensors.values()):
        raise InputError("a speaker prior of finite numbers", f"NaN or infinite values in '{path}'", "Fit it again.")
    return prior.eval().requires_grad_(False)


@lru_cache(1)
def built_in_prior() -> Prior:
    """The prior of the package, loaded once; not to be changed."""
    return load_prior()
