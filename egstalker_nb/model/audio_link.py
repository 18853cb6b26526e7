"""From audio features to the mouth coefficients of one person: through the speaker prior, or directly."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..speech.phones import CLASSES
from ..speech.prior import COMPONENTS, Prior, taps

MODES = 8               # principal components of a person's mouth; 8 explain 98 % of its motion on real clips
CENTRE = 8              # step of a frame's window (16 steps at 50 Hz) that lies at the frame's own time
TAPS = (-2, 0, 2, 4)    # steps around it from which `FeatureLink` predicts; lips move before the sound
TAP_BLUR = 1.0          # steps, standard deviation of each tap
INPUTS = len(TAPS) * len(CLASSES)
LABIALS = [CLASSES.index(name) for name in ("b", "m")]  # classes of phones that shut the lips: b, p; m
LABIAL_STEPS = slice(CENTRE, CENTRE + 3)  # steps of the window in which they shut them: lips close before the sound


class PriorLink(nn.Module):
    """The speaker prior, and what its mouth space looks like on one person.

    Args:
        prior: of the encoder that the head's dataset was prepared with; stored with the head.

    Attributes:
        rest: [8] mean of the prior's predictions over the training frames.
        weights: [8, 8] from predictions to mouth coefficients.
    """

    rest: Tensor
    weights: Tensor

    def __init__(self, prior: Prior):
        super().__init__()
        self.prior = prior
        self.register_buffer("rest", torch.zeros(COMPONENTS))
        self.register_buffer("weights", torch.zeros(COMPONENTS, MODES))

    def forward(self, features: Tensor) -> Tensor:
        """Audio features [N, 16, 29] -> mouth coefficients [N, 8]."""
        return (self.prior(features) - self.rest) @ self.weights

    def closed(self, features: Tensor) -> Tensor:
        """How far b, p and m shut the lips, [N] 0...1: the probability of these phones; 0 without phones."""
        if self.prior.encoder.get("name") != "phones":
            return features.new_zeros(len(features))
        return features[:, LABIAL_STEPS][..., LABIALS].square().sum(-1).amax(1).clamp_max(1)


class FeatureLink(nn.Module):
    """A linear map from a few taps of the features, for encoders that the prior was not fitted for.

    Attributes:
        input_mean: [I] mean of each input over the training frames.
        input_spread: [I] its standard deviation; infinite for a constant input, which then has no effect.
        weights: [I, 8] from standardised inputs to mouth coefficients.
    """

    input_mean: Tensor
    input_spread: Tensor
    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, shape in {"input_mean": (INPUTS,), "input_spread": (INPUTS,), "weights": (INPUTS, MODES)}.items():
            self.register_buffer(name, torch.zeros(shape))

    def inputs(self, features: Tensor) -> Tensor:
        """Audio features [N, 16, 29] -> [N, I], smoothed around the taps."""
        return torch.einsum("nsc,ts->ntc", features, taps(TAPS, TAP_BLUR).to(features)).flatten(1)

    def forward(self, features: Tensor) -> Tensor:
        """Audio features [N, 16, 29] -> mouth coefficients [N, 8]."""
        return (self.inputs(features) - self.input_mean) / self.input_spread @ self.weights

    def closed(self, features: Tensor) -> Tensor:
        """Zeros [N]: what its channels mean is not known."""
        return features.new_zeros(len(features))
