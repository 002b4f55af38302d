"""Retention: how much of what an explanation carries survives a change of its text.

``(FVE(changed) − floor) / (FVE(unchanged) − floor)`` over the activations that have all three
scores, where the floor is the FVE of another activation's explanation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from nla_audit.analyzers._stego_scores import FLOOR, UNCHANGED
from nla_audit.stats import MIN_CLUSTERS, Interval, Resampler

Floats = np.ndarray


@dataclass(frozen=True)
class Retention:
    """Retention of one variant under one AR.

    Attributes:
        interval: with its bootstrap limits (NaN below the smallest n, or from means alone).
        fve: mean FVE of the variant over the activations used.
        influence: cluster → its share in the estimate's error; the sandwich variance is the sum
            of squares (Liang & Zeger 1986). Lets two retentions be compared that share
            activations, whether all or some.
    """

    interval: Interval
    fve: float
    influence: dict[str, float]

    @property
    def standard_error(self) -> float:
        """NaN where there is no interval."""
        return _root_of_squares(self.influence) if np.isfinite(self.interval.low) else np.nan


@dataclass(frozen=True)
class Effect:
    """A loss or a difference of losses, with the one-sided p-value of its being above zero."""

    value: float
    low: float
    high: float
    standard_error: float
    p_value: float


def signal(columns: dict[str, Floats], clusters: Floats, seed: int) -> Interval:
    """Mean FVE of the unchanged texts above the floor."""
    return Resampler(clusters, seed=seed).mean(columns[UNCHANGED] - columns[FLOOR])


def retention(
    columns: dict[str, Floats], clusters: Floats, variant: str, seed: int
) -> Retention | None:
    """Retention of ``variant``, ``None`` where no activation has all three scores.

    Args:
        columns: variant → ``[n]`` FVE, NaN where missing.
        clusters: ``[n]``.
    """
    changed = columns[variant] - columns[FLOOR]
    whole = columns[UNCHANGED] - columns[FLOOR]
    known = ~(np.isnan(changed) | np.isnan(whole))
    if not known.any() or whole[known].sum() == 0:
        return None
    interval = Resampler(clusters, seed=seed).ratio(
        np.where(known, changed, np.nan), np.where(known, whole, np.nan)
    )
    residual = (changed - interval.value * whole)[known] / whole[known].sum()
    labels, codes = np.unique(clusters[known].astype(str), return_inverse=True)
    sums = np.bincount(codes, weights=residual, minlength=len(labels))
    enough = len(labels) >= MIN_CLUSTERS
    return Retention(
        interval,
        float(columns[variant][known].mean()),
        dict(zip(labels.tolist(), sums.tolist(), strict=True)) if enough else {},
    )


def loss(kept: Retention) -> Effect:
    """1 − retention."""
    value = 1 - kept.interval.value
    limits = (1 - kept.interval.high, 1 - kept.interval.low)
    return _effect(value, limits, kept.standard_error)


def excess(own: Retention, control: Retention) -> Effect:
    """How much more is lost under ``own`` than under ``control``, paired by activation."""
    value = control.interval.value - own.interval.value
    if not (own.influence and control.influence):
        return _effect(value, (np.nan, np.nan), np.nan)
    keys = own.influence.keys() | control.influence.keys()
    difference = {
        key: control.influence.get(key, 0.0) - own.influence.get(key, 0.0) for key in keys
    }
    error = _root_of_squares(difference)
    return _effect(value, (value - 1.96 * error, value + 1.96 * error), error)


def _effect(value: float, limits: tuple[float, float], error: float) -> Effect:
    if not np.isfinite(error):
        return Effect(value, *limits, np.nan, np.nan)
    if error == 0:  # a change that changes no text
        return Effect(value, *limits, 0.0, 0.0 if value > 0 else 1.0)
    return Effect(value, *limits, error, float(ndtr(-value / error)))


def _root_of_squares(influence: dict[str, float]) -> float:
    return float(np.sqrt(np.sum(np.square(np.sort(list(influence.values()))))))
