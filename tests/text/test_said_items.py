"""Numbers and names of one text in another: what is the same, and what only looks so."""

from __future__ import annotations

import time

import pytest

from nla_audit.text.numerals import all_digits, forms
from nla_audit.text.said_items import SaidItems, SaidKind
from nla_audit.text.source_text import SourceText
from nla_audit.text.words import words


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("5,829", [("5829",)]),
        ("5.829", [("5829", "5.829")]),
        ("1,250.50", [("1250.5",)]),
        ("1.250,50", [("1250.5",)]),
        ("0.050", [("0.05",)]),
        ("3,5", [("3.5",)]),
        ("1.2.3", [("1.2.3",)]),
        ("$12.5%", [("12.5",)]),
        ("9/16", [("9",), ("16",)]),
        ("²", []),
    ],
)
def test_forms_of_a_number(number: str, expected: list[tuple[str, ...]]) -> None:
    assert forms(number) == expected


@pytest.mark.parametrize(
    ("text", "there", "absent"),
    [
        ("a hundred and two hundred", {"100", "200"}, {"102", "300"}),
        ("one thousand and two thousand", {"1000", "2000"}, {"3000"}),
        ("twenty, thirty and one hundred", {"20", "30", "100"}, {"50", "150"}),
        ("nineteen hundred and ninety-one", {"1991"}, {"1900"}),
        ("two million three hundred thousand and five", {"2300005"}, set()),
        ("twenty and five", {"20", "5"}, {"25"}),
        ("It has 5 hundred, or hundreds.", {"5"}, {"100", "500"}),
        ("It has 5 million people.", {"5000000"}, {"1000000"}),
        ("option K", set(), {"1000"}),
        ("$1.2M in FY2021", {"1200000", "2021"}, set()),
        ("1.125 million", {"1125000"}, {"1125000000"}),
        ("Sets of 1,2,3 million each, v1.2.3 k, on 3.11.2021 M. spoke", {"2021"}, set()),
    ],
)
def test_digits_of_a_text(text: str, there: set[str], absent: set[str]) -> None:
    found = all_digits(text, words(text))
    assert there <= found
    assert not absent & found


@pytest.mark.parametrize("text", ["1" * 100_000, "1," * 50_000, "hundred " * 20_000, "A1" * 50_000])
def test_long_texts_of_numbers_end_soon(text: str) -> None:
    begun = time.process_time()
    SourceText(text).holds_number("7")
    assert SaidItems(text).not_said_by(SaidItems("nothing"), "quote") == []
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("number", "It cost $5 million.", "It cost $5,000,000."),
        ("number", "It cost $1.2M.", "It cost $1,200,000."),
        ("number", "It is 5 m long.", "It is 5 metres long."),
        ("number", "p is 0.050", "p is 0.05"),
        ("number", "between 100 and 200", "between one hundred and two hundred"),
        ("number", "at p = 0.003, or", "at p=.003, or"),
        ("number", "since 1 January 2023", "since 2023-01-01"),
        ("number", "on 14 March 1916", "on 14/3/1916"),
        ("entity", "it was in mid November, in rain", "it was in mid Nov. rain"),
        ("entity", "on the 14 March 1916 he", "on 14/3/1916"),
        ("entity", "He lives in the United States.", "He lives in the U.S."),
        ("entity", "They sell to the United Kingdom.", "It is for the British."),
        ("entity", "The firm of Portugal won.", "A Portuguese firm won."),
        ("entity", "It was in Canada.", "It was Canadian."),
        ("entity", "The United States Air Force flew.", "The USAF flew."),
        ("entity", "It is about New South Wales.", "It is about NSW."),
        ("entity", "It is about the mayor Ada Holm's cat.", "Holm, Ada: a cat."),
        ("entity", "It opens on Tuesdays only.", "on a Tuesday"),
        ("entity", "They met at Lake Windermere.", "at Windermere"),
        ("entity", "So says Inspector Ada Holm.", "Ada Holm, of the police"),
        ("entity", "It was in Montenegro.", "It was Montenegrin."),
    ],
)
def test_the_same_in_other_words(kind: SaidKind, one: str, other: str) -> None:
    assert not SaidItems(one).not_said_by(SaidItems(other), kind)
    assert not SaidItems(other).not_said_by(SaidItems(one), kind)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("number", "It cost $5 million.", "It cost $5 billion."),
        ("number", "0.125 million", "125 million"),
        ("entity", "on the 14 March 1916 he", "on 14/4/1916"),
        ("entity", "on the 14 March 1916 he", "version 3 of it"),
        ("number", "on 14 March 1916", "in March 1916"),
        ("entity", "He met Manning.", "The man met him."),
        ("entity", "He met Banks.", "He met them at the bank."),
        ("entity", "It is by Julia.", "It is by Julian."),
        ("entity", "He met Williams.", "He met William."),
        ("entity", "It is by Veronica Lake.", "It is by Veronica Mars."),
        ("entity", "It is in the Lake District.", "It is in a school district."),
        ("entity", "It is about Inspector Mount.", "It is about Inspector Holm."),
        ("entity", "So says CEO Ada Holm.", "So says CFO Ada Holm."),
        ("entity", "It is of Denmark.", "It is of Dan."),
        ("entity", "A German firm", "a germ"),
        ("entity", "It uses MP3 files.", "It uses MP4 files."),
    ],
)
def test_others_that_look_the_same(kind: SaidKind, one: str, other: str) -> None:
    assert SaidItems(one).not_said_by(SaidItems(other), kind)


def test_an_empty_number_is_held_by_nothing() -> None:
    assert not SourceText("x").holds_number("²")
