"""Does a concept come back by more than one more direction of a control would?

A control is many directions, each planted into a few activations, and the concept is held against
how directions differ. Their measured shares scatter by more than that: by what those few
activations happen to do as well. How much activations do is seen among those that got the same
direction, and as much of it as is sure is taken off.

What is left is uncertain, and more so the less there is of it, so that it is not set to its best
estimate: the probability of a share as large is averaged over all variances between directions
that the data leave open (generalised inference in a one-way layout of random effects, Weerahandi
1995, "Exact Statistical Methods for Data Analysis", chapter 4; unequal groups by unweighted means,
Thomas & Hultquist 1978). Where activations scatter by nothing it is Student's t for one more draw;
where directions differ by nothing, nearly the normal distribution of two measured shares.

The averaging takes directions to be normal about their mean. Where a few of them come back and most
do not, a concept that is one of the few would be called larger too often; so it must also be above
the highest of them, after their scatter is shrunk to what directions differ by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: How sure it is that activations scatter by as much as is taken off. At their best estimate, which
#: is too large as often as too small, directions would seem to differ too little.
_SURE = 0.9
#: Variances between directions that are averaged over, equally likely.
_VARIANCES = 400
#: In how many standard deviations from the mean the critical excess is looked for.
_FARTHEST = 100.0


@dataclass(frozen=True)
class Spread:
    """The shares of a control's directions.

    Attributes:
        shares: ``[directions]`` what comes back of each, two or more.
        noise: variance of a share, mean over the directions, that is surely due to the activations
            that it happens to be measured on.
    """

    shares: Floats
    noise: float

    @classmethod
    def of(cls, top: Floats, bottom: Floats, directions: NDArray[np.str_]) -> Spread:
        """From ratios of sums.

        Args:
            top: ``[activations]`` numerators.
            bottom: ``[activations]`` denominators, above 0.
            directions: ``[activations]`` names of what was planted.
        """
        from scipy.special import chdtri  # slow to import

        _, codes = np.unique(directions, return_inverse=True)
        weights = np.bincount(codes, bottom)
        shares = np.bincount(codes, top) / weights
        freedom = len(codes) - len(shares)
        if freedom == 0:
            return cls(shares, 0.0)
        # An activation with a larger denominator is known better, in proportion.
        squares = ((top - shares[codes] * bottom) ** 2 / bottom).sum()
        return cls(shares, float(squares / chdtri(freedom, 1 - _SURE) * (1 / weights).mean()))

    @property
    def mean(self) -> float:
        """Of the directions."""
        return float(self.shares.mean())

    @property
    def shrunk(self) -> Floats:
        """``[directions]`` shares whose scatter is that by which directions differ."""
        total = self._total
        kept = np.sqrt(max(1 - self.noise / total, 0.0)) if total > 0 else 0.0
        return np.asarray(self.mean + kept * (self.shares - self.mean))

    def p_value(self, value: float, error: float) -> float:
        """Probability of a share as large of one more direction.

        Args:
            value: the concept's share.
            error: its standard error.
        """
        above = value - self.mean
        if not self._total + error**2 > 0:
            return 1.0 if above <= 0 else 0.0
        by_chance = self._chance(above, error)
        if value > self.shrunk.max():
            return by_chance
        return max(by_chance, 2 / (1 + len(self.shares)))  # at best the second of them and itself

    def detectable(self, error: float, level: float, quantile: float) -> float:
        """By how much a share must be above the mean to be found at ``level``.

        Args:
            error: standard error of the share.
            level: of the test.
            quantile: of the normal distribution, for the power wanted.
        """
        from scipy.optimize import brentq  # slow to import

        farthest = _FARTHEST * np.sqrt(self._total + error**2)
        if not farthest > 0:
            return 0.0
        critical = brentq(lambda above: self._chance(above, error) - level, 0.0, farthest)
        between = max(self._total - self.noise, 0.0)
        of_one = np.sqrt(between + self._total / len(self.shares) + error**2)
        return float(max(critical, self.shrunk.max() - self.mean) + quantile * of_one)

    @property
    def _total(self) -> float:
        return float(self.shares.var(ddof=1))

    def _chance(self, above: float, error: float) -> float:
        """Probability of one more direction so far above the mean, if directions are normal."""
        from scipy.special import chdtri, ndtr  # slow to import

        number = len(self.shares)
        levels = (np.arange(_VARIANCES) + 0.5) / _VARIANCES
        total = self._total * (number - 1) / chdtri(number - 1, levels)
        variance = np.maximum(total - self.noise, 0.0) + total / number + error**2
        return float(ndtr(-above / np.sqrt(variance)).mean())
