"""Directions whose spread is known: is one more of them told from a concept that carries more?"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from nla_audit.probes.sensitivity.spread import Spread

DIRECTIONS, EACH = 20, 4
#: Scatter of a share by the one activation that it is measured on.
SCATTER = 0.2


def measured(shares: np.ndarray, generator: np.random.Generator, each: int = EACH) -> Spread:
    """The spread of directions with these true shares, each planted into some activations."""
    names = np.repeat([f"d{number}" for number in range(len(shares))], each)
    bottom = generator.uniform(0.4, 0.8, len(names))
    noise = generator.normal(0, SCATTER, len(names)) / np.sqrt(bottom / bottom.mean())
    return Spread.of((np.repeat(shares, each) + noise) * bottom, bottom, names)


def found(concept: float, between: float, *, seeds: int, heavy: bool = False) -> dict[str, float]:
    """How often one more direction, raised by ``concept``, is called larger; and by Student's t."""
    counts = {"spread": 0, "student": 0}
    error = SCATTER / np.sqrt(DIRECTIONS * EACH)
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        draws = generator.normal(size=DIRECTIONS + 1)
        if heavy:  # a few come back and most do not
            draws = (generator.random(DIRECTIONS + 1) < 0.15) * 2.8 - 0.42
        *others, own = 0.1 + between * draws
        spread = measured(np.array(others), generator)
        value = own + concept + generator.normal(0, error)
        counts["spread"] += spread.p_value(value, error) < 0.05
        counts["student"] += as_student(spread, value, error) < 0.05
    return {name: count / seeds for name, count in counts.items()}


def as_student(spread: Spread, value: float, error: float) -> float:
    """By Student's t, which takes all scatter of the measured shares for that of the directions."""
    number = len(spread.shares)
    width = np.hypot(spread.shares.std(ddof=1) * np.sqrt(1 + 1 / number), error)
    return float(student.sf((value - spread.mean) / width, number - 1))


def test_what_scatters_between_activations_is_taken_off_as_far_as_it_is_sure() -> None:
    generator = np.random.default_rng(0)
    spreads = [measured(generator.normal(0.1, 0.1, DIRECTIONS), generator) for _ in range(300)]
    truth = SCATTER**2 / EACH
    noise = np.array([one.noise for one in spreads])
    assert np.mean(noise < truth) == pytest.approx(0.9, abs=0.05)
    assert 0.7 * truth < noise.mean() < truth
    left = [one.shrunk.var(ddof=1) for one in spreads]
    assert 0.1**2 < np.mean(left) < 0.1**2 + truth / 3


def test_without_scatter_between_activations_it_is_one_more_draw_by_student() -> None:
    spread = Spread(np.random.default_rng(0).normal(0.1, 0.1, DIRECTIONS), noise=0.0)
    for value in (0.32, 0.4, 0.5):
        assert value > spread.shrunk.max()
        assert spread.p_value(value, 0.0) == pytest.approx(as_student(spread, value, 0.0), rel=0.05)


def test_one_activation_of_a_direction_tells_no_scatter() -> None:
    shares = np.full(DIRECTIONS, 0.1)
    assert measured(shares, np.random.default_rng(0), each=1).noise == 0
    assert measured(shares, np.random.default_rng(0), each=2).noise > 0


@pytest.mark.parametrize("between", [0.0, 0.05, 0.1])
def test_one_more_direction_is_seldom_called_larger(between: float) -> None:
    assert found(0.0, between, seeds=400)["spread"] <= 0.05


def test_one_of_a_few_that_come_back_is_seldom_called_larger() -> None:
    """Normal directions are assumed; where they are not, the highest of them is to be passed."""
    seeds = 400
    rates = found(0.0, 0.3, seeds=seeds, heavy=True)
    assert rates["spread"] <= 0.05 + 1.96 * np.sqrt(0.05 * 0.95 / seeds)
    assert rates["student"] > 0.08


def test_a_concept_is_found_that_is_missed_by_student() -> None:
    rates = found(0.2, 0.03, seeds=200)
    assert rates["spread"] > 0.8
    assert rates["student"] < 0.7


def test_what_can_be_found_is_found_with_the_power_that_is_told() -> None:
    error, between, seeds, hits = SCATTER / np.sqrt(DIRECTIONS * EACH), 0.05, 150, 0
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        *others, own = 0.1 + between * generator.normal(size=DIRECTIONS + 1)
        spread = measured(np.array(others), generator)
        reach = spread.detectable(error, 0.05, 1.2816)
        value = own - 0.1 + spread.mean + reach + generator.normal(0, error)
        hits += spread.p_value(value, error) < 0.05
    assert 0.85 < hits / seeds < 0.97


def test_nothing_that_varies_at_all() -> None:
    spread = Spread(np.full(DIRECTIONS, 0.125), noise=0.0)
    assert spread.p_value(0.125, 0.0) == 1
    assert spread.p_value(0.2, 0.0) == 0
    assert spread.detectable(0.0, 0.05, 1.2816) == 0
