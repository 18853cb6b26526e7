"""Typed speech: speed of each installed synthesiser, its pace, and how well the built-in encoder finds its phones.

    OMP_NUM_THREADS=1 python benchmarks/typed_speech.py [--out benchmarks/results/typed_speech.json]

Needs the extra `tts`, whose lexicon also says which phones should be heard; espeak-ng and flite are measured if they
are installed. Each speaks the same twelve sentences with its first American voice. Times are the best of several. A
phone counts as found if the encoder names its class, or for a vowel a class that opens the lips about as much, at some
step of the stretch that the best alignment gives it (Viterbi, silence allowed between words). espeak-ng's and flite's
voices are in the encoder's training speech, hibari's is not.
"""
from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from common import facts

from egstalker_nb.media import tts
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.media.tts_neural import load_hibari
from egstalker_nb.speech import phones

SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the bank of the river.",
    "She bought some apples and a loaf of bread, and then she walked home through the park.",
    "Please call Stella, and ask her to bring these things with her from the store.",
    "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob.",
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow.",
    "The north wind and the sun were disputing which was the stronger.",
    "My baby bought a big boat, and mama and papa put it by the pump.",
    "You can type whatever I say, and the head moves with it.",
    "Few people have found a better way of making a film about volcanoes.",
    "Above the valley, five brave families move from farm to farm.",
    "We hope that you remember to bring your umbrella tomorrow morning.",
    "The warm water of the bathtub made both of us happy.",
)
PACES = 80, 120, 160, 200, 300, 400  # words a minute
#: phonemes of hibari's lexicon -> the encoder's classes
CLASSES = {
    "ɑ": "a", "a": "a", "ʌ": "a", "æ": "ae", "ɛ": "eh", "e": "e", "ɪ": "ih", "ᵻ": "ih", "i": "i", "ɔ": "aw", "o": "o",
    "ʊ": "uh", "u": "u", "ə": "ax", "ᵊ": "ax", "ɐ": "ax", "ɜ": "er", "A": "e i", "I": "a i", "O": "o u", "W": "a u",
    "Y": "aw i", "p": "b", "b": "b", "m": "m", "f": "f", "v": "f", "θ": "th", "ð": "th", "t": "d", "d": "d", "T": "d",
    "n": "n", "s": "s", "z": "s", "ʃ": "sh", "ʒ": "sh", "ʧ": "sh", "ʤ": "sh", "l": "l", "ɹ": "r", "k": "g", "ɡ": "g",
    "ŋ": "ng", "h": "h", "w": "w", "j": "j",
}
GROUPS = {"b, p, m": ("b", "m"), "f, v": ("f",)}
SIMILAR = 0.25  # difference of opening within which another vowel counts


def expected(sentence: str, voice: str) -> list[str]:
    """The encoder's classes of a sentence in American English, "sil" between words."""
    found = ["sil"]
    for c in load_hibari(voice).g2p(sentence):
        found += CLASSES[c].split() if c in CLASSES else ["sil"] if c == " " and found[-1] != "sil" else []
    return [*found, "sil"]


def aligned(log: np.ndarray, states: Sequence[int], optional: np.ndarray) -> np.ndarray:
    """The best path through states in order.

    Args:
        log: [T, C] log probabilities.
        states: classes in order, [N].
        optional: whether a state may be skipped, [N].

    Returns:
        The state of each step, int [T].
    """
    cost = np.full(len(states), -np.inf)
    cost[:2] = log[0, states[0]], log[0, states[1]]
    back = np.zeros((len(log), len(states)), int)
    for t in range(1, len(log)):
        options = np.full((3, len(states)), -np.inf)
        options[0], options[1, 1:] = cost, cost[:-1]
        options[2, 2:] = np.where(optional[1:-1], cost[:-2], -np.inf)
        back[t] = options.argmax(0)
        cost = options.max(0) + log[t, states]
    path = [len(states) - 1 if cost[-1] >= cost[-2] else len(states) - 2]
    for t in range(len(log) - 1, 0, -1):
        path.append(path[-1] - back[t, path[-1]])
    return np.array(path[::-1])


