"""The built-in audio encoder: a small speaker-independent network that outputs phone posteriors.

At 50 Hz it classifies audio into 29 classes of phones, grouped by the visible shape of lips and jaw. It was trained on
synthesised speech, whose phones are known exactly, in dozens of voices and many languages, and on real speech with
another recogniser as a teacher (see `tools/phones/`).
Upstream uses the 29 letters of DeepSpeech, which is English only and must be downloaded.
"""
from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..media.audio import SAMPLES_PER_STEP
from .logmel import mel_power

#: the classes, one per feature channel: silence, 13 vowels, 15 groups of consonants
CLASSES = ("sil", "a", "ae", "eh", "e", "ih", "i", "aw", "o", "uh", "u", "ue", "ax", "er", "b", "m", "f", "th", "d",
           "n", "s", "sh", "l", "r", "g", "ng", "h", "w", "j")
#: lip opening of each class, 0 shut ... 1 as in "father": the order follows phonetics (open to close vowels, labials
#: shut, rounded vowels nearly so), the values are approximate
OPENNESS = dict(sil=0.0, a=1.0, ae=0.9, eh=0.7, e=0.6, ih=0.45, i=0.35, aw=0.8, o=0.6, uh=0.4, u=0.25, ue=0.3,
                ax=0.45, er=0.4, b=0.0, m=0.0, f=0.1, th=0.3, d=0.35, n=0.35, s=0.25, sh=0.35, l=0.5, r=0.35, g=0.45,
                ng=0.4, h=0.5, w=0.15, j=0.35)
BANDS = 40                                       # mel bands of the input
HOP, WINDOW, FFT = SAMPLES_PER_STEP // 2, 400, 512  # samples: 10 ms apart, 25 ms long
LOW, HIGH = 60.0, 7600.0                         # Hz
POWER_FLOOR = 1e-9                               # below the rounding noise of 16 bits
MIN_LOG_POWER = -12.0                            # floor, natural log of power relative to the loud steps
SPEECH = -7.0                                    # likewise; louder steps count as speech for its mean
WIDTH = 160
#: per block: taps before and after a step, and dilation in steps of 20 ms; in total 1.2 s back and 0.13 s ahead
BLOCKS = ((2, 2, 1), (2, 2, 1), (4, 1, 1), (3, 0, 2), (3, 0, 2), (3, 0, 4), (3, 0, 8))
BACK, AHEAD = 60, 7                              # steps, the receptive field before and after a step
WEIGHTS = Path(__file__).parent / "weights" / "phones.safetensors"
CHUNK = 3000                                     # steps (a minute) processed at once, which bounds memory

#: everything that determines the features
SPEC = {"name": "phones", "version": 2, "weights": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:12]}


class Block(nn.Module):
    """Residual dilated convolution over time, `back` taps before a step and `ahead` after it: [B, C, T] -> same."""

    def __init__(self, width: int, back: int, ahead: int, dilation: int):
        super().__init__()
        self.pad = back * dilation, ahead * dilation
        self.conv = nn.Conv1d(width, width, back + ahead + 1, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        normal = F.layer_norm(x.transpose(1, 2), x.shape[1:2]).transpose(1, 2)
        return x + self.mix(F.gelu(self.conv(F.pad(normal, self.pad))))


class PhoneNet(nn.Module):
    """Normalised log-mel [B, 2T, 41] at 100 Hz -> logits of `CLASSES` [B, T, 29] at 50 Hz."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(BANDS + 1, WIDTH, 6, stride=2)
        self.blocks = nn.ModuleList([Block(WIDTH, *shape) for shape in BLOCKS])
        self.last = nn.Conv1d(WIDTH, len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(F.pad(x.transpose(1, 2), (2, 3), mode="replicate"))
        for block in self.blocks:
            x = block(x)
        return self.last(F.gelu(x)).transpose(1, 2)


@lru_cache(1)
def network() -> PhoneNet:
    """The trained network, on the CPU, in evaluation mode."""
    net = PhoneNet().eval().requires_grad_(False)
    net.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return net


def log_power(wave: np.ndarray) -> Tensor:
    """Log-mel power of a 16 kHz wave [samples]: [2 * ceil(samples / 320), 40], 10 ms apart."""
    count = 2 * -(-len(wave) // SAMPLES_PER_STEP)
    power = mel_power(wave, count, HOP, WINDOW, FFT, BANDS, LOW, HIGH)
    return torch.from_numpy(power).clamp_min(POWER_FLOOR).log()


def level_and_mean(log: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics of an utterance that `normalised` removes.

    Args:
        log: [..., T, 40] log-mel power.

    Returns:
        Level of the loud steps [...], and mean log power of speech [..., 40], over the steps near that level.
    """
    energy = log.logsumexp(-1)
    # by sorting, as torch.quantile fails for several hours of audio
    level = energy.sort(-1).values[..., round(0.97 * (energy.shape[-1] - 1))]
    speech = (energy > level[..., None] + SPEECH).to(log)[..., None]
    floored = torch.maximum(log, level[..., None, None] + MIN_LOG_POWER)
    return level, (floored * speech).sum(-2) / speech.sum(-2).clamp_min(1)


def normalised(log: Tensor, level: Tensor, mean: Tensor) -> Tensor:
    """Input of the network, invariant to volume and to the frequency response of microphone and room.

    Args:
        log: [..., T, 40] log-mel power.
        level, mean: see `level_and_mean`.

    Returns:
        [..., T, 41]; the last channel is the loudness.
    """
    spectrum = torch.maximum(log, level[..., None, None] + MIN_LOG_POWER) - mean[..., None, :]
    loudness = (log.logsumexp(-1) - level[..., None]).clamp_min(MIN_LOG_POWER + 3)
    return torch.cat([spectrum, loudness[..., None]], -1) / 3


@torch.no_grad()
def steps(wave: np.ndarray) -> np.ndarray:
    """Phone posteriors of a wave.

    Args:
        wave: float32 [samples], 16 kHz mono, -1...1, at least one sample.

    Returns:
        float32 [ceil(samples / 320), 29] at 50 Hz: square roots of the class probabilities, which give unlikely classes
        more weight (the squares of a step sum to 1).

    Raises:
        MissingPackageError: librosa is not installed.
    """
    log = log_power(wave)
    inputs = normalised(log, *level_and_mean(log))
    total, chunks = len(inputs) // 2, []
    for begin in range(0, total, CHUNK):
        first, last = max(0, begin - BACK), min(total, begin + CHUNK + AHEAD)
        logits = network()(inputs[None, 2 * first:2 * last])[0]
        chunks.append(logits[begin - first:begin - first + CHUNK][:total - begin])
    return torch.cat(chunks).softmax(-1).sqrt().numpy()
