"""What is read off a curve of FVE by prefix, with its bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla_audit.analyzers._curves import Curve, Floats, mean_known
from nla_audit.stats import CONFIDENCE, Interval, or_none

#: FVE levels whose length is asked for, and the share of its own full FVE.
LEVELS = {"tokens_to_fve_0": 0.0, "tokens_to_fve_half": 0.5}
SHARE_OF_FULL = 0.8
TO_SHARE = "tokens_to_80_percent"
#: The numbers by which a curve is quoted.
HEADLINE = (*LEVELS, TO_SHARE, "area", "peak_fve", "peak_tokens", "full_fve", "full_tokens")
#: Parts in which the best length is chosen on the others.
_FOLDS = 5


def read_off(
    lengths: NDArray[np.int64], curves: Floats, full: Floats, mean_length: Floats
) -> dict[str, Floats]:
    """The numbers of :data:`HEADLINE` for mean curves ``[r, g]``, ``[r]`` each.

    NaN is *there is none*, infinity is *never reached*.

    Args:
        full: ``[r]`` mean FVE of whole texts.
        mean_length: ``[r]`` their mean length.
    """
    found = {name: first_length(lengths, curves, level) for name, level in LEVELS.items()}
    positive = np.where(full > 0, full, np.nan)
    found[TO_SHARE] = np.where(
        np.isnan(positive), np.nan, first_length(lengths, curves, SHARE_OF_FULL * positive)
    )
    found["area"] = area(lengths, curves, positive, mean_length)
    known = np.where(np.isnan(curves), -np.inf, curves)
    best = known.argmax(axis=1)
    found["peak_fve"] = known[np.arange(len(best)), best]
    found["peak_tokens"] = lengths[best].astype(np.float64)
    found["full_fve"] = full
    found["full_tokens"] = np.where(np.isnan(full), np.nan, float(lengths[-1]))
    return found


def first_length(lengths: NDArray[np.int64], curves: Floats, level: float | Floats) -> Floats:
    """The first of ``lengths`` at which each curve ``[r, g]`` is at ``level``; infinity: never."""
    with np.errstate(invalid="ignore"):
        reached = curves >= np.broadcast_to(np.asarray(level), (len(curves),))[:, None]
    return np.where(reached.any(axis=1), lengths[reached.argmax(axis=1)], np.inf)


def area(lengths: NDArray[np.int64], curves: Floats, full: Floats, mean_length: Floats) -> Floats:
    """Share of the full FVE that is there already, averaged over the tokens of a text, ``[r]``.

    The mean over 0 … ``mean_length`` of the curve, cut off below 0 (where a reader does better to
    guess the mean) and above the full FVE, divided by the full FVE. 1: the first token says it
    all; 0.5: each token says as much as any other; 0: nothing before the end. It is between 0 and
    1 for any model, and as the axis is the model's own mean length, long and short ones compare.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(curves / full[:, None], 0.0, 1.0)
    places = lengths.astype(np.float64)
    if places[0] > 0:  # no text at all: the mean is guessed
        places = np.concatenate([[0.0], places])
        share = np.hstack([np.zeros((len(share), 1)), share])
    known = ~np.isnan(share).all(axis=0)
    places, share = places[known], share[:, known]
    if len(places) == 0:
        return np.full(len(curves), np.nan)
    steps = np.diff(places) * (share[:, 1:] + share[:, :-1]) / 2
    so_far = np.hstack([np.zeros((len(share), 1)), steps.cumsum(axis=1)])
    last = np.clip(np.searchsorted(places, mean_length, side="right") - 1, 0, len(places) - 1)
    row = np.arange(len(share))
    after = np.minimum(last + 1, len(places) - 1)
    width = np.where(after > last, places[after] - places[last], 1.0)
    rest = mean_length - places[last]
    slope = (share[row, after] - share[row, last]) / width
    total = so_far[row, last] + rest * (share[row, last] + slope * rest / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(mean_length > 0, total / mean_length, np.nan))


