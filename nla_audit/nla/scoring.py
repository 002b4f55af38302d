"""Score rows of text against activations: every distinct text is read once, in batches.

The one place where texts meet activations; :meth:`Reconstructor.score`, ``explain`` and
``score`` all go through it. With shards, a batch that was read once is not read again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.nla.batching import Notice
from nla_audit.nla.fve import (
    BASELINE_NAMES,
    BaselineName,
    Baselines,
    Floats,
    fraction_of_variance_explained,
    squared_error,
    unusable,
)
from nla_audit.progress import Progress, silent
from nla_audit.shards import Shards

if TYPE_CHECKING:
    from nla_audit.nla.reconstructor import ReadingPlan

#: Why a text has no score that an AR has no room for.
TOO_LONG = "too long for the AR"
#: Rows compared at once, in float64: thousands of rows may have one text (the empty one).
_COMPARED_ROWS = 4096


class TextReader(Protocol):
    """What reads texts: a :class:`~nla_audit.nla.reconstructor.Reconstructor`, or one elsewhere."""

    mse_scale: float | None

    def plan(self, texts: Iterable[str | None], *, token_budget: int | None) -> ReadingPlan:
        """Which batches the distinct texts are read in."""

    def read_each(
        self, reading: ReadingPlan, numbers: Iterable[int], *, notice: Notice
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Number and vectors ``[batch, d_model]`` of each of the batches ``numbers``."""


@dataclass(frozen=True)
class RowScores:
    """Scores of ``n`` rows; NaN where ``reasons`` says why there is none.

    Attributes:
        mse: ``[n]``.
        cosine: ``[n]``.
        reasons: ``[n]``, ``None`` where there is a score.
        distinct_texts: how many texts were read.
    """

    mse: Floats
    cosine: Floats
    reasons: list[str | None]
    distinct_texts: int


def score_rows(
    reconstructor: TextReader,
    texts: Sequence[str | None],
    targets: npt.NDArray[np.float32],
    target_of: Sequence[int] | npt.NDArray[np.int64],
    *,
    token_budget: int | None = None,
    shards: Shards | None = None,
    stage: str = "read",
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> RowScores:
    """Score text *i* against ``targets[target_of[i]]``.

    Args:
        texts: ``[n]``; ``None`` where there is nothing to read.
        targets: ``[m, d_model]`` activations, raw.
        target_of: ``[n]`` rows of ``targets``.
        token_budget: tokens of a batch, padding included.
        shards: where finished batches are kept, if they are.
        stage: name of the work in ``shards``.
        progress: told of distinct texts read.
        notice: told when a batch is halved.
    """
    reading = reconstructor.plan(texts, token_budget=token_budget)
    rows_of = _rows_of(texts, reading.texts)
    target_rows = np.asarray(target_of, dtype=np.int64)
    mse = np.full(len(texts), np.nan)
    cosine = np.full(len(texts), np.nan)
    total = sum(len(batch) for batch in reading.batches)
    done = 0
    missing = []

    def take(piece: pl.DataFrame, number: int) -> None:
        nonlocal done
        rows = piece["row"].to_numpy()
        mse[rows] = piece["mse"].to_numpy()
        cosine[rows] = piece["cosine"].to_numpy()
        done += len(reading.batches[number])

    for number in range(len(reading.batches)):
        piece = shards.get(stage, number) if shards is not None else None
        if piece is None:
            missing.append(number)
        else:
            take(piece, number)
    progress("reading", done, total)
    for number, vectors in reconstructor.read_each(reading, missing, notice=notice):
        piece = _compared(
            vectors,
            [rows_of[place] for place in reading.batches[number]],
            targets,
            target_rows,
            reconstructor.mse_scale,
        )
        if shards is not None:
            shards.put(stage, number, piece)
        take(piece, number)
        progress("reading", done, total)
    reasons = _reasons(texts, _in(reading), unusable(targets), target_rows, mse)
    return RowScores(mse, cosine, reasons, total)


def readable(reader: TextReader, texts: Iterable[str | None]) -> set[str]:
    """Those of ``texts`` that ``reader`` has room for."""
    return _in(reader.plan(texts, token_budget=None))


def _in(reading: ReadingPlan) -> set[str]:
    return {reading.texts[place] for batch in reading.batches for place in batch}


def score_columns(
    scores: RowScores, baselines: Baselines, chosen: BaselineName
) -> dict[str, pl.Series]:
    """The columns of a completions table that come from an AR; null where there is no score.

    ``fve_baseline`` and ``fve_baseline_value`` say in every row what FVE is measured against.
    """
    fve = {
        name: fraction_of_variance_explained(scores.mse, baselines.of(name))
        for name in BASELINE_NAMES
    }
    numbers = {
        "mse": scores.mse,
        "nmse": scores.mse / baselines.of(chosen),
        "cosine": scores.cosine,
        "fve": fve[chosen],
        **{f"fve_{name}": values for name, values in fve.items()},
    }
    return {
        **{name: pl.Series(name, values, nan_to_null=True) for name, values in numbers.items()},
        **baseline_columns(chosen, baselines, len(scores.mse)),
    }


def baseline_columns(
    chosen: BaselineName, baselines: Baselines, n_rows: int
) -> dict[str, pl.Series]:
    """Name and value of the baseline of column ``fve``, ``[n_rows]`` each."""
    return {
        "fve_baseline": pl.repeat(chosen, n_rows, dtype=pl.String, eager=True),
        "fve_baseline_value": pl.repeat(baselines.of(chosen), n_rows, dtype=pl.Float64, eager=True),
    }


def _rows_of(texts: Sequence[str | None], distinct: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """For each distinct text, the rows that hold it."""
    place = {text: number for number, text in enumerate(distinct)}
    rows: list[list[int]] = [[] for _ in distinct]
    for row, text in enumerate(texts):
        if text is not None:
            rows[place[text]].append(row)
    return [np.array(found, dtype=np.int64) for found in rows]


def _compared(
    vectors: npt.NDArray[np.float32],
    rows_of: Sequence[npt.NDArray[np.int64]],
    targets: npt.NDArray[np.float32],
    target_rows: npt.NDArray[np.int64],
    mse_scale: float | None,
) -> pl.DataFrame:
    """``row``, ``mse`` and ``cosine`` of every row that has one of the texts just read."""
    rows = np.concatenate(rows_of)
    vector_of = np.repeat(np.arange(len(rows_of)), [len(found) for found in rows_of])
    mse = np.empty(len(rows))
    cosine = np.empty(len(rows))
    for start in range(0, len(rows), _COMPARED_ROWS):
        part = slice(start, start + _COMPARED_ROWS)
        mse[part], cosine[part] = squared_error(
            vectors[vector_of[part]], targets[target_rows[rows[part]]], mse_scale
        )
    return pl.DataFrame({"row": rows, "mse": mse, "cosine": cosine})


def _reasons(
    texts: Sequence[str | None],
    is_read: set[str],
    target_problems: Sequence[str | None],
    target_rows: npt.NDArray[np.int64],
    mse: Floats,
) -> list[str | None]:
    reasons: list[str | None] = []
    for text, target, error in zip(texts, target_rows, mse, strict=True):
        problem = target_problems[target]
        if text is None:
            reasons.append("no explanation")
        elif problem is not None:
            reasons.append(f"activation: {problem}")
        elif text not in is_read:
            reasons.append(TOO_LONG)
        elif np.isnan(error):
            reasons.append("reconstruction is zero or not finite")
        else:
            reasons.append(None)
    return reasons
