"""The rows of one model as arrays, activations by strengths: all is paired by activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.stats import Resampler
from nla_audit.table.pairing import clusters, column

Floats = NDArray[np.float64]

#: The detectors of a mention.
WORDS, NEARNESS, LLM = "words", "similarity", "llm"
DETECTORS = (WORDS, NEARNESS, LLM)
#: What each of them says in the table.
_COLUMN_OF = {WORDS: "named", NEARNESS: "nearness", LLM: "llm_named"}
_PLACES = ("first_token", "first_claim", "first_segment")
#: Share of unplanted explanations that detection by embeddings may take for mentions.
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Cube:
    """One model.

    Attributes:
        model: its name.
        rows: its rows of the table, with a column ``said`` (1, 0 or null).
        idx: activations of the whole table, sorted.
        clusters: ``[activations]`` labels to resample by.
        strengths: of the whole table, ascending, 0 first.
        seed: of the bootstrap.
    """

    model: str
    rows: pl.DataFrame
    idx: tuple[str, ...]
    clusters: NDArray[np.generic]
    strengths: Floats
    seed: int

    def of(self, kind: str, name: str) -> Floats:
        """``[activations, strengths]`` of a numeric column; NaN where there is none."""
        out = np.full((len(self.idx), len(self.strengths)), np.nan)
        rows = self.rows.filter(pl.col("kind") == kind)
        out[self._places(rows), self._levels(rows)] = column(rows, name)
        return out

    def names(self, kind: str) -> NDArray[np.object_]:
        """``[activations]`` names of the planted directions; ``None`` where there is none."""
        out = np.full(len(self.idx), None, dtype=object)
        rows = self.rows.filter(pl.col("kind") == kind)
        out[self._places(rows)] = rows["direction"].to_numpy()
        return out

    @property
    def kinds(self) -> list[str]:
        """Kinds of directions that were planted."""
        return self.rows["kind"].unique(maintain_order=True).to_list()

    @cached_property
    def resampler(self) -> Resampler:
        """Over the activations (documents, where they are known)."""
        return Resampler(self.clusters, seed=self.seed)

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {idx: place for place, idx in enumerate(self.idx)}

    def _places(self, rows: pl.DataFrame) -> list[int]:
        return [self._place_of[idx] for idx in rows["idx"]]

    def _levels(self, rows: pl.DataFrame) -> NDArray[np.int64]:
        return np.searchsorted(self.strengths, rows["strength"].to_numpy())


def cubes(frame: pl.DataFrame, models: Sequence[str], seed: int) -> dict[str, Cube]:
    """One for each model, over the same activations and strengths."""
    keys = frame.select("idx", "doc_id").unique("idx", keep="first").sort("idx")
    idx, labels = tuple(keys["idx"].to_list()), clusters(keys)
    strengths = np.unique(np.append(frame["strength"].to_numpy(), 0.0))
    return {
        model: Cube(model, frame.filter(pl.col("model") == model), idx, labels, strengths, seed)
        for model in models
    }


def is_known(frame: pl.DataFrame, detector: str) -> bool:
    """Whether a table holds anything of a detector."""
    column = frame[_COLUMN_OF[detector]]
    return column.null_count() < len(column)


def unanswered(frame: pl.DataFrame, detector: str) -> pl.DataFrame:
    """The rows whose explanation is not judged because a language model gave no answer."""
    if detector != LLM:
        return frame.clear()
    return frame.filter(pl.col("explanation").is_not_null() & pl.col("llm_named").is_null())


def with_said(frame: pl.DataFrame, detector: str) -> tuple[pl.DataFrame, float | None]:
    """The table with a column ``said``, and from which nearness on a text counts as a mention.

    Where a language model is the detector, the places of first mentions are those that it quotes.

    The limit of detection by embeddings is the nearness that :data:`FALSE_ALARMS` of unplanted
    explanations exceed, on one half of the activations; ``said`` is null for unplanted ones of
    that half, so that the false alarm rate is measured on the other.
    """
    if detector == WORDS:
        return frame.with_columns(said=pl.col("named").cast(pl.Float64)), None
    if detector == LLM:
        places = {name: pl.col(f"llm_{name}") for name in _PLACES}
        return frame.with_columns(said=pl.col("llm_named").cast(pl.Float64), **places), None
    half = pl.col("idx").rank("dense") % 2 == 0
    unplanted = pl.col("strength") == 0
    known = frame.filter(half & unplanted)["nearness"].drop_nulls()
    if known.is_empty():
        return frame.with_columns(said=pl.lit(None, dtype=pl.Float64)), None
    limit = float(np.quantile(known.to_numpy(), 1 - FALSE_ALARMS, method="higher"))
    said = (pl.col("nearness") > limit).cast(pl.Float64)
    # An empty explanation has no claim, and names nothing.
    said = (
        pl.when(pl.col("nearness").is_null() & pl.col("explanation").is_not_null())
        .then(0.0)
        .otherwise(said)
    )
    return frame.with_columns(said=pl.when(~(half & unplanted)).then(said)), limit
