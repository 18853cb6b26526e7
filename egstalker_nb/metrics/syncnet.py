"""SyncNet and its LSE-D and LSE-C (Chung and Zisserman 2016, "Out of time"; Prajwal et al. 2020 name the scores)."""
from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Optional

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct
from torch import Tensor, nn

from ..core.errors import InputError
from .weights import how_to_get, load_weights, weight_path

FACE_SIDE = 224      # px of its input
WINDOW = 5           # frames, at 25 fps
STEPS = 20           # MFCC steps of 10 ms in a window
MAX_OFFSET = 15      # frames searched in both directions
_RATE, _FRAME, _HOP, _FFT, _FILTERS, _CEPSTRA, _LIFTER = 16_000, 400, 160, 512, 26, 13, 22
_BATCH = 8


class SyncDistance(NamedTuple):
    """Attributes: lse_d: mean distance at the best offset, lower is better. lse_c: median over offsets minus that,
    higher is better. offset: frames; positive: the audio is early, that is the video is late."""

    lse_d: float
    lse_c: float
    offset: int


class SyncNet(nn.Module):
    """The two towers of SyncNet v2; parameter names are those of the public `syncnet_v2.model`."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, 3, 1), nn.MaxPool2d(1, 1), *_conv2d(64, 192, 3, 1), nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3, 1), *_conv2d(384, 256, 3, 1), *_conv2d(256, 256, 3, 1), nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0))
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), 2, 0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), 2, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, 1), *_conv3d(256, 256, (1, 3, 3), 1, 1),
            *_conv3d(256, 256, (1, 3, 3), 1, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6), 1, 0))
        self.netfcaud, self.netfclip = _projection(), _projection()
        self.requires_grad_(False).eval()

    def audio(self, mfcc: Tensor) -> Tensor:
        """[B, 1, 13, 20] -> [B, 1024]."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def video(self, faces: Tensor) -> Tensor:
        """[B, 3, 5, 224, 224] BGR 0...255 -> [B, 1024]."""
        return self.netfclip(self.netcnnlip(faces).flatten(1))


def _conv2d(inputs: int, outputs: int, size: int | tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]


def _conv3d(inputs: int, outputs: int, size: tuple[int, int, int], stride: int, padding: int) -> list[nn.Module]:
    conv = nn.Conv3d(inputs, outputs, size, (1, stride, stride), (0, padding, padding))
    return [conv, nn.BatchNorm3d(outputs), nn.ReLU()]


def _projection() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def load_syncnet(folder: Optional[str | Path] = None, device: str | torch.device = "cpu") -> SyncNet:
    """SyncNet with the public weights.

    Raises:
        InputError: they are missing or damaged.
    """
    path = weight_path("syncnet", folder)
    if path is None:
        raise InputError("weights of SyncNet", "none", f"LSE-C and LSE-D {how_to_get('syncnet', folder)}.")
    net = SyncNet()
    load_weights(net, path)
    return net.to(device)


def mfcc(wave: np.ndarray) -> np.ndarray:
    """Cepstra as SyncNet was trained on: those of python_speech_features with its defaults.

    Pre-emphasis 0.97, 25 ms every 10 ms without a window, FFT of 512, 26 mel filters to 8 kHz, 13 cepstra, lifter 22,
    the first replaced by the log energy.

    Args:
        wave: [samples] float at 16 kHz, -1...1; scaled to 16 bits, on which the energy depends.

    Returns:
        float32 [steps, 13], a step every 10 ms.
    """
    sound = np.asarray(wave, np.float64) * 32768
    sound = np.append(sound[:1], sound[1:] - 0.97 * sound[:-1])
    steps = 1 + max(0, -(-(len(sound) - _FRAME) // _HOP))
    sound = np.pad(sound, (0, max(0, (steps - 1) * _HOP + _FRAME - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(sound, _FRAME)[::_HOP][:steps]
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2 / _FFT
    tiny = np.finfo(float).eps
    energy = power.sum(1)
    bands = power @ _mel_filters().T
    cepstra = dct(np.log(np.where(bands == 0, tiny, bands)), type=2, axis=1, norm="ortho")[:, :_CEPSTRA]
    cepstra *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(_CEPSTRA) / _LIFTER)
    cepstra[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return cepstra.astype(np.float32)


def _mel_filters() -> np.ndarray:
    """[26, 257] triangles with corners on whole FFT bins."""
    top = 2595 * np.log10(1 + _RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _FILTERS + 2) / 2595) - 1)
    corners = np.floor((_FFT + 1) * hertz / _RATE)
    bins = np.arange(_FFT // 2 + 1)
    left, centre, right = (corners[i:i + _FILTERS, None] for i in range(3))
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return np.where((bins >= left) & (bins < centre), rising,
                    np.where((bins >= centre) & (bins < right), falling, 0.0))


def sync_distance(net: SyncNet, faces: Iterable[np.ndarray], wave: np.ndarray) -> Optional[SyncDistance]:
    """LSE-D and LSE-C of one video.

    Args:
        net: see `load_syncnet`.
        faces: [224, 224, 3] uint8 RGB crops at 25 fps, streamed.
        wave: [samples] float at 16 kHz that starts with the first crop.

    Returns:
        None for a video shorter than six frames.
    """
    device = next(net.parameters()).device
    with torch.inference_mode():
        seen = [net.video(batch.to(device)).cpu() for batch in _stacks(faces)]
        # as the reference: the last window is not used, and neither is audio beyond the video
        count = min((sum(map(len, seen)) + WINDOW - 1), len(wave) // (_RATE // 25)) - WINDOW
        if count < 1:
            return None
        steps = torch.from_numpy(mfcc(wave)).T
        windows = [steps[:, 4 * i:4 * i + STEPS] for i in range(count)]
        windows = [F.pad(window, (0, STEPS - window.shape[1])) for window in windows]
        heard = [net.audio(torch.stack(windows[i:i + 32])[:, None].to(device)).cpu() for i in range(0, count, 32)]
    return distances(torch.cat(seen)[:count], torch.cat(heard))


def _stacks(faces: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """Batches of windows of five consecutive crops, [B, 3, 5, 224, 224] BGR."""
    recent: deque[np.ndarray] = deque(maxlen=WINDOW)
    batch: list[np.ndarray] = []
    for face in faces:
        recent.append(face[..., ::-1])
        if len(recent) == WINDOW:
            batch.append(np.stack(recent))
        if len(batch) == _BATCH:
            yield torch.from_numpy(np.stack(batch)).permute(0, 4, 1, 2, 3).float()
            batch = []
    if batch:
        yield torch.from_numpy(np.stack(batch)).permute(0, 4, 1, 2, 3).float()


def distances(video: Tensor, audio: Tensor, reach: int = MAX_OFFSET) -> SyncDistance:
    """LSE-D, LSE-C and the offset from embeddings of video and audio, [N, C] each, one a frame.

    Beyond the ends, audio is taken as zeros, as in the reference implementation.
    """
    padded = F.pad(audio, (0, 0, reach, reach))
    mean = torch.stack([F.pairwise_distance(video, padded[i:i + len(video)]).mean() for i in range(2 * reach + 1)])
    best = int(mean.argmin())
    return SyncDistance(float(mean[best]), float(mean.median() - mean[best]), reach - best)
