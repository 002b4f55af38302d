"""Which scores are beyond the null, and how likely is each: a two-groups model.

Scores of pairs that may belong together are a mixture of the null (scores of pairs that cannot:
texts of different activations) and of matches. The null is known from as many pairs as wanted, so
only the share of matches and where they lie are fitted (Efron 2008, "Microarrays, empirical Bayes
and the two-groups model"). On the scale on which the null is a standard normal, matches lie around
places above its middle: one sentence is copied and the next one put in other words, so any smooth
distribution of places is allowed (deconvolution, Efron 2016, "Empirical Bayes deconvolution
estimates"; smoothed expectation maximisation, Silverman et al. 1990, "A smoothed EM approach to
indirect estimation problems"). A single normal for all matches was tried, and takes wordings that
share few words for nothing where others are copies. Estimators that take every score inside the
null for null (Storey 2002) miss matches that look like it: a sixth of all paraphrases, by words
alone. Matches that lie closer together than the smoothing allows, as only texts made by rule did,
are counted too high, by an eighth at most; those that straddle the null too low.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Fewer scores than this, of either sort, and nothing is fitted.
MIN_SCORES = 20
_ROUNDS = 300
#: Matches lie around this place at the least, on the scale on which the null is standard normal:
#: around lower ones they cannot be told from it.
LEAST_PLACE = 0.5
#: How far (standard deviation) matches lie from their places: less than the null from its middle,
#: for it is made of all sorts of pairs.
_AROUND = 0.9
#: Places are told apart in such steps, up to here; scores beyond count as if they were here.
_STEP, _FARTHEST = 0.25, 16.0
#: Width (standard deviation) over which the distribution of places is smoothed.
_SMOOTH = 0.75
#: Where matches are looked for first (mean and deviation), with the weight of so many scores.
_USUAL, _USUAL_WEIGHT = (2.5, 1.5), 5.0
#: Scores closer together than this are fitted as one.
_BIN = 0.05
#: Where a posterior is worked out; a score of the null lies no lower.
_CURVE = np.arange(-5.0, _FARTHEST + _BIN, _BIN)
#: Beyond this place, on the scale on which the null is standard normal, nearly nothing is null.
_CLOSE = 2.5
#: Ranks in the null are used up to here; beyond, deviations from its middle.
_TAIL = 0.975


@dataclass(frozen=True)
class TwoGroups:
    """A fitted mixture.

    Attributes:
        null: `[n]`, the null's scores, sorted.
        null_share: share of the fitted scores that are null.
        places: `[k]`, around which matches lie, on the scale on which the null is standard normal,
            and
        shares: `[k]`, which share of the matches around each; they sum to one.
        shift: how far the null among the fitted scores is taken to lie below the measured one.
    """

    null: Floats
    null_share: float
    places: Floats
    shares: Floats
    shift: float = 0.0

    @property
    def mean(self) -> float:
        """Where matches lie on average, on the scale on which the null is standard normal."""
        return float(self.places @ self.shares)

    @property
    def close(self) -> float:
        """The share of the matches that lie no further out than the null's own last ones."""
        return _close(self.places, self.shares)

    def posterior(self, scores: Floats) -> Floats:
        """The probability that each score is a match's; it never falls as scores rise."""
        if len(scores) == 0:
            return np.zeros(0)
        matched = (1 - self.null_share) * (
            _density(_CURVE[:, None], self.places, _AROUND) @ self.shares
        )
        by_null = self.null_share * _density(_CURVE, -self.shift)
        # Matches that lie close together would be less likely again beyond all of them.
        share = matched / np.maximum(matched + by_null, 1e-300)
        rising = np.minimum(np.maximum.accumulate(share), 1.0)
        return np.interp(normal_scores(scores, self.null), _CURVE, rising)


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


def _density(places: Floats, mean: Floats | float = 0.0, deviation: float = 1.0) -> Floats:
    """The normal density; ``scipy.stats`` has it too, and takes half a second to import."""
    return np.exp(-(((places - mean) / deviation) ** 2) / 2) / np.sqrt(2 * np.pi) / deviation


def _close(places: Floats, shares: Floats) -> float:
    return float(ndtr((_CLOSE - places) / _AROUND) @ shares)


def _usual(least: float) -> tuple[Floats, Floats]:
    """`[k]`: the places that are told apart, and how usual each is."""
    places = np.arange(least, _FARTHEST + _STEP / 2, _STEP)
    usual = _density(places, max(_USUAL[0], least), _USUAL[1])
    return places, usual / usual.sum()


def fit_two_groups(
    scores: Floats,
    null: Floats,
    least_place: float = LEAST_PLACE,
    *,
    crowding: float = 0.0,
) -> TwoGroups | None:
    """Fit by smoothed expectation maximisation; ``None`` where there are too few scores.

    Args:
        scores: `[n]`, of pairs that may match.
        null: `[m]`, of pairs that cannot.
        least_place: matches lie around this place at the least, on the scale on which the null is
            a standard normal; higher for finds that must be strong evidence.
        crowding: so far below the measured null, on its scale, what does not match is taken to lie
            where all else matches, far from the null; less, in proportion, where less does.
    """
    if len(scores) < MIN_SCORES or len(null) < MIN_SCORES:
        return None
    null = np.sort(null)
    found = np.minimum(normal_scores(scores, null), _FARTHEST)
    found, counts = np.unique(np.rint(found / _BIN), return_counts=True)
    places, usual = _usual(least_place)
    found = found * _BIN
    # `[found, k]`: the density around each place.
    around = _density(found[:, None], places, _AROUND)
    smooth = _density(places[:, None], places, _SMOOTH)
    smooth /= smooth.sum(axis=0)
    shift = 0.0
    by_null = _density(found)[:, None]
    null_share, shares = _fitted(np.hstack([by_null, around]), counts, usual, smooth)
    if crowding:
        # By the share that matches without it: if it followed its own share, it would run away. Nor
        # can it be told from matches that lie close.
        shift = crowding * (1 - null_share) * (1 - _close(places, shares)) ** 2
        by_null = _density(found, -shift)[:, None]
        null_share, shares = _fitted(np.hstack([by_null, around]), counts, usual, smooth)
    return TwoGroups(null, null_share, places, shares, shift)


def _fitted(
    density: Floats, counts: Integers, usual: Floats, smooth: Floats
) -> tuple[float, Floats]:
    """The share of the null, and of the matches around each place.

    Args:
        density: `[found, 1 + k]`, of the null, and around each place.
        counts: `[found]`, how many scores lie there.
        smooth: `[k, k]`, over which shares are smoothed.
    """
    null_share, shares = 0.5, usual
    for _ in range(_ROUNDS):
        likely = density * np.concatenate([[null_share], (1 - null_share) * shares])
        likely *= (counts / np.maximum(likely.sum(axis=1), 1e-300))[:, None]
        expected = likely.sum(axis=0)
        before, null_share = null_share, float(expected[0] / counts.sum())
        shares = smooth @ (expected[1:] + _USUAL_WEIGHT * usual)
        shares /= shares.sum()
        if abs(null_share - before) < 1e-6:
            break
    return null_share, shares


def typical_two_groups(null: tuple[float, float]) -> TwoGroups:
    """What is taken where there are too few scores to fit: half of them matches.

    Args:
        null: mean and deviation of the null's scores.
    """
    mean, deviation = null
    quantiles = mean + deviation * ndtri((np.arange(1000) + 0.5) / 1000)
    return TwoGroups(quantiles, 0.5, *_usual(LEAST_PLACE))
