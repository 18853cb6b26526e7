"""CTC speech recognisers as audio encoders: wav2vec2, HuBERT, WavLM, data2vec, ... through `transformers`.

For each step of 20 ms such a model gives the probabilities of the letters, the space and the CTC blank: with 26 letters
and the apostrophe, the 29 classes of DeepSpeech, which upstream uses. Only models on this computer are used.

The features are log-probabilities rather than logits, as logits have an arbitrary offset per step, and
log-probabilities still rank the letters where the blank dominates. They are normalised by constants, not by statistics
of the utterance: the model itself is invariant to voice and level, and a word then has the same features in short and
in long audio.
"""
from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, Iterator, Optional

import numpy as np

from ..core.errors import EgsError, InputError, require_package
from ..core.reading import digest
from ..media.audio import FEATURE_CHANNELS, SAMPLES_PER_STEP, WINDOW_STEPS
from ..media.rates import FPS, SAMPLE_RATE

LETTERS = "abcdefghijklmnopqrstuvwxyz"
#: one per feature channel, in DeepSpeech's order
CLASSES = (" ", *LETTERS, "'", "<blank>")
_CENTRE, _SCALE, _FLOOR = -10.0, 5.0, -25.0  # natural log of probability; features are about -3..2
_CHUNK, _CONTEXT = 750, 125                  # steps: 15 s at once, with 2.5 s of context on either side


def find_model(name: str) -> Optional[Path]:
    """The folder of a model on this computer.

    Args:
        name: a folder, or an id in the local hub cache. An absolute path that does not exist (the spec was made on
            another computer) is also looked up by its last part in the current directory.

    Returns:
        The folder; None if there is none.

    Raises:
        MissingPackageError: a hub id, but `transformers` is not installed.
    """
    path = Path(name).expanduser()
    for folder in (path, Path(path.name)) if path.is_absolute() else (path,):
        if name and folder.is_dir():
            return folder.absolute()
    if path.is_absolute() or name.count("/") != 1:
        return None
    _require_transformers()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):  # not in the cache; not a valid id
        return None


class CtcModel:
    """A CTC model whose vocabulary is mapped to `CLASSES`. The weights are loaded by the first call of `steps`.

    Args:
        name: as the user gave it, for the spec.
        folder: folder of the model.

    Attributes:
        spec: see `load_encoder`.
        tokens: for each class, the model's token ids.

    Raises:
        InputError: not a complete CTC model of 16 kHz audio at 50 Hz, or a vocabulary without the 26 letters.
        MissingPackageError: `transformers` is not installed.
    """

    def __init__(self, name: str, folder: Path):
        transformers = _require_transformers()
        self.folder = folder
        self._model: Any = None
        with _reading(folder):
            options = {"local_files_only": True, "trust_remote_code": False}
            config = transformers.AutoConfig.from_pretrained(folder, **options)
            extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        self._field = receptive_field(config, folder)
        if extractor.sampling_rate != SAMPLE_RATE:
            raise InputError(f"a model of {SAMPLE_RATE} Hz audio", f"{extractor.sampling_rate} Hz in '{folder}'",
                             "Use a model for 16 kHz.")
        self._normalise = bool(getattr(extractor, "do_normalize", False))
        self.tokens = map_classes(tokenizer.get_vocab(), getattr(tokenizer, "word_delimiter_token", None),
                                  config.pad_token_id, config.vocab_size, folder)
        self.spec: dict[str, Any] = {
            "name": "ctc", "version": 1, "model": name, "weights": weights_hash(folder), "classes": list(CLASSES),
            "tokens": self.tokens, "normalise": self._normalise, "sample_rate": SAMPLE_RATE, "hop": SAMPLES_PER_STEP,
            "steps": WINDOW_STEPS, "fps": FPS, "centre": _CENTRE, "scale": _SCALE, "floor": _FLOOR,
            "chunk": _CHUNK, "context": _CONTEXT}

    def steps(self, wave: np.ndarray) -> np.ndarray:
        """Scaled log-probabilities of the classes.

        Args:
            wave: float32 [samples], 16 kHz mono.

        Returns:
            float32 [ceil(samples / 320), 29], -3..2; step k is centred at k / 50 s; 0 for classes (space, apostrophe)
            that the model does not have. Long audio is processed in overlapping chunks.

        Raises:
            InputError: unreadable or incomplete weights, or a model with another step than 20 ms.
        """
        if self._normalise:
            wave = (wave - wave.mean(dtype=np.float64)) / np.sqrt(wave.var(dtype=np.float64) + 1e-7)
        count = math.ceil(len(wave) / SAMPLES_PER_STEP)
        # the receptive field of the model's step k begins at sample 320 k: padding moves its centre there
        padded = np.zeros((count - 1) * SAMPLES_PER_STEP + self._field, np.float32)
        lead = self._field // 2
        padded[lead:lead + len(wave)] = wave[:len(padded) - lead]
        result = np.empty((count, FEATURE_CHANNELS), np.float32)
        for first, last, begin, end in _spans(count):
            part = padded[begin * SAMPLES_PER_STEP:(end - 1) * SAMPLES_PER_STEP + self._field]
            block = self._classes(part, end - begin)
            result[first:last] = block[first - begin:last - begin]
        return result

    def _classes(self, samples: np.ndarray, count: int) -> np.ndarray:
        """Features [count, 29] float32 of one chunk of padded audio."""
        import torch

        if self._model is None:
            self._model = self._load()
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(samples)[None].to(self._model.device)).logits[0]
            if len(logits) != count:
                raise InputError("a model with a step of 20 ms", f"{len(logits)} steps instead of {count} in "
                                 f"'{self.folder}'", "Use a model without an adapter after its encoder.")
            log = logits.float().log_softmax(-1)
            columns = [(log[:, ids].logsumexp(-1).clamp_min(_FLOOR) - _CENTRE) / _SCALE if ids
                       else torch.zeros_like(log[:, 0]) for ids in self.tokens]
            return torch.stack(columns, -1).cpu().numpy()

    def _load(self) -> Any:
        from ..core.device import default_device

        transformers = _require_transformers()
        with _reading(self.folder):
            model, notes = transformers.AutoModelForCTC.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False, output_loading_info=True)
        # the mask embedding is used in pre-training only
        missing = sorted(key for key in notes["missing_keys"] if not key.endswith("masked_spec_embed"))
        if missing:
            raise InputError("a model fine-tuned for speech recognition (CTC)",
                             f"'{self.folder}' without weights for {', '.join(missing[:3])}",
                             "Use a fine-tuned model: a pre-trained one has no letters.")
        return model.float().eval().to(default_device())


