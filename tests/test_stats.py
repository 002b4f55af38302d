"""Intervals, nulls and multiple testing against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_audit import stats
from nla_audit.regression import clustered_regression
from nla_audit.stats import (
    MIN_CLUSTERS,
    Interval,
    Resampler,
    benjamini_hochberg,
    chance_corrected,
    derangement,
)

#: 400 samples: three standard errors of a coverage of 0.95 are 0.033.
SAMPLES = 400
COVERAGE_SLACK = 0.033 + 0.015  # and what a percentile bootstrap of 60 clusters falls short of


def coverage(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


# -- bootstrap --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "exponential", "rare"])
def test_interval_of_a_mean_covers(kind: str) -> None:
    generator = np.random.default_rng(0)
    draw = {
        "normal": lambda: generator.normal(2.0, 3.0, 60),
        "exponential": lambda: generator.exponential(2.0, 60),
        "rare": lambda: (generator.random(60) < 0.15).astype(float),
    }[kind]
    truth = {"normal": 2.0, "exponential": 2.0, "rare": 0.15}[kind]
    found = [Resampler(np.arange(60), seed=n, replicates=400).mean(draw()) for n in range(SAMPLES)]
    assert coverage(found, truth) == pytest.approx(0.95, abs=COVERAGE_SLACK)


def test_rows_of_one_cluster_are_drawn_together() -> None:
    """Ten copies of each row tell no more than one does."""
    generator = np.random.default_rng(1)
    values = generator.normal(size=80)
    once = Resampler(np.arange(80)).mean(values)
    often = Resampler(np.repeat(np.arange(80), 10)).mean(np.repeat(values, 10))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert often.n == 800
    as_if_independent = Resampler(np.arange(800)).mean(np.repeat(values, 10))
    assert as_if_independent.high - as_if_independent.low < 0.5 * (once.high - once.low)


def test_interval_of_a_clustered_mean_covers() -> None:
    generator = np.random.default_rng(2)
    clusters = np.repeat(np.arange(50), 4)
    found = []
    for n in range(SAMPLES):
        values = np.repeat(generator.normal(1.0, 1.0, 50), 4) + generator.normal(0, 0.5, 200)
        found.append(Resampler(clusters, seed=n, replicates=400).mean(values))
    assert coverage(found, 1.0) == pytest.approx(0.95, abs=COVERAGE_SLACK)


def test_interval_of_a_ratio_covers() -> None:
    generator = np.random.default_rng(3)
    found = []
    for n in range(SAMPLES):
        below = generator.integers(1, 9, 70).astype(float)
        above = generator.binomial(below.astype(int), 0.3).astype(float)
        found.append(Resampler(np.arange(70), seed=n, replicates=400).ratio(above, below))
    assert coverage(found, 0.3) == pytest.approx(0.95, abs=COVERAGE_SLACK)


@pytest.mark.parametrize("q", [0.25, 0.5, 0.9])
def test_interval_of_a_quantile_covers(q: float) -> None:
    generator = np.random.default_rng(4)
    truth = -np.log1p(-q)
    found = [
        Resampler(np.arange(120), seed=n, replicates=300).quantile(
            generator.exponential(size=120), q
        )
        for n in range(SAMPLES)
    ]
    assert coverage(found, truth) == pytest.approx(0.95, abs=COVERAGE_SLACK + 0.01)


def test_large_tables_get_the_same_interval_from_the_formula(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(5)
    clusters = np.repeat(np.arange(1500), 2)
    below = generator.integers(1, 5, 3000).astype(float)
    above = below * generator.random(3000)
    drawn = Resampler(clusters).ratio(above, below)
    monkeypatch.setattr(stats, "_LARGE", 1000)
    formula = Resampler(clusters).ratio(above, below)
    assert formula.value == drawn.value
    width = drawn.high - drawn.low
    assert formula.low == pytest.approx(drawn.low, abs=0.05 * width)
    assert formula.high == pytest.approx(drawn.high, abs=0.05 * width)


def test_same_seed_same_interval_and_order_of_rows_does_not_matter() -> None:
    values = np.random.default_rng(6).normal(size=50)
    order = np.random.default_rng(7).permutation(50)
    first = Resampler(np.arange(50), seed=3).mean(values)
    assert Resampler(np.arange(50), seed=3).mean(values) == first
    shuffled = Resampler(np.arange(50)[order], seed=3).mean(values[order])
    assert (shuffled.low, shuffled.high) == pytest.approx((first.low, first.high), abs=1e-12)
    assert Resampler(np.arange(50), seed=4).mean(values).low != first.low


def test_missing_values_are_counted_and_not_averaged() -> None:
    values = np.array([1.0, np.nan, 3.0] * 10)
    found = Resampler(np.arange(30)).mean(values)
    assert (found.value, found.n, found.missing) == (2.0, 20, 10)
    nothing = Resampler(np.arange(30)).mean(np.full(30, np.nan))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    assert (nothing.n, nothing.missing) == (0, 30)


def test_no_interval_from_a_few_clusters() -> None:
    few = Resampler(np.arange(MIN_CLUSTERS - 1)).mean(np.arange(MIN_CLUSTERS - 1.0))
    assert few.value == (MIN_CLUSTERS - 2) / 2
    assert np.isnan([few.low, few.high]).all()
    assert "no interval" in str(few)
    # Twenty rows of nine clusters are nine clusters still.
    rows = Resampler(np.arange(20) % (MIN_CLUSTERS - 1)).mean(np.arange(20.0))
    assert np.isnan(rows.low)
    enough = Resampler(np.arange(MIN_CLUSTERS)).mean(np.arange(float(MIN_CLUSTERS)))
    assert enough.low < enough.value < enough.high


def test_clusters_may_have_any_labels() -> None:
    values = np.random.default_rng(8).normal(size=40)
    named = Resampler(np.array([f"document {n // 2:02d}" for n in range(40)])).mean(values)
    numbered = Resampler(np.arange(40) // 2).mean(values)
    assert named == numbered


# -- intervals --------------------------------------------------------------------------------


def test_widened_adds_an_error_in_quadrature() -> None:
    interval = Interval(0.5, 0.47, 0.54, 100).widened(0.02)
    reach = 1.96 * 0.02
    assert interval.low == pytest.approx(0.5 - np.sqrt(0.03**2 + reach**2))
    assert interval.high == pytest.approx(0.5 + np.sqrt(0.04**2 + reach**2))
    assert (interval.value, interval.n) == (0.5, 100)


def test_widened_stays_within_its_bounds_and_keeps_unknown_limits_unknown() -> None:
    assert Interval(0.99, 0.98, 1.0, 50).widened(0.05, 0.0, 1.0).high == 1.0
    assert Interval(0.01, 0.0, 0.02, 50).widened(0.05, 0.0, 1.0).low == 0.0
    unchanged = Interval(0.3, 0.2, 0.4, 50).widened(0.0)
    assert (unchanged.low, unchanged.high) == pytest.approx((0.2, 0.4))


def test_unknown_limits_stay_unknown_when_widened() -> None:
    unknown = Interval(0.3, np.nan, np.nan, 5).widened(0.02, 0.0, 1.0)
    assert np.isnan([unknown.low, unknown.high]).all()


def test_an_interval_excludes_what_it_does_not_hold() -> None:
    assert Interval(0.5, 0.4, 0.6, 50).excludes(0.3)
    assert Interval(0.5, 0.4, 0.6, 50).excludes(0.7)
    assert not Interval(0.5, 0.4, 0.6, 50).excludes(0.4)
    assert not Interval(0.5, np.nan, np.nan, 5).excludes(9.0)


def test_entries_name_their_limits_and_make_unknown_ones_null() -> None:
    assert Interval(0.5, np.nan, np.nan, 5).entries("rate") == {
        "rate": 0.5,
        "rate_low": None,
        "rate_high": None,
    }


# -- derangement ------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_nobody_meets_their_own_group(groups: list[int], seed: int) -> None:
    partner = derangement(groups, seed)
    labels = np.asarray(groups)
    if len(set(groups)) == 1:
        assert (partner == -1).all()
        return
    assert (partner >= 0).all()
    assert (labels[partner] != labels).all()


def test_a_group_of_nearly_all_still_meets_the_others() -> None:
    groups = np.array([0] * 500 + [1])
    partner = derangement(groups, 0)
    assert (partner[:500] == 500).all()
    assert groups[partner[500]] == 0


def test_partners_of_distinct_items_are_a_permutation_and_seeded() -> None:
    partner = derangement(np.arange(200), 3)
    assert sorted(partner) == list(range(200))
    assert (partner == derangement(np.arange(200), 3)).all()
    assert (partner != derangement(np.arange(200), 4)).any()
    assert derangement([], 0).tolist() == []


# -- multiple testing, chance, regression -------------------------------------------------------


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted: .005·4/1 = .02, .01·4/2 = .02, .03·4/3 = .04, .04·4/4 = .04.
    adjusted = benjamini_hochberg([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.02, 0.04, 0.04, 0.02])
    # A smaller p-value never gets a larger adjusted one: .02·3/1 = .06 is brought down to .03.
    assert benjamini_hochberg([0.02, 0.021, 0.03]) == pytest.approx([0.03, 0.03, 0.03])
    assert benjamini_hochberg([0.9, 0.95]) == pytest.approx([0.95, 0.95])


def test_benjamini_hochberg_leaves_unknown_ones_out_of_the_count() -> None:
    adjusted = benjamini_hochberg([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(adjusted[1])
    assert np.isnan(benjamini_hochberg([np.nan])).all()
    assert benjamini_hochberg([]).tolist() == []


def test_false_discoveries_are_controlled() -> None:
    generator = np.random.default_rng(9)
    shares = []
    for _ in range(300):
        p = generator.random(40)
        p[:10] = generator.random(10) * 1e-4
        found = benjamini_hochberg(p) <= 0.1
        shares.append(found[10:].sum() / max(found.sum(), 1))
    assert np.mean(shares) < 0.1
    assert np.mean(shares) > 0.02  # the procedure does reject


@pytest.mark.parametrize(
    ("rate", "chance", "expected"),
    [(0.2, 0.2, 0.0), (1.0, 0.2, 1.0), (0.6, 0.2, 0.5), (0.1, 0.2, -0.125), (0.7, 0.0, 0.7)],
)
def test_chance_corrected(rate: float, chance: float, expected: float) -> None:
    assert float(chance_corrected(rate, chance)) == pytest.approx(expected)


def test_certain_chance_tells_nothing() -> None:
    assert np.isnan(chance_corrected(1.0, 1.0))
    assert np.isnan(chance_corrected(0.5, np.nan))


def test_clustered_regression_finds_coefficients_with_honest_errors() -> None:
    generator = np.random.default_rng(10)
    clusters = np.repeat(np.arange(80), 4)
    truth = np.array([2.0, -1.0, 0.5])
    covered = []
    for _ in range(200):
        # A feature and an error that clusters share make naive standard errors too small.
        shared = np.repeat(generator.normal(size=80), 4)
        features = np.column_stack([np.ones(320), shared, generator.normal(size=320)])
        errors = np.repeat(generator.normal(size=80), 4) + generator.normal(size=320)
        fit = clustered_regression(features @ truth + errors, features, clusters)
        reach = 1.96 * fit.standard_error
        covered.append(np.abs(fit.coefficient - truth) <= reach)
    assert np.mean(covered, axis=0) == pytest.approx(np.full(3, 0.95), abs=0.06)


def test_features_that_never_vary_from_zero_get_no_coefficient() -> None:
    generator = np.random.default_rng(11)
    features = np.column_stack([np.ones(50), np.zeros(50), generator.normal(size=50)])
    fit = clustered_regression(generator.normal(size=50), features, np.arange(50))
    assert np.isnan([fit.coefficient[1], fit.standard_error[1], fit.p_value[1]]).all()
    assert np.isfinite(fit.coefficient[[0, 2]]).all()
    few = clustered_regression(np.ones(8), np.ones((8, 1)), np.arange(8))
    assert np.isnan(few.coefficient).all()


class TestShares:
    """Wilson's interval for shares, and Bonett and Price's for their paired differences."""

    @pytest.mark.parametrize("successes", [0, 5, 30, 60])
    def test_wilson_over_rows_that_are_clusters(self, successes: int) -> None:
        n = 60
        found = Resampler(np.arange(n)).share(np.arange(n) < successes)
        share, z = successes / n, 1.96
        # The variance is estimated with n − 1, so that n rows count as n − 1.
        size = n - 1 if 0 < share < 1 else n
        centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
        reach = z * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2)) / (1 + z**2 / size)
        assert found.value == pytest.approx(share)
        assert found.low == pytest.approx(max(centre - reach, 0), abs=1e-9)
        assert found.high == pytest.approx(min(centre + reach, 1), abs=1e-9)

    def test_rows_of_one_cluster_count_as_fewer(self) -> None:
        values = np.repeat(np.arange(40) % 2, 5)
        clustered = Resampler(np.repeat(np.arange(40), 5)).share(values)
        apart = Resampler(np.arange(200)).share(values)
        assert clustered.high - clustered.low > 2 * (apart.high - apart.low)

    def test_one_event_in_many_does_not_exclude_its_rate(self) -> None:
        one = Resampler(np.arange(50)).share(np.arange(50) == 0)
        assert 0 < one.low < 0.0015  # Wilson's own is 0.0035

    def test_a_share_of_things_that_are_counted(self) -> None:
        part, whole = np.array([1.0, 0, 2, np.nan] * 5), np.array([2.0, 0, 2, 3] * 5)
        found = Resampler(np.arange(20)).share_of(part, whole)
        assert found.value == pytest.approx(0.75)
        assert (found.n, found.missing) == (10, 10)

    def test_paired_differences_that_never_differ_have_a_width(self) -> None:
        found = Resampler(np.arange(50)).share_difference(np.zeros(50))
        assert found.value == 0
        assert found.high == pytest.approx(1.96 * np.sqrt(2) / 52)
        assert found.low == -found.high

    def test_difference_of_ratios_is_that_of_its_parts(self) -> None:
        generator = np.random.default_rng(0)
        bottom, other = generator.integers(1, 9, 300), generator.integers(1, 9, 300)
        top, other_top = generator.binomial(bottom, 0.4), generator.binomial(other, 0.6)
        draw = Resampler(np.arange(300))
        found = draw.ratio_difference(top, bottom, other_top, other)
        own, reference = draw.ratio(top, bottom), draw.ratio(other_top, other)
        assert found.value == pytest.approx(own.value - reference.value)
        assert found.high < 0
        same = draw.ratio_difference(top, bottom, top, bottom)
        assert (same.low, same.value, same.high) == (0, 0, 0)

    def test_no_interval_of_few_clusters(self) -> None:
        draw = Resampler(np.arange(9))
        for found in (
            draw.share(np.ones(9)),
            draw.share_difference(np.ones(9)),
            draw.ratio_difference(np.ones(9), np.ones(9), np.zeros(9), np.ones(9)),
        ):
            assert found.n == 9
            assert np.isnan(found.low)
