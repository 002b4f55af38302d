"""Which scores are beyond the null, and how likely is each: a two-groups model.

Scores of pairs that may belong together are a mixture of the null (scores of pairs that cannot:
texts of different activations) and of matches. The null is known from as many pairs as wanted, so
only the share of matches and where they lie are fitted (Efron 2008, "Microarrays, empirical Bayes
and the two-groups model"): on the scale on which the null is a standard normal, matches are taken
for a normal of their own. Estimators that take every score inside the null for null (Storey 2002)
miss matches that look like it: a sixth of all paraphrases, by words alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]

#: Fewer scores than this, of either sort, and nothing is fitted.
MIN_SCORES = 20
_ROUNDS = 200
#: Where matches are looked for first, with the weight of so many scores.
_PRIOR_MEAN, _PRIOR_WEIGHT = 2.5, 5.0
#: Matches that lie nearer to the null are allowed the spread of those that lie here.
_USUAL_MEAN = 3.5
#: Matches are no narrower than this.
_LEAST_DEVIATION = 0.5
#: Ranks in the null are used up to here; beyond, deviations from its middle.
_TAIL = 0.975


@dataclass(frozen=True)
class TwoGroups:
    """A fitted mixture.

    Attributes:
        null: `[n]`, the null's scores, sorted.
        null_share: share of the fitted scores that are null.
        mean, deviation: of the matches, on the scale on which the null is standard normal.
        scale: by how much posteriors are multiplied so that their mean is the share of matches.
    """

    null: Floats
    null_share: float
    mean: float
    deviation: float
    scale: float = 1.0

    def posterior(self, scores: Floats) -> Floats:
        """The probability that each score is a match's; it never falls as scores rise."""
        if len(scores) == 0:
            return np.zeros(0)
        # Wider than the null, matches would be likelier again far below it: there it stays level.
        level = self.deviation**2 - 1
        lowest = -self.mean / level if level > 1e-6 else -np.inf
        places = np.maximum(normal_scores(scores, self.null), lowest)
        matched = (1 - self.null_share) * _density(places, self.mean, self.deviation)
        by_null = self.null_share * _density(places)
        share = matched / np.maximum(matched + by_null, 1e-300)
        # Far beyond the null both densities vanish.
        share = np.where(places > self.mean + 6, float(self.null_share < 1), share)
        return np.minimum(self.scale * share, 1.0)


def normal_scores(scores: Floats, null: Floats) -> Floats:
    """Scores on the scale on which the (sorted) null is a standard normal."""
    ranks = (np.searchsorted(null, scores, "left") + np.searchsorted(null, scores, "right")) / 2
    quantile = (ranks + 0.5) / (len(null) + 1)
    inside = ndtri(np.clip(quantile, 1e-4, 1 - 1e-4))
    middle, high = np.quantile(null, [0.5, _TAIL])
    spread = (high - middle) / ndtri(_TAIL)
    if spread <= 0:
        spread = max(float(null.std()), 1e-6)
    return np.where(quantile > _TAIL, np.maximum(inside, (scores - middle) / spread), inside)


def _density(places: Floats, mean: float = 0.0, deviation: float = 1.0) -> Floats:
    """The normal density; ``scipy.stats`` has it too, and takes half a second to import."""
    return np.exp(-(((places - mean) / deviation) ** 2) / 2) / np.sqrt(2 * np.pi) / deviation


def fit_two_groups(
    scores: Floats, null: Floats, most_spread: float, least_mean: float = 0.0
) -> TwoGroups | None:
    """Fit by expectation maximisation; ``None`` where there are too few scores.

    Args:
        scores: `[n]`, of pairs that may match.
        null: `[m]`, of pairs that cannot.
        most_spread: largest deviation of the matches over their mean, a property of the
            similarity: how unevenly it finds what is the same. Without a bound, matches as wide
            as that take the null itself for theirs.
        least_mean: matches lie at least here on average, on the scale on which the null is a
            standard normal: for finds that must be strong evidence.
    """
    if len(scores) < MIN_SCORES or len(null) < MIN_SCORES:
        return None
    null = np.sort(null)
    places = normal_scores(scores, null)
    prior = max(_PRIOR_MEAN, least_mean)
    null_share, mean, deviation = 0.5, prior, most_spread * prior
    density = _density(places)
    for _ in range(_ROUNDS):
        matched = (1 - null_share) * _density(places, mean, deviation)
        share = matched / np.maximum(matched + null_share * density, 1e-300)
        before, null_share = null_share, float(1 - share.mean())
        weight = share.sum() + _PRIOR_WEIGHT
        mean = max(float((share @ places + _PRIOR_WEIGHT * prior) / weight), least_mean)
        spread = (share @ (places - mean) ** 2 + _PRIOR_WEIGHT * deviation**2) / weight
        deviation = float(
            np.clip(np.sqrt(spread), _LEAST_DEVIATION, most_spread * max(mean, _USUAL_MEAN))
        )
        if abs(null_share - before) < 1e-6:
            break
    raw = TwoGroups(null, null_share, mean, deviation)
    # What the posteriors are cut to at either end must not change their sum.
    average = float(raw.posterior(scores).mean())
    return TwoGroups(
        null, null_share, mean, deviation, (1 - null_share) / average if average > 0 else 1.0
    )


def typical_two_groups(null: tuple[float, float], most_spread: float) -> TwoGroups:
    """What is taken where there are too few scores to fit: half of them matches.

    Args:
        null: mean and deviation of the null's scores.
        most_spread: see :func:`fit_two_groups`.
    """
    mean, deviation = null
    quantiles = mean + deviation * ndtri((np.arange(1000) + 0.5) / 1000)
    return TwoGroups(quantiles, 0.5, _PRIOR_MEAN, most_spread * _PRIOR_MEAN)