def _spans(count: int) -> Iterator[tuple[int, int, int, int]]:
    """For each chunk, the steps to keep [first, last) and to compute [begin, end)."""
    if count <= _CHUNK + 2 * _CONTEXT:
        yield 0, count, 0, count
        return
    for first in range(0, count, _CHUNK):
        last = min(first + _CHUNK, count)
        yield first, last, max(0, first - _CONTEXT), min(count, last + _CONTEXT)


def receptive_field(config: Any, folder: Path) -> int:
    """Receptive field of one step of a model's convolutions, in samples (400 for wav2vec2).

    Args:
        config: of the model.
        folder: for messages.

    Raises:
        InputError: its input is not the waveform, or its step is not 320 samples.
    """
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if not kernels or not strides or math.prod(strides) != SAMPLES_PER_STEP:
        found = f"a step of {math.prod(strides)} samples" if strides else f"a model of type '{config.model_type}'"
        raise InputError(f"a CTC model of waveforms with {SAMPLES_PER_STEP} samples a step (wav2vec2, HuBERT, ...)",
                         f"{found} in '{folder}'", "Use such a model.")
    return 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))


def map_classes(vocabulary: dict[str, int], delimiter: Optional[str], blank: Optional[int], size: int,
                folder: Path) -> list[list[int]]:
    """The token ids of each class, upper and lower case together; other tokens are dropped.

    Args:
        vocabulary: token -> id.
        delimiter: the token between words.
        blank: id of the CTC blank.
        size: vocabulary size of the model.
        folder: of the model, for messages.

    Returns:
        For each of `CLASSES`, its token ids.

    Raises:
        InputError: a letter or the blank is missing, or an id exceeds the model's vocabulary.
    """
    tokens: list[list[int]] = [[] for _ in CLASSES]
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        name = " " if token == delimiter else token.lower()
        if name in CLASSES[:-1]:
            tokens[CLASSES.index(name)].append(number)
    missing = [letter for letter, ids in zip(CLASSES, tokens) if letter in LETTERS and not ids]
    if missing or blank is None:
        lacks = ", ".join(missing + ["the CTC blank (pad_token_id)"] * (blank is None))
        raise InputError("a model whose vocabulary has the 26 letters and a blank", f"'{folder}' without {lacks}",
                         "Use a model that writes in Latin letters; phoneme models do not fit the 29 classes.")
    tokens[-1].append(blank)
    largest = max(number for ids in tokens for number in ids)
    if largest >= size:
        raise InputError(f"token ids below {size}, the vocabulary size of the model",
                         f"{largest} in the vocabulary of '{folder}'",
                         "The tokenizer belongs to another model: copy it again.")
    return tokens


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weight files that `transformers` reads, first 12 hex digits.

    Raises:
        InputError: no weight files.
    """
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise InputError(f"weights (model.safetensors or pytorch_model.bin) in '{folder}'", "none",
                         "Copy or download the whole model again.")
    return digest(*files)[:12]


def _require_transformers() -> Any:
    return require_package("transformers", "transformers, which runs speech recognisers",
                           "Install it with: pip install 'egstalker-nb[asr]'")


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn exceptions of `transformers` about an unusable folder into InputError, and silence its warnings."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except EgsError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError("a complete CTC model as transformers saves it: config, weights, tokenizer, preprocessor",
                         f"'{folder}' ({why})",
                         "Copy or download the whole model again, or use another one.") from error
    finally:
        logging.set_verbosity(before)
