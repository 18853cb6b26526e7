"""What a head's mouth does before it is drawn: closures, spread, silence, voices of others; see `prior.py`."""
from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Sequence

import numpy as np
import torch
from intervals import MOTIONS, correlation, motions, row
from scipy.signal import correlate

import egstalker_nb as egs
from egstalker_nb.core.errors import InputError
from egstalker_nb.media.audio import frames_of
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.model.mouth import Mouth
from egstalker_nb.speech import phones
from egstalker_nb.speech.encoders import describe
from egstalker_nb.speech.voice_activity import passages, shut_in_silence
from egstalker_nb.training.fit_mouth import fit_mouth

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "phones"))
import synthesize  # noqa: E402

TEXT_SEED = 2000               # the encoder's training speech has seeds 0 to 23; texts of 1000 chose the closure rule
TEXTS = 60                     # synthesised for the closures
SHUT = 0.25                    # of the mean opening in speech, above the shut mouth's
PER_FRAME = 4                  # intervals of 10 ms per frame
#: phones -> their classes
CLOSED = {"b, p, m": ("b", "m"), "f, v": ("f",)}
OPEN_VOWELS = ("a", "ae", "aw", "eh")
SILENT_SECONDS, SETTLING = 3, 8  # appended; frames of it in which the mouth is still closing
NOISE_DB, BREATH_DB = -50.0, -45.0  # dBFS
VARIANTS = ("+Marco", "+Alicia", "+Jacky", "+adam", "+pablo", "+Andrea")  # not in the encoder's training speech


class Audio(NamedTuple):
    """What drives a head: audio features, how far silence shuts the mouth [F], and whether there is speech [F]."""

    features: torch.Tensor
    silent: torch.Tensor
    speech: np.ndarray


def analysed(wave: np.ndarray, frames: Optional[int] = None) -> Audio:
    """Analyse a wave; frames: the number of them, by default that of the audio."""
    features = egs.load_encoder("phones").features(wave, frames)
    return Audio(torch.from_numpy(features), torch.from_numpy(shut_in_silence(wave, len(features))),
                 passages(wave, len(features))[1])


class Head(NamedTuple):
    """A prepared dataset, the mouth that was fitted to it, and its audio."""

    ds: egs.Dataset
    mouth: Mouth
    audio: Audio

    @property
    def name(self) -> str:
        return self.ds.root.name

    @property
    def tracked(self) -> np.ndarray:
        """Opening, width and chin of the clip's frames, [N, 3]."""
        return motions(self.ds.mouth)

    @property
    def shut(self) -> float:
        """Opening of the shut mouth, head units."""
        return float(motions(self.mouth.decode(self.mouth.shut[None]).numpy())[0, 0])

    def driven(self, audio: Audio) -> np.ndarray:
        """Opening, width and chin that audio drives this head to, [F, 3] head units."""
        return motions(self.mouth.decode(self.mouth.predict(audio.features, audio.silent)).numpy())

    def opening(self, audio: Audio, speech_of: Optional[Audio] = None) -> np.ndarray:
        """Opening above the shut mouth's, over its mean in the speech, [F]: 0 shut, 1 as usual.

        Args:
            audio: drives the head.
            speech_of: audio whose speech gives the mean; default: `audio`.
        """
        gap = self.driven(audio)[:, 0] - self.shut
        other = gap if speech_of is None else self.driven(speech_of)[:, 0] - self.shut
        return gap / max(other[(speech_of or audio).speech].mean(), 1e-6)


class Spoken(NamedTuple):
    """Synthesised speech: its voice, audio at 16 kHz, and the class of each 10 ms."""

    voice: str
    wave: np.ndarray
    labels: np.ndarray


class Clip(NamedTuple):
    """Recorded speech: who speaks, and audio at 16 kHz."""

    speaker: str
    wave: np.ndarray


