"""Synthesise speech in many voices, with the phone of every 10 ms.

    python tools/phones/synthesize.py SHARDS

Needs espeak-ng, flite, festival with voices and texts, all from Debian: see README.md here.
"""
from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional, Sequence

import numpy as np
from scipy.signal import resample_poly
from tables import ENGLISH, ROMANCE, Classes, classes_of

from egstalker_nb.core.errors import InputError, MissingPackageError
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.speech.phones import CLASSES

HOP = 160                      # samples: 10 ms
SHARD_SECONDS = 600
MIN_SECONDS = 1.0              # shorter utterances are skipped
FORTUNES = Path("/usr/share/games/fortunes")
FESTIVAL_VOICES = Path("/usr/share/festival/voices")
#: espeak-ng's name of a language -> folder of texts (of a related language if it has none of its own)
LANGUAGES = {"en-us": "", "en": "", "en-gb-scotland": "", "en-029": "", "de": "de", "es": "es", "es-419": "es",
             "it": "it", "fr": "it", "fr-be": "es", "pt-br": "brasil", "pt": "brasil", "pl": "pl", "cs": "cs",
             "ru": "ru", "nl": "de", "sv": "de", "ro": "it", "el": "es", "fi": "it", "hu": "cs", "tr": "it"}
MORE_ENGLISH = ("en-us", "en-us", "en-us", "en", "en")  # English has more vowels than most
ENGLISH_TEXTS = ("computers", "cookie", "definitions", "education", "food", "fortunes", "humorists", "kids", "law",
                 "people", "politics", "science", "wisdom", "work", "sports", "pets", "love", "literature")
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+m8", "+f1", "+f2", "+f3", "+f4", "+f5", "+klatt",
            "+klatt2", "+klatt3", "+klatt4", "+Alex", "+Andy", "+Annie", "+Gene", "+Lee", "+Michael", "+anika",
            "+aunty", "+belinda", "+benjamin", "+david", "+edward", "+grandma", "+grandpa", "+john", "+linda", "+max",
            "+michel", "+paul", "+steph", "+travis", "+victor", "+zac", "+whisper", "+whisperf")
#: flite's voice -> range of its mean pitch in Hz
FLITE = {"kal16": (75, 150), "awb": (75, 150), "rms": (75, 150), "slt": (130, 240)}
#: festival's voice -> its phone table and folder of texts
FESTIVAL: dict[str, tuple[Mapping[str, Classes], str]] = {
    "cmu_us_slt_arctic_hts": (ENGLISH, ""), "kal_diphone": (ENGLISH, ""), "ked_diphone": (ENGLISH, ""),
    "upc_ca_ona_hts": (ROMANCE, "es"), "lp_diphone": (ROMANCE, "it"), "pc_diphone": (ROMANCE, "it")}
SILENCE = 1e-3                 # amplitude; espeak-ng's pauses are digital silence

#: float32 [samples] at 16 kHz, and uint8 [ceil(samples / 160)], the class of each 10 ms
Speech = tuple[np.ndarray, np.ndarray]


def require(texts: bool = False) -> None:
    """Check that the synthesisers are installed.

    Args:
        texts: whether to check the texts as well.

    Raises:
        MissingPackageError: something is missing; the message lists everything.
    """
    missing = [name for name in ("flite", "festival") if shutil.which(name) is None]
    missing += [] if ctypes.util.find_library("espeak-ng") else ["espeak-ng"]
    missing += [f"festival's voice {voice}" for voice in FESTIVAL if not any(FESTIVAL_VOICES.glob(f"*/{voice}"))]
    missing += [f"texts {FORTUNES / folder}" for folder in sorted({*LANGUAGES.values()})
                if texts and not (FORTUNES / (folder or "fortunes")).exists()]
    if missing:
        raise MissingPackageError("the speech synthesisers", f"these missing: {', '.join(missing)}",
                                  "Install the Debian packages that tools/phones/README.md lists.")