def phones_found(wave: np.ndarray, names: list[str]) -> dict[str, list[bool]]:
    """Whether each phone of a sentence is found, by group: "vowels", "all" and those of GROUPS."""
    states = np.array([phones.CLASSES.index(name) for name in names])
    probability = phones.steps(wave) ** 2
    path = aligned(np.log(probability + 1e-4), states, states == 0)
    heard, found = probability.argmax(1), {name: [] for name in (*GROUPS, "vowels", "all")}
    for n, name in enumerate(names):
        if name == "sil":
            continue
        vowel = 1 <= phones.CLASSES.index(name) <= 13
        same = {name, *next((group for group in GROUPS.values() if name in group), ())}
        if vowel:
            same |= {other for other in phones.CLASSES[1:14]
                     if abs(phones.OPENNESS[other] - phones.OPENNESS[name]) < SIMILAR}
        ok = any(phones.CLASSES[c] in same for c in heard[path == n])
        for group in found:
            if group == "all" or (group == "vowels" and vowel) or name in GROUPS.get(group, ()):
                found[group].append(ok)
    return found


def spoken(voice: tts.Voice, pace: float) -> tuple[list[np.ndarray], float]:
    """The sentences one by one, and the seconds that they took."""
    start = time.perf_counter()
    waves = [np.concatenate(list(tts.stream(sentence, voice, pace))) for sentence in SENTENCES]
    return waves, time.perf_counter() - start


def measured(voice: tts.Voice, names: list[list[str]]) -> dict:
    """Speed, pace and phones of a voice that is loaded."""
    first = []
    for _ in range(10):
        start = time.perf_counter()
        next(tts.stream(" ".join(SENTENCES), voice))
        first.append(time.perf_counter() - start)
    # the fastest of five: other programs ran on this machine
    waves, seconds = min((spoken(voice, tts.DEFAULT_PACE) for _ in range(5)), key=lambda result: result[1])
    words = sum(len(sentence.split()) for sentence in SENTENCES)
    found = [phones_found(wave, name) for wave, name in zip(waves, names)]
    return {
        "first_sound_ms": round(1000 * min(first), 1),
        "times_real_time": round(sum(map(len, waves)) / SAMPLE_RATE / seconds, 1),
        "words_a_minute": {pace: round(60 * words / (sum(map(len, spoken(voice, pace)[0])) / SAMPLE_RATE))
                           for pace in PACES},
        "phones_found": {group: {"share": round(float(np.mean(sum((f[group] for f in found), []))), 3),
                                 "of": sum(len(f[group]) for f in found)} for group in found[0]},
    }


def main(args: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    out = parser.parse_args(args).out
    first = {}
    for voice in tts.voices():
        if voice.language == "en-us":
            first.setdefault(voice.program, voice)
    if "hibari" not in first:
        parser.error("needs the extra: pip install 'egstalker-nb[tts]'")
    results = []
    for voice in first.values():  # hibari first: nothing has been loaded for it yet
        start = time.perf_counter()
        next(tts.stream("Hello.", voice))
        loading = time.perf_counter() - start
        names = [expected(sentence, first["hibari"].id) for sentence in SENTENCES]
        results.append({"voice": str(voice), "first_call_s": round(loading, 2), **measured(voice, names)})
        print(json.dumps(results[-1], indent=1, ensure_ascii=False))
    if out:
        found = {**facts(), **{name: metadata.version(name) for name in ("hibari-tts", "onnxruntime")}}
        out.write_text(json.dumps({"facts": found, "synthesisers": results}, indent=1, ensure_ascii=False) + "\n",
                       encoding="utf-8")


if __name__ == "__main__":
    main()
