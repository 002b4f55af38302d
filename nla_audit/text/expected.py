"""How alike two sentences are that say nothing alike: what texts share with their subject.

A sentence about a harbour resembles every sentence of a text about that harbour, whatever they
claim; one of another activation's text resembles none. So a similarity says that one sentence says
the other again only as far as it is beyond what the *other* sentences of the two texts let expect:
those of the second text beside the first sentence, and those of the first beside the second one.
Without that, two samples of one activation, of which judges found 50 to 56 % of the claims again,
were read as keeping 82 to 86 %.

A text may say one thing several times, and then its other sentences say the same again: they let
expect no more than the most that unrelated sentences are alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Weights of what either sentence's neighbours let expect, before anything is seen; they have as
#: much say as so many pairs of sentences.
_USUAL, _USUAL_PAIRS = (0.5, 0.5), 50
#: Few other sentences show little: the table's mean counts as much as so many of them.
_TABLE_PAIRS = 1.0


@dataclass(frozen=True)
class Grid:
    """Every sentence of one text beside every sentence of another, pair after pair of texts.

    Attributes:
        row, column: `[cells]`, the numbers of the two sentences.
        values: `[cells]`, their similarities.
    """

    row: Integers
    column: Integers
    values: Floats


@dataclass(frozen=True)
class Expected:
    """How alike sentences without a common claim are, by their neighbours.

    Attributes:
        mean: of sentences that are not matched with each other; ``None`` until it is measured.
        weights: of the means of the other sentences beside either.
        most: what is more alike than this says the same again, and counts as no more.
    """

    mean: float | None
    weights: tuple[float, float]
    most: float = np.inf

    @classmethod
    def fit(cls, grid: Grid, matched: Integers, most: float = np.inf) -> Expected:
        """By least squares, from all cells but the ``matched`` ones; alike from either side."""
        from scipy.optimize import nnls  # slow to import

        rest = _all_but(grid, matched)
        if not rest.any():
            return cls(0.0, _USUAL, most)
        mean = _mean(grid, rest, most)
        design = _neighbours(grid, rest, mean, most)[rest]
        values = np.minimum(grid.values[rest], most)
        squares = design.T @ design
        prior = np.diag(np.maximum(np.diag(squares) * (_USUAL_PAIRS / len(design)), 1e-12))
        # Least squares without negative weights, by the root of the normal equations.
        root = np.linalg.cholesky(squares + prior).T
        wanted = np.linalg.solve(root.T, design.T @ values + prior @ np.array(_USUAL))
        first, second = nnls(root, wanted)[0]
        return cls(mean, (float(first), float(second)), most)

    def elsewhere(self) -> Expected:
        """The same for pairs of texts of different activations, which have a mean of their own."""
        return replace(self, mean=None)

    def of(self, grid: Grid, matched: Integers) -> Floats:
        """What is expected of the ``matched`` cells."""
        rest = _all_but(grid, matched)
        mean = _mean(grid, rest, self.most) if self.mean is None else self.mean
        return _neighbours(grid, rest, mean, self.most)[matched] @ np.array(self.weights)


def _all_but(grid: Grid, matched: Integers) -> NDArray[np.bool_]:
    rest = np.ones(len(grid.values), dtype=bool)
    rest[matched] = False
    return rest


def _mean(grid: Grid, rest: NDArray[np.bool_], most: float) -> float:
    return float(np.minimum(grid.values[rest], most).mean()) if rest.any() else 0.0


def _neighbours(grid: Grid, rest: NDArray[np.bool_], mean: float, most: float) -> Floats:
    """`[cells, 2]`: how alike the other sentences are to either that are no partners.

    Args:
        rest: which cells are of sentences that are no partners.
        mean: what is taken, besides, for one sentence more.
        most: larger values count as this.
    """
    values = np.where(rest, np.minimum(grid.values, most), 0.0)
    columns = []
    for numbers in (grid.row, grid.column):
        total, count = np.bincount(numbers, values), np.bincount(numbers, rest)
        columns.append(
            (total[numbers] - values + _TABLE_PAIRS * mean) / (count[numbers] - rest + _TABLE_PAIRS)
        )
    return np.stack(columns, axis=-1)
