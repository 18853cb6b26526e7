"""From sound to the shape of a mouth, and from there, not from sound, to Gaussians.

A few seconds of a clip do not say how one voice's sounds move thousands of Gaussians: a network that tries learns
them by heart and then hardly moves for another voice. They do say which few shapes this mouth takes (principal
components of the tracked lips and jaw), what each looks like, and roughly which phones call for which. Upstream goes
from sound to Gaussians in one step.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..face.expression import LOWER
from ..speech.phones import CLASSES

MODES = 8               # principal components; 8 hold 98 % of the lips' and jaw's motion on real clips
CENTRE = 8              # step of a frame's window (16 steps at 50 Hz) that lies at the frame's own time
TAPS = (-2, 0, 2, 4)    # steps around it that speak for a shape; lips move before the sound
OPEN_TAPS = (-6, -3, 0, 3, 6)  # the same, of how open the phones are
BLUR = 1.0              # steps, standard deviation of each tap
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
                            "shut": (MODES,), "cross_validated_r": (MODES,), "coefficients": (frames, MODES)}.items():
            self.register_buffer(name, torch.zeros(shape))

    def encode(self, shapes: Tensor) -> Tensor:
        """Tracked shapes [N, D] (see `lower_face`) -> codes [N, 8]."""
        return (shapes - self.mean) @ self.modes.t() / self.spread

    def decode(self, coefficients: Tensor) -> Tensor:
        """Codes [N, 8] -> shapes [N, D], head units."""
        return coefficients * self.spread @ self.modes + self.mean

    def inputs(self, features: Tensor) -> Tensor:
        """What is heard around each frame: features [N, 16, 29] -> [N, INPUTS]."""
        phones = torch.einsum("nsc,ts->ntc", features, _taps(TAPS).to(features)).flatten(1)
        opened = features.square() @ self.openness @ _taps(OPEN_TAPS).to(features).t()
        return torch.cat([phones, opened], 1)

    def predict(self, features: Tensor, silent: Tensor) -> Tensor:
        """The shapes that a sound calls for.

        Args:
            features: [N, 16, 29] of consecutive frames. silent: [N] 0...1, see `shut_in_silence`.

        Returns:
            codes [N, 8].
        """
        spoken = (self.inputs(features) - self.input_mean) / self.input_spread @ self.weights
        return torch.lerp(spoken, self.shut.expand_as(spoken), silent[:, None])


