"""The alignment: one to one, the same from either side, and bounded in a text's length."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from nla_audit.table.completions import from_frame
from nla_audit.text.alignment import Store, align
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