def heads_of(folders: Sequence[Path]) -> list[Head]:
    """The mouths of prepared datasets.

    Raises:
        InputError: a dataset with features of another encoder than the built-in one.
    """
    datasets = [egs.load_dataset(folder) for folder in folders]
    for ds in datasets:
        if ds.encoder != phones.SPEC:
            raise InputError("datasets with features of the built-in encoder", f"{describe(ds.encoder)} in '{ds.root}'",
                             "Prepare it again.")
    return [Head(ds, fit_mouth(ds), analysed(ds.audio(), len(ds))) for ds in datasets]


def texts_spoken(count: int = TEXTS) -> Iterator[Spoken]:
    """Random texts: espeak-ng in all languages of the training speech, and flite, in turns."""
    rng, espeak = random.Random(TEXT_SEED), synthesize.Espeak()
    texts = {folder: synthesize.sentences(folder) for folder in {*synthesize.LANGUAGES.values()}}
    with tempfile.TemporaryDirectory() as folder:
        while count:
            if count % 2:
                language = rng.choice([*synthesize.LANGUAGES])
                voice = language + rng.choice(VARIANTS)
                made = espeak(rng.choice(texts[synthesize.LANGUAGES[language]]), voice, words=rng.randint(130, 200))
            else:
                voice = rng.choice([*synthesize.FLITE])
                low, high = synthesize.FLITE[voice]
                made = synthesize.flite(rng.choice(texts[""]), voice, rng.uniform(0.9, 1.2), (low + high) / 2,
                                        Path(folder))
            if made is not None:
                yield Spoken(voice, np.clip(made[0], -1, 1), made[1])
                count -= 1