def labelled(phones: Sequence[tuple[float, tuple[str, ...]]], samples: int) -> np.ndarray:
    """One class per 10 ms, uint8 [ceil(samples / 160)].

    Args:
        phones: begin in seconds, and classes, which divide its duration equally; in order of time. Each phone lasts
            until the next begins; silence before the first.
        samples: length of the audio.
    """
    result = np.zeros(-(-samples // HOP), np.uint8)
    ends = [begin for begin, _ in phones[1:]] + [samples / SAMPLE_RATE]
    for (begin, names), end in zip(phones, ends):
        edges = np.linspace(begin, end, len(names) + 1)
        for name, first, last in zip(names, edges, edges[1:]):
            result[round(first * 100):round(last * 100)] = CLASSES.index(name)
    return result


def from_ends(segments: Iterable[tuple[str, float]], table: Mapping[str, Classes], samples: int) -> np.ndarray:
    """As `labelled`, from phones and the seconds at which they end.

    Raises:
        KeyError: a phone that is not in the table.
    """
    phones, begin = [], 0.0
    for phone, end in segments:
        names = table[phone]
        phones.append((begin, names if isinstance(names, tuple) else (names,)))
        begin = end
    return labelled(phones, samples)


class _Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text", ctypes.c_int), ("length", ctypes.c_int),
                ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p),
                ("name", ctypes.c_char * 8)]


class Espeak:
    """espeak-ng as a library (`speak_lib.h`), which reports when each phone begins. One per process."""

    SYNCHRONOUS, PHONEMES, IPA, UTF8 = 2, 1, 2, 1
    PHONEME, TERMINATED = 7, 0
    RATE, PITCH, RANGE = 1, 3, 4

    def __init__(self) -> None:
        self.lib = ctypes.CDLL(ctypes.util.find_library("espeak-ng"))
        self.rate = self.lib.espeak_Initialize(self.SYNCHRONOUS, 0, None, self.PHONEMES | self.IPA)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self.callback = kind(self._take)
        self.lib.espeak_SetSynthCallback(self.callback)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        """espeak-ng's callback with a block of samples and its events; 0 to continue."""
        if samples and count:
            self.blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        n = 0
        while events[n].type != self.TERMINATED:
            if events[n].type == self.PHONEME:
                self.events.append((events[n].sample, events[n].name.decode("utf-8", "ignore")))
            n += 1
        return 0

    def __call__(self, text: str, voice: str, pitch: int = 50, spread: int = 50, words: int = 175) -> Optional[Speech]:
        """Synthesise a text; None if the result is empty.

        Args:
            text: in the language of the voice.
            voice: file of a voice and variant, such as `en-us+f3`.
            pitch: mean pitch, 0...100.
            spread: range of the pitch, 0...100.
            words: words a minute.

        Raises:
            InputError: espeak-ng has no such voice.
        """
        self.blocks, self.events = [], []
        if self.lib.espeak_SetVoiceByName(voice.encode()):
            raise InputError("a voice of espeak-ng", repr(voice), "Choose one of 'espeak-ng --voices' (column File).")
        for parameter, value in ((self.RATE, words), (self.PITCH, pitch), (self.RANGE, spread)):
            self.lib.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self.lib.espeak_Synth(data, len(data), 0, 1, 0, self.UTF8, None, None)
        if not self.blocks:
            return None
        raw = np.concatenate(self.blocks).astype(np.float32) / 32768
        wave = resample_poly(raw, SAMPLE_RATE // 50, self.rate // 50).astype(np.float32)
        return wave, labelled(self._phones(raw), len(wave))

    def _phones(self, wave: np.ndarray) -> list[tuple[float, tuple[str, ...]]]:
        """Begin and classes of each phone; unknown symbols are pauses if silent, else part of the next phone.

        Unknown symbols that are not silent are glides and the onsets of trills.
        """
        phones, early = [], None
        for (begin, phone), (end, _) in zip(self.events, [*self.events[1:], (len(wave), "")]):
            names = classes_of(phone)
            if not names:
                part = np.abs(wave[begin:end])
                if not len(part) or part.mean() >= SILENCE:
                    early = begin if early is None else early
                    continue
                names = ("sil",)
            phones.append(((begin if early is None else early) / self.rate, names))
            early = None
        return phones


def flite(text: str, voice: str, stretch: float, pitch: float, folder: Path) -> Speech:
    """Synthesise an English text.

    Args:
        text: in English.
        voice: one of `FLITE`.
        stretch: factor of all durations.
        pitch: mean pitch in Hz.
        folder: for temporary files.
    """
    out = folder / "flite.wav"
    listed = subprocess.run(
        ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "--setf", f"int_f0_target_mean={pitch}",
         "-psdur", "-t", text, "-o", str(out)], capture_output=True, text=True, timeout=120, check=True).stdout
    wave = load_audio(out)
    segments = re.findall(r"([a-z#]+):([0-9.]+)", listed)
    return wave, from_ends([(phone, float(end)) for phone, end in segments], ENGLISH, len(wave))


