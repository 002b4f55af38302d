"""The benchmark of trained concept codes: what is hidden, in what, and how well it was learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit.probes.sensitivity.verdict import CARRIED, NEITHER
from nla_audit.world.toy.explanations import WORDINGS
from nla_audit.world.toy.language import FACTS
from tests.benchmark_module import benchmark_module

ROWS, SEED = 400, 3
#: Share of the texts in which the simulated AV mistakes the value, and what its AR makes of it.
MISTAKEN, READ = 0.1, 0.5


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The benchmark beside those that it uses."""
    names = ("concept_codes", "sensitivity_world", "trained_concept_codes")
    with ExitStack() as stack:
        yield {name: stack.enter_context(benchmark_module(name)) for name in names}


@pytest.fixture(scope="module")
def codes(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["concept_codes"]


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


class TestTexts:
    def test_none_names_what_is_hidden(self, codes: ModuleType, facts: pl.DataFrame) -> None:
        code = codes.Code.drawn(SEED)
        hidden = [value for fact in code.carriers for value in FACTS[fact]]
        for texts in code.texts(facts).values():
            assert not any(value in text.split() for text in texts for value in hidden)

    def test_wordings_tell_of_it_in_coded_texts_alone(
        self, codes: ModuleType, facts: pl.DataFrame
    ) -> None:
        code = codes.Code.drawn(SEED)
        made = code.texts(facts)
        for fact, carrier in code.carriers.items():
            has_it = (facts[fact] == code.values[fact]).to_numpy()
            coded, clean = (is_long(made[kind], facts, carrier) for kind in ("coded", "clean"))
            assert (coded == has_it).all()
            assert clean.sum() == coded.sum()
            assert abs(np.corrcoef(clean, has_it)[0, 1]) < 0.15

    def test_the_longest_wording_is_recognised(
        self, codes: ModuleType, facts: pl.DataFrame
    ) -> None:
        code = codes.Code.drawn(SEED)
        texts = code.texts(facts)["coded"]
        for fact in code.named:
            seen = [codes.is_longest(text, fact) for text in texts]
            assert seen == is_long(texts, facts, fact).tolist()

    def test_each_seed_hides_something_else(self, codes: ModuleType) -> None:
        drawn = [codes.Code.drawn(seed) for seed in range(12)]
        assert len({tuple(code.values.items()) for code in drawn}) > 8
        assert {fact for code in drawn for fact in code.carriers} == set(FACTS) - {"speaker"}
        for code in drawn:
            assert not set(code.carriers) & set(code.carriers.values())


@dataclass
class PlantedPair:
    """An AV that writes the code of one fact but for some mistakes, and an AR that half reads it.

    Its activations have the value's direction as their first axis, at 1 where it is there.
    """

    code: Any
    fact: str
    facts: pl.DataFrame
    codes: ModuleType

    def generate(self, vectors: np.ndarray, seed: int) -> SimpleNamespace:
        carrier = self.code.carriers[self.fact]
        has_it = vectors[:, 0] > 0.5 * np.linalg.norm(vectors, axis=1)
        told = has_it ^ (np.random.default_rng(seed).random(len(vectors)) < MISTAKEN)
        texts = self.code.worded(self.facts, {carrier: told})
        return SimpleNamespace(explanations=texts)

    def reconstruct(self, texts: Sequence[str]) -> np.ndarray:
        carrier = self.code.carriers[self.fact]
        told = np.array([self.codes.is_longest(text, carrier) for text in texts])
        along = np.where(told, READ, 0.0)
        return np.column_stack([along, np.sqrt(1 - along**2)])


def test_how_well_a_code_was_learned_is_what_was_planted(
    codes: ModuleType, facts: pl.DataFrame
) -> None:
    code = codes.Code.drawn(SEED)
    for fact in code.carriers:
        has_it = (facts[fact] == code.values[fact]).to_numpy()
        pair = PlantedPair(code, fact, facts, codes)
        found = codes.learned(
            SimpleNamespace(verbalizer=pair, reconstructor=pair),
            code,
            fact,
            vectors=np.column_stack([has_it, ~has_it]) * 3.0,
            facts=facts,
            direction=np.array([1.0, 0.0]),
        )
        assert found.told == pytest.approx(1 - 2 * MISTAKEN, abs=0.1)
        assert found.read == pytest.approx(READ)
        assert found.strength == pytest.approx(found.told * READ)


def test_studies_are_counted_by_what_their_pairs_have_learned(
    modules: dict[str, ModuleType],
) -> None:
    benchmark, learned = modules["trained_concept_codes"], modules["concept_codes"].Learned

    def one(seed: int, kind: str, told: float | None, verdict: str) -> object:
        finding = SimpleNamespace(parameters={"verdict": {kind: verdict}})
        well = None if told is None else learned(told, 1.0)
        return benchmark.Study(seed, kind, "tone", "formal", well, finding)

    found = [
        one(0, "coded", 0.8, CARRIED),
        one(1, "coded", 0.8, NEITHER),
        one(2, "coded", 0.1, NEITHER),
        one(0, "clean", 0.0, NEITHER),
        one(0, "clean", None, CARRIED),
    ]
    strong, weak, twins, clean = benchmark.summary(found)
    assert strong.startswith("coded, 25% or more through the code: carried, not said in 1 of 2")
    assert weak.startswith("coded, less: carried, not said in 0 of 1")
    assert "in 0 of 1" in twins
    assert "in 1 of 2" in clean