def segments(labels: np.ndarray, classes: Sequence[str]) -> list[tuple[int, int]]:
    """Runs of some classes, as first interval of 10 ms and the one after the last."""
    known = np.concatenate([[False], np.isin(labels, [phones.CLASSES.index(name) for name in classes]), [False]])
    edges = np.flatnonzero(np.diff(known))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def shut_share(opening: np.ndarray, found: Sequence[tuple[int, int]], throughout: bool = False) -> float:
    """Share of the segments in which the mouth is shut; NaN without segments.

    Args:
        opening: [F], see `Head.opening`.
        found: see `segments`. Frame k is at 10 ms interval 4 k.
        throughout: count mouths that are shut in all frames of the segment, and not those that are shut in any frame of
            it or one frame before or after.
    """
    more = 0 if throughout else 1
    frames = [opening[max(0, -(-begin // PER_FRAME) - more):(end - 1) // PER_FRAME + 1 + more] for begin, end in found]
    shut = [(part.max() if throughout else part.min()) < SHUT for part in frames if len(part)]
    return float(np.mean(shut)) if shut else float("nan")


def closures(heads: Sequence[Head], spoken: Sequence[Spoken]) -> list[dict[str, Any]]:
    """Share of segments with a shut mouth; a voice counts as a speaker. In open vowels a shut mouth is wrong."""
    openings = [[head.opening(audio) for head in heads] for audio in (analysed(each.wave) for each in spoken)]
    wanted = [(f"shut in {name}", classes, False) for name, classes in CLOSED.items()]
    rows = []
    for figure, classes, throughout in [*wanted, ("shut throughout an open vowel", OPEN_VOWELS, True)]:
        found = [segments(each.labels, classes) for each in spoken]
        shares = [np.mean([shut_share(opening, some, throughout) for opening in of_heads])
                  for some, of_heads in zip(found, openings)]
        for maker in ("espeak-ng", "flite", "both"):
            chosen = [n for n, each in enumerate(spoken)
                      if maker == "both" or (each.voice in synthesize.FLITE) is (maker == "flite")]
            rows.append(row(figure, maker, [shares[n] for n in chosen], [spoken[n].voice for n in chosen],
                            segments=sum(len(found[n]) for n in chosen)))
    return rows


def spread(heads: Sequence[Head], clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """Standard deviation of the predicted opening over that of the head's own clip."""
    own, others, foreign = [], [], []
    recorded = [(analysed(clip.wave), clip.speaker) for clip in clips]
    for head in heads:
        tracked = head.tracked[:, 0].std()
        own.append(head.driven(head.audio)[:, 0].std() / tracked)
        others += [(head.driven(other.audio)[:, 0].std() / tracked, other.name) for other in heads
                   if other is not head]
        foreign += [(head.driven(audio)[:, 0].std() / tracked, speaker) for audio, speaker in recorded]
    return [row("spread of the opening", "own audio", own, [head.name for head in heads]),
            row("spread of the opening", "audio of the other heads", *zip(*others)),
            row("spread of the opening", "audio of `measure`", *zip(*foreign))]


def noise(samples: int, level: float, breath: bool = False) -> np.ndarray:
    """White noise, or breath: pink noise with an envelope that rises and falls in 1.5 s.

    Args:
        samples: length at 16 kHz.
        level: RMS in dBFS.
        breath: whether it is breath.
    """
    made = np.random.default_rng(0).standard_normal(samples)
    if breath:
        spectrum = np.fft.rfft(made)
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), len(spectrum) * 50 / (SAMPLE_RATE / 2)))
        made = np.fft.irfft(spectrum, samples) * np.sin(np.pi * np.arange(samples) / (1.5 * SAMPLE_RATE)) ** 2
    return (made * 10 ** (level / 20) / np.sqrt(np.mean(made ** 2))).astype(np.float32)


def silence(heads: Sequence[Head], clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """Opening in appended silence over its mean in speech, and in files without speech."""
    samples = SILENT_SECONDS * SAMPLE_RATE
    appended = {"zeros": np.zeros(samples, np.float32), "noise of -50 dBFS": noise(samples, NOISE_DB),
                "breath of -45 dBFS": noise(samples, BREATH_DB, True)}
    rows, speakers = [], [clip.speaker for clip in clips for _ in heads]
    for name, end in appended.items():
        values = []
        for clip in clips:
            whole = analysed(np.concatenate([clip.wave, end]))
            first = frames_of(len(clip.wave)) + SETTLING
            values += [head.opening(whole)[first:].mean() for head in heads]
        rows.append(row("opening in silence", f"{name}, appended", values, speakers))
    for name, alone in [*appended.items()][1:]:
        values = [head.opening(analysed(alone), head.audio).mean() for head in heads]
        rows.append(row("opening in silence", f"{name}, alone", values, [head.name for head in heads]))
    return rows


def same_recording(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two waves hold the same recording, shifted or not: other recordings correlate at 0.15 at most."""
    highest = np.abs(correlate(a, b, method="fft")).max()
    return bool(highest > 0.5 * np.sqrt(np.square(a).sum() * np.square(b).sum()))


def voices(heads: Sequence[Head], fitted: Sequence[np.ndarray]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Correlation of the predicted mouth with the tracked one: own validation frames, and all ordered pairs of heads.

    Args:
        heads: each is driven by the audio of every one.
        fitted: waves of the clips that the prior was fitted to; audio that is among them is counted apart.

    Returns:
        rows of means, for which the one who speaks counts, and a row for each pair.
    """
    known = {head.name: any(same_recording(head.ds.audio(), wave) for wave in fitted) for head in heads}
    pairs = []
    for head in heads:
        for speaker in heads:
            driven, seen = head.driven(speaker.audio), slice(None)
            if speaker is head:
                seen = slice(head.ds.num_train, None)
            r = [correlation(driven[seen, k], speaker.tracked[seen, k]) for k in range(len(MOTIONS))]
            pairs.append({"head": head.name, "audio": speaker.name, "in_fit": known[speaker.name],
                          "frames": len(driven[seen]), **{name: round(x, 3) for name, x in zip(MOTIONS, r)}})
    rows = []
    for kind, own in (("own voice, validation frames", True), ("foreign voices", False)):
        for group, used in ((kind, (False, True)), (f"{kind}, not in the fit", (False,)),
                            (f"{kind}, in the fit", (True,))):
            some = [pair for pair in pairs if (pair["head"] == pair["audio"]) is own and pair["in_fit"] in used]
            rows += [row(name, group, [pair[name] for pair in some], [pair["audio"] for pair in some])
                     for name in MOTIONS]
    return rows, pairs