def festival(text: str, voice: str, stretch: float, folder: Path) -> Optional[Speech]:
    """Synthesise a text; None if the voice cannot speak it.

    Args:
        text: in the language of the voice.
        voice: one of `FESTIVAL`.
        stretch, folder: see `flite`.
    """
    wav, segs = folder / "festival.wav", folder / "festival.segs"
    for file in (wav, segs):
        file.unlink(missing_ok=True)
    spoken = re.sub(r'[\\"]', " ", text).encode("latin-1", "ignore").decode("latin-1")
    program = (f'(voice_{voice})(Parameter.set \'Duration_Stretch {stretch})'
               f'(set! u (utt.synth (Utterance Text "{spoken}")))'
               f'(utt.save.wave u "{wav}" \'riff)(utt.save.segs u "{segs}")')
    subprocess.run(["festival", "--pipe"], input=program.encode("latin-1"), capture_output=True, timeout=120)
    if not (wav.is_file() and segs.is_file()):
        return None
    lines = [line.split() for line in segs.read_text(encoding="latin-1").splitlines()]
    segments = [(parts[2].rstrip("1"), float(parts[0])) for parts in lines if len(parts) == 3 and parts[0][0].isdigit()]
    wave = load_audio(wav)
    return wave, from_ends(segments, FESTIVAL[voice][0], len(wave))


def sentences(folder: str) -> list[str]:
    """Texts in a folder of `FORTUNES`, 30 to 300 characters each, without digits and symbols."""
    root, found = FORTUNES / folder, []
    files = [root / name for name in ENGLISH_TEXTS] if not folder else [root] if root.is_file() else \
        sorted(p for p in root.rglob("*") if p.suffix in ("", ".fortunes"))
    for file in files:
        if not file.is_file():
            continue
        for text in file.read_text(encoding="utf-8", errors="ignore").split("\n%\n"):
            text = re.sub(r"[^\w\s.,;:!?'-]|\d|_", " ", text)
            text = re.sub(r"-{2,}|\s+", " ", text).strip()
            if 30 < len(text) < 300:
                found.append(text)
    return found


def one(rng: random.Random, espeak: Espeak, texts: Mapping[str, list[str]], folder: Path) -> Optional[Speech]:
    """A random text in a random voice: half by espeak-ng, the rest by flite and festival."""
    draw = rng.random()
    if draw < 0.5:
        language = rng.choice([*LANGUAGES, *MORE_ENGLISH])
        return espeak(rng.choice(texts[LANGUAGES[language]]), language + rng.choice(VARIANTS), rng.randint(20, 85),
                      rng.randint(20, 80), rng.randint(120, 230))
    stretch = rng.uniform(0.75, 1.25)
    if draw < 0.8:
        voice = rng.choice([*FLITE])
        return flite(rng.choice(texts[""]), voice, stretch, rng.uniform(*FLITE[voice]), folder)
    voice = rng.choice([*FESTIVAL])
    return festival(rng.choice(texts[FESTIVAL[voice][1]]), voice, stretch, folder)


def write_shard(job: tuple[int, Path]) -> None:
    """Write ten minutes of speech: concatenated audio (int16) and labels, and their lengths.

    Args:
        job: random seed, and file to write.
    """
    seed, path = job
    rng, espeak = random.Random(seed), Espeak()
    waves, labels, seconds = [], [], 0.0
    texts = {folder: sentences(folder) for folder in {*LANGUAGES.values(), *(f for _, f in FESTIVAL.values())}}
    with tempfile.TemporaryDirectory() as folder:
        while seconds < SHARD_SECONDS:
            made = one(rng, espeak, texts, Path(folder))
            if made is None or len(made[0]) < MIN_SECONDS * SAMPLE_RATE:
                continue
            waves.append(np.clip(made[0] * 32767, -32768, 32767).astype(np.int16))
            labels.append(made[1])
            seconds += len(made[0]) / SAMPLE_RATE
    np.savez(path, sound=np.concatenate(waves), labels=np.concatenate(labels), samples=[len(x) for x in waves],
             frames=[len(x) for x in labels])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for shards of ten minutes (19 MB each)")
    parser.add_argument("--hours", type=float, default=4)
    args = parser.parse_args()
    require(texts=True)
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [(n, args.out / f"shard{n:04d}.npz") for n in range(max(2, round(args.hours * 3600 / SHARD_SECONDS)))]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        for n, _ in enumerate(pool.imap_unordered(write_shard, jobs)):
            print(f"{n + 1} of {len(jobs)} shards", flush=True)


if __name__ == "__main__":
    main()
