"""Texts are cut into sentences: nothing is lost, none is too long, and abbreviations do not end one."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egstalker_nb.media.tts_text import MAX_SENTENCE, plain, sentences

TEXT = st.text(max_size=600) | st.text("aB.,;!? \n\"'。、…1", max_size=600)


@given(TEXT, st.integers(1, 300))
def test_every_character_is_in_a_sentence_and_no_sentence_is_too_long(text, limit):
    found = sentences(plain(text), limit)
    assert "".join("".join(found).split()) == "".join(plain(text).split())
    assert all(0 < len(sentence) <= limit and sentence == sentence.strip() for sentence in found)


@given(st.text(st.characters(codec=None), max_size=100))
def test_a_plain_text_can_be_written_to_a_file_and_has_no_control_characters(text):
    clean = plain(text)
    clean.encode("utf-8")
    assert clean == plain(clean) and not any(ord(c) < 32 and c != "\n" for c in clean)


@pytest.mark.parametrize("text, expected", [
    ("Hello. How are you?  Fine!", ["Hello.", "How are you?", "Fine!"]),
    ("Dr. Smith met J. S. Bach vs. Mr. Hill at 3.50 p.m. on a hill. I did. You?",
     ["Dr. Smith met J. S. Bach vs. Mr. Hill at 3.50 p.m. on a hill.", "I did.", "You?"]),
    ("So did I. Then \"he said.\" And (she too.) left... Or not",
     ["So did I.", "Then \"he said.\"", "And (she too.) left...", "Or not"]),
    ("A title\n\nA line that\ngoes on", ["A title", "A line that goes on"]),
    ("你好。今天好吗？好", ["你好。", "今天好吗？", "好"]),
    (" \n ", []),
])
def test_where_sentences_end(text, expected):
    assert sentences(text) == expected


def test_a_long_sentence_is_cut_after_a_clause_and_otherwise_between_words():
    clauses = "This is a clause with several words, " * 20
    assert all(piece.endswith(",") and len(piece) > MAX_SENTENCE / 2 for piece in sentences(clauses)[:-1])
    words = sentences("hello " * 200)
    assert all(set(piece.split()) == {"hello"} for piece in words) and len(words) < 7
