"""Intervals, chance levels and multiple testing: what turns a number into a result.

All resampling is over *activations* (or documents, where they are known), never over rows:
two explanations of one activation are not independent. Everything is seeded with local
generators, and the same seed and table give the same interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Below this many clusters no interval is given: a percentile bootstrap of fewer covers badly.
MIN_CLUSTERS = 10
#: Bootstrap replicates. 1,000 puts the Monte Carlo error of a 95 % limit near 0.1 standard errors.
REPLICATES = 1000
#: Two-sided level of every interval in the package.
CONFIDENCE = 0.95
#: Events up to which the near end of Wilson's interval is mended.
_FEW_EVENTS = 3.5
#: The normal distribution's limit at that level.
_NORMAL_LIMIT = 1.96

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ``low`` and ``high`` are NaN below MIN_CLUSTERS."""

    value: float
    low: float
    high: float
    n: int
    missing: int = 0

    def excludes(self, level: float) -> bool:
        """Whether the interval is known and does not contain ``level``."""
        return bool(self.low > level or self.high < level)

    def widened(self, error: float, lowest: float = -np.inf, highest: float = np.inf) -> Interval:
        """The interval with an independent error of measurement added, in quadrature.

        Args:
            error: standard deviation of the measurement's own error, which resampling activations
                cannot show because it is common to all of them.
            lowest: smallest possible value.
            highest: largest possible value.
        """
        reach = _NORMAL_LIMIT * error
        return replace(
            self,
            low=max(self.value - float(np.hypot(self.value - self.low, reach)), lowest),
            high=min(self.value + float(np.hypot(self.high - self.value, reach)), highest),
        )

    def reaching(
        self, down: float, up: float, lowest: float = -np.inf, highest: float = np.inf
    ) -> Interval:
        """The interval with a bias that may have pushed the estimate: it reaches further that way.

        Args:
            down: by how much the truth may lie lower, whatever the sample.
            up: by how much higher.
            lowest, highest: possible values.
        """
        low, high = self.low - down, self.high + up
        return replace(
            self,
            low=low if np.isnan(low) else max(low, min(lowest, self.value)),
            high=high if np.isnan(high) else min(high, max(highest, self.value)),
        )

    def entries(self, name: str) -> dict[str, float | None]:
        """``{name, name_low, name_high}`` for a headline or a table row; NaN becomes ``None``."""
        numbers = {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}
        return {key: None if np.isnan(value) else value for key, value in numbers.items()}

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "not known"
        if np.isnan(self.low):
            return f"{self.value:.3f} (no interval, n = {self.n})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


#: Where nothing can be said.
UNKNOWN = Interval(np.nan, np.nan, np.nan, 0)


def interval_in(row: Mapping[str, float | None], name: str, n: str = "explanations") -> Interval:
    """What :meth:`Interval.entries` wrote into ``row``, whose key ``n`` counts what it is from."""
    found = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    value, low, high = (np.nan if one is None else one for one in found)
    return Interval(value, low, high, int(row[n] or 0))


def or_none(value: float) -> float | None:
    """``None`` for what is no number, as tables and headlines have it."""
    return float(value) if np.isfinite(value) else None


#: Draws held in memory at once.
_DRAWN_TOGETHER = 1 << 20


