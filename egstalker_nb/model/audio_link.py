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
SHUT_STEPS, NEAR_STEPS = slice(9, 11), slice(4, 14)  # of the window: a frame's own share of a closure; all of it
SHUT_GAIN = 2.5         # the lips are shut where the encoder gives these phones 40 % or more
PAUSES = [CLASSES.index(name) for name in ("sil", "h")]  # no "h" fills a window of 0.3 s, but breath does
PAUSE = 0.93, 0.97      # their mean probability in a window from which the mouth closes, and is closed


class AudioLink(nn.Module):
    """From audio features to mouth coefficients, and when the lips are shut whatever the coefficients are.

    Attributes:
        has_phones: whether the features are phone posteriors; other features never shut the lips.
    """

    has_phones = False

    def labial(self, features: Tensor) -> Tensor:
        """How far the lips are shut by b, p and m, [N] 0...1, for features [N, 16, 29].

        A closure is as strong as its most probable step, and lasts for the frame or two in which the probability is
        near that: longer ones would cost more of the opening's correlation.
        """
        if not self.has_phones:
            return features.new_zeros(len(features))
        labial = features.square()[..., LABIALS].sum(-1)                                # [N, 16]
        near = labial[:, NEAR_STEPS].amax(1)
        return (SHUT_GAIN * near).clamp_max(1) * (labial[:, SHUT_STEPS].amax(1) / near.clamp_min(1e-6)).square()

    def pause(self, features: Tensor) -> Tensor:
        """How far the lips are shut by a pause in which noise or breath can be heard, [N] 0...1.

        Only the encoder knows such pauses; see `shut_in_silence` for the others.
        """
        if not self.has_phones:
            return features.new_zeros(len(features))
        posteriors = features.square()
        silence = 1 - (posteriors.sum(-1) - posteriors[..., PAUSES].sum(-1)).mean(1)  # 1 outside of the audio, too
        return ((silence - PAUSE[0]) / (PAUSE[1] - PAUSE[0])).clamp(0, 1)

    def closed(self, features: Tensor) -> Tensor:
        """How far the lips are shut by either, [N] 0...1."""
        return torch.maximum(self.labial(features), self.pause(features))


class PriorLink(AudioLink):
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
        self.prior, self.has_phones = prior, prior.has_phones
        self.register_buffer("rest", torch.zeros(COMPONENTS))
        self.register_buffer("weights", torch.zeros(COMPONENTS, MODES))

    def forward(self, features: Tensor) -> Tensor:
        """Audio features [N, 16, 29] -> mouth coefficients [N, 8]."""
        return (self.prior(features) - self.rest) @ self.weights


class FeatureLink(AudioLink):
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
