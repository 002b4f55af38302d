"""Matching: parts of two texts one to one, for the greatest total similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.expected import Grid
from nla_audit.text.vectors import Vectors, products

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: The number of a pair of texts, and the parts of either that are matched against each other.
Block = tuple[int, Integers, Integers]
#: Where the vectors of the parts of either text are.
Rows = tuple[Integers, Integers]


@dataclass(frozen=True)
class Matches:
    """One-to-one matches in many pairs of texts, in order of the pairs.

    Attributes:
        pair: `[matches]`, the number of the pair of texts.
        ours, theirs: `[matches]`, the matched sentences, or pieces.
        similarity: `[matches]`; of sentences that name other things as far as it counts.
        scores: `[matches]`, what each match is judged by: of sentences, how far their similarity is
            beyond what is expected of sentences without a common claim; of pieces, similarity.
    """

    pair: Integers
    ours: Integers
    theirs: Integers
    similarity: Floats
    scores: Floats


def assigned(table: Floats) -> tuple[Integers, Integers]:
    """Rows and columns of ``table`` that go together one to one, for the greatest sum."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    row, column = linear_sum_assignment(table, maximize=True)
    return row, column


def match_sentences(
    blocks: Sequence[Block],
    rows: Sequence[Rows],
    every: Vectors,
    weights: Sequence[Floats | None],
) -> tuple[Matches, Grid, Integers]:
    """Sentences matched one to one, all that they were compared with, and the matches' cells."""
    grid = _grid(blocks, rows, every)
    found, _, cells = _assign(blocks, grid.values, weights)
    return found, grid, cells


def match(
    blocks: Sequence[Block], rows: Sequence[Rows], every: Vectors
) -> tuple[Matches, Integers]:
    """One-to-one matches of greatest total similarity within each block, and their blocks."""
    found, block, _ = _assign(blocks, _grid(blocks, rows, every).values, None)
    return found, block


def _assign(
    blocks: Sequence[Block], values: Floats, weights: Sequence[Floats | None] | None
) -> tuple[Matches, Integers, Integers]:
    """The matches, the block of each, and its cell."""
    found: list[tuple[Integers, Integers, Floats, Integers]] = []
    start = 0
    for place, (_, a, b) in enumerate(blocks):
        size = len(a) * len(b)
        table = values[start : start + size].reshape(len(a), len(b))
        weight = None if weights is None else weights[place]
        weighed = table if weight is None else table * weight
        row, column = assigned(weighed)
        found.append((a[row], b[column], weighed[row, column], start + row * len(b) + column))
        start += size
    none = np.zeros(0, dtype=np.int64)
    found = found or [(none, none, np.zeros(0), none)]
    first, second, similarity, cells = (np.concatenate(part) for part in zip(*found, strict=True))
    block = np.repeat(np.arange(len(found)), [len(part[0]) for part in found])
    pair = np.array([number for number, _, _ in blocks], dtype=np.int64)[block]
    return Matches(pair, first, second, similarity, similarity), block, cells


def _grid(blocks: Sequence[Block], rows: Sequence[Rows], every: Vectors) -> Grid:
    """Every part of a block's first text beside every one of its second, block after block.

    Args:
        rows: for each pair of texts, where the vectors of either's parts are.
    """
    none = np.zeros(0, dtype=np.int64)
    first = np.concatenate([rows[number][0][a] for number, a, _ in blocks] or [none])
    second = np.concatenate([rows[number][1][b] for number, _, b in blocks] or [none])
    widths = np.array([len(b) for _, _, b in blocks], dtype=np.int64)
    begins = np.cumsum(widths) - widths
    # For each part of a first text, the width of its block's second and where that begins.
    own = np.repeat(np.arange(len(blocks)), [len(a) for _, a, _ in blocks])
    width, begin = widths[own], begins[own]
    row = np.repeat(np.arange(len(first)), width)
    column = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width - begin, width)
    return Grid(row, column, products(every, first[row], second[column]))
