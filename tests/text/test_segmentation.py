"""The segmentation against an enumeration of all walks, and its habits on data of its own making.

The enumeration knows nothing of forward and backward passes: it lists every walk over the claims
with its probability as the model's definition gives it, and adds up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from math import exp, log

import numpy as np
import pytest

from nla_audit.text.segmentation import (
    CLAUSE,
    SENTENCE,
    START,
    WORD,
    Habits,
    LikelihoodRatios,
    learn,
    segment,
    segment_and_count,
)

ASIDE = 0  # the state of a unit that says nothing of the reference; claim j is state j + 1
STEP_BINS = 11


def random_evidence(generator: np.random.Generator, units: int, claims: int) -> LikelihoodRatios:
    """LikelihoodRatios with words that fit no claim, one claim or several."""
    ratio = generator.exponential(2.0, (units, claims)) * (generator.random((units, claims)) < 0.6)
    breaks = generator.choice([WORD, CLAUSE, SENTENCE], units)
    breaks[:1] = START
    owners = np.cumsum(breaks != WORD) - 1
    return LikelihoodRatios(ratio, breaks, owners, np.sort(generator.integers(0, 2, claims)))


def random_habits(generator: np.random.Generator) -> Habits:
    step = generator.uniform(0.2, 2.0, STEP_BINS)
    step[STEP_BINS // 2] = 0.0
    return Habits(
        stay=generator.uniform(0.1, 0.9, 3),
        unsupported=generator.uniform(0.05, 0.5),
        unexplained=generator.uniform(0.2, 0.8),
        step=step,
        crossing=generator.uniform(0.3, 3.0, 2),
    )


def step_weight(step: int, habits: Habits) -> float:
    """Steps up to three have a weight each, those of 4 to 7 one, those of 8 and more one."""
    size = abs(step)
    bin_size = size if size <= 3 else 4 if size <= 7 else 5
    return float(habits.step[STEP_BINS // 2 + (bin_size if step > 0 else -bin_size)])


def move_probability(
    before: int, after: int, evidence: LikelihoodRatios, habits: Habits, *, opens_sentence: bool
) -> float:
    """Of going to a state, given that the walk leaves the one before."""
    claims = evidence.ratio.shape[1]
    if claims == 0:
        return float(after == ASIDE)
    if after == ASIDE:
        return habits.unsupported
    if before == ASIDE:
        return (1 - habits.unsupported) / claims

    def weight(to: int) -> float:
        crosses = evidence.sentences[before - 1] != evidence.sentences[to]
        crossing = float(habits.crossing[int(opens_sentence)]) if crosses else 1.0
        return step_weight(to - (before - 1), habits) * crossing

    total = sum(weight(to) for to in range(claims))
    return (1 - habits.unsupported) * weight(after - 1) / total if total else 0.0


def first_probability(state: int, evidence: LikelihoodRatios, habits: Habits) -> float:
    claims = evidence.ratio.shape[1]
    if claims == 0:
        return float(state == ASIDE)
    if state == ASIDE:
        return habits.unsupported
    total = sum(step_weight(to + 1, habits) for to in range(claims))
    return (1 - habits.unsupported) * step_weight(state, habits) / total


def emission(unit: int, state: int, evidence: LikelihoodRatios, habits: Habits) -> float:
    if state == ASIDE:
        return 1.0
    ratio = evidence.ratio[unit, state - 1]
    return min((1 - habits.unexplained) * ratio + habits.unexplained, exp(12.0))


def walks(
    evidence: LikelihoodRatios, habits: Habits
) -> Iterator[tuple[float, tuple[int, ...], list[int]]]:
    """Every walk: its weight, its states, and the units at which it enters a state anew."""
    units, claims = evidence.ratio.shape
    for states in product(range(claims + 1), repeat=units):
        weight = 1.0
        for unit, state in enumerate(states):
            weight *= emission(unit, state, evidence, habits)
        weight *= first_probability(states[0], evidence, habits)
        branches = [(weight, [0])]
        for unit in range(1, units):
            before, after = states[unit - 1], states[unit]
            place = int(evidence.breaks[unit])
            stay = float(habits.stay[place])
            move = (1 - stay) * move_probability(
                before, after, evidence, habits, opens_sentence=place == SENTENCE
            )
            moved = [(w * move, [*entered, unit]) for w, entered in branches]
            stayed = [(w * stay, entered) for w, entered in branches] if before == after else []
            branches = [branch for branch in moved + stayed if branch[0] > 0]
        for w, entered in branches:
            yield w, states, entered


@dataclass
class Enumerated:
    """Posterior expectations by adding up over all walks."""

    likelihood: float = 0.0
    units: np.ndarray = field(default_factory=lambda: np.zeros(0))
    entries: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ever: np.ndarray = field(default_factory=lambda: np.zeros(0))
    stayed: np.ndarray = field(default_factory=lambda: np.zeros(4))
    segments: np.ndarray = field(default_factory=lambda: np.zeros(2))

    @classmethod
    def of(cls, evidence: LikelihoodRatios, habits: Habits) -> Enumerated:
        count, claims = evidence.ratio.shape
        total = cls(
            units=np.zeros((count, claims)), entries=np.zeros(claims), ever=np.zeros(claims)
        )
        for weight, states, entered in walks(evidence, habits):
            total.likelihood += weight
            said = [states[unit] - 1 for unit in entered if states[unit] != ASIDE]
            for unit, state in enumerate(states):
                if state != ASIDE:
                    total.units[unit, state - 1] += weight
                if unit and unit not in entered:
                    total.stayed[evidence.breaks[unit]] += weight
            for claim in said:
                total.entries[claim] += weight
            for claim in set(said):
                total.ever[claim] += weight
            total.segments += weight * np.array([len(entered) - len(said), len(said)])
        for name in ("units", "entries", "ever", "stayed", "segments"):
            setattr(total, name, getattr(total, name) / total.likelihood)
        return total


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (5, 2), (5, 3), (4, 4), (3, 5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_all_walks_added_up(shape: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng([seed, *shape])
    evidence, habits = random_evidence(generator, *shape), random_habits(generator)
    expected = Enumerated.of(evidence, habits)
    (found,), counts = segment_and_count([evidence], habits)
    np.testing.assert_allclose(found.units, expected.units, atol=1e-9)
    np.testing.assert_allclose(found.kept, np.minimum(expected.entries, 1.0), atol=1e-9)
    np.testing.assert_allclose(counts.stayed, expected.stayed, atol=1e-9)
    np.testing.assert_allclose(counts.segments, expected.segments, atol=1e-9)
    # A claim is kept at least as surely as it is ever said.
    assert (found.kept >= expected.ever - 1e-9).all()
    assert (found.kept >= found.units.max(axis=0) - 1e-9).all()


def test_probabilities_are_probabilities() -> None:
    generator = np.random.default_rng(3)
    pairs = [random_evidence(generator, *generator.integers(1, 30, 2)) for _ in range(40)]
    for found, pair in zip(segment(pairs, random_habits(generator)), pairs, strict=True):
        assert found.units.shape == pair.ratio.shape
        assert found.kept.shape == pair.ratio.shape[1:]
        for probabilities in (found.units, found.kept, found.units.sum(axis=1)):
            assert (probabilities >= 0).all()
            assert (probabilities <= 1 + 1e-9).all()
        supported = found.supported(int(pair.owners.max()) + 1)
        assert ((supported >= 0) & (supported <= 1)).all()


def test_padding_and_order_change_nothing() -> None:
    generator = np.random.default_rng(4)
    habits = random_habits(generator)
    pairs = [random_evidence(generator, *generator.integers(0, 20, 2)) for _ in range(30)]
    together = segment(pairs, habits)
    for found, pair in zip(together, pairs, strict=True):
        (alone,) = segment([pair], habits)
        np.testing.assert_allclose(found.kept, alone.kept, atol=1e-12)
        np.testing.assert_allclose(found.units, alone.units, atol=1e-12)
    for found, again in zip(together, reversed(segment(pairs[::-1], habits)), strict=True):
        np.testing.assert_allclose(found.kept, again.kept, atol=1e-12)


def test_counts_add_up_over_batches() -> None:
    generator = np.random.default_rng(5)
    habits = random_habits(generator)
    pairs = [random_evidence(generator, *generator.integers(1, 12, 2)) for _ in range(12)]
    _, together = segment_and_count(pairs, habits)
    _, apart = segment_and_count(pairs[:1], habits)
    for pair in pairs[1:]:
        apart.add(segment_and_count([pair], habits)[1])
    for name, value in vars(together).items():
        np.testing.assert_allclose(value, getattr(apart, name), atol=1e-9, err_msg=name)


def test_empty_texts() -> None:
    integers = np.zeros(0, dtype=np.int64)
    no_claims = LikelihoodRatios(
        np.zeros((3, 0)), np.array([START, WORD, WORD]), np.zeros(3, int), integers
    )
    no_units = LikelihoodRatios(np.zeros((0, 2)), integers, integers, np.array([0, 0]))
    nothing = LikelihoodRatios(np.zeros((0, 0)), integers, integers, integers)
    for pair in (no_claims, no_units, nothing):
        for batch in ([pair], [pair, random_evidence(np.random.default_rng(0), 4, 3)]):
            found = segment(batch, Habits())[0]
            assert found.kept.tolist() == [0.0] * pair.ratio.shape[1]
            assert found.units.shape == pair.ratio.shape
            assert found.supported(0 if not len(pair.owners) else 1).sum() == 0.0
    assert segment([], Habits()) == []
    assert learn([], Habits(), 2).unsupported <= Habits().unsupported


def test_a_word_that_fits_one_claim_only_is_said_by_it() -> None:
    ratio = np.array([[200.0, 0.0], [200.0, 0.0], [150.0, 0.0]])
    pair = LikelihoodRatios(
        ratio, np.array([START, WORD, WORD]), np.zeros(3, int), np.array([0, 1])
    )
    (found,) = segment([pair], Habits())
    assert found.kept[0] > 0.99
    assert found.kept[1] < 0.01
    assert found.supported(1)[0] > 0.99


# -- learning: data drawn from the model itself -------------------------------------------------

_VOCABULARY = 40
_TRUE = Habits(stay=np.array([0.8, 0.3, 0.1]), unsupported=0.25, unexplained=0.4)


def drawn_pair(generator: np.random.Generator, habits: Habits, claims: int = 5) -> LikelihoodRatios:
    """An explanation of 30 words, drawn from the model; each claim has a few words of its own."""
    sentences = np.arange(claims) // 2
    anywhere = np.full(_VOCABULARY, 1 / _VOCABULARY)
    own = np.zeros((claims, _VOCABULARY))
    for claim in range(claims):
        own[claim, generator.choice(_VOCABULARY, 4, replace=False)] = 0.25
    breaks = generator.choice([WORD, CLAUSE, SENTENCE], 30, p=[0.8, 0.1, 0.1])
    breaks[0] = START
    shell = LikelihoodRatios(
        np.zeros((30, claims)), breaks, np.cumsum(breaks != WORD) - 1, sentences
    )
    every = range(claims + 1)
    state, said = 0, []
    for unit in range(30):
        if unit == 0:
            options = [first_probability(to, shell, habits) for to in every]
        elif generator.random() < habits.stay[breaks[unit]]:
            options = [float(to == state) for to in every]
        else:
            opens = breaks[unit] == SENTENCE
            options = [
                move_probability(state, to, shell, habits, opens_sentence=opens) for to in every
            ]
        state = int(generator.choice(claims + 1, p=options))
        by_claim = state != ASIDE and generator.random() >= habits.unexplained
        said.append(generator.choice(_VOCABULARY, p=own[state - 1] if by_claim else anywhere))
    return LikelihoodRatios(
        (own[:, said] / anywhere[said]).T, breaks, shell.owners, shell.sentences
    )


def log_likelihood(pairs: list[LikelihoodRatios], habits: Habits) -> float:
    """By a plain forward pass over each pair on its own."""
    total = 0.0
    for pair in pairs:
        units, claims = pair.ratio.shape
        move = {
            opens: np.array(
                [
                    [
                        move_probability(a, b, pair, habits, opens_sentence=opens)
                        for b in range(claims + 1)
                    ]
                    for a in range(claims + 1)
                ]
            )
            for opens in (False, True)
        }
        emissions = np.array(
            [[emission(u, s, pair, habits) for s in range(claims + 1)] for u in range(units)]
        )
        state = np.array([first_probability(s, pair, habits) for s in range(claims + 1)])
        for unit in range(units):
            if unit:
                stay = habits.stay[pair.breaks[unit]]
                state = stay * state + (1 - stay) * (state @ move[pair.breaks[unit] == SENTENCE])
            state = state * emissions[unit]
            total += log(state.sum())
            state /= state.sum()
    return total


@pytest.fixture(scope="module")
def drawn() -> list[LikelihoodRatios]:
    generator = np.random.default_rng(6)
    return [drawn_pair(generator, _TRUE) for _ in range(250)]


def test_habits_of_drawn_data_are_recovered(drawn: list[LikelihoodRatios]) -> None:
    learnt = learn(drawn, Habits(), 30)
    np.testing.assert_allclose(learnt.stay, _TRUE.stay, atol=0.08)
    assert learnt.unsupported == pytest.approx(_TRUE.unsupported, abs=0.06)
    assert learnt.unexplained == pytest.approx(_TRUE.unexplained, abs=0.06)
    assert abs(learnt.stay[0] - Habits().stay[0]) > 0  # it has moved from where it began


def test_learning_raises_the_likelihood(drawn: list[LikelihoodRatios]) -> None:
    few = drawn[:40]
    begun = Habits(stay=np.array([0.4, 0.6, 0.6]), unsupported=0.7, unexplained=0.8)
    likelihoods = [log_likelihood(few, learn(few, begun, rounds)) for rounds in range(5)]
    gains = np.diff(likelihoods)
    assert gains[0] > 10
    assert (gains > -0.01 * abs(gains[0])).all(), likelihoods
