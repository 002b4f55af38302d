"""Texts that are taken apart: tokens, deletions, beginnings and orders."""

from __future__ import annotations

import numpy as np
import pytest

from nla_audit.probes.attribution.pieces import (
    INSIDE,
    MARKS,
    ClaimPieces,
    Token,
    greedy_orders,
    prefixes,
    tokens_of,
    without_token,
)

TEXT = 'A fair near Oxford, in 1,234 words: "blue ribbon."\nThe register is formal; it\'s dry.'
AWKWARD = [
    "",
    "one",
    "…",
    '"',
    '"a" "b"',
    "  two  words  ",
    "don't 'quote me' now",
    "它的 名字 “引用” 。",
    "a\n\nb\n",
    "x\u200by",
    "(see [note])",
    TEXT,
]


def _named(text: str) -> dict[str, str]:
    return {token.text: token.kind for token in tokens_of(text)}


def test_every_kind_is_told_apart() -> None:
    kinds = _named(TEXT)
    assert kinds["Oxford"] == "name"
    assert kinds["1,234"] == "number"
    assert kinds["fair"] == "content word"
    assert kinds["near"] == "content word"
    assert kinds["in"] == kinds["The"] == kinds["A"] == "function word"
    assert kinds["blue"] == kinds["ribbon"] == "quoted"
    assert kinds['"'] == "quote mark"
    assert kinds[","] == kinds[";"] == "punctuation"


def test_places() -> None:
    places = {token.text: token.place for token in tokens_of('said "the blue." there')}
    assert places["the"] == places["blue"] == places["."] == INSIDE
    assert places['"'] == MARKS
    assert places["said"] == places["there"] == "outside quotes"


@pytest.mark.parametrize("text", AWKWARD)
def test_tokens_hold_all_that_is_visible(text: str) -> None:
    tokens = tokens_of(text)
    assert "".join(token.text for token in tokens) == "".join(text.split())
    ends = [0, *(token.end for token in tokens)]
    assert all(token.start >= end for token, end in zip(tokens, ends, strict=False))


@pytest.mark.parametrize("text", AWKWARD)
def test_deleting_takes_the_token_and_nothing_else(text: str) -> None:
    for token in tokens_of(text):
        left = without_token(text, token)
        visible = "".join((text[: token.start] + text[token.end :]).split())
        assert "".join(left.split()) == visible
        assert left == left.strip()


@pytest.mark.parametrize(
    ("text", "word", "left"),
    [
        ("one two three", "two", "one three"),
        ("one two, three", "two", "one, three"),
        ("one two.\nthree", "two", "one.\nthree"),
        ("one\ntwo\nthree", "two", "one\nthree"),
        ("one two\nthree", "two", "one\nthree"),
        ("one two", "one", "two"),
        ("one two", "two", "one"),
        ('a "one two" b', "one", 'a "two" b'),
        ('a "one two" b', "two", 'a "one" b'),
        ("a (one two) b", "one", "a (two) b"),
        ("one", "one", ""),
    ],
)
def test_white_space_is_tidy_where_a_word_went(text: str, word: str, left: str) -> None:
    token = next(token for token in tokens_of(text) if token.text == word)
    assert without_token(text, token) == left


def test_prefixes_end_with_each_token() -> None:
    tokens = tokens_of("one two, three")
    assert prefixes("one two, three", tokens) == [
        "",
        "one",
        "one two",
        "one two,",
        "one two, three",
    ]
    assert prefixes("", []) == [""]


CLAIMS = (
    "The passage tells of lanterns. Later some harbour appears.\nA quiet ending is expected soon."
)


def test_own_order_is_the_text_itself() -> None:
    pieces = ClaimPieces.of(CLAIMS)
    assert len(pieces.claims) == 3
    assert pieces.arranged((0, 1, 2)) == CLAIMS
    assert pieces.arranged((2, 0)) == f"{pieces.claims[2]} {pieces.claims[0]}"
    assert pieces.arranged((1,)) == "Later some harbour appears."


def test_rejoined_text_is_another_text_with_the_same_claims() -> None:
    for text in (CLAIMS, CLAIMS.replace("\n", " "), CLAIMS.replace(". ", ".\n")):
        pieces = ClaimPieces.of(text)
        again = pieces.arranged((0, 1, 2), rejoined=True)
        assert again != text
        assert again.split() == text.split()


def test_greedy_search_appends_what_adds_most() -> None:
    pieces = [ClaimPieces.of(CLAIMS)] * 2 + [ClaimPieces.of("Just one single claim here.")]
    worth = [(0.1, 0.3, 0.2), (0.3, 0.3, 0.5)]
    rounds = []

    def score(texts: list[str], searches: list[int]) -> np.ndarray:
        rounds.append(len(texts))
        return np.array(
            [
                sum(
                    value
                    for claim, value in zip(pieces[search].claims, worth[search], strict=True)
                    if claim in text
                )
                for text, search in zip(texts, searches, strict=True)
            ]
        )

    assert greedy_orders(pieces, [(0, 1, 2), (1, 0, 2), (0,)], score) == [
        (1, 2, 0),
        (2, 1, 0),
        (0,),
    ]
    assert rounds == [6, 4]  # all of a round at once; the last claim needs no reading


def test_greedy_search_leaves_what_has_no_score_for_last() -> None:
    def score(texts: list[str], searches: list[int]) -> np.ndarray:
        return np.array([np.nan if "lanterns" in text else 1.0 for text in texts])

    assert greedy_orders([ClaimPieces.of(CLAIMS)], [(0, 1, 2)], score) == [(1, 2, 0)]


def test_a_token_is_where_it_says() -> None:
    for token in tokens_of(TEXT):
        assert isinstance(token, Token)
        assert TEXT[token.start : token.end] == token.text
