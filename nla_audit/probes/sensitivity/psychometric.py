"""From shares by strength to a threshold: the psychometric function, and its interval.

``named(s) = guess + (1 − guess − lapse) · F(s)``, ``F(s) = 1 / (1 + (scale / s)^slope)``: a
log-logistic curve, which is 0 where nothing is planted. The guess rate is then what is named by
chance, and the lapse rate what is never named however strong it is (Wichmann & Hill 2001, "The
psychometric function: I"). All four are fitted by maximum likelihood.

The threshold α50 is the strength at which half of the explanations that would not name the
concept by chance do name it: ``(named(α50) − guess) / (1 − guess) = ½``. Where lapses are
frequent that is not the middle of the curve: a model that names a concept in one of five
explanations at most has no α50.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nla_audit.stats import MIN_CLUSTERS, REPLICATES, percentile_limits

Floats = NDArray[np.float64]

#: Half of what is not named by chance.
HALF = 0.5
#: Limits of log slope; a curve steeper than these strengths can show is as good as a step.
_LOG_SLOPES = (np.log(0.5), np.log(20.0))
#: Limits of guess and lapse rate. A model that lapses more often reaches no α50.
_MOST_GUESSED = _MOST_LAPSED = 0.5
#: The scale may lie this far outside of the ladder, as a factor.
_BEYOND = 100.0
#: Keeps logarithms finite where a share of exactly 0 or 1 is predicted.
_TINY = 1e-9
_PARAMETERS = 4
#: Steps of the search at most, and how short the last one is.
_STEPS, _CLOSE = 100, 1e-4
#: Factor by which the damping falls after a step that helped, and rises after one that did not.
_DAMPING = 4.0
#: Fewer planted strengths cannot tell a slope from a lapse.
MIN_STRENGTHS = 3

BELOW, BEYOND, CANNOT_TELL = "below the ladder", "beyond the ladder", "cannot tell"


@dataclass(frozen=True)
class Curves:
    """Fitted psychometric functions, one for each row of counts; ``[rows]`` each."""

    guess: Floats
    lapse: Floats
    scale: Floats
    slope: Floats

    def share(self, strengths: Floats) -> Floats:
        """``[rows, strengths]`` predicted shares."""
        logit = _logit_of(strengths, np.log(self.scale), self.slope)
        return _mix(_sigmoid(logit), self.guess, self.lapse)

    def alpha50(self) -> Floats:
        """``[rows]`` thresholds; infinite where half is never named."""
        reach = (1 - self.guess - self.lapse) / (1 - self.guess)
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = HALF / (reach - HALF)
            found = self.scale * odds ** (1 / self.slope)
        return np.where(reach > HALF, found, np.inf)


@dataclass(frozen=True)
class Threshold:
    """α50 with its 95 % interval, as shares of the activation's norm.

    Attributes:
        value: ``None`` where ``reason`` says why there is none.
        low, high: ``None`` at a side that the ladder does not bound.
        guess, lapse, slope: of the fitted curve, NaN where nothing was fitted.
        reason: why there is no value; or an empty text.
        draws: ``[replicates]`` of the bootstrap, clipped to the ladder.
    """

    value: float | None
    low: float | None
    high: float | None
    guess: float
    lapse: float
    slope: float
    reason: str
    draws: Floats

    def told(self) -> str:
        """In words: ``"21% [17%, 26%]"``, or why not."""
        if self.reason == CANNOT_TELL:
            return CANNOT_TELL
        low = BELOW if self.low is None else _percent(self.low)
        high = BEYOND if self.high is None else _percent(self.high)
        value = self.reason if self.value is None else _percent(self.value)
        return f"{value} [{low}, {high}]"


def _percent(strength: float) -> str:
    return f"{100 * strength:.3g}%"


def fit(strengths: Floats, named: Floats, asked: Floats) -> Curves:
    """Maximum likelihood for every row of counts at once.

    By Fisher scoring with Levenberg and Marquardt's damping, in which each row has steps of its
    own: a bootstrap fits a thousand tables of a few numbers, for which a general optimiser, called
    for each, takes a hundred times as long (the tests hold it against one).

    Args:
        strengths: ``[strengths]``, 0 among them where unplanted texts are known.
        named: ``[rows, strengths]`` explanations that name the concept.
        asked: ``[rows, strengths]`` explanations.
    """
    planted = strengths[strengths > 0]
    lowest, highest = np.array(
        [
            (np.log(planted.min() / _BEYOND), np.log(planted.max() * _BEYOND)),
            _LOG_SLOPES,
            (0.0, _MOST_GUESSED),
            (0.0, _MOST_LAPSED),
        ]
    ).T
    at = _start(strengths, named, asked)
    damping = np.ones(len(named))
    fitness = _log_likelihood(strengths, at, named, asked)
    left = np.arange(len(named))
    for _ in range(_STEPS):
        here, told, of = at[left], named[left], asked[left]
        gradient, information = _derivatives(strengths, here, told, of)
        # A parameter at a limit that its likelihood pushes outwards stays there.
        stuck = ((here <= lowest) & (gradient < 0)) | ((here >= highest) & (gradient > 0))
        gradient = np.where(stuck, 0.0, gradient)
        information = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, information)
        scale = damping[left, None] * (np.einsum("rii->ri", information) + _TINY)
        damped = information + np.eye(_PARAMETERS) * scale[:, None, :]
        step = np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
        tried = np.clip(here + step, lowest, highest)
        reached = _log_likelihood(strengths, tried, told, of)
        is_better = reached >= fitness[left]
        at[left] = np.where(is_better[:, None], tried, here)
        fitness[left] = np.where(is_better, reached, fitness[left])
        damping[left] *= np.where(is_better, 1 / _DAMPING, _DAMPING)
        left = left[np.abs(tried - here).max(axis=1) > _CLOSE]
        if len(left) == 0:
            break
    log_scale, log_slope, guess, lapse = at.T
    return Curves(guess, lapse, np.exp(log_scale), np.exp(log_slope))


def _log_likelihood(strengths: Floats, at: Floats, named: Floats, asked: Floats) -> Floats:
    p = np.clip(_predicted(strengths, at)[0], _TINY, 1 - _TINY)
    return np.asarray((named * np.log(p) + (asked - named) * np.log1p(-p)).sum(axis=1))


def _derivatives(
    strengths: Floats, at: Floats, named: Floats, asked: Floats
) -> tuple[Floats, Floats]:
    """Gradient ``[rows, 4]`` of the log-likelihood, and Fisher's information ``[rows, 4, 4]``."""
    p, reached, logit = _predicted(strengths, at)
    p = np.clip(p, _TINY, 1 - _TINY)
    slope, (_, _, guess, lapse) = np.exp(at[:, 1]), at.T
    by_logit = (1 - guess - lapse)[:, None] * reached * (1 - reached)
    by_parameter = np.stack(
        [
            -by_logit * slope[:, None],
            # The logit is slope · (log s − log scale); where nothing is planted it is −∞, and F 0.
            by_logit * np.where(np.isfinite(logit), logit, 0.0),
            1 - reached,
            -reached,
        ],
        axis=1,
    )
    precision = 1 / (p * (1 - p))
    gradient = np.einsum("rps,rs->rp", by_parameter, (named - asked * p) * precision)
    information = np.einsum(
        "rps,rqs,rs->rpq", by_parameter, by_parameter, asked * precision, optimize=True
    )
    return gradient, information


