"""What of an input's end an explanation holds, ends with, or is nothing but."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pytest

from nla_audit.text.tails import HeldTail, Tail, held, held_strictly
from nla_audit.text.words import content_stems, words

SOURCE = "they were thrilled to join the company that"


def found(explanation: str, source: str = SOURCE) -> HeldTail:
    return held(words(explanation), Tail(source).words)


@pytest.mark.parametrize(
    "explanation",
    [
        "the company that",
        "The Company That",  # case
        '"the company that"',  # quotes
        "“the company, that…”",  # punctuation
        "  the company\nthat ",  # white space
        "the company tha",  # the explanation's last word is cut
        "company that",
        SOURCE,
    ],
)
def test_the_tail_but_for_its_writing_is_the_tail(explanation: str) -> None:
    assert found(explanation).is_nothing_but
    assert found(explanation).ends_with
    assert found(explanation).holds


@pytest.mark.parametrize(
    ("source", "explanation"),
    [
        ("a load of 70 kg! MIMO C", "MIMO Camera"),  # the input stops within a word
        ("a load of 70 kg! MIMO Camera", "MIMO Cam"),
        ("the wester", "western"),
        ("in the Café Zürich", unicodedata.normalize("NFD", "Café Zürich")),
        (unicodedata.normalize("NFD", "in the Café Zürich"), "café zürich"),
        ("at the ﬁnal office", "final office"),
        ("called ＡＢＣ news", "ABC news"),
        ("the report of the company’s", "the company's"),
        ("東京の天気", "の天気"),
    ],
)
def test_cut_words_and_encodings(source: str, explanation: str) -> None:
    assert found(explanation, source).is_nothing_but


@pytest.mark.parametrize(
    ("source", "explanation"),
    [
        (SOURCE, "the firm that"),
        (SOURCE, "that company"),
        (SOURCE, "the company that made"),  # goes on
        (SOURCE, "Final: the company that"),  # says something else too
        (SOURCE, ""),
        (SOURCE, "…"),
        ("mix it in a", "mix it in all"),  # "a" is a word, not a cut one
        ("it was the", "there"),
        ("the price of a tv", "tvs or t"),
        ("a load of 70 kg! MIMO C", "Camera"),  # one letter alone agrees by chance
    ],
)
def test_what_is_not_the_tail(source: str, explanation: str) -> None:
    assert not found(explanation, source).is_nothing_but


def test_holding_is_not_ending_and_ending_is_not_being() -> None:
    inside = found('The "company that" clause')
    assert (inside.holds, inside.ends_with, inside.is_nothing_but) == (True, False, False)
    ends = found("Final words: the company that")
    assert (ends.holds, ends.ends_with, ends.is_nothing_but) == (True, True, False)
    one_word = found("that")  # the tail, but not two words of it
    assert (one_word.holds, one_word.ends_with, one_word.is_nothing_but) == (False, False, True)


@pytest.mark.parametrize(
    ("explanation", "expected"),
    [
        ("the company that", (True, True, True)),
        (" the  company\nthat ", (True, True, True)),
        ("The company that", (True, True, False)),
        ('"the company that"', (True, False, False)),
        ("company That", (False, False, False)),
        ("accompany that", (False, False, False)),  # cuts a word
        ("pany that", (False, False, False)),
        ("company thatched", (False, False, False)),
        ("", (False, False, False)),
    ],
)
def test_to_the_letter(explanation: str, expected: tuple[bool, bool, bool]) -> None:
    assert held_strictly(explanation, Tail(SOURCE)) == expected


def test_to_the_letter_in_either_form_of_an_accent() -> None:
    decomposed = unicodedata.normalize("NFD", "in the Café Zürich")
    assert held_strictly("Café Zürich", Tail(decomposed)) == (True, True, True)


@pytest.mark.parametrize(
    "text", ["Zürich’s café — naïve “Straße”", "각각 말했다", "e\u0301lan d'e\u0301te\u0301"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_words_do_not_depend_on_the_encoding(
    text: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"]
) -> None:
    other = unicodedata.normalize(form, text)
    assert words(other) == words(text)


def test_stems_do_not_depend_on_the_encoding() -> None:
    text = "Zürich’s cafés were naïve"
    assert content_stems(unicodedata.normalize("NFD", text)) == content_stems(text)
