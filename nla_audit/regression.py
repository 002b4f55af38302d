"""A linear regression whose errors allow for clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nla_audit.stats import MIN_CLUSTERS, Floats


@dataclass(frozen=True)
class Regression:
    """Coefficients of a linear regression with cluster-robust standard errors, `[p]` each."""

    coefficient: Floats
    standard_error: Floats
    p_value: Floats
    n: int


def clustered_regression(outcome: Floats, features: Floats, clusters: ArrayLike) -> Regression:
    """Least squares with the cluster sandwich variance (Liang & Zeger 1986, CR1).

    Args:
        outcome: `[n]`.
        features: `[n, p]`, an intercept included if one is wanted.
        clusters: `[n]` labels; errors within one label may be correlated.

    Features that never vary get NaN.
    """
    from scipy.special import ndtr  # keeps the import of this module light

    labels, codes = np.unique(np.asarray(clusters), return_inverse=True)
    n, p = features.shape
    usable = np.flatnonzero(np.abs(features).sum(axis=0) > 0)
    coefficient = np.full(p, np.nan)
    error = np.full(p, np.nan)
    if n <= len(usable) + 1 or len(labels) < MIN_CLUSTERS:
        return Regression(coefficient, error, np.full(p, np.nan), n)
    used = features[:, usable]
    bread = np.linalg.pinv(used.T @ used)
    estimate = bread @ (used.T @ outcome)
    scores = used * (outcome - used @ estimate)[:, None]
    by_cluster = np.zeros((len(labels), len(usable)))
    np.add.at(by_cluster, codes, scores)
    groups = len(labels)
    correction = groups / (groups - 1) * (n - 1) / max(n - len(usable), 1)
    variance = correction * bread @ (by_cluster.T @ by_cluster) @ bread
    coefficient[usable] = estimate
    error[usable] = np.sqrt(np.maximum(np.diag(variance), 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = 2 * ndtr(-np.abs(coefficient / error))
    return Regression(coefficient, error, np.asarray(p_value), n)
