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
#: Powers of the covariance that are tried; at this one little but the widest direction is left.
_HIGHEST_POWER = 8.0
_HALVINGS = 30
#: Share of the variance that is taken to lie in all directions alike: of a few activations in many
#: dimensions the covariance is not known.
_SHRUNK = 0.01


def random_directions(concept: Floats, number: int, seed: int) -> Floats:
    """``[number, d_model]`` unit vectors, uniform over those at a right angle to ``concept``."""
    drawn = np.random.default_rng([seed, 1]).normal(size=(number, len(concept)))
    return _apart(drawn, concept)


def variance_directions(
    concept: Floats, vectors: Floats, number: int, seed: int
) -> tuple[Floats, float]:
    """Random directions with the concept's share of the variance of activations, on average.

    They are drawn from a normal distribution whose covariance is a power of that of the
    activations. At power 0 all directions are alike, at 1 they are as activations are, and the
    power is the one at which these draws have the concept's share. A concept with less variance
    than directions have at random gets those.

    They are not turned away from the concept: where activations vary in few directions, what is
    left at a right angle to it would come back less than one more draw of the same kind does, and
    a concept that is one would be called carried too often.

    Args:
        concept: ``[d_model]`` of length 1.
        vectors: ``[n, d_model]`` activations, more than there are dimensions if they can be had: of
            few, the covariance holds what these happen to have in common.
        number: of directions.
        seed: of the draw.

    Returns:
        ``[number, d_model]`` unit vectors, and the concept's share.
    """
    directions = scaled(vectors, 1.0)
    centred = directions - directions.mean(axis=0)
    share = _shares(concept[None], centred)[0]
    drawn = np.random.default_rng([seed, 2]).normal(size=(number, len(concept)))
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    along = drawn @ axes.T
    across = drawn - along @ axes
    rest = _SHRUNK * (lengths**2).sum() / len(concept)
    variances = lengths**2 + rest

    def at_power(power: float) -> Floats:
        made = along * (variances / variances[0]) ** (power / 2) @ axes
        return scaled(made + across * (rest / variances[0]) ** (power / 2), 1.0)

    low, high = 0.0, _HIGHEST_POWER
    if lengths[0] == 0:  # all activations are one
        return scaled(drawn, 1.0), 0.0
    if _shares(at_power(low), centred).mean() >= share:
        return at_power(low), float(share)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_enough = _shares(at_power(middle), centred).mean() >= share
        low, high = (low, middle) if is_enough else (middle, high)
    return at_power(high), float(share)


def _shares(directions: Floats, centred: Floats) -> Floats:
    """``[k]`` shares of the variance of ``[n, d_model]`` along ``[k, d_model]`` unit vectors."""
    total = float((centred**2).sum())
    along = ((centred @ directions.T) ** 2).sum(axis=0)
    return np.asarray(along / total if total > 0 else np.zeros(len(directions)))


def at_right_angle(vector: Floats, concept: Floats) -> Floats:
    """``vector`` without its component along ``concept``, at length 1."""
    return _apart(vector[None], concept)[0]


def _apart(drawn: Floats, concept: Floats) -> Floats:
    return np.asarray(scaled(drawn - (drawn @ concept)[:, None] * concept, 1.0))
