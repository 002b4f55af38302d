"""A space in which activations vary alike in every direction, fitted on other documents' ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.stats import Floats
from nla_audit.wording import count

FOLDS = 5


@dataclass(frozen=True)
class Whitening:
    """The inverse of a covariance's Cholesky factor.

    Attributes:
        mean: `[d_model]`.
        factor: `[d_model, d_model]`, lower triangular; times its transpose the covariance.
        shrinkage: how much of the covariance is a multiple of the identity, from 0 to 1.
        fitted: activations it was estimated from.
    """

    mean: Floats
    factor: Floats
    shrinkage: float
    fitted: int

    def __call__(self, vectors: Floats) -> Floats:
        """`[n, d_model]` less the mean, in the whitened space."""
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self.factor, (vectors - self.mean).T, lower=True).T)


def fit(vectors: Floats) -> Whitening:
    """Whitening by the covariance of `[n, d_model]`, shrunk as Ledoit and Wolf (2004) do.

    Shrinking makes it invertible with fewer activations than dimensions.

    Raises:
        UserError: the activations do not differ.
    """
    from sklearn.covariance import LedoitWolf  # slow to import

    found = LedoitWolf().fit(vectors)
    try:
        factor = np.linalg.cholesky(found.covariance_)
    except np.linalg.LinAlgError:
        raise UserError(
            f"whitened: {count(len(vectors), 'activation')} that a covariance is fitted on do not "
            "differ: give activations of other texts, or extract them again"
        ) from None
    return Whitening(found.location_, factor, float(found.shrinkage_), len(vectors))


def cross_fitted(
    vectors: Floats, documents: NDArray[np.int64], share: float, seed: int
) -> Iterator[tuple[NDArray[np.bool_], Whitening]]:
    """For each fifth of the documents, which rows it holds and the whitening of the others.

    Args:
        vectors: `[m, d_model]`; rows with NaN are left out.
        documents: `[m]`, numbers from 0.
        share: of the other documents' activations, drawn at random, that is used.
    """
    usable = np.isfinite(vectors).all(axis=1)
    folds = documents % FOLDS
    generator = np.random.default_rng([seed, 16])
    for fold in range(FOLDS):
        others = np.flatnonzero(usable & (folds != fold))
        own = usable & (folds == fold)
        if len(others) < 2 or not own.any():
            continue
        some = generator.permutation(others)[: max(2, round(share * len(others)))]
        yield own, fit(vectors[np.sort(some)])
