"""Words, and words that are spoken of."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_audit.text.vectors import WordVectors
from nla_audit.text.words import unheld, word_spans, words, words_and_mentions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Final token "of" of', ["final", "token", '"of', "of"]),
        ("ends in “The” or ‘with,’", ["ends", "in", '"the', "or", '"with']),
        ('then " who…" next', ["then", '"who', "next"]),
        ("«the» „of“ 「and」 the", ['"the', '"of', '"and', "the"]),
        # More than the word stands in the quotes, or it is content anyway.
        ('"of the" and "river"', ["of", "the", "and", "river"]),
        ("don’t say the Smiths’ and others’", ["don't", "say", "the", "smiths", "and", "others"]),
    ],
)
def test_a_function_word_that_is_spoken_of_is_marked(text: str, expected: list[str]) -> None:
    assert list(words_and_mentions(text)) == expected


def test_what_another_text_does_not_hold() -> None:
    ours = words_and_mentions('The rivers end in "of", a preposition')
    assert unheld(ours, ["river", "ends"]) == ['"of', "preposition"]


def test_texts_that_speak_of_the_same_word_are_alike() -> None:
    vectors = WordVectors()
    texts = ['The text breaks off at "that" here', '"that" conjunction', '"who" conjunction']
    vectors.fit(texts)
    found = vectors.vectors(texts)
    alike = (found @ found.T).toarray()[0]
    assert alike[1] > 2 * alike[2]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_texts_have_the_words_that_any_text_would(text: str) -> None:
    # Beside a word that is not ASCII the pattern for every script is used.
    assert words(text) == words(f"{text} é")[:-1]
    assert list(word_spans(text)) == list(word_spans(f"{text} é"))[:-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),
        ("שָׁלוֹם רב", ["שָׁלוֹם", "רב"]),
        ("ที่นี่ ดี", ["ที่นี่", "ดี"]),
    ],
)
def test_vowels_that_are_marks_do_not_part_a_word(text: str, expected: list[str]) -> None:
    spans = [text[start:end] for start, end in word_spans(text)]
    assert spans == expected
    assert len(words(text)) == len(expected)


def test_a_quoted_phrase_of_many_marks_is_read_at_once() -> None:
    """Were it tried how the marks may be grouped, every two more took twice as long."""
    begun = time.process_time()
    assert len(words_and_mentions("“" + "ที่" * 24 + " ดี”")) == 2
    assert time.process_time() - begun < 1