def _predicted(strengths: Floats, at: Floats) -> tuple[Floats, Floats, Floats]:
    """Shares, F and its logit, ``[rows, strengths]`` each, at parameters ``[rows, 4]``."""
    log_scale, log_slope, guess, lapse = at.T
    logit = _logit_of(strengths, log_scale, np.exp(log_slope))
    reached = _sigmoid(logit)
    return _mix(reached, guess, lapse), reached, logit


def threshold(
    strengths: Floats,
    named: Floats,
    clusters: NDArray[np.generic],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Threshold:
    """α50 of one model, with an interval by resampling activations.

    Args:
        strengths: ``[strengths]`` ascending, the first of them 0.
        named: ``[activations, strengths]`` 1 or 0, or a share of samples; NaN is missing.
        clusters: ``[activations]`` labels; those with one label are drawn together.
        seed: of the bootstrap.
        replicates: of it.
    """
    known = ~np.isnan(named)
    labels, codes = np.unique(clusters, return_inverse=True)
    planted = strengths[strengths > 0]
    nothing = Threshold(
        None, None, None, np.nan, np.nan, np.nan, CANNOT_TELL, np.full(replicates, np.nan)
    )
    enough = (known.sum(axis=0) > 0).all() and len(planted) >= MIN_STRENGTHS
    if not enough or len(labels) < MIN_CLUSTERS:
        return nothing
    # Named by chance more often than a guess rate can be: no curve of this form.
    if np.nanmean(named[:, 0]) > _MOST_GUESSED:
        return nothing
    top = _by_cluster(np.where(known, named, 0.0), codes, len(labels))
    bottom = _by_cluster(known.astype(np.float64), codes, len(labels))
    drawn = np.random.default_rng([seed, len(labels)]).multinomial(
        len(labels), np.full(len(labels), 1 / len(labels)), size=replicates
    )
    counts = np.vstack([np.ones(len(labels)), drawn])  # the first row is the table itself
    curves = fit(strengths, counts @ top, counts @ bottom)
    alpha = curves.alpha50()
    least, most = planted.min(), planted.max()
    draws = np.clip(alpha[1:], least, most)
    low, high = percentile_limits(draws)
    if low <= least and high >= most:  # this sample bounds it on neither side
        return replace(nothing, draws=draws)
    value = float(alpha[0])
    reason = BEYOND if value > most else BELOW if value < least else ""
    return Threshold(
        value=None if reason else value,
        low=None if low <= least else low,
        high=None if high >= most else high,
        guess=float(curves.guess[0]),
        lapse=float(curves.lapse[0]),
        slope=float(curves.slope[0]),
        reason=reason,
        draws=draws,
    )


def _start(strengths: Floats, named: Floats, asked: Floats) -> Floats:
    """``[rows, 4]``: where the search begins, read off the shares themselves."""
    shares = (named + 0.25) / (asked + 0.5)
    order = np.argsort(strengths)
    ladder, shares = strengths[order], shares[:, order]
    guess = np.clip(shares[:, 0], 0.01, _MOST_GUESSED - 0.01)
    lapse = np.clip(1 - shares[:, -1], 0.02, _MOST_LAPSED - 0.02)
    middle = (guess + 1 - lapse) / 2
    # The first strength at which the shares pass the middle; where none does, the last.
    passed = shares >= middle[:, None]
    place = np.where(passed.any(axis=1), passed.argmax(axis=1), len(ladder) - 1)
    scale = np.maximum(ladder[np.maximum(place, 1)], ladder[ladder > 0].min())
    return np.stack([np.log(scale), np.full(len(named), np.log(2.0)), guess, lapse], axis=1)


def _by_cluster(values: Floats, codes: NDArray[np.int64], groups: int) -> Floats:
    sums = np.zeros((groups, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums


def _logit_of(strengths: Floats, log_scale: Floats, slope: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return slope[:, None] * (np.log(strengths)[None, :] - log_scale[:, None])


def _sigmoid(logit: Floats) -> Floats:
    from scipy.special import expit  # slow to import

    return np.asarray(expit(logit))


def _mix(reached: Floats, guess: Floats, lapse: Floats) -> Floats:
    return guess[:, None] + (1 - guess - lapse)[:, None] * reached
