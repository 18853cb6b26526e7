"""What the page needs to predict the mouth from audio: the encoder, the speaker prior, the head's link, constants.

The code in `web/src/audio` computes the same as `phones.steps`, `Mouth.predict` and `LiveFeatures`. Weights are laid
out as its loops read them, [out, taps, in], and all constants come from here, so that none is written down twice.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.errors import InputError, require_package
from ..media.audio import SAMPLES_PER_STEP, WINDOW_STEPS, checked_wave
from ..media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME
from ..model import audio_link
from ..model.audio_link import PriorLink
from ..model.head import Head
from ..model.mouth import MAX_COEFFICIENT
from ..rendering import streaming
from ..speech import phones, prior, voice_activity
from ..speech.encoders import describe, load_encoder

HALF = np.finfo(np.float16)


def audio_tensors(head: Head, reference: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and facts from which the page predicts mouth coefficients.

    Args:
        head: on any device; with a speaker prior for the encoder `phones`.
        reference: [samples] float32, 16 kHz, the audio of the head's own clip, at least 20 ms: a stream starts with its
            level and spectrum. Only log-mel power and levels of its last 10 s are kept.

    Returns:
        tensors named `audio....`, float16 where that is exact and for the log-mel power, float32 elsewhere; and facts,
        JSON-serialisable, which the page expects as `facts.audio`.

    Raises:
        InputError: the head has no speaker prior, or one for another encoder; a reference that is no such audio.
        MissingPackageError: librosa is not installed.
    """
    link = head.mouth.link
    if not isinstance(link, PriorLink) or not link.has_phones:
        found = describe(link.prior.encoder) if isinstance(link, PriorLink) else "no speaker prior"
        raise InputError("a head with a speaker prior for the encoder 'phones', the only one that runs in a page",
                         found, "Prepare the clip with encoder='phones' (the default) and train on that.")
    load_encoder(link.prior.encoder)  # raises if its weights are not those of this package
    tensors = {"mel": _mel_filters(), **_phone_net(), **_prior(link.prior), "link.rest": _array(link.rest),
               "link.weights": _array(link.weights), "shut": _array(head.mouth.shut), **_reference(reference)}
    return {f"audio.{name}": _compact(value) for name, value in tensors.items()}, _constants()


def _mel_filters() -> np.ndarray:
    """[40, 257] float32, as `phones.log_power` uses them."""
    librosa = require_package("librosa", "librosa, which computes mel spectra", "Install it with: pip install librosa")
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=phones.FFT, n_mels=phones.BANDS, fmin=phones.LOW,
                               fmax=phones.HIGH, htk=True, norm=None)


def _phone_net() -> dict[str, np.ndarray]:
    net = phones.network()
    found = _conv("phones.first", net.first) | _conv("phones.last", net.last)
    for i, block in enumerate(net.blocks):
        assert isinstance(block, phones.Block)
        found |= _conv(f"phones.blocks.{i}.conv", block.conv) | _conv(f"phones.blocks.{i}.mix", block.mix)
    return found


def _prior(network: prior.Prior) -> dict[str, np.ndarray]:
    """The ridge regression becomes one matrix [8, 16, C] over the steps of a window: its taps are a blur of them."""
    taps = prior.taps(prior.TAPS, prior.TAP_BLUR).double().numpy()
    linear = _array(network.linear).astype(np.float64)
    matrix = linear[:-1].reshape(len(prior.TAPS), -1, prior.COMPONENTS)
    found = {"prior.mean": _array(network.input_mean), "prior.projection": _array(network.projection),
             "prior.linear.weight": np.einsum("ts,tck->ksc", taps, matrix).astype(np.float32),
             "prior.linear.bias": linear[-1].astype(np.float32)}
    nets = network.nets
    for name, layer in {"first": nets.first, "wider.0": nets.wider[0], "wider.1": nets.wider[1], "frame": nets.frame,
                        "last": nets.last}.items():
        found |= _conv(f"prior.{name}", layer)
    return found


def _conv(name: str, layer: nn.Module) -> dict[str, np.ndarray]:
    """Weights [out, taps, in] and bias [out] of a convolution over time."""
    assert isinstance(layer, nn.Conv1d) and layer.bias is not None
    return {f"{name}.weight": _array(layer.weight).transpose(0, 2, 1),
            f"{name}.bias": _array(layer.bias)}


def _reference(wave: np.ndarray) -> dict[str, np.ndarray]:
    """What `SpeakerStatistics(wave)` begins with: log-mel power [2 T, 40], mean square of each step [T]."""
    wave = checked_wave(wave, SAMPLES_PER_STEP)
    log = phones.log_power(wave).numpy()
    samples = np.zeros(len(log) // 2 * SAMPLES_PER_STEP, np.float32)
    samples[:len(wave)] = wave
    log, samples = log[-2 * streaming.STATISTICS_STEPS:], samples[-streaming.STATISTICS_STEPS * SAMPLES_PER_STEP:]
    return {"reference.log": log.astype(np.float16),
            "reference.power": voice_activity.block_power(samples).astype(np.float32)}


def _constants() -> dict[str, Any]:
    return {
        "sample_rate": SAMPLE_RATE, "samples_per_step": SAMPLES_PER_STEP, "samples_per_frame": SAMPLES_PER_FRAME,
        "window_steps": WINDOW_STEPS,
        "hop": phones.HOP, "window": phones.WINDOW, "fft": phones.FFT, "power_floor": phones.POWER_FLOOR,
        "min_log_power": phones.MIN_LOG_POWER, "speech": phones.SPEECH, "blocks": [list(b) for b in phones.BLOCKS],
        "back": phones.BACK,
        "classes": list(phones.CLASSES), "min_root": prior.MIN_ROOT, "root_weight": prior.ROOT_WEIGHT,
        "nets": prior.NETS,
        "labials": audio_link.LABIALS, "pauses": audio_link.PAUSES, "pause": list(audio_link.PAUSE),
        "shut_steps": [audio_link.SHUT_STEPS.start, audio_link.SHUT_STEPS.stop],
        "near_steps": [audio_link.NEAR_STEPS.start, audio_link.NEAR_STEPS.stop],
        "shut_gain": audio_link.SHUT_GAIN, "max_coefficient": MAX_COEFFICIENT,
        "quiet_db": voice_activity.QUIET_DB, "inaudible_db": voice_activity.INAUDIBLE_DB,
        "hangover": voice_activity.HANGOVER, "blur": voice_activity.BLUR,
        "look_ahead": round(streaming.LOOK_AHEAD * SAMPLE_RATE), "statistics_steps": streaming.STATISTICS_STEPS,
        "silence_stride": streaming.SILENCE_STRIDE, "adaptation_steps": streaming.ADAPTATION_STEPS,
        "blur_radius": streaming.BLUR_RADIUS,
    }


def _array(value: Tensor) -> np.ndarray:
    return value.detach().float().cpu().numpy()


def _compact(value: np.ndarray) -> np.ndarray:
    """float16 where no value changes; contiguous, as safetensors writes the memory whatever its order."""
    value = np.ascontiguousarray(value)
    if value.dtype == np.float16 or not (np.abs(value) <= HALF.max).all():
        return value
    half = value.astype(np.float16)
    return half if (half.astype(value.dtype) == value).all() else value
