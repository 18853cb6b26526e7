"""Predicts the shape of the mouth from audio; the deformation network is conditioned on that shape, not on audio.

A few seconds of a clip cannot show how the audio of one voice moves thousands of Gaussians: a network that is trained
on it directly memorises the clip and hardly moves for another voice. We therefore use a low-dimensional bottleneck:
the principal components (PCA) of the tracked lips and jaw, and a linear prediction of their coefficients from phone
posteriors. Upstream predicts Gaussians from audio in one step.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..face.expression import LOWER
from ..speech.phones import CLASSES

MODES = 8               # principal components; 8 explain 98 % of the motion of lips and jaw on real clips
CENTRE = 8              # step of a frame's window (16 steps at 50 Hz) that lies at the frame's own time
TAPS = (-2, 0, 2, 4)    # steps around it from which coefficients are predicted; lips move before the sound
OPEN_TAPS = (-6, -3, 0, 3, 6)  # the same, for the mean openness of the phones
BLUR = 1.0              # steps, standard deviation of each tap
SHAPE = 2 * len(LOWER)
INPUTS = len(TAPS) * len(CLASSES) + len(OPEN_TAPS)


def _taps(at: tuple[int, ...], steps: int = 16) -> Tensor:
    """Gaussian taps of a window: [len(at), steps], rows sum to 1."""
    distance = torch.arange(steps)[None] - CENTRE - torch.tensor(at)[:, None]
    weight = torch.exp(-0.5 * (distance / BLUR) ** 2)
    return weight / weight.sum(1, keepdim=True)


class Mouth(nn.Module):
    """Shape model of one person's mouth, and its prediction from audio features. It has no trainable parameters.

    A shape is described by 8 coefficients, each of unit variance over the training frames.

    Attributes:
        mean: [D] mean shape of lips and jaw, head units, see `lower_face`.
        modes: [8, D] principal components, orthonormal rows.
        spread: [8] standard deviation of each along its component, head units.
        weights: [I, 8] of the linear prediction, from standardised inputs to coefficients.
        input_mean: [I] mean of each input over the training frames.
        input_spread: [I] its standard deviation; infinite for a constant input, which then has no effect.
        openness: [29] how open the mouth is on each phone; 0 where the features are not phones.
        shut: [8] coefficients of the closed mouth.
        cross_validated_r: [8] correlation of each predicted coefficient with the tracked one, on left-out frames.
        coefficients: [N, 8] of the dataset's frames: tracked for training frames, predicted for validation frames.
    """

    mean: Tensor
    modes: Tensor
    spread: Tensor
    weights: Tensor
    input_mean: Tensor
    input_spread: Tensor
    openness: Tensor
    shut: Tensor
    cross_validated_r: Tensor
    coefficients: Tensor

    def __init__(self, frames: int):
        super().__init__()
        for name, shape in {"mean": (SHAPE,), "modes": (MODES, SHAPE), "spread": (MODES,), "weights": (INPUTS, MODES),
                            "input_mean": (INPUTS,), "input_spread": (INPUTS,), "openness": (len(CLASSES),),
                            "shut": (MODES,), "cross_validated_r": (MODES,), "coefficients": (frames, MODES)}.items():
            self.register_buffer(name, torch.zeros(shape))

    def encode(self, shapes: Tensor) -> Tensor:
        """Tracked shapes [N, D] (see `lower_face`) -> coefficients [N, 8]."""
        return (shapes - self.mean) @ self.modes.t() / self.spread

    def decode(self, coefficients: Tensor) -> Tensor:
        """Coefficients [N, 8] -> shapes [N, D], head units."""
        return coefficients * self.spread @ self.modes + self.mean

    def inputs(self, features: Tensor) -> Tensor:
        """The inputs of the prediction: audio features [N, 16, 29] -> [N, I], smoothed posteriors and openness."""
        phones = torch.einsum("nsc,ts->ntc", features, _taps(TAPS).to(features)).flatten(1)
        opened = features.square() @ self.openness @ _taps(OPEN_TAPS).to(features).t()
        return torch.cat([phones, opened], 1)

    def predict(self, features: Tensor, silent: Tensor) -> Tensor:
        """Predict the mouth from audio.

        Args:
            features: [N, 16, 29] of consecutive frames.
            silent: [N] 0...1, how far the mouth is closed because of silence, see `shut_in_silence`.

        Returns:
            coefficients [N, 8].
        """
        spoken = (self.inputs(features) - self.input_mean) / self.input_spread @ self.weights
        return torch.lerp(spoken, self.shut.expand_as(spoken), silent[:, None])
