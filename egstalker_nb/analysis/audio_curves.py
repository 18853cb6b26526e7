"""What a sound does to a head, over time: the mouth it calls for, and what each part of the face attends to."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.conditions import Conditions
from ..face import regions
from ..media.audio import steps_of
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..metrics.landmark_metrics import aperture
from ..model.deformation import VIEWS
from ..model.head import Head
from ..rendering import inspection
from ..rendering.renderer import Renderer, Script
from ..speech.encoders import channel_names

PARTS = tuple(VIEWS)      # columns of `regions.share_of_parts`
#: the parts as charts show them, with the tokens that a Gaussian wholly inside may see; edges are soft
ABOUT = {part: f"{part}: may see {', '.join(VIEWS[part])}" for part in ("mouth", "eyes", "rest")}
SHOWN_STEPS = 1500        # columns of features, and
SHOWN_SAMPLES = 3000      # points of a waveform that a chart draws: a screen has no more


@dataclass
class Timeline:
    """A script's curves, one value for each of F frames.

    Attributes:
        wave: float32 [640 F] the sound. features: [F, 16, 29]; channels: their 29 names. silent: [F] 0...1, how far the
            mouth is shut for silence. opening: [F] called for by the sound, lip gap over face height.
        attention: [F, 3, 4] mean attention of the parts rest, mouth, eyes on the tokens audio, eye, camera, null; rows
            sum to 1.
    """

    wave: np.ndarray
    features: np.ndarray
    channels: tuple[str, ...]
    silent: np.ndarray
    opening: np.ndarray
    attention: np.ndarray

    def __len__(self) -> int:
        return len(self.opening)

    @property
    def time(self) -> np.ndarray:
        """Seconds of the frames, [F]."""
        return np.arange(len(self)) / FPS

    def outline(self) -> tuple[np.ndarray, np.ndarray]:
        """The waveform for a chart: seconds [P] and amplitudes [P], lowest and highest of each stretch in turn."""
        stretch = max(1, 2 * len(self.wave) // SHOWN_SAMPLES)
        rows = self.wave[:len(self.wave) // stretch * stretch].reshape(-1, stretch)
        seconds = np.repeat(np.arange(len(rows)) * stretch / (FPS * SAMPLES_PER_FRAME), 2)
        return seconds, np.stack([rows.min(1), rows.max(1)], 1).ravel()

    def strip(self) -> tuple[np.ndarray, np.ndarray]:
        """The features for a chart: seconds [P] and strengths 0...1 [29, P], the strongest of each stretch."""
        steps = steps_of(self.features)
        stretch = -(-len(steps) // SHOWN_STEPS)
        steps = steps[:len(steps) // stretch * stretch].reshape(-1, stretch, steps.shape[1]).max(1)
        low, high = np.percentile(steps, (1, 99))
        shown = np.clip((steps.T - low) / max(high - low, 1e-6), 0, 1)
        return np.arange(len(steps)) * stretch / (2 * FPS), shown


def timeline(renderer: Renderer, script: Script) -> Timeline:
    """The curves of a script with sound."""
    given = renderer.conditions_of(script)
    names = channel_names(renderer.ds.encoder, script.features.shape[2])
    return Timeline(script.wave, script.features, tuple(names), script.silent,
                    aperture(inspection.mean_faces(renderer, given.mouth)),
                    attention_of_parts(renderer.head, given).cpu().numpy())


@torch.no_grad()
def attention_of_parts(head: Head, given: Conditions) -> Tensor:
    """Mean attention of the Gaussians of each part of the face on each token, [F, 3, 4] float32, see `Timeline`.

    The mean is taken before the tokens are looked at, which gives the same (attention is linear in the weights over
    agents) and costs nothing for each frame.
    """
    net = head.deformation
    spatial = head.spatial()[1]                                                           # [N, heads * 3M]
    share = regions.share_of_parts(head.gaussians["means"].detach(), net.mouth_landmarks, net.eye_landmarks)
    mean = share.t() @ spatial / share.sum(0)[:, None].clamp_min(1e-6)                    # [3, heads * 3M]
    weights, _ = net.attention.token_weights(net.tokens(given))              # [F, heads, 3M, T]
    return mean @ weights.flatten(1, 2) / net.attention.heads


