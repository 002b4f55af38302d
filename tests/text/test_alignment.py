"""The alignment: one to one, the same from either side, and bounded in a text's length."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from nla_audit.table.completions import from_frame
from nla_audit.text.alignment import (
    Store,
    align,
    left_over_by_chance,
)
from nla_audit.text.credit import _link_final_tokens, _other_words
from nla_audit.text.pairs import TextInClaims, text_of
from nla_audit.text.reading import read_afresh
from nla_audit.text.vectors import WordVectors
from nla_audit.world.sweep.planted import PlantedModel, plant


@pytest.fixture(scope="module")
def texts() -> dict[str, list[TextInClaims]]:
    sweep = plant(
        [PlantedModel("a", 0.0), PlantedModel("b", 0.01, omit=0.4, reword=0.4, add=0.5)],
        activations=60,
        seed=2,
    )
    rows = sweep.completions.sort("idx")
    return {
        model: [text_of(text) for text in rows.filter(pl.col("model") == model)["explanation"]]
        for model in ("a", "b")
    }


def aligned(first: list[TextInClaims], second: list[TextInClaims]):
    vectors = WordVectors()
    pieces = [text.pieces for text in (*first, *second)]
    vectors.fit(sorted(sentence for one in pieces for sentence in one.sentences))
    pairs = [(a.pieces, b.pieces) for a, b in zip(first, second, strict=True)]
    return pairs, align(pairs, Store.of(pieces, vectors))


def test_every_part_is_matched_once_at_most(texts: dict[str, list[TextInClaims]]) -> None:
    _, found = aligned(texts["a"], texts["b"])
    sentences = list(zip(found.sentences.pair, found.sentences.ours, strict=True))
    assert len(sentences) == len(set(sentences))
    for side in ("ours", "theirs"):
        pieces = [
            (pair, piece)
            for matches in (found.inside, found.left_over)
            for pair, piece in zip(matches.pair, getattr(matches, side), strict=True)
        ]
        assert len(pieces) == len(set(pieces)), side


def test_both_sides_see_the_same(texts: dict[str, list[TextInClaims]]) -> None:
    _, there = aligned(texts["a"], texts["b"])
    _, back = aligned(texts["b"], texts["a"])
    for level in ("sentences", "inside", "left_over"):
        one, other = getattr(there, level), getattr(back, level)
        assert np.sort(one.scores) == pytest.approx(np.sort(other.scores), abs=1e-5), level
    assert there.alone.sum(axis=0) == pytest.approx(back.alone.sum(axis=0)[::-1])


def test_what_one_leaves_out_the_other_adds() -> None:
    sweep = plant(
        [PlantedModel("a", 0.0), PlantedModel("b", 0.01, omit=0.4, reword=0.4, add=0.5)],
        activations=150,
        seed=4,
    )
    there, back = (
        read_afresh(from_frame(sweep.completions, reference=reference)).explanations
        for reference in ("a", "b")
    )
    left_out = (there["tokens_reference"] - there["kept_tokens"]).mean()
    added = (back["tokens_model"] - back["supported_tokens"]).mean()
    assert left_out == pytest.approx(added, abs=0.5)
    assert left_out > 3
    # One stretch of text pays for one claim only.
    assert (there["kept_tokens"] <= there["tokens_reference"] + 1e-9).all()
    assert (there["supported_tokens"] <= there["tokens_model"] + 1e-9).all()


@pytest.mark.parametrize("form", ["sentences", "commas", "no space"])
@pytest.mark.slow
def test_half_a_megabyte_of_explanation_costs_seconds(form: str) -> None:
    generator = np.random.default_rng(0)
    names = [f"word{number}" for number in range(500)]
    between = {"sentences": ". ", "commas": ", ", "no space": ""}[form]
    long = between.join(
        " ".join(generator.choice(names, 6)) if form != "no space" else "x" * 40
        for _ in range(12_000)
    )
    rows = [
        {"model": model, "idx": idx, "explanation": " ".join(generator.choice(names, 30)) + "."}
        for model in ("a", "b")
        for idx in range(30)
    ]
    for row in rows:
        if row["idx"] == 3:
            row["explanation"] = long
    started = time.process_time()
    reading = read_afresh(from_frame(pl.DataFrame(rows), reference="a"))
    assert reading.explanations.height == 30
    assert time.process_time() - started < 60  # n × n, it took minutes and gigabytes


def subject_texts(lines: int, clauses: int, added: int) -> tuple[list[TextInClaims], ...]:
    """Texts of one subject each; the second ones lack half of the lines and add clauses to each."""
    generator = np.random.default_rng(0)
    letters = np.array(list("bdfgklmnprstvz"))

    def word() -> str:
        return "".join(generator.choice(letters, 4)) + "an"

    first, second = [], []
    for _ in range(30):
        subject = word()
        every = [
            [" ".join([subject, word(), word()]) for _ in range(clauses + added)]
            for _ in range(lines)
        ]
        first.append(text_of("\n".join(", ".join(line[:clauses]) for line in every)))
        second.append(text_of("\n".join(", ".join(line) for line in every[: lines // 2])))
    return first, second


@pytest.mark.parametrize(
    ("said", "is_final"),
    [
        ('A cleft sentence "It was the hold they cared about", final "than"', True),
        ('Another sentence, "than" as the hinge of two things', True),
        ('A cleft sentence "rather than the hold they cared about" comes first', False),
        ('A cleft sentence "It was the hold they cared about", final "that"', False),
        # What says another piece of the reference again says nothing of the end.
        ('The word "than" stands twice in the second line of the poem', False),
    ],
)
def test_the_same_final_token_is_the_same_claim_in_whatever_words(
    said: str, is_final: bool
) -> None:
    ours = text_of(
        'The word "than" stands twice in the second line of the poem.\n\n'
        'The final token "than" serves as a comparative conjunction at the edge of the text.'
    ).pieces
    theirs = text_of(said).pieces
    last = int(np.flatnonzero(ours.of_final_token)[0])
    links = np.zeros((len(theirs.pieces), len(ours.pieces)))
    if "twice" in said:
        links[:, :last] = 0.9
    _link_final_tokens(links, ours, theirs)
    assert links[:, last].max() == (1.0 if is_final else 0.0)
    exchanged = np.zeros_like(links.T)
    if "twice" in said:
        exchanged[:last] = 0.9
    _link_final_tokens(exchanged, theirs, ours)
    assert np.allclose(exchanged.T, links)


def test_other_words_are_counted_where_something_of_the_other_text_is_said() -> None:
    ours, theirs = (
        text_of(text).pieces
        for text in (
            "The report describes river floods.\nThe final token is a verb.",
            "River floods described, further funding promised.\nA poem about falling snow.",
        )
    )
    assert (len(ours.sentences), len(theirs.sentences)) == (2, 2)
    links = np.zeros((len(theirs.pieces), len(ours.pieces)))
    assert _other_words(links, ours, theirs) == 0
    links[theirs.places[0][0], ours.places[0][0]] = 0.8
    # "further funding promised", as likely as the line says our first.
    assert _other_words(links, ours, theirs) == pytest.approx(0.8 * 3)
    # All six of it, beside our second.
    assert _other_words(links[:, ::-1], ours, theirs) == pytest.approx(0.8 * 6)
    assert _other_words(links / 2, ours, theirs) == 0


def test_what_is_left_over_of_one_subject_is_alike_without_being_the_same() -> None:
    """So the null of left-over pieces is taken within texts, not from other activations' alone."""
    first, second = subject_texts(lines=8, clauses=2, added=1)
    vectors = WordVectors()
    pieces = [text.pieces for text in (*first, *second)]
    vectors.fit([sentence for one in pieces for sentence in one.sentences])
    store = Store.of(pieces, vectors)
    pairs = [(a.pieces, b.pieces) for a, b in zip(first, second, strict=True)]
    found = align(pairs, store)
    sure = np.ones(len(found.sentences.pair))
    within = left_over_by_chance(pairs, found, sure, store)
    others = [(a, b) for (a, _), (_, b) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    across = align(others, store).left_over.scores
    # Here nothing that is left over says the same; it shares the subject, and looks like it.
    assert np.median(found.left_over.scores) > 2 * np.median(across)
    assert np.median(found.left_over.scores) == pytest.approx(np.median(within), rel=0.2)
    swapped = [(b, a) for a, b in pairs]
    assert np.sort(left_over_by_chance(swapped, align(swapped, store), sure, store)) == (
        pytest.approx(np.sort(within), abs=1e-6)
    )
    assert len(left_over_by_chance(pairs, found, 0 * sure, store)) == 0
