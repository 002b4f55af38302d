"""Rank correlation with a permutation test and a bootstrap interval over activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nla_audit.stats import MIN_CLUSTERS, REPLICATES, Interval, percentile_limits

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ, and how often chance alone gives one as large, either way."""

    rho: Interval
    p_value: float


def spearman(first: Floats, second: Floats) -> Floats:
    """ρ along the last axis; NaN where one of the two does not vary.

    ``scipy.stats.spearmanr`` would correlate every row with every other.
    """
    from scipy.stats import rankdata  # slow to import

    one, other = (_centred(rankdata(values, axis=-1)) for values in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
        return np.asarray((one * other).sum(axis=-1) / scale)


def _centred(values: Floats) -> Floats:
    return values - values.mean(axis=-1, keepdims=True)


def rank_correlation(
    first: ArrayLike, second: ArrayLike, clusters: ArrayLike, seed: int
) -> RankCorrelation:
    """ρ of ``[n]`` pairs of values, one an activation; NaN in either is missing.

    Args:
        clusters: ``[n]`` what is drawn together, and exchanged in the test: the document where it
            is known.
    """
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    known = ~(np.isnan(one) | np.isnan(other))
    missing = int((~known).sum())
    one, other = one[known], other[known]
    names, codes = np.unique(np.asarray(clusters)[known], return_inverse=True)
    rho = float(spearman(one, other)) if len(one) > 2 else np.nan
    if len(names) < MIN_CLUSTERS or np.isnan(rho):
        return RankCorrelation(Interval(rho, np.nan, np.nan, len(one), missing), np.nan)
    generator = np.random.default_rng([seed, len(one), 23])
    drawn = generator.integers(0, len(names), (REPLICATES, len(names)))
    if len(names) == len(one):
        place = np.argsort(codes)[drawn]
        draws = spearman(one[place], other[place])
    else:  # documents hold different numbers of activations
        members = [np.flatnonzero(codes == code) for code in range(len(names))]
        rows = (np.concatenate([members[code] for code in some]) for some in drawn)
        draws = np.array([float(spearman(one[row], other[row])) for row in rows])
    by_chance = spearman(one, generator.permuted(np.tile(other, (REPLICATES, 1)), axis=1))
    beyond = int((np.abs(by_chance) >= abs(rho) - 1e-12).sum())
    limits = percentile_limits(draws)
    return RankCorrelation(
        Interval(rho, *limits, len(one), missing), (beyond + 1) / (REPLICATES + 1)
    )
