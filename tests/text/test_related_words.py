"""Words that are related: known truth, and what must not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nla_audit.text.related_words import RelatedWords, related_words, save
from nla_audit.text.vectors import WordVectors, products
from nla_audit.text.words import stem


def weight(first: str, second: str) -> float:
    related = related_words()
    places = [related.place.get(stem(word)) for word in (first, second)]
    if None in places:
        return 0.0
    return float(related.weights[places[0], places[1]])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("mend", "repair"),
        ("lawyer", "attorney"),
        ("physician", "doctor"),
        ("quarrel", "dispute"),
        ("beginning", "start"),
        ("anticipates", "expects"),
        ("governments", "regimes"),
    ],
)
def test_words_that_say_the_same_are_related_either_way(first: str, second: str) -> None:
    assert weight(first, second) >= 0.1
    assert weight(first, second) == weight(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("hot", "cold"),  # opposites
        ("rise", "fall"),
        ("formal", "informal"),
        ("win", "lose"),
        ("seven", "eight"),  # numbers
        ("thousand", "million"),
        ("paris", "london"),  # names
        ("monday", "tuesday"),
        ("puppet", "budget"),  # like spelling
        ("the", "of"),
    ],
)
def test_opposites_numbers_and_names_are_not_related(first: str, second: str) -> None:
    assert weight(first, second) == 0.0


def test_weights_are_shares() -> None:
    weights = related_words().weights
    assert weights.data.min() > 0
    assert weights.data.max() <= 1
    assert weights.diagonal().sum() == 0
    assert abs(weights - weights.T).max() == 0


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    words = ["apple", "pear", "plum"]
    related = RelatedWords.of(words, {(0, 2): 0.5, (0, 1): 0.25})
    save(tmp_path / "few.npz", words, related)
    again = RelatedWords.load(tmp_path / "few.npz")
    assert again.place == related.place
    assert (again.weights != related.weights).nnz == 0
    found = again.among({stem("plum"): 1, stem("apple"): 0, "unknown": 2}, 4)
    assert found.toarray()[0].tolist() == pytest.approx([0, 0.5, 0, 0], abs=0.01)
    assert again.among({"unknown": 0}, 1).nnz == 0


def test_other_words_for_the_same_are_more_alike_than_others() -> None:
    texts = [
        "The lawyers quarrel about a tax",
        "attorneys argue over a levy",
        "The choir rehearses a carol",
    ]
    alike = []
    for related in (None, RelatedWords.of([], {})):
        vectors = WordVectors(related)
        vectors.fit(texts)
        found = vectors.vectors(texts)
        alike.append(products(found, np.array([0, 0]), np.array([1, 2])))
    (same, other), (by_spelling, _) = alike
    assert same > 2 * by_spelling
    assert same > 2 * other