@dataclass(frozen=True)
class Numbers:
    """What is read off one curve.

    Attributes:
        values: the numbers of :data:`HEADLINE`; ``None`` is never reached, or there is none.
        limits: name → 95 % limits; ``None`` where there is no interval, or where it has no end.
        reached: name of a length → share of the bootstrap's curves that reach it.
        fve: interval of the mean at each length.
        draws: name → value in each replicate, to compare with another model's.
    """

    values: dict[str, float | None]
    limits: dict[str, tuple[float, float] | None]
    reached: dict[str, float]
    fve: list[Interval]
    draws: dict[str, Floats]


def numbers_of(curve: Curve, seed: int) -> Numbers:
    """Estimates and intervals; for means there are no intervals."""
    mean_length = np.array([curve.mean_length()])
    full = mean_known(curve.full[:, None])
    mean = curve.mean()
    estimate = read_off(curve.lengths, mean[None, :], full, mean_length)
    values = {name: or_none(float(found[0])) for name, found in estimate.items()}
    if curve.is_means:
        points = [Interval(float(value), np.nan, np.nan, curve.texts) for value in mean]
        return Numbers(values, dict.fromkeys(values), {}, points, {})
    draw = curve.resampler(seed)
    columns = np.column_stack([curve.values, curve.full, curve.whole])
    drawn = draw.mean_replicates(columns)
    points = []
    for place, value in enumerate(mean):
        low, high = _limits(drawn[:, place])
        known = int((~np.isnan(curve.values[:, place])).sum())
        points.append(Interval(float(value), low, high, known, len(curve.values) - known))
    if len(drawn) == 0:
        return Numbers(values, dict.fromkeys(values), {}, points, {})
    draws = read_off(curve.lengths, drawn[:, :-2], drawn[:, -2], drawn[:, -1])
    limits = {name: _ends(_limits(found)) for name, found in draws.items()}
    limits["full_tokens"] = None  # the longest text of a table: resampling knows no longer one
    limits["peak_fve"] = _peak_limits(draws["peak_fve"], values["peak_fve"])
    reached = {name: float(np.isfinite(draws[name]).mean()) for name in (*LEVELS, TO_SHARE)}
    return Numbers(values, limits, reached, points, draws)


def _peak_limits(draws: Floats, value: float | None) -> tuple[float, float] | None:
    """Limits of the best mean, without what choosing it adds.

    The best of many means is better than it should be, and the best of a replicate is better than
    that by as much again, which is how the excess is known.
    """
    ends = _ends(_limits(draws))
    if ends is None or value is None:
        return None
    excess = max(float(draws[np.isfinite(draws)].mean()) - value, 0.0)
    return ends[0] - 2 * excess, ends[1] - 2 * excess


def _limits(draws: Floats) -> tuple[float, float]:
    """The 95 % percentile limits, each one of the draws; infinity is among them, NaN is not."""
    known = np.sort(draws[~np.isnan(draws)])
    if len(known) == 0:
        return np.nan, np.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = int(np.floor(tail * (len(known) - 1))), int(np.ceil((1 - tail) * (len(known) - 1)))
    return float(known[low]), float(known[high])


def _ends(limits: tuple[float, float]) -> tuple[float, float] | None:
    return limits if np.isfinite(limits).all() else None


def after_the_peak(curve: Curve, seed: int) -> tuple[Interval, Floats]:
    """FVE lost by reading on from the best length to the end, and by activation ``[a]``.

    The best length is chosen on other activations than those it is tried on (in five parts, by
    document where it is known): chosen on the same ones, any curve would fall behind its peak.
    Means are taken as they are.
    """
    if curve.is_means:
        loss = float(np.nanmax(curve.values) - curve.values[0, -1])
        return Interval(loss, np.nan, np.nan, curve.texts), np.array([])
    names, codes = np.unique(curve.clusters, return_inverse=True)
    part = np.random.default_rng([seed, 17]).permutation(len(names)) % _FOLDS
    fold = part[codes]
    lost = np.full(len(curve.values), np.nan)
    for number in range(_FOLDS):
        here = fold == number
        others = curve.values[~here]
        if not here.any() or len(others) == 0:
            continue
        mean = mean_known(others)
        if np.isnan(mean).all():
            continue
        best = int(np.nanargmax(mean))
        lost[here] = curve.values[here, best] - curve.full[here]
    return curve.resampler(seed).mean(lost), lost
