"""Items: quotes cited or predicted, names, numbers and hedges."""

from __future__ import annotations

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_audit.text.items import hedges, items, named_entities, numbers, quoted_spans
from nla_audit.text.kinds import kind_of


def quotes(text: str) -> list[tuple[str, bool]]:
    return [(item.text, item.predicted) for item in quoted_spans(text)]


def names(text: str) -> list[str]:
    return [item.text for item in named_entities(text)]


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_has_items_with_consistent_spans(text: str) -> None:
    found = items(text)
    assert [item.start for item in found] == sorted(item.start for item in found)
    for item in found:
        assert 0 <= item.start < item.end <= len(text)
        if item.kind == "number":  # trailing punctuation is no part of what is looked up
            assert text[item.start : item.end].startswith(item.text)
        else:
            assert text[item.start : item.end] == item.text
        assert item.text


@pytest.mark.parametrize(
    ("left", "right"),
    [('"', '"'), ("“", "”"), ("«", "»"), ("「", "」"), ("`", "`"), ("'", "'"), ("‘", "’")],
)
def test_quotation_marks_of_many_kinds(left: str, right: str) -> None:
    text = f"repeats {left}come rain or shine{right} twice"
    (item,) = quoted_spans(text)
    assert text[item.start : item.end] == item.text == "come rain or shine"


def test_apostrophes_are_no_quotation_marks() -> None:
    assert quotes("the author's tone isn't the readers' choice") == []
    assert quotes("he says 'don't stop' today") == [("don't stop", False)]


def test_punctuation_at_the_edges_is_not_quoted_text() -> None:
    assert quotes('ends in "the harbour," and "…"') == [("the harbour", False)]


@pytest.mark.parametrize(
    "citing",
    [
        'the final token "{}" opens a phrase',
        'repeats "{}" twice',
        'the phrase "{}" recurs',
        'quotes Brown: "{}"',
        'after the colon, "{}" stands',
    ],
)
def test_quotes_of_the_source_are_citations(citing: str) -> None:
    assert quotes(citing.format("harbour town")) == [("harbour town", False)]


@pytest.mark.parametrize(
    "predicting",
    [
        'expects a noun such as "{}"',
        'likely "{}"',
        'followed by "{}"',
        'e.g. "{}"',
        'e.g., "{}"',
        'requires the word "{}"',
        'something like "{}" comes',
        'anticipating "{}"',
        'the next word "{}"',
        'could be "{}"',
    ],
)
def test_quotes_of_what_may_come_are_predictions(predicting: str) -> None:
    assert quotes(predicting.format("harbour")) == [("harbour", True)]


def test_alternatives_to_a_prediction_are_predictions() -> None:
    text = 'after "of", likely "Paris," "Rome," or "Oslo". The phrase "we go" recurs'
    assert quotes(text) == [
        ("of", False),
        ("Paris", True),
        ("Rome", True),
        ("Oslo", True),
        ("we go", False),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3,500 people paid $12.50 each", ["3,500", "$12.50"]),
        ("about 40% in 1995.", ["40%", "1995"]),
        ("from 1990-1995", ["1990", "1995"]),
        ("at 10:45, on 3/4", ["10:45", "3/4"]),
        ("minus −7 degrees", ["−7"]),
        ("B2B and v2 and x86", []),
        ("no digits", []),
        ("1) A bill for 3 nights\n(2) Two more\n3. It is 12. Then", ["3", "12"]),
        ("  4. Flattened lines  5. of 6 items", ["6"]),
        ("工期是47天", ["47"]),
    ],
)
def test_numbers_as_written(text: str, expected: list[str]) -> None:
    assert [item.text for item in numbers(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Written by Anna Keller near Oslo", ["Anna Keller", "Oslo"]),
        ("Testimony of Oregon Gov. Brown", ["Oregon Gov. Brown"]),
        ("NATO stands first", ["NATO"]),
        ("about iPhone sales", ["iPhone"]),
        ("Harbour news. Ships sank", []),
        ("Genre: Biography of sailors", []),
        ("the Final Token and News Article", []),
        ("the ships' captain", []),
        ("reports from Jean-Luc Picard's ship", ["Jean-Luc Picard's"]),
        ("the storm reached Oslo. Reports followed", ["Oslo"]),
        ("news about Lake Basel  Zurich is expected", ["Lake Basel"]),
        ("1) Main character is Pip\n2) Setting: Oslo", ["Pip"]),
        ("- Grievance: brown water of Ferro", ["Ferro"]),
        ("Der Vertrag nennt eine Frist und das Datum der NATO", ["NATO"]),
    ],
)
def test_named_entities(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_hedges() -> None:
    found = [item.text.lower() for item in hedges("Likely a verb; perhaps it seems so. May be.")]
    assert found == ["likely", "perhaps", "seems", "may"]


def test_a_letter_that_is_two_in_lower_case_moves_and_breaks_nothing() -> None:
    assert "İ".lower() == "i\u0307"
    (found,) = hedges("İki İİ Likely")
    assert (found.start, found.end, found.text) == (7, 13, "Likely")
    assert hedges("Kİmay") == []
    assert quotes('Kİlike "x"') == [("x", False)]
    assert kind_of("Kİtone zebra") != kind_of("Kİ tone zebra") == "style"


def test_names_and_numbers_inside_a_quote_are_part_of_it() -> None:
    found = [(item.kind, item.text) for item in items('"Bern 7" stands near Oslo, pier 12')]
    assert found == [("quote", "Bern 7"), ("entity", "Oslo"), ("number", "12")]


def test_many_quotes_and_numbers_take_no_longer_each() -> None:
    """Each number was held against every quote."""
    gc.disable()  # a search of all that other tests left takes longer than what is measured here
    try:
        begun = time.process_time()
        assert len(items('"ab" 12 ' * 5000)) == 10_000
        assert time.process_time() - begun < 0.4
    finally:
        gc.enable()


@pytest.mark.parametrize("blank", ["\u00a0", "\u202f", "\u2009"])
def test_blanks_that_do_not_break_a_line_are_blanks(blank: str) -> None:
    text = "Likely the speech of Gov. Kate Brown in New York, or similar; the final token is odd"
    other = text.replace(" ", blank)
    assert [one.replace(blank, " ") for one in names(other)] == names(text)
    assert kind_of(other) == kind_of(text) == "final_token"
    assert [item.kind for item in items(other)] == [item.kind for item in items(text)]
