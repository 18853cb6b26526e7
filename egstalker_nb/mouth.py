"""From sound to the shape of a mouth, and from there, not from sound, to Gaussians.

A few seconds of a clip do not say how one voice's sounds move thousands of Gaussians: a network that tries learns
them by heart and then hardly moves for another voice. They do say which few shapes this mouth takes (principal
components of the tracked lips and jaw), what each looks like, and roughly which phones call for which. Upstream goes
from sound to Gaussians in one step.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from . import ridge
from .dataset import Dataset
from .expression import LOWER
from .phones import CLASSES, OPENNESS
from .silence import passages

MODES = 8               # principal components; 8 hold 98 % of the lips' and jaw's motion on real clips
RANK = 1e-4             # of the first component's spread: components of less are rounding errors
CENTRE = 8              # step of a frame's window (16 steps at 50 Hz) that lies at the frame's own time
TAPS = (-2, 0, 2, 4)    # steps around it that speak for a shape; lips move before the sound
OPEN_TAPS = (-6, -3, 0, 3, 6)  # the same, of how open the phones are
BLUR = 1.0              # steps, standard deviation of each tap
OPEN_WEIGHT = 3.0       # how much less the weights of openness are drawn to 0
RIDGE = 3.0             # penalty per frame, inputs having unit variance
LEAST_R = 0.1           # correlation from which a mode counts as heard
SHUT_SHARE = 0.1        # share of the training frames that show a shut mouth
CLOSING = 1.5           # frames, softness of closing and opening around silence
SHAPE = 2 * len(LOWER)
INPUTS = len(TAPS) * len(CLASSES) + len(OPEN_TAPS)


def _taps(at: tuple, steps: int = 16) -> Tensor:
    """Soft taps of a window: [len(at), steps], rows sum to 1."""
    distance = torch.arange(steps)[None] - CENTRE - torch.tensor(at)[:, None]
    weight = torch.exp(-0.5 * (distance / BLUR) ** 2)
    return weight / weight.sum(1, keepdim=True)


class Mouth(nn.Module):
    """One person's mouth: its shapes, and which sounds call for them. Nothing in it is trained by gradients.

    A shape is a code of 8 numbers, each of unit variance over the training frames.

    Attributes:
        codes: [N, 8] of the dataset's frames: as tracked where the head trains, as heard where it is validated.
        shut: [8] the code of the closed mouth. heard_r: [8] how well each is heard: correlation on frames left out.
    """

    def __init__(self, frames: int):
        super().__init__()
        for name, shape in {"mean": (SHAPE,), "modes": (MODES, SHAPE), "spread": (MODES,), "weights": (INPUTS, MODES),
                            "input_mean": (INPUTS,), "input_spread": (INPUTS,), "openness": (len(CLASSES),),
                            "shut": (MODES,), "heard_r": (MODES,), "codes": (frames, MODES)}.items():
            self.register_buffer(name, torch.zeros(shape))

    def of_shapes(self, shapes: Tensor) -> Tensor:
        """Tracked shapes [N, D] (see `lower_face`) -> codes [N, 8]."""
        return (shapes - self.mean) @ self.modes.t() / self.spread

    def to_shapes(self, codes: Tensor) -> Tensor:
        """Codes [N, 8] -> shapes [N, D], head units."""
        return codes * self.spread @ self.modes + self.mean

    def inputs(self, features: Tensor) -> Tensor:
        """What is heard around each frame: features [N, 16, 29] -> [N, INPUTS]."""
        phones = torch.einsum("nsc,ts->ntc", features, _taps(TAPS).to(features)).flatten(1)
        opened = features.square() @ self.openness @ _taps(OPEN_TAPS).to(features).t()
        return torch.cat([phones, opened], 1)

    def heard(self, features: Tensor, silent: Tensor) -> Tensor:
        """The shapes that a sound calls for.

        Args:
            features: [N, 16, 29] of consecutive frames. silent: [N] 0...1, see `shut_in_silence`.

        Returns:
            codes [N, 8].
        """
        spoken = (self.inputs(features) - self.input_mean) / self.input_spread @ self.weights
        return torch.lerp(spoken, self.shut.expand_as(spoken), silent[:, None])


def shut_in_silence(wave: np.ndarray, frames: int) -> np.ndarray:
    """How far the mouth is to be shut, [frames] float32 0...1: 1 in silence (see `passages`), softly at its ends."""
    from scipy.ndimage import gaussian_filter1d

    silent, _ = passages(wave, frames)
    return gaussian_filter1d(silent.astype(np.float32), CLOSING, mode="nearest")


def fit_mouth(ds: Dataset) -> Mouth:
    """Find a dataset's mouth shapes on its training frames, and the sounds that call for them.

    The link is a ridge regression, whose few degrees of freedom suit a few seconds. What it explains of a shape is
    small, and the rest of the motion would be missing: codes are scaled so that their spread lies between what is
    explained (a share r of the mouth's own) and all of it, at sqrt(r).
    """
    mouth, shapes, features = Mouth(len(ds)), torch.from_numpy(ds.mouth), torch.from_numpy(ds.features)
    known = shapes[:ds.num_train]
    mouth.mean.copy_(known.mean(0))
    _, values, modes = torch.linalg.svd((known - mouth.mean).double(), full_matrices=False)
    # what is left beyond the mouth's own degrees of freedom is rounding, which no sound calls for
    count = min(MODES, int((values > RANK * values[0]).sum()))
    mouth.modes[:count] = modes[:count].float()
    mouth.spread[:count] = values[:count].float() / len(known) ** 0.5
    mouth.spread.clamp_(min=1e-6)
    if ds.encoder.get("name") == "phones":
        mouth.openness.copy_(torch.tensor([OPENNESS[name] for name in CLASSES]))
    codes = mouth.of_shapes(shapes)
    aperture = torch.from_numpy(ds.aperture[:ds.num_train])
    least = aperture.argsort()[:max(1, round(SHUT_SHARE * len(aperture)))]
    mouth.shut.copy_(codes[least].mean(0))
    _fit_link(mouth, mouth.inputs(features)[:ds.num_train], codes[:ds.num_train])
    silent = torch.from_numpy(shut_in_silence(ds.audio(), len(ds)))
    mouth.codes.copy_(torch.cat([codes[:ds.num_train], mouth.heard(features, silent)[ds.num_train:]]))
    return mouth


def _fit_link(mouth: Mouth, inputs: Tensor, codes: Tensor) -> None:
    """Weights from inputs [N, INPUTS] to codes [N, 8]."""
    mouth.input_mean.copy_(inputs.mean(0))
    # constant inputs (a silent class, no openness) stay without effect
    spread = inputs.std(0)
    mouth.input_spread.copy_(torch.where(spread > 1e-4, spread, torch.inf))
    x = ((inputs - mouth.input_mean) / mouth.input_spread).double()
    free = torch.ones(INPUTS, dtype=torch.float64)
    free[-len(OPEN_TAPS):] = OPEN_WEIGHT
    x, y = x * free, codes.double()
    guessed = torch.from_numpy(ridge.left_out(x.numpy(), y.numpy(), RIDGE))
    r = torch.nan_to_num(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(guessed.t(), y.t())]))
    mouth.heard_r.copy_(r)
    scale = r.clamp_min(LEAST_R).sqrt() / guessed.std(0).clamp_min(1e-3)
    scale = torch.where(r > 0, scale, LEAST_R)
    mouth.weights.copy_(torch.from_numpy(ridge.weights(x.numpy(), y.numpy(), RIDGE)) * free[:, None] * scale)
