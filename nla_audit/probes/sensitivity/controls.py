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
#: Powers of the covariance that are tried, up and down; at this one little but the widest
#: direction is left.
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
    """Random directions, each with the concept's share of the variance of activations.

    They are drawn from a normal distribution whose covariance is a power of that of the
    activations. At power 0 all directions are alike, at 1 they are as activations are, below 0
    those are likeliest in which activations vary least. The share of each draw rises with the
    power, and each gets the power at which it has the concept's, so that they differ in where they
    point and not in how much activations vary along them.

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
    drawn = np.random.default_rng([seed, 2]).normal(size=(number, len(concept)))
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    if np.allclose(centred, 0.0):  # all activations are one, but for rounding
        return scaled(drawn, 1.0), 0.0
    share = _shares(concept[None], centred)[0]
    along = drawn @ axes.T
    across = drawn - along @ axes
    rest = _SHRUNK * (lengths**2).sum() / len(concept)
    widths = (lengths**2 + rest) / (lengths[0] ** 2 + rest)

    def at_power(power: Floats) -> Floats:
        """Each draw at its own of ``[number, 1]`` powers."""
        narrowest = rest / (lengths[0] ** 2 + rest)
        made = along * widths ** (power / 2) @ axes
        return scaled(made + across * narrowest ** (power / 2), 1.0)

    low, high = np.full((number, 1), -_HIGHEST_POWER), np.full((number, 1), _HIGHEST_POWER)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_enough = _shares(at_power(middle), centred)[:, None] >= share
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    return at_power(high), float(share)


def _shares(directions: Floats, centred: Floats) -> Floats:
    """``[k]`` shares of the variance of ``[n, d_model]`` along ``[k, d_model]`` unit vectors."""
    return np.asarray(((centred @ directions.T) ** 2).sum(axis=0) / (centred**2).sum())


def at_right_angle(vector: Floats, concept: Floats) -> Floats:
    """``vector`` without its component along ``concept``, at length 1."""
    return _apart(vector[None], concept)[0]


def _apart(drawn: Floats, concept: Floats) -> Floats:
    return np.asarray(scaled(drawn - (drawn @ concept)[:, None] * concept, 1.0))
