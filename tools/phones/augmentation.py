"""Data augmentation of log-mel power [B, T, 40]: random voices, microphones, rooms and noise.

Parameters are drawn per utterance of the batch. Working on log-mel power instead of waveforms lets a GPU augment
thousands of utterances per second.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TAIL = 30                      # steps of 10 ms, the longest reverberation


def augmented(log: Tensor) -> Tensor:
    """Random voice, microphone, room and noise."""
    log = random_microphone(random_contrast(random_voice(log)))
    return noisy(reverberant(log.exp()))


def uniform(like: Tensor, low: float, high: float) -> Tensor:
    """One uniform number per utterance, [B, 1, 1]."""
    return low + (high - low) * torch.rand(len(like), 1, 1, device=like.device)


def curve(like: Tensor, points: int, size: int, deviation: float) -> Tensor:
    """A random piecewise linear curve per utterance, [B, size], through normally distributed points."""
    knots = torch.randn(len(like), 1, points, device=like.device) * deviation
    return F.interpolate(knots, size, mode="linear", align_corners=True)[:, 0]


def random_voice(log: Tensor) -> Tensor:
    """Shift formants: the mel axis is scaled by up to 16 % and shifted by up to 1.5 bands."""
    bands = log.shape[2]
    at = torch.arange(bands, device=log.device) * uniform(log, 0.84, 1.16) + uniform(log, -1.5, 1.5)
    at = at.clamp(0, bands - 1)
    low = at.floor().long().clamp_max(bands - 2)
    part = at - low
    low = low.expand_as(log)
    return log.gather(2, low) * (1 - part) + log.gather(2, low + 1) * part


def random_contrast(log: Tensor) -> Tensor:
    """Change the spectral and the dynamic contrast."""
    blurred = F.avg_pool1d(F.pad(log, (1, 1), mode="replicate"), 3, 1)
    log = torch.where(uniform(log, 0, 1) < 0.4, torch.lerp(log, blurred, uniform(log, 0, 0.6)), log)
    mean = log.mean((1, 2), keepdim=True)
    return mean + (log - mean) * uniform(log, 0.75, 1.25)


def random_microphone(log: Tensor) -> Tensor:
    """Apply a frequency response: a smooth curve and a tilt."""
    bands = log.shape[2]
    tilt = torch.linspace(-1, 1, bands, device=log.device) * torch.randn(len(log), 1, device=log.device)
    return log + (curve(log, 5, bands, 1.2) + tilt)[:, None]


def reverberant(power: Tensor) -> Tensor:
    """Add reverberation to half of the utterances, with a decay time of 30 to 150 ms (to 1 / e)."""
    batch, steps, bands = power.shape
    delay = torch.arange(TAIL, device=power.device)
    tail = (-delay / uniform(power, 3, 15)).exp() * uniform(power, 0, 0.15) * (uniform(power, 0, 1) < 0.5)
    tail[..., 0] = 1
    kernel = tail.flip(2).repeat_interleave(bands, 0)
    rows = F.pad(power.transpose(1, 2).reshape(1, batch * bands, steps), (TAIL - 1, 0))
    return F.conv1d(rows, kernel, groups=batch * bands).reshape(batch, bands, steps).transpose(1, 2)


def noisy(power: Tensor) -> Tensor:
    """Add coloured noise of varying level, 13 to 57 dB below the loud steps; cut the high bands of a fifth.

    Args:
        power: [B, T, 40] mel power.

    Returns:
        [B, T, 40] log power.
    """
    batch, steps, bands = power.shape
    loud = power.sum(2).quantile(0.95, 1).log()[:, None, None]
    level = loud - uniform(power, 3, 13) - math.log(bands)
    level = level + curve(power, 4, bands, 1.5)[:, None] + curve(power, 6, steps, 0.7)[:, :, None]
    log = (power + level.exp() * torch.empty_like(power).exponential_().clamp_min(0.05)).log()
    cut = torch.arange(bands, device=log.device) > uniform(log, 27, 40)
    log = torch.where(cut & (uniform(log, 0, 1) < 0.2), loud - 12, log)
    return log + 0.3 * torch.randn_like(log) * uniform(log, 0, 1)


def masked(features: Tensor) -> Tensor:
    """Normalised features [B, T, C] with two time masks (up to 150 ms) and two band masks (up to 5): SpecAugment."""
    for axis, longest in ((1, 16), (2, 6)) * 2:
        at = torch.arange(features.shape[axis], device=features.device)
        at = at.unflatten(0, (-1, 1)) if axis == 1 else at
        begin = (uniform(features, 0, 1) * features.shape[axis]).long()
        features = features.masked_fill((at >= begin) & (at < begin + uniform(features, 0, longest).long()), 0)
    return features