@lru_cache(maxsize=4)
def _draw_counts(n_clusters: int, replicates: int, seed: int) -> Floats:
    """How often each cluster is drawn in each bootstrap replicate, `[replicates, n_clusters]`."""
    generator = np.random.default_rng([seed, n_clusters])
    # In the type of the sums they multiply: a smaller one would be converted at every use.
    counts = np.empty((replicates, n_clusters))
    together = max(1, _DRAWN_TOGETHER // n_clusters)
    for first in range(0, replicates, together):
        number = min(together, replicates - first)
        drawn = generator.integers(0, n_clusters, (number, n_clusters))
        drawn += n_clusters * np.arange(number)[:, None]
        drawn_counts = np.bincount(drawn.ravel(), minlength=number * n_clusters)
        counts[first : first + number] = drawn_counts.reshape(number, n_clusters)
    return counts


#: Above this many clusters the bootstrap distribution of a mean is normal to within its Monte
#: Carlo error, and the cluster sandwich formula gives the same interval in linear memory.
_LARGE = 5_000


class Resampler:
    """Cluster bootstrap shared by all metrics of one table.

    Args:
        clusters: `[n_rows]` labels; rows with one label are drawn together.
        seed: of the local generator.
        replicates: number of bootstrap replicates.
    """

    def __init__(self, clusters: ArrayLike, *, seed: int = 0, replicates: int = REPLICATES):
        labels, self._codes = np.unique(np.asarray(clusters), return_inverse=True)
        self.n_clusters = len(labels)
        self._seed = seed
        self._replicates = replicates

    def _cluster_sums(self, values: Floats) -> Floats:
        sums = np.bincount(self._codes, weights=values, minlength=self.n_clusters)
        return np.asarray(sums, dtype=np.float64)

    def mean(self, values: ArrayLike) -> Interval:
        """Mean of `[n_rows]` values; NaN is missing and is counted, not averaged."""
        column = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(column)
        return self.ratio(np.where(known, column, 0.0), known.astype(np.float64))

    def mean_replicates(self, columns: ArrayLike) -> Floats:
        """Means of columns `[n_rows, k]` in every replicate, `[replicates, k]`; NaN is missing.

        For what is computed from several means at once, such as where a curve crosses a level.
        There are no rows below :data:`MIN_CLUSTERS` clusters.
        """
        values = np.asarray(columns, dtype=np.float64)
        if self.n_clusters < MIN_CLUSTERS:
            return np.empty((0, values.shape[1]))
        known = ~np.isnan(values)
        parts = np.hstack([np.where(known, values, 0.0), known.astype(np.float64)])
        sums = np.zeros((self.n_clusters, parts.shape[1]))
        np.add.at(sums, self._codes, parts)
        if self.n_clusters > _LARGE:
            top, bottom = np.split(sums, 2, axis=1)
            total = bottom.sum(axis=0)
            means = top.sum(axis=0) / total
            errors = (top - means * bottom) / total
            generator = np.random.default_rng([self._seed, self.n_clusters, 1])
            drawn = generator.multivariate_normal(means, errors.T @ errors, self._replicates)
            return np.asarray(drawn)
        drawn = _draw_counts(self.n_clusters, self._replicates, self._seed) @ sums
        top, bottom = np.split(drawn, 2, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(top / bottom)

    def ratio(self, numerator: ArrayLike, denominator: ArrayLike) -> Interval:
        """Σ numerator / Σ denominator with a cluster bootstrap interval.

        Rows whose numerator or denominator is NaN are missing. ``n`` counts the rows whose
        denominator is not zero.
        """
        top = np.asarray(numerator, dtype=np.float64)
        bottom = np.asarray(denominator, dtype=np.float64)
        known = ~(np.isnan(top) | np.isnan(bottom))
        top_sums = self._cluster_sums(np.where(known, top, 0.0))
        bottom_sums = self._cluster_sums(np.where(known, bottom, 0.0))
        used = known & (bottom != 0)
        n, missing = int(used.sum()), int((~known | (bottom == 0)).sum())
        total = bottom_sums.sum()
        if total == 0:
            return replace(UNKNOWN, missing=missing)
        value = float(top_sums.sum() / total)
        active = bottom_sums != 0
        if active.sum() < MIN_CLUSTERS:
            return Interval(value, np.nan, np.nan, n, missing)
        if self.n_clusters > _LARGE:
            residual = top_sums - value * bottom_sums
            error = np.sqrt((residual**2).sum()) / total
            reach = _NORMAL_LIMIT * error
            return Interval(value, value - reach, value + reach, n, missing)
        counts = _draw_counts(self.n_clusters, self._replicates, self._seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = counts @ np.column_stack([top_sums, bottom_sums])
            draws = drawn[:, 0] / drawn[:, 1]
        low, high = percentile_limits(draws)
        return Interval(value, low, high, n, missing)

    def share(self, values: ArrayLike) -> Interval:
        """Mean of `[n_rows]` values between 0 and 1, as :meth:`share_of`; NaN is missing."""
        column = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(column)
        return self.share_of(np.where(known, column, 0.0), known.astype(np.float64))

    def share_of(self, part: ArrayLike, whole: ArrayLike) -> Interval:
        """Σ part / Σ whole, a share of things that are counted, with Wilson's interval.

        The bootstrap of a share that is nearly 0 or 1 has next to no width. Wilson's score
        interval holds there too; things of one cluster count as fewer, by their variance (Franco
        et al. 2019, "Comparative study of confidence intervals for proportions in complex sample
        surveys"), and never as more than the clusters that have any where none of them differ.

        Args:
            part: `[n_rows]`, between 0 and ``whole``; a NaN in either is missing.
            whole: `[n_rows]`.
        """
        top = np.asarray(part, dtype=np.float64)
        bottom = np.asarray(whole, dtype=np.float64)
        known = ~(np.isnan(top) | np.isnan(bottom))
        used = known & (bottom != 0)
        n, missing = int(used.sum()), int((~used).sum())
        if n == 0:
            return replace(UNKNOWN, missing=missing)
        tops = self._cluster_sums(np.where(used, top, 0.0))
        bottoms = self._cluster_sums(np.where(used, bottom, 0.0))
        total, groups = bottoms.sum(), int((bottoms > 0).sum())
        share = float(np.clip(tops.sum() / total, 0.0, 1.0))
        if groups < MIN_CLUSTERS:
            return Interval(share, np.nan, np.nan, n, missing)
        variance = ((tops - share * bottoms) ** 2).sum() / total**2 * groups / (groups - 1)
        spread = share * (1 - share)
        effective = spread / variance if variance > 0 and spread > 0 else float(groups)
        square = _NORMAL_LIMIT**2
        centre = (share + square / (2 * effective)) / (1 + square / effective)
        reach = np.sqrt(spread / effective + square / (4 * effective**2))
        reach *= _NORMAL_LIMIT / (1 + square / effective)
        low, high = max(centre - reach, 0.0), min(centre + reach, 1.0)
        low = min(low, _least_rate(share * effective) / effective)
        high = max(high, 1 - _least_rate((1 - share) * effective) / effective)
        return Interval(share, float(min(low, share)), float(max(high, share)), n, missing)

    def share_difference(self, values: ArrayLike) -> Interval:
        """Mean of `[n_rows]` paired differences of shares, each between −1 and 1.

        Where few pairs differ their variance is not known from them. Two pairs are added, one
        that differs by 1 and one by −1 (Bonett & Price 2012); the estimate is without them. NaN
        is missing.
        """
        column = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(column)
        n, missing = int(known.sum()), int((~known).sum())
        if n == 0:
            return replace(UNKNOWN, missing=missing)
        sums = self._cluster_sums(np.where(known, column, 0.0))
        sizes = self._cluster_sums(known.astype(np.float64))
        groups = int((sizes > 0).sum())
        difference = float(sums.sum() / n)
        if groups < MIN_CLUSTERS:
            return Interval(difference, np.nan, np.nan, n, missing)
        size = n / groups
        sums, sizes = np.append(sums, (size, -size)), np.append(sizes, (size, size))
        centre = sums.sum() / sizes.sum()
        error = np.sqrt(((sums - centre * sizes) ** 2).sum()) / sizes.sum()
        low = max(centre - _NORMAL_LIMIT * error, -1.0)
        high = min(centre + _NORMAL_LIMIT * error, 1.0)
        return Interval(
            difference, float(min(low, difference)), float(max(high, difference)), n, missing
        )

    def ratio_difference(
        self, top: ArrayLike, bottom: ArrayLike, other_top: ArrayLike, other_bottom: ArrayLike
    ) -> Interval:
        """Σ top / Σ bottom − Σ other_top / Σ other_bottom over paired rows, `[n_rows]` each.

        Rows with a NaN in any of the four are missing.
        """
        columns = np.column_stack(
            [np.asarray(part, dtype=np.float64) for part in (top, bottom, other_top, other_bottom)]
        )
        known = np.asarray(~np.isnan(columns).any(axis=1))
        n, missing = int(known.sum()), int((~known).sum())
        columns = np.where(known[:, None], columns, 0.0)
        sums = np.column_stack([self._cluster_sums(column) for column in columns.T])
        total = sums.sum(axis=0)
        if total[1] == 0 or total[3] == 0:
            return replace(UNKNOWN, missing=missing)
        value = float(total[0] / total[1] - total[2] / total[3])
        if min((sums[:, 1] != 0).sum(), (sums[:, 3] != 0).sum()) < MIN_CLUSTERS:
            return Interval(value, np.nan, np.nan, n, missing)
        if self.n_clusters > _LARGE:
            own = (sums[:, 0] - total[0] / total[1] * sums[:, 1]) / total[1]
            other = (sums[:, 2] - total[2] / total[3] * sums[:, 3]) / total[3]
            reach = _NORMAL_LIMIT * float(np.sqrt(((own - other) ** 2).sum()))
            return Interval(value, value - reach, value + reach, n, missing)
        drawn = _draw_counts(self.n_clusters, self._replicates, self._seed) @ sums
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3]
        low, high = percentile_limits(draws)
        return Interval(value, low, high, n, missing)

    def quantile(self, values: ArrayLike, q: float) -> Interval:
        """A quantile, with Woodruff's (1952) interval.

        The interval of the *share at or below* the sample quantile is bootstrapped by cluster
        and read back through the empirical quantile function.
        """
        column = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(column)
        n, missing = int(known.sum()), int((~known).sum())
        if n == 0:
            return replace(UNKNOWN, missing=missing)
        value = float(np.quantile(column[known], q))
        below = self.ratio(np.where(known, column <= value, 0.0), known.astype(np.float64))
        if np.isnan(below.low):
            return Interval(value, np.nan, np.nan, n, missing)
        centred = np.clip([q + below.low - below.value, q + below.high - below.value], 0, 1)
        low, high = np.quantile(column[known], centred)
        return Interval(value, float(low), float(high), n, missing)


def _least_rate(events: float) -> float:
    """Lower limit of a Poisson mean of which a few ``events`` were seen; else no limit at all.

    Wilson's interval is too short at the near end where one to three things were seen (Brown, Cai
    & DasGupta 2001, "Interval estimation for a binomial proportion").
    """
    from scipy.special import gammaincinv  # keeps the import of this module light

    is_few = 0 < events < _FEW_EVENTS
    return float(gammaincinv(events, 1 - CONFIDENCE)) if is_few else np.inf


def percentile_limits(draws: Floats) -> tuple[float, float]:
    """The 95 % limits of a bootstrap's ``draws``, of those that are finite; NaN without any."""
    finite = draws[np.isfinite(draws)]
    if len(finite) == 0:
        return np.nan, np.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def derangement(groups: ArrayLike, seed: int) -> NDArray[np.int64]:
    """For each item, the position of a partner from a *different* group, at random.

    The null of every text comparison: the same comparison with another activation's text
    (another document's, where documents are known).

    Args:
        groups: `[n]` labels.
        seed: of the local generator.

    Returns:
        `[n]` positions; −1 where every item belongs to one group and no partner exists.
    """
    labels = np.asarray(groups)
    n = len(labels)
    generator = np.random.default_rng(seed)
    order = generator.permutation(n)
    partner = np.full(n, -1, dtype=np.int64)
    partner[order] = np.roll(order, -1)
    for position in np.flatnonzero(labels[partner] == labels):  # the few that met their own group
        tries = 0
        while partner[position] < 0 or labels[partner[position]] == labels[position]:
            if tries == 32:
                others = np.flatnonzero(labels != labels[position])
                partner[position] = generator.choice(others) if len(others) else -1
                break
            partner[position] = generator.integers(n)
            tries += 1
    return partner


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values that control the false discovery rate (Benjamini & Hochberg 1995).

    NaN stays NaN and does not count as a test.
    """
    from scipy.stats import false_discovery_control  # slow to import

    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    if len(known) == 0:
        return adjusted
    adjusted[known] = false_discovery_control(p[known])
    return adjusted


def chance_corrected(rate: ArrayLike, chance: ArrayLike) -> Floats:
    """``(rate − chance) / (1 − chance)``: 0 at chance, 1 when everything matches.

    NaN where chance is 1 (nothing can then be told).
    """
    observed = np.asarray(rate, dtype=np.float64)
    level = np.asarray(chance, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        corrected = np.where(level < 1, (observed - level) / (1 - level), np.nan)
    return np.asarray(corrected, dtype=np.float64)
