"""Seeds of the streams of randomness, so that each step can be drawn again by itself."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Use(IntEnum):
    """What randomness is for; two uses never draw the same numbers."""

    TARGET = 0
    DOCUMENTS = 1
    POSITIONS = 2
    GOLD = 3
    ADAPTERS = 4
    AV_WARM_START = 5
    AR_WARM_START = 6
    PROMPTS = 7
    SAMPLING = 8
    EVALUATION = 9
    COMPLETIONS = 10
    AR_ADAPTERS = 11
    GRADING = 12
    PREFIXES = 13
    SEPARATOR = 14
    PASSAGES = 15
    GENERATED = 16
    REPLACEMENTS = 17


def stream(seed: int, use: Use, *more: int) -> np.random.Generator:
    """A generator for one use of one run (and step)."""
    return np.random.default_rng([seed, use, *more])


def derived(seed: int, use: Use, *more: int) -> int:
    """A seed for something that wants a whole number."""
    return int(stream(seed, use, *more).integers(2**31))


def rows_of_step(
    seed: int, use: Use, step: int, rows: int, total: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """``[rows]`` places among ``total``: a pass over all in random order, then another order.

    A step is known by its number alone; nothing carries over from the step before.
    """
    places = np.arange(step * rows, (step + 1) * rows)
    out = np.empty(rows, dtype=np.int64)
    for epoch in np.unique(places // total):
        order = stream(seed, use, int(epoch)).permutation(total)
        of_epoch = places // total == epoch
        out[of_epoch] = order[places[of_epoch] % total]
    return out
