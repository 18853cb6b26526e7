"""Curves of a driving audio over time: the predicted mouth, also by sound, and the attention of each part of the face.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..data.conditions import Conditions
from ..face import regions
from ..face.landmarks import CHIN, FOREHEAD
from ..media.audio import steps_of
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..metrics.landmark_metrics import aperture
from ..model.audio_link import CENTRE
from ..model.deformation import VIEWS
from ..model.head import Head
from ..rendering import inspection
from ..rendering.renderer import Renderer, check_mouth_driven
from ..rendering.script import Script
from ..speech.encoders import channel_names

ATTENTION_PARTS = tuple(VIEWS)      # columns of `regions.share_of_parts`
#: part -> label with the tokens that a Gaussian wholly inside it can attend to; the parts have soft edges
PART_LABELS = {part: f"{part}: attends to {', '.join(VIEWS[part])}" for part in ("mouth", "eyes", "rest")}
MAX_STEPS = 1500          # columns of features in a chart
MAX_SAMPLES = 3000        # points of a waveform in a chart
MIN_SOUND_FRAMES = 2      # of a sound; the mean over fewer says little
_CORNERS = 61, 291        # of the mouth, MediaPipe landmarks


@dataclass
class SoundMean:
    """The predicted mouth, averaged over the frames in which one feature channel is the strongest.

    Attributes:
        sound: name of the channel, with phones the class.
        frames: how many they are.
        opening: lip gap over face height.
        width: distance between the corners of the mouth over face height.
    """

    sound: str
    frames: int
    opening: float
    width: float


@dataclass
class AudioCurves:
    """Curves of a script, one value for each of F frames.

    Attributes:
        wave: [640 F] float32, the audio.
        features: [F, 16, 29] audio features.
        channels: names of their 29 channels.
        silent: [F] 0...1, how far the mouth is closed because of silence.
        opening: [F] predicted from the audio, lip gap over face height.
        width: [F] predicted likewise, distance between the corners of the mouth over face height.
        shut: opening of the closed mouth, as measured on the clip.
        labial: [F] 0...1, how far the mouth is closed because of b, p or m.
        pause: [F] 0...1, how far it is closed because of a pause in which noise or breath can be heard.
        attention: [F, 3, 4] mean attention of the parts rest, mouth, eyes to the tokens audio, eye, camera, null; rows
            sum to 1.
    """

    wave: np.ndarray
    features: np.ndarray
    channels: tuple[str, ...]
    silent: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    shut: float
    labial: np.ndarray
    pause: np.ndarray
    attention: np.ndarray

    def __len__(self) -> int:
        return len(self.opening)

    @property
    def time(self) -> np.ndarray:
        """Time of each frame, [F] s."""
        return np.arange(len(self)) / FPS

    def outline(self) -> tuple[np.ndarray, np.ndarray]:
        """The waveform for a chart: time [P] in s and amplitude [P], minimum and maximum of each interval in turn."""
        length = max(1, 2 * len(self.wave) // MAX_SAMPLES)
        rows = self.wave[:len(self.wave) // length * length].reshape(-1, length)
        seconds = np.repeat(np.arange(len(rows)) * length / (FPS * SAMPLES_PER_FRAME), 2)
        return seconds, np.stack([rows.min(1), rows.max(1)], 1).ravel()

    def strip(self) -> tuple[np.ndarray, np.ndarray]:
        """The features for a chart: time [P] in s and values 0...1 [29, P], the maximum of each interval."""
        steps = steps_of(self.features)
        length = -(-len(steps) // MAX_STEPS)
        steps = steps[:len(steps) // length * length].reshape(-1, length, steps.shape[1]).max(1)
        low, high = np.percentile(steps, (1, 99))
        shown = np.clip((steps.T - low) / max(high - low, 1e-6), 0, 1)
        return np.arange(len(steps)) * length / (2 * FPS), shown

    @property
    def strongest(self) -> np.ndarray:
        """The strongest channel of each frame, [F] int; with phones the most probable class."""
        return self.features[:, CENTRE:CENTRE + 2].mean(1).argmax(1)

    @property
    def shut_by(self) -> dict[str, np.ndarray]:
        """What shuts the lips -> the frames in which it does, [F] bool; `nothing`: the others."""
        causes = {"b, p, m": self.labial > 0.5, "silence": np.maximum(self.silent, self.pause) > 0.5}
        return {**causes, "nothing": ~np.any(list(causes.values()), axis=0)}

    def by_sound(self, min_frames: int = MIN_SOUND_FRAMES) -> list[SoundMean]:
        """The mean predicted mouth of each sound, the one with the smallest opening first.

        Args:
            min_frames: sounds with fewer frames are left out.
        """
        means = [SoundMean(name, int(here.sum()), float(self.opening[here].mean()), float(self.width[here].mean()))
                 for k, name in enumerate(self.channels)
                 if (here := self.strongest == k).sum() >= max(min_frames, 1)]
        return sorted(means, key=lambda mean: mean.opening)


def compute_audio_curves(renderer: Renderer, script: Script) -> AudioCurves:
    """The curves of a script with driving audio.

    Raises:
        InputError: a script without audio features (a replay), or a head without mouth coefficients.
    """
    if script.features is None or script.silent is None or script.wave is None:
        raise InputError("a script with driving audio", "a replay of the clip", "Make one with `audio_script`.")
    check_mouth_driven(renderer.head.cfg.audio_token, "curves of its mouth")
    given = renderer.conditions_of(script)
    names = channel_names(renderer.ds.encoder, script.features.shape[2])
    faces, shut = (inspection.mean_faces(renderer, c) for c in (given.mouth, renderer.head.mouth.shut[None]))
    link, features = renderer.head.mouth.link, torch.from_numpy(script.features).to(given.mouth)
    labial, pause = (shut_by(features).cpu().numpy() for shut_by in (link.labial, link.pause))
    return AudioCurves(script.wave, script.features, tuple(names), script.silent, aperture(faces), mouth_width(faces),
                       float(aperture(shut)[0]), labial, pause, attention_of_parts(renderer.head, given).cpu().numpy())


def mouth_width(faces: np.ndarray) -> np.ndarray:
    """Distance between the corners of the mouth over face height, of faces [F, 478, 2]: [F]."""
    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(faces[:, a] - faces[:, b], axis=-1)

    return distance(*_CORNERS) / distance(FOREHEAD, CHIN)


@torch.no_grad()
def attention_of_parts(head: Head, given: Conditions) -> Tensor:
    """Mean attention of the Gaussians of each part of the face to each token, [F, 3, 4] float32, see `AudioCurves`.

    The mean over the Gaussians is taken of their weights over the agents, which is the same (attention is linear in
    them) and needs no [N, 4] array per frame.
    """
    net = head.deformation
    spatial = head.spatial()[1]                                                           # [N, heads * 3M]
    share = regions.share_of_parts(head.gaussians["means"].detach(), net.mouth_landmarks, net.eye_landmarks)
    mean = share.t() @ spatial / share.sum(0)[:, None].clamp_min(1e-6)                    # [3, heads * 3M]
    weights, _ = net.attention.token_weights(net.tokens(given))              # [F, heads, 3M, T]
    return mean @ weights.flatten(1, 2) / net.attention.heads
