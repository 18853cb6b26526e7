"""A head that is driven by audio features, as upstream's: 8 neighbouring windows of them become the audio token.

No prior and no mouth coefficients lie between, so all that such a head knows of speech is its own clip.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..speech.phones import CLASSES
from .audio_link import AudioLink
from .mouth import Mouth

STEPS, CHANNELS = 16, len(CLASSES)  # of one window
NEIGHBOURS = 8      # windows of a frame: four before it, its own, three after it
AUDIO_WIDTH = 32    # numbers that they become


def neighbours(features: Tensor, ids: Tensor) -> Tensor:
    """The windows around frames.

    Args:
        features: [N, 16, 29] of consecutive frames.
        ids: [B] int64 numbers of frames.

    Returns:
        [B, 8, 16, 29]; zeros before the first frame and after the last.
    """
    at = ids[:, None] + torch.arange(NEIGHBOURS, device=ids.device) - NEIGHBOURS // 2
    inside = (at >= 0) & (at < len(features))
    return features[at.clamp(0, len(features) - 1)] * inside[..., None, None]


class WindowedMouth(Mouth):
    """A mouth model whose head is not driven by it: the clip's audio features take the place of its coefficients.

    Attributes:
        features: [N, 16, 29] of the dataset's frames, training and validation.
    """

    features: Tensor

    def __init__(self, frames: int, link: AudioLink):
        super().__init__(frames, link)
        self.register_buffer("features", torch.zeros(frames, STEPS, CHANNELS))

    @classmethod
    def of(cls, mouth: Mouth, features: Tensor) -> WindowedMouth:
        """The same mouth model, with the audio features [N, 16, 29] of its clip."""
        made = cls(len(features), mouth.link)
        made.load_state_dict({**mouth.state_dict(), "features": features})
        return made

    def context(self, features: Tensor) -> Tensor:
        return neighbours(features, torch.arange(len(features), device=features.device))

    def of_frames(self, ids: Tensor) -> Tensor:
        return neighbours(self.features, ids)

    def of_audio(self, context: Tensor, silent: Tensor) -> Tensor:
        return context


#: the mouth of a head, see `Config.audio_token`
MOUTHS: dict[str, type[Mouth]] = {"mouth": Mouth, "features": WindowedMouth}


class WindowEncoder(nn.Module):
    """Windows [B, 8, 16, 29] -> [B, 32]: four convolutions over the steps of each, then attention over the eight.

    Layers and sizes are those of GaussianTalker's `AudioNet` and `AudioAttNet`.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes, score = (CHANNELS, 32, 32, 64, 64), (AUDIO_WIDTH, 16, 8, 4, 2, 1)
        self.window = nn.Sequential(
            *(layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Conv1d(a, b, 3, 2, 1), nn.LeakyReLU(0.02))),
            nn.Flatten(), nn.Linear(64, 64), nn.LeakyReLU(0.02), nn.Linear(64, AUDIO_WIDTH))
        self.score = nn.Sequential(
            *(layer for a, b in zip(score, score[1:]) for layer in (nn.Conv1d(a, b, 3, 1, 1), nn.LeakyReLU(0.02))),
            nn.Flatten(), nn.Linear(NEIGHBOURS, NEIGHBOURS), nn.Softmax(1))

    def forward(self, windows: Tensor) -> Tensor:
        codes = self.window(windows.flatten(0, 1).transpose(1, 2)).unflatten(0, (-1, NEIGHBOURS))  # [B, 8, 32]
        return (self.score(codes.transpose(1, 2))[..., None] * codes).sum(1)
