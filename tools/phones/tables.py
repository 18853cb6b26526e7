"""The phones that each synthesiser names, as classes of `egstalker_nb.speech.phones`."""
from __future__ import annotations

from functools import lru_cache
from typing import Mapping, Union

Classes = Union[str, tuple[str, str]]

#: IPA symbols -> class. The approximant of Spanish "b" is with "f": the lips nearly meet
IPA = {symbol: name for name, symbols in {
    "a": "aɑɶ", "ae": "æ", "eh": "ɛ", "e": "e", "ih": "ɪɨᵻ", "i": "i", "aw": "ɔɒ", "o": "oɤ", "uh": "ʊ", "u": "uɯʉ",
    "ue": "yʏøœ", "ax": "əʌɐɘɵ", "er": "ɜɚɝ", "b": "pbɓ", "m": "m", "f": "fvɱʋβɸ", "th": "θð", "d": "tdʈɖɗ",
    "n": "nɲɳ", "s": "szʂʐ", "sh": "ʃʒɕʑ", "l": "lɫɬʎɭ", "r": "rɹɾʀʁɻ", "g": "kgɡxɣqχɢcɟç", "ng": "ŋ", "h": "hɦʔħ",
    "w": "wʍɥ", "j": "jʝ",
}.items() for symbol in symbols}

#: the English voices of flite and festival
ENGLISH: Mapping[str, Classes] = {
    "aa": "a", "ae": "ae", "ah": "ax", "ao": "aw", "aw": ("a", "uh"), "ax": "ax", "ay": ("a", "ih"), "b": "b", "p": "b",
    "ch": "sh", "d": "d", "dh": "th", "eh": "eh", "er": "er", "axr": "er", "ey": ("e", "ih"), "f": "f", "v": "f",
    "g": "g", "k": "g", "hh": "h", "hv": "h", "ih": "ih", "ix": "ih", "iy": "i", "jh": "sh", "l": "l", "el": "l",
    "m": "m", "em": "m", "n": "n", "en": "n", "nx": "n", "ng": "ng", "ow": ("o", "uh"), "oy": ("aw", "ih"), "r": "r",
    "s": "s", "z": "s", "sh": "sh", "zh": "sh", "t": "d", "dx": "d", "th": "th", "uh": "uh", "uw": "u", "w": "w",
    "y": "j", "pau": "sil", "h#": "sil", "sil": "sil", "brth": "sil", "ssil": "sil"}

#: the Italian and Catalan voices of festival; `1` marks a stressed vowel and is dropped before
ROMANCE: Mapping[str, Classes] = {
    "a": "a", "E": "eh", "e": "e", "i": "i", "O": "aw", "o": "o", "u": "u", "ax": "ax", "j": "j", "w": "w", "p": "b",
    "b": "b", "m": "m", "f": "f", "v": "f", "t": "d", "d": "d", "n": "n", "nf": "n", "J": "n", "ng": "ng", "s": "s",
    "z": "s", "ts": "s", "dz": "s", "S": "sh", "Z": "sh", "tS": "sh", "dZ": "sh", "l": "l", "L": "l", "r": "r",
    "rr": "r", "k": "g", "g": "g", "#": "sil", "pau": "sil", "_": "sil"}


@lru_cache(None)
def classes_of(phone: str) -> tuple[str, ...]:
    """The one or two classes that follow each other within a phone written in IPA; none if nothing in it is known.

    A diphthong is its two vowels. An affricate is its fricative, whose shape the lips have from the start.
    """
    if phone == "ʲ":  # palatalisation, where it has a time of its own
        return ("j",)
    if phone.startswith("("):  # "(en)": from here on another language's rules
        return ()
    found = tuple(dict.fromkeys(IPA[symbol] for symbol in phone if symbol in IPA))
    return found[-1:] if found[:1] == ("d",) else found[:2]
