"""Predicts the shape of the mouth from audio; the deformation network is conditioned on that shape, not on audio.

A few seconds of a clip cannot show how the audio of one voice moves thousands of Gaussians: a network that is trained
on it directly memorises the clip and hardly moves for another voice. We therefore use a low-dimensional bottleneck:
the principal components (PCA) of the tracked lips and jaw, whose coefficients are predicted from audio by a prior that
was learned from many speakers. Upstream predicts Gaussians from audio in one step.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..face.expression import LOWER
from .audio_link import MODES, AudioLink

SHAPE = 2 * len(LOWER)
MAX_COEFFICIENT = 5.0   # standard deviations; a mode that hardly moves in a very short clip would be thrown far off


class Mouth(nn.Module):
    """Shape model of one person's mouth, and its prediction from audio features. It has no trainable parameters.

    A shape is described by 8 coefficients, each of unit variance over the training frames.

    Args:
        frames: of the dataset.
        link: from audio features to coefficients.

    Attributes:
        mean: [D] mean shape of lips and jaw, head units, see `lower_face`.
        modes: [8, D] principal components, orthonormal rows.
        spread: [8] standard deviation of each along its component, head units.
        shut: [8] coefficients of the closed mouth.
        cross_validated_r: [8] correlation of each predicted coefficient with the tracked one, on left-out frames.
        coefficients: [N, 8] of the dataset's frames: tracked for training frames, predicted for validation frames.
    """

    mean: Tensor
    modes: Tensor
    spread: Tensor
    shut: Tensor
    cross_validated_r: Tensor
    coefficients: Tensor

    def __init__(self, frames: int, link: AudioLink):
        super().__init__()
        self.link = link
        for name, shape in {"mean": (SHAPE,), "modes": (MODES, SHAPE), "spread": (MODES,), "shut": (MODES,),
                            "cross_validated_r": (MODES,), "coefficients": (frames, MODES)}.items():
            self.register_buffer(name, torch.zeros(shape))

    def encode(self, shapes: Tensor) -> Tensor:
        """Tracked shapes [N, D] (see `lower_face`) -> coefficients [N, 8]."""
        return (shapes - self.mean) @ self.modes.t() / self.spread

    def decode(self, coefficients: Tensor) -> Tensor:
        """Coefficients [N, 8] -> shapes [N, D], head units."""
        return coefficients * self.spread @ self.modes + self.mean

    def context(self, features: Tensor) -> Tensor:
        """What `of_audio` needs of all features [N, 16, 29] of an audio for each of its N frames: [N, ...]."""
        return features

    def of_frames(self, ids: Tensor) -> Tensor:
        """What the audio token takes in frames [B] of the clip: [B, 8] coefficients."""
        return self.coefficients[ids]

    def of_audio(self, context: Tensor, silent: Tensor) -> Tensor:
        """What the audio token takes with other audio: [N, 8] coefficients, see `context` and `predict`."""
        return self.predict(context, silent)

    def predict(self, features: Tensor, silent: Tensor) -> Tensor:
        """Predict the mouth from audio.

        Args:
            features: [N, 16, 29] of consecutive frames.
            silent: [N] 0...1, how far the mouth is closed because of silence, see `shut_in_silence`.

        Returns:
            coefficients [N, 8].
        """
        spoken = self.link(features).clamp(-MAX_COEFFICIENT, MAX_COEFFICIENT)
        closed = torch.maximum(silent, self.link.closed(features))
        return torch.lerp(spoken, self.shut.expand_as(spoken), closed[:, None])
