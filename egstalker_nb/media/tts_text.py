"""A text as the sentences that a synthesiser speaks one by one."""
from __future__ import annotations

import re
import unicodedata

MAX_SENTENCE = 240  # characters, about 15 s of speech; longer sentences are cut between clauses or words
#: words whose full stop does not end a sentence; single letters (J. S. Bach) do not either
ABBREVIATIONS = frozenset("mr mrs ms dr prof st jr sr vs no vol fig approx e.g i.e etc cf gen col lt capt rev hon "
                          "jan feb mar apr jun jul aug sep sept oct nov dec".split())
#: the end of a sentence, with closing quotes and brackets; Chinese and Japanese put no space after it
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』）]*")
_CLAUSE = re.compile(r"[,;:—–][\"'”’»)\]]*(?=\s)|[，、；：]")


def plain(text: str) -> str:
    """The text without control characters and halves of surrogate pairs, composed (é as one character)."""
    kept = (c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text)
    return unicodedata.normalize("NFC", "".join(kept))


def sentences(text: str, limit: int = MAX_SENTENCE) -> list[str]:
    """Cut a text into sentences.

    A sentence ends at its punctuation or a blank line. One that is too long is cut after a clause, between words, or,
    in a word of that length, anywhere.

    Args:
        text: see `plain`.
        limit: characters of the longest sentence, at least 1.

    Returns:
        The sentences in order, each of 1 ... limit characters and without spaces at its ends; together they hold every
        character of the text that is not a space.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph, begin = " ".join(paragraph.split()), 0
        for end in _END.finditer(paragraph):
            if _ends(paragraph, end):
                found.append(paragraph[begin:end.end()])
                begin = end.end()
        found.append(paragraph[begin:])
    return [piece for sentence in found for piece in _pieces(sentence.strip(), limit)]


def _ends(paragraph: str, end: re.Match[str]) -> bool:
    """Whether punctuation ends a sentence: not before a small letter, nor after an abbreviation or an initial."""
    if paragraph[end.end():].lstrip()[:1].islower():
        return False
    word = re.split(r"[\s(\[\"'“‘]", paragraph[:end.start()])[-1]
    initial = len(word) == 1 and word.isupper() and word != "I"
    return not (end[0] == "." and (initial or word.lower() in ABBREVIATIONS))


def _pieces(sentence: str, limit: int) -> list[str]:
    """A sentence in pieces of at most `limit` characters; none if it is empty."""
    pieces = []
    while len(sentence) > limit:
        clauses = [clause.end() for clause in _CLAUSE.finditer(sentence, 0, limit + 1) if clause.end() <= limit]
        # a clause of a few words would be spoken too abruptly: rather between words, nearer the limit
        cut = clauses[-1] if clauses and clauses[-1] > limit // 3 else sentence.rfind(" ", 1, limit + 1)
        cut = cut if cut > 0 else limit
        pieces.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*pieces, sentence] if sentence else pieces
