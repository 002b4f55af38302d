"""Retention: how much of what an explanation carries survives a change of its text.

``(FVE(changed) − floor) / (FVE(unchanged) − floor)`` over the activations that have all the
scores. There are two floors: the FVE of another activation's explanation, which also misleads,
and FVE 0, where the AR would know nothing (:data:`Floor`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from nla_audit.probes.stego.scores import ANOTHER, UNCHANGED
from nla_audit.stats import MIN_CLUSTERS, Interval, Resampler

Floats = np.ndarray
#: The name of a floor.
Floor = str
MEASURED: Floor = "another activation's text"
ZERO: Floor = "FVE 0"


def floor_of(columns: dict[str, Floats], floor: Floor) -> Floats | None:
    """``[n]`` FVE at ``floor``; ``None`` where nobody measured it."""
    if floor == ZERO:
        return np.zeros_like(columns[UNCHANGED])
    return columns.get(ANOTHER)


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


def signal(
    columns: dict[str, Floats], clusters: Floats, seed: int, floor: Floor = MEASURED
) -> Interval:
    """Mean FVE of the unchanged texts above ``floor``, which the columns must have."""
    level = floor_of(columns, floor)
    assert level is not None
    return Resampler(clusters, seed=seed).mean(columns[UNCHANGED] - level)


def mean_above(columns: dict[str, Floats], clusters: Floats, floor: Floor) -> tuple[float, float]:
    """As :func:`signal`, with a standard error (NaN with too few clusters) and no bootstrap."""
    level = floor_of(columns, floor)
    assert level is not None
    carried = columns[UNCHANGED] - level
    known = ~np.isnan(carried)
    if not known.any():
        return float("nan"), float("nan")
    mean = float(carried[known].mean())
    shares = _by_cluster((carried[known] - mean) / known.sum(), clusters[known])
    return mean, _root_of_squares(shares) if len(shares) >= MIN_CLUSTERS else float("nan")


def retention(
    columns: dict[str, Floats],
    clusters: Floats,
    variant: str,
    seed: int,
    floor: Floor = MEASURED,
) -> Retention | None:
    """Retention of ``variant``; ``None`` where no activation has all the scores.

    Also where the activations that have them carry nothing.

    Args:
        columns: variant → ``[n]`` FVE, NaN where missing; with the floor.
        clusters: ``[n]``.
        variant: one of the columns.
        seed: of the interval.
        floor: what counts as nothing.
    """
    level = floor_of(columns, floor)
    assert level is not None
    changed = columns[variant] - level
    whole = columns[UNCHANGED] - level
    known = ~(np.isnan(changed) | np.isnan(whole))
    if not known.any() or whole[known].sum() <= 0:
        return None
    interval = Resampler(clusters, seed=seed).ratio(
        np.where(known, changed, np.nan), np.where(known, whole, np.nan)
    )
    residual = (changed - interval.value * whole)[known] / whole[known].sum()
    shares = _by_cluster(residual, clusters[known])
    return Retention(
        interval,
        float(columns[variant][known].mean()),
        shares if len(shares) >= MIN_CLUSTERS else {},
    )


def _by_cluster(residual: Floats, clusters: Floats) -> dict[str, float]:
    labels, codes = np.unique(clusters.astype(str), return_inverse=True)
    sums = np.bincount(codes, weights=residual, minlength=len(labels))
    return dict(zip(labels.tolist(), sums.tolist(), strict=True))


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
