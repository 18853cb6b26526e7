"""Phones of each synthesiser, mapped to classes of `egstalker_nb.speech.phones`."""
from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Mapping, Union

Classes = Union[str, tuple[str, str]]

#: IPA symbol -> class. The approximant of Spanish "b" belongs to "f", as the lips nearly meet
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

#: the Italian and Catalan voices of festival; the mark `1` of a stressed vowel is removed before
ROMANCE: Mapping[str, Classes] = {
    "a": "a", "E": "eh", "e": "e", "i": "i", "O": "aw", "o": "o", "u": "u", "ax": "ax", "j": "j", "w": "w", "p": "b",
    "b": "b", "m": "m", "f": "f", "v": "f", "t": "d", "d": "d", "n": "n", "nf": "n", "J": "n", "ng": "ng", "s": "s",
    "z": "s", "ts": "s", "dz": "s", "S": "sh", "Z": "sh", "tS": "sh", "dZ": "sh", "l": "l", "L": "l", "r": "r",
    "rr": "r", "k": "g", "g": "g", "#": "sil", "pau": "sil", "_": "sil"}


@lru_cache(None)
def classes_of(phone: str) -> tuple[str, ...]:
    """The sequence of one or two classes of a phone written in IPA; empty if no symbol is known.

    A diphthong gives its two vowels. An affricate gives its fricative, whose lip shape it has from the start.
    """
    phone = unicodedata.normalize("NFD", phone)  # a letter and its accents one by one, as the table has only letters
    if phone == "ʲ":  # palatalisation as a phone of its own
        return ("j",)
    if phone.startswith("("):  # "(en)": switch to another language
        return ()
    found = tuple(dict.fromkeys(IPA[symbol] for symbol in phone if symbol in IPA))
    return found[-1:] if found[:1] == ("d",) else found[:2]
