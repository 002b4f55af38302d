"""What the tests of verdicts count every number with, again and from the raw table.

The counting is plain code of its own: loops over rows, a bootstrap by hand. Only what an
explanation quotes and names is read with the package (:func:`nla_audit.text.items.items`), since
that is a rule of reading and not of counting.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

#: How a verdict names a model, and how it gives a number with its limits.
NAME = r"(?P<model>[\w.]+)"
TRIPLE = r"\((?P<value>[+-][\d.]+) \[(?P<low>[+-][\d.]+), (?P<high>[+-][\d.]+)\]\)"
_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*")


@cache
def plain_words(text: str) -> list[str]:
    found = _WORD.findall(unicodedata.normalize("NFKC", text))
    return [word.lower().replace("’", "'") for word in found]


def bootstrap(statistic: Callable[[np.ndarray], float], n: int) -> tuple[float, float]:
    """Limits of 95 % of ``statistic(rows drawn)`` over ``n`` rows drawn with replacement."""
    generator = np.random.default_rng(99)
    drawn = [statistic(generator.integers(0, n, n)) for _ in range(2000)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def assert_limits(
    printed: Sequence[float], counted: Sequence[float], *, rounding: float, slack: float = 0.12
) -> None:
    """Limits agree to within their rounding and the noise of two bootstraps."""
    width = counted[1] - counted[0]
    for one, other in zip(printed, counted, strict=True):
        assert abs(one - other) <= rounding + slack * width, (printed, counted)


def share(pairs: np.ndarray) -> float:
    """Σ part / Σ whole of `[n, 2]` pairs."""
    return float(pairs[:, 0].sum() / pairs[:, 1].sum())
