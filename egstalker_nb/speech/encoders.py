"""Audio encoders, which compute the features that drive a head, behind one interface.

An encoder computes steps [T, 29] at 50 Hz, which are cut into a window of 16 steps per video frame. Its `spec` is
stored with a dataset and with every run trained on it, so that a head is always driven by the encoder that it was
trained with.
"""
from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

import numpy as np

from ..core.errors import InputError, first_line
from ..core.files import shortened
from ..core.reading import shown
from ..media.audio import checked_wave, frames_of, windows_of

#: modules of this package, each with `SPEC` (a JSON-serialisable dict) and `steps(wave)`
BUILT_IN = ("phones", "logmel")
DEFAULT_ENCODER = "phones"
#: the spec of features read from a file
EXTERNAL = {"name": "external"}


@dataclass(frozen=True)
class Encoder:
    """An audio encoder. Made by `load_encoder`.

    Attributes:
        spec: everything that determines the features, JSON-serialisable; equal specs give interchangeable features.
    """

    spec: dict[str, Any]
    _steps: Callable[[np.ndarray], np.ndarray]

    def steps(self, wave: np.ndarray) -> np.ndarray:
        """Speech features at 50 Hz.

        Args:
            wave: float [samples], 16 kHz mono, -1..1.

        Returns:
            float32 [ceil(samples / 320), 29]; step k is centred at k / 50 s.

        Raises:
            InputError: an unusable wave.
            MissingPackageError: a package that the encoder needs is not installed.
        """
        return self._steps(checked_wave(wave))

    def features(self, wave: np.ndarray, num_frames: Optional[int] = None) -> np.ndarray:
        """Features of each video frame.

        Args:
            wave: float [samples], 16 kHz mono, -1..1.
            num_frames: number of frames; None: the length of the audio, `frames_of(len(wave))`.

        Returns:
            float32 [num_frames, 16, 29] at 25 fps. Window i holds steps 2i-8 .. 2i+7; steps outside the audio are 0.

        Raises:
            InputError: an unusable wave, or num_frames below 1.
            MissingPackageError: see `steps`.
        """
        wave = checked_wave(wave)
        num_frames = frames_of(len(wave)) if num_frames is None else num_frames
        if num_frames < 1:
            raise InputError("num_frames of at least 1", str(num_frames), "Leave it out to use the audio's length.")
        return windows_of(self._steps(wave), num_frames)


def load_encoder(name_or_spec: str | Path | Mapping[str, Any]) -> Encoder:
    """Load an encoder from this computer; nothing is ever downloaded.

    Args:
        name_or_spec: one of

            - the name of a built-in encoder: `phones` (29 classes of phones) or `logmel` (29 log-mel bands);
            - a CTC speech recogniser for `transformers` (wav2vec2, HuBERT, WavLM, data2vec, ...): its folder, or its
              hub id where the local hub cache holds it;
            - the spec of a dataset (`dataset.encoder`) or run (`run.manifest["encoder"]`): the same encoder.

    Returns:
        The Encoder. The weights of a CTC model are loaded when it is first used.

    Raises:
        InputError: no such encoder on this computer, an unusable model, or an encoder that does not match the spec.
        MissingPackageError: a CTC model, but `transformers` is not installed.
    """
    if not isinstance(name_or_spec, Mapping):
        return _from_name(str(name_or_spec))
    spec = dict(name_or_spec)
    name = spec.get("model") if spec.get("name") == "ctc" else spec.get("name")
    if not isinstance(name, str) or spec["name"] not in (*BUILT_IN, "ctc"):
        raise InputError("audio features from the dataset's encoder",
                         f"none for {describe(spec)}: they were not computed here",
                         "Give the features of this audio, computed the same way, as features=....npy.")
    found = _from_name(name)
    # the path of a model may differ, as its weights are compared
    changed = [f"{first_line(key, 40)} {shown(spec.get(key))} there, {shown(found.spec.get(key))} here"
               for key in {**spec, **found.spec} if key != "model" and spec.get(key) != found.spec.get(key)]
    if changed:
        raise InputError(f"the dataset's encoder, {describe(spec)}",
                         f"another one of that name ({'; '.join(changed[:5])})",
                         "Restore that model, or use the version of this package that made the dataset, or give the "
                         "features of this audio as features=....npy.")
    return found


def channel_names(spec: Mapping[str, Any], count: int) -> list[str]:
    """Names of the feature channels of an encoder: its classes, or numbers.

    Args:
        spec: of the encoder.
        count: number of channels.
    """
    name = spec.get("name")
    module = importlib.import_module(f".{name}", __package__) if name in (*BUILT_IN, "ctc") else None
    return list(getattr(module, "CLASSES", map(str, range(count))))


def _from_name(name: str) -> Encoder:
    if name in BUILT_IN:
        module = importlib.import_module(f".{name}", __package__)
        return Encoder(copy.deepcopy(module.SPEC), module.steps)
    from .ctc import CtcModel, find_model

    folder = find_model(name)
    if folder is None:
        raise InputError(f"an encoder: {', '.join(BUILT_IN)}, or a CTC speech model on this computer (its folder, or "
                         "its hub id)", f"'{shortened(name)}', neither a folder nor in the hub's local cache",
                         "Nothing is downloaded automatically. On a computer with network, "
                         "'hf download facebook/wav2vec2-base-960h' fills the cache, and with '--local-dir FOLDER' a "
                         "folder to copy.")
    model = CtcModel(str(folder) if Path(name).expanduser().is_dir() else name, folder)
    return Encoder(model.spec, model.steps)


def describe(spec: Mapping[str, Any]) -> str:
    """Short description of a spec, for messages."""
    if spec.get("name") == "ctc":
        return f"{shown(spec.get('model'))} (weights {first_line(spec.get('weights'), 64)})"
    return shown(spec.get("name")) + (f" version {shown(spec['version'])}" if "version" in spec else "")
