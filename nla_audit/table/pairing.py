"""Pairing by activation: every difference is taken within one activation, never across."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import polars as pl

from nla_audit.stats import Resampler
from nla_audit.table.completions import Completions

Rows = TypeVar("Rows", pl.DataFrame, pl.Series)
#: Models whose mean lengths differ by less than this share are called equally long.
EQUALLY_LONG = 0.05


def clusters(frame: pl.DataFrame) -> np.ndarray:
    """Labels to resample by, `[n_rows]`: the document where it is known, else the activation."""
    if "doc_id" in frame.columns and frame["doc_id"].null_count() == 0 and frame.height:
        return frame["doc_id"].to_numpy()
    return frame["idx"].to_numpy()


def with_documents(frame: pl.DataFrame, completions: Completions) -> pl.DataFrame:
    """``frame``, which has ``idx``, with a number for each document where the table names them."""
    if not completions.has("doc_id"):
        return frame
    documents = completions.rows.group_by("idx").agg(pl.col("doc_id").first())
    numbered = documents.with_columns(pl.col("doc_id").rank("dense").cast(pl.UInt32))
    return frame.join(numbered, on="idx", how="left", maintain_order="left")


def resampler(frame: pl.DataFrame, seed: int) -> Resampler:
    """The bootstrap for the rows of ``frame`` (needs ``idx``, uses ``doc_id``)."""
    return Resampler(clusters(frame), seed=seed)


def per_activation(completions: Completions, columns: list[str]) -> pl.DataFrame:
    """Means over samples, one row per (model, idx), with ``doc_id``; nulls do not count."""
    return (
        completions.rows.group_by("model", "idx")
        .agg(pl.col("doc_id").first(), *(pl.col(column).mean() for column in columns))
        .sort("model", "idx")
    )


def paired(completions: Completions, model: str, columns: list[str]) -> pl.DataFrame:
    """One row per activation: ``column`` of ``model`` beside ``column_reference``."""
    means = per_activation(completions, columns)
    own = means.filter(pl.col("model") == model)
    other = means.filter(pl.col("model") == completions.reference).select(
        "idx", *(pl.col(column).alias(f"{column}_reference") for column in columns)
    )
    return own.join(other, on="idx", how="inner").sort("idx")


def thinned(rows: Rows, most: int) -> Rows:
    """Every n-th of ``rows``, so that there are at most ``most``."""
    return rows.gather_every(max(1, -(-len(rows) // most)))


def drawn(completions: Completions, limit: int, seed: int) -> Completions:
    """The rows of at most ``limit`` activations, drawn at random; 0 is all."""
    if not limit:
        return completions
    return replace(completions, rows=rows_of_some(completions.rows, limit, [seed, 18]))


def rows_of_some(rows: pl.DataFrame, most: int, seed: list[int]) -> pl.DataFrame:
    """The rows of at most ``most`` activations, drawn at random where there are more."""
    every = rows["idx"].unique().sort().to_numpy()
    if len(every) <= most:
        return rows
    some = np.random.default_rng(seed).choice(every, most, replace=False)
    return rows.filter(pl.col("idx").is_in(some.tolist()))


def column(frame: pl.DataFrame, name: str) -> np.ndarray:
    """A numeric or Boolean column as floats; null becomes NaN."""
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def equally_long(completions: Completions) -> str | None:
    """The model nearest in length to the reference, if it is equally long.

    It bounds the resampling floor: a second sample of the reference keeps at least as much of the
    first as another model of that length does.
    """
    rows = completions.rows
    length = pl.col("content_tokens")
    if rows["content_tokens"].null_count() == rows.height:  # the table has no counts of tokens
        length = pl.col("explanation").str.count_matches(r"\S+")
    means = rows.group_by("model").agg(length.mean())
    lengths = {model: length for model, length in means.iter_rows() if length is not None}
    own = lengths.pop(completions.reference, 0.0)
    gaps = {model: abs(length - own) / own for model, length in lengths.items() if own > 0}
    nearest = min(sorted(gaps), key=lambda model: gaps[model], default=None)
    return nearest if nearest is not None and gaps[nearest] <= EQUALLY_LONG else None
