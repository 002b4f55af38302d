"""From what graded ends are worth to the credit of every token.

An end is compared with the same end of the other responses of its group: its baseline is their
mean. With ``segment`` credit a token gets the sum over the ends at or behind it, for it cannot
have changed what was graded before; with ``response`` credit every token gets the sum over all.
The standard deviation that advantages are divided by is that of the whole responses' worth, so
that ends keep their weights: within the group, or about the groups' means over the whole step. A
response that did not reach an end counts there as the mean of those that did: neither reaching an
end nor missing it earns anything by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from nla_audit.train.grading import Ends
from nla_audit.train.grpo import STD_FLOOR, AdvantageKind, Floats

Flags = npt.NDArray[np.bool_]
CreditKind = Literal["segment", "response"]


def end_advantages(
    values: Floats,
    is_reached: Flags,
    group: int,
    kind: AdvantageKind,
    everywhere: Callable[[Floats], Floats] = lambda own: own,
) -> Floats:
    """Advantages ``[n, ends]`` of ``values``; 0 where an end was not reached.

    Each ``group`` neighbours share an activation. Where all that reached an end are equal there,
    it says nothing about what is better.

    Args:
        everywhere: from numbers of this process to those of all, for a spread over the step.
    """
    centered, filled = _against_group(values, is_reached, group)
    if kind == "centered":
        return centered
    if kind == "standardized":
        spread = filled.std(axis=1, keepdims=True) + STD_FLOOR
        return centered / np.repeat(spread, group, axis=0)
    deviations = everywhere((filled - filled.mean(axis=1, keepdims=True)).ravel())
    return centered / (math.sqrt(np.mean(deviations**2)) + STD_FLOOR if len(deviations) else 1.0)


def is_telling(values: Floats, is_reached: Flags, group: int) -> Flags:
    """``[groups]`` whether any end has two different values in it, and so an advantage."""
    centered, _ = _against_group(values, is_reached, group)
    return np.asarray((centered != 0).reshape(-1, group * values.shape[1]).any(axis=1))


def _against_group(values: Floats, is_reached: Flags, group: int) -> tuple[Floats, Floats]:
    """``[n, ends]`` of values minus the mean of the group that reached the end, and
    ``[groups, group]`` of what whole responses are worth."""
    centered = np.zeros(values.shape)
    filled = np.zeros((len(values) // group, group))
    for end in range(values.shape[1]):
        reached = np.ascontiguousarray(is_reached[:, end]).reshape(-1, group)
        grouped = np.where(reached, values[:, end].reshape(-1, group), 0.0)
        mean = grouped.sum(axis=1, keepdims=True) / np.maximum(
            reached.sum(axis=1, keepdims=True), 1
        )
        lowest = np.where(reached, grouped, np.inf).min(axis=1)
        highest = np.where(reached, grouped, -np.inf).max(axis=1)
        difference = np.where(reached, grouped - mean, 0.0)
        # The mean of equal numbers may differ from them in the last digit; equal is equal.
        difference[lowest >= highest] = 0.0
        centered[:, end] = difference.ravel()
        filled = filled + np.where(reached, grouped, mean)
    return centered, filled


def token_credit(advantages: Floats, ends: Ends, longest: int, how: CreditKind) -> Floats:
    """Credit ``[n, longest]`` of tokens from advantages ``[n, ends]`` of ends.

    Zero behind a response's last end, where there is no token.
    """
    places = np.arange(longest)[None, :]
    last = ends.stops.max(axis=1)[:, None]
    credit = np.zeros((len(advantages), longest))
    for end in range(advantages.shape[1]):
        reach = ends.stops[:, end][:, None] if how == "segment" else last
        credited = (places < reach) & ends.is_reached[:, end][:, None]
        credit += np.where(credited, advantages[:, end][:, None], 0.0)
    return credit
