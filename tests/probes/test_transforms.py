"""Every transform keeps what its card promises, and does what its name says."""

from __future__ import annotations

import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_audit.probes.transforming.cards import generator_for, transforms
from nla_audit.probes.transforming.preservation import CHECKS, broken_promises
from nla_audit.probes.transforming.run import apply_transform, apply_transforms
from nla_audit.text.items import quoted_spans

TEXT = (
    "Genre: a recipe blog; casual tone — likely “braised leeks” for two.\n"
    "The list of steps begins with 'preheat the oven', and is about to mention butter \n\n"
    'Final token "the" ends a clause,  which expects a noun such as `pan` or "tray"'
)
CARDS = transforms()
ALONE = [card for card in CARDS.values() if card.one is not None]


def _made(name: str, text: str = TEXT) -> str:
    made = apply_transform(CARDS[name], [text], [0], seed=3)[0]
    assert made is not None
    return made


@pytest.mark.parametrize("card", ALONE, ids=lambda card: card.name)
@pytest.mark.parametrize(
    "text", [TEXT, "", "one", "a — b", '"only quotes"', "漢字、かな。", "x\n\ny "]
)
def test_promises_are_kept(card, text):
    made = card.one(text, generator_for(0, card.name, text))
    assert broken_promises(text, made, card.keeps) == []


@pytest.mark.parametrize("card", ALONE, ids=lambda card: card.name)
@given(text=st.text(alphabet="ab A,.;:!?-—\n\t\"'“”«»0\u200bа", max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_is_taken_and_the_same_seed_gives_the_same_text(card, text):
    first = card.one(text, generator_for(1, card.name, text))
    assert first == card.one(text, generator_for(1, card.name, text))


@pytest.mark.parametrize(
    "name",
    [
        "letter_case",
        "punctuation",
        "quote_marks",
        "white_space",
        "line_breaks",
        "zero_width",
        "lookalikes",
    ],
)
def test_normalisation_is_idempotent(name):
    once = _made(name)
    assert _made(name, once) == once


def test_each_normalisation_removes_what_it_is_for():
    assert _made("letter_case").startswith("genre: a recipe")
    assert "“braised leeks”" in _made("letter_case", TEXT)
    assert not set(";—") & set(_made("punctuation"))
    assert _made("punctuation").endswith('"tray".')
    assert "“" not in _made("quote_marks")
    assert '"preheat the oven"' in _made("quote_marks")
    assert "  " not in _made("white_space")
    assert " \n" not in _made("white_space")
    assert "\n" not in _made("line_breaks")
    assert _made("zero_width", "a\u200bb\u200d c") == "ab c"
    assert _made("lookalikes", "pаper Москва") == "paper Москва"  # Cyrillic а inside, and a word


def test_numbers_keep_their_marks():
    assert _made("punctuation", "About 1,000 at 10:30, or 3.5; more") == (
        "About 1,000 at 10:30, or 3.5, more."
    )


def test_what_is_cut_is_cut():
    assert _made("quotes_only").splitlines()[0] == '"braised leeks"'
    assert quoted_spans(_made("quotes_removed")) == []
    assert "REDACTED" in _made("quotes_masked")
    assert "leeks" not in _made("quotes_masked")
    assert _made("content_words").split()[:2] == ["Genre", "recipe"]
    assert _made("function_words").split()[:2] == ["a", "for"]
    assert len(_made("first_tokens").split()) <= 17
    assert "noun" not in _made("final_claim_removed")


def test_shuffles_move_and_lose_nothing():
    shuffled = _made("shuffle_claims")
    assert shuffled != TEXT
    assert sorted(shuffled) == sorted(TEXT)
    assert _made("words_shuffled") != TEXT


def test_synonyms_destroy_the_choice():
    text = "it likely begins " * 40
    made = _made("synonyms", text)
    share = made.count("likely") / 40
    assert 0.2 < share < 0.8
    assert "Perhaps" in "".join(_made("synonyms", f"Maybe {n}") for n in range(20))


def test_controls_come_from_other_activations():
    texts = [
        f"Text number {n} about harbours, with several more words of claim {n}" for n in range(8)
    ]
    labels = [n // 2 for n in range(8)]
    other = apply_transform(CARDS["another"], texts, labels, seed=1)
    assert all(
        labels[texts.index(made)] != label for made, label in zip(other, labels, strict=True)
    )
    drawn = apply_transform(CARDS["random_text"], texts, labels, seed=1)
    assert [len(made.split()) for made in drawn] == [len(text.split()) for text in texts]
    assert apply_transform(CARDS["another"], texts[:1], [0]) == [None]
    assert apply_transform(CARDS["random_text"], texts[:2], [0, 0]) == [None, None]


def test_a_text_is_changed_alike_in_any_company():
    card = CARDS["shuffle_claims"]
    alone = apply_transform(card, [TEXT], [5])
    among = apply_transform(card, ["other", None, TEXT], [1, 2, 5])
    assert alone[0] == among[2]
    assert among[1] is None


def test_rows_say_why_there_is_no_text():
    rows = apply_transforms([CARDS["unchanged"], CARDS["another"]], [TEXT, None], [0, 1])
    assert rows["reason"].to_list() == [
        None,
        "no explanation",
        "no other activation",
        "no explanation",
    ]
    assert rows.filter(pl.col("variant") == "unchanged")["changed"].to_list() == [False, None]


def test_a_broken_promise_is_seen():
    assert broken_promises('say "a b"', 'say "a c"', ("quoted spans", "word count")) == [
        "quoted spans"
    ]
    assert broken_promises("one two", "two one", ("words", "words in order")) == ["words in order"]
    assert broken_promises("hello", "привет", ("script",)) == ["script"]


def test_cards_are_whole():
    assert list(CARDS)[:3] == ["another", "random_text", "unchanged"]
    assert {card.group for card in CARDS.values()} == {"kept", "cut", "control"}
    for card in CARDS.values():
        assert set(card.keeps) <= set(CHECKS)
        assert sum(kind is not None for kind in (card.one, card.whole, card.instruction)) == 1
    assert unicodedata.category("\u200b") == "Cf"
    assert isinstance(generator_for(0, "a", "b"), np.random.Generator)
