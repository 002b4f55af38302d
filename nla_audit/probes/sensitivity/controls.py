"""Directions that are no concept, planted as the concept is: what any disturbance brings back.

Each control consists of many directions, each planted into some of the activations: the concept
is one direction, and is to be compared with how directions differ, not with their mean alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nla_audit.nla.fve import scaled

Floats = NDArray[np.float64]

#: What is planted: the concept; random directions, all equally likely; random ones that have as
#: large a share of the variance of activations as the concept; another concept.
CONCEPT, RANDOM, VARIANCE, OTHER = "concept", "random", "variance", "other"
KINDS = (CONCEPT, RANDOM, VARIANCE, OTHER)
#: Directions of a random control. A concept that is one of them by chance is above all others in
#: one of twenty-one studies.
DIRECTIONS = 20
#: Powers of the covariance that are tried; at this one only the widest direction is left.
_HIGHEST_POWER = 8.0
_HALVINGS = 40


def random_directions(concept: Floats, number: int, seed: int) -> Floats:
    """``[number, d_model]`` unit vectors, uniform over those at a right angle to ``concept``."""
    drawn = np.random.default_rng([seed, 0]).normal(size=(number, len(concept)))
    return _apart(drawn, concept)


def variance_directions(
    concept: Floats, vectors: Floats, number: int, seed: int
) -> tuple[Floats, float]:
    """Random directions with about the concept's share of the variance of activations.

    They are drawn from a normal distribution whose covariance is a power of that of the
    activations; the power is chosen so that they have the concept's share on average. At power 0
    all directions are alike, at 1 they are as activations are.

    Args:
        concept: ``[d_model]`` of length 1.
        vectors: ``[n, d_model]`` activations.
        number: of directions.
        seed: of the draw.

    Returns:
        ``[number, d_model]`` unit vectors at a right angle to ``concept``, and the concept's share.
    """
    share = variance_share(concept, vectors)
    variances, axes = _spectrum(vectors)
    generator = np.random.default_rng([seed, 1])
    power = _power_with(share, variances, len(concept))
    if power == 0.0:
        drawn = generator.normal(size=(number, len(concept)))
    else:
        drawn = generator.normal(size=(number, len(variances))) * variances ** (power / 2) @ axes
    return _apart(drawn, concept), share


def variance_share(direction: Floats, vectors: Floats) -> float:
    """Share of the variance of activations at length 1 that lies along a unit ``direction``."""
    directions = scaled(vectors, 1.0)
    centred = directions - directions.mean(axis=0)
    total = float((centred**2).sum())
    return float(((centred @ direction) ** 2).sum()) / total if total > 0 else 0.0


def at_right_angle(vector: Floats, concept: Floats) -> Floats:
    """``vector`` without its component along ``concept``, at length 1."""
    return _apart(vector[None], concept)[0]


def _spectrum(vectors: Floats) -> tuple[Floats, Floats]:
    """Variances ``[rank]`` along the principal axes ``[rank, d_model]``, the largest of them 1."""
    directions = scaled(vectors, 1.0)
    _, lengths, axes = np.linalg.svd(directions - directions.mean(axis=0), full_matrices=False)
    kept = lengths > lengths[0] * 1e-6 if lengths[0] > 0 else np.zeros(len(lengths), dtype=bool)
    return (lengths[kept] / lengths[0]) ** 2, axes[kept]


def _power_with(share: float, variances: Floats, width: int) -> float:
    """The power of the covariance at which a drawn direction has this share on average."""
    if len(variances) == 0 or share <= 1 / width:
        return 0.0

    def expected(power: float) -> float:
        weights = variances**power
        return float((weights * variances).sum() / weights.sum() / variances.sum())

    low, high = 0.0, _HIGHEST_POWER
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if expected(middle) >= share else (middle, high)
    return high


def _apart(drawn: Floats, concept: Floats) -> Floats:
    return np.asarray(scaled(drawn - (drawn @ concept)[:, None] * concept, 1.0))
