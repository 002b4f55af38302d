"""The two-groups model: shares of matches recovered, and nothing found where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from nla_audit.text.mixture import fit_two_groups, normal_scores, typical_two_groups


def draws(matches: int, others: int, mean: float, deviation: float, seed: int = 0):
    """Scores, which of them are matches, and a null, on a scale that is not the normal one."""
    generator = np.random.default_rng(seed)
    places = np.concatenate(
        [generator.normal(mean, deviation, matches), generator.normal(0, 1, others)]
    )
    return (
        np.exp(places / 12),
        np.arange(len(places)) < matches,
        np.exp(generator.normal(0, 1, 8000) / 12),
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_share_of_matches_is_recovered(share: float) -> None:
    matches = round(1000 * share)
    scores, _, null = draws(matches, 1000 - matches, 3.0, 1.2)
    fit = fit_two_groups(scores, null)
    assert fit is not None
    assert 1 - fit.null_share == pytest.approx(share, abs=0.05)
    assert fit.posterior(scores).mean() == pytest.approx(share, abs=0.05)


def test_matches_that_look_like_the_null_are_counted() -> None:
    """A sixth of heavy paraphrases score like other activations' texts."""
    scores, is_match, null = draws(800, 200, 3.0, 2.0)
    fit = fit_two_groups(scores, null)
    assert fit is not None
    hidden = scores[is_match] < np.quantile(null, 0.8)
    assert hidden.mean() > 0.1
    middle = np.median(null)
    taken_for_null = np.mean(scores <= middle) / np.mean(null <= middle)  # Storey 2002
    assert abs(1 - fit.null_share - 0.8) < 0.1
    assert 1 - fit.null_share > 1 - taken_for_null


def test_posteriors_tell_matches_from_the_null_and_never_fall() -> None:
    scores, is_match, null = draws(500, 500, 3.0, 1.5)
    fit = fit_two_groups(scores, null)
    assert fit is not None
    found = fit.posterior(np.sort(scores))
    assert (np.diff(found) >= -1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()
    own = fit.posterior(scores)
    assert own[is_match].mean() - own[~is_match].mean() > 0.6


def test_the_null_is_standard_normal_on_its_own_scale() -> None:
    null = np.sort(np.random.default_rng(1).exponential(size=5000))
    places = normal_scores(null, null)
    assert places.mean() == pytest.approx(0, abs=0.05)
    assert places.std() == pytest.approx(1, abs=0.1)


def test_too_few_scores_are_not_fitted() -> None:
    assert fit_two_groups(np.ones(5), np.ones(500)) is None
    assert fit_two_groups(np.ones(500), np.ones(5)) is None


def test_equal_scores_are_no_error() -> None:
    fit = fit_two_groups(np.full(100, 0.3), np.full(100, 0.3))
    assert fit is not None
    assert np.isfinite(fit.posterior(np.array([0.0, 0.3, 1.0]))).all()


def test_what_is_taken_without_a_fit_rises_with_the_score() -> None:
    found = typical_two_groups((0.1, 0.05)).posterior(np.array([0.05, 0.2, 0.6]))
    assert found[0] < found[1] < found[2]


def test_some_copied_and_some_in_other_words_are_all_counted() -> None:
    """Quotes far beyond the null, prose barely: one normal would take the prose for nothing."""
    generator = np.random.default_rng(3)
    places = np.concatenate(
        [
            generator.normal(1.6, 0.9, 300),
            generator.normal(6.0, 1.0, 300),
            generator.normal(0.0, 1.0, 200),
        ]
    )
    null = np.exp(generator.normal(0, 1, 8000) / 12)
    fit = fit_two_groups(np.exp(places / 12), null)
    assert fit is not None
    assert 1 - fit.null_share == pytest.approx(0.75, abs=0.08)


def test_strong_evidence_alone_counts_where_it_is_asked_for() -> None:
    scores, _, null = draws(500, 500, 1.6, 0.9)
    fit, strict = (fit_two_groups(scores, null, least) for least in (0.5, 2.5))
    assert fit is not None
    assert strict is not None
    assert 1 - strict.null_share < 0.25 < 1 - fit.null_share


@pytest.mark.parametrize(("mean", "deviation"), [(3.0, 0.1), (3.0, 0.5), (4.0, 0.3)])
def test_matches_close_together_are_counted_an_eighth_too_high_at_most(
    mean: float, deviation: float
) -> None:
    """Shapes are smoothed, and what lies closer together is taken to reach into the null."""
    scores, _, null = draws(300, 300, mean, deviation)
    fit = fit_two_groups(scores, null)
    assert fit is not None
    assert 0.0 <= 0.5 - fit.null_share <= 0.13


def test_posteriors_never_fall_where_matches_lie_close_together() -> None:
    """Beyond all matches the null would be likelier again."""
    scores, _, null = draws(300, 300, 1.0, 0.3)
    fit = fit_two_groups(scores, null)
    assert fit is not None
    found = fit.posterior(np.exp(np.linspace(-4, 30, 500) / 12))
    assert (np.diff(found) >= 0).all()
    assert found[-1] >= found.max()
    assert found.max() <= 1


def test_where_much_matches_the_rest_may_lie_lower() -> None:
    generator = np.random.default_rng(0)
    null = generator.normal(size=8000)
    scores = np.concatenate([generator.normal(-0.5, 1, 400), generator.normal(4, 1.2, 600)])
    without, crowded = (fit_two_groups(scores, null, crowding=most) for most in (0.0, 0.8))
    assert without is not None
    assert crowded is not None
    far = (1 - without.null_share) * (1 - without.close) ** 2
    assert crowded.shift == pytest.approx(0.8 * far)
    assert crowded.null_share < without.null_share
    assert crowded.null_share == pytest.approx(0.4, abs=0.06)
    # A score between the two is likelier a match's if the null lies lower.
    between = np.array([1.0])
    assert crowded.posterior(between) > without.posterior(between)
    nothing = fit_two_groups(generator.normal(size=1000), null, crowding=0.8)
    assert nothing is not None
    assert nothing.null_share > 0.9


def test_close_matches_are_those_no_further_out_than_the_null() -> None:
    near, far = (fit_two_groups(*draws(800, 200, mean, 1.0)[::2]) for mean in (1.5, 5.0))
    assert near is not None
    assert far is not None
    assert near.close > 0.6
    assert far.close < 0.1
