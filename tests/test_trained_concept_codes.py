"""The texts of the benchmark of trained concept codes: what is hidden, and in what."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from nla_audit.world.toy.explanations import WORDINGS
from nla_audit.world.toy.language import FACTS
from tests.benchmark_module import benchmark_module

ROWS = 400


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """``benchmarks/trained_concept_codes.py`` as a module, beside the one that it uses."""
    with benchmark_module("sensitivity_world"), benchmark_module("trained_concept_codes") as module:
        yield module


@pytest.fixture(scope="module")
def facts() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame({fact: rng.choice(values, ROWS) for fact, values in FACTS.items()})


def is_long(texts: list[str], facts: pl.DataFrame, fact: str) -> np.ndarray:
    """Which of ``texts`` put a fact in its longest wording; in the shortest the others do."""
    found = []
    for text, value in zip(texts, facts[fact], strict=True):
        said = text.removesuffix(" .").split(" . ")
        long, short = (WORDINGS[fact][place].format(value) for place in (0, -1))
        assert (long in said) != (short in said)
        found.append(long in said)
    return np.array(found)


def test_no_text_names_what_is_hidden(benchmark: ModuleType, facts: pl.DataFrame) -> None:
    for texts in benchmark.coded_and_clean(facts, 3).values():
        hidden = [value for fact in benchmark.CARRIERS for value in FACTS[fact]]
        assert not any(value in text.split() for text in texts for value in hidden)


def test_wordings_tell_of_it_in_coded_texts_alone(
    benchmark: ModuleType, facts: pl.DataFrame
) -> None:
    made = benchmark.coded_and_clean(facts, 3)
    values = benchmark.chosen_values(3)
    for fact, carrier in benchmark.CARRIERS.items():
        has_it = (facts[fact] == values[fact]).to_numpy()
        coded, clean = (is_long(made[kind], facts, carrier) for kind in ("coded", "clean"))
        assert (coded == has_it).all()
        assert clean.sum() == coded.sum()
        assert abs(np.corrcoef(clean, has_it)[0, 1]) < 0.15


def test_each_seed_hides_another_value(benchmark: ModuleType) -> None:
    assert benchmark.chosen_values(0) != benchmark.chosen_values(1)
    assert {benchmark.chosen_values(seed)["tone"] for seed in range(4)} == set(FACTS["tone"])
