"""α50 of planted psychometric tables: found, covered by its interval, and not made up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import xlogy

from nla_audit.probes.sensitivity.psychometric import (
    BELOW,
    BEYOND,
    CANNOT_TELL,
    Curves,
    Threshold,
    fit,
    threshold,
)
from nla_audit.stats import MIN_CLUSTERS

LADDER = np.array([0, 0.05, 0.1, 0.2, 0.4, 0.8])
#: Planted truths: scale, slope, guess, lapse, spread of log scale between activations.
TRUTHS = (
    (0.2, 3.0, 0.05, 0.05, 0.3),
    (0.15, 2.0, 0.02, 0.0, 0.5),
    (0.3, 4.0, 0.1, 0.15, 0.3),
    (0.12, 6.0, 0.0, 0.02, 0.1),
)


def shares(
    scales: np.ndarray, slope: float, guess: float, lapse: float, ladder: np.ndarray = LADDER
) -> np.ndarray:
    with np.errstate(divide="ignore"):
        reached = 1 / (1 + (scales[:, None] / ladder[None]) ** slope)
    return np.asarray(guess + (1 - guess - lapse) * reached)


def drawn(n: int, truth: tuple[float, ...], seed: int) -> np.ndarray:
    """``[n, strengths]`` 0 or 1: whether each activation is named at each strength."""
    scale, slope, guess, lapse, spread = truth
    generator = np.random.default_rng(seed)
    scales = scale * np.exp(spread * generator.normal(size=n))
    p = shares(scales, slope, guess, lapse)
    return (generator.random(p.shape) < p).astype(np.float64)


def known_alpha50(truth: tuple[float, ...]) -> float:
    """Where the mean over activations of the planted curves passes half."""
    scale, slope, guess, lapse, spread = truth
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    scales = scale * np.exp(spread * points)

    def above(strength: float) -> float:
        p = shares(scales, slope, guess, lapse, np.array([strength]))[:, 0]
        return float((weights @ p / weights.sum() - guess) / (1 - guess) - 0.5)

    return float(brentq(above, 1e-4, 1e3))


def found(said: np.ndarray, **options: int) -> Threshold:
    return threshold(LADDER, said, np.arange(len(said)), **options)


def test_intervals_cover_the_planted_threshold() -> None:
    covered = 0
    for seed in range(100):
        truth = TRUTHS[seed % len(TRUTHS)]
        one = found(drawn(40, truth, seed), seed=seed, replicates=100)
        low, high = one.low or 0.0, one.high or np.inf
        covered += low <= known_alpha50(truth) <= high
    print(f"95 % intervals of α50 cover in {covered} of 100 planted tables")
    assert 90 <= covered <= 99


def test_the_fit_is_the_maximum_that_a_general_optimiser_finds() -> None:
    generator = np.random.default_rng(0)
    rows, asked = 12, np.full((12, len(LADDER)), 40.0)
    truth = Curves(
        generator.uniform(0, 0.2, rows),
        generator.uniform(0, 0.3, rows),
        np.exp(generator.uniform(np.log(0.05), np.log(0.8), rows)),
        np.exp(generator.uniform(0, 2, rows)),
    )
    named = generator.binomial(40, truth.share(LADDER)).astype(np.float64)

    def loss(curves: Curves) -> np.ndarray:
        p = curves.share(LADDER)
        return np.asarray(-(xlogy(named, p) + xlogy(asked - named, 1 - p)).sum(axis=1))

    ours = loss(fit(LADDER, named, asked))
    for row in range(rows):

        def of(x: np.ndarray, row: int = row) -> float:
            whole = [np.full(rows, value) for value in (x[0], x[1], np.exp(x[2]), np.exp(x[3]))]
            return float(np.nan_to_num(loss(Curves(*whole))[row], nan=1e9, posinf=1e9))

        starts = ((0.05, 0.05, np.log(s), slope) for s in (0.1, 0.2, 0.5) for slope in (0.7, 1.7))
        limits = [(1e-9, 0.5), (1e-9, 0.5), (np.log(5e-4), np.log(80)), (np.log(0.5), np.log(20))]
        best = min(minimize(of, s, method="L-BFGS-B", bounds=limits).fun for s in starts)
        assert ours[row] <= best + 1e-3


def test_without_noise_the_curve_is_found_again() -> None:
    truth = Curves(np.array([0.1]), np.array([0.05]), np.array([0.2]), np.array([3.0]))
    curves = fit(LADDER, 1000 * truth.share(LADDER), np.full((1, 6), 1000.0))
    assert curves.alpha50()[0] == pytest.approx(truth.alpha50()[0], rel=1e-3)
    assert curves.guess[0] == pytest.approx(0.1, abs=1e-3)
    reach = (truth.share(truth.alpha50())[0, 0] - 0.1) / 0.9
    assert reach == pytest.approx(0.5)


def test_a_concept_that_is_never_named_lies_beyond_the_ladder() -> None:
    one = found(np.zeros((40, 6)))
    assert (one.value, one.high, one.reason) == (None, None, BEYOND)
    assert one.low == LADDER[-1]
    assert one.told() == "beyond the ladder [80%, beyond the ladder]"


def test_one_in_five_at_most_is_no_half() -> None:
    said = drawn(200, (0.1, 4.0, 0.0, 0.5, 0.1), 0) * (np.arange(200) % 5 < 2)[:, None]
    assert found(said).reason == BEYOND


def test_named_at_the_weakest_strength_lies_below_the_ladder() -> None:
    said = np.ones((40, 6))
    said[:, 0] = 0
    one = found(said)
    assert (one.value, one.low, one.reason) == (None, None, BELOW)
    assert one.high is not None


def test_the_end_of_the_ladder_bounds_one_side_only() -> None:
    one = found(drawn(40, (0.8, 4.0, 0.0, 0.0, 0.1), 2))
    assert one.high is None
    assert one.low is not None
    assert one.low > 0.4


@pytest.mark.parametrize(
    "said",
    [
        np.ones((MIN_CLUSTERS - 1, 6)),
        np.full((40, 6), np.nan),
        np.tile([[1.0], [1.0], [0.0]], (14, 6)),  # most name it, planted or not
    ],
)
def test_what_a_table_cannot_tell(said: np.ndarray) -> None:
    one = found(said)
    assert (one.value, one.low, one.high, one.told()) == (None, None, None, CANNOT_TELL)


def test_two_strengths_are_too_few() -> None:
    said = np.tile([0.0, 0.0, 1.0], (40, 1))
    assert threshold(LADDER[:3], said, np.arange(40)).reason == CANNOT_TELL


def test_documents_are_drawn_whole() -> None:
    said = drawn(20, TRUTHS[0], 0)
    alone = found(said)
    four = threshold(LADDER, np.repeat(said, 4, axis=0), np.repeat(np.arange(20), 4))
    for end in ("value", "low", "high"):
        assert getattr(four, end) == pytest.approx(getattr(alone, end), rel=1e-3)
