"""How far reconstructions go along their own direction, and what one factor would mend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from nla_audit.stats import UNKNOWN, Floats, Interval, percentile_limits
from nla_audit.table.pairing import column, resampler


def projected(predicted: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Scalar products of rows `[n, d]`, both less the mean, and the lengths of ``predicted``."""
    return (predicted * targets).sum(axis=1), np.linalg.norm(predicted, axis=1)


def rescaled(products: Floats, squares: Floats, groups: ArrayLike) -> Floats:
    """For each row `[n]` the least-squares factor of the half of the groups that it is not in.

    NaN where there is one group only.
    """
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    half = number % 2
    factors = np.full(len(products), np.nan)
    for own in (0, 1):
        other = half != own
        if other.any() and squares[other].sum() > 0:
            factors[half == own] = products[other].sum() / squares[other].sum()
    return factors


def slope_of(rows: pl.DataFrame, x: str, y: str, seed: int) -> Interval:
    """Least-squares slope of ``y`` on ``x``, resampled by activation or document."""
    across, up = column(rows, x), column(rows, y)
    known = ~(np.isnan(across) | np.isnan(up))
    if known.sum() < 2 or np.ptp(across[known]) == 0:
        return replace(UNKNOWN, missing=int((~known).sum()))
    across, up = across[known] - across[known].mean(), up[known] - up[known].mean()
    columns = np.column_stack([across, up, across**2, across * up])

    def slope(means: Floats) -> Floats:
        mean_x, mean_y, square, product = np.moveaxis(means, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((product - mean_x * mean_y) / (square - mean_x**2))

    draws = slope(resampler(rows.filter(known), seed).mean_replicates(columns))
    return Interval(float(slope(columns.mean(axis=0))), *percentile_limits(draws), len(across))
